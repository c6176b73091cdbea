//! The brokers that this one talks to.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use super::ended::{Ended, EndedHook};
use super::link::Link;
use super::pace::Pace;
use crate::ids::BrokerId;
use crate::net::Network;

/// The ways to all peers, made when first used.
pub struct Peers {
    network: Arc<dyn Network>,
    cluster: String,
    links: RwLock<BTreeMap<BrokerId, Arc<Link>>>,
    ended: Ended,
    pace: Pace,
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Peers of {}", self.cluster)
    }
}

impl Peers {
    /// No peers yet, of the cluster with that id. New replicas are filled as fast as it goes.
    #[must_use]
    pub fn new(network: Arc<dyn Network>, cluster: &str) -> Arc<Self> {
        Self::paced(network, cluster, 0)
    }

    /// The same; new replicas are filled at so many bytes a second, over all of them.
    #[must_use]
    pub fn paced(network: Arc<dyn Network>, cluster: &str, bytes_per_second: u64) -> Arc<Self> {
        let pace = Pace::new(bytes_per_second);
        Arc::new(Self { network, cluster: cluster.to_owned(), links: RwLock::default(), ended: Ended::default(), pace })
    }

    /// How fast new replicas are filled.
    pub(super) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Says who hears at once when a connection to a peer has ended. Once.
    pub fn on_ended(&self, hook: EndedHook) {
        self.ended.set(hook);
    }

    /// Looks whether connections have ended, before anybody has read their end.
    pub fn look_for_ended(&self) {
        self.ended.look(tokio::time::Instant::now);
    }

    /// A broker listens at `address` (`host:port`) for its peers. At another one than before, what is under way to the old one is given up.
    ///
    /// # Errors
    /// If that is no address.
    pub fn set_address(&self, broker: BrokerId, address: &str) -> Result<(), tonic::transport::Error> {
        if self.link(broker).is_some_and(|link| link.address() == address) {
            return Ok(());
        }
        let link = Link::new(broker, address, &self.cluster, &self.network, &self.ended)?;
        let before = self.links.write().expect("no panic under the peers' lock").insert(broker, link);
        if let Some(before) = before {
            before.break_off();
        }
        Ok(())
    }

    /// A broker has left: what is under way to it is given up.
    pub fn remove(&self, broker: BrokerId) {
        if let Some(gone) = self.links.write().expect("no panic under the peers' lock").remove(&broker) {
            gone.break_off();
        }
    }

    /// All peers, and where they are.
    #[must_use]
    pub fn addresses(&self) -> Vec<(BrokerId, String)> {
        let links = self.links.read().expect("no panic under the peers' lock");
        links.iter().map(|(broker, link)| (*broker, link.address().to_owned())).collect()
    }

    /// The way to a broker, if its address is known.
    #[must_use]
    pub fn link(&self, broker: BrokerId) -> Option<Arc<Link>> {
        self.links.read().expect("no panic under the peers' lock").get(&broker).cloned()
    }
}
