//! Tests of whole files, with the samples of tests/config/import.

use super::*;
use tree::NodeKind;

const FRPC_TOML: &str = include_str!("../../tests/config/import/frpc.toml");
const FRPC_INI: &str = include_str!("../../tests/config/import/frpc.ini");
const FRPC_YAML: &str = include_str!("../../tests/config/import/frpc.yaml");
const FRPC_JSON: &str = include_str!("../../tests/config/import/frpc.json");
const FRPS_TOML: &str = include_str!("../../tests/config/import/frps.toml");
const FRPS_INI: &str = include_str!("../../tests/config/import/frps.ini");
const RATHOLE_CLIENT: &str = include_str!("../../tests/config/import/rathole-client.toml");
const RATHOLE_SERVER: &str = include_str!("../../tests/config/import/rathole-server.toml");
const GT_CLIENT: &str = include_str!("../../tests/config/import/gt-client.yaml");
const GT_SERVER: &str = include_str!("../../tests/config/import/gt-server.yaml");

const SAMPLES: [&str; 10] = [
    FRPC_TOML,
    FRPC_INI,
    FRPC_YAML,
    FRPC_JSON,
    FRPS_TOML,
    FRPS_INI,
    RATHOLE_CLIENT,
    RATHOLE_SERVER,
    GT_CLIENT,
    GT_SERVER,
];

/// Makes a hash at once, which depends on the password.
fn quick_hash(password: &str) -> Result<String, String> {
    let sum = password.bytes().fold(7u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    let derived = "6rT2vBti7/VRXwpEl8XzVNnL/S3xcePFxPLXFL55vZo";
    Ok(format!("$pbkdf2-sha256$i=310000${sum:016x}${derived}"))
}

fn try_import(text: &str, role: Option<RoleName>) -> Result<Imported, String> {
    import(text.as_bytes(), "sample", role, quick_hash)
}

fn imported(text: &str) -> String {
    try_import(text, None).unwrap().text
}

fn error(text: &str) -> String {
    try_import(text, None).unwrap_err()
}

/// Checks that the text has these lines, in this order, with nothing between those of one string.
fn assert_has(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let at = rest.find(part);
        let at = at.unwrap_or_else(|| panic!("{part:?} is not in what is left of\n{text}"));
        rest = &rest[at + part.len()..];
    }
}

/// Changes the text with this number, if there are as many.
fn change(node: &mut Node, number: &mut usize) -> bool {
    match &mut node.kind {
        NodeKind::Null => false,
        NodeKind::Text(text) => {
            let found = *number == 0;
            if found {
                *text = match text.as_str() {
                    "true" => "false".to_owned(),
                    "false" => "true".to_owned(),
                    _ => format!("{text}1"),
                };
            }
            *number = number.wrapping_sub(1);
            found
        }
        NodeKind::List(nodes) => nodes.iter_mut().any(|node| change(node, number)),
        NodeKind::Map(entries) => entries.iter_mut().any(|(_, node)| change(node, number)),
    }
}

#[test]
fn every_setting_of_a_sample_is_carried_or_told() {
    for sample in SAMPLES {
        let before = imported(sample);
        let total = format::read(sample).unwrap().root.leaves();
        for (number, leaf) in total.iter().enumerate() {
            let mut parsed = format::read(sample).unwrap();
            assert!(change(&mut parsed.root, &mut number.clone()));
            let after = convert(parsed, "sample", None, quick_hash).unwrap();
            assert_ne!(
                before, after.text,
                "{leaf} makes no difference in\n{before}"
            );
        }
    }
}

#[test]
fn gt_accepts_what_is_made_of_the_samples() {
    for sample in SAMPLES {
        let imported = try_import(sample, None).unwrap();
        assert_eq!(imported.incomplete, None, "{}", imported.text);
        assert_eq!(imported.summary.len(), 1);
    }
}

#[test]
fn the_first_line_says_what_the_file_is() {
    for (sample, what) in [
        (FRPC_TOML, "a client of frp (frpc) in TOML"),
        (FRPC_INI, "a client of frp (frpc) in INI"),
        (FRPC_YAML, "a client of frp (frpc) in YAML"),
        (FRPC_JSON, "a client of frp (frpc) in JSON"),
        (FRPS_TOML, "a server of frp (frps) in TOML"),
        (FRPS_INI, "a server of frp (frps) in INI"),
        (RATHOLE_CLIENT, "a client of rathole in TOML"),
        (RATHOLE_SERVER, "a server of rathole in TOML"),
        (GT_CLIENT, "a client of GT in YAML"),
        (GT_SERVER, "a server of GT in YAML"),
    ] {
        let text = imported(sample);
        let first = format!("# gt import: {what}, from sample.");
        assert_eq!(text.lines().next(), Some(first.as_str()));
    }
}

#[test]
fn a_client_of_frp_keeps_its_services() {
    assert_has(
        &imported(FRPC_TOML),
        &[
            "  - local: tcp://127.0.0.1:22\n    remoteTCPPort: 6000\n",
            "  - local: http://127.0.0.1:8080\n    domain: [www.example.com, example.com]\n    speed: 2097152\n",
            "  - local: http://192.168.1.1:80\n    hostPrefix: router\n    useLocalAsHTTPHost: true\n    \
             password: [\"alice:$pbkdf2-sha256$i=310000$",
            "  - local: \"https://[::1]:8443\"\n    hostPrefix: media\n    proxyProtocol: 2\n",
            "  - local: file:///srv/files\n    remoteTCPPort: 6001\n    password: [\"bob:$",
            "  - local: unix:///run/docker.sock\n    remoteTCPPort: 6002\n",
            "  - local: tcp://127.0.0.1:9000\n    remoteTCPRandom: true\n",
            "  - local: udp://114.114.114.114:53\n    remoteUDPPort: 6053\n",
            "  remote: tcp://frp.example.com:7000\n",
            "  remoteProxy: \"http://alice:pass@192.168.1.9:3128\"\n  remoteBind: 192.168.1.2\n",
            "  id: home\n",
            "  secret: \"t0ken: with \\\"quotes\\\" and # more\"\n  remoteTimeout: 60s\n",
            "  logFile: /var/log/frpc.log\n  logLevel: warn\n  logFileMaxCount: 3\n",
        ],
    );
    assert_has(
        &imported(FRPC_INI),
        &[
            "  - local: tcp://127.0.0.1:6010-6020\n    remoteTCPPort: 7010-7020\n",
            "  - local: tcp://127.0.0.1:6022\n    remoteTCPPort: 7022\n",
            "    domain: [web01.example.com, web02.example.com]\n    password: [\"admin:$",
            "  remote: tcp://203.0.113.7:7000\n",
            "  id: client1\n",
            "  secret: 12345678\n",
        ],
    );
    assert_has(
        &imported(FRPC_YAML),
        &[
            "  remote: tls://frp.example.com:7001\n",
            "  remoteCert: /etc/frp/ca.crt\n",
            "  secret: 0123\n",
        ],
    );
    assert_has(&imported(FRPC_JSON), &["  secret: \"tökén\"\n"]);
}

#[test]
fn health_checks_groups_and_proxies_of_frp_are_gt_s() {
    let text = imported(
        "serverAddr = \"h\"\n[[proxies]]\nname = \"web\"\ntype = \"http\"\nlocalPort = 80\n\
         customDomains = [\"a.example\"]\nhealthCheck.type = \"http\"\nhealthCheck.path = \"/status\"\n\
         healthCheck.intervalSeconds = 7\nhealthCheck.maxFailed = 2\nloadBalancer.group = \"web\"\n\
         loadBalancer.groupKey = \"k1\"\n\
         [[proxies]]\nname = \"s\"\ntype = \"tcp\"\nremotePort = 1080\n[proxies.plugin]\n\
         type = \"socks5\"\nusername = \"u\"\npassword = \"p\"\n\
         [[proxies]]\nname = \"open\"\ntype = \"tcp\"\nremotePort = 1081\n[proxies.plugin]\n\
         type = \"http_proxy\"\n\
         [[proxies]]\nname = \"dns\"\ntype = \"udp\"\nlocalPort = 53\nremotePort = 53\n\
         healthCheck.type = \"tcp\"\n",
    );
    assert_has(
        &text,
        &[
            "    healthCheck: /status\n    healthCheckEvery: 7s\n    healthCheckFail: 2\n    serviceGroup: web\n    \
             groupKey: k1\n",
            "  - local: \"socks5:\"\n    remoteTCPPort: 1080\n    password: [\"u:$pbkdf2",
            "  # not carried: anyone could go into the networks of this machine",
            "  - local: udp://127.0.0.1:53\n    remoteUDPPort: 53\n    # not carried (line 32)",
        ],
    );
}

#[test]
fn a_service_that_would_lose_a_restriction_stands_in_comments() {
    let text = imported(FRPC_TOML);
    assert_has(
        &text,
        &[
            "# not carried: visitors would reach more",
            "  # - local: http://127.0.0.1:8081\n",
            "proxies[3].locations[0]: /shop\n",
        ],
    );
    let secret =
        "serverAddr = \"h\"\n[[proxies]]\ntype = \"http\"\nlocalPort = 80\nsubdomain = \"a\"\n\
                  httpUser = \"alice\"\n";
    let text = imported_incomplete(secret);
    assert_has(
        &text,
        &[
            "# not carried: its password cannot be carried",
            "httpUser: alice\n",
        ],
    );
    assert!(!text.contains("\n  - local"), "{text}");
    let no_hash = |_: &str| Err("there are no random numbers".to_owned());
    let secret = format!("{secret}httpPassword = \"x\"\n");
    let imported = import(secret.as_bytes(), "sample", None, no_hash).unwrap();
    assert!(!imported.text.contains("\n  - local"), "{}", imported.text);
}

/// Returns what is made of a file that lacks something.
fn imported_incomplete(text: &str) -> String {
    let imported = try_import(text, None).unwrap();
    assert!(imported.incomplete.is_some(), "{}", imported.text);
    assert_eq!(imported.summary.len(), 2);
    assert!(imported.text.contains("\n# gt does not run it yet: "));
    imported.text
}

#[test]
fn a_proxy_that_does_not_run_in_frp_does_not_run_in_gt() {
    let text = "serverAddr = \"h\"\nstart = [\"a\", \"b\"]\n\
                [[proxies]]\nname = \"a\"\nlocalPort = 1\nremotePort = 1\n\
                [[proxies]]\nname = \"b\"\nenabled = false\nlocalPort = 2\nremotePort = 2\n\
                [[proxies]]\nname = \"c\"\nlocalPort = 3\nremotePort = 3\n";
    assert_has(
        &imported(text),
        &[
            "\n  - local: tcp://127.0.0.1:1\n",
            "  # not carried: it is not enabled\n  # - local: tcp://127.0.0.1:2\n",
            "  # not carried: it is not in the list start\n  # - local: tcp://127.0.0.1:3\n",
        ],
    );
}

#[test]
fn a_proxy_that_does_not_run_leaves_its_port_to_others() {
    let text = "serverAddr = \"h\"\n\
                [[proxies]]\nname = \"a\"\nenabled = false\nlocalPort = 1\nremotePort = 7\n\
                [[proxies]]\nname = \"b\"\nlocalPort = 2\nremotePort = 7\n";
    assert_has(
        &imported(text),
        &[
            "\n  # - local: tcp://127.0.0.1:1\n",
            "\n  - local: tcp://127.0.0.1:2\n",
        ],
    );
}

#[test]
fn both_ends_of_rathole_take_the_token_of_the_first_service() {
    let text = "[client]\nremote_addr = \"h:1\"\ndefault_token = \"d\"\n\
                [client.services.u]\ntype = \"odd\"\nlocal_addr = \"h:1\"\n\
                [client.services.a]\ntoken = \"x\"\nlocal_addr = \"h:2\"\n\
                [server]\nbind_addr = \"0.0.0.0:1\"\ndefault_token = \"d\"\n\
                [server.services.u]\ntype = \"odd\"\nbind_addr = \"0.0.0.0:2\"\n\
                [server.services.a]\ntoken = \"x\"\nbind_addr = \"0.0.0.0:3\"\n";
    let client = try_import(text, Some(RoleName::Client)).unwrap().text;
    assert_has(
        &client,
        &[
            "client.default_token: d\n",
            "  id: client1\n",
            "  secret: x\n",
        ],
    );
    let server = try_import(text, Some(RoleName::Server)).unwrap().text;
    assert_has(
        &server,
        &["  client1:\n    secret: x\n", "  client2:\n    secret: d\n"],
    );
}

#[test]
fn the_second_service_of_a_port_or_a_name_stands_in_comments() {
    let proxy =
        |name: &str, rest: &str| format!("[[proxies]]\nname = \"{name}\"\nlocalPort = 1\n{rest}\n");
    let text = "serverAddr = \"h\"\n".to_owned()
        + &proxy("a", "remotePort = 7")
        + &proxy("b", "remotePort = 7")
        + &proxy("c", "type = \"http\"\nsubdomain = \"x\"")
        + &proxy("d", "type = \"https\"\nsubdomain = \"x\"")
        + &proxy("e", "type = \"http\"\nsubdomain = \"X\"")
        + &proxy("f", "type = \"http\"\ncustomDomains = [\"y.z\"]")
        + &proxy("g", "type = \"http\"\ncustomDomains = [\"Y.z\"]");
    let text = imported(&text);
    assert_has(
        &text,
        &[
            "a has the same port",
            "c has the same host name x",
            "f has the same host name y.z",
        ],
    );
    assert_eq!(text.matches("\n  - local").count(), 4, "{text}");
}

#[test]
fn what_gt_does_not_accept_stands_in_comments_with_the_reason() {
    let text = "serverAddr = \"h\"\nlog.level = \"loud\"\n\
                [[proxies]]\nname = \"a\"\nlocalPort = 1\nremotePort = 1\n\
                [[proxies]]\nname = \"b\"\ntype = \"http\"\nlocalPort = 2\ncustomDomains = [\"a b\"]\n\
                [[proxies]]\nname = \"c\"\nlocalIP = \"not a host\"\nlocalPort = 3\nremotePort = 3\n";
    assert_has(
        &imported(text),
        &[
            "\n  - local: tcp://127.0.0.1:1\n",
            "# not carried: services[1].domain",
            "  # - local: http://127.0.0.1:2\n  #   domain: [\"a b\"]\n",
            "# not carried: services[1].local: \"tcp://not a host:3\" is not a local service",
            "  # - local: \"tcp://not a host:3\"\n",
            "# not carried: options.logLevel: \"loud\"",
            "  # logLevel: loud\n",
        ],
    );
}

#[test]
fn a_server_of_frp_keeps_its_listeners_and_ports() {
    assert_has(
        &imported(FRPS_TOML),
        &[
            "users:\n  client1:\n    secret: \"t0ken: with \\\"quotes\\\" and # more\"\n",
            "tcp:\n  - range: 6000-6100\n  - range: 7500\ntcpNumber: 5\nudp:\n  - range: 6000-6100\n",
            "udpNumber: 5\n",
            "  addr: 8080\n  sniAddr: 7000\n",
            "  hostNumber: 0\n",
            "  domains: [\"*\"]\n",
            "  apiAddr: 127.0.0.1:7500\n",
            "  timeout: 90s\n",
        ],
    );
    let listeners = |text: &str| {
        let text = imported(text);
        let is_one = |line: &&str| {
            ["addr:", "tlsAddr:", "sniAddr:"]
                .iter()
                .any(|key| line.trim().starts_with(key))
        };
        let lines: Vec<_> = text.lines().filter(is_one).map(str::trim).collect();
        lines.join(" ")
    };
    let tls = "transport.tls.certFile = \"a\"\ntransport.tls.keyFile = \"b\"\n";
    for (text, wanted) in [
        ("bindPort = 7000\n", "addr: 7000"),
        ("bindAddr = \"127.0.0.1\"\n", "addr: 127.0.0.1:7000"),
        ("bindPort = 80\nvhostHTTPPort = 80\n", "addr: 80"),
        ("vhostHTTPSPort = 443\n", "addr: 7000 sniAddr: 443"),
        (
            "bindPort = 443\nvhostHTTPSPort = 443\n",
            "addr: \"\" sniAddr: 443",
        ),
        (
            "vhostHTTPPort = 80\nvhostHTTPSPort = 443\n",
            "addr: 80 sniAddr: 443",
        ),
        (
            "bindPort = 443\nvhostHTTPPort = 80\nvhostHTTPSPort = 443\n",
            "addr: 80 sniAddr: 443",
        ),
        (
            &format!("bindPort = 7000\n{tls}"),
            "addr: \"\" tlsAddr: 7000",
        ),
        (
            &format!("vhostHTTPPort = 80\n{tls}"),
            "addr: 80 tlsAddr: 7000",
        ),
        (
            &format!("vhostHTTPSPort = 7000\n{tls}"),
            "addr: \"\" tlsAddr: 7000",
        ),
    ] {
        assert_eq!(listeners(text), wanted, "{text}");
    }
}

#[test]
fn a_server_of_frp_without_a_token_that_can_be_read_admits_nobody_more() {
    assert_has(
        &imported("bindPort = 7000\n"),
        &["  allowAnyClient: true\n  # to do: there is no token"],
    );
    for auth in [
        "token = \"{{ .Envs.TOKEN }}\"",
        "method = \"oidc\"",
        "tokenSource.type = \"file\"",
    ] {
        let text = imported(&format!("bindPort = 7000\n[auth]\n{auth}\n"));
        assert!(
            text.contains("\nusers:\n") && !text.contains("allowAnyClient"),
            "{text}"
        );
    }
}

#[test]
fn ports_that_frp_opens_at_one_address_stand_in_comments() {
    let text =
        |address: &str| imported(&format!("bindPort = 7000\nproxyBindAddr = \"{address}\"\n"));
    let one = text("127.0.0.1");
    assert_has(
        &one,
        &[
            "# not carried: gt opens the ports",
            "# tcp:\n  # - range: 1-65535\n",
        ],
    );
    assert!(!one.contains("\ntcp") && !one.contains("\nudp"), "{one}");
    assert_has(&text("0.0.0.0"), &["\ntcp:\n  - range: 1-65535\n"]);
}

#[test]
fn both_ends_of_rathole_meet() {
    let both = format!("{RATHOLE_CLIENT}\n{RATHOLE_SERVER}");
    assert!(error(&both).contains("write gt client import FILE and gt server import FILE"));
    let client = try_import(&both, Some(RoleName::Client)).unwrap().text;
    assert_has(
        &client,
        &[
            "  - local: tcp://127.0.0.1:22\n    remoteTCPPort: 5202\n",
            "  - local: tcp://192.168.1.5:80\n    remoteTCPRandom: true\n    # to do: the port is in the",
            "  - local: udp://127.0.0.1:34197\n    remoteUDPPort: 34197\n",
            "  remote: tls://example.com:2333\n  remoteCert: /etc/rathole/ca.pem\n  id: client1\n",
            "  secret: use_a_secret_that_only_you_know\n  remoteTimeout: 40s\n  reconnectDelay: 2s\n",
        ],
    );
    let server = try_import(&both, Some(RoleName::Server)).unwrap().text;
    assert_has(
        &server,
        &[
            "  client1:\n    secret: use_a_secret_that_only_you_know\n    tcp:\n",
            "      - number: 1\n        range: 5202\n",
            "      # - number: 1\n      #   range: 9090\n",
            "    udp:\n",
            "      - number: 1\n        range: 34197\n",
            "  client2:\n    secret: another\n    tcp:\n",
            "        range: 8080\n",
            "  addr: 2333\n",
        ],
    );
}

#[test]
fn a_file_of_the_original_keeps_its_keys() {
    assert_has(
        &imported(GT_CLIENT),
        &[
            "  - local: http://127.0.0.1:80\n    useLocalAsHTTPHost: true\n    hostPrefix: 1\n",
            "    remoteTCPRandom: true\n",
            "  secret: 0123\n  remoteSTUN: stun:example.com:3478\n",
            "  webAddr: 127.0.0.1:7000\n",
            "options.openBBR: true\n",
        ],
    );
    assert_has(
        &imported(GT_SERVER),
        &[
            "      regex: [\"^[0-9]+$\", \"^[a-z]+$\"]\n",
            "users.id2.colour: red\n",
            "host:\n  number: 3\n",
        ],
    );
    let users = "id1: {secret: secret1}\nid2: {secret: secret2}\n";
    assert!(error(users).contains("that gt reads as it is (the option users)"));
    // It is not read: it may be anything on this machine.
    assert_has(
        &imported("options: {users: /dev/zero, addr: 80}\n"),
        &["  users: /dev/zero\n"],
    );
}

#[test]
fn templates_are_told_and_leave_the_rest() {
    let text = "serverAddr = \"h\"\nserverPort = {{ .Envs.PORT }}\n\
                [[proxies]]\nname = \"a\"\nlocalPort = 1\nremotePort = 1\n\
                {{- range $v := parseNumberRangePair \"5-6\" \"7-8\" }}\n\
                [[proxies]]\nname = \"t-{{ $v.First }}\"\nlocalPort = {{ $v.First }}\nremotePort = 1\n{{- end }}\n";
    assert_has(
        &imported(text),
        &[
            "\n  - local: tcp://127.0.0.1:1\n",
            "# to do (line 10): proxies[1].localPort: {{ $v.First }}\n",
            "# to do (line 2): serverPort: {{ .Envs.PORT }}\n",
            "# to do (line 7): {{- range $v",
        ],
    );
}

#[test]
fn more_ports_than_a_client_has_services_are_told_in_one_comment() {
    let ports = |count: usize| vec!["7"; count].join(",");
    let many = ports(200_000);
    for (text, setting) in [
        (
            format!(
                "[common]\nserver_addr = h\n[range:a]\ntype = tcp\nlocal_port = {many}\nremote_port = {many}\n"
            ),
            "localPort",
        ),
        (format!("[common]\nbind_port = 7000\nallow_ports = {many}\n"), "allowPorts"),
    ] {
        let imported = imported(&text);
        assert_has(&imported, &[&format!("{setting}: it has more than 600 ports and ranges")]);
        // The settings themselves are part of the comments.
        assert!(imported.len() < 2 * text.len(), "{} bytes", imported.len());
    }
    let text = format!("[common]\nbind_port = 7000\nallow_ports = {}\n", ports(600));
    let whole = imported(&text);
    assert_eq!(whole.matches("range: 7").count(), 1200, "of TCP and of UDP");
}

#[test]
fn an_error_says_what_is_wrong_with_a_file() {
    for (text, why) in [
        ("", "it is empty"),
        ("{}", "it has no keys"),
        ("a: 1\n", "its keys begin with \"a\""),
        (
            "auth: {token: x}\n",
            "nothing in it says whether it is a client's file",
        ),
        (
            "serverAddr = \"h\"\nbindPort = 1\n",
            "for a client and for a server",
        ),
        ("serverAddr = \"h\n", "sample: line 1: "),
        (
            "[common]\nserver_addr\n",
            "sample: line 2: this is neither a [section] nor key = value",
        ),
        (
            "x = 1\n[common]\n",
            "sample: line 1: this setting stands before the first [section]",
        ),
        ("[client]\nremote_addr = h:1\n", "(read as TOML)"),
        (
            "[mysqld]\ndatadir = /var/lib/mysql\n[common]\nname = x y\n",
            "it has sections, but none of frp",
        ),
    ] {
        let error = error(text);
        assert!(
            error.starts_with("sample: ") && error.contains(why),
            "{error}"
        );
    }
    let error = try_import(FRPC_TOML, Some(RoleName::Server)).unwrap_err();
    assert!(error.contains("this is a client's file"), "{error}");
    let of_bytes = |bytes: &[u8]| import(bytes, "sample", None, quick_hash).unwrap_err();
    assert!(of_bytes(b"a: 1\nb: \xff\n").contains("line 2: this is not text in UTF-8"));
    assert!(of_bytes(b"\xff\xfea\0").contains("UTF-16"));
    assert!(of_bytes(&vec![b' '; MAX_FILE + 1]).contains("more than 1048576 bytes"));
    assert!(imported(&format!("\u{feff}{FRPC_TOML}")).contains("in TOML"));
}

#[test]
fn no_name_of_a_service_breaks_out_of_a_comment() {
    for end in ["\\n", "\\r", "\\u0085", "\\u2028"] {
        let text = try_import(
            &format!(
                "[client]\nremote_addr = \"h:2333\"\ndefault_token = \"t\"\n\
                 [client.services.\"a{end}  - local: tcp://127.0.0.1:23{end}    remoteTCPPort: 2323{end}  #\"]\n\
                 local_addr = \"127.0.0.1:22\"\n"
            ),
            None,
        );
        let text = text.unwrap().text;
        let is_live = |line: &&str| line.trim_start().starts_with("- local:");
        let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}']);
        assert_eq!(lines.filter(is_live).count(), 1, "{text}");
    }
}

#[test]
fn no_value_breaks_out_of_a_comment_or_a_value() {
    let text = "{\"serverAddr\": \"h\", \"auth\": {\"token\": \"a\\n  evil: 1\"}, \"clientID\": \"a\\n  evil: 2\", \
                \"x\\n  evil: 3\": 1, \"proxies\": [{\"name\": \"a\\n  evil: 4\", \"localPort\": 1}]}";
    let text = imported(text);
    assert!(
        !text
            .lines()
            .any(|line| line.trim_start().starts_with("evil")),
        "{text}"
    );
    assert_has(&text, &["  secret: \"a\\U0000000A  evil: 1\"\n"]);
}

#[test]
fn many_proxies_are_cut_at_what_a_server_takes() {
    let proxy = |n: u32| format!("[[proxies]]\nname = \"p{n}\"\nlocalPort = 1\nremotePort = {n}\n");
    let text: String = (1..=650).map(proxy).collect();
    let text = imported(&format!("serverAddr = \"h\"\n{text}"));
    assert_eq!(text.matches("\n  - local").count(), 600);
    assert_eq!(text.matches("\n  # - local").count(), 50);
}
