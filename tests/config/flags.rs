//! Flags do what their names say, as far as no other test covers them.

use crate::common::gt::{client, server};
use crate::common::peer::gt1::{hello, Frame, Peer};
use crate::common::peer::{prefix_option, ID_ALONE};
use crate::common::ports::free_port;
use crate::common::scratch::Scratch;
use crate::common::visitor::{connect, get};
use crate::common::{eventually, words};
use gt::cli::{self, Command};
use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};

const BAD_CREDENTIALS: Frame = Frame::Error(1);
const PASSWORD: &str = "bob:$pbkdf2-sha256$i=310000$3+4f3ib27oI8qj+tj8Bx4w$6rT2vBti7/VRXwpEl8XzVNnL/S3xcePFxPLXFL55vZo";

const SHARED: &str = "0123456789abcdef";

/// Returns the answer to a client that connects to `addr` with this hello.
fn answer(addr: SocketAddr, hello: &[u8]) -> Frame {
    Peer::client(addr, hello).frame()
}

/// Parses the command line.
fn parsed(line: &str) -> Command {
    let argv = ["gt"].into_iter().chain(words(line));
    let argv: Vec<String> = argv.map(str::to_owned).collect();
    cli::parse(&argv).unwrap_or_else(|e| panic!("{line}: {e}"))
}

/// Returns the flags that `gt` reports as having no effect. `line` must contain all flags that can
/// be combined.
fn not_effective(role: &str, lines: &[String]) -> BTreeSet<String> {
    let Command::Print(help) = parsed(&format!("{role} -h")) else {
        panic!("no help");
    };
    let shown = help.lines().filter_map(|it| it.split_whitespace().next());
    let alone = ["-config", "-h", "-s", "-version"];
    for flag in shown.filter(|word| word.starts_with('-') && !alone.contains(word)) {
        let given = |word: &&str| word.split('=').next() == Some(flag);
        let all = lines.iter().flat_map(|line| words(line));
        let tried = all.collect::<Vec<_>>().iter().any(given);
        assert!(tried, "{flag} is not tried");
    }
    let roles = lines.iter().flat_map(|line| {
        let Command::Run(roles) = parsed(&format!("{role} {line}")) else {
            panic!("nothing to run");
        };
        roles
    });
    let warnings = roles.flat_map(|loaded| loaded.warnings);
    let names = warnings.filter_map(|it| {
        let (name, _) = it.split_once(" is set, but this gt was built without the feature ")?;
        Some(name.to_owned())
    });
    names.collect()
}

#[test]
fn every_flag_has_its_effect() {
    let common = "-accessLog - -bbr -udpOffload=false -logFile /dev/null -logFileMaxCount 1 -logFileMaxSize 1 -logLevel warn \
        -sentryDSN http://k@h/1 -sentryDebug -sentryEnvironment e -sentryLevel warn \
        -sentryRelease r -sentrySampleRate 0.5 -sentryServerName n -stateDir d -threads 2 -user u -group g -wire 2";
    let server = "-acceptProxy 10.0.0.0/8 -addr 1 -addressConnections 1 -allow 10.0.0.0/8 -allowAnyClient -apiAddr 2 -apiCertFile c -apiHosts h -apiKeyFile k \
        -apiTLSVersion tls1.3 -authAPI http://h -certFile c -clientCA c -connections 1 -deny 10.0.0.0/8 -domains a.b -frontProxies 10.0.0.0/8 -hostNumber 1 \
        -hostRegex a -hostWithID -httpMUXHeader A -id i -keyFile k -quicAddr 6 -reconnectDuration 1s \
        -reconnectTimes 1 -secret s -sniAddr 3 -speed 1 -stunAddr 4 -tcpNumber 1 -tcpRange 1-2 \
        -timeout 1s -timeoutOnUnidirectionalTraffic -tlsAddr 5 -tlsVersion tls1.3 -totalConnections 1 -udpNumber 1 -udpRange 1-2 -udpTimeout 1s -users /dev/null -wsPath /ws";
    let client = "-allow 10.0.0.0/8 -banFor 1s -deny 10.0.0.0/8 -domain a.b -followLinksOutside -forwarded -groupKey k -groupSticky -serviceGroup g -healthCheck /a -healthCheckEvery 1s -healthCheckFail 2 -healthCheckPass 2 -healthCheckTimeout 1s -speed 1 -visitorRate 1/1s -visitorSpeed 1 -hostPrefix p -id i -local http://h -localTimeout 1s -password alice:$pbkdf2-sha256$i=310000$3+4f3ib27oI8qj+tj8Bx4w$6rT2vBti7/VRXwpEl8XzVNnL/S3xcePFxPLXFL55vZo \
        -proxyProtocol 1 -reconnectDelay 1s -targets 10.0.0.0/8 \
        -remote h -remoteAPI http://h -remoteBind lo -remoteProxy http://h -remoteCert c -remoteCertInsecure -remoteConnections 2 \
        -remoteIdleConnections 2 -remoteSTUN h -remoteTCPPort 0 -remoteTCPRandom=false \
        -remotePort 0 -remoteUDPPort 0 -remoteUDPRandom=false \
        -remoteTimeout 1s -secret s -tcpForwardAddr 1 -tcpForwardConnections 1 \
        -tcpForwardFallback=false -tcpForwardHostPrefix p -useLocalAsHTTPHost \
        -webrtcConnectionIdleTimeout 1s -webrtcConnections 1 -webrtcLogLevel info -webrtcMaxPort 2 -webrtcMinPort 1 -webrtcPortMap";
    // Some options exclude others.
    let scratch = Scratch::new();
    let secret = scratch.file("secret", "s");
    let passwords = scratch.file("passwords", PASSWORD);
    let minimal = "-id i -local http://h -remote tls://h";
    let keys = format!("{minimal} -key /k -remoteKey first -stateDir d");
    let files = format!(
        "{minimal} -secretFile {} -passwordFile {}",
        secret.display(),
        passwords.display()
    );
    let shared = scratch.file("shared", SHARED);
    let shared = shared.display();
    let forward = "-tcpForwardAddr 1 -tcpForwardHostPrefix p";
    let private = format!(
        "-id i -local tcp://h:1 -remote h {forward} -private {SHARED} -tcpForwardKey {SHARED}"
    );
    let private_files = format!(
        "-id i -local tcp://h:1 -remote h {forward} -privateFile {shared} -tcpForwardKeyFile {shared}"
    );
    let udp = "-id i -remote h -udpForwardAddr 1 -udpForwardHostPrefix p";
    let udp_forwards = [
        format!("{udp} -udpForwardKey {SHARED} -udpForwardFallback=false"),
        format!("{udp} -udpForwardKeyFile {shared}"),
        format!("{udp} -udpForwardPort 53"),
    ];
    let acme = "-addr 1 -id i -secret s -stateDir d -tlsAddr 2 -acmeCA c -acmeDirectory https://h -acmeDomain a.b \
        -acmeEmail me@example.net"
        .to_owned();
    let page = "-webAddr 127.0.0.1:3 -webCertFile c -webHosts h -webKeyFile k";
    let server_page = format!("-addr 1 -id i -secret s {page}");
    let client_page = format!("{minimal} {page}");
    let [server, client] = [server, client].map(|flags| format!("{flags} {common}"));
    for (role, lines) in [
        ("server", &[server, acme, server_page][..]),
        (
            "client",
            &[
                &[client, keys, files, private, private_files, client_page],
                &udp_forwards[..],
            ]
            .concat(),
        ),
    ] {
        let without = not_effective(role, lines);
        assert!(without.is_empty(), "{without:?}");
    }
}

#[test]
fn allow_any_client_lets_others_in_beside_the_users() {
    let (known, wrong, any) = (
        hello("id1", "secret1", &ID_ALONE),
        hello("id1", "other", &ID_ALONE),
        hello("any", "any", &ID_ALONE),
    );
    for (flag, others) in [("", BAD_CREDENTIALS), ("-allowAnyClient", Frame::Ready)] {
        let mut server = server(&format!(
            "-addr 127.0.0.1:0 -id id1 -secret secret1 -reconnectTimes 0 {flag}"
        ));
        let addr = server.addr();
        assert_eq!(answer(addr, &known), Frame::Ready);
        assert_eq!(answer(addr, &wrong), BAD_CREDENTIALS);
        assert_eq!(answer(addr, &any), others, "{flag}");
    }
}

#[test]
fn users_names_a_file_of_users() {
    let scratch = Scratch::new();
    let users = scratch.file("users.yaml", "id1:\n  secret: secret1\n");
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 -reconnectTimes 0 -users {}",
        users.display()
    ));
    let addr = server.addr();
    for (id, secret, expected) in [
        ("id1", "secret1", Frame::Ready),
        ("id1", "secret2", BAD_CREDENTIALS),
        ("id2", "secret1", BAD_CREDENTIALS),
    ] {
        assert_eq!(
            answer(addr, &hello(id, secret, &ID_ALONE)),
            expected,
            "{id}"
        );
    }
}

/// Builds a hello with the id and these other prefixes.
fn with_prefixes(id: &str, prefixes: &[&str]) -> Vec<u8> {
    let mut options = Vec::new();
    for prefix in prefixes {
        options.push(0x02);
        options.extend(prefix_option(prefix));
    }
    options.extend(ID_ALONE);
    hello(id, "s", &options)
}

#[test]
fn a_user_s_own_limits_take_precedence_over_flags() {
    let scratch = Scratch::new();
    let config = scratch.file(
        "server.yaml",
        "users:\n  own:\n    secret: s\n    connections: 1\n    \
         host: {number: 3, regex: '^[0-9]$', withID: false}\n  all: {secret: s}\n",
    );
    let mut server = server(&format!(
        "-addr 127.0.0.1:0 -connections 2 -hostNumber 2 -hostRegex ^[a-z]$ -hostWithID -config {}",
        config.display()
    ));
    let addr = server.addr();
    for (id, prefixes, expected) in [
        ("own", &["1", "2", "3"][..], Frame::Error(4)),
        ("own", &["1", "a"], Frame::Error(6)),
        ("all", &["a", "b"], Frame::Error(4)),
        ("all", &["1"], Frame::Error(6)),
    ] {
        assert_eq!(answer(addr, &with_prefixes(id, prefixes)), expected, "{id}");
    }
    let (own, all) = (
        with_prefixes("own", &["1", "2"]),
        with_prefixes("all", &["a"]),
    );
    let mut peers = [&own, &all, &all].map(|hello| Peer::ready_client(addr, hello));
    for hello in [&own, &all] {
        assert_eq!(answer(addr, hello), Frame::Error(3));
    }
    // The second prefix is service 1. Of two tunnels with the same services each gets a visitor.
    let _visitors = ["2.a", "all-a.a", "all-a.a"].map(|host| visit(addr, host));
    let services = peers.each_mut().map(|peer| peer.opened().1);
    assert_eq!(services, [1, 0, 0]);
    for host in ["own-2.a", "a.a"] {
        assert_eq!(get(addr, host, "/").status, 404, "{host}");
    }
}

/// Connects as a visitor, asks for `host` and does not read the response.
fn visit(addr: SocketAddr, host: &str) -> TcpStream {
    let mut visitor = connect(addr);
    write!(visitor, "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("send");
    visitor
}

#[test]
fn the_log_of_a_client_goes_where_its_flags_say() {
    let scratch = Scratch::new();
    let log = scratch.join("gt.log");
    let remotes = [(); 4].map(|()| format!("-remote 127.0.0.1:{}", free_port()));
    let mut client = client(&format!(
        "{} -id id1 -local http://127.0.0.1:1 -reconnectDelay 100ms -logLevel warn -logFile {} \
         -logFileMaxSize 100 -logFileMaxCount 2",
        remotes.join(" "),
        log.display()
    ));
    // Each line is longer than a file may be, so there are always two files.
    let names = || -> BTreeSet<String> {
        let entries = std::fs::read_dir(scratch.path()).expect("list the logs");
        let names = entries.map(|entry| entry.expect("a file").file_name());
        let names = names.filter_map(|name| name.into_string().ok());
        names.filter(|name| !name.ends_with(".new")).collect()
    };
    let mut seen = BTreeSet::new();
    eventually("more lines than two files hold", || {
        for name in names() {
            // It may be renamed meanwhile.
            let text = std::fs::read_to_string(scratch.join(&name)).unwrap_or_default();
            seen.extend(text.lines().map(str::to_owned));
        }
        (seen.len() >= 4).then_some(())
    });
    assert_eq!(client.stop(), Some(0));
    assert_eq!(names(), ["gt.log", "gt.log.1"].map(str::to_owned).into());
    assert!(seen.iter().all(|line| line.contains(" WRN ")), "{seen:?}");
    assert_eq!(client.log(), "", "nothing goes to stderr");
}

#[test]
fn reconnect_delay_is_the_first_wait() {
    for (delay, seconds) in [("1h", 1800.0..=3600.0), ("200ms", 0.1..=0.2)] {
        let mut client = client(&format!(
            "-remote 127.0.0.1:{} -id id1 -local http://127.0.0.1:1 -reconnectDelay {delay}",
            free_port()
        ));
        let line = client.wait_for_failure();
        assert!(seconds.contains(&client.waits()[0]), "{line}");
    }
}
