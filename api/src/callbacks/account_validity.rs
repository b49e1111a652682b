//! Account validity. Source: Synapse's `AccountValidityModuleApiCallbacks`.

use ruma_common::OwnedUserId;
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::category;
use crate::callback::Candidate;
use crate::json::{FromJson, JsonError, JsonPath, json_object};
use crate::types::{HttpRequest, Secret};

category! {
    /// Functions of a module that answer account-validity callbacks.
    AccountValidity, AccountValidityCallbacks, register_account_validity_callbacks;

    /// Is this account expired? Asked on nearly every request of the account; both answers end the chain.
    IsUserExpired, is_user_expired, "1.39", Error, FirstAnswer<Expiry>, by user_id {
        /// The account.
        user_id: OwnedUserId,
    }

    /// An account was registered. A failure breaks the request, though the account exists.
    OnUserRegistration, on_user_registration, "1.39", Error, Notify, by user_id {
        /// The account.
        user_id: OwnedUserId,
    }

    /// A user logged in. A failure breaks the request, though the device exists.
    OnUserLogin, on_user_login, "1.98", Error, Notify, by user_id {
        /// Who.
        user_id: OwnedUserId,
        /// The login type.
        auth_provider_type [optional]: Option<String>,
        /// The single sign-on provider.
        auth_provider_id [optional]: Option<String>,
    }

    /// Sends the mail that asks a user to renew, in place of the homeserver's own mailer.
    OnLegacySendMail, on_legacy_send_mail, "1.39", Error, SingleOwner<()>, by user_id {
        /// Who is asked.
        user_id: OwnedUserId,
    }

    /// Renews an account by the token of a mail.
    OnLegacyRenew, on_legacy_renew, "1.39", Error, SingleOwner<LegacyRenewal> {
        /// The token.
        renewal_token: Secret<String>,
    }

    /// Answers the admin API of account validity; the value is returned to the caller as it is.
    OnLegacyAdminRequest, on_legacy_admin_request, "1.39", Error, SingleOwner<Value> {
        /// The request.
        request: Secret<HttpRequest>,
    }
}

/// The answer of `is_user_expired`: true and false in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// The account is expired.
    Expired,
    /// The account is valid, whatever later modules think.
    Valid,
}

impl Candidate for Expiry {}

impl FromJson for Expiry {
    const TYPE: &'static str = "bool";

    fn from_json(value: Value, at: &JsonPath<'_>) -> Result<Self, JsonError> {
        Ok(if bool::from_json(value, at)? {
            Self::Expired
        } else {
            Self::Valid
        })
    }
}

impl Serialize for Expiry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(*self == Self::Expired)
    }
}

json_object! {
    /// The answer of `on_legacy_renew`.
    #[derive(Eq)]
    LegacyRenewal {
        /// Whether the token was valid.
        valid: bool,
        /// Whether it was used before.
        stale: bool,
        /// When the account expires, milliseconds since the Unix epoch.
        expiration_ts: i64,
    }
}
