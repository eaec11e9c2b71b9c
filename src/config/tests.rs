//! The promises of the configuration file, the user's own examples among them.

use std::path::Path;
use std::time::Duration;

use super::file::Document;
use super::foreign::Content;
use super::layers::{Flag, OptionName};
use super::*;

/// Flags among `names` as the command line has them, by name and value.
fn flags(
    names: impl IntoIterator<Item = &'static OptionName>,
    given: &[(&str, &str)],
) -> Vec<Flag> {
    let names: Vec<_> = names.into_iter().collect();
    let flag = |(camel, value): &(&str, &str)| Flag {
        name: names.iter().find(|name| name.camel == *camel).unwrap(),
        value: (*value).to_owned(),
    };
    given.iter().map(flag).collect()
}

fn document(text: &str) -> Document {
    Document::parse(
        Path::new("gt.yaml"),
        text.to_owned(),
        Content::Configuration,
    )
    .unwrap()
}

fn broken(text: &str) -> String {
    Document::parse(
        Path::new("gt.yaml"),
        text.to_owned(),
        Content::Configuration,
    )
    .unwrap_err()
    .to_string()
}

#[test]
fn an_error_of_yaml_names_its_line() {
    assert!(broken("options:\n  addr: [\n").starts_with("gt.yaml: line "));
    assert!(broken("a: 1\na: 2\n").contains("the key \"a\" is given twice"));
    assert_eq!(
        broken("a: 1\noptions: !secret x"),
        "gt.yaml: line 2: options: this has a tag (!name), and no option takes one."
    );
    assert_eq!(
        broken("a: 1\n---\nb: 2"),
        "gt.yaml: this is more than one document, and gt reads only one: remove the line ---."
    );
}

#[cfg(all(feature = "server", feature = "client"))]
#[test]
fn the_role_of_a_file_follows_from_its_type_or_its_keys() {
    let role = |text| document(text).role(None).map_err(|error| error.to_string());
    assert_eq!(role("type: server"), Ok(RoleName::Server));
    assert_eq!(
        role("type: client\noptions: {addr: 80}"),
        Ok(RoleName::Client)
    );
    assert_eq!(role("options: {addr: 80, id: x}"), Ok(RoleName::Server));
    assert_eq!(role("users: {}"), Ok(RoleName::Server));
    assert_eq!(role("options: {remote: h, id: x}"), Ok(RoleName::Client));
    assert_eq!(role("options: {local: h}"), Ok(RoleName::Client));
    assert_eq!(role("services: []"), Ok(RoleName::Client));
    let advice = "add \"type: server\" or \"type: client\" to it.";
    let nothing =
        format!("gt.yaml: Nothing here says whether it is a server's file or a client's: {advice}");
    for text in ["", "options: {id: x, secret: y, logLevel: info}"] {
        assert_eq!(role(text), Err(nothing.clone()));
    }
    assert_eq!(
        role("services: []\noptions: {tlsAddr: 1}"),
        Err(format!(
            "gt.yaml: This could be a server's file (tlsAddr) or a client's (services): {advice}"
        ))
    );
    assert_eq!(
        role("options: {}\ntype: proxy"),
        Err("gt.yaml: line 2: type: \"proxy\" is not a role: write server or client.".to_owned())
    );
    assert_eq!(
        document("type: client")
            .role(Some(RoleName::Server))
            .unwrap_err()
            .to_string(),
        "gt.yaml: This is a client's file (type: client), but gt was started as a server."
    );
}

#[cfg(feature = "server")]
mod server {
    use super::*;
    use crate::config::server::{load, names};

    fn loaded(text: &str) -> RoleConfig {
        load(&[], Some(&document(text))).unwrap()
    }

    fn server(text: &str) -> ServerConfig {
        with_flags(&[], text)
    }

    fn with_flags(given: &[(&str, &str)], text: &str) -> ServerConfig {
        match load(&flags(names(), given), Some(&document(text)))
            .unwrap()
            .role
        {
            Role::Server(server) => *server,
            #[cfg(feature = "client")]
            role => panic!("{role:?}"),
        }
    }

    fn error(text: &str) -> String {
        load(&[], Some(&document(text))).unwrap_err().to_string()
    }

    fn user<'s>(server: &'s ServerConfig, id: &str) -> &'s User {
        server.users.iter().find(|user| user.id == id).unwrap()
    }

    fn rules(limits: &Limits) -> Vec<(u32, u16, u16)> {
        rules_of(&limits.tcp)
    }

    fn rules_of(limits: &PortLimits) -> Vec<(u32, u16, u16)> {
        limits
            .rules
            .iter()
            .map(|rule| (rule.number, rule.range.first, rule.range.last))
            .collect()
    }

    const SEED_USERS: &str = "\
id3:
  secret: secret3
id1:
  secret: secret1-overwrite
";

    /// `USERS` stands for the path of the users file.
    const SEED_CONFIG: &str = "\
version: 1.0
users:
  id1:
    secret: secret1
  id2:
    secret: secret2
options:
  apiAddr: 1.2.3.4:1234
  certFile: /path
  host: 1.2.3.4
  keyFile: /path
  logFile: /path
  logFileMaxCount: 1234
  logFileMaxSize: 1234
  logLevel: debug
  addr: 1234
  timeout: 1234m1234ms
  tlsAddr: 1234
  tlsVersion: tls1.3
  users: USERS
";

    struct File(std::path::PathBuf);

    impl File {
        fn new(name: &str, text: &str) -> Self {
            let name = format!("gt-config-{name}-{}.yaml", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, text).unwrap();
            File(path)
        }

        fn path(&self) -> &str {
            self.0.to_str().unwrap()
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[cfg(all(feature = "quic", feature = "p2p"))]
    #[test]
    fn a_udp_port_is_that_of_one_listener_or_of_clients() {
        let options = |lines: &str| format!("options:\n  addr: 80\n{lines}");
        for (lines, why) in [
            (
                "  quicAddr: 443\n  stunAddr: 0.0.0.0:443\n",
                "quicAddr (:443) and stunAddr (0.0.0.0:443) are one UDP port",
            ),
            (
                "  quicAddr: 443\n  udpRange: 443\n  udpNumber: 1\n",
                "The UDP port 443 of udpRange is that of quicAddr (:443)",
            ),
            (
                "  stunAddr: 443\nusers:\n  u:\n    secret: s\n    udp:\n    - range: 443\n",
                "The UDP port 443 of the user \"u\" is that of stunAddr (:443)",
            ),
        ] {
            let error = error(&options(lines));
            assert!(error.contains(why), "{error}");
        }
        let apart =
            "  quicAddr: 127.0.0.1:443\n  stunAddr: 127.0.0.2:443\nusers:\n  u:\n    secret: s\n";
        assert_eq!(loaded(&options(apart)).warnings, [""; 0]);
        let among =
            "  quicAddr: 443\n  udpRange: 400-500\n  udpNumber: 1\nusers:\n  u:\n    secret: s\n";
        assert_eq!(
            loaded(&options(among)).warnings,
            ["the UDP ports 400-500 of udpRange contain that of quicAddr (:443), which no client can have"]
        );
    }

    #[test]
    fn the_files_of_the_original_servers_manual_work() {
        let users = File::new("seed", SEED_USERS);
        let text = SEED_CONFIG.replace("USERS", users.path());
        let loaded = loaded(&text);
        assert_eq!(
            loaded.warnings,
            [
                "gt.yaml: line 10: options.host is not known here and is ignored",
                "addr and tlsAddr are both :1234: only one can have it; \"\" turns a listener off",
            ]
        );
        assert_eq!(loaded.logging().level(), LogLevel::Debug);
        let server = server(&text);
        assert_eq!(server.addr.as_ref().unwrap().to_string(), ":1234");
        assert_eq!(server.tls_addr.as_ref().unwrap().to_string(), ":1234");
        assert_eq!(server.tls_min, TlsVersion::Tls13);
        assert_eq!(server.timeout, Duration::from_millis(1234 * 60_000 + 1234));
        assert_eq!(
            user(&server, "id1").secret.as_ref().unwrap().as_bytes(),
            b"secret1-overwrite"
        );
        assert_eq!(
            user(&server, "id2").secret.as_ref().unwrap().as_bytes(),
            b"secret2"
        );
        assert_eq!(
            user(&server, "id3").secret.as_ref().unwrap().as_bytes(),
            b"secret3"
        );
        assert_eq!(server.any_client, AnyClient::Refused);
    }

    #[test]
    fn the_tcp_files_of_the_original_servers_manual_work() {
        let users = File::new(
            "tcp",
            "\
id1:
  secret: secret1
  tcp:
    - number: 65535
      range: 1-65535
id2:
  secret: secret2
",
        );
        let server_of_users = server(&format!("options: {{users: {}}}", users.path()));
        assert_eq!(
            rules(&user(&server_of_users, "id1").limits),
            [(65535, 1, 65535)]
        );
        assert_eq!(rules(&user(&server_of_users, "id2").limits), []);

        let text = "\
version: 1.0
users:
  id1:
    secret: secret1
    tcp:
      - number: 65535
        range: 1-65535
  id2:
    secret: secret2
tcp:
  - number: 1
    range: 1024-65535
options:
  apiAddr: 1.2.3.4:1234
  certFile: /path
  host: 1.2.3.4
  keyFile: /path
  logFile: /path
  logFileMaxCount: 1234
  logFileMaxSize: 1234
  logLevel: debug
  addr: 1234
  timeout: 1234m1234ms
  tlsAddr: 1234
  tlsVersion: tls1.3
";
        assert_eq!(
            loaded(text).warnings[1],
            "the tcp range 1-65535 of the user \"id1\" overlaps the global 1024-65535: clients \
             without a list of their own may take ports out of it, at random too"
        );
        let server = server(text);
        assert_eq!(rules(&user(&server, "id1").limits), [(65535, 1, 65535)]);
        assert_eq!(rules(&user(&server, "id2").limits), [(1, 1024, 65535)]);
    }

    #[test]
    fn the_defaults_are_those_of_the_original_gt() {
        let server = server("");
        assert_eq!(
            server.addr,
            Some(ListenAddr {
                host: None,
                port: 80
            })
        );
        assert_eq!((server.tls_addr, server.sni_addr), (None, None));
        assert_eq!(server.tls_min, TlsVersion::Tls12);
        assert_eq!(server.timeout, Duration::from_secs(90));
        assert_eq!(server.http_mux_header, "Host");
        assert_eq!(
            (server.reconnect_times, server.reconnect_duration),
            (3, Duration::from_secs(300))
        );
        assert_eq!(
            (server.limits.connections, server.limits.hosts.number),
            (10, 1)
        );
        assert_eq!((server.limits.speed, server.limits.tcp.rules.len()), (0, 0));
        assert_eq!(
            (server.logging.max_count(), server.logging.max_size()),
            (7, 536_870_912)
        );
        assert_eq!(
            (server.logging.level(), server.threads),
            (LogLevel::Info, 1)
        );
        assert_eq!(server.any_client, AnyClient::AllowedByDefault);
    }

    #[test]
    fn scalars_keep_the_text_that_was_written() {
        let server =
            server("users: {012: {secret: 012345}, 1e3: {secret: 0x10}, yes: {secret: 1.10}}");
        assert_eq!(
            user(&server, "012").secret.as_ref().unwrap().as_bytes(),
            b"012345"
        );
        assert_eq!(
            user(&server, "1e3").secret.as_ref().unwrap().as_bytes(),
            b"0x10"
        );
        assert_eq!(
            user(&server, "yes").secret.as_ref().unwrap().as_bytes(),
            b"1.10"
        );
        let listed = super::server::server("options: {id: 007, secret: 0x10}");
        assert_eq!(
            (
                listed.users[0].id.as_str(),
                listed.users[0].secret.as_ref().unwrap().as_bytes()
            ),
            ("007", &b"0x10"[..])
        );
    }

    #[test]
    fn a_number_may_be_quoted_and_a_list_may_be_one_value() {
        let server = server(
            "tcp: {number: '2', range: 2222}\nhost: {number: \"3\", regex: ^a$, withID: yes}\noptions: {addr: '81', speed: '7'}",
        );
        assert_eq!(rules(&server.limits), [(2, 2222, 2222)]);
        assert_eq!(
            (server.limits.hosts.number, server.limits.hosts.with_id),
            (3, true)
        );
        assert_eq!(server.limits.hosts.regex.len(), 1);
        assert_eq!((server.addr.unwrap().port, server.limits.speed), (81, 7));
    }

    #[test]
    fn aliases_and_null_values_are_read_as_meant() {
        let server = server(
            "users:\n  a: &u {secret: s, connections: 2}\n  b: *u\noptions:\n  addr:\n  speed: ~\n",
        );
        assert_eq!(user(&server, "b").limits.connections, 2);
        assert_eq!(server.addr.unwrap().port, 80);
    }

    #[test]
    fn merge_keys_bring_the_keys_of_other_sections() {
        let text = "\
users:
  a: &base {secret: s, connections: 2, speed: 1, host: &host {number: 3}}
  b:
    <<: *base
    secret: t
  c:
    speed: 7
    <<: [{connections: 4}, *base]
    host: {<<: *host, withID: true}
options:
  <<: {addr: 81, speed: 9}
";
        let loaded = loaded(text);
        assert_eq!(loaded.warnings, [""; 0]);
        let server = server(text);
        let of = |id: &str| {
            let User { secret, limits, .. } = user(&server, id);
            let secret = secret.as_ref().map(Secret::as_bytes);
            let (secret, hosts) = (secret.unwrap(), &limits.hosts);
            (
                secret,
                limits.connections,
                limits.speed,
                hosts.number,
                hosts.with_id,
            )
        };
        assert_eq!(of("b"), (&b"t"[..], 2, 1, 3, false));
        assert_eq!(of("c"), (&b"s"[..], 4, 7, 3, true));
        assert_eq!((server.addr.unwrap().port, server.limits.speed), (81, 9));
        for text in [
            "a: 1\noptions:\n  <<: 80",
            "\noptions:\n  <<: [{}, [{}]]",
            "\nusers:\n  <<:",
        ] {
            assert_eq!(
                broken(text),
                "gt.yaml: line 3: the merge key << takes a section or a list of sections, like \
                 <<: *name where another section is marked &name."
            );
        }
    }

    #[test]
    fn many_unknown_keys_are_summed_up() {
        let users: String = (0..30)
            .map(|n| format!("  user{n}: {{secret: s, sped: 1}}\n"))
            .collect();
        let warnings = loaded(&format!("users:\n{users}")).warnings;
        assert_eq!(
            warnings.first().unwrap(),
            "gt.yaml: line 2: users.user0.sped is not known here and is ignored"
        );
        assert_eq!(warnings.len(), 21);
        assert_eq!(
            warnings.last().unwrap(),
            "gt.yaml: 10 more keys are not known and are ignored"
        );
    }

    #[test]
    fn an_error_names_file_line_and_key_and_shows_a_right_value() {
        for (text, wanted) in [
            ("options:\n  timeout: 90", "line 2: options.timeout: \"90\" has no unit: write 90s for seconds, 90ms, 90m or 90h."),
            ("options:\n  addr: [1, 2]", "line 2: options.addr: this is a list, but must be a single value."),
            ("options: 80", "line 1: options: this is a single value, but must be a section of keys."),
            ("users:\n  a:\n    secret: s\n    tcp:\n      - number: x\n        range: 1-2", "line 5: users.a.tcp[0].number: \"x\" is not a whole number from 0 to 4294967295."),
            ("tcp:\n  - number: 1", "line 2: tcp[0]: the key range is missing here."),
            ("tcp:\n  - range: 9-1", "line 2: tcp[0].range: \"9-1\" is not a range of ports: write it like 1024-65535, or 2222 for one port."),
            ("tcp:\n  - range: 0-1", "line 2: tcp[0].range: \"0-1\" is not a range of ports: write it like 1024-65535, or 2222 for one port."),
            ("options:\n  tlsVersion: ssl3", "line 2: options.tlsVersion: \"ssl3\" is not a TLS version: write tls1.2 or tls1.3."),
            ("options: {threads: 65}", "line 1: options.threads: \"65\" is not a whole number from 1 to 64."),
            ("options: {logLevel: loud}", "line 1: options.logLevel: \"loud\" is not a level: write trace, debug, info, warn, error, fatal, panic or disable."),
            ("options: {httpMUXHeader: 'Host: '}", "line 1: options.httpMUXHeader: \"Host: \" is not the name of a header: write it like Host, without a colon."),
        ] {
            assert_eq!(error(text), format!("gt.yaml: {wanted}"));
        }
        assert!(error("host: {regex: '('}")
            .starts_with("gt.yaml: line 1: host.regex: \"(\" is not a regular expression: "));
    }

    #[test]
    fn options_that_contradict_each_other_are_an_error() {
        for (text, wanted) in [
            ("options: {addr: ''}", "There is nothing to listen on: set addr, tlsAddr, sniAddr or quicAddr."),
            ("options: {tlsAddr: 443, certFile: /c}", "tlsAddr needs certFile and keyFile: the certificate and its key, in PEM; or neither of them and stateDir, where gt keeps a certificate of its own, which clients trust by remoteKey and browsers warn of."),
            ("users: {a: {}}", "The user \"a\" has no secret and no publicKey."),
            ("users: {'': {secret: s}}", "The id \"\" is empty: it needs 1 to 200 bytes."),
            ("options: {id: [a, b], secret: s}", "There are 2 id and 1 secret: the i-th secret belongs to the i-th id, so give as many of both."),
            ("options: {tcpNumber: 1}", "tcpNumber needs a tcpRange to go with it, like -tcpNumber 1 -tcpRange 1024-65535."),
            ("options: {tcpNumber: [1, 2], tcpRange: 1-2}", "There are 2 tcpNumber and 1 tcpRange: give one tcpNumber for all ranges together, or one for each of them, in their order."),
        ] {
            assert_eq!(error(text), format!("gt.yaml: {wanted}"));
        }
        let id = "x".repeat(201);
        assert_eq!(
            error(&format!("users: {{{id}: {{secret: s}}}}")),
            format!("gt.yaml: The id \"{id}\" has 201 bytes: the maximum is 200.")
        );
        assert_eq!(
            error(&format!("users: {{a: {{secret: {id}}}}}")),
            "gt.yaml: The secret of the user \"a\" has 201 bytes: the maximum is 200."
        );
        assert_eq!(
            error("options: {users: /nonexistent/u}").split(':').next(),
            Some("The file /nonexistent/u cannot be read")
        );
    }

    #[test]
    fn unknown_keys_are_a_warning_with_file_line_and_key() {
        let loaded = loaded(
            "tlsAddr: 1\nusers:\n  a:\n    secret: s\n    tpc: 1\nhost: {id: 1}\noptions:\n  tlsaddr: 2\n  local: x\n",
        );
        assert_eq!(
            loaded.warnings,
            [
                "gt.yaml: line 1: tlsAddr is not known here and is ignored; tlsAddr belongs under options",
                "gt.yaml: line 5: users.a.tpc is not known here and is ignored",
                "gt.yaml: line 6: host.id is not known here and is ignored",
                "gt.yaml: line 8: options.tlsaddr is not known here and is ignored; the option is called tlsAddr",
                "gt.yaml: line 9: options.local is not known here and is ignored",
            ]
        );
    }

    #[test]
    fn tls_1_1_means_tls_1_2_with_a_warning() {
        let loaded = loaded("options: {tlsVersion: tls1.1, id: a, secret: b}");
        assert_eq!(
            loaded.warnings,
            ["tlsVersion is tls1.1, which is insecure and not supported; it means tls1.2"]
        );
    }

    #[cfg(not(feature = "p2p"))]
    #[test]
    fn an_option_of_p2p_is_a_warning_in_a_build_without_it() {
        let why = "is set, but this gt was built without the feature p2p";
        let loaded = loaded("options: {stunAddr: 3478, id: a, secret: b}");
        assert_eq!(
            loaded.warnings,
            [format!("gt.yaml: options.stunAddr {why}")]
        );
        let flags = flags(names(), &[("stunAddr", "3478")]);
        let loaded = load(&flags, Some(&document("options: {id: a, secret: b}")));
        assert_eq!(loaded.unwrap().warnings, [format!("-stunAddr {why}")]);
    }

    #[test]
    fn a_flag_overrides_the_file() {
        let flags = [("addr", "81"), ("tcpRange", "5-6"), ("hostNumber", "4")];
        let server = with_flags(&flags, "options: {addr: 82, speed: 9}\ntcp: {number: 1, range: 7-8}\nhost: {number: 5, withID: true}");
        assert_eq!((server.addr.unwrap().port, server.limits.speed), (81, 9));
        assert_eq!(rules(&server.limits), [(0, 5, 6)]);
        assert_eq!(
            (server.limits.hosts.number, server.limits.hosts.with_id),
            (4, true)
        );
        assert_eq!(
            with_flags(&[("addr", "")], "options: {addr: 82, sniAddr: 443}").addr,
            None
        );
    }

    #[test]
    fn a_user_is_merged_from_all_sources_and_completed_by_the_global_limits() {
        let users = File::new(
            "merge",
            "a: {secret: of-file, speed: 2, host: {number: 2}}\nb: {connections: 3}",
        );
        let server = with_flags(
            &[("id", "a"), ("secret", "of-flags")],
            &format!(
                "users:\n  a: {{secret: x, speed: 1, connections: 1, host: {{withID: true}}}}\n  b: {{secret: of-config}}\noptions: {{users: {}, speed: 7}}",
                users.path()
            ),
        );
        let a = user(&server, "a");
        assert_eq!(a.secret.as_ref().unwrap().as_bytes(), b"of-flags");
        assert_eq!((a.limits.speed, a.limits.connections), (2, 1));
        assert_eq!((a.limits.hosts.number, a.limits.hosts.with_id), (2, true));
        let b = user(&server, "b");
        assert_eq!(b.secret.as_ref().unwrap().as_bytes(), b"of-config");
        assert_eq!((b.limits.speed, b.limits.connections), (7, 3));
    }

    #[test]
    fn an_id_of_several_sources_has_the_secret_of_the_highest() {
        let users = File::new("sources", "a: {secret: of-file}\nb: {secret: of-file}");
        let server = with_flags(
            &[("id", "a"), ("secret", "of-flags")],
            &format!(
                "users: {{c: {{secret: of-users, speed: 5}}}}\noptions: {{users: {}, \
                 id: [a, b, c, d], secret: [of-options, of-options, of-options, of-options]}}",
                users.path()
            ),
        );
        let secret = |id| user(&server, id).secret.as_ref().unwrap().as_bytes();
        assert_eq!(secret("a"), b"of-flags");
        assert_eq!(secret("b"), b"of-file");
        assert_eq!(
            (secret("c"), secret("d")),
            (&b"of-options"[..], &b"of-options"[..])
        );
        assert_eq!(user(&server, "c").limits.speed, 5);
    }

    #[test]
    fn an_empty_list_keeps_a_user_from_the_global_ports() {
        let server =
            server("users: {a: {secret: s, tcp: []}, b: {secret: s}}\ntcp: {number: 1, range: 5}");
        assert_eq!(rules(&user(&server, "a").limits), []);
        assert_eq!(rules(&user(&server, "b").limits), [(1, 5, 5)]);
    }

    #[test]
    fn ranges_of_two_users_cannot_overlap() {
        let users = File::new(
            "overlap",
            "b: {secret: s, tcp: {range: 25000}}\nc: {secret: s, tcp: {range: 1}}",
        );
        let config = |range: &str| {
            format!(
                "users:\n  a: {{secret: s, tcp: [{{range: 1000-1010}}, {{range: {range}}}]}}\n  \
                 c: {{secret: s, tcp: {{range: 1005}}}}\noptions: {{users: {}}}",
                users.path()
            )
        };
        // The users file stands over the config file: c's range in that one does not count.
        for good in ["24000-24999", "25001", "1005-1010"] {
            assert_eq!(server(&config(good)).users.len(), 3, "{good}");
        }
        assert_eq!(
            error(&config("20000-25000")),
            "gt.yaml: The users \"a\" and \"b\" have TCP ports in common: 20000-25000 and 25000 \
             overlap. Give them different ports, or remove both lists to give all users the \
             global tcp."
        );
    }

    #[test]
    fn users_ranges_that_overlap_global_ones_are_one_warning() {
        let overlap = |warnings: Vec<String>| -> Vec<String> {
            let about = |warning: &String| warning.contains("overlaps");
            warnings.into_iter().filter(about).collect()
        };
        let with = |global: &str, more: &str| {
            overlap(
                loaded(&format!(
                    "users:\n  a: {{secret: s, tcp: [{{range: 10-19}}, {{range: 40}}]}}\n  \
                     b: {{secret: s, tcp: {{range: 20-29}}}}\n  \
                     c: {{secret: s, tcp: [{{range: 30}}, {{range: 31}}]}}\n{more}\ntcp: {{range: {global}}}"
                ))
                .warnings,
            )
        };
        let any = "options: {allowAnyClient: true}";
        let warning = |own: &str, id: &str, global: &str, more: &str| {
            format!(
                "the tcp range {own} of the user \"{id}\" overlaps the global {global}: clients \
                 without a list of their own may take ports out of it, at random too{more}"
            )
        };
        assert_eq!(
            with("29-35", any),
            [warning(
                "20-29",
                "b",
                "29-35",
                "; so do the ranges of 1 more user"
            )]
        );
        assert_eq!(
            with("1-65535", "options: {authAPI: 'http://h/'}"),
            [warning(
                "10-19",
                "a",
                "1-65535",
                "; so do the ranges of 2 more users"
            )]
        );
        assert_eq!(
            with("40", "  d: {secret: s}"),
            [warning("40", "a", "40", "")]
        );
        assert_eq!(with("1-9", any), [""; 0]);
        assert_eq!(with("1-65535", ""), [""; 0], "nobody is left to take them");
    }

    #[test]
    fn an_empty_id_or_secret_is_an_error() {
        for (text, wanted) in [
            (
                "options: {id: [a, b], secret: ['', s]}",
                "The secret of the user \"a\" is empty: it needs 1 to 200 bytes.",
            ),
            (
                "options: {id: a, secret: ''}",
                "The secret of the user \"a\" is empty: it needs 1 to 200 bytes.",
            ),
            (
                "options: {id: ['', b], secret: [s, t]}",
                "The id \"\" is empty: it needs 1 to 200 bytes.",
            ),
            (
                "options: {id: [a, a], secret: [s, t]}",
                "The id \"a\" is given twice.",
            ),
        ] {
            assert_eq!(error(text), format!("gt.yaml: {wanted}"));
        }
        assert!(server("options: {id: '', secret: ''}").users.is_empty());
        assert!(server("options: {id: ''}").users.is_empty());
    }

    #[test]
    fn an_empty_list_of_users_admits_no_client() {
        const NOBODY: &str =
            "no client can connect: users are configured, but neither the configuration nor the \
             users file has one; add one, or set allowAnyClient";
        for text in [
            "users:",
            "users: ~",
            "users: {}",
            "users: # none yet",
            "options: {id: '', secret: ''}",
            "options: {secret: ''}",
        ] {
            let loaded = loaded(text);
            assert_eq!(
                loaded.role.server().unwrap().any_client,
                AnyClient::Refused,
                "{text}"
            );
            assert_eq!(loaded.warnings, [NOBODY], "{text}");
        }
        for (n, users) in ["", "\n", "~", "{}", "---\n", "# none yet\n", "\u{feff}"]
            .iter()
            .enumerate()
        {
            let file = File::new(&format!("empty-{n}"), users);
            let loaded = loaded(&format!("options: {{users: {}}}", file.path()));
            let server = loaded.role.server().unwrap();
            assert!(server.users.is_empty(), "{users:?}");
            assert_eq!(server.any_client, AnyClient::Refused, "{users:?}");
            assert_eq!(loaded.warnings, [NOBODY], "{users:?}");
        }
        let by_flags = flags(names(), &[("id", ""), ("secret", "")]);
        let loaded = load(&by_flags, None).unwrap();
        assert_eq!(loaded.role.server().unwrap().any_client, AnyClient::Refused);
        assert_eq!(
            server("users: {}\noptions: {allowAnyClient: true}").any_client,
            AnyClient::Allowed
        );
        assert_eq!(
            server("options: {users: ''}").any_client,
            AnyClient::AllowedByDefault
        );
    }

    #[test]
    fn one_number_beside_a_list_of_ranges_counts_over_all_of_them() {
        for text in [
            "tcpNumber: 3\ntcp:\n  - range: 1-2\n  - range: 5-6",
            "options: {tcpNumber: 3}\ntcp:\n  - range: 1-2\n  - range: 5-6",
            "options: {tcpNumber: 3, tcpRange: [1-2, 5-6]}",
            "options: {tcpNumber: 3, tcpRange: [1-2, 5-6]}\nusers: {a: {secret: s}}",
            "options: {tcpNumber: 9, tcpRange: [1-2, 5-6]}\nusers: {a: {secret: s, tcpNumber: 3}}",
            "tcpNumber: 9\ntcp: {range: 1}\nusers: {a: {secret: s, tcpNumber: 3, tcp: [{range: 1-2}, {range: 5-6}]}}",
        ] {
            let of_udp = text.replace("tcp", "udp");
            for (text, is_udp) in [(text, false), (&of_udp, true)] {
                let server = server(text);
                let limits = server.users.first().map_or(&server.limits, |user| &user.limits);
                let (its, others) = match is_udp {
                    true => (&limits.udp, &limits.tcp),
                    false => (&limits.tcp, &limits.udp),
                };
                assert_eq!(rules_of(its), [(3, 1, 2), (3, 5, 6)]);
                assert_eq!((its.total, others.rules.len()), (3, 0));
            }
        }
        let unlimited = server("options: {tcpRange: [1-2, 5-6]}").limits;
        assert_eq!(rules(&unlimited), [(0, 1, 2), (0, 5, 6)]);
        assert_eq!(unlimited.tcp.total, 0);
        let one = server("tcpNumber: 3\ntcp:\n  - range: 1-2");
        assert_eq!(
            (rules(&one.limits), one.limits.tcp.total),
            (vec![(3, 1, 2)], 0)
        );
    }

    #[test]
    fn an_auth_api_is_a_source_of_users() {
        assert_eq!(
            server("options: {authAPI: 'http://h/'}").any_client,
            AnyClient::Refused
        );
    }

    #[test]
    fn nothing_shows_a_secret() {
        let loaded = loaded("users: {a: {secret: hush}}\noptions: {id: b, secret: hush, sentryDSN: 'https://hush@h/1'}");
        assert!(!format!("{loaded:?}").contains("hush"));
    }
}

#[cfg(feature = "client")]
mod client {
    use super::*;
    use crate::config::client::{load, names};

    fn loaded(text: &str) -> RoleConfig {
        load(&[], &[], Some(&document(text))).unwrap()
    }

    fn client(text: &str) -> ClientConfig {
        with_services(&[], text)
    }

    /// A client with these groups of flags, one for each service.
    fn with_services(groups: &[&[(&str, &str)]], text: &str) -> ClientConfig {
        let groups: Vec<_> = groups.iter().map(|group| flags(names(), group)).collect();
        match load(&groups.concat(), &groups, Some(&document(text)))
            .unwrap()
            .role
        {
            Role::Client(client) => *client,
            #[cfg(feature = "server")]
            role => panic!("{role:?}"),
        }
    }

    fn error(text: &str) -> String {
        load(&[], &[], Some(&document(text)))
            .unwrap_err()
            .to_string()
    }

    fn locals(client: &ClientConfig) -> Vec<String> {
        client
            .services
            .iter()
            .map(|service| service.local.to_string())
            .collect()
    }

    fn host(prefix: Option<&str>) -> Exposure {
        Exposure::Host {
            tls: false,
            prefix: prefix.map(str::to_owned),
        }
    }

    const REST: &str = "options: {remote: h, id: i}\n";

    #[test]
    fn the_files_of_the_original_clients_manual_work() {
        let c = client(
            "\
version: 1.0 # a reserved keyword, not used yet
options:
  local: http://127.0.0.1:80
  remote: tcp://id1.example.com:8080
  id: id1
  secret: secret1
",
        );
        assert_eq!(
            (
                c.link.id.as_str(),
                c.link.secret.as_ref().unwrap().as_bytes()
            ),
            ("id1", &b"secret1"[..])
        );
        assert_eq!(locals(&c), ["http://127.0.0.1:80"]);

        let text = "\
services:
  - local: http://127.0.0.1:80
    useLocalAsHTTPHost: true
    hostPrefix: 1
  - local: http://127.0.0.1:8080
    useLocalAsHTTPHost: true
    hostPrefix: 2
  - local: tcp://127.0.0.1:2222
    remoteTCPPort: 2222
  - local: tcp://127.0.0.1:2223
    remoteTCPPort: 2223
options:
  remote: tcp://id1.example.com:8080
  id: id1
  secret: secret1
";
        assert!(loaded(text).warnings.is_empty());
        let c = client(text);
        let exposures: Vec<_> = c
            .services
            .iter()
            .map(|service| service.exposure.clone())
            .collect();
        assert_eq!(
            exposures,
            [
                host(Some("1")),
                host(Some("2")),
                Exposure::Tcp {
                    port: 2222,
                    random: false
                },
                Exposure::Tcp {
                    port: 2223,
                    random: false
                }
            ]
        );
        assert!(c.services[0].use_local_as_http_host && !c.services[2].use_local_as_http_host);
        assert_eq!(c.services[0].local_timeout, None);
    }

    #[test]
    fn the_defaults_are_those_of_the_original_gt() {
        let c = client(&format!("{REST}services: {{local: 'http://h'}}"));
        assert_eq!((c.link.connections, c.link.idle_connections), (3, 1));
        assert_eq!(
            (c.link.remote_timeout, c.link.reconnect_delay),
            (Duration::from_secs(45), Duration::from_secs(5))
        );
        assert_eq!(c.webrtc.idle_timeout, Duration::from_secs(300));
        assert!(c.link.secret.is_none() && c.tcp_forward.is_none() && c.sentry.is_none());
    }

    #[test]
    fn a_remote_may_be_several() {
        let c = client("options: {remote: [h, 'tls://h'], id: i, local: 'http://h'}");
        let remotes: Vec<_> = c.link.remotes.iter().map(ToString::to_string).collect();
        assert_eq!(remotes, ["tcp://h:80", "tls://h:443"]);
    }

    #[test]
    fn services_of_the_flags_come_before_those_of_the_file() {
        let c = with_services(
            &[
                &[("local", "http://f1"), ("hostPrefix", "1")],
                &[("local", "http://f2"), ("hostPrefix", "2")],
            ],
            "options: {remote: h, id: i, local: 'http://o'}\nservices: [{local: 'http://s'}]",
        );
        assert_eq!(locals(&c), ["http://f1:80", "http://f2:80", "http://s:80"]);
    }

    #[test]
    fn a_single_service_of_the_flags_is_merged_with_the_one_in_options() {
        let text = "options: {remote: h, id: i, local: 'http://o', hostPrefix: p}";
        let c = with_services(&[&[("local", "http://f")]], text);
        assert_eq!(
            (locals(&c), &c.services[0].exposure),
            (vec!["http://f:80".to_owned()], &host(Some("p")))
        );
        let c = with_services(&[&[("hostPrefix", "q")]], text);
        assert_eq!(
            (locals(&c), &c.services[0].exposure),
            (vec!["http://o:80".to_owned()], &host(Some("q")))
        );
    }

    #[test]
    fn a_flag_overrides_the_file() {
        let text = "options: {remote: h, id: file, local: 'http://h', remoteTimeout: 1m}";
        let flags = flags(names(), &[("id", "flag")]);
        let loaded = load(&flags, &[], Some(&document(text))).unwrap();
        let c = loaded.role.client().unwrap();
        assert_eq!(
            (c.link.id.as_str(), c.link.remote_timeout),
            ("flag", Duration::from_secs(60))
        );
    }

    #[test]
    fn the_scheme_and_the_port_of_a_service_decide_its_exposure() {
        for (service, wanted) in [
            ("local: 'http://h'", host(None)),
            (
                "local: 'https://h'",
                Exposure::Host {
                    tls: true,
                    prefix: None,
                },
            ),
            ("local: 'file:///srv'", host(None)),
            (
                "local: 'http://h', remoteTCPPort: 0, remoteTCPRandom: false",
                host(None),
            ),
            (
                "local: 'http://h', remoteTCPPort: 5",
                Exposure::Tcp {
                    port: 5,
                    random: false,
                },
            ),
            (
                "local: 'file:///srv', remoteTCPRandom: true",
                Exposure::Tcp {
                    port: 0,
                    random: true,
                },
            ),
            (
                "local: 'tcp://h:1'",
                Exposure::Tcp {
                    port: 0,
                    random: true,
                },
            ),
            (
                "local: 'tcp://h:1', remoteTCPPort: 5, remoteTCPRandom: true",
                Exposure::Tcp {
                    port: 5,
                    random: true,
                },
            ),
        ] {
            let c = client(&format!("{REST}services: [{{{service}}}]"));
            assert_eq!(c.services[0].exposure, wanted, "{service}");
        }
        let both = loaded(&format!(
            "{REST}services: [{{local: 'tcp://h:1', hostPrefix: p}}]"
        ));
        assert_eq!(
            both.warnings,
            ["services[0] (tcp://h:1) is reached by a TCP port, so its hostPrefix p is ignored"]
        );
    }

    #[test]
    fn a_folder_needs_no_origin_of_visitors() {
        let of = |local| {
            let services = format!("services: [{{local: '{local}', proxyProtocol: 2}}]");
            loaded(&format!("{REST}{services}"))
        };
        let folder = of("file:///www");
        assert_eq!(
            folder.warnings,
            ["services[0] (file:///www) is served by gt itself, so its proxyProtocol is ignored"]
        );
        for (loaded, origins) in [(folder, false), (of("http://h"), true)] {
            match loaded.role {
                Role::Client(client) => assert_eq!(client.link.origins, origins),
                #[cfg(feature = "server")]
                role => panic!("{role:?}"),
            }
        }
    }

    #[test]
    fn a_relative_directory_starts_at_that_of_the_file() {
        let text = format!("{REST}services: {{local: 'file://./www'}}");
        let document =
            Document::parse(Path::new("/etc/gt/gt.yaml"), text, Content::Configuration).unwrap();
        match load(&[], &[], Some(&document)).unwrap().role {
            Role::Client(client) => assert_eq!(locals(&client), ["file:///etc/gt/www"]),
            #[cfg(feature = "server")]
            role => panic!("{role:?}"),
        }
    }

    #[test]
    fn a_range_of_ports_is_a_service_for_each() {
        let services = |service: &str| {
            let client = client(&format!(
                "{REST}services: [{{{service}}}, {{local: 'http://h'}}]"
            ));
            let shown = client
                .services
                .iter()
                .map(|service| match service.exposure {
                    Exposure::Tcp { port, random } => format!("{} {port} {random}", service.local),
                    _ => service.local.to_string(),
                });
            shown.collect::<Vec<_>>()
        };
        assert_eq!(
            services("local: 'tcp://h:6000-6002', remoteTCPPort: 7000-7002"),
            [
                "tcp://h:6000 7000 false",
                "tcp://h:6001 7001 false",
                "tcp://h:6002 7002 false",
                "http://h:80"
            ]
        );
        assert_eq!(
            services("local: 'http://h:1-2', remoteTCPRandom: true"),
            ["http://h:1 0 true", "http://h:2 0 true", "http://h:80"]
        );
    }

    #[cfg(feature = "proxy")]
    #[test]
    fn a_socks5_proxy_may_have_a_udp_port_beside_its_tcp_port() {
        let ports = |options: &str| {
            let text = format!(
                "options: {{remote: h, id: i, local: 'socks5:', targets: [10.0.0.1], {options}}}"
            );
            let services = client(&text).services;
            let shown = services.iter().map(|service| match service.exposure {
                Exposure::Tcp { port, random } => format!("tcp {port} {random}"),
                Exposure::Udp { port, random } => {
                    assert_eq!(service.local, services[0].local);
                    assert_eq!(service.targets, services[0].targets);
                    format!("udp {port} {random}")
                }
                _ => panic!("{service:?}"),
            });
            shown.collect::<Vec<_>>()
        };
        for (options, expected) in [
            ("remoteTCPPort: 1", &["tcp 1 false"][..]),
            ("remotePort: 1", &["tcp 1 false", "udp 1 false"]),
            (
                "remoteTCPPort: 1, remoteUDPPort: 2",
                &["tcp 1 false", "udp 2 false"],
            ),
            (
                "remoteTCPRandom: true, remoteUDPPort: 2, remoteUDPRandom: true",
                &["tcp 0 true", "udp 2 true"],
            ),
            ("remoteUDPRandom: true", &["tcp 0 true", "udp 0 true"]),
            (
                "remotePort: 1, serviceGroup: g, groupKey: k, groupSticky: true",
                &["tcp 1 false", "udp 1 false"],
            ),
        ] {
            assert_eq!(ports(options), expected, "{options}");
        }
        for (text, wanted) in [
            ("options: {remote: h, id: i, local: 'httpproxy:', remotePort: 1}", "The service in options (httpproxy:) has remotePort, which is for tcp+udp:// services: write remoteTCPPort."),
            ("options: {remote: h, id: i, local: 'socks5:', remotePort: 1, remoteUDPPort: 2, targets: [10.0.0.1]}", "The service in options (socks5:) has a remotePort, which is the number of its TCP port and its UDP port: remove the other ports."),
            ("options: {remote: h, id: i, local: 'socks5:', remotePort: 1-2, targets: [10.0.0.1]}", "The service in options (socks5:) has one local port and 2 of remotePort: give it as many of both, like tcp://127.0.0.1:6000-6010 and 6000-6010."),
            ("options: {remote: h, id: i, local: 'socks5:', remoteTCPPort: 1, remoteUDPPort: 2-3, targets: [10.0.0.1]}", "The service in options (socks5:) has several of remoteUDPPort: give it one."),
            ("options: {remote: h, id: i, local: 'socks5:', hostPrefix: p, remoteUDPPort: 2, targets: [10.0.0.1]}", "The service in options (socks5:) is reached by its hostPrefix, peer to peer, where no datagrams go: remove its hostPrefix, or its remoteUDPPort and remoteUDPRandom."),
            ("options: {remote: h, id: i, local: 'socks5:', remotePort: 2, serviceGroup: g, groupKey: k, targets: [10.0.0.1]}", "The service in options (socks5:) has a UDP port and a serviceGroup, whose members would get some a visitor's connection and some its datagrams: set groupSticky."),
        ] {
            assert_eq!(error(text), format!("gt.yaml: {wanted}"));
        }
    }

    #[test]
    fn options_without_what_they_belong_to_are_warned_of() {
        for (options, warning) in [
            (
                "groupSticky: true",
                "has no serviceGroup, so its groupSticky is ignored",
            ),
            (
                "healthCheckEvery: 5s",
                "has no healthCheck, so its healthCheckEvery is ignored",
            ),
            (
                "healthCheckTimeout: 5s",
                "has no healthCheck, so its healthCheckTimeout is ignored",
            ),
            (
                "healthCheckFail: 5",
                "has no healthCheck, so its healthCheckFail is ignored",
            ),
            (
                "healthCheckPass: 5",
                "has no healthCheck, so its healthCheckPass is ignored",
            ),
        ] {
            let text = format!("options: {{remote: h, id: i, local: 'http://h', {options}}}");
            let warnings = loaded(&text).warnings;
            let expected = format!("The service in options (http://h:80) {warning}");
            assert_eq!(warnings, [expected], "{options}");
        }
        for (options, what) in [
            (
                "local: 'http://h', serviceGroup: g, groupKey: k",
                "http://h:80 has a serviceGroup",
            ),
            (
                "local: 'http://h', domain: a.example",
                "http://h:80 has a domain",
            ),
            (
                "local: 'udp://h:1', remoteUDPPort: 1",
                "udp://h:1 has a UDP port",
            ),
        ] {
            let text = format!("options: {{remote: h, id: i, wire: 1, {options}}}");
            let expected = format!("{what} and is not published, since wire is 1");
            assert_eq!(loaded(&text).warnings, [expected], "{options}");
        }
    }

    #[test]
    fn options_that_contradict_each_other_are_an_error() {
        for (text, wanted) in [
            ("options: {remote: h, id: i}", "There is no service: set one, like -local http://127.0.0.1:80."),
            ("options: {id: i, local: 'http://h'}", "There is no remote: set the address of the server, like -remote tcp://example.com:80."),
            ("options: {remote: h, local: 'http://h'}", "There is no id: set the id of this client by id or -id."),
            ("options: {remote: h, id: i, hostPrefix: p}", "The service in options has no local: set it, like local: http://127.0.0.1:80 or -local http://127.0.0.1:80."),
            ("options: {remote: h, id: i}\nservices: [{local: 'http://a'}, {local: 'http://b', hostPrefix: I}]", "The services http://a:80 and http://b:80 have the same host prefix \"i\": give each a hostPrefix of its own."),
            ("options: {remote: h, id: '', local: 'http://h'}", "There is no id: set the id of this client by id or -id."),
            ("options: {remote: h, id: i, local: 'http://h', remoteConnections: 2, remoteIdleConnections: 3}", "remoteIdleConnections (3) cannot be more than remoteConnections (2)."),
            ("options: {remote: h, id: i, local: 'http://h', remoteTimeout: 0}", "remoteTimeout cannot be 0: a dead tunnel would never be noticed."),
            ("options: {remote: h, id: i, tcpForwardAddr: 1}", "tcpForwardAddr needs tcpForwardHostPrefix: the host prefix of the client to reach."),
            ("options: {remote: h, id: i, local: 'http://h', webrtcMinPort: 2, webrtcMaxPort: 1}", "webrtcMinPort (2) cannot be more than webrtcMaxPort (1)."),
            ("options: {remote: h, id: i, local: 'tcp://h:1-3', remoteTCPPort: 1-2}", "The service in options (tcp://h:1) has 3 local ports and 2 of remoteTCPPort: give it as many of both, like tcp://127.0.0.1:6000-6010 and 6000-6010."),
            ("options: {remote: h, id: i, local: 'tcp://h:1-3', remoteTCPPort: 1}", "The service in options (tcp://h:1) has 3 local ports and one remoteTCPPort: give it as many of both, like tcp://127.0.0.1:6000-6010 and 6000-6010."),
            ("options: {remote: h, id: i, local: 'http://h:1', remoteTCPPort: 1-2}", "The service in options (http://h:1) has one local port and 2 of remoteTCPPort: give it as many of both, like tcp://127.0.0.1:6000-6010 and 6000-6010."),
            ("options: {remote: h, id: i, local: 'http://h:1-2'}", "The service in options (http://h:1) has 2 local ports and no remoteTCPPort: give it as many of both, like tcp://127.0.0.1:6000-6010 and 6000-6010."),
            ("options: {remote: h, id: i, local: 'tcp://h:1-2', remoteTCPPort: 1-2}\nservices: [{local: 'tcp://h:5', remoteTCPPort: 2}]", "The services tcp://h:2 and tcp://h:5 have the same remoteTCPPort 2: give each a port of its own, or remoteTCPRandom."),
            ("options: {remote: h, id: i, local: 'tcp://h:1-601'}", "There are 601 services; a server takes at most 600 from one client. Divide them between clients with different ids."),
            ("options: {remote: h, id: i, local: 'udp://h:1', remoteTCPPort: 1}", "The service in options (udp://h:1) has remoteTCPPort, which is for TCP services: write remoteUDPPort or remoteUDPRandom."),
            ("options: {remote: h, id: i, local: 'udp://h:1', remotePort: 1}", "The service in options (udp://h:1) has remotePort, which is for tcp+udp:// services: write remoteUDPPort or remoteUDPRandom."),
            ("options: {remote: h, id: i, local: 'tcp://h:1', remoteUDPRandom: true}", "The service in options (tcp://h:1) has remoteUDPRandom, which is for udp:// services: write remoteTCPPort."),
            ("options: {remote: h, id: i, local: 'tcp+udp://h:1', remoteTCPPort: 1}", "The service in options (tcp+udp, tcp://h:1) has no remotePort: give it one, the number of its TCP port and its UDP port at the server."),
            ("options: {remote: h, id: i, local: 'udp://h:1', remoteUDPPort: 1, proxyProtocol: 1}", "The service in options (udp://h:1) has proxyProtocol 1, which knows no datagrams: write 2."),
            ("options: {remote: h, id: i, local: 'udp://h:1', remoteUDPPort: 1, domain: a.example}", "The service in options (udp://h:1) is reached by a UDP port, so it cannot have a domain: remove its domain, or its remoteUDPPort and remoteUDPRandom; a tcp:// or udp:// service has no host names."),
            ("options: {remote: h, id: i, local: 'tcp://h:1', remoteTCPRandom: false}", "The service in options (tcp://h:1) has neither a remoteTCPPort nor remoteTCPRandom: give it one of them."),
        ] {
            assert_eq!(error(text), format!("gt.yaml: {wanted}"));
        }
        let long = "x".repeat(201);
        for (id, secret, what) in [
            (&*long, "s", &*format!("id \"{long}\"")),
            ("i", &*long, "secret of \"i\""),
        ] {
            assert_eq!(
                error(&format!(
                    "options: {{remote: h, local: 'http://h', id: {id}, secret: {secret}}}"
                )),
                format!("gt.yaml: The {what} has 201 bytes: the maximum is 200.")
            );
        }
    }

    #[test]
    fn a_host_prefix_is_a_valid_label() {
        let prefix = |hosts: &str| {
            let text = format!("options: {{remote: h, id: i, local: 'http://h', {hosts}}}");
            let client = client(&text);
            let [service] = &client.services[..] else {
                panic!("{:?}", client.services)
            };
            service.exposure.clone()
        };
        assert_eq!(prefix("hostPrefix: müller"), host(Some("xn--mller-kva")));
        assert_eq!(prefix("hostPrefix: Web-1"), host(Some("web-1")));
        let long = "x".repeat(64);
        for (wrong, why) in [
            (
                "a.b",
                "it has a dot, and visitors are routed by the first label of a host name alone",
            ),
            (
                &*long,
                "it has 64 bytes in a host name, and the maximum is 63",
            ),
        ] {
            let text =
                format!("options: {{remote: h, id: i, local: 'http://h', hostPrefix: {wrong}}}");
            assert_eq!(
                error(&text),
                format!(
                    "gt.yaml: line 1: options.hostPrefix: \"{wrong}\" is not a host prefix: {why}."
                )
            );
            assert_eq!(
                error(&format!("options: {{remote: h, id: {wrong}, local: 'http://h'}}")),
                format!("gt.yaml: The id \"{wrong}\" is not a host prefix, and http://h:80 has no other: {why}. Give the service a hostPrefix.")
            );
        }
        // Ports have no names.
        client(&format!(
            "options: {{remote: h, id: {long}, local: 'tcp://h:1'}}"
        ));
    }

    #[test]
    fn http_and_tls_of_one_name_are_two_services() {
        for prefix in ["", ", hostPrefix: web"] {
            let text = format!(
                "options: {{remote: h, id: i}}\n\
                 services: [{{local: 'http://a'{prefix}}}, {{local: 'https://a'{prefix}}}]"
            );
            assert_eq!(client(&text).services.len(), 2);
        }
    }

    #[test]
    fn an_error_names_file_line_and_key_and_shows_a_right_value() {
        for (text, wanted) in [
            ("services:\n  - local: http://h\n    hostPrefix: a b", "line 3: services[0].hostPrefix: \"a b\" is not a host prefix: it has ' ' in it, but only letters, digits and -_~!$&'()*+,;= are allowed."),
            ("options: {remoteConnections: 11}", "line 1: options.remoteConnections: \"11\" is not a whole number from 1 to 10."),
            ("options: {remoteConnections: 0}", "line 1: options.remoteConnections: \"0\" is not a whole number from 1 to 10."),
            ("services: [x]", "line 1: services[0]: this is a single value, but must be a section of keys."),
            ("options: {remoteTCPPort: 65536}", "line 1: options.remoteTCPPort: \"65536\" is not a whole number from 0 to 65535."),
        ] {
            assert_eq!(error(text), format!("gt.yaml: {wanted}"));
        }
    }

    #[test]
    fn no_idle_connections_means_one() {
        let c = client("options: {remote: h, id: i, local: 'http://h', remoteIdleConnections: 0}");
        assert_eq!(c.link.idle_connections, 1);
    }

    #[test]
    fn a_client_that_only_forwards_needs_no_service() {
        let c =
            client("options: {remote: h, id: i, tcpForwardAddr: 7000, tcpForwardHostPrefix: p}");
        let forward = c.tcp_forward.unwrap();
        assert_eq!(
            (
                forward.addr.port,
                forward.host_prefix.as_str(),
                forward.connections
            ),
            (7000, "p", 3)
        );
    }

    #[test]
    fn sections_of_the_server_are_not_known_to_the_client() {
        let loaded = loaded(
            "options: {remote: h, id: i, local: 'http://h', addr: 80}\nusers: {a: {secret: s}}",
        );
        assert_eq!(
            loaded.warnings,
            [
                "gt.yaml: line 2: users is not known here and is ignored",
                "gt.yaml: line 1: options.addr is not known here and is ignored",
            ]
        );
    }
}
