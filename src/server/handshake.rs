//! The handshake of a tunnel: reads its hello and checks the credentials as far as possible without
//! the authAPI. `login` completes the check.

use super::incoming::{read_more, Incoming};
use super::self_test::LoginOrigin;
use super::users::{Authenticator, LoginVerdict};
use crate::keys::{Challenge, CHALLENGE};
use crate::net::{tls, Conn};
use crate::wire::codec::{self, HelloReader};
use crate::wire::frame::RejectCode;
use crate::wire::hello::{Credentials, Hello};
use crate::wire::{Malformed, Version};
use std::time::Duration;

/// Maximum length in bytes of a hello before the authAPI has decided about its credentials.
const MAX_UNCHECKED_HELLO: usize = 16 * 1024;

/// A tunnel whose magic and version have been read, and whose hello is being read.
pub struct Handshake {
    version: Version,
    reader: Option<HelloReader>,
    /// Bytes of the hello consumed so far.
    length: usize,
    /// What a client with a key has to sign; `None` if the server takes no keys.
    challenge: Option<Challenge>,
    /// The result of checking the credentials.
    verdict: Option<(Authenticator, LoginVerdict)>,
}

/// A hello with the result of checking its credentials without the authAPI.
pub type VerifiedHello = Result<(Hello, Authenticator, LoginVerdict), LoginRejection>;

/// The reason why a client is not admitted.
pub enum LoginRejection {
    /// The hello did not arrive in time, or not at all.
    Silent,
    /// The login of a self test that has ended.
    SelfTestExpired,
    /// The hello is malformed.
    Malformed(Malformed),
    /// The client with this id is rejected with this code.
    Refused(Box<str>, RejectCode),
    /// The client could not be checked, and is rejected as if its credentials were wrong.
    Unchecked(&'static str),
    /// The address has too many failed logins, and is locked out for this long.
    LockedOut(Duration),
}

impl Handshake {
    /// Creates the handshake of a tunnel with this version.
    pub fn new(version: Version) -> Self {
        Self {
            version,
            reader: Some(HelloReader::new(version)),
            length: 0,
            challenge: None,
            verdict: None,
        }
    }

    /// Reads the hello and checks its credentials without the authAPI.
    pub async fn read_hello(&mut self, incoming: &mut Incoming, conn: &Conn) -> VerifiedHello {
        if self.version == Version::Two {
            if incoming.settings.users.take_keys() {
                let mut bytes = [0; CHALLENGE];
                // Without random numbers there are no keys.
                let random = tls::fill_random(&mut bytes).ok();
                self.challenge = random.map(|()| Challenge(bytes));
            }
            let answer = codec::answer(self.challenge.as_ref());
            // The answer tells the client that GT/2 works, whatever becomes of the login. Boxed, because
            // every connection that has not logged in would hold the future's memory.
            let answered = Box::pin(async { conn.write_all(&answer).await }).await;
            answered.map_err(|_| LoginRejection::Silent)?;
        }
        let state = &incoming.state;
        // The server's self test may come from the same address.
        let lockout = state.auth_lockout.lockout(incoming.peer.ip());
        if let Some(left) = lockout.filter(|_| !state.self_test.is_expected()) {
            return Err(LoginRejection::LockedOut(left));
        }
        loop {
            if let Some(verified) = self.step(incoming, conn)? {
                return Ok(verified);
            }
            match read_more(conn, &mut incoming.head, 1024).await {
                Ok(1..) => {}
                _ => return Err(LoginRejection::Silent),
            }
        }
    }

    /// Processes the bytes read so far. Checks the credentials before it buffers the services.
    fn step(
        &mut self,
        incoming: &mut Incoming,
        conn: &Conn,
    ) -> Result<Option<(Hello, Authenticator, LoginVerdict)>, LoginRejection> {
        let (state, settings, peer) = (&incoming.state, &incoming.settings, incoming.peer);
        loop {
            let Some(reader) = &mut self.reader else {
                return Err(LoginRejection::Silent);
            };
            let result = reader.feed(&incoming.head);
            let credentials = reader.credentials();
            let id = || credentials.map_or("", |credentials| credentials.id).into();
            let used = result.map_err(|e| match (&self.verdict, e) {
                (Some(_), Malformed::TooManyOptions) => {
                    LoginRejection::Refused(id(), RejectCode::TooManyOptions)
                }
                _ => LoginRejection::Malformed(e),
            })?;
            self.length = self.length.saturating_add(used);
            if self.length > MAX_UNCHECKED_HELLO
                && matches!(self.verdict, Some((_, LoginVerdict::Ask(..))))
            {
                return Err(LoginRejection::Refused(id(), RejectCode::TooManyOptions));
            }
            incoming.head.drain(..used.min(incoming.head.len()));
            if incoming.head.is_empty() {
                // The reader holds incomplete items.
                incoming.head = Vec::new();
            }
            if let (None, Some(credentials)) = (&self.verdict, credentials) {
                let Credentials { id, proof } = credentials;
                let secret = proof.secret().unwrap_or_default();
                let refused = || LoginRejection::Refused(id.into(), RejectCode::BadCredentials);
                let origin = state.self_test.origin_of(id, secret);
                // Concurrent logins from this address may have failed in the meantime.
                if let (LoginOrigin::Client, Some(left)) =
                    (&origin, state.auth_lockout.lockout(peer.ip()))
                {
                    return Err(LoginRejection::LockedOut(left));
                }
                let authenticator = Authenticator::verify(id, proof, self.challenge.as_ref(), conn);
                let authenticator = authenticator.ok_or_else(refused)?;
                let verdict = match origin {
                    LoginOrigin::SelfTest(admission) => LoginVerdict::Admitted(admission),
                    LoginOrigin::Expired => return Err(LoginRejection::SelfTestExpired),
                    LoginOrigin::Client => settings.users.check_login(id, &authenticator),
                };
                if let Authenticator::Key(key) = &authenticator {
                    let comment = settings.users.comment(id, key).unwrap_or_default();
                    log::debug!("{peer}: id={id} has the key {key} {comment}");
                }
                let refusal = match &verdict {
                    LoginVerdict::Refused => Some(RejectCode::BadCredentials),
                    LoginVerdict::Admitted(admission) if !admission.admits(peer.ip()) => {
                        Some(RejectCode::AddressNotAllowed)
                    }
                    LoginVerdict::Admitted(_) | LoginVerdict::Ask(..) => None,
                };
                if let Some(code) = refusal {
                    return Err(LoginRejection::Refused(credentials.id.into(), code));
                }
                self.verdict = Some((authenticator, verdict));
                // The services may have been read already.
                continue;
            }
            match self.reader.take().map(HelloReader::finish) {
                Some(Ok(hello)) => {
                    let verified = self.verdict.take().ok_or(LoginRejection::Silent)?;
                    let (authenticator, verdict) = verified;
                    return Ok(Some((hello, authenticator, verdict)));
                }
                Some(Err(unfinished)) => self.reader = Some(unfinished),
                None => {}
            }
            return Ok(None);
        }
    }
}
