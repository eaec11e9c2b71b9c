//! The options about the way to servers, `remoteBind` and `remoteProxy`, as values. Not their use, see
//! `net::outbound`. Builds without it have `no_outbound`.

mod link;
mod proxy;
