//! Builds the world of a plan, lets its events happen, and checks what must hold at the end.

use crate::admin::{self, Metrics};
use crate::gt::Gt;
use crate::original::Original;
use crate::plan::{ClientPlan, Event, Habit, Plan, Program};
use crate::referee::{Referee, Scope, DRAIN, RECOVERY};
use crate::service;
use crate::visitor::{self, Target};
use gt::sim::{self, HostId, Link, ProcessId, Trace};
use signal_hook::consts::{SIGHUP, SIGKILL, SIGQUIT, SIGTERM, SIGUSR1};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Ports of a server for tunnels and visitors, without and with TLS.
const PORT: u16 = 8080;
const TLS_PORT: u16 = 8443;
/// First TCP port of clients at a server.
const FIRST_TCP: u16 = 2200;
/// Time by which each visitor has begun its last visit.
const VISITS_END: Duration = Duration::from_secs(120);
/// Time after the last visits began in which they all end: some are long, and some links slow.
const LONGEST_VISIT: Duration = Duration::from_secs(4000);
/// Time in which old processes end and what they held is given back: a drain takes two minutes.
const QUIET: Duration = Duration::from_secs(150);
/// Time after which the kernel gives up a connection whose peer has vanished, however gt uses it.
const KEEPALIVE: Duration = Duration::from_secs(750);
/// Connections of one address that a server with a limit allows beside the visitors': those that
/// linger after their end, and bursts.
const MORE_CONNECTIONS: usize = 60;

/// Time that an old process may take to end while no stream is open.
const IDLE_DRAIN: Duration = Duration::from_secs(40);
/// Time within which a rival tries again to get a prefix: its delays grow up to a minute.
const RIVAL_RETRY: Duration = Duration::from_secs(70);

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
    servers: Vec<Server>,
    clients: Vec<Client>,
    /// The processes of the clients' services.
    services: Mutex<Vec<ProcessId>>,
    /// The client that has the prefix `shop`, and its rival.
    shop: Option<(Gt, Gt)>,
    /// The clients whose services have changed places.
    swapped: Mutex<BTreeSet<usize>>,
    /// Whether it has given the prefix up.
    shop_moved: AtomicBool,
    outside: ProcessId,
    referee: Referee,
}

struct Server {
    gt: Gt,
    ip: IpAddr,
    /// Its administrator, on the same host.
    admin: ProcessId,
}

#[derive(Clone)]
enum Client {
    Gt(Gt),
    Original(Original),
}

impl Client {
    fn gt(&self) -> Option<&Gt> {
        match self {
            Self::Gt(gt) => Some(gt),
            Self::Original(_) => None,
        }
    }

    fn host(&self) -> HostId {
        match self {
            Self::Gt(gt) => gt.host(),
            Self::Original(original) => original.host(),
        }
    }

    fn processes(&self) -> Vec<ProcessId> {
        match self {
            Self::Gt(gt) => gt.running(),
            Self::Original(original) => original.process().into_iter().collect(),
        }
    }

    /// Sends a signal; the original knows none.
    fn signal(&self, number: i32) {
        if let Self::Gt(gt) = self {
            gt.signal(number);
        }
    }

    async fn stop_and_start(&self, signal: i32, pause: Duration) {
        match self {
            Self::Gt(gt) => gt.stop_and_start(signal, pause).await,
            Self::Original(original) => original.kill_and_start(pause).await,
        }
    }
}

/// Runs the world of a plan on this thread, which must be a new one.
pub fn run(plan: &Plan, trace: Trace) -> Outcome {
    sim::begin(plan.seed, trace);
    let stage = Arc::new(Stage::build(plan.clone()));
    let referee = stage.referee.clone();
    for (number, visitor) in plan.visitors.iter().enumerate() {
        let target = stage.target_of(number);
        let (plan, referee) = (visitor.clone(), referee.clone());
        let visiting = visitor::run(number, plan, target, referee, VISITS_END);
        sim::spawn(stage.outside, visiting);
    }
    sim::spawn(stage.outside, stage.clone().play());
    for (number, server) in stage.servers.iter().enumerate() {
        sim::spawn(server.admin, stage.clone().watch(number));
    }
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
    let has_lost = |(_, event): &(u64, Event)| matches!(event, Event::LoseTunnel(_));
    let quiet = match plan.events.iter().any(has_lost) {
        true => QUIET + KEEPALIVE,
        false => QUIET,
    };
    ran = ran.and_then(|()| sim::run(quiet));
    if ran.is_ok() {
        ran = stage.check_rest();
    }
    referee.check_dead_tunnels();
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
        let referee = Referee::default();
        let (outside, _) = sim::host();
        let mut servers = Vec::new();
        for number in 0..plan.servers.len() {
            let (host, ip) = sim::host();
            sim::set_name(&server_name(number), Ok(vec![ip]));
            let admin = sim::process(host, &format!("admin{number}"));
            let gt = Gt::start(&format!("server{number}"), host, server_text(&plan, number));
            servers.push(Server { gt, ip, admin });
        }
        let connect = |server: usize| {
            let (host, _) = sim::host();
            let delay = Duration::from_millis(plan.servers[server].delay);
            let link = Link {
                delay,
                jitter: delay / 4,
                ..Link::default()
            };
            sim::set_link(host, servers[server].gt.host(), link);
            host
        };
        let (mut clients, mut services) = (Vec::new(), Vec::new());
        for (number, client) in plan.clients.iter().enumerate() {
            let host = connect(client.server);
            services.push(start_services(host, number));
            let server = &servers[client.server];
            clients.push(match client.program {
                Program::Original => {
                    let remote = (remote_host(client, server.ip), PORT);
                    let port = FIRST_TCP + number as u16;
                    let (who, tunnels) = ((number, client.server), client.connections.min(2));
                    let referee = referee.clone();
                    let original = Original::start(who, host, remote, port, tunnels, referee);
                    Client::Original(original)
                }
                _ => {
                    let text = client_text(number, client, server.ip, true, false);
                    Client::Gt(Gt::start(&format!("client{number}"), host, text))
                }
            });
        }
        // The owner of the prefix first, and a second later the rival, which never gives up.
        let shop = plan.shop.map(|server| {
            let owner = plan.clients.len();
            let [shop, rival] = [owner, owner + 1].map(|number| {
                let host = connect(server);
                start_services(host, number);
                let text = shop_text(number, "shop", servers[server].ip);
                Gt::installed(&format!("client{number}"), host, text)
            });
            shop.start_process();
            let process = sim::process(shop.host(), "starter");
            let late = rival.clone();
            sim::spawn(process, async move {
                sim::pass(Duration::from_secs(1)).await;
                late.start_process();
            });
            (shop, rival)
        });
        Self {
            plan,
            servers,
            clients,
            services: Mutex::new(services),
            shop,
            swapped: Mutex::default(),
            shop_moved: AtomicBool::new(false),
            outside: sim::process(outside, "outside"),
            referee,
        }
    }

    fn target(&self, client: usize) -> Target {
        let its = &self.plan.clients[client];
        Target {
            client,
            server: its.server,
            host: self.servers[its.server].ip.to_string(),
            http: PORT,
            tcp: FIRST_TCP + client as u16,
            program: its.program,
            prefix: format!("c{client}"),
            neighbours: self.neighbours(its.server),
            rival: None,
        }
    }

    /// Returns the clients of a server.
    fn neighbours(&self, server: usize) -> Vec<usize> {
        let clients = self.plan.clients.iter().enumerate();
        let its = clients.filter(|(_, client)| client.server == server);
        its.map(|(number, _)| number).collect()
    }

    fn shop(&self, server: usize) -> Target {
        let owner = self.plan.clients.len();
        Target {
            client: owner,
            server,
            host: self.servers[server].ip.to_string(),
            http: PORT,
            tcp: 0,
            program: Program::Gt,
            prefix: "shop".to_owned(),
            neighbours: Vec::new(),
            rival: Some(owner + 1),
        }
    }

    /// Returns what a visitor visits: every third one of HTTP goes to the shop, if there is one.
    fn target_of(&self, visitor: usize) -> Target {
        let plan = &self.plan.visitors[visitor];
        let is_http = !matches!(
            plan.habit,
            Habit::Echo(_) | Habit::Source(_) | Habit::Pool { .. }
        );
        match self.plan.shop {
            Some(server) if is_http && visitor.is_multiple_of(3) => self.shop(server),
            _ => self.target(plan.client),
        }
    }

    /// Lets the plan's events happen.
    async fn play(self: Arc<Self>) {
        // Nothing is expected of the first seconds.
        for number in 0..self.servers.len() {
            let first = Duration::from_secs(2);
            self.referee.excuse_start(Scope::Server(number), first);
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
            Event::ReloadServer(number) => self.servers[number].gt.signal(SIGHUP),
            Event::ReloadClient(number) => self.clients[number].signal(SIGHUP),
            Event::RestartServer(number) => {
                let clients = self.plan.clients.iter().enumerate();
                for (client, plan) in clients.filter(|(_, plan)| plan.server == number) {
                    self.referee.divide(client);
                    // A tunnel of GT/1 over TLS cannot move: it is closed.
                    if plan.tls && plan.program == Program::Gt1 {
                        self.referee.excuse(Scope::Client(client), Duration::ZERO);
                    }
                    // Others of GT/1 do not move with their streams.
                    if plan.program != Program::Gt {
                        self.referee.excuse_drain_end(Scope::Client(client));
                    }
                }
                self.servers[number].gt.signal(SIGQUIT);
                if let (Some((_, rival)), true) = (&self.shop, self.plan.shop == Some(number)) {
                    // It tries at every moment of the restart.
                    for _ in 0..30 {
                        sim::pass(time(sim::between(0, 200))).await;
                        rival.signal(SIGHUP);
                    }
                }
            }
            Event::RestartClient(number) => {
                // A client may have as many draining tunnels as others: of a second restart's, the
                // server ends the oldest.
                if self.recent(Event::RestartClient(number)) > 1 {
                    self.referee.excuse(Scope::Client(number), Duration::ZERO);
                }
                self.clients[number].signal(SIGQUIT);
            }
            Event::Wake(number) => {
                self.clients[number].signal(SIGUSR1);
                self.servers[self.plan.clients[number].server]
                    .gt
                    .signal(SIGUSR1);
            }
            Event::RestartShop => {
                if let Some((shop, _)) = &self.shop {
                    shop.signal(SIGQUIT);
                }
            }
            Event::ShopMoves => {
                if let (Some(shop), Some(server)) = (&self.shop, self.plan.shop) {
                    self.move_shop(shop, server).await;
                }
            }
            Event::SwapServices(number) => {
                if let Client::Gt(gt) = &self.clients[number] {
                    // Streams wait for their turns.
                    let (client, server) = self.ends(number);
                    let link = sim::link(client, server);
                    let slow = Link {
                        bandwidth: 40_000,
                        ..link
                    };
                    sim::set_link(client, server, slow);
                    // As much as the client may have in ten seconds, since it may be asked for thrice.
                    let speed = self.plan.clients[number].speed;
                    let length = match usize::try_from(speed).unwrap() {
                        0 => 200_000,
                        speed => 200_000.min(10 * speed),
                    };
                    self.burst(number, &[Habit::Upload(length)], 800).await;
                    let short = [Habit::Echo(10), Habit::Get(10)];
                    self.burst(number, &short, 100).await;
                    self.burst(number, &short, 100).await;
                    self.swap_services(number, gt);
                    gt.signal(SIGHUP);
                    self.burst(number, &short, 100).await;
                    sim::pass(time(10_000)).await;
                    sim::set_link(client, server, link);
                }
            }
            Event::Flap(number) => {
                if let Client::Gt(gt) = &self.clients[number] {
                    self.referee.excuse(Scope::Client(number), time(40_000));
                    // What a speed limit lets pass by the end of the excuse.
                    let length = match self.plan.clients[number].speed {
                        0 => 40_000,
                        _ => 4_000,
                    };
                    for _ in 0..12 {
                        self.burst(number, &[Habit::SlowReader(length); 2], 200)
                            .await;
                        self.swap_services(number, gt);
                        gt.signal(SIGQUIT);
                        sim::pass(time(sim::between(1_500, 2_500))).await;
                    }
                }
            }
            Event::LoseTunnel(number) => {
                let plan = &self.plan.clients[number];
                if let (Client::Gt(_), 3..) = (&self.clients[number], plan.connections) {
                    // The old process of a restart may keep the tunnel, unused, while it drains.
                    self.referee.excuse(Scope::Tunnel(number), DRAIN);
                    let (client, server) = self.ends(number);
                    sim::lose_one(client, server);
                    // Long enough for the kernel to tell.
                    sim::pass(time(1_200)).await;
                    self.burst(number, &[Habit::SlowService(10_000); 40], 300)
                        .await;
                }
            }
            Event::KillService(number, pause) => {
                self.referee.excuse_kill(Scope::Client(number), time(pause));
                let services = self.services.lock().unwrap()[number];
                sim::kill(services);
                sim::pass(time(pause)).await;
                let mut all = self.services.lock().unwrap();
                if sim::exit_status(all[number]).is_some() {
                    all[number] = start_services(self.clients[number].host(), number);
                }
            }
            Event::StopServer(number, pause) => {
                self.referee.excuse(Scope::Server(number), time(pause));
                self.servers[number]
                    .gt
                    .stop_and_start(SIGTERM, time(pause))
                    .await;
            }
            Event::StopClient(number, pause) => {
                self.excuse_end(number, SIGTERM, time(pause));
                self.clients[number]
                    .stop_and_start(SIGTERM, time(pause))
                    .await;
            }
            Event::KillServer(number, pause) => {
                self.referee.excuse_kill(Scope::Server(number), time(pause));
                self.servers[number]
                    .gt
                    .stop_and_start(SIGKILL, time(pause))
                    .await;
            }
            Event::KillClient(number, pause) => {
                self.excuse_end(number, SIGKILL, time(pause));
                self.clients[number]
                    .stop_and_start(SIGKILL, time(pause))
                    .await;
            }
            Event::Cut(number, pause) => {
                self.referee.excuse(Scope::Client(number), time(pause));
                let (client, server) = self.ends(number);
                sim::cut(client, server, true);
                sim::pass(time(pause)).await;
                sim::cut(client, server, false);
            }
            Event::SlowLink(number, pause) => {
                if self.plan.clients[number].program == Program::Original {
                    // Its pings wait behind its data, until it takes the tunnel for dead.
                    self.referee.excuse(Scope::Client(number), time(pause));
                }
                let (client, server) = self.ends(number);
                let link = sim::link(client, server);
                let slow = Link {
                    bandwidth: sim::between(20_000, 200_000),
                    loss: sim::between(0, 300),
                    ..link
                };
                sim::set_link(client, server, slow);
                sim::pass(time(pause)).await;
                sim::set_link(client, server, link);
            }
            Event::NamesFail(pause) => {
                for (number, server) in self.servers.iter().enumerate() {
                    let failure = match sim::chance(2) {
                        true => "Temporary failure in name resolution",
                        false => "Name or service not known",
                    };
                    sim::set_name(&server_name(number), Err(failure));
                    let (ip, end) = (server.ip, time(pause));
                    sim::spawn(self.outside, async move {
                        sim::pass(end).await;
                        sim::set_name(&server_name(number), Ok(vec![ip]));
                    });
                    for (client, plan) in self.plan.clients.iter().enumerate() {
                        if plan.by_name && plan.server == number {
                            self.referee.excuse(Scope::Client(client), time(pause));
                        }
                    }
                }
            }
            Event::FreezeServer(number, pause) => {
                self.referee.excuse(Scope::Server(number), time(pause));
                freeze(self.servers[number].gt.running(), time(pause));
            }
            Event::FreezeClient(number, pause) => {
                self.referee.excuse(Scope::Client(number), time(pause));
                freeze(self.clients[number].processes(), time(pause));
            }
            Event::HangServer(number, pause) => {
                hang(self.servers[number].gt.running(), time(pause));
            }
            Event::HangClient(number, pause) => {
                hang(self.clients[number].processes(), time(pause));
            }
            Event::FewFilesServer(number, pause) => {
                self.referee.excuse(Scope::Server(number), time(pause));
                few_files(self.servers[number].gt.running(), time(pause)).await;
            }
            Event::FewFilesClient(number, pause) => {
                self.referee.excuse(Scope::Client(number), time(pause));
                few_files(self.clients[number].processes(), time(pause)).await;
            }
            Event::DropService(number, pause) => {
                let Client::Gt(gt) = &self.clients[number] else {
                    return;
                };
                // The old process of a restart keeps the port while it drains.
                let drain = match self.drains(self.plan.clients[number].server) {
                    true => DRAIN,
                    false => Duration::ZERO,
                };
                self.referee.excuse(Scope::Tcp(number), time(pause) + drain);
                for has_tcp in [false, true] {
                    gt.configure(self.client_text(number, has_tcp));
                    gt.signal(SIGHUP);
                    sim::pass(time(pause)).await;
                }
            }
            Event::ClockJump(seconds) => sim::jump_time_of_day(seconds),
        }
    }

    /// Whether a server has restarted so recently that its old process may still run.
    fn drains(&self, server: usize) -> bool {
        self.recent(Event::RestartServer(server)) > 0
    }

    /// Returns how often a restart has come so recently that its old process may still run.
    fn recent(&self, event: Event) -> usize {
        let now = sim::elapsed();
        let came = |(at, other): &&(u64, Event)| {
            let at = Duration::from_millis(*at);
            *other == event && at <= now && now < at + DRAIN
        };
        self.plan.events.iter().filter(came).count()
    }

    /// Lets visitors of a client begin one after the other, each after at most `pause` milliseconds.
    async fn burst(&self, client: usize, habits: &[Habit], pause: u64) {
        let key = sim::between(1, 1 << 20) << 40;
        for (number, habit) in habits.iter().enumerate() {
            let (target, referee, habit) = (self.target(client), self.referee.clone(), *habit);
            sim::spawn(self.outside, async move {
                let what = format!("one of many visitors of client{client}, {habit:?},");
                let key = key + ((number as u64) << 8);
                visitor::make(&what, habit, key, &target, &referee).await;
            });
            sim::pass(Duration::from_millis(sim::between(0, pause))).await;
        }
    }

    /// Writes a client's configuration with its services in the other order.
    fn swap_services(&self, number: usize, gt: &Gt) {
        let mut swapped = self.swapped.lock().unwrap();
        if !swapped.remove(&number) {
            swapped.insert(number);
        }
        drop(swapped);
        gt.configure(self.client_text(number, true));
    }

    fn client_text(&self, number: usize, has_tcp: bool) -> String {
        let client = &self.plan.clients[number];
        let is_swapped = self.swapped.lock().unwrap().contains(&number);
        client_text(
            number,
            client,
            self.servers[client.server].ip,
            has_tcp,
            is_swapped,
        )
    }

    /// The shop gives up its prefix. Its rival gets it at once, unless something happens to the server.
    async fn move_shop(&self, (shop, rival): &(Gt, Gt), server: usize) {
        if self.shop_moved.swap(true, Ordering::SeqCst) {
            return;
        }
        let owner = self.plan.clients.len();
        let scopes = [Scope::Server(server), Scope::Client(owner)];
        let was_disturbed = self.referee.is_disturbed(&scopes);
        self.referee.excuse(Scope::Client(owner), RIVAL_RETRY);
        shop.configure(shop_text(owner, "stall", self.servers[server].ip));
        shop.signal(SIGHUP);
        let mut target = self.shop(server);
        (target.client, target.rival) = (owner + 1, None);
        for round in 0..3 {
            sim::pass(Duration::from_secs(3)).await;
            rival.signal(SIGHUP);
            sim::pass(Duration::from_secs(2)).await;
            let (habit, unheard) = (Habit::Get(10), Referee::default());
            if visitor::make(
                "a visit of the rival",
                habit,
                (3 << 60) + round,
                &target,
                &unheard,
            )
            .await
            {
                return;
            }
        }
        if !was_disturbed && !self.referee.is_disturbed(&[Scope::Server(server)]) {
            let text = "the rival does not get the prefix that the shop has given up";
            self.referee.fault(text.to_owned());
        }
    }

    /// Excuses the end of a client; the original is killed in any case.
    fn excuse_end(&self, number: usize, signal: i32, pause: Duration) {
        match (&self.clients[number], signal) {
            (Client::Gt(_), SIGTERM) => self.referee.excuse(Scope::Client(number), pause),
            _ => self.referee.excuse_kill(Scope::Client(number), pause),
        }
    }

    /// Returns the hosts of a client and of its server.
    fn ends(&self, client: usize) -> (HostId, HostId) {
        let server = self.plan.clients[client].server;
        (self.clients[client].host(), self.servers[server].gt.host())
    }

    /// Looks at a server's figures now and then: no limit is exceeded.
    async fn watch(self: Arc<Self>, number: usize) {
        while sim::elapsed() < VISITS_END {
            sim::pass(Duration::from_secs(3)).await;
            let Some(metrics) = Metrics::read().await else {
                continue;
            };
            for (client, plan) in self.plan.clients.iter().enumerate() {
                // The tunnels that take streams, and as many that drain.
                let most = 2.0 * plan.max_tunnels() as f64;
                let tunnels = metrics.of_client("tunnels", client).unwrap_or_default();
                if plan.server == number && tunnels > most {
                    let text =
                        format!("client{client} has {tunnels} tunnels, at most {most} are right");
                    self.referee.fault(text);
                }
            }
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
        if let Some(server) = self.plan.shop {
            let (habit, what) = (Habit::Get(1000), "the last probe of the shop");
            let mut target = self.shop(server);
            if self.shop_moved.load(Ordering::SeqCst) {
                // Now it is the rival's.
                target.client += 1;
                target.rival = None;
            }
            visitor::make(what, habit, 2 << 60, &target, &self.referee).await;
        }
    }

    /// At rest, each gt is one process, holds nothing for those who have gone, and says so. The
    /// error is that of a task that has panicked.
    fn check_rest(self: &Arc<Self>) -> Result<(), String> {
        let shops = |number| usize::from(self.plan.shop == Some(number));
        for (number, server) in self.servers.iter().enumerate() {
            let clients = self
                .plan
                .clients
                .iter()
                .filter(|client| client.server == number);
            // The listeners, the clients' ports and tunnels; the rival may have one for a moment.
            let its = clients
                .map(|client| 1 + client.connections as usize)
                .sum::<usize>();
            self.check_process(&server.gt, its + 3 + 11 * shops(number));
            sim::spawn(server.admin, self.clone().check_figures(number));
        }
        for (plan, client) in self.plan.clients.iter().zip(&self.clients) {
            if let Client::Gt(gt) = client {
                self.check_process(gt, plan.connections as usize);
            }
        }
        sim::run(Duration::from_secs(10))?;
        let before = sim::turns();
        sim::run(Duration::from_secs(60))?;
        let turns = sim::turns() - before;
        let most = 60 * 20 * (self.servers.len() + self.clients.len() + 2) as u64;
        if turns > most {
            let text = format!("{turns} turns in an idle minute, at most {most} are right");
            self.referee.fault(text);
        }
        self.check_restarts()
    }

    /// With nothing to wait for, an old process ends soon after a restart.
    fn check_restarts(&self) -> Result<(), String> {
        let servers: Vec<&Gt> = self.servers.iter().map(|server| &server.gt).collect();
        let clients: Vec<&Gt> = self.clients.iter().filter_map(Client::gt).collect();
        for all in [servers, clients] {
            all.iter().for_each(|gt| gt.signal(SIGQUIT));
            sim::run(IDLE_DRAIN)?;
            for gt in all {
                let count = gt.running().len();
                if count != 1 {
                    let name = gt.name();
                    let text = format!("{name} has {count} processes after a restart at rest");
                    self.referee.fault(text);
                }
            }
        }
        Ok(())
    }

    /// Checks that a server counts its clients, and nothing of visitors that have gone.
    async fn check_figures(self: Arc<Self>, number: usize) {
        let Some(metrics) = Metrics::read().await else {
            return self
                .referee
                .fault(format!("the API of server{number} does not answer"));
        };
        let clients = self
            .plan
            .clients
            .iter()
            .filter(|client| client.server == number);
        // One of the shop and its rival has the prefix, and both are clients if the shop has moved.
        let shops = match self.plan.shop {
            Some(server) if server == number => {
                1 + usize::from(self.shop_moved.load(Ordering::SeqCst))
            }
            _ => 0,
        };
        let clients = clients.count() + shops;
        let expected = [("gt_clients", clients as f64), ("gt_streams_open", 0.0)];
        for (name, right) in expected {
            let value = metrics.get(name);
            if value != Some(right) {
                let text = format!("{name} of server{number} is {value:?} at rest, not {right}");
                self.referee.fault(text);
            }
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

/// Starts the services of a client, each in the same process.
fn start_services(host: HostId, number: usize) -> ProcessId {
    let process = sim::process(host, &format!("service{number}"));
    service::start(process, number);
    process
}

fn freeze(processes: Vec<ProcessId>, time: Duration) {
    for process in processes {
        sim::freeze(process, time);
    }
}

fn hang(processes: Vec<ProcessId>, time: Duration) {
    for process in processes {
        sim::hang_up_disk(process, time);
    }
}

async fn few_files(processes: Vec<ProcessId>, time: Duration) {
    for process in &processes {
        sim::limit_files(*process, Some(sim::between(0, 4) as usize));
    }
    sim::pass(time).await;
    for process in processes {
        sim::limit_files(process, None);
    }
}

fn server_name(number: usize) -> String {
    format!("server{number}.example")
}

fn remote_host(client: &ClientPlan, server: IpAddr) -> String {
    match client.by_name {
        true => server_name(client.server),
        false => server.to_string(),
    }
}

fn server_text(plan: &Plan, number: usize) -> String {
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim/tls");
    let mut text = format!(
        "type: server\noptions:\n  addr: {PORT}\n  tlsAddr: {TLS_PORT}\n  certFile: {files}.crt\n  \
         keyFile: {files}.key\n  apiAddr: 127.0.0.1:{}\n",
        admin::PORT
    );
    if plan.servers[number].limits_connections {
        let most = plan.visitors.len() + MORE_CONNECTIONS;
        text += &format!("  addressConnections: {most}\n");
    }
    text += "users:\n";
    for (client, its) in plan.clients.iter().enumerate() {
        if its.server == number {
            let port = FIRST_TCP + client as u16;
            text += &format!(
                "  c{client}:\n    secret: s{client}\n    speed: {}\n",
                its.speed
            );
            text += &format!("    tcp: [{{number: 1, range: {port}}}]\n");
            text += &format!("    connections: {}\n", its.max_tunnels());
        }
    }
    if plan.shop == Some(number) {
        for client in [plan.clients.len(), plan.clients.len() + 1] {
            text += &format!("  c{client}:\n    secret: s{client}\n    host: {{number: 2}}\n");
        }
    }
    text
}

fn client_text(
    number: usize,
    client: &ClientPlan,
    server: IpAddr,
    has_tcp: bool,
    is_swapped: bool,
) -> String {
    let wire = match client.program {
        Program::Gt | Program::Original => "auto",
        Program::Gt1 => "1",
        Program::Gt2 => "2",
    };
    let (scheme, port) = match client.tls {
        true => ("tls", TLS_PORT),
        false => ("tcp", PORT),
    };
    // With several tunnels from the start, one of them can be lost.
    let idle = match client.connections {
        3.. => client.connections,
        _ => 1,
    };
    let mut services = vec![format!("  - local: http://127.0.0.1:{}\n", service::HTTP)];
    if has_tcp {
        let port = FIRST_TCP + number as u16;
        services.push(format!(
            "  - local: tcp://127.0.0.1:{}\n    remoteTCPPort: {port}\n",
            service::TCP
        ));
    }
    if is_swapped {
        services.reverse();
    }
    format!(
        "type: client\noptions:\n  remote: {scheme}://{}:{port}\n  remoteCertInsecure: true\n  \
         id: c{number}\n  secret: s{number}\n  remoteConnections: {}\n  \
         remoteIdleConnections: {idle}\n  wire: {wire}\nservices:\n{}",
        remote_host(client, server),
        client.connections,
        services.concat()
    )
}

fn shop_text(number: usize, prefix: &str, server: IpAddr) -> String {
    format!(
        "type: client\noptions:\n  remote: tcp://{server}:{PORT}\n  id: c{number}\n  secret: s{number}\n\
         services:\n  - local: http://127.0.0.1:{}\n    hostPrefix: {prefix}\n",
        service::HTTP
    )
}
