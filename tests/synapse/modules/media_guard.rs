//! Media files that are refused.

use anyhow::Context as _;
use serde_json::json;

use super::behind_synapse;
use crate::client::Body;

/// How a file ends that begins with 40,000 dots, and the digest of that file.
const KNOWN: (&[u8], &str) = (
    b"known.",
    "803b3bb3d56fb4912434345ccef94225f18070421c9d6f67bc20ebaaf538f3ec",
);

#[test]
fn a_file_is_stored_unless_its_type_its_size_or_its_digest_is_refused() {
    let config = json!({
        "deny_types": ["application/x-executable", "image/svg+xml"],
        "max_size": "50KiB",
        "users": [{ "users": ["@guest:*"], "max_size": 1000 }],
        "sha256": { "file": "known-bad.txt" },
    });
    let modules = json!([{ "module": "ganglion.modules.MediaGuard", "config": config }]);
    let files = |directory: &std::path::Path| {
        let list = format!("# one a line\n{}\n", KNOWN.1);
        std::fs::write(directory.join("known-bad.txt"), list).context("cannot write the list")
    };
    behind_synapse(&modules, files, |_, synapse| {
        let (vera, guest) = (synapse.user("vera")?, synapse.user("guest")?);
        let upload = |token: &str, media_type: &str, file: &[u8]| {
            let path = "/_matrix/media/v3/upload";
            synapse
                .client()
                .ask("POST", path, Some(token), &Body::File(file, media_type))
        };
        // Several chunks of it are read.
        let fine = vec![b'.'; 40_000];
        assert_eq!(upload(vera.token(), "text/plain", &fine)?.status, 200);
        assert_eq!(upload(vera.token(), "text/plain", b"")?.status, 200);

        let mut program = b"\x7fELF".to_vec();
        program.resize(100, 0);
        assert_eq!(
            upload(vera.token(), "image/png", &program)?.refusal(),
            (400, "M_UNKNOWN")
        );
        assert_eq!(
            upload(vera.token(), "text/plain", b"<svg></svg>")?.refusal(),
            (400, "M_UNKNOWN")
        );

        let known = [&fine, KNOWN.0].concat();
        assert_eq!(
            upload(vera.token(), "text/plain", &known)?.refusal(),
            (400, "M_UNKNOWN")
        );

        assert_eq!(upload(guest.token(), "text/plain", &[b'.'; 1000])?.status, 200);
        assert_eq!(
            upload(guest.token(), "text/plain", &[b'.'; 1001])?.refusal(),
            (413, "M_TOO_LARGE")
        );
        assert_eq!(upload(vera.token(), "text/plain", &[b'.'; 51_200])?.status, 200);
        assert_eq!(
            upload(vera.token(), "text/plain", &[b'.'; 51_201])?.refusal(),
            (413, "M_TOO_LARGE")
        );
        Ok(())
    });
}
