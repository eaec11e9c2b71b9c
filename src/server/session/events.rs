//! What a session does about the events of its tunnel.

use super::leaving::{LeaveResult, MOVE_RETRY_INTERVAL};
use super::{
    EventStep, ServerSession, TunnelEnd, Watch, CLOSED_NORMALLY, DRAINED_TIMEOUT, PINGS_PER_TIMEOUT,
};
use crate::net::clock::Tick;
use crate::server::login::all_granted;
use crate::server::users::Credentials;
use crate::tunnel::{Event, Inbox};
use crate::wire::frame::{RejectCode, Signal};
use crate::wire::Version;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

impl ServerSession {
    /// Handles the tunnel's events as far as that takes no time. Ready with the first that takes some,
    /// or ends the tunnel.
    pub(super) fn poll_step<'a>(
        &'a self,
        inbox: &mut Inbox,
        watch: &mut Watch<'a>,
        cx: &mut Context<'_>,
    ) -> Poll<EventStep> {
        while let Poll::Ready(event) = inbox.poll_next(cx) {
            match self.handle(event, inbox, watch) {
                EventStep::Next => {}
                step => return Poll::Ready(step),
            }
        }
        let Some(rare) = &mut watch.rare else {
            return Poll::Pending;
        };
        let leaving = rare.leaving.as_mut();
        if leaving.is_some_and(|leaving| leaving.as_mut().poll(cx).is_ready()) {
            rare.leaving = None;
            return Poll::Ready(EventStep::Move);
        }
        match &mut rare.review {
            Some(review) => review.decisions.as_mut().poll(cx).map(EventStep::End),
            None => Poll::Pending,
        }
    }

    /// Takes a step that needs time. Returns the end of the tunnel if it is over.
    pub(super) async fn take<'a>(
        &'a self,
        step: EventStep,
        inbox: &mut Inbox,
        watch: &mut Watch<'a>,
    ) -> Option<TunnelEnd> {
        match step {
            EventStep::Next => {}
            EventStep::End(why) => return Some(TunnelEnd::Ended(why)),
            EventStep::Apply(services) => self.apply_change(services).await,
            EventStep::Release => self.state.release_if_done(&self.credentials.id).await,
            EventStep::Move => match self.try_move(inbox).await {
                LeaveResult::Moves(moved, socket) => return Some(TunnelEnd::Moves(moved, socket)),
                LeaveResult::Closes => self.state.registry.notify_changed(),
                LeaveResult::Stays => {
                    self.wait_to_move(watch, MOVE_RETRY_INTERVAL);
                }
            },
        }
        None
    }

    /// Handles an event as far as that takes no time.
    fn handle<'a>(&'a self, event: Event, inbox: &mut Inbox, watch: &mut Watch<'a>) -> EventStep {
        let registry = &self.state.registry;
        match event {
            Event::Ping if registry.is_current(self.key(), &self.tunnel) => {
                self.tunnel.signal(Signal::Ping);
            }
            Event::Ping => self.tunnel.signal(Signal::Close),
            Event::Services(Some(hello)) => {
                let Credentials {
                    id, authenticator, ..
                } = &*self.credentials;
                if hello.id != *id || !authenticator.is_that_of(&hello.proof) {
                    return EventStep::End(self.reject_change(RejectCode::BadCredentials));
                }
                match watch.rare.as_ref().and_then(|rare| rare.review.as_ref()) {
                    None => return EventStep::Apply(all_granted(hello.services)),
                    Some(review) if review.changes.try_send(hello.services).is_ok() => {
                        self.pending_changes.fetch_add(1, Ordering::SeqCst);
                    }
                    Some(_) => {
                        return EventStep::End(self.reject_change(RejectCode::TooManyOptions))
                    }
                }
            }
            Event::Tick => {
                // The client's pings wait behind all that it has sent; without an answer it would
                // give up the tunnel.
                if inbox.is_held_back() {
                    self.tunnel.signal(Signal::Ping);
                }
                let next_check = match self.check_alive(inbox.silence(), &mut watch.pinged) {
                    Ok(next_check) => next_check,
                    Err(why) => return EventStep::End(why),
                };
                let stopped = self.state.stop.is_triggered();
                if self.tunnel.is_open() || self.tunnel.streams() > 0 || stopped {
                    watch.drained = None;
                } else {
                    let drained = watch.drained.get_or_insert_with(Tick::now);
                    if drained.until(Tick::now()) >= DRAINED_TIMEOUT {
                        let why = "it has no streams, and its client does not close it";
                        return EventStep::End(why.to_owned());
                    }
                }
                if !stopped && registry.is_retry_due(self.key()) {
                    let opened = self.as_login(|login| registry.retry_ports(login));
                    self.serve_ports(opened, true);
                }
                if !registry.misses_ports(self.key()) {
                    inbox.rest(next_check);
                }
            }
            Event::Notice => {
                if let Err(why) = self.look_around(watch) {
                    return EventStep::End(why.to_owned());
                }
            }
            Event::End(Ok(())) => return EventStep::End(CLOSED_NORMALLY.to_owned()),
            Event::End(Err(e)) => return EventStep::End(e.to_string()),
            // The client takes no more streams on this tunnel.
            Event::Close => return EventStep::Release,
            Event::Signal(Signal::ServiceState { service, is_up }) => {
                self.service_state(service, is_up)
            }
            // The other signals are not for servers, and are harmless.
            Event::Signal(_) | Event::Services(None) => {}
            Event::Opened(..) | Event::OpenedBefore(..) => {}
        }
        EventStep::Next
    }

    /// Returns the time up to the next check, or the reason why a client that has been silent for
    /// this long counts as dead. Pings it in time before.
    fn check_alive(&self, silence: Duration, pinged: &mut Tick) -> Result<Duration, String> {
        let (unidirectional, timeout) = {
            let settings = &self.auth().settings;
            (settings.unidirectional, settings.timeout)
        };
        let Some(timeout) = timeout else {
            return Ok(Duration::MAX);
        };
        let tunnel = &self.tunnel;
        let answers = tunnel.version() == Version::Two;
        // A GT/1 client that only receives, as during an upload, sends nothing. A GT/2 client
        // answers pings.
        let silent = answers || unidirectional;
        let since = if silent {
            silence
        } else {
            silence.min(tunnel.sent())
        };
        if since >= timeout {
            return Err(format!("nothing was heard for {silence:?}"));
        }
        if tunnel.is_black_hole() {
            return Err(format!(
                "nothing was heard for {silence:?} while visitors wait"
            ));
        }
        let left = timeout.saturating_sub(since);
        if !answers {
            return Ok(left);
        }
        let pause = timeout / PINGS_PER_TIMEOUT;
        let now = Tick::now();
        if silence >= pause && pinged.until(now) >= pause {
            *pinged = now;
            tunnel.ping();
        }
        let next_ping = pause.saturating_sub(silence.min(pinged.until(now)));
        Ok(left.min(next_ping))
    }
}
