//! A bad line: a TCP proxy that delays, splits, stalls, swallows, resets and cuts what passes
//! through it. What happens to a connection depends only on the seed and the connection's number,
//! at positions counted in bytes, so that a failure can be reproduced.

use super::samples::Random;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// A premature end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Both ends get a reset.
    Reset,
    /// Both ends see a graceful end, in the middle of the data.
    Cut,
    /// Nothing passes any more in this direction, and neither end is told.
    Swallow,
}

/// How bad the line is.
#[derive(Clone, Copy)]
pub struct Badness {
    /// One connection in this many ends early by a reset or a cut; 0 for none.
    pub breaks: usize,
    /// One connection in this many is swallowed; 0 for none.
    pub swallows: usize,
    /// A connection ends early within this many bytes.
    pub most: u64,
}

/// The proxy. Dropping it cuts all connections.
pub struct Faults {
    pub addr: SocketAddr,
    line: Arc<Line>,
    accepting: Option<JoinHandle<()>>,
}

struct Line {
    to: SocketAddr,
    seed: u64,
    badness: Badness,
    calm: AtomicBool,
    stop: AtomicBool,
    accepted: AtomicUsize,
    /// Connections that were reset, cut and swallowed.
    faults: [AtomicUsize; 3],
    open: Mutex<Vec<(usize, TcpStream)>>,
}

impl Faults {
    /// Starts a proxy in front of `to`.
    pub fn start(to: SocketAddr, seed: u64, badness: Badness) -> Faults {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen");
        let addr = listener.local_addr().expect("ask for the address");
        let line = Arc::new(Line {
            to,
            seed,
            badness,
            calm: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            faults: Default::default(),
            open: Mutex::default(),
        });
        let shared = line.clone();
        let accepting = std::thread::spawn(move || {
            for near in listener.incoming() {
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                let near = near.expect("accept");
                let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
                let line = shared.clone();
                std::thread::spawn(move || line.carry(near, number));
            }
        });
        Faults {
            addr,
            line,
            accepting: Some(accepting),
        }
    }

    /// Returns how many connections there have been.
    pub fn accepted(&self) -> usize {
        self.line.accepted.load(Ordering::SeqCst)
    }

    /// Returns how many connections were reset, cut and swallowed.
    pub fn faults(&self) -> [usize; 3] {
        self.line
            .faults
            .each_ref()
            .map(|count| count.load(Ordering::SeqCst))
    }

    /// Sets whether connections have no faults for now.
    pub fn be_calm(&self, calm: bool) {
        self.line.calm.store(calm, Ordering::SeqCst);
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.line.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for (_, stream) in self.line.open.lock().unwrap().iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Line {
    fn carry(&self, near: TcpStream, number: usize) {
        let Ok(far) = TcpStream::connect_timeout(&self.to, Duration::from_secs(5)) else {
            // As if no program listened here either.
            return reset(&near);
        };
        for stream in [&near, &far] {
            stream.set_nodelay(true).expect("set nodelay");
        }
        let kept = [&near, &far].map(|stream| stream.try_clone().expect("clone a socket"));
        let kept = kept.into_iter().map(|stream| (number, stream));
        self.open.lock().unwrap().extend(kept);

        let seed = self.seed.wrapping_mul(1_000_003) + number as u64;
        let mut random = Random::new(seed);
        // The first numbers of neighbouring seeds are similar.
        for _ in 0..8 {
            random.number();
        }
        let mut hit = |one_of: usize| one_of > 0 && random.below(one_of) == 0;
        let (breaks, swallows) = (hit(self.badness.breaks), hit(self.badness.swallows));
        let fate = match (swallows, breaks) {
            (true, _) => Some(Fate::Swallow),
            (_, true) if random.below(2) == 0 => Some(Fate::Reset),
            (_, true) => Some(Fate::Cut),
            _ => None,
        };
        let at = spread(&mut random, self.badness.most);
        let fate = fate.map(|fate| (fate, at));
        let (up, down) = if random.below(2) == 0 {
            (fate, None)
        } else {
            (None, fate)
        };
        let seeds = (random.number(), random.number());
        std::thread::scope(|scope| {
            scope.spawn(|| self.pass(&near, &far, up, seeds.0));
            self.pass(&far, &near, down, seeds.1);
        });
        let mut open = self.open.lock().unwrap();
        open.retain(|(other, _)| *other != number);
    }

    /// Passes bytes from one end to the other.
    fn pass(&self, from: &TcpStream, to: &TcpStream, mut fate: Option<(Fate, u64)>, seed: u64) {
        let mut random = Random::new(seed);
        let (mut from_end, mut to_end) = (from, to);
        let mut passed = 0;
        let mut buffer = vec![0; 64 * 1024];
        loop {
            // The size of a piece, and its delay.
            let mut piece = match random.below(8) {
                0 => 1,
                1 => 1 + random.below(16),
                2 | 3 => 1 + random.below(1500),
                _ => 1 + random.below(buffer.len()),
            };
            let pause = match random.below(256) {
                0 => 100 + random.below(300),
                1..=12 => 1 + random.below(15),
                _ => 0,
            };
            std::thread::sleep(Duration::from_millis(pause as u64));
            while piece > 0 {
                if let Some((fate, at)) = &mut fate {
                    if *at == passed {
                        if !self.calm.load(Ordering::SeqCst) {
                            return self.meet(*fate, from, to);
                        }
                        // The fault is postponed.
                        *at += buffer.len() as u64;
                    }
                }
                let left = fate.map_or(u64::MAX, |(_, at)| at - passed);
                let most = piece.min(usize::try_from(left).unwrap_or(usize::MAX));
                match from_end.read(&mut buffer[..most]) {
                    Ok(0) => {
                        let _ = to.shutdown(Shutdown::Write);
                        return;
                    }
                    Ok(n) if to_end.write_all(&buffer[..n]).is_ok() => {
                        passed += n as u64;
                        piece -= n;
                    }
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    _ => {
                        reset(from);
                        return reset(to);
                    }
                }
            }
        }
    }

    fn meet(&self, fate: Fate, mut from: &TcpStream, to: &TcpStream) {
        self.faults[fate as usize].fetch_add(1, Ordering::SeqCst);
        match fate {
            Fate::Reset => {
                reset(from);
                reset(to);
            }
            Fate::Cut => {
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            }
            Fate::Swallow => {
                // Until this end gives up; the other one has to find out by itself.
                let mut buffer = vec![0; 64 * 1024];
                while matches!(from.read(&mut buffer), Ok(1..)) {}
            }
        }
    }
}

/// Resets a connection at once, even while other threads use it: a close with SO_LINGER 0 would
/// wait until the other direction releases it.
fn reset(stream: &TcpStream) {
    // A socket without a connection needs no reset.
    let _ = rustix::net::connect_unspec(stream);
}

/// Returns a number in `1..=most`; every power of two is equally likely.
pub fn spread(random: &mut Random, most: u64) -> u64 {
    let bits = most.checked_ilog2().unwrap_or(0) as usize;
    let power = 1u64 << random.below(bits + 1);
    (power + random.number() % power).min(most)
}
