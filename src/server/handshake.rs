//! The hello of a tunnel: reads it, and judges its credentials as far as that is possible without
//! asking the authAPI.

use super::incoming::{read_more, Incoming};
use super::self_test::LoginOrigin;
use super::users::LoginVerdict;
use crate::net::Conn;
use crate::wire::frame::RejectCode;
use crate::wire::hello::{self, Hello, HelloReader};
use crate::wire::{Malformed, Version};
use std::time::Duration;

/// Longest hello that is held before its credentials have been judged.
const MAX_UNJUDGED: usize = 16 * 1024;
/// A tunnel whose magic and version have been read, and whose hello is being read.
pub struct Handshake {
    version: Version,
    reader: Option<HelloReader>,
    /// Bytes that have been used.
    length: usize,
    /// What has been found about its credentials.
    verdict: Option<LoginVerdict>,
}

/// A hello, and what is to be thought of it as far as that is known without asking.
pub type VerifiedHello = Result<(Hello, LoginVerdict), LoginRejection>;

pub enum LoginRejection {
    /// It did not come in time, or not at all.
    Silent,
    /// The server's own, whose look at itself is over.
    TooLate,
    Malformed(Malformed),
    Refused(Box<str>, RejectCode),
    /// As if it had bad credentials, whatever they are.
    Unheard(&'static str),
    /// Its address has failed to authenticate too often, and is refused for so long.
    LockedOut(Duration),
}

impl Handshake {
    pub fn new(version: Version) -> Self {
        Self {
            version,
            reader: Some(HelloReader::new(version)),
            length: 0,
            verdict: None,
        }
    }

    /// Reads the hello, and judges its credentials as far as that is possible without asking.
    pub async fn read_hello(&mut self, caller: &mut Incoming, conn: &Conn) -> VerifiedHello {
        if self.version == Version::Two {
            // The client learns from it that it need not try GT/1, whatever becomes of the login. In a
            // box, since every client that has not said who it is would hold the place for it.
            let answered = Box::pin(async { conn.write_all(&hello::answer()).await }).await;
            answered.map_err(|_| LoginRejection::Silent)?;
        }
        let state = &caller.state;
        // The server's own look at itself may come from the same address.
        let lockout = state.guard.lockout(caller.peer.ip());
        if let Some(left) = lockout.filter(|_| !state.guest.is_expected()) {
            return Err(LoginRejection::LockedOut(left));
        }
        loop {
            if let Some(met) = self.step(caller)? {
                return Ok(met);
            }
            match read_more(conn, &mut caller.head, 1024).await {
                Ok(1..) => {}
                _ => return Err(LoginRejection::Silent),
            }
        }
    }

    /// Uses what has been read. The credentials are judged before the rest is held.
    fn step(
        &mut self,
        caller: &mut Incoming,
    ) -> Result<Option<(Hello, LoginVerdict)>, LoginRejection> {
        let (state, rules, peer) = (&caller.state, &caller.rules, caller.peer);
        loop {
            let Some(reader) = &mut self.reader else {
                return Err(LoginRejection::Silent);
            };
            let fed = reader.feed(&caller.head);
            let who = reader.credentials();
            let id = || who.map_or("", |who| who.id).into();
            let used = fed.map_err(|e| match (&self.verdict, e) {
                (Some(_), Malformed::TooManyOptions) => {
                    LoginRejection::Refused(id(), RejectCode::TooManyOptions)
                }
                _ => LoginRejection::Malformed(e),
            })?;
            self.length = self.length.saturating_add(used);
            if self.length > MAX_UNJUDGED && matches!(self.verdict, Some(LoginVerdict::Ask(..))) {
                return Err(LoginRejection::Refused(id(), RejectCode::TooManyOptions));
            }
            caller.head.drain(..used.min(caller.head.len()));
            if caller.head.is_empty() {
                // The reader holds what is not whole.
                caller.head = Vec::new();
            }
            if let (None, Some(who)) = (&self.verdict, who) {
                let judged = match state.guest.origin_of(who.id, who.secret) {
                    LoginOrigin::Guest(admission) => LoginVerdict::Admitted(admission),
                    LoginOrigin::TooLate => return Err(LoginRejection::TooLate),
                    // Others that came with this one may have failed meanwhile.
                    LoginOrigin::SomebodyElse => match state.guard.lockout(peer.ip()) {
                        Some(left) => return Err(LoginRejection::LockedOut(left)),
                        None => rules.users.check_login(who.id, who.secret),
                    },
                };
                if matches!(judged, LoginVerdict::Refused) {
                    return Err(LoginRejection::Refused(
                        who.id.into(),
                        RejectCode::BadCredentials,
                    ));
                }
                self.verdict = Some(judged);
                // There may be more of it already.
                continue;
            }
            match self.reader.take().map(HelloReader::finish) {
                Some(Ok(hello)) => {
                    let verdict = self.verdict.take().ok_or(LoginRejection::Silent)?;
                    return Ok(Some((hello, verdict)));
                }
                Some(Err(unfinished)) => self.reader = Some(unfinished),
                None => {}
            }
            return Ok(None);
        }
    }
}
