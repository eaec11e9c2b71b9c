//! `/clients`: who is connected, as JSON. Secrets are nowhere near.

use super::json::{List, Text};
use crate::server::registry::{Order, Registry, Seen};
use std::fmt::{self, Display, Formatter};
use std::time::{Duration, UNIX_EPOCH};

/// Clients that are described, the first ones by id.
const MOST: usize = 1000;

/// Not for the executor's thread, see [`Registry::survey`].
pub fn page(registry: &Registry) -> String {
    let mut survey = registry.survey(MOST, Order::ById);
    registry.describe(&mut survey.clients);
    let clients = List(survey.clients.iter().map(Object));
    let more = survey.rest.clients;
    format!("{{\"clients\": {clients}, \"more\": {more}}}\n")
}

struct Object<'a>(&'a Seen);

impl Display for Object<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Seen {
            id,
            since,
            sum,
            http,
            tls,
            ports,
        } = self.0;
        // A clock before 1970 is not set.
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
        write!(
            f,
            "{{\"id\": {}, \"since\": {}, \"tunnels\": {}, \"prefixes\": {}, \
             \"tlsPrefixes\": {}, \"ports\": {}, \"streams\": {}, \"streamsTotal\": {}, \
             \"bytesUp\": {}, \"bytesDown\": {}, \"rtt\": {}}}",
            Text(id),
            since.as_secs(),
            sum.tunnels,
            List(http.iter().map(|prefix| Text(prefix))),
            List(tls.iter().map(|prefix| Text(prefix))),
            List(ports.iter()),
            sum.streams,
            sum.traffic.streams,
            sum.traffic.received,
            sum.traffic.sent,
            Millis(sum.round_trip),
        )
    }
}

/// Thousandths of a second, or null.
struct Millis(Option<Duration>);

impl Display for Millis {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) => write!(f, "{:.3}", time.as_secs_f64() * 1000.0),
            None => f.write_str("null"),
        }
    }
}
