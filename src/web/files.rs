//! The files of the page, which are in the program, compressed: `page/pack` makes them of their sources.

use super::answer::Answer;
use super::request::Method;

/// A file of the page.
struct PageFile {
    path: &'static str,
    kind: &'static str,
    gzipped: &'static [u8],
}

const FILES: [PageFile; 3] = [
    PageFile {
        path: "",
        kind: "text/html",
        gzipped: include_bytes!("page/index.html.gz"),
    },
    PageFile {
        path: "page.css",
        kind: "text/css",
        gzipped: include_bytes!("page/page.css.gz"),
    },
    PageFile {
        path: "page.js",
        kind: "text/javascript",
        gzipped: include_bytes!("page/page.js.gz"),
    },
];

/// Answers a request for a file of the page. `known` is the version that the browser has.
pub fn answer(method: Method, path: &[&str], known: Option<&str>) -> Answer {
    let [name] = path else {
        return not_found();
    };
    let Some(file) = FILES.iter().find(|file| file.path == *name) else {
        return not_found();
    };
    if !method.is_safe() {
        return Answer::error(405, "The page is read by GET.").with("Allow", "GET, HEAD");
    }
    let etag = file.etag();
    Answer::file(file.kind, file.gzipped, &etag, known == Some(etag.as_str()))
}

fn not_found() -> Answer {
    Answer::error(404, "The page is at /, and its API below /api/.")
}

impl PageFile {
    /// Returns the checksum and the length at the end of the compressed file (RFC 1952, section 2.3.1).
    fn etag(&self) -> String {
        let end = self.gzipped.iter().rev().take(8);
        end.map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::process::Command;

    /// More would not come in time over a slow line, and takes a router's flash.
    const MAX_PAGE: usize = 30 * 1024;

    #[test]
    fn the_compressed_files_are_those_of_the_sources() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/web/page");
        for file in &FILES {
            let name = match file.path {
                "" => "index.html",
                name => name,
            };
            let source = fs::read(format!("{folder}/{name}")).unwrap();
            let unpacked = Command::new("gzip")
                .args(["-dc", &format!("{folder}/{name}.gz")])
                .output()
                .unwrap();
            assert!(unpacked.stdout == source, "run src/web/page/pack: {name}");
            assert!(file.gzipped == fs::read(format!("{folder}/{name}.gz")).unwrap());
        }
        let size: usize = FILES.iter().map(|file| file.gzipped.len()).sum();
        assert!(size <= MAX_PAGE, "{size} bytes");
    }

    #[test]
    fn a_browser_that_has_a_file_gets_none() {
        let first = answer(Method::Get, &["page.js"], None);
        assert_eq!(
            (first.status, first.body().len()),
            (200, FILES[2].gzipped.len())
        );
        let known = FILES[2].etag();
        assert_eq!(answer(Method::Get, &["page.js"], Some(&known)).status, 304);
        for path in [&["x"][..], &["page.js", ""], &[]] {
            assert_eq!(answer(Method::Get, path, None).status, 404);
        }
        assert_eq!(answer(Method::Post, &[""], None).status, 405);
    }
}
