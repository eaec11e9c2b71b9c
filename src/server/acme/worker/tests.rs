use super::*;
use crate::auth_lockout::AuthLockout;
use crate::cli::{self, Command};
use crate::config::Limits;
use crate::net::bridge;
use crate::net::tls::{NamedCertificate, ServerIdentity};
use crate::server::registry::Login;
use crate::server::settings::Settings;
use crate::state_dir::{scratch, IDENTITY};
use crate::tunnel::{Inbox, PeerRole, Policy, Tunnel};
use crate::wire::hello::ServiceSpec;
use crate::wire::Version;
use async_std::task::block_on;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The worker of a server with these clients, whose prefixes are their ids.
struct Ends {
    worker: Worker,
    path: PathBuf,
    _tunnels: Vec<(Tunnel, Inbox, OwnedFd)>,
}

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn start(folder: &str, ids: &[&str]) -> Ends {
    let path = scratch(folder);
    ServerIdentity::in_directory(&path).unwrap();
    let shown = path.to_str().unwrap();
    let line = format!(
        "gt server -addr 127.0.0.1:0 -tlsAddr 127.0.0.1:0 -stateDir {shown} -acmeDomain example.com \
         -acmeDirectory https://localhost:1/ -acmeCA {shown}/{IDENTITY} -id id1 -secret secret1"
    );
    let line: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let Ok(Command::Run(roles)) = cli::parse(&line) else {
        panic!("a command line that runs");
    };
    let config = roles[0].role.server().unwrap();
    let settings = Settings::with_logs(config, &Arc::default(), None).unwrap();
    let acme = settings.acme.clone().unwrap();
    let lockout = AuthLockout::new(0, Duration::ZERO);
    let state = Arc::new(ServerState::new(settings, Arc::default(), lockout).unwrap());
    let mut tunnels = Vec::new();
    for id in ids {
        let (conn, far) = bridge::bridge().expect("a connection");
        let policy = Policy::new(Version::One, PeerRole::Client, Duration::from_secs(60));
        let (tunnel, inbox) = Tunnel::new(Arc::new(conn), Vec::new(), policy);
        let (limits, settings) = (Limits::of_one_prefix(), state.settings.get());
        let (tls, prefix) = (false, None);
        let services = vec![Some(ServiceSpec::Host { tls, prefix })];
        let login = Login::of_user(id, &limits, &settings);
        assert!(state.registry.register(&login, services, &tunnel).is_ok());
        tunnels.push((tunnel, inbox, far));
    }
    let worker = block_on(Worker::open(&state, acme)).unwrap();
    Ends {
        worker,
        path,
        _tunnels: tunnels,
    }
}

fn order_of(next: Next) -> Option<Box<str>> {
    match next {
        Next::Order(task) => Some(task.name),
        Next::Ask(_) | Next::Wait(_) => None,
    }
}

#[test]
fn names_of_visitors_keep_their_turn_while_all_names_wait_and_the_api_tells_why() {
    let mut ends = start("worker-turns", &["id1", "id2"]);
    let worker = &mut ends.worker;
    let state = worker.state.clone();
    worker.budget.pause(None, "the reason", now());
    let mut visited = state.acme.visited.lock();
    for name in ["id2.example.com", "id3.example.com"] {
        visited.note(name, clock::now());
    }
    drop(visited);
    assert_eq!(order_of(worker.next()), None);
    assert!(state.acme.visited.lock().has("id2.example.com"));
    assert!(!state.acme.visited.lock().has("id3.example.com"));
    let waiting = state.acme.certificates();
    let tells = |it: &CertificateStatus| it.error.as_deref().unwrap().contains("the reason");
    assert!(waiting.len() == 2 && waiting.iter().all(|(_, it)| tells(it)));
    worker.budget.resume();
    assert_eq!(order_of(worker.next()).as_deref(), Some("id2.example.com"));
    assert!(!state.acme.visited.lock().has("id2.example.com"));
    assert!(state.acme.certificates().is_empty());
}

#[test]
fn a_name_is_in_use_if_a_client_has_its_prefix_or_it_as_a_domain() {
    let ends = start("worker-names", &["id1"]);
    let registry = &ends.worker.state.registry;
    let is_used = |name| names::is_in_use(registry, &["example.com".into()], name);
    assert!(is_used("id1.example.com"));
    for name in [
        "id2.example.com",
        "id1.example.org",
        "example.com",
        "id1",
        "a.id1.example.com",
    ] {
        assert!(!is_used(name), "{name}");
    }
}

#[test]
fn the_certificate_of_a_name_that_no_client_has_is_taken_out_of_use_when_it_has_expired() {
    let mut ends = start("worker-forget", &["id1"]);
    let worker = &mut ends.worker;
    let certificates = worker.acme.certificates.clone();
    let identity = ServerIdentity::new().unwrap();
    let names = ["id1", "old", "valid", "failing"].map(|id| format!("{id}.example.com"));
    for name in &names {
        let is_valid = name.starts_with("valid");
        let mut known = KnownName {
            dates: Some((0, if is_valid { i64::MAX } else { 1000 })),
            ..KnownName::default()
        };
        known.file.directory = worker.acme.directory.clone();
        if name.starts_with("failing") {
            (known.file.failures, known.file.next) = (3, now() - 60);
        }
        worker.store.write(name, &known.file).unwrap();
        worker.names.insert(name.as_str().into(), known);
        certificates.set(name, NamedCertificate::of(&identity));
    }
    let _ = worker.next();
    let left = names.each_ref().map(|name| certificates.has(name));
    assert_eq!(left, [true, false, true, true]);
    let is_kept = |name: &String| {
        store::folder(&ends.path)
            .join(format!("{name}.pem"))
            .exists()
    };
    assert_eq!(names.each_ref().map(is_kept), [true, false, true, true]);
}
