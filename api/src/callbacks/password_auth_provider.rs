//! Password authentication. Source: Synapse's `PasswordAuthProvider`.

use std::sync::Arc;

use ruma_common::OwnedUserId;

use super::category;
use crate::ModuleError;
use crate::json::{JsonError, JsonObject, JsonPath};
use crate::registration::{BoxedFunction, Concern, LocalFuture, LoginType, Subscriber};
use crate::types::{AuthenticatedUser, Secret};
use crate::verdict::Verdict;

category! {
    /// Functions of a module that answer password-auth-provider callbacks.
    PasswordAuthProvider, PasswordAuthProviderCallbacks, register_password_auth_provider_callbacks;

    /// Who is this? Asked of the modules that declared the login type, each with just the fields that they declared.
    /// If nobody knows, the homeserver asks its own database.
    AuthCheckers, auth_checkers, "1.46", Pass, FirstAnswer<AuthenticatedUser> [custom], later login {
        /// The user name as it was typed: without `@` or server perhaps.
        username: String,
        /// The login type, for example `m.login.password`.
        login_type: String,
        /// The declared fields.
        login_dict: Secret<JsonObject>,
    }

    /// Who logs in with this address and password? Not asked at registration.
    Check3pidAuth, check_3pid_auth, "1.46", Pass, FirstAnswer<AuthenticatedUser>, later login {
        /// `email` or `msisdn`.
        medium: String,
        /// The address; e-mail addresses in their canonical form.
        address: String,
        /// The password.
        password: Secret<String>,
    }

    /// An access token was deleted.
    OnLoggedOut, on_logged_out, "1.46", Pass, Notify, by user_id {
        /// Whose.
        user_id: OwnedUserId,
        /// The device.
        device_id [optional]: Option<String>,
        /// The token.
        access_token: Secret<String>,
    }

    /// Which user name does a new account get? Even an empty string is an answer.
    GetUsernameForRegistration, get_username_for_registration, "1.52", InternalError, FirstAnswer<String> {
        /// What the stages of the registration gave.
        uia_results: JsonObject,
        /// The request's body, without `auth` and `password`.
        params: JsonObject,
    }

    /// Which display name does a new account get?
    GetDisplaynameForRegistration, get_displayname_for_registration, "1.54", InternalError, FirstAnswer<String> {
        /// What the stages of the registration gave.
        uia_results: JsonObject,
        /// The request's body, without `auth` and `password`.
        params: JsonObject,
    }

    /// May this address be used here? A denial is 403 `M_THREEPID_DENIED`.
    Is3pidAllowed, is_3pid_allowed, "1.53", InternalError, FirstDeny<Verdict> {
        /// `email` or `msisdn`.
        medium: String,
        /// The address.
        address: String,
        /// Whether it is for a new account.
        registration: bool,
    }
}

/// A module's checkers, one for each login type that it declares.
#[derive(Debug)]
pub struct LoginTypes<M> {
    checkers: Vec<(LoginType, BoxedFunction<M, AuthCheckers>)>,
}

impl<M> Default for LoginTypes<M> {
    fn default() -> Self {
        Self { checkers: Vec::new() }
    }
}

impl<M: Send + Sync + 'static> LoginTypes<M> {
    /// No login types yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Declares a login type with the fields that a login must have, and its checker. Login types of all modules must
    /// agree on the fields, else the start fails (Synapse promises that and does not do it).
    #[must_use]
    pub fn login_type<F>(mut self, name: &str, fields: impl IntoIterator<Item: Into<String>>, checker: F) -> Self
    where
        F: AsyncFn(&M, &AuthCheckers) -> Result<Option<AuthenticatedUser>, ModuleError> + Send + Sync + 'static,
    {
        let login_type = LoginType {
            name: name.into(),
            fields: fields.into_iter().map(Into::into).collect(),
        };
        self.checkers.push((login_type, BoxedFunction::new(checker)));
        self
    }
}

impl<M> LoginTypes<M> {
    /// Stands on a route for checkers whose module is gone.
    pub(crate) fn vacant(declared: Vec<LoginType>) -> Arc<dyn Subscriber<AuthCheckers>> {
        Arc::new(VacantCheckers(declared))
    }

    pub(crate) fn declared(&self) -> Vec<LoginType> {
        self.checkers.iter().map(|(login_type, _)| login_type.clone()).collect()
    }
}

impl<M: Send + Sync + 'static> LoginTypes<M> {
    pub(crate) fn bind(self, module: Arc<M>) -> Arc<dyn Subscriber<AuthCheckers>> {
        Arc::new(Checkers {
            module,
            checkers: self.checkers,
        })
    }
}

impl<M: Send + Sync + 'static> PasswordAuthProviderCallbacks<M> {
    /// Answers [`AuthCheckers`] for these login types.
    #[must_use]
    pub fn auth_checkers(mut self, login_types: LoginTypes<M>) -> Self {
        self.functions = self.functions.auth_checkers(login_types);
        self
    }
}

struct Checkers<M> {
    module: Arc<M>,
    checkers: Vec<(LoginType, BoxedFunction<M, AuthCheckers>)>,
}

impl<M> Checkers<M> {
    fn find(&self, login_type: &str) -> Option<(&LoginType, &BoxedFunction<M, AuthCheckers>)> {
        self.checkers
            .iter()
            .find(|(declared, _)| declared.name == login_type)
            .map(|(declared, checker)| (declared, checker))
    }
}

impl<M: Send + Sync + 'static> Subscriber<AuthCheckers> for Checkers<M> {
    fn call<'a>(&'a self, args: &'a AuthCheckers) -> LocalFuture<'a, Result<Option<AuthenticatedUser>, ModuleError>> {
        Box::pin(async move {
            let Some((declared, checker)) = self.find(&args.login_type) else {
                return Ok(None);
            };
            let fields = args
                .login_dict
                .expose()
                .iter()
                .filter(|(key, _)| declared.fields.contains(*key));
            let fields = fields
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect::<JsonObject>();
            let declared = AuthCheckers::new(args.username.clone(), args.login_type.clone(), fields);
            checker.call(&self.module, &declared).await
        })
    }

    fn concern(&self, args: &AuthCheckers) -> Result<Concern, JsonError> {
        concern(self.find(&args.login_type).map(|(declared, _)| declared), args)
    }
}

/// Declared login types without their checkers.
struct VacantCheckers(Vec<LoginType>);

impl Subscriber<AuthCheckers> for VacantCheckers {
    fn call<'a>(&'a self, _args: &'a AuthCheckers) -> LocalFuture<'a, Result<Option<AuthenticatedUser>, ModuleError>> {
        Box::pin(async { Err(ModuleError::not_running()) })
    }

    fn concern(&self, args: &AuthCheckers) -> Result<Concern, JsonError> {
        concern(self.0.iter().find(|declared| declared.name == args.login_type), args)
    }
}

/// Whether a login concerns a module that declared this for its type, and has the fields that were declared.
fn concern(declared: Option<&LoginType>, args: &AuthCheckers) -> Result<Concern, JsonError> {
    let Some(declared) = declared else {
        return Ok(Concern::Skipped);
    };
    let login_dict = args.login_dict.expose();
    match declared.fields.iter().find(|field| !login_dict.contains_key(*field)) {
        Some(field) => Err(JsonError::missing(&JsonPath::Key(
            &JsonPath::Key(&JsonPath::Root, "login_dict"),
            field,
        ))),
        None => Ok(Concern::Asked),
    }
}
