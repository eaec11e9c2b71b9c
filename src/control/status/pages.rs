//! What processes with a web page tell: the same as its API at `/api/status`.

use super::super::socket;
use super::Told;
use serde_json::Value;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr;

/// Returns the name of the socket on which a process with a page answers.
pub fn socket_name(pid: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("gt-web-{pid}"))
}

/// Asks a process, and returns its answer as it is.
pub fn ask_json(pid: u32) -> Result<Told, String> {
    Ok(match answer(pid)? {
        Some(answer) => Told::Lines(vec![answer.trim_end().to_owned()]),
        None => Told::Nothing,
    })
}

/// Asks a process, and returns a line for each thing that runs in it.
pub fn ask(pid: u32) -> Result<Told, String> {
    let Some(answer) = answer(pid)? else {
        return Ok(Told::Nothing);
    };
    let status: Value =
        serde_json::from_str(&answer).map_err(|_| "it is another version".to_owned())?;
    Ok(Told::Lines(shown(&status)))
}

fn answer(pid: u32) -> Result<Option<String>, String> {
    let name = socket_name(pid).map_err(|e| e.to_string())?;
    let answer = socket::exchange_by(&name, pid, "status\n").map_err(|e| e.to_string())?;
    match answer {
        Some(answer) if answer.is_empty() => Err("it refuses".to_owned()),
        answer => Ok(answer),
    }
}

/// Returns the lines about a process.
fn shown(status: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let roles = status["roles"].as_array();
    for role in roles.into_iter().flatten() {
        let text = |key: &str| role[key].as_str().unwrap_or("-").to_owned();
        let totals = &role["totals"];
        let sums = format!(
            "tunnels={} streams={} up={} down={}",
            totals["tunnels"], totals["streams"], totals["bytesUp"], totals["bytesDown"]
        );
        let (name, file) = (text("role"), text("file"));
        if name == "server" {
            lines.push(format!(
                "{name} {file} clients={} {sums}",
                totals["clients"]
            ));
            continue;
        }
        lines.push(format!("{name} {file} id={} {sums}", text("id")));
        for server in role["servers"].as_array().into_iter().flatten() {
            let tunnels = server["tunnels"].as_array();
            let tunnels: Vec<&Value> = tunnels.into_iter().flatten().collect();
            for tunnel in &tunnels {
                let rtt = tunnel["rtt"]
                    .as_f64()
                    .map_or("-".to_owned(), |rtt| format!("{rtt:.1}ms"));
                let of = |key: &str| tunnel[key].as_str().unwrap_or("-");
                let (remote, version) = (of("remote"), of("version"));
                lines.push(format!(
                    "tunnel {remote} wire={version} rtt={rtt} streams={}",
                    tunnel["streams"]
                ));
            }
            if tunnels.is_empty() {
                let (server, why) = (server["server"].as_str(), server["error"].as_str());
                let why = why.map_or(String::new(), |why| format!(": {why}"));
                lines.push(format!("not connected to {}{why}", server.unwrap_or("-")));
            }
        }
        for service in role["services"].as_array().into_iter().flatten() {
            let links = service["links"].as_array();
            let links: Vec<&str> = links
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let state = match service["isUp"].as_bool() {
                Some(true) => " up",
                Some(false) => " down",
                None => "",
            };
            let local = service["local"].as_str().unwrap_or("-");
            lines.push(
                format!("service {local}{state} {}", links.join(" "))
                    .trim_end()
                    .to_owned(),
            );
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_has_a_line_for_each_thing_that_runs() {
        let totals =
            json!({"clients": 2, "tunnels": 3, "streams": 4, "bytesUp": 5, "bytesDown": 6});
        let status = json!({"roles": [
            {"role": "server", "file": "s.yaml", "totals": totals},
            {"role": "client", "file": null, "id": "a", "totals": totals,
             "servers": [
                {"server": "tls://h:1", "error": null, "tunnels": [
                    {"remote": "tls://h:1", "version": "GT/2", "rtt": 1.25, "streams": 0}]},
                {"server": "tls://i:1", "error": "refused", "tunnels": []}],
             "services": [{"local": "tcp://b:1", "isUp": false, "links": ["h:2"]}]}]});
        assert_eq!(
            shown(&status),
            [
                "server s.yaml clients=2 tunnels=3 streams=4 up=5 down=6",
                "client - id=a tunnels=3 streams=4 up=5 down=6",
                "tunnel tls://h:1 wire=GT/2 rtt=1.2ms streams=0",
                "not connected to tls://i:1: refused",
                "service tcp://b:1 down h:2",
            ]
        );
        assert!(shown(&Value::Null).is_empty());
    }
}
