//! The numbers of SOCKS5 (RFC 1928, RFC 1929), for either end. Not the messages, see `client::proxy` and `outbound`.

/// The version of SOCKS.
pub const VERSION: u8 = 5;
/// The version of the negotiation about a name and a password (RFC 1929, section 2).
pub const PASSWORD_VERSION: u8 = 1;
/// The authentication method without a password.
pub const NO_PASSWORD: u8 = 0;
/// The authentication method with a name and a password.
pub const PASSWORD: u8 = 2;
/// Says that none of the methods will do.
pub const NO_METHOD: u8 = 0xFF;
/// The command to connect.
pub const CONNECT: u8 = 1;
/// The command to pass datagrams on.
pub const UDP_ASSOCIATE: u8 = 3;
/// The type of an IPv4 address.
pub const IPV4: u8 = 1;
/// The type of a name.
pub const NAME: u8 = 3;
/// The type of an IPv6 address.
pub const IPV6: u8 = 4;

/// The codes of replies (RFC 1928, section 6).
pub mod reply {
    /// Succeeded.
    pub const SUCCEEDED: u8 = 0;
    /// General failure of the server.
    pub const FAILED: u8 = 1;
    /// Connection not allowed by ruleset.
    pub const NOT_ALLOWED: u8 = 2;
    /// Network unreachable.
    pub const NETWORK_UNREACHABLE: u8 = 3;
    /// Host unreachable.
    pub const HOST_UNREACHABLE: u8 = 4;
    /// Connection refused.
    pub const REFUSED: u8 = 5;
    /// TTL expired.
    pub const EXPIRED: u8 = 6;
    /// Command not supported.
    pub const NO_COMMAND: u8 = 7;
    /// Address type not supported.
    pub const NO_ADDRESS_TYPE: u8 = 8;
}
