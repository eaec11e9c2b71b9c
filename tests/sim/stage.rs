//! Builds the world of a plan, lets its events happen, and checks what must hold at the end.

use crate::gt::Gt;
use crate::plan::{ClientPlan, Event, Habit, Plan, ServerPlan};
use crate::referee::{Referee, Scope, RECOVERY};
use crate::service;
use crate::visitor::{self, Target};
use gt::sim::{self, HostId, Link, ProcessId, Trace};
use signal_hook::consts::{SIGHUP, SIGKILL, SIGQUIT, SIGTERM};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Port of a server for tunnels and visitors.
const PORT: u16 = 8080;
/// First TCP port of clients at a server.
const FIRST_TCP: u16 = 2200;
/// Time by which each visitor has made its last visit.
const VISITS_END: Duration = Duration::from_secs(120);
/// Time after the last visits began in which they all end: some are long, and some links slow.
const LONGEST_VISIT: Duration = Duration::from_secs(4000);
/// Time in which old processes end and what they held is given back: a drain takes two minutes.
const QUIET: Duration = Duration::from_secs(150);

/// The result of a world.
pub struct Outcome {
    /// What is wrong; empty if nothing is.
    pub faults: Vec<String>,
    pub trace: Vec<String>,
    pub time: Duration,
    pub turns: u64,
    pub visits: (u64, u64),
}

struct Stage {
    plan: Plan,
    servers: Vec<(Gt, IpAddr)>,
    clients: Vec<Gt>,
    /// The hosts of the clients.
    client_hosts: Vec<HostId>,
    outside: ProcessId,
    referee: Referee,
}

/// Runs the world of a plan on this thread, which must be a new one.
pub fn run(plan: &Plan, trace: Trace) -> Outcome {
    sim::begin(plan.seed, trace);
    let stage = Arc::new(Stage::build(plan.clone()));
    let referee = stage.referee.clone();
    for (number, visitor) in plan.visitors.iter().enumerate() {
        let target = stage.target(visitor.client);
        let (plan, referee) = (visitor.clone(), referee.clone());
        let visiting = visitor::run(number, plan, target, referee, VISITS_END);
        sim::spawn(stage.outside, visiting);
    }
    sim::spawn(stage.outside, stage.clone().play());
    let mut ran = sim::run(VISITS_END);
    let last = referee.last_excuse().max(VISITS_END);
    ran = ran.and_then(|()| sim::run(last.saturating_sub(sim::elapsed())));
    sim::spawn(stage.outside, stage.clone().probe());
    ran = ran.and_then(|()| sim::run(RECOVERY));
    let end = sim::elapsed() + LONGEST_VISIT;
    while ran.is_ok() && !referee.is_quiet() {
        ran = sim::run(Duration::from_secs(10));
        if sim::elapsed() > end {
            referee.fault("a visit does not end".to_owned());
            break;
        }
    }
    ran = ran.and_then(|()| sim::run(QUIET));
    if ran.is_ok() {
        stage.check_rest();
    }
    drop(stage);
    let mut faults = referee.faults();
    faults.extend(ran.err());
    let summary = sim::end();
    Outcome {
        faults,
        trace: summary.trace,
        time: summary.time,
        turns: summary.turns,
        visits: referee.visits(),
    }
}

impl Stage {
    fn build(plan: Plan) -> Self {
        let (outside, _) = sim::host();
        let mut servers = Vec::new();
        for (number, server) in plan.servers.iter().enumerate() {
            let (host, ip) = sim::host();
            let text = server_text(&plan, number, server);
            servers.push((Gt::start(&format!("server{number}"), host, text), ip));
        }
        let mut clients = Vec::new();
        let mut client_hosts = Vec::new();
        for (number, client) in plan.clients.iter().enumerate() {
            let (host, _) = sim::host();
            let (server, ip) = &servers[client.server];
            let delay = Duration::from_millis(plan.servers[client.server].delay);
            let link = Link {
                delay,
                jitter: delay / 4,
                ..Link::default()
            };
            sim::set_link(host, server.host(), link);
            let services = sim::process(host, &format!("service{number}"));
            service::start(services, number);
            let text = client_text(number, client, *ip, true);
            clients.push(Gt::start(&format!("client{number}"), host, text));
            client_hosts.push(host);
        }
        Self {
            plan,
            servers,
            clients,
            client_hosts,
            outside: sim::process(outside, "outside"),
            referee: Referee::default(),
        }
    }

    fn target(&self, client: usize) -> Target {
        let server = self.plan.clients[client].server;
        Target {
            client,
            server,
            host: self.servers[server].1.to_string(),
            http: PORT,
            tcp: FIRST_TCP + client as u16,
            wire: self.plan.clients[client].wire,
        }
    }

    /// Lets the plan's events happen.
    async fn play(self: Arc<Self>) {
        // Nothing is expected of the first seconds.
        for number in 0..self.servers.len() {
            self.referee
                .excuse_until(Scope::Server(number), Duration::from_secs(2));
        }
        for (millis, event) in self.plan.events.clone() {
            let at = Duration::from_millis(millis);
            sim::pass(at.saturating_sub(sim::elapsed())).await;
            sim::trace(format_args!("EVENT {event:?}"));
            let stage = self.clone();
            sim::spawn(self.outside, async move { stage.happen(event).await });
        }
    }

    async fn happen(&self, event: Event) {
        let time = Duration::from_millis;
        match event {
            Event::ReloadServer(number) => self.servers[number].0.signal(SIGHUP),
            Event::ReloadClient(number) => self.clients[number].signal(SIGHUP),
            Event::RestartServer(number) => self.servers[number].0.signal(SIGQUIT),
            Event::RestartClient(number) => self.clients[number].signal(SIGQUIT),
            Event::StopServer(number, pause) => {
                self.referee.excuse(Scope::Server(number), time(pause));
                self.servers[number]
                    .0
                    .stop_and_start(SIGTERM, time(pause))
                    .await;
            }
            Event::StopClient(number, pause) => {
                self.referee.excuse(Scope::Client(number), time(pause));
                self.clients[number]
                    .stop_and_start(SIGTERM, time(pause))
                    .await;
            }
            Event::KillServer(number, pause) => {
                self.referee.excuse_kill(Scope::Server(number), time(pause));
                self.servers[number]
                    .0
                    .stop_and_start(SIGKILL, time(pause))
                    .await;
            }
            Event::KillClient(number, pause) => {
                self.referee.excuse_kill(Scope::Client(number), time(pause));
                self.clients[number]
                    .stop_and_start(SIGKILL, time(pause))
                    .await;
            }
            Event::Cut(number, pause) => {
                self.referee.excuse(Scope::Client(number), time(pause));
                let server = self.servers[self.plan.clients[number].server].0.host();
                let client = self.client_hosts[number];
                sim::cut(client, server, true);
                sim::pass(time(pause)).await;
                sim::cut(client, server, false);
            }
            Event::FreezeServer(number, pause) => {
                self.referee.excuse(Scope::Server(number), time(pause));
                freeze(&self.servers[number].0, time(pause));
            }
            Event::FreezeClient(number, pause) => {
                self.referee.excuse(Scope::Client(number), time(pause));
                freeze(&self.clients[number], time(pause));
            }
            Event::HangServer(number, pause) => {
                hang(&self.servers[number].0, time(pause));
            }
            Event::HangClient(number, pause) => {
                hang(&self.clients[number], time(pause));
            }
            Event::FewFilesServer(number, pause) => {
                self.referee.excuse(Scope::Server(number), time(pause));
                few_files(&self.servers[number].0, time(pause)).await;
            }
            Event::FewFilesClient(number, pause) => {
                self.referee.excuse(Scope::Client(number), time(pause));
                few_files(&self.clients[number], time(pause)).await;
            }
            Event::DropService(number, pause) => {
                self.referee.excuse(Scope::Client(number), time(pause));
                let client = &self.plan.clients[number];
                let ip = self.servers[client.server].1;
                for has_tcp in [false, true] {
                    self.clients[number].configure(client_text(number, client, ip, has_tcp));
                    self.clients[number].signal(SIGHUP);
                    sim::pass(time(pause)).await;
                }
            }
            Event::ClockJump(seconds) => sim::jump_time_of_day(seconds),
        }
    }

    /// After the last fault, every service answers.
    async fn probe(self: Arc<Self>) {
        for client in 0..self.clients.len() {
            let target = self.target(client);
            for (number, habit) in [Habit::Get(1000), Habit::Echo(1000)]
                .into_iter()
                .enumerate()
            {
                let key = 1 << 60 | (client as u64) << 8 | number as u64;
                let what = format!("the last probe of client{client}, {habit:?},");
                visitor::make(&what, habit, key, &target, &self.referee).await;
            }
        }
    }

    /// At rest, each gt is one process, and holds nothing for those who have gone.
    fn check_rest(&self) {
        for (number, (gt, _)) in self.servers.iter().enumerate() {
            let clients = self
                .plan
                .clients
                .iter()
                .filter(|client| client.server == number);
            // The listener, the clients' ports and tunnels.
            let most = clients
                .map(|client| 1 + client.connections as usize)
                .sum::<usize>()
                + 1;
            self.check_process(gt, most);
        }
        for (client, gt) in self.plan.clients.iter().zip(&self.clients) {
            self.check_process(gt, client.connections as usize);
        }
        let before = sim::turns();
        if let Err(why) = sim::run(Duration::from_secs(60)) {
            self.referee.fault(why);
        }
        let turns = sim::turns() - before;
        let most = 60 * 10 * (self.servers.len() + self.clients.len()) as u64;
        if turns > most {
            let text = format!("{turns} turns in an idle minute, at most {most} are right");
            self.referee.fault(text);
        }
    }

    fn check_process(&self, gt: &Gt, most_files: usize) {
        let running = gt.running();
        let [process] = running[..] else {
            let text = format!("{} has {} processes at rest", gt.name(), running.len());
            return self.referee.fault(text);
        };
        let files = sim::open_files(process);
        if files > most_files {
            let text = format!(
                "{} has {files} sockets at rest, {most_files} are right: {:?}",
                gt.name(),
                sim::describe_files(process)
            );
            self.referee.fault(text);
        }
    }
}

fn freeze(gt: &Gt, time: Duration) {
    for process in gt.running() {
        sim::freeze(process, time);
    }
}

fn hang(gt: &Gt, time: Duration) {
    for process in gt.running() {
        sim::hang_up_disk(process, time);
    }
}

async fn few_files(gt: &Gt, time: Duration) {
    let processes = gt.running();
    for process in &processes {
        sim::limit_files(*process, Some(sim::between(0, 4) as usize));
    }
    sim::pass(time).await;
    for process in processes {
        sim::limit_files(process, None);
    }
}

fn server_text(plan: &Plan, number: usize, _: &ServerPlan) -> String {
    let mut text = format!("type: server\noptions:\n  addr: {PORT}\nusers:\n");
    for (client, its) in plan.clients.iter().enumerate() {
        if its.server == number {
            let port = FIRST_TCP + client as u16;
            text += &format!(
                "  c{client}:\n    secret: s{client}\n    speed: {}\n",
                its.speed
            );
            text += &format!("    tcp: [{{number: 1, range: {port}}}]\n");
        }
    }
    text
}

fn client_text(number: usize, client: &ClientPlan, server: IpAddr, has_tcp: bool) -> String {
    let wire = match client.wire {
        0 => "auto".to_owned(),
        version => version.to_string(),
    };
    let mut text = format!(
        "type: client\noptions:\n  remote: tcp://{server}:{PORT}\n  id: c{number}\n  secret: s{number}\n  \
         remoteConnections: {}\n  wire: {wire}\nservices:\n  - local: http://127.0.0.1:{}\n",
        client.connections,
        service::HTTP
    );
    if has_tcp {
        let port = FIRST_TCP + number as u16;
        text += &format!(
            "  - local: tcp://127.0.0.1:{}\n    remoteTCPPort: {port}\n",
            service::TCP
        );
    }
    text
}
