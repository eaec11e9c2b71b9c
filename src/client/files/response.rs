//! The response to a request: finds its target, and the part of it that the client needs. Not the
//! sending.

use super::body::FileBody;
use super::date::Moment;
use super::head::{After, FileMethod, FileRequest};
use super::listing::FolderListing;
use super::range::ByteRange;
use super::root::{changed, FolderNode, FolderRoot};
use super::status::{self, FileStatus};
use super::target::{query, RequestTarget};
use super::types;
use crate::client::request_edits::ASK_PASSWORD;
use crate::logging::{held_back, LogThrottle};
use crate::net::http::percent;
use crate::net::{clock, DISK};
use log::warn;
use rustix::io::Errno;
use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::time::UNIX_EPOCH;

/// A response, ready to be sent.
pub(super) struct FileResponse {
    /// The head, with the body behind it if that is short.
    pub(super) head: Vec<u8>,
    pub(super) body: FileBody,
    pub(super) after: After,
    /// The code of the status.
    pub(super) code: u16,
}

/// The file or folder at a target. Links are followed and files opened on a blocking thread.
enum FoundFile {
    File {
        file: File,
        metadata: Metadata,
        content_type: &'static str,
    },
    /// A folder that was requested without its trailing slash.
    Redirect,
    /// A folder listing; `None` for HEAD.
    Listing(Option<Box<FolderListing>>),
}

impl FileResponse {
    /// Builds the response to a request.
    pub(super) async fn find(root: &FolderRoot, request: &FileRequest<'_>) -> FileResponse {
        if request.method == FileMethod::Other {
            return FileResponse::status(status::NOT_ALLOWED, request);
        }
        let target = match RequestTarget::parse(request.target) {
            Ok(target) => target,
            Err(status) => return FileResponse::status(status, request),
        };
        let (root, whole) = (root.clone(), request.method == FileMethod::Get);
        let looking = DISK.run(move || {
            let found = FoundFile::open_target(&root, &target, whole)
                .map_err(|error| explain(&error, &target));
            (target, found)
        });
        let (target, found) = looking.await;
        match found {
            Ok(FoundFile::File {
                file,
                metadata,
                content_type,
            }) => FileResponse::file(file, target.path, &metadata, content_type, request),
            Ok(FoundFile::Redirect) => FileResponse::redirect(&target, request),
            Ok(FoundFile::Listing(listing)) => FileResponse::listing(listing, request),
            Err(status) => FileResponse::status(status, request),
        }
    }

    /// Builds the response to a malformed head. The connection closes behind it.
    pub(super) fn refusal(status: FileStatus) -> FileResponse {
        FileResponseHead::new(status, After::Drain).error(status, true)
    }

    /// Builds the response to a request that has another one than a file.
    pub(super) fn status(status: FileStatus, request: &FileRequest<'_>) -> FileResponse {
        let after = match status {
            // Each attempt takes a connection, which is counted (visitorRate).
            status::NO_PASSWORD => After::Drain,
            _ => request.after,
        };
        let mut head = FileResponseHead::new(status, after);
        match status {
            status::NOT_ALLOWED => head.put("Allow", "GET, HEAD"),
            status::NO_PASSWORD => head.write(format_args!("{ASK_PASSWORD}")),
            _ => {}
        }
        head.error(status, request.method != FileMethod::Head)
    }

    /// Redirects to the same name with a slash, relative to its folder: this is right behind any
    /// proxy and never names another host, whatever the target.
    fn redirect(target: &RequestTarget, request: &FileRequest<'_>) -> FileResponse {
        let mut location = String::new();
        percent::encode(target.last_name(), &mut location);
        location.push('/');
        location.push_str(query(request.target));
        let mut head = FileResponseHead::new(status::MOVED, request.after);
        head.put("Location", location);
        head.error(status::MOVED, request.method != FileMethod::Head)
    }

    fn listing(listing: Option<Box<FolderListing>>, request: &FileRequest<'_>) -> FileResponse {
        // Without chunks the page ends with the connection.
        let after = match request.after {
            After::Next | After::NextOld if !request.chunks => After::Close,
            after => after,
        };
        let mut head = FileResponseHead::new(status::OK, after);
        head.put("Content-Type", "text/html; charset=utf-8");
        head.put("Cache-Control", "no-cache");
        head.put(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'unsafe-inline'",
        );
        if request.chunks {
            head.put("Transfer-Encoding", "chunked");
        }
        match listing {
            Some(listing) => head.end(FileBody::Listing {
                listing,
                chunks: request.chunks,
            }),
            None => head.end(FileBody::Done),
        }
    }

    fn file(
        file: File,
        path: Vec<u8>,
        metadata: &Metadata,
        content_type: &str,
        request: &FileRequest<'_>,
    ) -> FileResponse {
        let size = metadata.len();
        let tag = EntityTag::of(metadata);
        let (status, first, count) = match tag.check(request) {
            Some(status) if status == status::NOT_MODIFIED => (status, 0, 0),
            Some(status) => return FileResponse::status(status, request),
            None => match tag.range(request, size) {
                ByteRange::Whole => (status::OK, 0, size),
                ByteRange::Part { first, last } => {
                    // Ranges include their last byte.
                    (
                        status::PARTIAL,
                        first,
                        last.saturating_sub(first).saturating_add(1),
                    )
                }
                ByteRange::Outside => {
                    let mut head = FileResponseHead::new(status::OUTSIDE, request.after);
                    head.put("Content-Range", format_args!("bytes */{size}"));
                    return head.error(status::OUTSIDE, true);
                }
            },
        };
        let mut head = FileResponseHead::new(status, request.after);
        head.put("ETag", &tag.etag);
        if let Some(date) = &tag.date {
            head.put("Last-Modified", date);
        }
        if status == status::NOT_MODIFIED {
            return head.end(FileBody::Done);
        }
        head.put("Content-Type", content_type);
        head.put("Content-Length", count);
        head.put("Accept-Ranges", "bytes");
        if status == status::PARTIAL {
            let last = first.saturating_add(count).saturating_sub(1);
            head.put("Content-Range", format_args!("bytes {first}-{last}/{size}"));
        }
        match (request.method, count) {
            (FileMethod::Get, 1..) => head.end(FileBody::File {
                file,
                path,
                at: first,
                left: count,
            }),
            _ => head.end(FileBody::Done),
        }
    }
}

impl FoundFile {
    /// Opens the file or folder at a target. Blocks.
    fn open_target(
        root: &FolderRoot,
        target: &RequestTarget,
        whole: bool,
    ) -> io::Result<FoundFile> {
        // Only here does ENOENT mean that the shared folder itself is gone, such as an unplugged
        // disk.
        let tree = root
            .tree()
            .map_err(|error| io::Error::other(RootGone(error)))?;
        let path = target.path.as_slice();
        let folder = match tree.open(path)? {
            FolderNode::File(..) if target.folder => return Err(Errno::NOTDIR.into()),
            FolderNode::File(file, metadata) => {
                return Ok(FoundFile::File {
                    file,
                    metadata,
                    content_type: types::of(path),
                })
            }
            FolderNode::Folder(_) if !target.folder => return Ok(FoundFile::Redirect),
            FolderNode::Folder(folder) => folder,
        };
        let index = match path {
            b"" => b"index.html".to_vec(),
            path => [path, b"/index.html"].concat(),
        };
        match tree.open(&index) {
            Ok(FolderNode::File(file, metadata)) => {
                return Ok(FoundFile::File {
                    file,
                    metadata,
                    content_type: types::of(&index),
                })
            }
            Ok(FolderNode::Folder(_)) => {}
            Err(error) if status_of(&error) == status::NOT_FOUND => {}
            Err(error) => return Err(error),
        }
        if !whole {
            return Ok(FoundFile::Listing(None));
        }
        let listing = FolderListing::read(tree, folder, path.to_vec())?;
        Ok(FoundFile::Listing(Some(Box::new(listing))))
    }
}

/// The error that the shared folder itself could not be opened.
#[derive(Debug)]
struct RootGone(io::Error);

impl std::fmt::Display for RootGone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the shared folder cannot be opened: {}", self.0)
    }
}

impl std::error::Error for RootGone {}

/// Returns the status for a disk error. All but a missing file are logged.
fn explain(error: &io::Error, target: &RequestTarget) -> FileStatus {
    let status = status_of(error);
    if status != status::NOT_FOUND {
        // Throttled, since a visitor can cause this as often as it likes.
        static LINES: LogThrottle = LogThrottle::new();
        if let Some(others) = LINES.allow() {
            let path = target.path.escape_ascii();
            let others = held_back(others);
            warn!(
                "cannot read what a visitor asked for path=\"/{path}\" error=\"{error}\"{others}"
            );
        }
    }
    status
}

fn status_of(error: &io::Error) -> FileStatus {
    if error.get_ref().is_some_and(|inner| inner.is::<RootGone>()) {
        return status::UNAVAILABLE;
    }
    match Errno::from_io_error(error) {
        // XDEV and LOOP are links that lead outside or in circles; INVAL and ILSEQ are names that a
        // file system such as FAT cannot hold.
        Some(
            Errno::NOENT
            | Errno::NOTDIR
            | Errno::LOOP
            | Errno::XDEV
            | Errno::NAMETOOLONG
            | Errno::INVAL
            | Errno::ILSEQ
            | Errno::NXIO
            | Errno::NODEV,
        ) => status::NOT_FOUND,
        Some(Errno::ACCESS | Errno::PERM) => status::FORBIDDEN,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN) => status::UNAVAILABLE,
        _ => status::DISK_ERROR,
    }
}

/// The identity of one version of a file: its entity tag and its date.
struct EntityTag {
    etag: String,
    changed: Option<Moment>,
    /// `changed` as an HTTP date; `None` if it is in the future, as on a router whose clock is not
    /// set yet (RFC 9110, section 8.8.2.1).
    date: Option<String>,
}

impl EntityTag {
    fn of(metadata: &Metadata) -> EntityTag {
        let (seconds, nanoseconds) = changed(metadata);
        let moment = Moment::from_unix(seconds);
        let past = now().is_some_and(|now| seconds <= now);
        EntityTag {
            etag: format!("\"{:x}-{seconds:x}-{nanoseconds:x}\"", metadata.len()),
            changed: moment,
            date: moment.filter(|_| past).map(|moment| moment.to_string()),
        }
    }

    /// Evaluates the conditions of a request in the order of RFC 9110, section 13.2.2. Returns the
    /// status to send instead of the file, if they require one.
    fn check(&self, request: &FileRequest<'_>) -> Option<FileStatus> {
        let since = |date: Option<&[u8]>| {
            let date = Moment::parse(date?)?;
            Some(self.changed? > date)
        };
        if !request.if_match.is_empty() {
            if !self.is_among(&request.if_match, false) {
                return Some(status::CONDITION_FAILED);
            }
        } else if since(request.if_unmodified_since) == Some(true) {
            return Some(status::CONDITION_FAILED);
        }
        if !request.if_none_match.is_empty() {
            return self
                .is_among(&request.if_none_match, true)
                .then_some(status::NOT_MODIFIED);
        }
        match since(request.if_modified_since) {
            Some(false) => Some(status::NOT_MODIFIED),
            _ => None,
        }
    }

    /// Returns the part that a request asks for. Ranges apply to GET, and only if If-Range matches.
    fn range(&self, request: &FileRequest<'_>, size: u64) -> ByteRange {
        let same = match request.if_range {
            None => true,
            Some(known) => {
                let date = self.date.as_ref().map(String::as_bytes);
                known == self.etag.as_bytes() || Some(known) == date
            }
        };
        match request.range {
            Some(range) if same && request.method == FileMethod::Get => {
                ByteRange::parse(range, size)
            }
            _ => ByteRange::Whole,
        }
    }

    /// Whether a list of tags contains this tag or is `*`. The tags here contain no comma, so lists
    /// are split at every comma.
    fn is_among(&self, lists: &[&[u8]], weak: bool) -> bool {
        let mut tags = lists
            .iter()
            .flat_map(|list| list.split(|byte| *byte == b','));
        tags.any(|tag| {
            let tag = tag.trim_ascii();
            let tag = if weak {
                tag.strip_prefix(b"W/").unwrap_or(tag)
            } else {
                tag
            };
            tag == b"*" || tag == self.etag.as_bytes()
        })
    }
}

/// Returns the present time in seconds since 1970.
fn now() -> Option<i64> {
    let now = clock::time_of_day().duration_since(UNIX_EPOCH).ok()?;
    i64::try_from(now.as_secs()).ok()
}

/// The head of a response while it is being written.
struct FileResponseHead {
    bytes: Vec<u8>,
    after: After,
    code: u16,
}

impl FileResponseHead {
    fn new(status: FileStatus, after: After) -> FileResponseHead {
        let mut head = FileResponseHead {
            bytes: Vec::with_capacity(512),
            after,
            code: status.code,
        };
        head.write(format_args!(
            "HTTP/1.1 {} {}\r\n",
            status.code, status.reason
        ));
        if let Some(now) = now().and_then(Moment::from_unix) {
            head.put("Date", now);
        }
        match after {
            After::Next => {}
            After::NextOld => head.put("Connection", "keep-alive"),
            After::Close | After::Drain => head.put("Connection", "close"),
        }
        head.put("X-Content-Type-Options", "nosniff");
        head
    }

    /// Adds a field. Its value must not contain line ends; no value here does.
    fn put(&mut self, name: &str, value: impl std::fmt::Display) {
        self.write(format_args!("{name}: {value}\r\n"));
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a Vec cannot fail.
        let _ = self.bytes.write_fmt(text);
    }

    fn end(mut self, body: FileBody) -> FileResponse {
        self.bytes.extend_from_slice(b"\r\n");
        FileResponse {
            head: self.bytes,
            body,
            after: self.after,
            code: self.code,
        }
    }

    /// Finishes the head with a short text body, or with its length only for HEAD.
    fn error(mut self, status: FileStatus, body: bool) -> FileResponse {
        let text = format!("{} {}\n{}\n", status.code, status.reason, status.text);
        self.put("Content-Type", "text/plain; charset=utf-8");
        self.put("Content-Length", text.len());
        let mut answer = self.end(FileBody::Done);
        if body {
            answer.head.extend_from_slice(text.as_bytes());
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_disk_error_has_its_status() {
        for (errno, code) in [
            (Errno::NOENT, 404),
            (Errno::XDEV, 404),
            (Errno::LOOP, 404),
            (Errno::INVAL, 404),
            (Errno::ACCESS, 403),
            (Errno::PERM, 403),
            (Errno::IO, 500),
            (Errno::MFILE, 503),
        ] {
            assert_eq!(status_of(&errno.into()).code, code, "{errno:?}");
        }
        let gone = io::Error::other(RootGone(Errno::NOENT.into()));
        assert_eq!(status_of(&gone).code, 503);
    }
}
