//! The local end of a service: an address, a directory or a proxy. Not the connection to it.

use std::fmt;
use std::path::{self, Path, PathBuf};

use super::proxy::ProxyKind;
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
    /// A server that the client sends datagrams to.
    Udp {
        /// Host name, or IP address without brackets.
        host: String,
        /// Port; never 0.
        port: u16,
    },
    /// A server with a Unix socket that the client connects to.
    Unix {
        /// Protocol of the server.
        scheme: Scheme,
        /// The path, absolute once loaded; `@` and a name for an abstract socket (unix(7)).
        socket: PathBuf,
    },
    /// A directory that the client serves itself; absolute once loaded.
    Files(PathBuf),
    /// A proxy that the client serves itself.
    Proxy(ProxyKind),
    /// What peers reach private services by, at which visitors find nothing. No option names it.
    Signaling,
}

/// The protocol of a local server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// HTTP, by default on port 80.
    Http,
    /// HTTPS, by default on port 443.
    Https,
    /// Any protocol over TCP or a Unix socket; has no default port.
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
            Local::Unix { scheme, socket } => {
                let scheme = match scheme {
                    Scheme::Http => "http+unix",
                    Scheme::Https => "https+unix",
                    Scheme::Tcp => "unix",
                };
                let slashes = if is_abstract(socket) { "" } else { "//" };
                write!(f, "{scheme}:{slashes}{}", socket.display())
            }
            Local::Udp { host, port } => {
                f.write_str("udp://")?;
                write_host_port(f, host, *port)
            }
            Local::Files(path) => write!(f, "file://{}", path.display()),
            Local::Proxy(kind) => kind.fmt(f),
            Local::Signaling => f.write_str("the signaling of private services"),
        }
    }
}

impl Local {
    /// Makes a relative directory absolute, from `base`.
    pub(super) fn resolve(self, base: &Path) -> Self {
        let absolute = |path| {
            let path = base.join(path);
            path::absolute(&path).unwrap_or(path)
        };
        match self {
            Local::Files(path) => Local::Files(absolute(path)),
            Local::Unix { scheme, socket } if !is_abstract(&socket) => Local::Unix {
                scheme,
                socket: absolute(socket),
            },
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
                 https://127.0.0.1:443, tcp://127.0.0.1:22, udp://127.0.0.1:53, tcp+udp://127.0.0.1:53, \
                 unix:///run/app.sock, http+unix:///run/app.sock, file:///srv/www, \
                 socks5: or httpproxy:."
            )
        };
        if let Some(kind) = ProxyKind::read(text) {
            return kind.map(Local::Proxy);
        }
        if let Some((scheme, socket)) = unix(text) {
            return socket
                .map(|socket| Local::Unix { scheme, socket })
                .ok_or_else(wrong);
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (scheme, default) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Some(Scheme::Http), Some(80)),
            "https" => (Some(Scheme::Https), Some(443)),
            "tcp" => (Some(Scheme::Tcp), None),
            "udp" => (None, None),
            "file" => return files(rest).ok_or_else(wrong),
            _ => return Err(wrong()),
        };
        let (host, port) = host_port(rest.strip_suffix('/').unwrap_or(rest)).ok_or_else(wrong)?;
        match (port.or(default), scheme) {
            (Some(0), _) => Err(wrong()),
            (Some(port), Some(scheme)) => Ok(Local::Tcp { scheme, host, port }),
            (Some(port), None) => Ok(Local::Udp { host, port }),
            (None, scheme) => Err(format!(
                "\"{text}\" has no port: write it like {}.",
                match scheme {
                    Some(_) => "tcp://127.0.0.1:22",
                    None => "udp://127.0.0.1:53",
                }
            )),
        }
    }
}

fn files(path: &str) -> Option<Local> {
    self::path(path).map(Local::Files)
}

/// Parses an absolute path, or a relative one that begins with `.` or `..`. A bare name would look
/// like a host.
fn path(path: &str) -> Option<PathBuf> {
    let clear = path.starts_with('/')
        || [".", ".."].contains(&path)
        || path.starts_with("./")
        || path.starts_with("../");
    (clear && !path.contains('\0')).then(|| PathBuf::from(path))
}

/// Maximum length in bytes of the path or the name of a Unix socket: that of the kernel's address, with a
/// byte at its end or beginning.
const MAX_SOCKET: usize = 107;

/// Whether this is the name of an abstract Unix socket, with its `@`.
fn is_abstract(socket: &Path) -> bool {
    socket.as_os_str().as_encoded_bytes().first() == Some(&b'@')
}

/// Parses the address of a Unix socket: a path, or `@` and a name. `None` for other addresses,
/// `Some((_, None))` for a wrong one.
fn unix(text: &str) -> Option<(Scheme, Option<PathBuf>)> {
    let (scheme, rest) = text.split_once(':')?;
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "unix" => Scheme::Tcp,
        "http+unix" => Scheme::Http,
        "https+unix" => Scheme::Https,
        _ => return None,
    };
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let socket = match rest.strip_prefix('@') {
        Some(name) => (!name.is_empty() && !name.contains('\0')).then(|| PathBuf::from(rest)),
        None => path(rest),
    };
    Some((scheme, socket))
}

/// Checks that the kernel can address a Unix socket. The error is a sentence.
pub(super) fn check_socket(local: &Local) -> Result<(), String> {
    match local {
        Local::Unix { socket, .. }
            if socket.as_os_str().len() > MAX_SOCKET + usize::from(is_abstract(socket)) =>
        {
            Err(format!(
            "The path of {local} is too long: that of a Unix socket has at most {MAX_SOCKET} bytes."
        ))
        }
        _ => Ok(()),
    }
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
            ("udp://127.0.0.1:53", "udp://127.0.0.1:53"),
            ("UDP://[::1]:53/", "udp://[::1]:53"),
            ("file:///srv/www", "file:///srv/www"),
            ("unix:///run/app.sock", "unix:///run/app.sock"),
            ("unix:/run/app.sock", "unix:///run/app.sock"),
            ("unix:@app", "unix:@app"),
            ("unix://@app", "unix:@app"),
            ("http+unix:///run/app.sock", "http+unix:///run/app.sock"),
            ("HTTPS+unix:@a/b", "https+unix:@a/b"),
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
            "unix:",
            "unix://",
            "unix:@",
            "unix:run/app.sock",
            "http+unix://app",
            "ftp+unix:///run/app.sock",
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
        for (text, shown) in [
            ("unix:./app.sock", "unix:///etc/gt/app.sock"),
            ("unix:/app.sock", "unix:///app.sock"),
            ("unix:@app", "unix:@app"),
        ] {
            let local = Local::read(text).unwrap().resolve(Path::new("/etc/gt"));
            assert_eq!(local.to_string(), shown);
        }
    }

    #[test]
    fn the_address_of_a_unix_socket_has_a_bounded_length() {
        for (length, fits) in [(107, true), (108, false)] {
            let path = format!("unix:/{}", "a".repeat(length - 1));
            let name = format!("unix:@{}", "a".repeat(length));
            for text in [path, name] {
                let checked = check_socket(&Local::read(&text).unwrap());
                assert_eq!(checked.is_ok(), fits, "{text}: {checked:?}");
            }
        }
    }
}
