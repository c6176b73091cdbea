//! What people have to hear of other brokers.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::Node;
use crate::ids::BrokerId;

/// How often it is said that a broker of another cluster is there.
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(30);

impl Node {
    /// Says whose silence has begun or ended since `heard` was noted.
    pub(super) fn say_who_is_heard(&self, heard: &mut BTreeMap<BrokerId, bool>) {
        let now: BTreeMap<BrokerId, bool> = {
            let liveness = self.liveness();
            liveness.peers().map(|peer| (peer, liveness.is_alive(peer))).collect()
        };
        for (peer, is_heard) in &now {
            match (heard.get(peer), is_heard) {
                (Some(false) | None, true) => tracing::info!(broker = peer.0, "a broker is heard"),
                (Some(true), false) => {
                    self.suspicions.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(broker = peer.0, "a broker is not heard any more");
                }
                _ => {}
            }
        }
        *heard = now;
    }

    /// Where a broker of this cluster is known to be there is one of another: nothing that it says is taken, and people have to hear of it.
    pub(super) fn say_stranger(&self, at: BrokerId, status: &tonic::Status) {
        let mut said = self.strangers.lock().expect("no panic under the lock of what was said");
        if said.get(&at).is_none_or(|said| said.elapsed() > SAY_AGAIN_AFTER) {
            said.insert(at, Instant::now());
            let address = self.peers.link(at).map(|link| link.address().to_owned()).unwrap_or_default();
            tracing::error!(
                broker = at.0,
                address,
                status = status.message(),
                "a broker of another cluster listens where one of this cluster is known to be: it lost its data directory and has founded a \
                 cluster of its own, or was given the address; nothing is exchanged with it"
            );
        }
    }
}
