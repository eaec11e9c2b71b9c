//! The events of gt that tests wait for in its log. Each wording stands here and nowhere else; a
//! message that is what a test checks stands in that test.

use super::eventually;
use super::gt::{Gt, Successor};
use super::process::TAKES_OVER;

const ATTEMPT: &str = "trying to connect to remote connID=";
const UNREACHABLE: &str = "cannot reach the server";
/// Ends a line about a failed attempt, before the wait for the next one.
const AGAIN: &str = " again in ";
const BAD_LOGIN: &str = "invalid id and secret";
/// At a client.
const STARTED: &str = "tunnel started connID=";
/// At a server.
const OPENED: &str = "tunnel opened id=";
/// At a server: the new process of a restart has it.
const MOVED: &str = "tunnel taken over id=";
const CLOSED: &str = "tunnel closed ";
const REFUSED: &str = "refused";
const AUTH_API: &str = "authAPI http://";
const FAILED_LOGIN: &str = "has failed to authenticate";
/// Why a server has closed a tunnel.
const SILENT: &str = "nothing was heard for";
const SILENT_WITH_VISITORS: &str = "while visitors wait";
const DEAD: &str = "it gave no sign of life when its client came back";
const OVERRUN: &str = "more bytes for stream";
const PORT_OPENED: &str = "receive server information: tcp port ";
const SERVICES_CHANGED: &str = "services changed ";
const ASKS_FOR_ANOTHER: &str = "the server asks for a new tunnel";
const PEER_CONNECTED: &str = "peer connected";
const PEER_GONE: &str = "peer gone: ";
const NO_PEER: &str = "no direct connection to ";
const STOPPING: &str = "stopping";
const RELOADED: &str = " INF reloaded";
const WOKEN: &str = " DBG woken";
const NOT_RELOADED: &str = " ERR not reloaded, everything stays as it was: ";
const QUIC_KEY: &str = "the key of this server at quicAddr is ";
const MOVED_SOCKET: &str = " goes on from UDP port ";
const QUIC_HANDSHAKE: &str = "QUIC handshake";
const NOT_RESTARTED: &str = " ERR not restarted";
const WARNING: &str = " WRN ";
const ERROR: &str = " ERR ";

/// Of a client.
impl Gt {
    /// Waits until it tries to connect.
    pub fn wait_for_attempt(&mut self) {
        self.wait_for(ATTEMPT);
    }

    /// Returns how often it has tried to connect.
    pub fn attempts(&self) -> usize {
        self.lines_with(ATTEMPT).len()
    }

    /// Waits until an attempt has failed; returns the line that also says how long it waits.
    pub fn wait_for_failure(&mut self) -> String {
        self.wait_for(AGAIN)
    }

    /// Waits until `count` attempts have failed.
    pub fn wait_for_failures(&mut self, count: usize) {
        self.wait_for_lines(AGAIN, count);
    }

    /// Returns the waits, in seconds, that it has logged before its attempts.
    pub fn waits(&self) -> Vec<f32> {
        let lines = self.lines_with(AGAIN);
        lines.iter().map(|line| wait_of(line)).collect()
    }

    /// Waits until `count` attempts have not reached a server.
    pub fn wait_for_unreachable(&mut self, count: usize) {
        self.wait_for_lines(UNREACHABLE, count);
    }

    /// Waits until the server has refused its id and secret.
    pub fn wait_for_bad_login(&mut self) {
        self.wait_for(BAD_LOGIN);
    }

    /// Returns how often the server has refused its id and secret.
    pub fn bad_logins(&self) -> usize {
        self.lines_with(BAD_LOGIN).len()
    }

    /// Waits until a client has failed to open a tunnel a few times. Checks that each attempt logs
    /// one line with all of `why`, that the waits grow, and that it continues.
    pub fn assert_keeps_failing(&mut self, why: &[&str]) {
        let failures = self.wait_for_lines(AGAIN, 4);
        let all = self.lines_with("");
        let tried = all.iter().position(|line| line.contains(ATTEMPT));
        let since = &all[tried.expect("a first try") + 1..];
        for line in since {
            for word in why.iter().chain([&AGAIN, &WARNING]) {
                assert!(line.contains(word), "{line:?} should say {word:?}");
            }
        }
        assert!(
            wait_of(&failures[3]) > wait_of(&failures[0]),
            "{failures:?}"
        );
        assert!(self.has_ended().is_none(), "it should go on trying");
    }

    /// Waits for a tunnel.
    pub fn wait_for_tunnel(&mut self) {
        self.wait_for_tunnels(1);
    }

    /// Waits until it has had `count` tunnels.
    pub fn wait_for_tunnels(&mut self, count: usize) {
        self.wait_for_lines(STARTED, count);
    }

    /// Waits until its first attempt has led to a tunnel.
    pub fn wait_for_first_tunnel(&mut self) {
        self.wait_for(&format!("{STARTED}1"));
    }

    /// Returns how many tunnels it has had.
    pub fn tunnels(&self) -> usize {
        self.lines_with(STARTED).len()
    }

    /// Returns the port that the server has opened for the `index`th TCP service.
    pub fn wait_for_port(&mut self, index: usize) -> u16 {
        let lines = self.wait_for_lines(PORT_OPENED, index + 1);
        let line = &lines[index];
        let rest = &line[line.find(PORT_OPENED).unwrap() + PORT_OPENED.len()..];
        let (port, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        assert!(rest.starts_with("opened successfully connID="), "{line}");
        port.parse().unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    /// Waits until the server has opened this port for it.
    pub fn wait_for_opened_port(&mut self, port: u16) {
        self.wait_for(&format!("{PORT_OPENED}{port} opened successfully connID="));
    }

    /// Waits until the server has taken its changed services.
    pub fn wait_for_changed_services(&mut self) {
        self.wait_for(SERVICES_CHANGED);
    }

    /// Waits until the server has asked for another tunnel.
    pub fn wait_for_reconnect_request(&mut self) {
        self.wait_for(ASKS_FOR_ANOTHER);
    }

    /// Returns how often the server has asked for another tunnel.
    pub fn reconnect_requests(&self) -> usize {
        self.lines_with(ASKS_FOR_ANOTHER).len()
    }

    /// Waits until it has had `count` P2P peers.
    pub fn wait_for_peers(&mut self, count: usize) {
        self.wait_for_lines(PEER_CONNECTED, count);
    }

    /// Returns how many P2P peers have connected.
    pub fn peers(&self) -> usize {
        self.lines_with(PEER_CONNECTED).len()
    }

    /// Waits until it reaches the client `id1` directly, and returns the line.
    pub fn wait_for_direct_way(&mut self) -> String {
        self.wait_for("the way to id1 is direct")
    }

    /// Waits until `count` P2P peers are gone.
    pub fn wait_for_gone_peers(&mut self, count: usize) {
        self.wait_for_lines(PEER_GONE, count);
    }

    /// Returns the lines about P2P peers that are gone, with the reasons.
    pub fn gone_peers(&self) -> Vec<String> {
        self.lines_with(PEER_GONE)
    }

    /// Waits until it has given up to reach the client `id1` directly.
    pub fn wait_for_no_direct_connection(&mut self) {
        self.wait_for(&format!("{NO_PEER}id1 came up in time"));
    }

    /// Whether it has always reached other clients directly.
    pub fn is_always_direct(&self) -> bool {
        self.lines_with(NO_PEER).is_empty()
    }
}

/// Of a server.
impl Gt {
    /// Waits until it has accepted `count` tunnels.
    pub fn wait_for_opened(&mut self, count: usize) {
        self.wait_for_lines(OPENED, count);
    }

    /// Waits until it has accepted a tunnel of the client `id`.
    pub fn wait_for_opened_by(&mut self, id: &str) {
        self.wait_for(&format!("{OPENED}{id} "));
    }

    /// Returns the lines about the tunnels that it has accepted.
    pub fn opened(&self) -> Vec<String> {
        self.lines_with(OPENED)
    }

    /// Waits until `count` tunnels of the client `id` have ended.
    pub fn wait_for_closed_of(&mut self, id: &str, count: usize) {
        self.wait_for_lines(&format!("{CLOSED}id={id} "), count);
    }

    /// Waits until a tunnel has moved to the new process of a restart.
    pub fn wait_for_moved_tunnel(&mut self) {
        self.wait_for(MOVED);
    }

    /// Returns how many changes of services of clients with the id `id` have been logged.
    pub fn changes_of(&self, id: &str) -> usize {
        self.lines_with(&format!("{SERVICES_CHANGED}id={id} "))
            .len()
    }

    /// Returns the lines that say that something was refused.
    pub fn refusals(&self) -> Vec<String> {
        self.lines_with(REFUSED)
    }

    /// Waits until it has closed a tunnel because its client was silent.
    pub fn wait_for_silent_client(&mut self) {
        self.wait_for(SILENT);
    }

    /// Whether it has closed a tunnel because its client was silent.
    pub fn has_closed_silent(&self) -> bool {
        !self.lines_with(SILENT).is_empty()
    }

    /// Waits until it has closed a tunnel because its client was silent while visitors waited.
    pub fn wait_for_silent_with_visitors(&mut self) {
        self.wait_for(SILENT_WITH_VISITORS);
    }

    /// Whether it has closed a tunnel because its client was silent while visitors waited.
    pub fn has_closed_silent_with_visitors(&self) -> bool {
        !self.lines_with(SILENT_WITH_VISITORS).is_empty()
    }

    /// Waits until it has closed a tunnel whose client came back without it.
    pub fn wait_for_dead_tunnel(&mut self) {
        self.wait_for(DEAD);
    }

    /// Waits until it has closed a tunnel for bytes beyond a stream's window.
    pub fn wait_for_overrun(&mut self) {
        self.wait_for(OVERRUN);
    }

    /// Waits until `authAPI` has failed; returns the line with the reason.
    pub fn wait_for_failed_auth_api(&mut self) -> String {
        self.wait_for(AUTH_API)
    }

    /// Returns how many failures of `authAPI` it has logged.
    pub fn auth_api_failures(&self) -> usize {
        self.lines_with(AUTH_API).len()
    }

    /// Waits until it could not open this port for a client; returns the line with the reason.
    pub fn wait_for_unopened_port(&mut self, port: u16) -> String {
        self.wait_for(&format!("cannot open TCP port {port} "))
    }

    /// Waits until an address has failed to log in `count` times.
    pub fn wait_for_failed_logins(&mut self, count: usize) -> String {
        self.wait_for(&format!("{FAILED_LOGIN} {count} times"))
    }

    /// Returns the lines about failed logins.
    pub fn failed_logins(&self) -> Vec<String> {
        self.lines_with(FAILED_LOGIN)
    }

    /// Waits until it could not accept a connection at this address.
    pub fn wait_for_failed_accept(&mut self, addr: std::net::SocketAddr) {
        self.wait_for(&format!("accepting on {addr}: "));
    }
}

/// Of either role.
impl Gt {
    /// Waits until `count` tunnels have ended; returns the lines with the reasons.
    pub fn wait_for_closed(&mut self, count: usize) -> Vec<String> {
        self.wait_for_lines(CLOSED, count)
    }

    /// Returns how many tunnels have ended.
    pub fn closed(&self) -> usize {
        self.lines_with(CLOSED).len()
    }

    /// Waits until it is about to end.
    pub fn wait_for_stopping(&mut self) {
        self.wait_for(STOPPING);
    }

    /// Waits for a warning.
    pub fn wait_for_warning(&mut self) -> String {
        self.wait_for(WARNING)
    }

    pub fn warnings(&self) -> Vec<String> {
        self.lines_with(WARNING)
    }

    pub fn errors(&self) -> Vec<String> {
        self.lines_with(ERROR)
    }

    /// Reloads the configuration and waits until it is in force.
    pub fn reload(&mut self) {
        self.signal_for("HUP", RELOADED);
    }

    /// Reloads an unusable configuration and returns the line that says why nothing has changed.
    pub fn reload_in_vain(&mut self) -> String {
        self.signal_for("HUP", NOT_RELOADED)
    }

    /// Waits until a configuration has come into force for the `count`th time after the start.
    pub fn wait_for_reloaded(&mut self, count: usize) {
        self.wait_for_lines(RELOADED, count);
    }

    /// Sends SIGUSR1 and waits until gt has acted on it; needs its log level to be `debug`.
    pub fn wake(&mut self) {
        self.signal_for("USR1", WOKEN);
    }

    /// Waits for a reload that changes nothing; returns the line with the reason.
    pub fn wait_for_failed_reload(&mut self) -> String {
        self.wait_for(NOT_RELOADED)
    }

    /// Returns the fingerprints of servers' keys for QUIC, where they are not those for TLS.
    pub fn quic_keys(&self) -> Vec<String> {
        let lines = self.lines_with(QUIC_KEY).into_iter();
        let key = |line: String| Some(line.split_once(QUIC_KEY)?.1.split(' ').next()?.to_owned());
        lines.filter_map(key).collect()
    }

    /// Returns how often a client's connection over QUIC has moved to another socket.
    pub fn moved_sockets(&self) -> usize {
        self.lines_with(MOVED_SOCKET).len()
    }

    /// Returns how many handshakes of QUIC have failed, at debug level.
    pub fn failed_quic_handshakes(&self) -> usize {
        self.lines_with(QUIC_HANDSHAKE).len()
    }

    /// Returns how often the configuration has been reloaded.
    pub fn reloads(&self) -> usize {
        self.lines_with(RELOADED).len()
    }

    /// Restarts gt and waits until the new process has taken over. The new process writes to the
    /// same log.
    pub fn restart(&mut self) -> Successor {
        Successor::named_by(&self.signal_for("QUIT", TAKES_OVER))
    }

    /// Restarts `newest`, the process of the last restart, and waits until another one has taken
    /// over.
    pub fn restart_again(&mut self, newest: &Successor) -> Successor {
        let before = self.restarts();
        newest.signal("QUIT");
        // The first process may have ended meanwhile.
        let line = eventually("another process to take over", || {
            self.lines_with(TAKES_OVER).into_iter().nth(before)
        });
        Successor::named_by(&line)
    }

    /// Waits until another process has taken over.
    pub fn wait_for_successor(&mut self) -> Successor {
        Successor::named_by(&self.wait_for(TAKES_OVER))
    }

    /// Returns how often another process has taken over.
    pub fn restarts(&self) -> usize {
        self.lines_with(TAKES_OVER).len()
    }

    /// Tries a restart that cannot succeed and returns the line that says why.
    pub fn restart_in_vain(&mut self) -> String {
        self.signal_for("QUIT", NOT_RESTARTED)
    }

    /// Waits for a restart that has failed; returns the line with the reason.
    pub fn wait_for_failed_restart(&mut self) -> String {
        self.wait_for(NOT_RESTARTED)
    }

    /// Returns how many restarts have failed.
    pub fn failed_restarts(&self) -> usize {
        self.lines_with(NOT_RESTARTED).len()
    }

    /// Sends a signal and waits for a new line with `text`.
    fn signal_for(&mut self, signal: &str, text: &str) -> String {
        let before = self.lines_with(text).len();
        self.signal(signal);
        self.wait_for_lines(text, before + 1).remove(before)
    }
}

impl Successor {
    /// Finds the process that this log line names.
    fn named_by(line: &str) -> Successor {
        let said = line.split(TAKES_OVER).next().unwrap_or_default();
        let pid = said.rsplit(' ').next().unwrap_or_default();
        Successor {
            pid: pid.parse().unwrap_or_else(|e| panic!("{line}: {e}")),
        }
    }
}

/// Returns the seconds at the end of a line about a failed attempt.
fn wait_of(line: &str) -> f32 {
    let seconds = line.rsplit(AGAIN).next().unwrap_or_default();
    let seconds = seconds.trim_end_matches('s').parse();
    seconds.unwrap_or_else(|e| panic!("{line}: {e}"))
}
