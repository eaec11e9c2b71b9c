//! The link between the servers of this process and those of its parent or child during a restart:
//! this module reads and ends it. `server::transfer` sends the messages and acts on them.

use super::role::{all, RoleSet, RoleSource};
use crate::handover::{Message, ProcessLink, ProcessMessages};
use crate::net::kernel::OwnedFd;
use crate::net::{clock, timeout, Shutdown};
use crate::server::{MessageOrigin, Recipient, Server, MOVE_TIMEOUT};
use futures_lite::future;
use std::sync::Arc;
use std::time::Duration;

/// Time that the other process has to end the link.
const LINK_END_TIMEOUT: Duration = Duration::from_secs(10);

/// Links the servers to those of the parent process. Returns the parent's end of the link.
pub fn with_parent(servers: &RoleSet<Arc<Server>>) -> Option<OwnedFd> {
    if servers.is_empty() {
        return None;
    }
    let pair = ProcessLink::pair();
    let link = pair.and_then(|(near, far)| Ok((ProcessLink::new(near)?, far)));
    let ((link, incoming), far) = match link {
        Ok(link) => link,
        Err(e) => {
            log::warn!("tunnels stay in the old process until they end: no link to it: {e}");
            return None;
        }
    };
    for (source, server) in servers.iter() {
        server.set_parent(link.of_role(source));
    }
    let recipients = recipients(servers);
    crate::net::spawn(async move {
        read(&recipients, incoming, MessageOrigin::Parent).await;
        for (_, recipient) in recipients {
            recipient.lose_parent();
        }
    });
    Some(far)
}

/// Hands the servers over to the child process. Returns when they have ended, at the latest after
/// `patience`.
pub async fn with_child(
    servers: &RoleSet<Arc<Server>>,
    link: Option<(ProcessLink, ProcessMessages)>,
    patience: Duration,
) {
    let Some((link, incoming)) = link else {
        all(servers
            .iter()
            .map(|(_, server)| server.drain(patience, None)))
        .await;
        return;
    };
    let (recipients, ended) = (recipients(servers), Shutdown::default());
    let reading = ended.clone();
    crate::net::spawn(async move {
        read(&recipients, incoming, MessageOrigin::Child).await;
        reading.trigger();
    });
    let deadline = clock::now() + patience;
    let making_way = all(servers.iter().map(|(source, server)| {
        let link = link.of_role(source);
        server.drain(patience, Some(link))
    }));
    let talking = async {
        // The last tunnels move after their streams have been cut at the end of the patience.
        timeout(
            patience + MOVE_TIMEOUT,
            all(servers.iter().map(|(_, server)| server.transfer_finished())),
        )
        .await;
        // Messages that the child sent before it reads `Done` still arrive and are answered.
        for (source, _) in servers.iter() {
            let _ = link.of_role(source).send(&Message::Done, None).await;
        }
        timeout(LINK_END_TIMEOUT, ended.wait()).await;
        all(servers
            .iter()
            .map(|(_, server)| server.visitors_forwarded(LINK_END_TIMEOUT)))
        .await;
        link.close();
        link.flush(LINK_END_TIMEOUT).await;
    };
    future::zip(making_way, talking).await;
    // A visitor that came last over the link, and went back, may need a bridge of this process.
    all(servers.iter().map(|(_, server)| {
        let patience = deadline.saturating_duration_since(clock::now());
        server.close(patience)
    }))
    .await;
}

fn recipients(servers: &RoleSet<Arc<Server>>) -> Vec<(RoleSource, Recipient)> {
    let servers = servers.iter();
    servers
        .map(|(source, server)| (source.clone(), server.recipient()))
        .collect()
}

/// Dispatches each message to the server it is for, until the other process ends the link.
async fn read(
    recipients: &[(RoleSource, Recipient)],
    mut incoming: ProcessMessages,
    from: MessageOrigin,
) {
    while let Some((role, message, socket)) = incoming.next().await {
        let mut recipients = recipients.iter();
        // Messages for a server that this process does not run are dropped.
        if let Some((_, recipient)) = recipients.find(|(source, _)| *source == role) {
            recipient.handle(from, message, socket).await;
        }
    }
}
