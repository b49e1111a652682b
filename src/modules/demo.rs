//! `demo.DemoModule`: the module that the README shows.

use ganglion_api::{
    Denial, MatrixError, Module, ModuleApi, ModuleError, OwnedUserId, SpamCheckerCallbacks, UserMayCreateRoom, Verdict,
    WebRequest, WebResponse, json_response, query_parameter,
};
use ruma_common::user_id;
use serde::Deserialize;
use serde_json::json;

const HELLO: &str = "/_synapse/client/demo/hello";

/// Denies one user to create rooms, and says hello.
#[derive(Debug)]
pub struct DemoModule {
    deny_user: OwnedUserId,
}

/// The config of [`DemoModule`]; other keys are ignored.
#[derive(Debug, Clone, Deserialize)]
pub struct DemoConfig {
    #[serde(default = "evil_guy")]
    deny_user: OwnedUserId,
}

fn evil_guy() -> OwnedUserId {
    user_id!("@evilguy:example.com").to_owned()
}

impl Module for DemoModule {
    type Config = DemoConfig;

    fn new(config: DemoConfig, api: &ModuleApi<Self>) -> Result<Self, ModuleError> {
        api.register_spam_checker_callbacks(
            SpamCheckerCallbacks::new().user_may_create_room(Self::user_may_create_room),
        )?;
        api.register_web_resource(HELLO, Self::hello)?;
        Ok(Self {
            deny_user: config.deny_user,
        })
    }
}

impl DemoModule {
    async fn user_may_create_room(&self, args: &UserMayCreateRoom) -> Result<Verdict, ModuleError> {
        if args.user_id == self.deny_user {
            return Ok(Verdict::Deny(Denial::forbidden()));
        }
        Ok(Verdict::Pass)
    }

    async fn hello(&self, request: WebRequest) -> Result<WebResponse, ModuleError> {
        if request.uri().path().trim_end_matches('/') != HELLO {
            Err(MatrixError::new(404, "M_UNRECOGNIZED", "nothing is here"))?;
        }
        if request.method() != ::http::Method::GET {
            Err(MatrixError::new(405, "M_UNRECOGNIZED", "use GET"))?;
        }
        json_response(200, &json!({"hello": query_parameter(&request, "name")?}))
    }
}
