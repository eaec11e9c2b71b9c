//! Prometheus with the files of etc/grafana: it reads the server's metrics, the alerts fire when they should,
//! and every panel of the dashboard has data. Needs prometheus.

use crate::common::gt::{client_of_id1, server_of_id1};
use crate::common::ports::free_port;
use crate::common::process::{run, Process};
use crate::common::scratch::Scratch;
use crate::common::visitor::get;
use crate::common::{eventually, service};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Runs promtool on a file; returns what it says of it.
fn promtool(words: &[&str], file: &Path) -> String {
    let output = run(Command::new("promtool").args(words).arg(file));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(
        output.status.success(),
        "{words:?} {}: {said}",
        file.display()
    );
    said
}

#[test]
fn the_example_and_the_alerts_are_valid_and_the_alerts_fire_when_they_should() {
    promtool(&["check", "config"], &path("etc/grafana/prometheus.yml"));
    let said = promtool(&["check", "rules"], &path("etc/grafana/alerts.yml"));
    assert!(said.contains("6 rules found"), "{said}");
    promtool(&["test", "rules"], &path("tests/real/alerts.yml"));
}

/// A running Prometheus that scrapes one address.
struct Prometheus {
    addr: SocketAddr,
    _process: Process,
}

impl Prometheus {
    /// Starts it with the example's configuration, for this address of a server's API and with short intervals.
    fn start(api: SocketAddr) -> Prometheus {
        let scratch = Scratch::new();
        let mut config = include_str!("../../etc/grafana/prometheus.yml").to_owned();
        let alerts = path("etc/grafana/alerts.yml");
        for (from, to) in [
            ("127.0.0.1:8081", api.to_string()),
            ("_interval: 15s", "_interval: 1s".to_owned()),
            ("- alerts.yml", format!("- {}", alerts.display())),
        ] {
            assert!(config.contains(from), "no {from:?} in {config}");
            config = config.replace(from, &to);
        }
        let port = free_port();
        let mut command = Command::new("prometheus");
        command
            .arg(format!(
                "--config.file={}",
                scratch.file("prometheus.yml", config).display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                scratch.join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut process = Process::spawn("prometheus", scratch, &mut command);
        let addr = process.wait_for_listener(port);
        Prometheus {
            addr,
            _process: process,
        }
    }

    /// Returns the number of series that a query has now.
    fn series(&self, query: &str) -> usize {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = get(
            self.addr,
            "localhost",
            &format!("/api/v1/query?query={encoded}"),
        );
        // Before it is ready, it answers with 503.
        if answer.status == 503 {
            return 0;
        }
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        let body = answer.text();
        let (start, end) = (body.find('{'), body.rfind('}'));
        let json = start.zip(end).map(|(start, end)| &body[start..=end]);
        let json: Value = serde_json::from_str(json.unwrap_or_default()).expect("JSON");
        json["data"]["result"].as_array().map_or(0, Vec::len)
    }
}

#[test]
fn every_panel_of_the_dashboard_has_data_of_a_server_with_visitors() {
    let mut server = server_of_id1("-apiAddr 127.0.0.1:0 -stunAddr 127.0.0.1:0 -hostNumber 2");
    let (addr, api) = (server.addr(), server.api_addr());
    let page = service::http(0, "here");
    let _client = client_of_id1(
        addr,
        &format!(
            "-local http://{} -hostPrefix id1 -local http://127.0.0.1:1 -hostPrefix down \
             -healthCheck tcp -healthCheckEvery 100ms -healthCheckFail 1",
            page.addr
        ),
    );
    let prometheus = Prometheus::start(api);
    let dashboard = include_str!("../../etc/grafana/gt.json");
    let dashboard: Value = serde_json::from_str(dashboard).expect("a dashboard");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    let mut left: Vec<String> = targets
        .map(|target| target["expr"].as_str().expect("an expression"))
        .map(|query| query.replace("$job", "gt").replace("$instance", ".*"))
        .map(|query| query.replace("$__rate_interval", "30s"))
        .collect();
    assert!(left.len() >= 15, "{left:?}");
    eventually("every panel to have data", || {
        assert_eq!(get(addr, "id1.example.com", "/").status, 200);
        left.retain(|query| prometheus.series(query) == 0);
        left.is_empty().then_some(())
    });
    // Health checks have found a service down, which is an alert that waits.
    eventually("an alert to be pending", || {
        let alert = "ALERTS{alertname=\"GtServiceDown\", alertstate=\"pending\"}";
        (prometheus.series(alert) == 1).then_some(())
    });
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let mut server = server_of_id1("-apiAddr 127.0.0.1:0 -stunAddr 127.0.0.1:0");
    let page = service::http(0, "here");
    let (addr, api) = (server.addr(), server.api_addr());
    let _client = client_of_id1(addr, &format!("-local http://{}", page.addr));
    let scratch = Scratch::new();
    let metrics = scratch.file("metrics", get(api, "localhost", "/metrics").body);
    let file = std::fs::File::open(metrics).expect("open");
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::from(file));
    let output = command.output().expect("run promtool");
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success() && said.is_empty(),
        "{}",
        String::from_utf8_lossy(&said)
    );
}
