//! The choice between several ways to one server: they are tried beside each other, and a tunnel moves to a
//! better one when that works again. Which way is remembered, see `ways`.

use super::{Pool, ServerSource};
use crate::client::connect::{ConnectFailure, Connected};
use crate::client::hello_turn::{HelloTurn, Race};
use crate::client::pooled_tunnel::{PooledTunnel, ReplaceReason};
use crate::client::ways::{is_answer, FailedWay, WayAnswer, Ways, ATTEMPT_DELAY};
use crate::config::Remote;
use crate::net::{self, clock, random, timeout, Timer};
use crate::wire::frame::RejectCode;
use futures_lite::future;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::{Duration, Instant};

/// Time that an attempt over one way of several has. Much less than the default `remoteTimeout`: a silent way must
/// not delay the next attempts over the others.
const WAY_TIMEOUT: Duration = Duration::from_secs(15);
/// Time that a server has to answer a hello that is not needed any more, so that its tunnel can be closed.
const SURPLUS_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between attempts over better ways, without its random part (`RETRY_SPREAD`).
const RETRY_INTERVAL: Duration = Duration::from_secs(8 * 60);
/// Maximum of the random part of the time between attempts over better ways, in seconds.
const RETRY_SPREAD: u32 = 4 * 60;

impl Pool {
    /// Opens a tunnel over one of the ways at these places, which are tried beside each other in this order.
    /// Returns it and the way that was used.
    pub(super) async fn connect_by(
        self: &Arc<Self>,
        ways: &Ways,
        places: &[usize],
        id: u32,
    ) -> Result<(Remote, Connected), ConnectFailure> {
        let race = Race::default();
        let attempts = places.iter().map(|place| {
            let way = ways.at(*place).clone();
            WayAttempt::new(self.clone(), way, *place, &race, id)
        });
        let (result, failed) = net::race(attempts, ATTEMPT_DELAY).await;
        let way = |place| ways.at(place).clone();
        match result {
            Some((place, answer)) => {
                let heard = match answer {
                    Ok(_) => WayAnswer::Accepted,
                    Err(_) => WayAnswer::Refused,
                };
                if let Some(line) = ways.note_answer((place, heard), places, &failed) {
                    log::info!("{line} connID={id}");
                }
                answer.map(|connected| (way(place), connected))
            }
            None => {
                let failed = failed.into_iter();
                let failed = failed.map(|(place, failure)| (way(place), failure));
                Err(ConnectFailure::NoWay(failed.collect()))
            }
        }
    }

    /// Keeps a tunnel until it has to be replaced, and returns why. Meanwhile another one takes its place if
    /// it is over a better way, or over a link with less to carry. `is_back`: the tunnel before it was lost,
    /// so that better ways are tried at once. Also returns when the last tunnel was opened.
    pub(super) async fn hold(
        self: &Arc<Self>,
        mut member: Arc<PooledTunnel>,
        is_back: bool,
    ) -> (Instant, ReplaceReason) {
        let mut begun = clock::now();
        if self.ways().is_none() && !self.context.dialer.has_choice() {
            return (begun, member.replaced().await);
        }
        let mut pause = match is_back {
            true => Duration::ZERO,
            false => retry_interval(),
        };
        loop {
            let replaced = async { Err(member.replaced().await) };
            let better = async { Ok(Box::pin(self.better(&member, pause)).await) };
            match future::or(replaced, better).await {
                Err(why) => return (begun, why),
                Ok(better) => {
                    member.leave(ReplaceReason::BetterWay);
                    member.tunnel.close();
                    member = better;
                    begun = clock::now();
                    pause = retry_interval();
                }
            }
        }
    }

    /// Returns the ways to the server if there are several.
    fn ways(&self) -> Option<&Ways> {
        match &self.source {
            ServerSource::Fixed(ways) if ways.are_several() => Some(ways),
            _ => None,
        }
    }

    /// Waits until a tunnel is open that is better than this one.
    async fn better(
        self: &Arc<Self>,
        member: &PooledTunnel,
        mut pause: Duration,
    ) -> Arc<PooledTunnel> {
        loop {
            self.wait_for_chance(pause).await;
            pause = retry_interval();
            if self.context.stop.is_triggered() {
                return future::pending().await;
            }
            let id = self.next_id();
            match self.try_better(member, id).await {
                Ok((remote, connected)) => return self.add(connected, remote, id, true),
                Err(NothingBetter::AtLimit) => {
                    member.leave(ReplaceReason::BetterWay);
                    member.tunnel.close();
                    return future::pending().await;
                }
                Err(NothingBetter::Failed(failure)) => {
                    log::debug!("nothing better: {failure} connID={id}");
                }
                Err(NothingBetter::Known) => {}
            }
        }
    }

    /// Waits for `pause`, or until another tunnel has found a way or the user has asked for attempts
    /// (`gt -s wake`).
    async fn wait_for_chance(&self, pause: Duration) {
        let hurry = self.context.retry.listen();
        let change = self.ways().map(Ways::change);
        let other = async {
            match change {
                Some(change) => change.await,
                None => future::pending().await,
            }
        };
        let delayed = async {
            Timer::after(pause).await;
        };
        let chance = future::or(hurry, future::or(other, delayed));
        self.context.stop.or(chance).await;
    }

    /// Opens a tunnel that is better than this one.
    async fn try_better(
        self: &Arc<Self>,
        member: &PooledTunnel,
        id: u32,
    ) -> Result<(Remote, Connected), NothingBetter> {
        let ways = self.ways();
        let place = ways.and_then(|ways| ways.place_of(&member.remote));
        let better = ways.zip(place).map(|(ways, place)| ways.better_than(place));
        let better = better.unwrap_or_default();
        match ways {
            Some(ways) if !better.is_empty() => {
                let opened = self.connect_by(ways, &better, id).await;
                opened.map_err(|failure| match failure {
                    ConnectFailure::Refused(RejectCode::TooManyConnections, _) => {
                        NothingBetter::AtLimit
                    }
                    failure => NothingBetter::Failed(failure),
                })
            }
            _ if self.context.dialer.is_uneven(&member.link) => {
                let turn = HelloTurn::default();
                let opened = self.connect_to(&member.remote, &turn, id).await;
                match opened {
                    Ok(same) if same.link.is_same(&member.link) => {
                        self.close_surplus(same, member.remote.clone());
                        Err(NothingBetter::Known)
                    }
                    // At a limit of the server, too: this tunnel works, and the other link would get one only if
                    // this one were closed first.
                    Err(failure) => Err(NothingBetter::Failed(failure)),
                    Ok(opened) => Ok((member.remote.clone(), opened)),
                }
            }
            _ => Err(NothingBetter::Known),
        }
    }

    /// Closes a tunnel that is not needed, when its streams have ended.
    fn close_surplus(self: &Arc<Self>, connected: Connected, remote: Remote) {
        let id = self.next_id();
        self.add(connected, remote, id, false).tunnel.close();
    }
}

/// Returns a time that differs between clients, so that they do not all come back at once.
fn retry_interval() -> Duration {
    let spread = Duration::from_secs(u64::from(random() % RETRY_SPREAD));
    RETRY_INTERVAL.saturating_add(spread)
}

/// Why there is no tunnel that is better than another one.
enum NothingBetter {
    /// Nothing better is known, or what was opened is not better.
    Known,
    /// A better way works, since the server has answered over it, but the client has as many tunnels as the server
    /// allows.
    AtLimit,
    /// The attempt has failed.
    Failed(ConnectFailure),
}

/// The result of a race for one way: a tunnel or the server's refusal.
type RaceResult = (usize, Result<Connected, ConnectFailure>);
type AttemptTask = Pin<Box<dyn Future<Output = Result<Connected, ConnectFailure>> + Send>>;

/// An attempt over one way. If it is dropped while the server may answer its hello, it goes on for up to
/// [`SURPLUS_TIMEOUT`], and its tunnel is closed gracefully: the server may have opened streams in it.
struct WayAttempt {
    pool: Arc<Pool>,
    way: Remote,
    place: usize,
    turn: Arc<HelloTurn>,
    /// The running attempt; `None` when it has a result.
    task: Option<AttemptTask>,
}

impl WayAttempt {
    fn new(pool: Arc<Pool>, way: Remote, place: usize, race: &Race, id: u32) -> Self {
        let turn = Arc::new(HelloTurn::of(race));
        let (this, remote, its_turn) = (pool.clone(), way.clone(), turn.clone());
        let task = async move {
            let patience = WAY_TIMEOUT.min(this.context.remote_timeout);
            let connecting = this.connect_to(&remote, &its_turn, id);
            let silent = || Err(ConnectFailure::NoAnswer(patience));
            timeout(patience, connecting).await.unwrap_or_else(silent)
        };
        Self {
            pool,
            way,
            place,
            turn,
            task: Some(Box::pin(task)),
        }
    }
}

impl Future for WayAttempt {
    type Output = Result<RaceResult, FailedWay>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(task) = &mut self.task else {
            return Poll::Pending;
        };
        let result = ready!(task.as_mut().poll(cx));
        self.task = None;
        let place = self.place;
        Poll::Ready(match result {
            Err(failure) if !is_answer(&failure) => {
                log::debug!("{}: {failure}", self.way);
                Err((place, failure))
            }
            answer => Ok((place, answer)),
        })
    }
}

impl Drop for WayAttempt {
    fn drop(&mut self) {
        let Some(task) = self.task.take().filter(|_| self.turn.is_taken()) else {
            return;
        };
        let (pool, way) = (self.pool.clone(), self.way.clone());
        net::spawn(async move {
            if let Some(Ok(connected)) = timeout(SURPLUS_TIMEOUT, task).await {
                log::debug!("the tunnel by {way} is not needed");
                pool.close_surplus(connected, way);
            }
        });
    }
}
