use std::fs;
use std::sync::{Arc, Mutex};

use ganglion_api::{
    ArgSource, Callback as _, FromJson as _, JsonPath, LocalFuture, MEDIA_CHUNK, MediaChunk, StatePage,
};
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::testing::{ModuleTest, RunningModule};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and so on";
const ELF: [u8; 64] = {
    let mut elf = [0; 64];
    (elf[0], elf[1], elf[2], elf[3]) = (0x7f, b'E', b'L', b'F');
    elf
};

/// A file that stays with its caller, who gives it in chunks of these lengths, again and again.
struct Script {
    contents: Vec<u8>,
    lengths: Vec<usize>,
    /// Whether the last chunk says that it is the last.
    says_end: bool,
    /// What is asked for from here on cannot be had.
    fails_from: u64,
    /// And nobody says so.
    hangs: bool,
    /// How much of it is there when it is first asked for, and when it is asked again.
    grows_from: usize,
    asked: Mutex<Vec<u64>>,
}

impl Script {
    fn of(contents: impl Into<Vec<u8>>) -> Self {
        Self {
            contents: contents.into(),
            lengths: vec![MEDIA_CHUNK],
            says_end: true,
            fails_from: u64::MAX,
            hangs: false,
            grows_from: usize::MAX,
            asked: Mutex::default(),
        }
    }
}

impl ArgSource for Script {
    fn state_event<'a>(
        &'a self,
        _handle: &'a str,
        _event_type: &'a str,
        _state_key: &'a str,
    ) -> LocalFuture<'a, Result<Option<ganglion_api::Event>, ModuleError>> {
        Box::pin(async { Ok(None) })
    }

    fn state_page<'a>(&'a self, _handle: &'a str, _from: u64) -> LocalFuture<'a, Result<StatePage, ModuleError>> {
        Box::pin(async { Ok(StatePage::new(Vec::new(), None)) })
    }

    fn media_chunk<'a>(&'a self, _handle: &'a str, offset: u64) -> LocalFuture<'a, Result<MediaChunk, ModuleError>> {
        Box::pin(async move {
            let turn = {
                let mut asked = self.asked.lock().unwrap();
                asked.push(offset);
                asked.len() - 1
            };
            tokio::task::yield_now().await;
            if offset >= self.fails_from {
                if self.hangs {
                    std::future::pending::<()>().await;
                }
                return Err(ModuleError::message("the handle is not known"));
            }
            let contents = match self.contents.get(..self.grows_from) {
                Some(grown_later) if turn < 2 => grown_later,
                _ => &self.contents[..],
            };
            let begin = usize::try_from(offset).unwrap().min(contents.len());
            let length = self.lengths[turn % self.lengths.len()].clamp(1, MEDIA_CHUNK);
            let end = contents.len().min(begin + length);
            let is_end = end == contents.len() && (self.says_end || begin == end);
            Ok(MediaChunk::new(Bytes::copy_from_slice(&contents[begin..end]), is_end))
        })
    }
}

fn info() -> Value {
    json!({"file_id": "abc", "server_name": null, "url_cache": false, "thumbnail": null})
}

/// What is decided about a file that its caller has.
async fn ask(module: &RunningModule, script: &Arc<Script>) -> Value {
    let args = json!({"file_base64": {"handle": "m1"}, "file_info": info()});
    let mut args = CheckMediaFileForSpam::from_json(args, &JsonPath::Root).unwrap();
    let source: Arc<dyn ArgSource> = script.clone();
    args.connect(Some(&source)).unwrap();
    json!(module.ask(args).await.into_json())
}

/// The same in a word: `pass`, an error code, or why nothing was decided.
async fn check(module: &RunningModule, script: &Arc<Script>) -> String {
    said(&ask(module, script).await)
}

/// The same for a file that comes whole.
async fn check_whole(module: &RunningModule, contents: &[u8]) -> String {
    let file = json!(ganglion_api::Base64::from(contents.to_vec()));
    let args = json!({"file_base64": file, "file_info": info()});
    said(&module.ask_json("check_media_file_for_spam", args).await)
}

async fn upload(module: &RunningModule, user: &str, size: i64) -> String {
    let args = json!({"user_id": user, "size": size});
    said(&module.ask_json("is_user_allowed_to_upload_media_of_size", args).await)
}

fn said(decision: &Value) -> String {
    if let Some(detail) = decision["steps"][0]["detail"].as_str() {
        return detail.to_owned();
    }
    match decision["outcome"]["verdict"].as_str() {
        Some("deny") => decision["outcome"]["errcode"].as_str().unwrap().to_owned(),
        other => other.unwrap_or_else(|| panic!("{decision}")).to_owned(),
    }
}

fn run(config: &str, test: impl AsyncFnOnce(&RunningModule)) {
    ModuleTest::new::<MediaGuard>(config).run(test);
}

fn sha256(contents: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(contents).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn by_default_programs_are_refused_and_everything_else_passes() {
    run("", async |module| {
        for (file, expected) in [
            (&ELF[..], "M_FORBIDDEN"),
            (b"\xcf\xfa\xed\xfe", "M_FORBIDDEN"),
            (PNG, "pass"),
            (b"hello", "pass"),
            (b"M", "pass"),
            (b"", "pass"),
        ] {
            assert_eq!(check_whole(module, file).await, expected, "{file:?}");
        }
        assert_eq!(
            module
                .ask_json(
                    "is_user_allowed_to_upload_media_of_size",
                    json!({"user_id": "@a:b", "size": 1})
                )
                .await["steps"],
            json!([])
        );
    });
}

#[test]
fn only_types_that_are_allowed_pass_and_of_these_none_that_is_denied() {
    run(
        "{allow_types: ['image/*', 'video/mp4'], deny_types: ['image/svg*'], unknown_type: deny}",
        async |module| {
            for (file, expected) in [
                (PNG, "pass"),
                (b"\0\0\0\x18ftypisom\0\0\0\0", "pass"),
                (b"<svg>", "M_FORBIDDEN"),
                (b"%PDF-1.7", "M_FORBIDDEN"),
                (b"hello", "M_FORBIDDEN"),
                (b"", "M_FORBIDDEN"),
            ] {
                assert_eq!(check_whole(module, file).await, expected, "{file:?}");
            }
            // A picture that is an electronic book as well.
            let mut book = PNG.to_vec();
            book.resize(60, 0);
            book.extend(b"BOOKMOBI");
            assert_eq!(check_whole(module, &book).await, "M_FORBIDDEN");
        },
    );
}

#[test]
fn a_type_that_one_file_has_beside_another_is_denied_too() {
    run("deny_types: ['image/png']", async |module| {
        let mut book = PNG.to_vec();
        book.resize(60, 0);
        book.extend(b"BOOKMOBI");
        assert_eq!(check_whole(module, &book).await, "M_FORBIDDEN");
        assert_eq!(check_whole(module, &ELF).await, "pass");
    });
}

#[test]
fn a_denial_counts_for_everything_that_can_be_opened_as_what_it_names() {
    let mut odt = b"PK\x03\x04".to_vec();
    odt.resize(30, 0);
    odt.extend(b"mimetypeapplication/vnd.oasis.opendocument.text");
    odt.resize(100, 0);
    for (denied, file) in [
        ("video/mp4", &b"\0\0\0\x14ftypqt  \0\0\0\0"[..]),
        ("video/*", b"\0\0\0\x18ftypM4A \0\0\0\0"),
        ("application/zip", &odt),
        ("text/xml", b"<svg/>"),
    ] {
        run(&format!("deny_types: ['{denied}']"), async |module| {
            assert_eq!(check_whole(module, file).await, "M_FORBIDDEN", "{denied}");
        });
    }
    // What is allowed is what says most.
    run("allow_types: ['application/vnd.oasis.*', 'audio/*']", async |module| {
        assert_eq!(check_whole(module, &odt).await, "pass");
        assert_eq!(check_whole(module, b"\0\0\0\x18ftypM4A \0\0\0\0").await, "pass");
        assert_eq!(check_whole(module, b"PK\x03\x04\0\0").await, "M_FORBIDDEN");
    });
}

/// A file of this length that says that its header is there, as programs for Windows do.
fn pointing(header: u32, length: usize) -> Vec<u8> {
    let mut file = b"MZ".to_vec();
    file.resize(length, b'.');
    file[0x3c..0x40].copy_from_slice(&header.to_le_bytes());
    file
}

#[test]
fn a_program_whose_header_is_far_behind_is_found_with_one_more_look() {
    run("", async |module| {
        for (header, asked) in [
            (0x80_usize, &[0][..]),
            (16_383, &[0, 16_383]),
            (100_000, &[0, 100_000]),
            (17 << 20, &[0, 17 << 20]),
        ] {
            for (letters, expected) in [(b"PE", "M_FORBIDDEN"), (b"..", "pass")] {
                let mut file = pointing(u32::try_from(header).unwrap(), header + 20_000);
                file[header..header + 2].copy_from_slice(letters);
                let script = Arc::new(Script::of(file));
                assert_eq!(check(module, &script).await, expected, "{header}");
                assert_eq!(*script.asked.lock().unwrap(), asked, "{header}");
                assert_eq!(check_whole(module, &script.contents).await, expected, "{header}");
                // However short the chunks are.
                let script = Script {
                    lengths: vec![MEDIA_CHUNK, 1, 1],
                    ..Script::of(&script.contents[..])
                };
                assert_eq!(check(module, &Arc::new(script)).await, expected, "{header}");
            }
        }
        // Behind its end nothing is.
        assert_eq!(check_whole(module, &pointing(u32::MAX, 20_000)).await, "pass");
    });
    run("max_size: 50KB", async |module| {
        for (header, asked) in [(49_999, &[0, 50_000][..]), (49_998, &[0, 50_000, 49_998])] {
            let script = Arc::new(Script::of(pointing(header, 50_000)));
            assert_eq!(check(module, &script).await, "pass");
            assert_eq!(*script.asked.lock().unwrap(), asked, "{header}");
        }
    });
    run("", async |module| {
        let script = Script {
            fails_from: 20_000,
            ..Script::of(pointing(30_000, 40_000))
        };
        assert_eq!(check(module, &Arc::new(script)).await, "the handle is not known");
    });
}

#[test]
fn a_file_is_refused_by_its_digest() {
    let bad: Vec<u8> = (0..100_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let config = format!("sha256: ['{}', '{}']", sha256(&bad).to_uppercase(), sha256(b""));
    run(&config, async |module| {
        assert_eq!(check_whole(module, &bad).await, "M_FORBIDDEN");
        assert_eq!(check_whole(module, &bad[1..]).await, "pass");
        assert_eq!(check_whole(module, b"").await, "M_FORBIDDEN");
        let script = Arc::new(Script::of(&bad[..]));
        assert_eq!(check(module, &script).await, "M_FORBIDDEN");
        assert_eq!(script.asked.lock().unwrap().len(), 7);
    });
}

#[test]
fn a_list_of_digests_may_be_a_file() {
    let directory = TempDir::new().unwrap();
    fs::write(
        directory.path().join("bad.txt"),
        format!("# files\n{}\n", sha256(b"bad")),
    )
    .unwrap();
    let test = || ModuleTest::new::<MediaGuard>("sha256: {file: bad.txt}").directory(&directory);
    test().run(async |module| {
        assert_eq!(check_whole(module, b"bad").await, "M_FORBIDDEN");
        assert_eq!(check_whole(module, b"good").await, "pass");
    });
    fs::write(
        directory.path().join("bad.txt"),
        format!("{}\n{}\n", sha256(b"bad"), "a".repeat(63)),
    )
    .unwrap();
    let refusal = test().refusal();
    assert!(
        refusal.contains("bad.txt:2: expected a SHA-256 digest: 64 hexadecimal digits"),
        "{refusal}"
    );
}

#[test]
fn a_file_that_is_too_long_is_refused_without_being_read() {
    run("max_size: 100KiB", async |module| {
        for (length, expected, asked) in [
            (0, "pass", &[0][..]),
            (16_384, "pass", &[0]),
            (16_385, "pass", &[0, 102_400]),
            (102_400, "pass", &[0, 102_400]),
            (102_401, "M_TOO_LARGE", &[0, 102_400]),
            (10_000_000, "M_TOO_LARGE", &[0, 102_400]),
        ] {
            let script = Arc::new(Script::of(vec![b'.'; length]));
            assert_eq!(check(module, &script).await, expected, "{length}");
            assert_eq!(*script.asked.lock().unwrap(), asked, "{length}");
            assert_eq!(check_whole(module, &script.contents).await, expected, "{length}");
        }
    });
    run("max_size: 5", async |module| {
        assert_eq!(check_whole(module, b"12345").await, "pass");
        assert_eq!(check_whole(module, b"123456").await, "M_TOO_LARGE");
    });
}

#[test]
fn users_may_have_limits_of_their_own() {
    let config = "{max_size: 10, users: [{users: ['@guest-*:example.com'], max_size: 5}, \
                  {users: ['@guest-x:*', '@admin:example.com'], max_size: 20}]}";
    run(config, async |module| {
        for (user, largest) in [
            ("@bob:example.com", 10),
            ("@guest-1:example.com", 5),
            ("@guest-x:example.com", 5),
            ("@guest-x:elsewhere", 20),
            ("@admin:example.com", 20),
        ] {
            assert_eq!(upload(module, user, largest).await, "pass", "{user}");
            assert_eq!(upload(module, user, largest + 1).await, "M_TOO_LARGE", "{user}");
            assert_eq!(upload(module, user, 0).await, "pass", "{user}");
        }
        assert_eq!(
            upload(module, "@bob:example.com", -1).await,
            "the size is less than nothing"
        );
        // Whose file it is nobody says: it may be the admin's.
        assert_eq!(check_whole(module, &[b'.'; 20]).await, "pass");
        assert_eq!(check_whole(module, &[b'.'; 21]).await, "M_TOO_LARGE");
    });
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("admins.txt"), "# everywhere\n@admin:*\n").unwrap();
    let config = "{max_size: 10, users: [{users: {file: admins.txt}, max_size: null}]}";
    let test = ModuleTest::new::<MediaGuard>(config).directory(&directory);
    test.run(async |module| {
        assert_eq!(upload(module, "@admin:x", i64::from(u32::MAX)).await, "pass");
        assert_eq!(upload(module, "@bob:x", 11).await, "M_TOO_LARGE");
        assert_eq!(check_whole(module, &[b'.'; 1000]).await, "pass");
    });
}

#[test]
fn thumbnails_are_the_homeservers_own() {
    run("{allow_types: ['image/gif'], unknown_type: deny}", async |module| {
        let thumbnail = json!({"width": 1, "height": 1, "method": "crop", "type": "image/png", "length": 1});
        let info = json!({"file_id": "abc", "thumbnail": thumbnail});
        let args = json!({"file_base64": ganglion_api::Base64::from(PNG), "file_info": info});
        assert_eq!(said(&module.ask_json("check_media_file_for_spam", args).await), "pass");
    });
}

#[test]
fn a_file_that_cannot_be_had_is_a_failure_and_never_a_pass() {
    let config = format!("{{max_size: 1MiB, sha256: ['{}']}}", "0".repeat(64));
    run(&config, async |module| {
        for fails_from in [0, 16_384, 32_768] {
            let mut script = Script::of(vec![b'.'; 40_000]);
            script.fails_from = fails_from;
            assert_eq!(
                check(module, &Arc::new(script)).await,
                "the handle is not known",
                "{fails_from}"
            );
        }
    });
    run("deny_types: ['image/gif']", async |module| {
        // It says that it goes on, and does not.
        struct Endless;
        impl ArgSource for Endless {
            fn state_event<'a>(
                &'a self,
                _: &'a str,
                _: &'a str,
                _: &'a str,
            ) -> LocalFuture<'a, Result<Option<ganglion_api::Event>, ModuleError>> {
                Box::pin(async { Ok(None) })
            }

            fn state_page<'a>(&'a self, _: &'a str, _: u64) -> LocalFuture<'a, Result<StatePage, ModuleError>> {
                Box::pin(async { Ok(StatePage::new(Vec::new(), None)) })
            }

            fn media_chunk<'a>(&'a self, _: &'a str, _: u64) -> LocalFuture<'a, Result<MediaChunk, ModuleError>> {
                Box::pin(async { Ok(MediaChunk::new(Bytes::new(), false)) })
            }
        }
        let args = json!({"file_base64": {"handle": "m1"}, "file_info": info()});
        let mut args = CheckMediaFileForSpam::from_json(args, &JsonPath::Root).unwrap();
        let source: Arc<dyn ArgSource> = Arc::new(Endless);
        args.connect(Some(&source)).unwrap();
        assert_eq!(
            said(&json!(module.ask(args).await.into_json())),
            "the file does not come to an end"
        );
    });
}

#[test]
fn a_caller_who_says_nothing_ends_the_call_with_its_budget() {
    run("max_size: 1MiB", async |module| {
        for hangs_from in [0, 16_384] {
            let script = Script {
                fails_from: hangs_from,
                hangs: true,
                ..Script::of(vec![b'.'; 40_000])
            };
            let decision = ask(module, &Arc::new(script)).await;
            assert_eq!(decision["steps"][0]["result"], "deadline_exceeded");
            assert_eq!(decision["outcome"]["status"], 500);
        }
    });
}

#[test]
fn a_file_that_grows_while_it_is_read_is_as_long_as_what_was_read() {
    let config = format!("{{max_size: 50KB, sha256: ['{}']}}", "0".repeat(64));
    run(&config, async |module| {
        for (length, expected) in [(50_000, "pass"), (50_001, "M_TOO_LARGE")] {
            let script = Script {
                grows_from: 20_000,
                ..Script::of(vec![b'.'; length])
            };
            assert_eq!(check(module, &Arc::new(script)).await, expected, "{length}");
        }
    });
}

#[test]
fn a_config_that_is_wrong_is_named() {
    for (config, expected) in [
        ("allow_types: ['']", "config.allow_types[0]: an empty pattern"),
        (
            "deny_types: ['image/*', imgae/png]",
            "config.deny_types[1]: no signature has this type, did you mean image/png?",
        ),
        (
            "deny_types: [text/plain]",
            "config.deny_types[0]: no signature has this type",
        ),
        (
            "deny_types: [application/x-msdownload]",
            "no signature has this type: write application/vnd.microsoft.portable-executable",
        ),
        (
            "unknown_type: maybe",
            "config.unknown_type: unknown variant `maybe`, expected `pass` or `deny`",
        ),
        ("max_size: 0", "config.max_size: expected 1 byte to 1PiB"),
        ("max_size: large", "config.max_size: write a size such as 64KiB or 1MiB"),
        ("max_size: 2PiB", "config.max_size: expected 1 byte to 1PiB"),
        ("users: [{max_size: 1}]", "config.users[0]: missing field `users`"),
        (
            "users: [{users: []}]",
            "config.users[0].users: expected at least one pattern",
        ),
        (
            "users: [{users: ['@a:b', '']}]",
            "config.users[0].users[1]: an empty entry",
        ),
        ("users: [{users: ['@a:b'], size: 1}]", "unknown field `size`"),
        (
            "users: [{users: {file: none.txt}, max_size: 1}]",
            "config.users[0].users.file: none.txt: cannot read it",
        ),
        (
            "sha256: [abc]",
            "config.sha256[0]: expected a SHA-256 digest: 64 hexadecimal digits",
        ),
        ("sha256: {file: none.txt}", "none.txt: cannot read it"),
        ("max_sise: 1", "unknown field `max_sise`"),
        (
            "deny_types: []",
            "config.deny_types: empty, and no other key denies anything: nothing would be denied",
        ),
        (
            "users: [{users: ['@a:b']}]",
            "config.users[0].max_size: without it, and without a max_size of all users, nothing would be limited",
        ),
        (
            "users: [{users: ['@a:b']}, {users: ['@*'], max_size: 1}, {users: ['@c:d'], max_size: null}]",
            "config.users[2].max_size: without it",
        ),
    ] {
        let refusal = ModuleTest::new::<MediaGuard>(config).refusal();
        assert!(refusal.contains(expected), "{config}: {refusal}");
    }
}

#[test]
fn one_key_that_denies_is_enough() {
    for config in [
        "{deny_types: [], allow_types: ['image/*']}",
        "{deny_types: [], unknown_type: deny}",
        "{deny_types: [], max_size: 1}",
        "{deny_types: [], users: [{users: ['@a:b']}, {users: ['@*'], max_size: 1}]}",
        "{deny_types: [], max_size: 1, users: [{users: ['@a:b']}]}",
    ] {
        run(config, async |_| {});
    }
}

#[test]
fn a_digest_has_sixty_four_digits() {
    assert_eq!(digest(&"0f".repeat(32)), Some([0x0f; 32]));
    assert_eq!(digest(&"0F".repeat(32)), Some([0x0f; 32]));
    for bad in [
        "",
        "0f",
        &"0".repeat(63),
        &"0".repeat(65),
        &"0g".repeat(32),
        &"é".repeat(32),
        &"é".repeat(64),
    ] {
        assert_eq!(digest(bad), None, "{bad}");
    }
}

#[test]
fn the_page_of_the_module_names_every_type() {
    let page = include_str!("../../../docs/modules/media-guard.md");
    for name in names() {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

/// Files that begin like something, of lengths around those that matter.
fn files() -> impl Strategy<Value = Vec<u8>> {
    let begins: Vec<&[u8]> = vec![b"", PNG, &ELF, b"%PDF", b"<svg>", b"PK\x03\x04"];
    let lengths = prop_oneof![0..100_usize, 16_380..16_390_usize, 40_000..50_001_usize];
    (prop::sample::select(begins), lengths, any::<u8>()).prop_map(|(begin, length, fill)| {
        let mut file = begin.to_vec();
        file.resize(length, fill);
        file
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn how_a_file_is_split_does_not_change_what_is_decided(
        file in files(),
        lengths in prop::collection::vec(prop_oneof![1..20_usize, 1000..MEDIA_CHUNK + 1], 1..4),
        says_end in any::<bool>(),
        max_size in prop_oneof![1..200_u64, 16_380..16_390_u64, 40_000..50_001_u64],
        denies_unknown in any::<bool>(),
        known in any::<bool>(),
    ) {
        // Of small chunks there would be many.
        let lengths: Vec<usize> = lengths.into_iter().map(|length| length.max(file.len() / 500)).collect();
        let digest = sha256(if known { &file } else { b"another" });
        let config = format!(
            "{{max_size: {max_size}, deny_types: [application/pdf, 'application/x-executable'], \
             unknown_type: {}, sha256: ['{digest}']}}",
            if denies_unknown { "deny" } else { "pass" },
        );
        let types = types_of(&file[..file.len().min(HEAD)]);
        let expected = if file.len() as u64 > max_size {
            "M_TOO_LARGE"
        } else if types.is_empty() && denies_unknown
            || types.iter().any(|name| ["application/pdf", "application/x-executable"].contains(name))
            || known
        {
            "M_FORBIDDEN"
        } else {
            "pass"
        };
        ModuleTest::new::<MediaGuard>(config).run(async |module| {
            let script = Arc::new(Script { lengths, says_end, ..Script::of(&file[..]) });
            assert_eq!(check(module, &script).await, expected);
            assert_eq!(check_whole(module, &file).await, expected);
        });
    }

    #[test]
    fn any_bytes_are_decided_about(
        file in prop::collection::vec(any::<u8>(), 0..300),
        lengths in prop::collection::vec(1..50_usize, 1..4),
    ) {
        run("deny_types: ['image/*', 'application/*']", async |module| {
            let script = Arc::new(Script { lengths, ..Script::of(&file[..]) });
            let said = check(module, &script).await;
            assert!(["pass", "M_FORBIDDEN"].contains(&&*said), "{said}");
            assert_eq!(check_whole(module, &file).await, said);
        });
    }
}
