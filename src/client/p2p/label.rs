//! The label of a channel or of a relay request, which names a service (docs/p2p.md, "Channels").

/// Prefix of a label that names a service.
const GT: &str = "gt:";
/// The label for a private service, which the key selects. No host prefix has a slash.
pub const PRIVATE: &str = "gt:/private";
/// The label for a private service over UDP.
pub const PRIVATE_UDP: &str = "gt:/private/udp";
/// Beginning of the label for a service at a UDP port of the server.
const UDP: &str = "gt:/udp/";

/// The service that a label names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceLabel<'a> {
    /// The first one.
    First,
    /// That with this host prefix or TCP port.
    Named(&'a str),
    /// That with this TCP port.
    Port(u16),
    /// That with this UDP port.
    UdpPort(u16),
    /// A private one, which the key selects.
    Private,
    /// A private one over UDP.
    PrivateUdp,
    /// None: the label breaks the rules.
    Unknown,
}

impl<'a> ServiceLabel<'a> {
    /// Parses a label.
    pub fn parse(label: &'a str) -> Self {
        match label {
            PRIVATE => return Self::Private,
            PRIVATE_UDP => return Self::PrivateUdp,
            _ => {}
        }
        if let Some(port) = label.strip_prefix(UDP) {
            return port.parse().map_or(Self::Unknown, Self::UdpPort);
        }
        // The forms of the original GT 2.x: `@PREFIX/…` and `:PORT/…`.
        let first = || label.split('/').next().unwrap_or_default();
        if let Some(prefix) = first().strip_prefix('@').filter(|it| !it.is_empty()) {
            return Self::Named(prefix);
        }
        if let Some(port) = first().strip_prefix(':') {
            return port.parse().map_or(Self::Unknown, Self::Port);
        }
        match label.strip_prefix(GT) {
            Some(prefix) if !prefix.is_empty() => Self::Named(prefix),
            _ => Self::First,
        }
    }
}

/// Returns the label for the service with this host prefix.
pub fn of_prefix(prefix: &str) -> String {
    format!("{GT}{prefix}")
}

/// Returns the label for the service with this UDP port.
pub fn of_udp_port(port: u16) -> String {
    format!("{UDP}{port}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_names_a_service_in_the_forms_of_gt_and_of_the_original() {
        use ServiceLabel::*;
        for (label, service) in [
            ("", First),
            ("anything", First),
            ("gt:", First),
            ("gt:web", Named("web")),
            ("gt:8080", Named("8080")),
            ("@web/", Named("web")),
            ("@web/x/y", Named("web")),
            ("@web", Named("web")),
            ("@/x", First),
            (":8080/x", Port(8080)),
            (":8080", Port(8080)),
            (":x/8080", Unknown),
            (":65536/", Unknown),
            ("gt:/udp/53", UdpPort(53)),
            ("gt:/udp/", Unknown),
            ("gt:/private", Private),
            ("gt:/private/udp", PrivateUdp),
            // No host prefix is like that.
            ("gt:/privat", Named("/privat")),
        ] {
            assert_eq!(ServiceLabel::parse(label), service, "{label:?}");
        }
        assert_eq!(ServiceLabel::parse(&of_prefix("web")), Named("web"));
        assert_eq!(ServiceLabel::parse(&of_udp_port(53)), UdpPort(53));
    }
}
