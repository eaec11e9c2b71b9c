//! The local end of a service: an address or a directory. Not the connection to it.

use std::fmt;
use std::path::{self, Path, PathBuf};

use crate::config::address::{host_port, write_host_port};
use crate::config::secret::redact;
use crate::config::value::Scalar;

/// The local end of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// A server that the client connects to.
    Tcp {
        /// Protocol of the server.
        scheme: Scheme,
        /// Host name, or IP address without brackets.
        host: String,
        /// Port; never 0.
        port: u16,
    },
    /// A directory that the client serves itself; absolute once loaded.
    Files(PathBuf),
}

/// The protocol of a local server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP, by default on port 80.
    Http,
    /// HTTPS, by default on port 443.
    Https,
    /// Any protocol over TCP; has no default port.
    Tcp,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
            Scheme::Tcp => "tcp",
        })
    }
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Local::Tcp { scheme, host, port } => {
                write!(f, "{scheme}://")?;
                write_host_port(f, host, *port)
            }
            Local::Files(path) => write!(f, "file://{}", path.display()),
        }
    }
}

impl Local {
    /// Makes a relative directory absolute, from `base`.
    pub(super) fn resolve(self, base: &Path) -> Self {
        match self {
            Local::Files(path) => {
                let path = base.join(path);
                Local::Files(path::absolute(&path).unwrap_or(path))
            }
            local => local,
        }
    }
}

impl Scalar for Local {
    fn read(text: &str) -> Result<Self, String> {
        let wrong = || {
            let text = redact(text);
            format!(
                "\"{text}\" is not a local service: write it like http://127.0.0.1:80, \
                 https://127.0.0.1:443, tcp://127.0.0.1:22 or file:///srv/www."
            )
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (scheme, default) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Scheme::Http, Some(80)),
            "https" => (Scheme::Https, Some(443)),
            "tcp" => (Scheme::Tcp, None),
            "file" => return files(rest).ok_or_else(wrong),
            _ => return Err(wrong()),
        };
        let (host, port) = host_port(rest.strip_suffix('/').unwrap_or(rest)).ok_or_else(wrong)?;
        match port.or(default) {
            Some(0) => Err(wrong()),
            Some(port) => Ok(Local::Tcp { scheme, host, port }),
            None => Err(format!(
                "\"{text}\" has no port: write it like tcp://127.0.0.1:22."
            )),
        }
    }
}

/// Parses an absolute path, or a relative one that begins with `.` or `..`. A bare name would look
/// like a host.
fn files(path: &str) -> Option<Local> {
    let clear = path.starts_with('/')
        || [".", ".."].contains(&path)
        || path.starts_with("./")
        || path.starts_with("../");
    (clear && !path.contains('\0')).then(|| Local::Files(PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_local_service_is_read() {
        for (text, shown) in [
            ("http://127.0.0.1", "http://127.0.0.1:80"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("https://127.0.0.1", "https://127.0.0.1:443"),
            ("tcp://127.0.0.1:22", "tcp://127.0.0.1:22"),
            ("tcp://[::1]:22", "tcp://[::1]:22"),
            ("file:///srv/www", "file:///srv/www"),
        ] {
            assert_eq!(Local::read(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn an_error_shows_how_to_write_a_local_service() {
        assert_eq!(
            Local::read("tcp://127.0.0.1").unwrap_err(),
            "\"tcp://127.0.0.1\" has no port: write it like tcp://127.0.0.1:22."
        );
        for text in [
            "127.0.0.1:80",
            "ftp://h",
            "http://",
            "http://h:0",
            "http://h/path",
            "file://srv",
            "file://",
        ] {
            assert!(
                Local::read(text)
                    .unwrap_err()
                    .contains("is not a local service: write"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_relative_directory_starts_at_that_of_the_file() {
        let local = Local::read("file://./www")
            .unwrap()
            .resolve(Path::new("/etc/gt"));
        assert_eq!(local, Local::Files(PathBuf::from("/etc/gt/www")));
        let local = Local::read("file:///srv")
            .unwrap()
            .resolve(Path::new("/etc/gt"));
        assert_eq!(local, Local::Files(PathBuf::from("/srv")));
    }
}
