//! The page `/metrics`: counters in the text format of Prometheus, version 0.0.4.

use crate::net;
use crate::net::clock;
use crate::server::acme::CertificateStatus;
use crate::server::registry::{SnapshotOrder, Totals};
use crate::server::state::ServerState;
use crate::version::VERSION;
use std::fmt::{self, Display, Formatter, Write};

/// Maximum number of clients with metrics of their own, the busiest ones; the others are summed up.
const MAX_LISTED_CLIENTS: usize = 100;

/// Maximum number of certificates with metrics of their own.
const MAX_LISTED_CERTIFICATES: usize = 100;

/// Formats the page. Blocks for as long as `Registry::snapshot`, so it must not run on the
/// executor's thread.
pub fn page(state: &ServerState) -> String {
    let snapshot = state
        .registry
        .snapshot(MAX_LISTED_CLIENTS, SnapshotOrder::Busiest);
    let counts = state.counters.now();
    let mut page = MetricsPage::default();

    page.family("gt_info", "gauge", "Version of the program.");
    page.sample(&[("version", VERSION)], 1);
    page.family(
        "gt_uptime_seconds",
        "gauge",
        "Time since the server started.",
    );
    page.sample(&[], clock::since(state.started).as_secs());
    page.family(
        "gt_congestion_control",
        "gauge",
        "Congestion control of new TCP connections, by name (bbr).",
    );
    if let Some(name) = net::congestion_of_new(state.settings.get().bbr) {
        page.sample(&[("name", &name)], 1);
    }
    page.family("gt_clients", "gauge", "Clients with a tunnel.");
    page.sample(&[], snapshot.all.clients);
    page.totals("gt", "", [(None, snapshot.all)].into_iter());
    page.family(
        "gt_services_down",
        "gauge",
        "Services whose client has found them down (healthCheck).",
    );
    page.sample(&[], snapshot.all.down);
    page.family(
        "gt_refused_logins_total",
        "counter",
        "Rejected tunnels by GT/1 error code: 1 invalid id and secret, 2 TCP port \
         not opened, 3 too many tunnels, 4 too many host prefixes, 5 host prefix taken, 6 host \
         prefix not allowed, 7 another client has the id, 8 too many options, 9 too many TCP \
         ports.",
    );
    for (code, count) in counts.refused() {
        page.sample(&[("code", &code.to_string())], count);
    }
    page.family(
        "gt_errors_total",
        "counter",
        "Visitors that were not served, by HTTP status (or its equivalent), and connections \
         that could not be accepted.",
    );
    for (kind, count) in counts.unserved() {
        page.sample(&[("kind", kind)], count);
    }
    page.sample(&[("kind", "accept")], net::accept_failures());

    page.family(
        "gt_stun_datagrams_total",
        "counter",
        "Datagrams received at stunAddr, by outcome: answered, refused (answered with an error), \
         ignored (not a binding request), limited (too many from an address), unsent (sending the \
         answer failed).",
    );
    for (result, count) in counts.datagrams() {
        page.sample(&[("result", result)], count);
    }

    page.family(
        "gt_udp_dropped_datagrams_total",
        "counter",
        "Datagrams of visitors of UDP ports and of answers to them that were dropped, by reason: queue (the \
         tunnel is slower than the visitor sends), flows (too many visitors of the port, or connections of \
         the address), socket (the system did not take the answer).",
    );
    for (reason, count) in counts.losses() {
        page.sample(&[("reason", reason)], count);
    }

    page.certificates(state.acme.certificates());

    let clients = snapshot.clients.iter();
    let clients = clients.map(|client| (Some(&*client.id), client.totals));
    let rest = (snapshot.rest.clients > 0).then_some((Some(""), snapshot.rest));
    let help = " The 100 busiest clients are listed by id, the others summed up with an empty id.";
    page.totals("gt_client", help, clients.clone().chain(rest));
    page.family(
        "gt_client_services_down",
        "gauge",
        "Services of a client that it has found down, if there are any.",
    );
    for (id, sum) in clients.clone().filter(|(_, sum)| sum.down > 0) {
        page.sample(&[("id", id.unwrap_or_default())], sum.down);
    }
    page.family(
        "gt_client_rtt_seconds",
        "gauge",
        "Shortest round-trip time of a client's tunnels; unknown for clients that speak only \
         GT/1.",
    );
    for (id, sum) in clients {
        if let (Some(id), Some(time)) = (id, sum.round_trip) {
            page.sample(&[("id", id)], format_args!("{:.6}", time.as_secs_f64()));
        }
    }
    page.text
}

#[derive(Default)]
struct MetricsPage {
    text: String,
    /// The metric name of the samples that follow.
    name: String,
}

impl MetricsPage {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        name.clone_into(&mut self.name);
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let _ = writeln!(self.text, "{}{} {value}", self.name, Labels(labels));
    }

    /// Writes the metrics of the certificates of clients' names, those that expire first by name.
    fn certificates(&mut self, mut all: Vec<(Box<str>, CertificateStatus)>) {
        all.sort_by_key(|(_, status)| status.expires);
        let failing = all.iter().filter(|(_, status)| status.error.is_some());
        let failing = failing.count();
        self.family(
            "gt_certificate_expiry_timestamp_seconds",
            "gauge",
            "End of the validity of the certificate of a client's name (acmeDomain), in Unix time; of the 100 \
             that end first.",
        );
        let ends = all
            .iter()
            .filter_map(|(name, status)| Some((name, status.expires?)));
        for (name, expires) in ends.take(MAX_LISTED_CERTIFICATES) {
            self.sample(&[("name", name)], expires);
        }
        self.family(
            "gt_certificates_failing",
            "gauge",
            "Names of clients for which the last attempt to get a certificate has failed (acmeDomain).",
        );
        self.sample(&[], failing);
    }

    /// Writes the four metrics that exist both per client and in total.
    fn totals<'a>(
        &mut self,
        prefix: &str,
        help: &str,
        of: impl Iterator<Item = (Option<&'a str>, Totals)> + Clone,
    ) {
        let family = |page: &mut Self, name: &str, kind: &str, what: &str| {
            page.family(&format!("{prefix}_{name}"), kind, &format!("{what}{help}"));
        };
        let labels = |id: Option<&'a str>| id.map(|id| ("id", id));
        family(self, "tunnels", "gauge", "Open tunnels.");
        for (id, sum) in of.clone() {
            self.sample(labels(id).as_slice(), sum.tunnels);
        }
        family(self, "streams_open", "gauge", "Open connections.");
        for (id, sum) in of.clone() {
            self.sample(labels(id).as_slice(), sum.streams);
        }
        family(
            self,
            "streams_total",
            "counter",
            "Connections since the client or server started.",
        );
        for (id, sum) in of.clone() {
            self.sample(labels(id).as_slice(), sum.traffic.streams);
        }
        family(
            self,
            "bytes_total",
            "counter",
            "Bytes transferred: up from clients to visitors, down back.",
        );
        for (id, sum) in of {
            for (direction, bytes) in [("up", sum.traffic.received), ("down", sum.traffic.sent)] {
                let mut list = labels(id).into_iter().collect::<Vec<_>>();
                list.push(("direction", direction));
                self.sample(&list, bytes);
            }
        }
    }
}

/// Labels of a sample, displayed in braces if there are any.
struct Labels<'a>(&'a [(&'a str, &'a str)]);

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut before = "{";
        for (name, value) in self.0 {
            write!(f, "{before}{name}=\"")?;
            for c in value.chars() {
                match c {
                    '\\' | '"' => write!(f, "\\{c}")?,
                    '\n' => f.write_str("\\n")?,
                    c => f.write_char(c)?,
                }
            }
            f.write_char('"')?;
            before = ",";
        }
        f.write_str(if self.0.is_empty() { "" } else { "}" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let labels = [("id", "a\"b\\c\nd"), ("direction", "up")];
        assert_eq!(
            Labels(&labels).to_string(),
            "{id=\"a\\\"b\\\\c\\nd\",direction=\"up\"}"
        );
        assert_eq!(Labels(&[]).to_string(), "");
    }
}
