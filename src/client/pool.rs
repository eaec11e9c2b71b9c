//! The tunnels to one server: some that are always there, more under load.

use super::backoff::Backoff;
use super::service::Services;
use super::session::{self, Failure, Session};
use super::Me;
use crate::config::Remote;
use crate::net::Stop;
use crate::tunnel::Tunnel;
use crate::wire::frame::Refusal;
use async_io::Timer;
use event_listener::Event;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Another tunnel is opened when each one carries this many streams.
const BUSY: usize = 3;
/// A tunnel that was opened under load is closed after so long without a stream.
const SPARE: Duration = Duration::from_secs(60);
/// After the server has refused another tunnel, none is asked for so long.
const REFUSED: Duration = Duration::from_secs(300);
/// A tunnel that lasted less was no success.
const BRIEF: Duration = Duration::from_secs(5);

pub struct Pool {
    pub me: Arc<Me>,
    pub remote: Remote,
    inner: Mutex<Inner>,
    left: Event,
}

#[derive(Default)]
struct Inner {
    members: Vec<Arc<Member>>,
    /// Tries to connect that are under way beyond those that are always there.
    growing: bool,
    refused: Option<Instant>,
    last_id: u32,
}

/// One tunnel of the pool.
pub struct Member {
    /// For the log.
    pub id: u32,
    pub tunnel: Tunnel,
    /// The services it was told, in order, which the server has not confirmed yet.
    pub offered: Mutex<VecDeque<Arc<Services>>>,
    /// A replacement is wanted: the tunnel has ended or is about to.
    pub leaving: Stop,
}

impl Pool {
    pub fn start(me: Arc<Me>, remote: Remote) -> Arc<Self> {
        let pool = Arc::new(Self {
            me,
            remote,
            inner: Mutex::default(),
            left: Event::new(),
        });
        for _ in 0..pool.me.idle_connections {
            crate::spawn(pool.clone().keep());
        }
        pool
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps one tunnel until the client stops.
    async fn keep(self: Arc<Self>) {
        let mut backoff = Backoff::new(self.me.reconnect_delay);
        while !self.me.stop.is_said() {
            let delay = match self.connect().await {
                Ok(leaving) => {
                    let begun = Instant::now();
                    leaving.heard().await;
                    if begun.elapsed() >= BRIEF {
                        backoff.reset();
                        Duration::ZERO
                    } else {
                        backoff.delay()
                    }
                }
                Err(failure) => {
                    let delay = backoff.delay();
                    if !self.me.stop.is_said() {
                        let seconds = delay.as_secs_f32();
                        log::warn!("{failure}; trying {} again in {seconds:.1}s", self.remote);
                    }
                    delay
                }
            };
            if !delay.is_zero() {
                self.me.stop.or(Timer::after(delay)).await;
            }
        }
    }

    /// Opens one tunnel and leaves it to a task of its own. Returns what it says when it
    /// wants to be replaced.
    async fn connect(self: &Arc<Self>) -> Result<Stop, Failure> {
        let id = {
            let mut inner = self.lock();
            inner.last_id = inner.last_id.wrapping_add(1);
            inner.last_id
        };
        log::info!("trying to connect to remote connID={id}");
        let connecting = Box::pin(session::connect(&self.me, &self.remote, id));
        let Some(connected) = self.me.stop.or(connecting).await else {
            return Err(Failure::Stopped);
        };
        let (inbox, tunnel, services) = connected?;
        let member = Arc::new(Member {
            id,
            tunnel,
            offered: Mutex::default(),
            leaving: Stop::default(),
        });
        self.lock().members.push(member.clone());
        let now = self.me.services();
        if !Arc::ptr_eq(&now, &services) {
            // They changed while it connected.
            member.offer(&self.me, &now);
        }
        let leaving = member.leaving.clone();
        if self.me.stop.is_said() {
            member.tunnel.close();
        }
        let session = Session::new(self.clone(), member, services);
        crate::spawn(session.run(inbox));
        Ok(leaving)
    }

    /// A stream has come: is it time for another tunnel?
    pub fn busier(self: &Arc<Self>) {
        let mut inner = self.lock();
        if inner.growing || self.me.stop.is_said() {
            return;
        }
        if inner.refused.is_some_and(|at| at.elapsed() < REFUSED) {
            return;
        }
        let mut loads = inner.members.iter().filter_map(|m| m.tunnel.load());
        let open = inner.members.iter().filter(|m| m.tunnel.is_open()).count();
        if open >= self.me.connections || loads.any(|streams| streams < BUSY) {
            return;
        }
        inner.growing = true;
        drop(inner);
        let pool = self.clone();
        crate::spawn(async move {
            let result = pool.connect().await;
            let mut inner = pool.lock();
            inner.growing = false;
            if let Err(failure) = result {
                inner.refused = Some(Instant::now());
                drop(inner);
                match failure {
                    Failure::Refused(Refusal::TooManyConnections, _) => log::info!(
                        "the server allows no more tunnels; going on with those there are"
                    ),
                    failure => log::warn!("another tunnel: {failure}"),
                }
            }
        });
    }

    /// Whether a tunnel that has had no stream for so long can go.
    pub fn can_spare(&self, idle: Duration) -> bool {
        let inner = self.lock();
        let open = inner.members.iter().filter(|m| m.tunnel.is_open()).count();
        open > self.me.idle_connections && idle >= SPARE
    }

    pub fn leave(&self, member: &Member) {
        self.lock().members.retain(|other| other.id != member.id);
        self.left.notify(usize::MAX);
    }

    /// Tells the server of changed services, on every tunnel.
    pub fn offer(&self, services: &Arc<Services>) {
        for member in &self.lock().members {
            member.offer(&self.me, services);
        }
    }

    /// Begins the graceful end of every tunnel.
    pub fn close(&self) {
        for member in &self.lock().members {
            member.tunnel.close();
        }
    }

    /// Waits until there is no tunnel.
    pub async fn drained(&self) {
        loop {
            let left = self.left.listen();
            if self.lock().members.is_empty() {
                return;
            }
            left.await;
        }
    }
}

impl Member {
    fn offer(&self, me: &Me, services: &Arc<Services>) {
        let mut offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
        offered.push_back(services.clone());
        self.tunnel.say(&services.change(me));
    }
}
