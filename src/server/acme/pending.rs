//! The validations that an authority is about to make. Not how they are asked for.

use super::ChallengeKind;
use crate::net::http::reply;
use crate::net::tls::Acceptor;
use crate::sync::Mutex;
use std::io;
use std::sync::Arc;

/// The path of validations over HTTP (RFC 8555, section 8.3).
const PATH: &[u8] = b"/.well-known/acme-challenge/";

/// The validations that are awaited: one at a time, since there is one order at a time.
#[derive(Default)]
pub struct PendingChallenges(Mutex<Vec<PendingChallenge>>);

struct PendingChallenge {
    number: u32,
    name: Box<str>,
    token: Box<str>,
    /// What proves that the server has been asked (RFC 8555, section 8.1).
    authorization: String,
    /// The answer to a validation over TLS.
    acceptor: Option<Acceptor>,
}

/// While it exists, a validation is answered.
pub struct AwaitedChallenge {
    pending: Arc<PendingChallenges>,
    number: u32,
}

impl Drop for AwaitedChallenge {
    fn drop(&mut self) {
        let mut list = self.pending.0.lock();
        list.retain(|challenge| challenge.number != self.number);
    }
}

impl PendingChallenges {
    /// Answers a validation of `name` from now on. `authorization` is the key authorization of `token`.
    pub fn expect(
        self: &Arc<Self>,
        kind: ChallengeKind,
        name: &str,
        token: &str,
        authorization: String,
    ) -> io::Result<AwaitedChallenge> {
        let acceptor = match kind {
            ChallengeKind::Http => None,
            ChallengeKind::Tls => {
                let digest = ring::digest::digest(&ring::digest::SHA256, authorization.as_bytes());
                let digest = digest.as_ref().try_into().map_err(io::Error::other)?;
                Some(Acceptor::for_challenge(name, &digest)?)
            }
        };
        let mut list = self.0.lock();
        let last = list.iter().map(|challenge| challenge.number).max();
        let number = last.unwrap_or_default().wrapping_add(1);
        list.push(PendingChallenge {
            number,
            name: name.into(),
            token: token.into(),
            authorization,
            acceptor,
        });
        Ok(AwaitedChallenge {
            pending: self.clone(),
            number,
        })
    }

    /// Returns the answer to a validation over TLS of this name; `None` if none is awaited.
    pub fn acceptor(&self, name: &str) -> Option<Acceptor> {
        let list = self.0.lock();
        let mut its = list.iter().filter(|challenge| *challenge.name == *name);
        its.find_map(|challenge| challenge.acceptor.clone())
    }

    /// Returns the response to a request that begins with this head, if it is an awaited validation.
    pub fn response(&self, head: &[u8]) -> Option<String> {
        let blank = head.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
        let rest = head.get(blank.count()..)?.strip_prefix(b"GET ")?;
        let token = rest
            .strip_prefix(PATH)?
            .split(|byte| *byte == b' ')
            .next()?;
        let list = self.0.lock();
        let mut over_http = list.iter().filter(|challenge| challenge.acceptor.is_none());
        let challenge = over_http.find(|challenge| challenge.token.as_bytes() == token)?;
        let body = &challenge.authorization;
        let fields = "Content-Type: application/octet-stream\r\n";
        Some(reply::head("200 OK", fields, Some(body.len())) + body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_awaited_validations_are_answered() {
        let pending = Arc::<PendingChallenges>::default();
        let get = |token: &str| {
            let head =
                format!("GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: a\r\n\r\n");
            pending.response(head.as_bytes())
        };
        let of_http = pending
            .expect(ChallengeKind::Http, "a.example", "t1", "t1.x".to_owned())
            .unwrap();
        let of_tls = pending
            .expect(ChallengeKind::Tls, "b.example", "t2", "t2.x".to_owned())
            .unwrap();
        assert!(get("t1").unwrap().ends_with("\r\n\r\nt1.x"));
        for other in ["t2", "t", "t11", "", "../t1", "t1/"] {
            assert_eq!(get(other), None, "{other}");
        }
        assert_eq!(
            pending.response(b"POST /.well-known/acme-challenge/t1 HTTP/1.1\r\n\r\n"),
            None
        );
        assert!(pending.acceptor("b.example").is_some());
        assert!(pending.acceptor("a.example").is_none());
        drop(of_http);
        assert_eq!(get("t1"), None);
        drop(of_tls);
        assert!(pending.acceptor("b.example").is_none());
    }
}
