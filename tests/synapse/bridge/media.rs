//! Media: looked at, limited; and updates of the database, for which there is no client.

use serde_json::json;

use super::{assert_error, assert_ok, assert_refused};
use crate::client::Body;
use crate::sides::{Actor, on_both};

/// A file that is read in several chunks, with a word at its end.
fn file(word: &str) -> Vec<u8> {
    let mut file = vec![b'.'; 40 * 1024];
    file.extend(word.as_bytes());
    file
}

#[test]
fn a_file_is_stored_unless_the_module_objects_to_what_is_in_it() {
    on_both(|stage| {
        let vera = stage.user("vera")?;
        // The words of a denial do not get through to the client here.
        for word in ["deny", "deny-code", "deny-text", "deny-fields"] {
            assert_error(&vera.upload(&file(word))?, 400, "M_UNKNOWN");
        }
        for word in ["raise-matrix", "raise-plain"] {
            assert_refused(&vera.upload(&file(word))?, word);
        }
        let fine = file("all fine, says vera");
        assert_ok(&vera.upload(&fine)?);
        let note = stage.noted("check_media_file_for_spam", &format!(",{},", fine.len()))?;
        assert_eq!(
            (&note[3], &note[4], &note[5]),
            (&json!(null), &json!(false), &json!(null))
        );
        // Small and empty ones are whole, too.
        assert_ok(&vera.upload(b"vera")?);
        assert_error(&vera.upload(b"deny")?, 400, "M_UNKNOWN");
        Ok(())
    });
}

/// A picture of one red pixel.
const PIXEL: [u8; 69] = [
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52, 0x00, 0x00, 0x00,
    0x01, 0x00, 0x00, 0x00, 0x01, 0x08, 0x02, 0x00, 0x00, 0x00, 0x90, 0x77, 0x53, 0xde, 0x00, 0x00, 0x00, 0x0c, 0x49,
    0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0xf8, 0xcf, 0xc0, 0x00, 0x00, 0x03, 0x01, 0x01, 0x00, 0xc9, 0xfe, 0x92, 0xef,
    0x00, 0x00, 0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82,
];

#[test]
fn the_module_is_shown_a_picture_and_its_thumbnails() {
    on_both(|stage| {
        let reply = stage.user("pia")?.upload_as("image/png", &PIXEL)?;
        let uri = reply.success("content_uri")?;
        let id = uri.rsplit('/').next().unwrap_or_default();
        let shown = stage.all_noted("check_media_file_for_spam", id)?;
        let thumbnails: Vec<_> = shown.iter().map(|note| note[5]["method"].clone()).collect();
        assert_eq!(thumbnails, [json!(null), json!("crop"), json!("crop"), json!("scale")]);
        Ok(())
    });
}

#[test]
fn a_user_uploads_files_of_the_size_that_the_module_allows() {
    on_both(|stage| {
        let (small, other) = (stage.user("small")?, stage.user("otheruser")?);
        let config = "/_matrix/client/v1/media/config";
        let config = |user: &Actor<'_>| user.send("GET", config, &Body::Nothing);
        assert_eq!(
            config(&small)?.body,
            json!({ "m.upload.size": 70_000, "org.example.plan": "small" })
        );
        assert_eq!(config(&other)?.body, json!({ "m.upload.size": 102_400 }));
        assert_error(&small.upload(&[b'.'; 70_001])?, 413, "M_TOO_LARGE");
        assert_ok(&small.upload(&[b'.'; 70_000])?);
        assert_ok(&other.upload(&[b'.'; 70_001])?);
        assert_eq!(
            stage.noted("is_user_allowed_to_upload_media_of_size", &small.id)?[2],
            70_001
        );
        Ok(())
    });
}

#[test]
fn a_user_uploads_as_much_as_the_module_allows() {
    on_both(|stage| {
        let metered = stage.user("metered")?;
        assert_ok(&metered.upload(&[b'.'; 600])?);
        let reply = metered.upload(&[b'.'; 600])?;
        assert_error(&reply, 403, "M_USER_LIMIT_EXCEEDED");
        assert_eq!(reply.body["info_uri"], "https://example.com/plans");
        let note = stage.noted("on_media_upload_limit_exceeded", &metered.id)?;
        let limit = json!({
            "max_bytes": 1000,
            "time_period_ms": 3_600_000,
            "info_uri": "https://example.com/plans",
            "can_upgrade": true,
        });
        assert_eq!(
            note,
            json!(["on_media_upload_limit_exceeded", metered.id, limit, 600, 600])
        );
        // What the module says when it is told replaces the refusal.
        for word in ["raise-matrix", "raise-plain"] {
            let metered = stage.user(&format!("metered-{word}"))?;
            assert_refused(&metered.upload(&[b'.'; 1200])?, word);
        }
        Ok(())
    });
}

#[test]
fn the_module_paces_the_updates_of_the_database() {
    on_both(|stage| {
        let admin = stage.admin()?;
        let (updates, job) = ("/_synapse/admin/v1/background_updates", "populate_stats_process_rooms");
        let start = json!({ "job_name": job });
        assert_ok(&admin.send("POST", &format!("{updates}/start_job"), &Body::Json(&start))?);
        assert_eq!(
            stage.noted("on_update", job)?,
            json!(["on_update", job, "master", false])
        );
        assert_eq!(
            stage.noted("default_batch_size", job)?,
            json!(["default_batch_size", job, "master"])
        );
        assert_eq!(
            stage.noted("on_update: over", job)?,
            json!(["on_update: over", job, false])
        );
        Ok(())
    });
}
