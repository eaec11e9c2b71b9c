//! What a seed decides: who lives in the world, and what happens to them. A plan is data, so that it can
//! be printed, and made smaller while a fault stays.

use gt::sim::Random;
use std::collections::BTreeSet;
use std::fmt;

/// Numbers that follow from a seed, for plans. The world has numbers of its own.
pub struct Dice(Random);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Random::new(seed ^ 0x5DEE_CE66))
    }

    /// Returns a number from `least` to `most`.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        self.0.between(least, most)
    }

    /// Returns an index below `count`.
    pub fn index(&mut self, count: usize) -> usize {
        self.between(0, count as u64 - 1) as usize
    }

    /// Returns true in one of `count` cases.
    pub fn chance(&mut self, count: u64) -> bool {
        self.between(1, count) == 1
    }

    /// Returns an item; each is as likely as its weight says.
    pub fn weighted<T: Copy>(&mut self, items: &[(u64, T)]) -> T {
        let all = items.iter().map(|(weight, _)| weight).sum::<u64>();
        let mut at = self.between(1, all);
        for (weight, item) in items {
            match at.checked_sub(*weight) {
                Some(0) | None => return *item,
                Some(rest) => at = rest,
            }
        }
        unreachable!("the weights add up")
    }

    /// Returns a length in bytes: mostly a short one, sometimes a long one.
    fn length(&mut self) -> usize {
        let most = self.weighted(&[(2, 1), (10, 100), (10, 5_000), (5, 70_000), (1, 400_000)]);
        self.between(0, most) as usize
    }
}

/// The world of a seed.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub servers: Vec<ServerPlan>,
    pub clients: Vec<ClientPlan>,
    pub visitors: Vec<VisitorPlan>,
    /// The server at which one more client has the prefix `shop`, which a rival would like to have.
    pub shop: Option<usize>,
    /// What happens, by the time in milliseconds.
    pub events: Vec<(u64, Event)>,
}

/// A server.
#[derive(Clone, Debug)]
pub struct ServerPlan {
    /// Delay between it and its clients, in milliseconds.
    pub delay: u64,
    /// Whether it limits the connections of an address to little more than there are visitors.
    pub limits_connections: bool,
}

/// A speed in bytes a second at which a long frame of GT/1 would take longer than the original waits.
const VERY_SLOW: u64 = 5_000;

/// A client, with an HTTP and a TCP service.
#[derive(Clone, Debug)]
pub struct ClientPlan {
    pub server: usize,
    pub program: Program,
    /// Whether its tunnels are TLS.
    pub tls: bool,
    /// Whether it knows its server by name.
    pub by_name: bool,
    pub connections: u64,
    /// Its limit in bytes a second; 0 for none.
    pub speed: u64,
}

impl ClientPlan {
    /// The longest answer that a visitor asks for.
    fn longest(&self) -> usize {
        match self.speed {
            VERY_SLOW => 2_000,
            _ => usize::MAX,
        }
    }

    /// The server's limit of its tunnels that take streams: what it needs at a restart of its own.
    pub fn max_tunnels(&self) -> u64 {
        self.connections + 2
    }
}

/// What a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// gt, with any version of the wire.
    Gt,
    /// gt with GT/1 alone.
    Gt1,
    /// gt with GT/2 alone.
    Gt2,
    /// A model of the original.
    Original,
}

/// A visitor of one client's services.
#[derive(Clone, Debug)]
pub struct VisitorPlan {
    pub client: usize,
    pub habit: Habit,
    /// Time of its first visit in milliseconds.
    pub from: u64,
    /// Milliseconds between visits.
    pub pause: u64,
    pub visits: usize,
}

/// What a visitor does each time.
#[derive(Clone, Copy, Debug)]
pub enum Habit {
    /// One request, one answer of this length.
    Get(usize),
    /// Requests over one connection.
    KeepAlive { requests: usize, length: usize },
    /// A proxy that sends requests for several clients of a server over one connection.
    Pool { requests: usize, length: usize },
    /// A request with a body of this length.
    Upload(usize),
    /// An answer without a length, which ends with the connection.
    Unbounded(usize),
    /// An answer that comes in pieces.
    SlowService(usize),
    /// Reads an answer in small pieces, with pauses.
    SlowReader(usize),
    /// Asks and does not read.
    NeverReads(usize),
    /// Closes the connection within an answer.
    GivesUp(usize),
    /// The service resets the connection within its answer.
    ServiceResets(usize),
    /// Connects and says nothing, or not all of a request.
    Silent(usize),
    /// Sends to a TCP service, ends its direction, and expects all back.
    Echo(usize),
    /// Reads from a TCP service that ends its direction first, and then sends.
    Source(usize),
}

/// What happens to a server or client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    ReloadServer(usize),
    ReloadClient(usize),
    RestartServer(usize),
    RestartClient(usize),
    RestartShop,
    /// A client, and its server, which has no reason to do anything.
    Wake(usize),
    /// The services of a client change places, while it is busy.
    SwapServices(usize),
    /// A client restarts again and again, each time with other services.
    Flap(usize),
    /// One of a client's tunnels loses all that it carries.
    LoseTunnel(usize),
    /// SIGTERM, and a new start after some milliseconds.
    StopServer(usize, u64),
    StopClient(usize, u64),
    /// SIGKILL, and a new start after some milliseconds.
    KillServer(usize, u64),
    KillClient(usize, u64),
    /// The link between a client and its server does not work for some milliseconds.
    Cut(usize, u64),
    /// All processes of a server or client are stopped for some milliseconds.
    FreezeServer(usize, u64),
    FreezeClient(usize, u64),
    /// Blocking work of a server or client hangs for some milliseconds.
    HangServer(usize, u64),
    HangClient(usize, u64),
    /// A server or client may open few more files for some milliseconds.
    FewFilesServer(usize, u64),
    FewFilesClient(usize, u64),
    /// A client has no TCP service for some milliseconds.
    DropService(usize, u64),
    /// The link between a client and its server is slow and loses segments for some milliseconds.
    SlowLink(usize, u64),
    /// The shop gives its prefix up, and its rival may have it.
    ShopMoves,
    /// The services of a client end, and start again after some milliseconds.
    KillService(usize, u64),
    /// Look-ups of names fail for some milliseconds.
    NamesFail(u64),
    /// The time of day jumps by some seconds.
    ClockJump(i64),
}

impl Plan {
    /// Plans the world of a seed.
    pub fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let servers = dice.weighted(&[(6, 1), (2, 2), (1, 3)]);
        let servers: Vec<ServerPlan> = (0..servers)
            .map(|_| ServerPlan {
                delay: dice.weighted(&[(3, 1), (3, 10), (1, 80)]),
                limits_connections: dice.chance(3),
            })
            .collect();
        let clients = dice.between(1, 4) as usize;
        let clients: Vec<ClientPlan> = (0..clients)
            .map(|_| {
                let server = dice.index(servers.len());
                let program = dice.weighted(&[
                    (10, Program::Gt),
                    (4, Program::Gt1),
                    (2, Program::Gt2),
                    (4, Program::Original),
                ]);
                ClientPlan {
                    server,
                    // Over GT/1, a visitor that has gone counts until half a minute later: its end
                    // may be that of one direction.
                    program: match servers[server].limits_connections {
                        true => Program::Gt2,
                        false => program,
                    },
                    tls: dice.chance(4),
                    by_name: dice.chance(3),
                    connections: dice.between(1, 4),
                    speed: match program {
                        Program::Original => dice.weighted(&[(6, 0), (2, VERY_SLOW), (1, 300_000)]),
                        _ => dice.weighted(&[(8, 0), (1, 20_000), (1, 300_000)]),
                    },
                }
            })
            .collect();
        let visitors = dice.weighted(&[(2, 3), (4, 8), (4, 20), (1, 50)]);
        let visitors = (0..visitors)
            .map(|_| {
                let client = dice.index(clients.len());
                VisitorPlan {
                    client,
                    habit: Habit::of(&mut dice, clients[client].longest()),
                    from: dice.between(2_000, 30_000),
                    pause: dice.weighted(&[(2, 50), (5, 1_000), (3, 10_000)]),
                    visits: dice.between(1, 30) as usize,
                }
            })
            .collect();
        let events = dice.weighted(&[(1, 0), (5, 3), (5, 8), (1, 20)]);
        let mut events: Vec<(u64, Event)> = (0..events)
            .map(|_| {
                let time = dice.between(3_000, 90_000);
                (time, Event::of(&mut dice, servers.len(), clients.len()))
            })
            .collect();
        let shop = dice.chance(3).then(|| dice.index(servers.len()));
        // Two at once: most faults are features that meet.
        for index in 1..events.len() {
            if dice.chance(3) {
                events[index].0 = events[index - 1].0 + dice.between(0, 300);
            }
        }
        events.sort_by_key(|(time, _)| *time);
        // One lost tunnel of a client tells enough. With a speed limit the server takes long to find it.
        let mut lost = BTreeSet::new();
        events.retain(|(_, event)| match event {
            Event::LoseTunnel(client) => clients[*client].speed == 0 && lost.insert(*client),
            _ => true,
        });
        Self {
            seed,
            servers,
            clients,
            visitors,
            shop,
            events,
        }
    }
}

impl Habit {
    /// Chooses a habit with lengths of at most `longest`; uploads may be longer.
    fn of(dice: &mut Dice, longest: usize) -> Self {
        let whole = dice.length();
        let length = whole.min(longest);
        match dice.between(0, 15) {
            0..=2 => Self::Get(length),
            3 | 4 => Self::KeepAlive {
                requests: dice.between(2, 8) as usize,
                length: length.min(50_000),
            },
            5 => Self::Upload(whole.min(longest.saturating_mul(25))),
            6 => Self::Unbounded(length),
            7 => Self::SlowService(length.min(20_000)),
            8 => Self::SlowReader(length.min(50_000)),
            9 => Self::NeverReads(length),
            10 => Self::GivesUp(length),
            11 => Self::ServiceResets(length),
            12 => Self::Echo(length),
            13 => Self::Silent(length % 60),
            14 => Self::Pool {
                requests: dice.between(2, 8) as usize,
                length: length.min(50_000),
            },
            _ => Self::Source(length),
        }
    }
}

impl Event {
    fn of(dice: &mut Dice, servers: usize, clients: usize) -> Self {
        let (server, client) = (dice.index(servers), dice.index(clients));
        let short = dice.between(0, 3_000);
        let long = dice.weighted(&[(3, 1_000), (3, 5_000), (2, 20_000), (1, 40_000)]);
        let long = dice.between(0, long);
        match dice.between(0, 43) {
            0 | 1 => Self::ReloadServer(server),
            2 | 3 => Self::ReloadClient(client),
            4..=7 => Self::RestartServer(server),
            8 | 9 => Self::RestartClient(client),
            10 => Self::RestartShop,
            11 => Self::StopServer(server, short),
            12 => Self::StopClient(client, short),
            13 => Self::KillServer(server, short),
            14 => Self::KillClient(client, short),
            15..=17 => Self::Cut(client, long),
            18 => Self::FreezeServer(server, long),
            19 => Self::FreezeClient(client, long),
            20 => Self::HangServer(server, long),
            21 => Self::HangClient(client, long),
            22 => Self::FewFilesServer(server, short),
            23 => Self::FewFilesClient(client, short),
            24..=26 => Self::DropService(client, short),
            27 | 28 => Self::SlowLink(client, long),
            29 | 30 => Self::NamesFail(long),
            31 | 32 => Self::KillService(client, short),
            33 | 34 => Self::ShopMoves,
            35..=37 => Self::SwapServices(client),
            38 => Self::Flap(client),
            39..=41 => Self::LoseTunnel(client),
            42 => Self::Wake(client),
            _ => Self::ClockJump(dice.between(0, 20_000_000) as i64 - 10_000_000),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, server) in self.servers.iter().enumerate() {
            writeln!(f, "server{number}: {server:?}")?;
        }
        for (number, client) in self.clients.iter().enumerate() {
            writeln!(f, "client{number}: {client:?}")?;
        }
        for (number, visitor) in self.visitors.iter().enumerate() {
            writeln!(f, "visitor{number}: {visitor:?}")?;
        }
        if let Some(server) = self.shop {
            writeln!(f, "a shop and its rival at server{server}")?;
        }
        for (time, event) in &self.events {
            writeln!(f, "at {time} ms: {event:?}")?;
        }
        Ok(())
    }
}
