//! Tests of the command line, with the examples of the original gt.

use super::*;
#[cfg(feature = "server")]
use crate::config::AnyClient;

fn argv(line: &str) -> Vec<String> {
    let word = |word: &str| {
        if word == "\"\"" {
            String::new()
        } else {
            word.to_owned()
        }
    };
    line.split_whitespace().map(word).collect()
}

fn error(line: &str) -> String {
    parse(&argv(line)).unwrap_err().to_string()
}

fn printed(line: &str) -> String {
    match parse(&argv(line)).unwrap() {
        Command::Print(text) => text,
        other => panic!("{other:?}"),
    }
}

fn loaded(line: &str) -> RoleConfig {
    match parse(&argv(line)) {
        Ok(Command::Run(mut all)) if all.len() == 1 => all.remove(0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_version_is_one_line() {
    assert_eq!(printed("gt -version"), format!("{VERSION}\n"));
    assert!(VERSION.starts_with(concat!("gt ", env!("CARGO_PKG_VERSION"), " - ")));
}

#[test]
fn signals_are_checked_and_handed_on() {
    let Command::Signal(wanted) = parse(&argv("gt -s reload -config /etc/gt.yaml")).unwrap() else {
        panic!("no signal");
    };
    assert_eq!(
        (wanted.signal, wanted.config),
        (ControlSignal::Reload, Some(PathBuf::from("/etc/gt.yaml")))
    );
    assert_eq!(
        error("gt -s hup"),
        "-s: \"hup\" is not a signal: write reload, wake, restart, stop or kill."
    );
}

#[test]
fn a_check_runs_nothing() {
    let runs_nothing = |line| invocation(&argv(line)).runs_nothing;
    assert!(runs_nothing("gt check -config gt.yaml"));
    assert!(!runs_nothing("gt -config check"));
}

#[test]
fn without_arguments_the_usage_is_an_error() {
    assert!(error("gt").contains("Usage:"));
}

#[test]
fn help_and_version_are_subcommands_too() {
    for line in ["gt help", "gt help help"] {
        assert_eq!(printed(line), printed("gt -h"), "{line}");
    }
    for line in ["gt version", "gt version now"] {
        assert_eq!(printed(line), printed("gt -version"), "{line}");
    }
    #[cfg(all(feature = "server", feature = "client"))]
    for line in [
        "gt help client",
        "gt client help",
        "gt-client help",
        "gt client -h",
    ] {
        assert_eq!(printed(line), printed("gt client -help"), "{line}");
    }
}

#[test]
fn a_mistyped_subcommand_gets_a_suggestion() {
    for (line, meant) in [
        ("gt sever -addr 80", "gt server"),
        ("gt Client", "gt client"),
        ("gt chekc -config x", "gt check"),
        ("gt verson", "gt version"),
        ("gt reload", "gt -s reload"),
        ("gt gt.yaml", "gt -config gt.yaml"),
    ] {
        let error = error(line);
        assert!(
            error.contains(&format!("did you mean {meant}")),
            "{line}: {error}"
        );
    }
    assert_eq!(
        error("gt frobnicate"),
        "\"frobnicate\" is not a command of gt: gt help lists the commands."
    );
}

#[cfg(feature = "import")]
#[test]
fn an_import_takes_one_file_and_a_role_in_front() {
    let request = |line| match parse(&argv(line)).unwrap() {
        Command::Import(request) => request,
        other => panic!("{other:?}"),
    };
    assert_eq!(request("gt import a.toml"), request("gt import a.toml"));
    assert_ne!(
        request("gt import a.toml"),
        request("gt client import a.toml")
    );
    for line in ["gt import", "gt import a b"] {
        assert!(error(line).contains("Write gt import FILE"), "{line}");
    }
    for line in ["gt import -h", "gt client import --help"] {
        assert!(printed(line).starts_with("Usage: gt import FILE"), "{line}");
    }
    assert!(error("gt import -x").contains("gt import has no flags"));
    assert!(printed("gt help").contains("\n  gt import FILE "));
}

#[cfg(not(feature = "import"))]
#[test]
fn a_program_without_the_import_says_so() {
    let error = error("gt import a.toml");
    assert!(
        error.starts_with("This gt was built without import: "),
        "{error}"
    );
}

#[test]
fn an_argument_that_is_not_a_flag_is_an_error() {
    assert!(error("gt -version now").starts_with("\"now\" is not a flag"));
    assert!(error("gt -- -version").starts_with("\"--\" is not a flag"));
    assert!(error("gt -version true").starts_with("\"true\" is not a flag"));
}

#[cfg(feature = "server")]
mod server {
    use super::*;
    use crate::config::{Role, ServerConfig};

    fn server(line: &str) -> ServerConfig {
        match loaded(line).role {
            Role::Server(server) => *server,
            #[cfg(feature = "client")]
            role => panic!("{role:?}"),
        }
    }

    #[test]
    fn every_way_to_write_a_flag_is_the_same() {
        for flag in [
            "-sniAddr 443",
            "-sniAddr=443",
            "--sniAddr 443",
            "--sniAddr=443",
            "--sni-addr 443",
            "-sni-addr=443",
        ] {
            let server = server(&format!("gt server {flag}"));
            assert_eq!(server.sni_addr.unwrap().port, 443, "{flag}");
        }
    }

    #[test]
    fn the_last_of_two_equal_flags_counts() {
        assert_eq!(server("gt server -addr 1 -addr 2").addr.unwrap().port, 2);
    }

    #[test]
    fn a_switch_takes_no_value_or_one_by_the_equals_sign() {
        assert!(server("gt server -hostWithID").limits.hosts.with_id);
        assert!(server("gt server -hostWithID=true").limits.hosts.with_id);
        assert!(
            !server("gt server -hostWithID -hostWithID=false")
                .limits
                .hosts
                .with_id
        );
        assert_eq!(
            error("gt server -hostWithID=maybe"),
            "-hostWithID: \"maybe\" is neither true nor false."
        );
    }

    #[test]
    fn a_value_may_look_like_anything() {
        let server = server("gt server -id help -secret --help");
        assert_eq!(server.users[0].id, "help");
        assert_eq!(
            server.users[0].secret.as_ref().unwrap().as_bytes(),
            b"--help"
        );
    }

    #[test]
    fn mistakes_are_named_as_they_were_written() {
        assert_eq!(
            error("gt server -tlsAddr x"),
            "-tlsAddr: \"x\" is not an address to listen on: write it like 80, :80, 0.0.0.0:80 or [::1]:80."
        );
        assert_eq!(error("gt server -tlsAddr"), "-tlsAddr needs a value.");
        assert_eq!(
            error("gt server -tlsaddr 1"),
            "-tlsaddr is not a flag of the server: did you mean -tlsAddr?"
        );
        assert_eq!(
            error("gt server -frob"),
            "-frob is not a flag of the server: -h lists all there are."
        );
    }

    #[test]
    fn help_lists_every_flag_of_the_server() {
        let help = printed("gt server -h");
        for flag in "addr addressConnections allowAnyClient apiAddr apiCertFile apiHosts apiKeyFile apiTLSVersion authAPI certFile \
            config connections frontProxies hostNumber hostRegex hostWithID httpMUXHeader id keyFile logFile \
            logFileMaxCount logFileMaxSize logLevel quicAddr reconnectDuration reconnectTimes secret sentryDSN \
            sentryDebug sentryEnvironment sentryLevel sentryRelease sentrySampleRate sentryServerName \
            sniAddr speed stunAddr tcpNumber tcpRange timeout timeoutOnUnidirectionalTraffic tlsAddr \
            tlsVersion totalConnections users version s threads"
            .split_whitespace()
        {
            let line = |line: &str| line.split_whitespace().next() == Some(&format!("-{flag}"));
            assert_eq!(help.lines().filter(|text| line(text)).count(), 1, "{flag}");
        }
        assert_eq!(help, printed("gt server --help"));
    }

    #[test]
    fn the_name_of_the_program_is_its_role() {
        for program in [
            "gt-server",
            "/usr/bin/linux-amd64-server",
            "server",
            "server.exe",
        ] {
            assert_eq!(
                server(&format!("{program} -addr 8080")).addr.unwrap().port,
                8080
            );
        }
        assert_eq!(
            server("gt-server server -addr 8080").addr.unwrap().port,
            8080
        );
        assert_eq!(server("gt-server").any_client, AnyClient::AllowedByDefault);
    }

    #[test]
    fn the_command_lines_of_the_original_gt_work_for_the_server() {
        let s = server("./release/linux-amd64-server -addr 8080 -id id1 -secret secret1");
        assert_eq!(s.addr.unwrap().to_string(), ":8080");
        assert_eq!(s.users.len(), 1);
        assert_eq!(
            (
                s.users[0].id.as_str(),
                s.users[0].secret.as_ref().unwrap().as_bytes()
            ),
            ("id1", &b"secret1"[..])
        );
        assert_eq!(s.any_client, AnyClient::Refused);

        let s = server(
            "linux-amd64-server -addr \"\" -tlsAddr 443 -certFile /root/openssl_crt/tls.crt \
             -keyFile /root/openssl_crt/tls.key -id id1 -secret secret1",
        );
        assert_eq!((s.addr, s.tls_addr.unwrap().port), (None, 443));
        assert_eq!(
            s.cert_file,
            Some(PathBuf::from("/root/openssl_crt/tls.crt"))
        );

        let s = server("linux-amd64-server -addr \"\" -sniAddr 443 -id id1 -secret secret1");
        assert_eq!((s.addr, s.sni_addr.unwrap().port), (None, 443));

        let s = server(
            "linux-amd64-server -addr 8080 -tlsAddr 443 -certFile /root/openssl_crt/tls.crt \
             -keyFile /root/openssl_crt/tls.key -id id1 -secret secret1",
        );
        assert_eq!(
            (s.addr.unwrap().port, s.tls_addr.unwrap().port),
            (8080, 443)
        );

        let s = server(
            "linux-amd64-server -addr 8080 -id id1 -secret secret1 -tcpNumber 1 -tcpRange 1024-65535",
        );
        let rule = s.users[0].limits.tcp.rules[0];
        assert_eq!(
            (rule.number, rule.range.to_string()),
            (1, "1024-65535".to_owned())
        );

        let s = server(
            "linux-amd64-server -addr 8080 -id id1 -secret secret1 -tcpNumber 2 -tcpRange 1024-65535 \
             -hostNumber 2 -hostWithID -hostRegex ^[0-9]+$ -hostRegex ^[a-zA-Z]+$",
        );
        let hosts = &s.users[0].limits.hosts;
        assert_eq!(
            (hosts.number, hosts.regex.len(), hosts.with_id),
            (2, 2, true)
        );
        assert!(hosts.regex[1].is_match("abc") && !hosts.regex[1].is_match("1"));

        for line in [
            "linux-amd64-server -addr 8080 -id id1 -secret secret1 -id id2 -secret secret2",
            "linux-amd64-server -addr 8080 -id id1 -id id2 -secret secret1 -secret secret2",
        ] {
            let users = server(line).users;
            let pairs: Vec<_> = users
                .iter()
                .map(|user| (user.id.as_str(), user.secret.as_ref().unwrap().as_bytes()))
                .collect();
            assert_eq!(pairs, [("id1", &b"secret1"[..]), ("id2", &b"secret2"[..])]);
        }

        let loaded = loaded("linux-amd64-server -addr 8080 -apiAddr 8081");
        assert_eq!(
            loaded.warnings,
            ["working on -allowAnyClient mode, because no user is configured"]
        );
        for half in [
            "-apiCertFile a",
            "-apiKeyFile a",
            "-apiCertFile a -apiKeyFile=",
        ] {
            let line = format!("gt-server -id a -secret b -apiAddr 8081 {half}");
            let loaded = self::loaded(&line);
            assert_eq!(
                loaded.warnings,
                ["the API speaks plain HTTP: HTTPS needs both apiCertFile and apiKeyFile"],
                "{half}"
            );
        }
        let loaded = self::loaded("gt-server -id a -secret b -addr 80 -apiAddr :80");
        assert_eq!(
            loaded.warnings,
            ["addr and apiAddr are both :80: only one can have it; \"\" turns a listener off"]
        );
    }
}

#[cfg(feature = "client")]
mod client {
    use super::*;
    use crate::config::{ClientConfig, Exposure, Local, Role, Scheme};

    fn client(line: &str) -> ClientConfig {
        match loaded(line).role {
            Role::Client(client) => *client,
            #[cfg(feature = "server")]
            role => panic!("{role:?}"),
        }
    }

    const REST: &str = "-remote h -id i";

    #[test]
    fn help_lists_every_flag_of_the_client() {
        let help = printed("gt client -h");
        for flag in "config hostPrefix id local localTimeout logFile logFileMaxCount logFileMaxSize \
            logLevel reconnectDelay remote remoteAPI remoteCert remoteCertInsecure remoteConnections \
            remoteIdleConnections remoteSTUN remoteTCPPort remoteTCPRandom remoteTimeout s secret \
            sentryDSN sentryDebug sentryEnvironment sentryLevel sentryRelease sentrySampleRate \
            sentryServerName tcpForwardAddr tcpForwardConnections tcpForwardHostPrefix \
            useLocalAsHTTPHost version webrtcConnectionIdleTimeout webrtcLogLevel webrtcMaxPort \
            webrtcMinPort threads"
            .split_whitespace()
        {
            let line = |line: &str| line.split_whitespace().next() == Some(&format!("-{flag}"));
            assert_eq!(help.lines().filter(|text| line(text)).count(), 1, "{flag}");
        }
    }

    #[test]
    fn the_command_lines_of_the_original_gt_work_for_the_client() {
        let c = client(
            "./release/linux-amd64-client -local http://127.0.0.1:80 \
             -remote tcp://id1.example.com:8080 -id id1 -secret secret1",
        );
        assert_eq!(c.link.remotes[0].to_string(), "tcp://id1.example.com:8080");
        assert_eq!(
            c.services[0].exposure,
            Exposure::Host {
                tls: false,
                prefix: None
            }
        );
        assert_eq!((c.link.connections, c.link.idle_connections), (3, 1));

        let c = client(
            "linux-amd64-client -local http://127.0.0.1 -remote tls://id1.example.com \
             -remoteCertInsecure -id id1 -secret secret1",
        );
        assert_eq!(c.link.remotes[0].to_string(), "tls://id1.example.com:443");
        assert!(c.link.remote_cert_insecure);

        let c = client(
            "linux-amd64-client -local https://127.0.0.1 -remote tcp://id1.example.com:443 \
             -id id1 -secret secret1",
        );
        let local = Local::Tcp {
            scheme: Scheme::Https,
            host: "127.0.0.1".to_owned(),
            port: 443,
        };
        assert_eq!(c.services[0].local, local);
        assert_eq!(
            c.services[0].exposure,
            Exposure::Host {
                tls: true,
                prefix: None
            }
        );

        let c = client(
            "linux-amd64-client -local tcp://127.0.0.1:22 -remote tcp://id1.example.com:8080 \
             -id id1 -secret secret1 -remoteTCPPort 2222 -remoteTCPRandom",
        );
        assert_eq!(
            c.services[0].exposure,
            Exposure::Tcp {
                port: 2222,
                random: true
            }
        );

        let c = client(
            "linux-amd64-client -remote tcp://id1.example.com:8080 -id id1 -secret secret1 \
             -local http://127.0.0.1:80 -useLocalAsHTTPHost -hostPrefix 1 \
             -local http://127.0.0.1:8080 -useLocalAsHTTPHost -hostPrefix 2 \
             -local tcp://127.0.0.1:2222 -remoteTCPPort 2222 \
             -local tcp://127.0.0.1:2223 -remoteTCPPort 2223",
        );
        let exposures: Vec<_> = c
            .services
            .iter()
            .map(|service| service.exposure.clone())
            .collect();
        assert_eq!(
            exposures,
            [
                Exposure::Host {
                    tls: false,
                    prefix: Some("1".to_owned())
                },
                Exposure::Host {
                    tls: false,
                    prefix: Some("2".to_owned())
                },
                Exposure::Tcp {
                    port: 2222,
                    random: false
                },
                Exposure::Tcp {
                    port: 2223,
                    random: false
                },
            ]
        );
        let hosts: Vec<_> = c
            .services
            .iter()
            .map(|service| service.use_local_as_http_host)
            .collect();
        assert_eq!(hosts, [true, true, false, false]);
    }

    #[test]
    fn the_flags_of_a_single_service_may_stand_anywhere() {
        let c = client(&format!("gt client -hostPrefix p {REST} -local http://h"));
        assert_eq!(
            c.services[0].exposure,
            Exposure::Host {
                tls: false,
                prefix: Some("p".to_owned())
            }
        );
    }

    #[test]
    fn with_several_services_a_flag_before_all_of_them_is_an_error() {
        assert_eq!(
            error(&format!("gt client {REST} -hostPrefix p -local http://a -local http://b")),
            "-hostPrefix is given before the first -local: if there are several, the flags of a service follow its -local."
        );
    }

    #[test]
    fn in_one_service_the_last_of_two_flags_counts() {
        let c = client(&format!(
            "gt client {REST} -local http://h -hostPrefix a -hostPrefix b"
        ));
        assert_eq!(
            c.services[0].exposure,
            Exposure::Host {
                tls: false,
                prefix: Some("b".to_owned())
            }
        );
        assert_eq!(
            client(&format!("gt client {REST} -id j -local http://h"))
                .link
                .id,
            "j"
        );
    }

    #[test]
    fn every_remote_given_is_a_remote() {
        let c = client(&format!(
            "gt client {REST} -remote tls://other -local http://h"
        ));
        let remotes: Vec<_> = c.link.remotes.iter().map(ToString::to_string).collect();
        assert_eq!(remotes, ["tcp://h:80", "tls://other:443"]);
    }

    #[test]
    fn a_missing_option_of_the_client_is_named() {
        assert_eq!(
            error("gt client -remote h -local http://h"),
            "There is no id: set the id of this client by id or -id."
        );
        assert_eq!(
            error("gt client -id i -local http://h"),
            "There is no remote: set the address of the server, like -remote tcp://example.com:80."
        );
        assert_eq!(
            error(&format!("gt client {REST}")),
            "There is no service: set one, like -local http://127.0.0.1:80."
        );
        assert!(error(&format!("gt client {REST} -hostPrefix p"))
            .starts_with("The service of the flags has no local: "));
    }
}

#[cfg(all(feature = "server", feature = "client"))]
mod both {
    use super::*;

    #[test]
    fn an_error_shows_how_to_choose_a_role() {
        assert_eq!(
            error("gt -addr 80"),
            "Choose a role: gt server, gt client, or gt -config with a file that names one."
        );
    }

    #[test]
    fn a_flag_of_the_other_role_is_refused() {
        assert!(
            error("gt server -local http://h").starts_with("-local is not a flag of the server")
        );
        assert_eq!(
            error("gt-client server"),
            "gt-client is a client by its name and cannot be a server."
        );
    }

    #[test]
    fn a_flag_that_both_roles_have_counts_as_its_own_role_has_it() {
        let directory = Directory::new("both-roles");
        let file = directory.file("c.yaml", "options: {remote: h, local: 'http://h'}");
        let loaded = loaded(&format!("gt -config {file} -id a -id b"));
        match loaded.role {
            crate::config::Role::Client(client) => assert_eq!(client.link.id, "b"),
            role => panic!("{role:?}"),
        }
    }

    #[test]
    fn every_file_in_a_directory_has_its_own_role() {
        let directory = Directory::new("directory");
        directory.file("b.yml", "options: {addr: 8080}");
        directory.file("a.yaml", "options: {remote: h, id: i, local: 'http://h'}");
        directory.file(".hidden.yaml", "[");
        directory.file("notes.txt", "[");
        let path = directory.path();
        let Command::Run(all) = parse(&argv(&format!("gt -config {path} -threads 2"))).unwrap()
        else {
            panic!("no run");
        };
        let roles: Vec<_> = all
            .iter()
            .map(|loaded| (loaded.name(), loaded.threads()))
            .collect();
        assert_eq!(roles, [(RoleName::Client, 2), (RoleName::Server, 2)]);
        assert_eq!(
            error(&format!("gt -config {path} -id x")),
            "-id cannot be given with the -config of a directory: write it into the file of its role."
        );
    }

    #[test]
    fn an_empty_directory_is_an_error() {
        let directory = Directory::new("empty");
        let path = directory.path();
        assert_eq!(
            error(&format!("gt -config {path}")),
            format!("The directory {path} has no *.yaml or *.yml file in it.")
        );
        assert!(
            error(&format!("gt -config {path}/none.yaml")).contains("none.yaml cannot be read: ")
        );
    }

    /// A directory that is removed when the test ends.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("gt-cli-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Directory(path)
        }

        fn path(&self) -> String {
            self.0.to_str().unwrap().to_owned()
        }

        fn file(&self, name: &str, text: &str) -> String {
            let path = self.0.join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
