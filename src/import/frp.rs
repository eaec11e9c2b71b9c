//! What both programs of frp have: which one a file is for, its log, addresses and ranges of ports. Not their
//! other settings: see `frpc` and `frps`.

use super::draft::{NoteKind, Setting};
use super::source::{Fate, Source, Taken};
use super::tree::Node;
use crate::config::value::digits;

/// The id of a client in a file that has no name for it. Both ends get the same one.
pub const ID: &str = "client1";
/// The reason for a comment on settings that are not known here.
pub const UNKNOWN: &str = "gt import does not know this setting";
/// The port of a server of frp that no file names.
pub const PORT: u16 = 7000;

/// Keys at the top of a client's file alone.
const OF_CLIENT: &[&str] = &[
    "clientID",
    "dnsServer",
    "includes",
    "loginFailExit",
    "natHoleStunServer",
    "proxies",
    "serverAddr",
    "serverPort",
    "start",
    "user",
    "visitors",
];
/// Keys at the top of a server's file alone.
const OF_SERVER: &[&str] = &[
    "allowPorts",
    "bindAddr",
    "bindPort",
    "custom404Page",
    "enablePrometheus",
    "httpPlugins",
    "kcpBindPort",
    "maxPortsPerClient",
    "proxyBindAddr",
    "quicBindPort",
    "sshTunnelGateway",
    "subDomainHost",
    "tcpmuxHTTPConnectPort",
    "vhostHTTPPort",
    "vhostHTTPSPort",
];
/// Keys at the top of the files of both.
const OF_BOTH: &[&str] = &["auth", "log", "metadatas", "transport", "webServer"];

/// What the keys at the top of a file say about its program.
#[derive(Clone, Copy, Debug)]
pub struct Signs {
    /// Whether a client's keys are there.
    pub client: bool,
    /// Whether a server's keys are there.
    pub server: bool,
    /// Whether keys of both are there.
    pub both: bool,
}

/// Returns what the keys at the top of a file say.
pub fn signs(root: &Node) -> Signs {
    let has = |names: &[&str]| root.keys().any(|key| names.contains(&key));
    Signs {
        client: has(OF_CLIENT),
        server: has(OF_SERVER),
        both: has(OF_BOTH),
    }
}

/// Takes the settings of the log.
pub fn log(source: &mut Source) -> Vec<Setting> {
    let mut settings = Vec::new();
    if let Some(Taken { text, leaf }) = source.text("log.to") {
        match text.as_str() {
            "console" => source.note(
                NoteKind::Needless,
                leaf,
                "gt's log goes to standard error, unless logFile is set",
            ),
            _ => settings.push(Setting::text("logFile", text)),
        }
    }
    if let Some(level) = source.text("log.level") {
        settings.push(Setting::text("logLevel", level.text));
    }
    if let Some(days) = source.text("log.maxDays") {
        let Taken { text, leaf } = days;
        let is_used = settings.iter().any(|setting| setting.key == "logFile");
        if is_used && digits(&text).is_some_and(|days| days > 0) {
            settings.push(Setting::text("logFileMaxCount", text));
            let why = "as the number of files: gt begins a new one at logFileMaxSize, not each day";
            source.note(NoteKind::Needless, leaf, why);
        } else {
            source.note(
                NoteKind::Needless,
                leaf,
                "without a log file, it has no effect",
            );
        }
    }
    source.tell(&[(
        "log.disablePrintColor",
        Fate::Needless("gt's log has no colours"),
    )]);
    settings
}

/// Returns `host:port`, with an IPv6 address in brackets.
pub fn host_port(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// Returns the address to listen on, from the host and the port that frp has apart.
pub fn listen_addr(host: Option<&str>, port: u16) -> String {
    match host {
        None | Some("0.0.0.0" | "::" | "") => port.to_string(),
        Some(host) => host_port(host, port),
    }
}

/// Maximum number of ports and ranges of one setting. A client of gt has at most as many services.
pub const MAX_RANGES: usize = crate::wire::hello::MAX_OPTIONS;
/// The reason for a comment on a setting with more.
pub const TOO_MANY_RANGES: &str =
    "it has more than 600 ports and ranges, more than services of a client of gt: write \
                                   consecutive ports as one range, like 6000-6010";

/// Reads ports and ranges of ports, `6000-6010,6020`; `None` if it is something else.
pub fn ranges(text: &str) -> Option<Vec<(u16, u16)>> {
    let port = |text: &str| {
        let port = digits(text.trim()).and_then(|port| u16::try_from(port).ok());
        port.filter(|port| *port != 0)
    };
    let range = |part: &str| match part.split_once('-') {
        Some((first, last)) => {
            let (first, last) = (port(first)?, port(last)?);
            (first <= last).then_some((first, last))
        }
        None => port(part).map(|port| (port, port)),
    };
    text.split(',').map(range).collect()
}

/// Writes a range of ports.
pub fn range((first, last): (u16, u16)) -> String {
    match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges_are_read() {
        assert_eq!(
            ranges("6000-6010, 6020"),
            Some(vec![(6000, 6010), (6020, 6020)])
        );
        for text in ["", "0", "6010-6000", "1-65536", "a", "1,,2", "1-2-3", "+1"] {
            assert_eq!(ranges(text), None, "{text}");
        }
    }

    #[test]
    fn addresses_have_brackets_around_ipv6() {
        assert_eq!(host_port("::1", 80), "[::1]:80");
        assert_eq!(host_port("[::1]", 80), "[::1]:80");
        assert_eq!(host_port("h", 80), "h:80");
        assert_eq!(listen_addr(Some("0.0.0.0"), 80), "80");
        assert_eq!(listen_addr(Some("127.0.0.1"), 80), "127.0.0.1:80");
    }
}
