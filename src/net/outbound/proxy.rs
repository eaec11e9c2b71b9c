//! The proxy that connections to servers go through, and the exchange that opens one. Not the messages, see
//! `http_connect` and `socks`.

use super::answer::ProxyAnswer;
use super::socks::SocksStep;
use super::{http_connect, socks};
use crate::net::{timeout, Socket};
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use std::time::Duration;
use std::{fmt, io};
use subtle::ConstantTimeEq;

/// The protocol of a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// HTTP's CONNECT.
    Http,
    /// SOCKS5 (RFC 1928).
    Socks5,
}

/// The name and the password for a proxy. Does not print.
#[derive(Clone)]
pub struct ProxyLogin {
    user: Vec<u8>,
    password: Vec<u8>,
}

impl ProxyLogin {
    /// Creates a login. Name and password have 1 to 255 bytes each.
    pub fn new(user: Vec<u8>, password: Vec<u8>) -> Self {
        Self { user, password }
    }
}

impl PartialEq for ProxyLogin {
    fn eq(&self, other: &Self) -> bool {
        self.user == other.user && self.password.ct_eq(&other.password).into()
    }
}

/// A proxy. Prints without its login.
#[derive(Clone, PartialEq)]
pub struct ProxyServer {
    /// The protocol of the proxy.
    pub protocol: ProxyProtocol,
    /// Host name, or IP address without brackets.
    pub host: String,
    /// Port; never 0.
    pub port: u16,
    /// The login; `None` if the proxy needs none.
    pub login: Option<ProxyLogin>,
}

impl fmt::Display for ProxyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.protocol {
            ProxyProtocol::Http => "http://",
            ProxyProtocol::Socks5 => "socks5://",
        })?;
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for ProxyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ProxyServer {
    /// Asks the proxy at the other end of `socket` for a connection to `host`. No byte of that connection has been
    /// read when this returns.
    pub(super) async fn open(
        &self,
        socket: &mut Socket,
        host: &str,
        port: u16,
        patience: Duration,
    ) -> io::Result<()> {
        let asking = async {
            match self.protocol {
                ProxyProtocol::Http => self.connect(socket, host, port).await,
                ProxyProtocol::Socks5 => self.connect_by_socks(socket, host, port).await,
            }
        };
        let silent = || {
            let why = format!("it does not answer within {patience:?}");
            io::Error::new(io::ErrorKind::TimedOut, why)
        };
        timeout(patience, asking)
            .await
            .unwrap_or_else(|| Err(silent()))
    }

    async fn connect(&self, socket: &mut Socket, host: &str, port: u16) -> io::Result<()> {
        let login = self.login.as_ref();
        let login = login.map(|login| [&login.user[..], b":", &login.password].concat());
        let request = http_connect::request(host, port, login.as_deref());
        socket.write_all(&request).await?;
        let (mut bytes, mut skipped) = (Vec::new(), 0);
        loop {
            match http_connect::parse(&bytes) {
                ProxyAnswer::Part(_) => {
                    let mut piece = [0; 512];
                    let n = socket.read(&mut piece).await?;
                    if n == 0 {
                        return Err(ended());
                    }
                    bytes.extend_from_slice(piece.get(..n).unwrap_or_default());
                }
                // An interim answer (RFC 9110, section 15.2).
                ProxyAnswer::Whole(100..200, length) if skipped < http_connect::MAX_HEAD => {
                    skipped += length;
                    drop(bytes.drain(..length));
                }
                ProxyAnswer::Whole(200..300, length) if length == bytes.len() => return Ok(()),
                // A gt server sends nothing before its client does.
                ProxyAnswer::Whole(200..300, _) => {
                    return Err(wrong("it sends more than an answer"))
                }
                ProxyAnswer::Whole(status, _) => {
                    let why = http_connect::refusal(status, self.login.is_some());
                    return Err(io::Error::new(io::ErrorKind::ConnectionRefused, why));
                }
                ProxyAnswer::Wrong(why) => return Err(wrong(why)),
            }
        }
    }

    async fn connect_by_socks(&self, socket: &mut Socket, host: &str, port: u16) -> io::Result<()> {
        let refused = |why: String| io::Error::new(io::ErrorKind::ConnectionRefused, why);
        let request = socks::request(host, port);
        let request = request.ok_or_else(|| wrong("the server's name is too long for SOCKS5"))?;
        let has_login = self.login.is_some();
        let method = exchange(socket, SocksStep::Method, socks::greeting(has_login)).await?;
        match &self.login {
            Some(login) if socks::asks_for_password(method) => {
                let message = socks::password(&login.user, &login.password);
                if exchange(socket, SocksStep::Password, &message).await? != 0 {
                    let why = "it does not accept the name and the password in remoteProxy";
                    return Err(refused(why.to_owned()));
                }
            }
            _ if method == 0 => {}
            _ => return Err(refused(socks::no_method(has_login).to_owned())),
        }
        match exchange(socket, SocksStep::Connection, &request).await? {
            0 => Ok(()),
            code => Err(refused(socks::refusal(code))),
        }
    }
}

/// Sends the message of a step and returns the result in the answer. Reads nothing behind the answer.
async fn exchange(socket: &mut Socket, step: SocksStep, message: &[u8]) -> io::Result<u8> {
    socket.write_all(message).await?;
    let mut bytes = Vec::new();
    loop {
        match socks::parse(step, &bytes) {
            ProxyAnswer::Part(missing) => {
                let mut piece = [0; socks::MAX_ANSWER];
                let room = piece.get_mut(..missing).unwrap_or_default();
                let n = socket.read(room).await?;
                if n == 0 {
                    return Err(ended());
                }
                bytes.extend_from_slice(room.get(..n).unwrap_or_default());
            }
            ProxyAnswer::Whole(result, _) => return Ok(result),
            ProxyAnswer::Wrong(why) => return Err(wrong(why)),
        }
    }
}

fn ended() -> io::Error {
    let why = "it closes the connection without an answer";
    io::Error::new(io::ErrorKind::ConnectionAborted, why)
}

fn wrong(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
