//! What a file is, by how it begins.
//!
//! The signatures are those of the crate `infer`, and all of them are compared: a file may have several, and may then be
//! opened as any of them. Where those of `infer` are too short to tell a file from random bytes, such as an encrypted one, or
//! look for more than the begin of a file has, this module has its own.

use infer::{app, archive, audio, book, doc, font, image, odf, text, video};

use super::markup::{is_html, is_svg, is_xml};

/// How much of a file is looked at, in bytes.
pub(super) const HEAD: usize = 16_384;

type Matcher = fn(&[u8]) -> bool;

pub(super) const PORTABLE_EXECUTABLE: &str = "application/vnd.microsoft.portable-executable";
const OLE: &str = "application/x-ole-storage";
const ZIP: &str = "application/zip";
const ISO_MEDIA: &str = "video/mp4";

/// The types that are known, each with a signature.
const SIGNATURES: &[(&str, Matcher)] = &[
    (PORTABLE_EXECUTABLE, is_portable_executable),
    ("application/x-executable", app::is_elf),
    ("application/x-mach-binary", app::is_mach),
    ("application/wasm", app::is_wasm),
    ("application/java", app::is_java),
    ("application/x-llvm", is_llvm),
    ("application/vnd.android.dex", app::is_dex),
    ("application/vnd.android.dey", app::is_dey),
    ("application/x-x509-ca-cert", app::is_der),
    ("application/x-x509-ca-cert", app::is_pem),
    ("application/x-qemu-disk", app::is_qcow2),
    ("image/jpeg", image::is_jpeg),
    ("image/jp2", image::is_jpeg2000),
    ("image/png", image::is_png),
    ("image/gif", image::is_gif),
    ("image/webp", image::is_webp),
    ("image/x-canon-cr2", image::is_cr2),
    ("image/tiff", image::is_tiff),
    ("image/bmp", image::is_bmp),
    ("image/vnd.ms-photo", image::is_jxr),
    ("image/vnd.adobe.photoshop", image::is_psd),
    ("image/vnd.microsoft.icon", image::is_ico),
    ("image/heif", image::is_heif),
    ("image/avif", image::is_avif),
    ("image/jxl", image::is_jxl),
    ("image/openraster", image::is_ora),
    ("image/vnd.djvu", image::is_djvu),
    ("image/vnd.dwg", image::is_dwg),
    ("image/svg+xml", is_svg),
    (ISO_MEDIA, is_iso_media),
    ("video/x-m4v", video::is_m4v),
    ("video/x-matroska", video::is_mkv),
    ("video/webm", video::is_webm),
    ("video/quicktime", video::is_mov),
    ("video/x-msvideo", video::is_avi),
    ("video/x-ms-wmv", video::is_wmv),
    ("video/mpeg", video::is_mpeg),
    ("video/x-flv", video::is_flv),
    ("audio/midi", audio::is_midi),
    ("audio/mpeg", audio::is_mp3),
    ("audio/m4a", audio::is_m4a),
    ("audio/opus", audio::is_ogg_opus),
    // Of video too.
    ("application/ogg", audio::is_ogg),
    ("audio/x-flac", audio::is_flac),
    ("audio/x-wav", audio::is_wav),
    ("audio/amr", audio::is_amr),
    ("audio/aac", audio::is_aac),
    ("audio/x-aiff", audio::is_aiff),
    ("audio/x-dsf", audio::is_dsf),
    ("audio/x-ape", audio::is_ape),
    ("application/font-woff", font::is_woff),
    ("application/font-woff", font::is_woff2),
    ("application/font-sfnt", font::is_ttf),
    ("application/font-sfnt", font::is_otf),
    ("application/vnd.ms-fontobject", archive::is_eot),
    (
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        doc::is_docx,
    ),
    (
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        doc::is_xlsx,
    ),
    (
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        doc::is_pptx,
    ),
    ("application/vnd.oasis.opendocument.text", odf::is_odt),
    ("application/vnd.oasis.opendocument.spreadsheet", odf::is_ods),
    ("application/vnd.oasis.opendocument.presentation", odf::is_odp),
    // What is inside is known by a directory that may be anywhere in the file, and needs a parser of hostile input.
    (OLE, archive::is_msi),
    ("application/epub+zip", book::is_epub),
    ("application/x-mobipocket-ebook", book::is_mobi),
    ("application/pdf", archive::is_pdf),
    ("application/postscript", archive::is_ps),
    ("application/rtf", archive::is_rtf),
    (ZIP, archive::is_zip),
    ("application/x-tar", archive::is_tar),
    ("application/x-par2", archive::is_par2),
    ("application/vnd.rar", archive::is_rar),
    ("application/gzip", archive::is_gz),
    ("application/x-bzip2", archive::is_bz2),
    ("application/vnd.bzip3", archive::is_bz3),
    ("application/x-7z-compressed", archive::is_7z),
    ("application/x-xz", archive::is_xz),
    ("application/zstd", archive::is_zst),
    ("application/x-lz4", archive::is_lz4),
    ("application/x-lzip", archive::is_lz),
    ("application/x-compress", archive::is_z),
    ("application/x-cpio", archive::is_cpio),
    ("application/x-unix-archive", archive::is_ar),
    ("application/vnd.debian.binary-package", archive::is_deb),
    ("application/x-rpm", archive::is_rpm),
    ("application/vnd.ms-cab-compressed", archive::is_cab),
    ("application/x-google-chrome-extension", archive::is_crx),
    ("application/x-shockwave-flash", archive::is_swf),
    ("application/vnd.sqlite3", archive::is_sqlite),
    ("application/x-nintendo-nes-rom", archive::is_nes),
    ("application/dicom", archive::is_dcm),
    ("text/html", is_html),
    ("text/xml", is_xml),
    ("text/x-shellscript", text::is_shellscript),
];

/// Types whose files are files of another type too, which says less.
const SPECIAL_OF: &[(&str, &str)] = &[
    (
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ZIP,
    ),
    ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", ZIP),
    (
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        ZIP,
    ),
    ("application/vnd.oasis.opendocument.text", ZIP),
    ("application/vnd.oasis.opendocument.spreadsheet", ZIP),
    ("application/vnd.oasis.opendocument.presentation", ZIP),
    ("application/epub+zip", ZIP),
    ("image/openraster", ZIP),
    ("image/x-canon-cr2", "image/tiff"),
    ("image/heif", ISO_MEDIA),
    ("image/avif", ISO_MEDIA),
    ("image/avif", "image/heif"),
    ("video/x-m4v", ISO_MEDIA),
    ("video/quicktime", ISO_MEDIA),
    ("audio/m4a", ISO_MEDIA),
    ("audio/opus", "application/ogg"),
    ("application/vnd.debian.binary-package", "application/x-unix-archive"),
    ("image/svg+xml", "text/xml"),
];

/// Other names of what has a signature.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("application/x-msdownload", PORTABLE_EXECUTABLE),
    ("application/x-dosexec", PORTABLE_EXECUTABLE),
    ("application/x-msdos-program", PORTABLE_EXECUTABLE),
    ("application/x-elf", "application/x-executable"),
    ("application/msword", OLE),
    ("application/vnd.ms-excel", OLE),
    ("application/vnd.ms-powerpoint", OLE),
    ("application/x-msi", OLE),
    ("application/java-archive", ZIP),
    ("application/vnd.android.package-archive", ZIP),
    ("application/x-gzip", "application/gzip"),
    ("application/xml", "text/xml"),
    ("audio/mp4", "audio/m4a"),
    ("audio/mp3", "audio/mpeg"),
    ("audio/ogg", "application/ogg"),
    ("video/ogg", "application/ogg"),
    ("image/jpg", "image/jpeg"),
];

/// The types whose signatures a file has that begins with these bytes, [`HEAD`] of them unless it is shorter; none if no
/// signature matches.
pub(super) fn types_of(head: &[u8]) -> Vec<&'static str> {
    let matched = SIGNATURES.iter().filter(|(_, is_match)| is_match(head));
    let mut types: Vec<_> = matched.map(|(name, _)| *name).collect();
    types.dedup();
    types
}

/// Those of the types of a file that say most of it.
pub(super) fn most_special<'a>(types: &'a [&'static str]) -> impl Iterator<Item = &'static str> + 'a {
    let says_less = |general: &str| {
        let mut pairs = SPECIAL_OF.iter();
        pairs.any(|pair| pair.1 == general && types.contains(&pair.0))
    };
    types.iter().copied().filter(move |name| !says_less(name))
}

/// The names of all types, some of them twice.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SIGNATURES.iter().map(|(name, _)| *name)
}

/// What a type is called here that others call by this name.
pub(super) fn name_here(name: &str) -> Option<&'static str> {
    let found = OTHER_NAMES.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
    found.map(|(_, here)| *here)
}

/// The two letters of `infer` begin one of 65,536 random files. So the header of a program for Windows has to be where they
/// say; for one that is out of sight see [`header_out_of_sight`].
fn is_portable_executable(head: &[u8]) -> bool {
    let at = header_at(head).and_then(|at| usize::try_from(at).ok());
    at.and_then(|at| head.get(at..)).is_some_and(is_program_header)
}

/// Where the header of a program for Windows has to be, by how the file begins.
fn header_at(head: &[u8]) -> Option<u64> {
    let at = head.get(0x3c..0x40)?.first_chunk()?;
    head.starts_with(b"MZ").then(|| u32::from_le_bytes(*at).into())
}

/// Where such a header has to be if not in the head: what is there says whether the file is such a program.
pub(super) fn header_out_of_sight(head: &[u8]) -> Option<u64> {
    let goes_on = head.len() >= HEAD;
    header_at(head).filter(|at| goes_on && at + PROGRAM_HEADER as u64 > head.len() as u64)
}

/// How many bytes tell the header of a program for Windows.
pub(super) const PROGRAM_HEADER: usize = 2;

/// Whether the header of a program for Windows begins here.
pub(super) fn is_program_header(bytes: &[u8]) -> bool {
    let begin = bytes.get(..PROGRAM_HEADER);
    begin.is_some_and(|begin| [b"PE", b"NE", b"LE", b"LX"].iter().any(|header| begin == *header))
}

/// `infer` looks at two bytes.
fn is_llvm(head: &[u8]) -> bool {
    head.starts_with(b"BC\xc0\xde")
}

/// `infer` knows some brands of this container and not the others.
fn is_iso_media(head: &[u8]) -> bool {
    head.get(4..8) == Some(b"ftyp")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file of this length that begins so.
    fn padded(begin: &[u8], len: usize) -> Vec<u8> {
        let mut file = begin.to_vec();
        file.resize(len.max(begin.len()), 0);
        file
    }

    /// A program for Windows with its header there.
    fn program(header: u32) -> Vec<u8> {
        let mut file = padded(b"MZ", HEAD);
        file[0x3c..0x40].copy_from_slice(&header.to_le_bytes());
        if let Some(place) = file.get_mut(header as usize..header as usize + 2) {
            place.copy_from_slice(b"PE");
        }
        file
    }

    /// What a file is that begins so.
    fn kinds_of(head: &[u8]) -> Vec<&'static str> {
        most_special(&types_of(head)).collect()
    }

    #[test]
    fn files_of_every_kind_have_one_type_that_says_most() {
        let elf = padded(b"\x7fELF", 64);
        for (head, expected) in [
            (&program(0x80)[..], PORTABLE_EXECUTABLE),
            (&program(0x3000), PORTABLE_EXECUTABLE),
            (&elf, "application/x-executable"),
            (b"\xca\xfe\xba\xbe\0\0\0\x02", "application/x-mach-binary"),
            (b"\xca\xfe\xba\xbe\0\0\0\x34", "application/java"),
            (b"\x89PNG\r\n\x1a\n", "image/png"),
            (b"\xff\xd8\xff\xe0", "image/jpeg"),
            (b"GIF89a", "image/gif"),
            (b"%PDF-1.7", "application/pdf"),
            (b"junk before it %PDF-1.7", "application/pdf"),
            (b"PK\x03\x04\0\0", "application/zip"),
            (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
            (b"\0\0\0\x18ftypisom\0\0\0\0", "video/mp4"),
            (b"\0\0\0\x18ftypxxxx\0\0\0\0", "video/mp4"),
            (b"\0\0\0\x18ftypM4A \0\0\0\0", "audio/m4a"),
            (b"\0\0\0\x14ftypqt  \0\0\0\0", "video/quicktime"),
            (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", "image/avif"),
            (b"#!/bin/sh\n", "text/x-shellscript"),
            (b" <HTML >", "text/html"),
            (b"\xef\xbb\xbf<script>", "text/html"),
            (b"<html\nlang=en>", "text/html"),
            (b"\n<script\n src=x>", "text/html"),
            (b"<script/src=x>", "text/html"),
            (b"<br/>", "text/html"),
            (b"<!DOCTYPE html>", "text/html"),
            (b"<!DOCTYPE html\n>", "text/html"),
            (b"<!doctype\r\n\tHTML PUBLIC '-//W3C//DTD HTML 4.01//EN'>", "text/html"),
            (b"<!--x--><html>", "text/html"),
            (b"<?xml version='1.0'?><feed/>", "text/xml"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'>", "image/svg+xml"),
            (
                b"\xef\xbb\xbf<?xml version='1.0'?>\n<!--x--><!DOCTYPE svg [<!ENTITY a '>'>]>\n<s:svg/>",
                "image/svg+xml",
            ),
        ] {
            assert_eq!(
                kinds_of(head),
                [expected],
                "{:?}",
                String::from_utf8_lossy(&head[..head.len().min(60)])
            );
        }
    }

    #[test]
    fn a_file_may_have_several_types() {
        let mut video = program(0x80);
        video[4..8].copy_from_slice(b"ftyp");
        assert_eq!(types_of(&video), [PORTABLE_EXECUTABLE, ISO_MEDIA]);
        let mut archive = program(0x200);
        archive[257..262].copy_from_slice(b"ustar");
        assert_eq!(types_of(&archive), [PORTABLE_EXECUTABLE, "application/x-tar"]);
        let mut book = padded(b"\xff\xd8\xff", 128);
        book[60..68].copy_from_slice(b"BOOKMOBI");
        assert_eq!(types_of(&book), ["image/jpeg", "application/x-mobipocket-ebook"]);
        assert_eq!(kinds_of(b"<!-- a --><svg>"), ["image/svg+xml", "text/html"]);
        assert_eq!(
            kinds_of(b"<?xml version='1.0'?><!DOCTYPE html SYSTEM 'x'><html xmlns='http://www.w3.org/1999/xhtml'>"),
            ["text/html", "text/xml"]
        );
    }

    #[test]
    fn svg_is_seen_behind_everything_that_xml_allows_before_a_root() {
        for file in [
            "<?a b?><svg xmlns='http://www.w3.org/2000/svg'/>",
            "<?xml version='1.0'?><?xml-stylesheet href='?'?><svg/>",
            r#"<!DOCTYPE svg [<!ENTITY a "]>">]><svg/>"#,
            "<!DOCTYPE svg [<!ENTITY a ']>'>]><svg/>",
            "<!DOCTYPE svg [<!-- ] > -->]><svg/>",
            "<!DOCTYPE svg [<!-- don't -->]><svg/>",
            "<!DOCTYPE svg [<!-->]>-->]><svg/>",
            "<!DOCTYPE svg [<?a ]>\"?>]><svg/>",
            r#"<!DOCTYPE svg SYSTEM "a>b"><svg/>"#,
            r#"<!DOCTYPE svg PUBLIC "it's" '"[' [ ] ><svg/>"#,
            "<!--> x --><svg/>",
            "<!---> x --><svg/>",
            "<!--><svg>--><?a <!--?><!DOCTYPE svg><svg/>",
        ] {
            assert!(types_of(file.as_bytes()).contains(&"image/svg+xml"), "{file}");
        }
        for file in [
            "<!DOCTYPE svg [<!ENTITY a '<svg/>'>]><feed/>",
            "<?a <svg/>?><feed/>",
            "<!--><svg/>--><feed/>",
        ] {
            assert!(!types_of(file.as_bytes()).contains(&"image/svg+xml"), "{file}");
        }
    }

    #[test]
    fn what_is_not_understood_before_a_root_is_xml() {
        for file in [
            "<!--x<svg/>",
            "<!--><svg/>",
            "<!DOCTYPE svg '><svg/>",
            "<!DOCTYPE svg [><svg/>",
            "<!DOCTYPE svg [<!--]><svg/>",
        ] {
            assert!(types_of(file.as_bytes()).contains(&"text/xml"), "{file}");
        }
    }

    #[test]
    fn an_office_document_is_no_zip_archive_where_it_is_seen_to_be_one() {
        let mut odt = padded(b"PK\x03\x04", 100);
        odt[0x1e..0x26].copy_from_slice(b"mimetype");
        let media_type = b"application/vnd.oasis.opendocument.text";
        odt[0x26..0x26 + media_type.len()].copy_from_slice(media_type);
        assert_eq!(kinds_of(&odt), ["application/vnd.oasis.opendocument.text"]);
        assert_eq!(types_of(&odt), ["application/vnd.oasis.opendocument.text", ZIP]);
    }

    #[test]
    fn the_header_of_a_program_is_looked_for_where_the_file_says() {
        for (header, expected) in [
            (0x80, None),
            (0x3ffe, None),
            (0x3fff, Some(0x3fff)),
            (0x10_0000, Some(0x10_0000)),
            (u32::MAX, Some(u32::MAX.into())),
        ] {
            let program = program(header);
            assert_eq!(header_out_of_sight(&program), expected, "{header}");
            let is_seen = types_of(&program).contains(&PORTABLE_EXECUTABLE);
            assert_eq!(is_seen, expected.is_none(), "{header}");
            // Of a shorter file there is no more than the head.
            assert_eq!(header_out_of_sight(&program[..HEAD - 1]), None, "{header}");
        }
        assert_eq!(header_out_of_sight(&padded(b"MY\0", HEAD)), None);
        for header in [&b"PE"[..], b"NE\0", b"LE", b"LX"] {
            assert!(is_program_header(header));
        }
        for other in [&b""[..], b"P", b"PK", b"EP"] {
            assert!(!is_program_header(other));
        }
    }

    #[test]
    fn what_is_cut_off_or_says_nothing_has_no_type() {
        for head in [
            &b""[..],
            b"M",
            b"MZ",
            b"MZ is how this text begins, and it goes on for more than sixty-four bytes, so that it has a place of a header",
            b"\x89PN",
            b"PK\x03",
            b"BC for short",
            b"L\x01 is no program",
            b"hello",
            b"{\"a\": 1}",
            b"<",
            b"<svgs>",
            b"<?php echo '<svg>';",
            b"<x:y><svg>",
        ] {
            assert_eq!(types_of(head), [""; 0], "{:?}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn a_root_out_of_sight_is_xml() {
        let comment = padded(b"<!--", HEAD);
        assert_eq!(types_of(&comment), ["text/xml"]);
        let mut blanks = b"<!--x-->".to_vec();
        blanks.resize(HEAD, b' ');
        assert_eq!(types_of(&blanks), ["text/xml"]);
        let instruction = padded(b"<?a", HEAD);
        assert_eq!(types_of(&instruction), ["text/xml"]);
        assert_eq!(types_of(&instruction[..HEAD - 1]), [""; 0]);
        let mut prefix = b"<".to_vec();
        prefix.resize(HEAD, b'x');
        assert_eq!(types_of(&prefix), ["text/xml"]);
        assert_eq!(types_of(&[b' '; HEAD]), ["text/xml"]);
    }

    #[test]
    fn other_names_lead_to_names_here() {
        for (other, here) in OTHER_NAMES {
            assert!(
                !names().any(|name| name == *other) && names().any(|name| name == *here),
                "{other}"
            );
        }
        for (special, general) in SPECIAL_OF {
            assert!(
                names().any(|name| name == *special) && names().any(|name| name == *general),
                "{special}"
            );
        }
    }

    /// Where this differs from `infer`, on purpose.
    fn same_in_infer(kind: &infer::Type, head: &[u8]) -> bool {
        match kind.extension() {
            "exe" | "dll" => !is_portable_executable(head),
            "obj" | "bc" => true,
            _ => false,
        }
    }

    /// Bytes that begin like a file of some kind.
    fn heads() -> impl Strategy<Value = Vec<u8>> {
        let begins: Vec<&[u8]> = vec![
            b"",
            b"MZ",
            b"PK\x03\x04",
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
            b"\0\0\0\x18ftyp",
            b"RIFF",
            b"<?xml",
            b"<!--",
            b"<!DOCTYPE",
            b"\x1aE\xdf\xa3",
            b"!<arch>\n",
            b"%PDF",
            b"GIF8",
            b"\xff\xd8\xff",
            b"OggS",
            b"II*\0",
            b"FORM",
            b"\xca\xfe\xba\xbe",
            b"PK\x03\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\0\0\0\0[Content_Types].xml",
        ];
        let rest = prop::collection::vec(any::<u8>(), 0..400);
        (prop::sample::select(begins), rest).prop_map(|(begin, rest)| [begin, &rest].concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_have_types_and_what_infer_sees_is_among_them(head in heads()) {
            let types = types_of(&head);
            // Its parser of OLE files is not asked.
            if head.starts_with(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1") {
                prop_assert!(types.contains(&OLE));
            } else if let Some(kind) = infer::get(&head) && !same_in_infer(&kind, &head) {
                let name = match kind.mime_type() {
                    "application/octet-stream" => "application/vnd.ms-fontobject",
                    "audio/ogg" => "application/ogg",
                    name => name,
                };
                prop_assert!(types.contains(&name) || SPECIAL_OF.iter().any(|pair| pair.1 == name && types.contains(&pair.0)), "{name} {types:?}");
            }
        }
    }
}
