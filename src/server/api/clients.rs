//! `/clients`: who is connected, as JSON. Secrets are nowhere near.

use super::json::{JsonArray, JsonString};
use crate::server::registry::{ClientStats, Registry, SnapshotOrder};
use std::fmt::{self, Display, Formatter};
use std::time::{Duration, UNIX_EPOCH};

/// Clients that are described, the first ones by id.
const MAX_CLIENTS: usize = 1000;

/// Not for the executor's thread, see [`Registry::survey`].
pub fn page(registry: &Registry) -> String {
    let mut survey = registry.snapshot(MAX_CLIENTS, SnapshotOrder::ById);
    registry.describe(&mut survey.clients);
    let clients = JsonArray(survey.clients.iter().map(JsonObject));
    let more = survey.rest.clients;
    format!("{{\"clients\": {clients}, \"more\": {more}}}\n")
}

struct JsonObject<'a>(&'a ClientStats);

impl Display for JsonObject<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ClientStats {
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
            JsonString(id),
            since.as_secs(),
            sum.tunnels,
            JsonArray(http.iter().map(|prefix| JsonString(prefix))),
            JsonArray(tls.iter().map(|prefix| JsonString(prefix))),
            JsonArray(ports.iter()),
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
