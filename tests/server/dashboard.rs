//! The dashboard and the alerts in etc/grafana name what the server's `/metrics` has. With Prometheus itself:
//! tests/real/prometheus.rs.

use crate::common::gt::server_of_id1;
use crate::common::visitor::get;
use serde_json::Value;
use std::collections::BTreeSet;

const DASHBOARD: &str = include_str!("../../etc/grafana/gt.json");
const ALERTS: &str = include_str!("../../etc/grafana/alerts.yml");

/// Returns the names of metrics in a text.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("gt_")).collect()
}

/// Returns the expressions of the dashboard's panels and variables.
fn expressions(dashboard: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    for panel in panels.filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{} shows nothing", panel["title"]);
        let texts = targets.iter().map(|target| target["expr"].as_str());
        found.extend(texts.map(|text| text.expect("an expression")));
    }
    let variables = dashboard["templating"]["list"].as_array();
    let queries = variables.expect("variables").iter();
    found.extend(queries.filter_map(|variable| variable["definition"].as_str()));
    found
}

#[test]
fn the_dashboard_and_the_alerts_name_metrics_of_the_server() {
    let mut server = server_of_id1("-apiAddr 127.0.0.1:0");
    let page = get(server.api_addr(), "localhost", "/metrics").text();
    let families: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next())
        .collect();
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("a dashboard in JSON");
    let expressions = expressions(&dashboard);
    for (what, text) in [
        ("gt.json", expressions.join("\n")),
        ("alerts.yml", ALERTS.to_owned()),
    ] {
        let named = metrics_in(&text);
        assert!(named.len() >= 5, "{what}: {named:?}");
        let unknown: Vec<_> = named.difference(&families).collect();
        assert!(
            unknown.is_empty(),
            "{what} names {unknown:?}, which the server has not"
        );
    }
    for expression in expressions {
        assert!(!metrics_in(expression).is_empty(), "{expression}");
    }
}

#[test]
fn the_panels_of_the_dashboard_have_numbers_of_their_own_and_do_not_overlap() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("a dashboard in JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<u64> = panels
        .iter()
        .filter_map(|panel| panel["id"].as_u64())
        .collect();
    assert_eq!(ids.len(), panels.len());
    let mut taken = BTreeSet::new();
    for panel in panels {
        let side = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
        for x in side("x")..side("x") + side("w") {
            for y in side("y")..side("y") + side("h") {
                assert!(
                    x < 24 && taken.insert((x, y)),
                    "{} at {x}, {y}",
                    panel["title"]
                );
            }
        }
    }
}
