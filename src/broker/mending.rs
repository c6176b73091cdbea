//! Sees to damage in this broker's logs: puts in its place what other replicas hold.
//!
//! Damage that a start finds is mended before the group is opened: until then the replica takes part in nothing. Damage that is found later, by a reader
//! or by the scrub, is mended while the group goes on; what is damaged is not served meanwhile, and a replica that leads makes room for
//! another one if it cannot be mended at once. Without another replica, damage stays and is the operator's (`ottla repair`).

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::blocking::on_disk;
use super::{Inner, stopped};
use crate::ids::{BrokerId, PartitionId, ReplicaId};
use crate::log::disk::Lane;
use crate::log::journal::Journal;
use crate::log::{Damage, Gap, Log, MendError, Tender};
use crate::machine::controller::Controller;
use crate::metrics::Metrics;
use crate::raft::Node;
use crate::raft::transport::lending::borrow;
use crate::raft::transport::link::Link;
use crate::replica::controller::ControllerHandle;
use crate::replica::election::hand_over;
use crate::replica::set::{Held, ReplicaSet};

/// How soon it is tried again to mend what could not be, and at most how late.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(30);
/// Groups that are mended at the same time.
const AT_ONCE: usize = 4;

/// Hears of damage, and remembers which logs have some.
pub(super) struct Mender {
    due: Mutex<BTreeSet<PartitionId>>,
    wake: Notify,
    metrics: Arc<Metrics>,
    /// This broker among the others, if there are to be any.
    among: Option<Arc<Node>>,
    controller: OnceLock<Weak<ControllerHandle>>,
}

/// One log's tender.
struct OfLog {
    id: PartitionId,
    mender: Arc<Mender>,
}

impl Tender for OfLog {
    fn found(&self, damage: &Damage) {
        self.mender.metrics.corrupt_ranges.inc();
        if self.mends() {
            tracing::error!(partition = %self.id, %damage, "a range of the log is damaged; it is fetched from another replica");
            self.mender.due().insert(self.id);
            self.mender.wake.notify_one();
        } else {
            tracing::error!(
                partition = %self.id, %damage,
                "a range of the log is damaged and is not served; no other replica has it: run `ottla repair`"
            );
        }
    }

    fn still_there(&self) {
        if self.mends() {
            self.mender.due().insert(self.id);
            self.mender.wake.notify_one();
        }
    }

    fn mends(&self) -> bool {
        !self.mender.peers(self.id).is_empty()
    }
}

impl Mender {
    pub(super) fn new(metrics: &Arc<Metrics>, among: Option<&Arc<Node>>) -> Arc<Self> {
        let (due, wake, controller) = (Mutex::default(), Notify::new(), OnceLock::new());
        Arc::new(Self { due, wake, metrics: Arc::clone(metrics), among: among.cloned(), controller })
    }

    /// Who knows where replicas are.
    pub(super) fn knows(&self, controller: Arc<ControllerHandle>) -> Arc<ControllerHandle> {
        drop(self.controller.set(Arc::downgrade(&controller)));
        controller
    }

    /// Sees to a log from now on, and lets others borrow from it.
    pub(super) fn tend(self: &Arc<Self>, log: &Arc<Log>) {
        log.set_tender(Box::new(OfLog { id: log.id(), mender: Arc::clone(self) }));
        if let Some(node) = &self.among {
            node.groups().lend(log);
        }
        let known = log.damage().len();
        self.metrics.corrupt_ranges.inc_by(u64::try_from(known).expect("a count fits"));
        if known > 0 && !log.is_tended() {
            tracing::error!(partition = %log.id(), "what is damaged is not served, and no other replica has it; run `ottla repair`");
        }
    }

    /// The other brokers that have a group's log, those first that are heard.
    fn peers(&self, id: PartitionId) -> Vec<BrokerId> {
        let (Some(node), Some(controller)) = (&self.among, self.controller.get().and_then(Weak::upgrade)) else {
            return Vec::new();
        };
        let me = node.me();
        let mut peers: Vec<BrokerId> = controller.read(|controller| match id {
            PartitionId::CONTROLLER => controller.brokers().map(|(broker, _)| broker).collect(),
            _ => {
                let removing = controller.moving(id).map(|moving| moving.removing.as_slice()).unwrap_or_default();
                let all = controller.replicas(id).unwrap_or_default().iter().chain(removing);
                all.map(|replica| replica.broker).collect()
            }
        });
        peers.retain(|peer| *peer != me);
        peers.sort_by_key(|peer| (!node.is_alive(*peer), *peer));
        peers
    }

    fn links(&self, id: PartitionId) -> Vec<Arc<Link>> {
        let links = |node: &Arc<Node>| self.peers(id).into_iter().filter_map(|peer| node.peers().link(peer)).collect();
        self.among.as_ref().map(links).unwrap_or_default()
    }

    fn due(&self) -> std::sync::MutexGuard<'_, BTreeSet<PartitionId>> {
        self.due.lock().expect("no panic under the lock of what is damaged")
    }

    /// Mends all damage of a log that can be mended. An error is what is left, and why, for people.
    pub(super) async fn mend(&self, log: &Arc<Log>) -> Result<(), String> {
        let links = self.links(log.id());
        self.mend_by(log, &links).await
    }

    /// The same, with what these peers hold.
    pub(super) async fn mend_by(&self, log: &Arc<Log>, links: &[Arc<Link>]) -> Result<(), String> {
        loop {
            let (disk, looked_at) = (log.disk(), Arc::clone(log));
            let found =
                on_disk(&disk, Lane::Read, move || looked_at.gaps()).await.map_err(|error| error.to_string())?;
            let found = found.map_err(|error| error.to_string())?;
            let mut left: Vec<String> = Vec::new();
            left.extend(
                found.unproven.iter().map(|damage| format!("{damage}: nothing says which entries stood there")),
            );
            let mut has_mended = false;
            for gap in found.gaps {
                let damage = gap.damage();
                match fill(log, gap, links).await {
                    Ok(from) => {
                        has_mended = true;
                        self.metrics.mended_ranges.inc();
                        tracing::warn!(partition = %log.id(), %damage, %from, "a damaged range is whole again");
                    }
                    Err(why) => left.push(format!("{damage}: {why}")),
                }
            }
            if left.is_empty() {
                return Ok(());
            }
            if !has_mended {
                return Err(left.join("; "));
            }
        }
    }
}

/// Fills a gap with what one peer after the other has. Answers who had the last of it.
async fn fill(log: &Arc<Log>, mut gap: Gap, links: &[Arc<Link>]) -> Result<String, String> {
    let mut refusals = Vec::new();
    for link in links {
        loop {
            let lent = match borrow(link, log.id(), gap.wanted(), gap.witness).await {
                Ok(lent) => lent,
                Err(why) => {
                    refusals.push(why);
                    break;
                }
            };
            let (disk, log) = (log.disk(), Arc::clone(log));
            let work = move || {
                let mended = log.mend(&mut gap, &lent);
                (gap, mended)
            };
            let mended;
            (gap, mended) = on_disk(&disk, Lane::Read, work).await.map_err(|error| error.to_string())?;
            match mended {
                Ok(true) | Err(MendError::Gone) => return Ok(format!("{link:?}")),
                Ok(false) => {}
                Err(why) => {
                    refusals.push(format!("{link:?}: {why}"));
                    break;
                }
            }
        }
    }
    Err(if refusals.is_empty() { "no other replica can be reached".to_owned() } else { refusals.join("; ") })
}

/// When a log is looked at again.
struct Again {
    at: Instant,
    after: Duration,
    said: String,
}

/// Mends what is found, until `stop` turns true.
pub(super) async fn run(inner: Arc<Inner>, mut stop: watch::Receiver<bool>) {
    let mut again: BTreeMap<PartitionId, Again> = BTreeMap::new();
    loop {
        let mut due = std::mem::take(&mut *inner.mender.due());
        let now = Instant::now();
        due.extend(again.iter().filter(|(_, again)| again.at <= now).map(|(id, _)| *id));
        let mending = futures::stream::iter(due).map(|id| {
            let inner = &inner;
            let is_first = !again.contains_key(&id);
            async move { (id, inner.mend_group(id, is_first).await) }
        });
        let mended: Vec<_> = mending.buffer_unordered(AT_ONCE).collect().await;
        for (id, mended) in mended {
            match mended {
                Ok(()) => drop(again.remove(&id)),
                Err(why) => wait(&mut again, id, why),
            }
        }
        let next = again.values().map(|again| again.at).min();
        let next = next.unwrap_or_else(|| Instant::now() + AGAIN_AFTER_MAX);
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            () = inner.mender.wake.notified() => {}
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

fn wait(again: &mut BTreeMap<PartitionId, Again>, id: PartitionId, why: String) {
    let before = again.remove(&id);
    if before.as_ref().is_none_or(|before| before.said != why) {
        tracing::error!(partition = %id, why, "damage could not be mended; it is tried again");
    }
    let after = before.map_or(AGAIN_AFTER, |before| (before.after * 2).min(AGAIN_AFTER_MAX));
    again.insert(id, Again { at: Instant::now() + after, after, said: why });
}

impl Inner {
    /// Mends a group's log; one whose replica leads makes room for another one, once, if that does not work at once.
    async fn mend_group(&self, id: PartitionId, is_first: bool) -> Result<(), String> {
        let replica = self.replicas.get(id);
        let log = match (&replica, id) {
            (Some(replica), _) => Arc::clone(replica.log()),
            (None, PartitionId::CONTROLLER) => Arc::clone(self.controller.log()),
            (None, _) => return Ok(()),
        };
        let mended = self.mender.mend(&log).await;
        drop(log);
        if let (Err(_), Some(node), true) = (&mended, &self.among, is_first) {
            match &replica {
                Some(replica) if replica.term().is_some() => {
                    hand_over(node, replica.group(), None).await;
                }
                None if self.controller.leads() => {
                    hand_over(node, self.controller.group(), None).await;
                }
                _ => {}
            }
        }
        drop(replica);
        if mended.is_ok() {
            self.revive(id).await;
        }
        mended
    }

    /// Opens a partition anew whose core has met damage, and ended.
    async fn revive(&self, id: PartitionId) {
        let is_dead = self.node.groups().here(id).is_some_and(|member| !member.standing().alive);
        if !is_dead || self.flusher.is_dead() {
            return;
        }
        let Some(replica) = self.replicas.get(id) else {
            return tracing::error!(partition = %id, "the controller's replica has met damage and stopped: restart the broker");
        };
        tracing::warn!(partition = %id, "a replica that had met damage is opened anew");
        self.coordinators.stop(id);
        // Nobody opens it before the old one has let go of its files.
        self.replicas.insert(id, Held::Offline("it is opened anew after damage was mended".into()));
        replica.close().await;
        drop(replica);
        self.replicas.remove(id);
        self.controller.look_again();
    }

    /// Goes on mending a log that could not be opened for its damage, and has it opened when it is whole. One of which only the newest state counts is given up
    /// when others go on without it: they may not have its entries any more, and fill a new replica from that state.
    pub(super) fn open_when_mended(&self, log: Arc<Log>, me: ReplicaId, is_state: bool) {
        let (mender, controller, node) =
            (Arc::clone(&self.mender), Arc::clone(&self.controller), Arc::clone(&self.node));
        let (replicas, journal): (Arc<ReplicaSet>, _) = (Arc::clone(&self.replicas), Arc::clone(&self.journal));
        self.spawn(async move {
            let id = log.id();
            let (mut after, mut said) = (AGAIN_AFTER, String::new());
            loop {
                tokio::time::sleep(after).await;
                if !matches!(replicas.held(id), Some(Held::Offline(_))) {
                    return;
                }
                let Err(why) = mender.mend(&log).await else { break };
                if is_state && node.leader(id).is_some() && give_up(&controller, &journal, &log, me).await {
                    break;
                }
                if why != said {
                    tracing::error!(partition = %id, why, "damage could not be mended; it is tried again");
                    said = why;
                }
                after = (after * 2).min(AGAIN_AFTER_MAX);
            }
            drop(log);
            replicas.remove(id);
            controller.look_again();
        });
    }
}

/// Has the controller replace a replica that cannot be mended, and removes what is left of it; whether that is done.
async fn give_up(controller: &ControllerHandle, journal: &Arc<Journal>, log: &Arc<Log>, me: ReplicaId) -> bool {
    let id = log.id();
    let damaged = [(id, me)];
    let replace = |controller: &Controller| Ok::<_, Infallible>((controller.decide_replace_replicas(&damaged), ()));
    if controller.change(replace).await.is_err() {
        return false;
    }
    tracing::warn!(partition = %id, replica = %me, "a replica that cannot be mended begins anew, and is filled by the others");
    // Only now: an empty log would vote as if nothing had ever been acknowledged.
    let (disk, threads, journal) = (log.disk(), log.disk(), Arc::clone(journal));
    let removed = on_disk(&threads, Lane::Background, move || {
        journal.remove_group(id, Box::new(drop));
        disk.remove_dir_all(&crate::log::directory(id))
    });
    matches!(removed.await, Ok(Ok(())))
}
