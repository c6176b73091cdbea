//! The whole of a [`MemDisk`](super::MemDisk): files, names, and which of both a power cut leaves.
//!
//! # Invariants
//! - A directory's durable names change only by a `sync_dir` that completes a [`NameChange`].
//! - A rename is one change: after a power cut the file is at the old or at the new name, never at both or neither.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};

use super::chance::{Mercy, Rng, Trace};
use super::file::FileNode;
use super::{Counters, OnCut};
use crate::log::disk_args::split;

/// A file's or directory's number.
pub(super) type NodeId = u64;
/// A name's place: its directory and the name.
type Slot = (NodeId, String);

const ROOT: NodeId = 0;

/// A directory: its names as a process sees them, and as the device has them.
#[derive(Clone, Debug, Default)]
pub(super) struct DirNode {
    pub(super) now: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    File(FileNode),
    Dir(DirNode),
}

/// A creation (no `from`), a removal (no `to`) or a rename that is not durable yet.
#[derive(Clone, Debug)]
struct NameChange {
    node: NodeId,
    from: Option<Slot>,
    to: Option<Slot>,
    from_synced: bool,
    to_synced: bool,
    /// A failed sync called it durable: no later one makes it so.
    forgotten: bool,
}

impl NameChange {
    fn is_complete(&self) -> bool {
        !self.forgotten && (self.from.is_none() || self.from_synced) && (self.to.is_none() || self.to_synced)
    }

    fn touches(&self, dir: NodeId) -> bool {
        [&self.from, &self.to].into_iter().flatten().any(|slot| slot.0 == dir)
    }
}

/// Whether the disk answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Power {
    On,
    /// The power was cut: what is here is what [`State::after_power_cut`] chooses from.
    Cut,
    /// The process was killed: what is here is what the next one finds.
    Killed,
    /// The state has moved to the next process's disk.
    Gone,
}

/// See the module's header.
pub(super) struct State {
    nodes: BTreeMap<NodeId, Node>,
    next_node: NodeId,
    unsynced: Vec<NameChange>,
    pub(super) rng: Rng,
    pub(super) trace: Trace,
    pub(super) counters: Counters,
    pub(super) power: Power,
    pub(super) cut_at: Option<u64>,
    pub(super) kill_at: Option<u64>,
    /// The power is cut in a write to a file whose name ends like that.
    pub(super) cut_in_write: Option<String>,
    /// In the present operation.
    pub(super) cuts_now: bool,
    pub(super) on_cut: Option<OnCut>,
    pub(super) fail_sync_at: Option<u64>,
    pub(super) sync_is_noop: bool,
    pub(super) dir_sync_is_noop: bool,
    /// A power cut leaves nothing that was not synced.
    pub(super) merciless: bool,
    pub(super) capacity_bytes: Option<u64>,
    pub(super) locks: BTreeSet<NodeId>,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::Dir(DirNode::default()))]),
            next_node: ROOT + 1,
            unsynced: Vec::new(),
            rng: Rng::new(seed),
            trace: Trace::new(),
            counters: Counters::default(),
            power: Power::On,
            cut_at: None,
            kill_at: None,
            cut_in_write: None,
            cuts_now: false,
            on_cut: None,
            fail_sync_at: None,
            sync_is_noop: false,
            dir_sync_is_noop: false,
            merciless: false,
            capacity_bytes: None,
            locks: BTreeSet::new(),
        }
    }

    // ---- names -------------------------------------------------------------------------------------------------------

    pub(super) fn dir(&self, path: &str) -> io::Result<NodeId> {
        let mut at = ROOT;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            at = *self.dir_node(at)?.now.get(part).ok_or(ErrorKind::NotFound)?;
        }
        self.dir_node(at).map(|_| at)
    }

    pub(super) fn dir_node(&self, id: NodeId) -> io::Result<&DirNode> {
        match self.nodes.get(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(ErrorKind::NotADirectory.into()),
        }
    }

    fn dir_mut(&mut self, id: NodeId) -> &mut DirNode {
        match self.nodes.get_mut(&id) {
            Some(Node::Dir(dir)) => dir,
            _ => panic!("a slot's directory exists as long as the slot is named"),
        }
    }

    fn slot(&self, path: &str) -> io::Result<Slot> {
        let (dir, name) = split(path);
        Ok((self.dir(dir)?, name.to_owned()))
    }

    fn at(&self, slot: &Slot) -> Option<NodeId> {
        self.dir_node(slot.0).ok()?.now.get(&slot.1).copied()
    }

    /// The file or directory with this name.
    pub(super) fn find(&self, path: &str) -> io::Result<NodeId> {
        self.at(&self.slot(path)?).ok_or_else(|| ErrorKind::NotFound.into())
    }

    pub(super) fn is_dir(&self, id: NodeId) -> bool {
        matches!(self.nodes.get(&id), Some(Node::Dir(_)))
    }

    pub(super) fn file(&self, id: NodeId) -> io::Result<&FileNode> {
        match self.nodes.get(&id) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Dir(_)) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    /// The file, with the generator that its changes draw from.
    pub(super) fn file_mut(&mut self, id: NodeId) -> io::Result<(&mut FileNode, &mut Rng)> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => Ok((file, &mut self.rng)),
            Some(Node::Dir(_)) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn create(&mut self, path: &str, node: Node) -> io::Result<NodeId> {
        let slot = self.slot(path)?;
        if self.at(&slot).is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let id = self.next_node;
        self.next_node += 1;
        self.nodes.insert(id, node);
        self.change(id, None, Some(slot));
        Ok(id)
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.slot(from)?, self.slot(to)?);
        let id = self.at(&from).ok_or(ErrorKind::NotFound)?;
        match self.at(&to) {
            Some(target) if target == id => return Ok(()),
            Some(target) if self.is_dir(target) => return Err(ErrorKind::IsADirectory.into()),
            Some(_) if self.is_dir(id) => return Err(ErrorKind::NotADirectory.into()),
            _ => {}
        }
        self.change(id, Some(from), Some(to));
        Ok(())
    }

    /// Removes a file's or an empty directory's name.
    pub(super) fn remove(&mut self, path: &str, want_dir: bool) -> io::Result<()> {
        let slot = self.slot(path)?;
        let id = self.at(&slot).ok_or(ErrorKind::NotFound)?;
        match self.nodes.get(&id) {
            Some(Node::Dir(dir)) if want_dir && !dir.now.is_empty() => return Err(ErrorKind::DirectoryNotEmpty.into()),
            Some(Node::Dir(_)) if !want_dir => return Err(ErrorKind::IsADirectory.into()),
            Some(Node::File(_)) if want_dir => return Err(ErrorKind::NotADirectory.into()),
            _ => {}
        }
        self.change(id, Some(slot), None);
        Ok(())
    }

    fn change(&mut self, node: NodeId, from: Option<Slot>, to: Option<Slot>) {
        if let Some((dir, name)) = &from {
            self.dir_mut(*dir).now.remove(name);
        }
        if let Some((dir, name)) = &to {
            self.dir_mut(*dir).now.insert(name.clone(), node);
        }
        let change = NameChange { node, from, to, from_synced: false, to_synced: false, forgotten: false };
        self.unsynced.push(change);
    }

    // ---- durability --------------------------------------------------------------------------------------------------

    /// Makes the names in `dir` durable. A rename between two directories waits for the other one's sync; a name's earlier changes
    /// go with its later ones, since a slot holds one entry.
    pub(super) fn sync_dir(&mut self, dir: NodeId) {
        let mut done = vec![false; self.unsynced.len()];
        let mut taken: BTreeSet<Slot> = BTreeSet::new();
        for (i, change) in self.unsynced.iter_mut().enumerate().rev() {
            change.from_synced |= change.from.as_ref().is_some_and(|slot| slot.0 == dir);
            change.to_synced |= change.to.as_ref().is_some_and(|slot| slot.0 == dir);
            let slots = || [&change.from, &change.to].into_iter().flatten();
            done[i] = change.is_complete() || slots().any(|slot| taken.contains(slot));
            if done[i] {
                taken.extend(slots().cloned());
            }
        }
        let all = std::mem::take(&mut self.unsynced);
        for (change, done) in all.into_iter().zip(done) {
            if done {
                self.settle(&change);
            } else {
                self.unsynced.push(change);
            }
        }
        self.forget_unreachable();
    }

    /// What a failed sync of a directory does: its changes are called durable and are not.
    pub(super) fn fail_sync_dir(&mut self, dir: NodeId) {
        for change in self.unsynced.iter_mut().filter(|change| change.touches(dir)) {
            change.forgotten = true;
        }
    }

    fn settle(&mut self, change: &NameChange) {
        if let Some((dir, name)) = &change.from {
            let names = &mut self.dir_mut(*dir).durable;
            if names.get(name) == Some(&change.node) {
                names.remove(name);
            }
        }
        if let Some((dir, name)) = &change.to {
            self.dir_mut(*dir).durable.insert(name.clone(), change.node);
        }
    }

    /// Drops the nodes that nothing can name any more.
    fn forget_unreachable(&mut self) {
        let mut seen = BTreeSet::new();
        let mut queue = vec![ROOT];
        for change in &self.unsynced {
            queue.push(change.node);
            queue.extend([&change.from, &change.to].into_iter().flatten().map(|slot| slot.0));
        }
        while let Some(id) = queue.pop() {
            if let (true, Some(Node::Dir(dir))) = (seen.insert(id), self.nodes.get(&id)) {
                queue.extend(dir.now.values().chain(dir.durable.values()));
            }
        }
        self.nodes.retain(|id, node| seen.contains(id) || matches!(node, Node::File(file) if file.opens > 0));
    }

    /// What a process would find after the power came back: everything synced, and any of the rest. Draws from this state's generator,
    /// so that each call may find something else.
    pub(super) fn after_power_cut(&mut self) -> Self {
        let drawn = Mercy::draw(&mut self.rng);
        let mercy = if self.merciless { Mercy::Nothing } else { drawn };
        let mut next = self.clone_for_restart();
        let kept = mercy.survivors(&mut next.rng, self.unsynced.len());
        for (change, _) in self.unsynced.iter().zip(kept).filter(|(_, kept)| *kept) {
            next.settle(change);
        }
        next.unsynced.clear();
        let State { nodes, rng, .. } = &mut next;
        for node in nodes.values_mut() {
            match node {
                Node::Dir(dir) => dir.now = dir.durable.clone(),
                Node::File(file) => *file = file.after_power_cut(mercy, rng),
            }
        }
        next.forget_unreachable();
        self.rng = next.rng.clone();
        next
    }

    /// Moves everything to a new process's disk: all that was written is there, and what was not synced still is not.
    pub(super) fn after_kill(&mut self) -> Self {
        let next = self.clone_for_restart();
        *self = Self { power: Power::Gone, trace: self.trace, counters: self.counters, ..Self::new(0) };
        next
    }

    fn clone_for_restart(&self) -> Self {
        let mut next = Self {
            nodes: self.nodes.clone(),
            next_node: self.next_node,
            unsynced: self.unsynced.clone(),
            rng: self.rng.clone(),
            trace: self.trace,
            sync_is_noop: self.sync_is_noop,
            dir_sync_is_noop: self.dir_sync_is_noop,
            merciless: self.merciless,
            capacity_bytes: self.capacity_bytes,
            ..Self::new(0)
        };
        for node in next.nodes.values_mut() {
            if let Node::File(file) = node {
                file.opens = 0;
            }
        }
        next
    }

    // ---- space -------------------------------------------------------------------------------------------------------

    /// What the files that still have a name, or a handle, occupy.
    pub(super) fn used_bytes(&self) -> u64 {
        let named: BTreeSet<NodeId> = self
            .nodes
            .values()
            .flat_map(|node| match node {
                Node::Dir(dir) => dir.now.values().copied().collect(),
                Node::File(_) => Vec::new(),
            })
            .collect();
        let files = self.nodes.iter().filter_map(|(id, node)| match node {
            Node::File(file) if file.opens > 0 || named.contains(id) => Some(file.space_bytes()),
            _ => None,
        });
        files.sum()
    }

    /// What may still be allocated.
    pub(super) fn free_bytes(&self) -> u64 {
        self.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used_bytes()))
    }
}
