//! Content types by file extension. Files are not read.

/// Content types with their extensions. Text types are served as UTF-8, which nearly all text is.
const TYPES: &[(&str, &str)] = &[
    ("text/html; charset=utf-8", "html htm"),
    ("text/css; charset=utf-8", "css"),
    ("text/javascript; charset=utf-8", "js mjs"),
    ("application/json; charset=utf-8", "json map"),
    ("application/manifest+json; charset=utf-8", "webmanifest"),
    ("application/wasm", "wasm"),
    (
        "text/plain; charset=utf-8",
        "txt text log md conf cfg ini yaml yml toml sh py c h rs go lua diff patch srt",
    ),
    ("text/csv; charset=utf-8", "csv"),
    ("text/vtt; charset=utf-8", "vtt"),
    ("text/calendar; charset=utf-8", "ics"),
    ("application/xml; charset=utf-8", "xml"),
    ("image/svg+xml; charset=utf-8", "svg"),
    ("image/png", "png"),
    ("image/jpeg", "jpg jpeg"),
    ("image/gif", "gif"),
    ("image/webp", "webp"),
    ("image/avif", "avif"),
    ("image/heic", "heic"),
    ("image/bmp", "bmp"),
    ("image/tiff", "tif tiff"),
    ("image/x-icon", "ico"),
    ("font/woff2", "woff2"),
    ("font/woff", "woff"),
    ("font/ttf", "ttf"),
    ("font/otf", "otf"),
    ("application/pdf", "pdf"),
    ("application/epub+zip", "epub"),
    ("application/rtf", "rtf"),
    ("application/msword", "doc"),
    (
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "docx",
    ),
    ("application/vnd.ms-excel", "xls"),
    (
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "xlsx",
    ),
    ("application/vnd.ms-powerpoint", "ppt"),
    (
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "pptx",
    ),
    ("application/vnd.oasis.opendocument.text", "odt"),
    ("application/vnd.oasis.opendocument.spreadsheet", "ods"),
    ("video/mp4", "mp4 m4v"),
    ("video/x-matroska", "mkv"),
    ("video/webm", "webm"),
    ("video/quicktime", "mov"),
    ("video/x-msvideo", "avi"),
    ("video/mpeg", "mpg mpeg"),
    ("video/mp2t", "ts m2ts"),
    ("application/vnd.apple.mpegurl", "m3u8"),
    ("audio/mpeg", "mp3"),
    ("audio/mp4", "m4a m4b"),
    ("audio/aac", "aac"),
    ("audio/flac", "flac"),
    ("audio/ogg", "ogg oga opus"),
    ("video/ogg", "ogv"),
    ("audio/wav", "wav"),
    ("audio/midi", "mid midi"),
    ("application/zip", "zip"),
    ("application/gzip", "gz tgz ipk"),
    ("application/x-bzip2", "bz2"),
    ("application/x-xz", "xz"),
    ("application/zstd", "zst"),
    ("application/x-7z-compressed", "7z"),
    ("application/vnd.rar", "rar"),
    ("application/x-tar", "tar"),
    ("application/vnd.android.package-archive", "apk"),
    ("application/x-bittorrent", "torrent"),
];

/// Returns the `Content-Type` for a file name; `application/octet-stream` if the extension is
/// unknown.
pub(super) fn of(name: &[u8]) -> &'static str {
    let ending = name.rsplit(|byte| *byte == b'.').next().unwrap_or_default();
    let known = |endings: &&str| {
        let mut endings = endings.split(' ');
        endings.any(|known| known.as_bytes().eq_ignore_ascii_case(ending))
    };
    match TYPES.iter().find(|(_, endings)| known(endings)) {
        Some((content_type, _)) if ending.len() < name.len() => content_type,
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_extension_determines_the_type_in_any_case() {
        assert_eq!(of(b"a.html"), "text/html; charset=utf-8");
        assert_eq!(of(b"films/A.B.MP4"), "video/mp4");
        assert_eq!(of(b"x.tar.gz"), "application/gzip");
        assert_eq!(of(b"notes.md"), "text/plain; charset=utf-8");
    }

    #[test]
    fn an_unknown_or_missing_extension_is_an_octet_stream() {
        for name in ["", "html", "a.", "a.unknown", "a.html.", "a.html htm"] {
            assert_eq!(of(name.as_bytes()), "application/octet-stream", "{name}");
        }
    }

    #[test]
    fn no_extension_is_listed_twice() {
        let mut seen = HashSet::new();
        for ending in TYPES.iter().flat_map(|(_, endings)| endings.split(' ')) {
            assert!(seen.insert(ending), "{ending}");
        }
        assert!(seen.len() > 60);
    }
}
