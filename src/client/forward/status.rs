//! What `gt status` tells of the connections to other clients.

use super::direct::{DirectStatus, DirectWay};
#[cfg(feature = "web")]
use crate::client::p2p::P2p;
use crate::sync::{Mutex, MutexGuard};
use std::fmt;
use std::sync::{Arc, Weak};

/// The direct ways of all clients of this process.
static WAYS: Mutex<Vec<Weak<DirectWay>>> = Mutex::new(Vec::new());

fn ways() -> MutexGuard<'static, Vec<Weak<DirectWay>>> {
    WAYS.lock()
}

/// Tells of this way from now on.
pub fn expose(way: &Arc<DirectWay>) {
    let mut ways = ways();
    ways.retain(|way| way.strong_count() > 0);
    ways.push(Arc::downgrade(way));
}

/// Returns a line about each address that is forwarded.
pub fn lines() -> Vec<String> {
    let ways: Vec<_> = ways().iter().filter_map(Weak::upgrade).collect();
    let running = ways.iter().filter(|way| !way.is_stopped());
    running.map(|way| way.status().to_string()).collect()
}

/// Describes what a client forwards, for the web page: the fields of a line of `gt status`.
#[cfg(feature = "web")]
pub fn describe(p2p: &Arc<P2p>) -> Vec<serde_json::Value> {
    let ways: Vec<_> = ways().iter().filter_map(Weak::upgrade).collect();
    let its = ways
        .iter()
        .filter(|way| !way.is_stopped() && Arc::ptr_eq(&way.other().p2p, p2p));
    its.map(|way| way.status().describe()).collect()
}

impl DirectStatus {
    /// Returns the word for the state.
    fn state(&self) -> &'static str {
        match (self.paths.is_empty(), self.is_connecting, self.relayed) {
            (false, _, 0) => "direct",
            // Some have begun before the direct way was up, or while it did not answer.
            (false, _, _) => "direct+relay",
            (true, true, _) => "connecting",
            (true, false, _) if self.may_relay => "relay",
            (true, false, _) => "none",
        }
    }

    /// Returns the word for the way without a direct one.
    fn other_way(&self) -> &'static str {
        match self.may_relay {
            true => "server",
            false => "none",
        }
    }

    #[cfg(feature = "web")]
    fn describe(&self) -> serde_json::Value {
        let best = self.paths.first();
        serde_json::json!({
            "forward": self.name,
            "to": self.host_prefix,
            "state": self.state(),
            "way": best.map_or_else(|| self.other_way().to_owned(), |path| path.way.to_string()),
            "over": best.map(|path| path.over),
            "rtt": best.map(|path| path.round_trip.as_secs_f64() * 1e3),
            "lossPerMille": best.map(|path| path.loss),
            "peers": self.paths.len(),
            "direct": self.counts.direct,
            "relayed": self.counts.relayed,
            "relaying": self.relayed,
        })
    }
}

impl fmt::Display for DirectStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            host_prefix,
            may_relay: _,
            paths,
            is_connecting: _,
            retry,
            failure,
            counts,
            relayed,
        } = self;
        write!(f, "{name} to={host_prefix} state={} ", self.state())?;
        match &paths[..] {
            [best, ..] => write!(f, "{best} peers={}", paths.len())?,
            [] => write!(f, "way={}", self.other_way())?,
        }
        write!(
            f,
            " direct={} relayed={} relaying={relayed}",
            counts.direct, counts.relayed
        )?;
        if let (true, Some(why)) = (paths.is_empty(), failure) {
            let next = retry.map_or(0, |retry| retry.as_secs());
            write!(f, " retry={next}s: no direct connection{why}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::forward::direct::ForwardCounts;
    use crate::client::p2p::peer::{PeerPath, PeerWay};
    use std::time::Duration;

    #[cfg(feature = "web")]
    #[test]
    fn the_page_is_told_the_fields_of_the_line() {
        let status = DirectStatus {
            name: "udpForwardAddr=127.0.0.1:8001".to_owned(),
            host_prefix: "id1".to_owned(),
            may_relay: true,
            paths: Vec::new(),
            is_connecting: true,
            retry: None,
            failure: None,
            counts: ForwardCounts::default(),
            relayed: 1,
        };
        let described = status.describe();
        assert_eq!(described["forward"], "udpForwardAddr=127.0.0.1:8001");
        assert_eq!(described["state"], "connecting");
        assert_eq!(described["way"], "server");
        assert_eq!(described["relaying"], 1);
    }

    #[test]
    fn a_line_tells_the_state_the_way_and_why_there_is_no_direct_one() {
        let mut status = DirectStatus {
            name: "tcpForwardAddr=127.0.0.1:8000".to_owned(),
            host_prefix: "id1".to_owned(),
            may_relay: true,
            paths: Vec::new(),
            is_connecting: false,
            retry: Some(Duration::from_millis(4_900)),
            failure: Some(" came up in time".to_owned()),
            counts: ForwardCounts {
                direct: 2,
                relayed: 1,
            },
            relayed: 1,
        };
        assert_eq!(
            status.to_string(),
            "tcpForwardAddr=127.0.0.1:8000 to=id1 state=relay way=server direct=2 relayed=1 \
             relaying=1 retry=4s: no direct connection came up in time"
        );
        status.may_relay = false;
        assert!(
            status.to_string().contains(" state=none way=none "),
            "{status}"
        );
        status.may_relay = true;
        status.paths.push(PeerPath {
            way: PeerWay::Host,
            over: "QUIC",
            round_trip: Duration::from_millis(3),
            loss: 0,
        });
        assert_eq!(
            status.to_string(),
            "tcpForwardAddr=127.0.0.1:8000 to=id1 state=direct+relay way=host over=QUIC rtt=3ms loss=0.0% peers=1 \
             direct=2 relayed=1 relaying=1"
        );
        status.relayed = 0;
        assert!(
            status.to_string().contains(" state=direct way=host "),
            "{status}"
        );
    }
}
