//! The body of a response, read from the disk in pieces. Not the head, and no sockets.

use super::listing::FolderListing;
use crate::net::http::chunked;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

/// Maximum bytes of a file that are read, and held, at once.
const MAX_READ: usize = 32 * 1024;

/// The part of a body that is still to be sent.
pub(super) enum FileBody {
    /// Nothing is left.
    Done,
    /// `left` bytes of a file, from byte `at`. The path is for the log.
    File {
        file: File,
        path: Vec<u8>,
        at: u64,
        left: u64,
    },
    /// A folder listing, in chunks with HTTP/1.1, otherwise ended by closing the connection.
    Listing {
        listing: Box<FolderListing>,
        chunks: bool,
    },
}

impl FileBody {
    /// Appends the next piece to `out`. Blocks. After an error the connection must be cut, so that
    /// the client does not take a part for the whole.
    pub(super) fn read(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let more = match self {
            FileBody::Done => false,
            FileBody::File {
                file,
                path,
                at,
                left,
            } => {
                let count = read_file(file, *at, *left, out).map_err(|error| {
                    let path = path.escape_ascii();
                    let text =
                        format!("cannot send a file to its end path=\"/{path}\" error=\"{error}\"");
                    io::Error::new(error.kind(), text)
                })?;
                *at = at.saturating_add(count);
                *left = left.saturating_sub(count);
                *left > 0
            }
            FileBody::Listing { listing, chunks } => {
                let mut page = String::new();
                let more = listing.write(&mut page);
                match *chunks {
                    true => chunked::write(page.as_bytes(), out),
                    false => out.extend_from_slice(page.as_bytes()),
                }
                if *chunks && !more {
                    out.extend_from_slice(chunked::END);
                }
                more
            }
        };
        if !more {
            *self = FileBody::Done;
        }
        Ok(())
    }
}

/// Reads up to `left` bytes. Reading none is an error, unless `left` is 0.
fn read_file(file: &File, at: u64, left: u64, out: &mut Vec<u8>) -> io::Result<u64> {
    let start = out.len();
    let want = usize::try_from(left).unwrap_or(MAX_READ).min(MAX_READ);
    out.resize(start.saturating_add(want), 0);
    let read = loop {
        match file.read_at(out.get_mut(start..).unwrap_or_default(), at) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => break done,
        }
    };
    let count = *read.as_ref().unwrap_or(&0);
    out.truncate(start.saturating_add(count));
    match read? {
        0 if want > 0 => Err(io::Error::new(
            ErrorKind::UnexpectedEof,
            "the file became shorter while it was sent",
        )),
        count => Ok(u64::try_from(count).unwrap_or(left)),
    }
}
