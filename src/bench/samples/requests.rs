//! What requests of users and administrators bring along.

use serde_json::{Value, json};

use super::{About, NOW, World};

/// The file of a media question: mostly an image of a phone, sometimes a large one.
const FILES: [usize; 8] = [8_000, 16_000, 16_000, 48_000, 48_000, 100_000, 200_000, 800_000];

impl World {
    /// An arg of a request that is about a room, a file or a search.
    pub(super) fn of_request(&mut self, name: &str, about: &About) -> Option<Value> {
        Some(match name {
            "address" if about.medium == "email" => json!(self.email()),
            "address" => json!(format!("49170{}", self.number(1_000_000..9_999_999))),
            "account_data_type" => json!("m.fully_read"),
            "attempted_bytes" | "size" => json!(self.number(10_000..20_000_000)),
            "event_type" => json!("m.room.topic"),
            "state_key" => json!(""),
            "file_base64" => self.file(),
            "file_info" => self.file_info(),
            "is_invited" => json!(self.percent(40)),
            "is_requester_admin" | "by_admin" => json!(self.percent(2)),
            "limit" => json!({"max_bytes": 50_000_000, "time_period_ms": 86_400_000}),
            "limiter_name" => {
                let of = ["per_room", "per_user", "per_issuer"][self.rng.usize(0..3)];
                json!(format!("rc_invites.{of}"))
            }
            "medium" => json!(about.medium),
            "new_visibility" => json!(if self.percent(70) { "public" } else { "private" }),
            "request_content" | "room_config" => self.room_config(),
            "requester" => json!({"user_id": about.user, "device_id": self.token(10)}),
            "room_alias" => json!(format!("#{}:{}", self.token(10).to_lowercase(), self.server)),
            "sent_bytes" => json!(self.number(40_000_000..50_000_000)),
            "user_profile" => {
                json!({"user_id": self.any_user(), "display_name": self.words(8), "avatar_url": self.mxc()})
            }
            _ => return None,
        })
    }

    /// An arg of a login, a registration or another change of an account.
    pub(super) fn of_account(&mut self, name: &str, about: &About) -> Option<Value> {
        Some(match name {
            "access_token" | "renewal_token" | "password" => json!(self.token(32)),
            "auth_provider_id" => Value::Null,
            "auth_provider_type" => json!("m.login.password"),
            "database_name" => json!("main"),
            "update_name" => json!("event_search_postgres_gin"),
            "one_shot" => json!(false),
            "deactivated" | "deactivation" => json!(self.percent(10)),
            "device_id" => json!(self.token(10)),
            "initial_display_name" => json!(format!("Element {}", self.token(6))),
            "email_threepid" => json!({"medium": "email", "address": self.email(), "validated_at": NOW}),
            "login_dict" => self.login_fields(about),
            "login_type" => json!(self.login_type(about)),
            "new_profile" => json!({"display_name": self.words(8), "avatar_url": self.mxc()}),
            "params" => json!({"username": self.token(8), "inhibit_login": false}),
            "registration" => json!(self.percent(50)),
            "request" => json!({"method": "POST", "path": "/_synapse/admin/v1/account_validity/validity", "query": "",
                                "headers": [["content-type", "application/json"]], "body_base64": "e30="}),
            "request_info" => json!([[
                "Mozilla/5.0 (X11; Linux x86_64)",
                format!("192.0.2.{}", self.rng.u8(..))
            ]]),
            "uia_results" => json!({"m.login.dummy": true}),
            "username" => json!(about.user.trim_start_matches('@').split(':').next()),
            _ => return None,
        })
    }

    fn room_config(&mut self) -> Value {
        let preset = ["private_chat", "trusted_private_chat", "public_chat"][self.rng.usize(0..3)];
        let invite: Vec<_> = (0..self.rng.usize(0..4)).map(|_| self.any_user()).collect();
        json!({"preset": preset, "name": self.words(16), "invite": invite, "is_direct": invite.len() == 1})
    }

    fn file(&mut self) -> Value {
        // Four characters of base64 are three bytes; any four are some.
        let length = FILES[self.rng.usize(0..FILES.len())] / 4 * 4;
        let block = self.token(1000);
        json!(block.repeat(length / block.len()))
    }

    fn file_info(&mut self) -> Value {
        json!({"file_id": self.token(24), "server_name": null, "url_cache": false, "thumbnail": null})
    }

    fn login_type(&self, about: &About) -> String {
        let declared = self.logins.get(about.login);
        declared.map_or("m.login.password", |login| &*login.name).to_owned()
    }

    fn login_fields(&mut self, about: &About) -> Value {
        let declared = self.logins.get(about.login);
        let fields: Vec<String> = match declared {
            Some(login) => login.fields.iter().cloned().collect(),
            None => vec!["password".to_owned()],
        };
        let fields = fields.into_iter().map(|field| (field, json!(self.token(16))));
        Value::Object(fields.collect())
    }
}
