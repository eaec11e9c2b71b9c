//! The status codes of the file service, each with a text for the visitor.

/// A status line's code and reason, and the sentence of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileStatus {
    pub(super) code: u16,
    pub(super) reason: &'static str,
    /// The text for the visitor; empty if the status is not an error.
    pub(super) text: &'static str,
}

const fn status(code: u16, reason: &'static str, text: &'static str) -> FileStatus {
    FileStatus { code, reason, text }
}

pub(super) const OK: FileStatus = status(200, "OK", "");
pub(super) const PARTIAL: FileStatus = status(206, "Partial Content", "");
pub(super) const MOVED: FileStatus = status(
    301,
    "Moved Permanently",
    "This is a folder: its address ends in a slash.",
);
pub(super) const NOT_MODIFIED: FileStatus = status(304, "Not Modified", "");
pub(super) const BAD_REQUEST: FileStatus =
    status(400, "Bad Request", "This request could not be understood.");
pub(super) const NO_PASSWORD: FileStatus = status(
    401,
    "Unauthorized",
    "This service needs a name and a password.",
);
pub(super) const FORBIDDEN: FileStatus = status(
    403,
    "Forbidden",
    "This may not be read. Its owner can change its permissions.",
);
pub(super) const NOT_FOUND: FileStatus = status(
    404,
    "Not Found",
    "There is no file or folder of this name here.",
);
pub(super) const NOT_ALLOWED: FileStatus = status(
    405,
    "Method Not Allowed",
    "Files here can only be read: use GET or HEAD.",
);
pub(super) const CONDITION_FAILED: FileStatus = status(
    412,
    "Precondition Failed",
    "The file is no longer the one that was asked for.",
);
pub(super) const OUTSIDE: FileStatus = status(
    416,
    "Range Not Satisfiable",
    "The file ends before the part that was asked for.",
);
pub(super) const HEAD_TOO_LARGE: FileStatus = status(
    431,
    "Request Header Fields Too Large",
    "The head of this request is too large.",
);
pub(super) const DISK_ERROR: FileStatus = status(
    500,
    "Internal Server Error",
    "The disk could not be read. The log says more.",
);
pub(super) const UNAVAILABLE: FileStatus = status(
    503,
    "Service Unavailable",
    "This cannot be read right now. Try again later.",
);
pub(super) const VERSION: FileStatus = status(
    505,
    "HTTP Version Not Supported",
    "Use HTTP/1.1 or HTTP/1.0.",
);
