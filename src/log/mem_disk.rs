//! A [`Disk`] in memory for tests and the simulation: deterministic, with every fault a real one shows.
//!
//! It keeps two images, what a process sees and what the device holds, in 512-byte sectors and directory entries, and
//! draws every choice from one seeded generator. It has no thread and no clock: jobs given to [`Disk::offload`] run when the owner says
//! so, which may be on the simulation's clock.
//!
//! # Faults
//! - **Power cut** ([`MemDisk::cut_power_at`], [`MemDisk::cut_power_in_write`], [`MemDisk::cut_power_now`], then [`MemDisk::after_power_cut`]): a write that is cut is
//!   torn; what was not synced survives in any subset: sectors (also in an older unsynced version), lengths, names. The zeros that
//!   [`DiskFile::set_len`] leaves behind a cut are unsynced like any write: cutting and growing again may show the old bytes.
//! - **Kill -9** ([`MemDisk::crash_process`], between two operations or before one that [`MemDisk::kill_at`] names): everything written
//!   is there, and what was not synced still is not.
//! - **Failed sync** ([`MemDisk::fail_sync_at`]): an error once; then the pages are called clean, later syncs say `Ok`, and the bytes
//!   are gone after [`DiskFile::evict`] or a power cut.
//! - **Full disk** ([`MemDisk::set_capacity`]), **a flipped bit** ([`MemDisk::flip_bit`]), **cold pages** ([`MemDisk::set_cold`]).
//! - **Planted bugs** for testing the tests: [`MemDisk::set_sync_is_noop`], [`MemDisk::set_dir_sync_is_noop`], [`MemDisk::skip_syncs`].
//!
//! # Operations
//! Whatever changes state has a running number, from 0 on each disk (a restart begins anew): writes, `allocate`, `set_len`, creations
//! (each directory of `create_dir_all`, the file of `lock`), renames, removals (each entry of `remove_dir_all`), syncs of files
//! and directories; failing ones count too.
//!
//! [`Disk`]: super::disk::Disk
//! [`Disk::offload`]: super::disk::Disk::offload
//! [`DiskFile::set_len`]: super::disk::DiskFile::set_len
//! [`DiskFile::evict`]: super::disk::DiskFile::evict

mod chance;
mod file;
mod handles;
mod state;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::state::{Power, State};
use super::disk::{Job, Lane};

/// Takes over the jobs of [`Disk::offload`](super::disk::Disk::offload), for example to run them later on the simulation's clock.
pub type Defer = Arc<dyn Fn(Lane, Job) + Send + Sync>;

type OnCut = Box<dyn FnOnce() + Send>;

/// Says of a path whether its sync does nothing.
type SkipSync = Arc<dyn Fn(&MemDisk, &str) -> bool + Send + Sync>;

/// What a disk has done since it was made or restarted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Operations that change state: the number of the next one.
    pub ops: u64,
    /// Syncs of files and directories: the number of the next one.
    pub syncs: u64,
    /// Syncs of directories alone.
    pub dir_syncs: u64,
    /// Bytes written, by writes that succeeded.
    pub bytes_written: u64,
    /// Bytes read with `DiskFile::read_at`.
    pub bytes_read: u64,
    /// Syncs that failed.
    pub failed_syncs: u64,
}

/// What an operation is called in the trace.
#[derive(Clone, Copy)]
enum Op {
    CreateDir = 1,
    List,
    Open,
    Create,
    Rename,
    Remove,
    SyncDir,
    Lock,
    Offload,
    Write,
    Read,
    Allocate,
    SetLen,
    View,
    Evict,
    Sync,
}

/// A disk in memory. Cloning makes another handle of the same disk. See the module's documentation.
#[derive(Clone)]
pub struct MemDisk {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    jobs: Jobs,
    skip_sync: Mutex<Option<SkipSync>>,
}

enum Jobs {
    Inline,
    Queued(Mutex<VecDeque<Job>>),
    Deferred(Defer),
}

impl Jobs {
    fn for_restart(&self) -> Self {
        match self {
            Self::Inline => Self::Inline,
            Self::Queued(_) => Self::Queued(Mutex::default()),
            Self::Deferred(defer) => Self::Deferred(Arc::clone(defer)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn power_is_off() -> io::Error {
    io::Error::other("the disk's power is off")
}

impl MemDisk {
    /// A disk whose jobs run at once, inside `Disk::offload`: for unit tests.
    #[must_use]
    pub fn inline() -> Self {
        Self::new(State::new(0), Jobs::Inline)
    }

    /// A disk whose jobs wait until the test calls [`Self::run_next`] or [`Self::run_all`].
    #[must_use]
    pub fn queued() -> Self {
        Self::new(State::new(0), Jobs::Queued(Mutex::default()))
    }

    /// A disk that hands its jobs to `defer`. Those of a killed process do nothing, whenever they are run.
    #[must_use]
    pub fn with_defer(defer: Defer) -> Self {
        Self::new(State::new(0), Jobs::Deferred(defer))
    }

    /// The same disk, with its choices drawn from `seed` (0 otherwise).
    #[must_use]
    pub fn seeded(self, seed: u64) -> Self {
        lock(&self.shared.state).rng = chance::Rng::new(seed);
        self
    }

    fn new(state: State, jobs: Jobs) -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::new(state), jobs, skip_sync: Mutex::default() }) }
    }

    // ---- jobs --------------------------------------------------------------------------------------------------------

    /// Runs the oldest waiting job of a [`Self::queued`] disk; `false` if there is none.
    pub fn run_next(&self) -> bool {
        let job = match &self.shared.jobs {
            Jobs::Queued(queue) => lock(queue).pop_front(),
            Jobs::Inline | Jobs::Deferred(_) => None,
        };
        job.map(|job| job()).is_some()
    }

    /// Runs the waiting jobs of a [`Self::queued`] disk, and those that they queue; answers how many.
    pub fn run_all(&self) -> usize {
        std::iter::repeat_with(|| self.run_next()).take_while(|&ran| ran).count()
    }

    /// How many jobs of a [`Self::queued`] disk wait.
    #[must_use]
    pub fn waiting_jobs(&self) -> usize {
        match &self.shared.jobs {
            Jobs::Queued(queue) => lock(queue).len(),
            Jobs::Inline | Jobs::Deferred(_) => 0,
        }
    }

    // ---- faults ------------------------------------------------------------------------------------------------------

    /// Cuts the power during operation number `op` (the next one if that is past): it fails, having done any part of its work,
    /// and so does everything after it.
    pub fn cut_power_at(&self, op: u64) {
        lock(&self.shared.state).cut_at = Some(op);
    }

    /// Kills the process before operation number `op` (the next one if that is past): it and everything after it fail and do nothing.
    /// [`Self::crash_process`] gives the next process's disk, or [`Self::after_power_cut`] if the power goes before that.
    pub fn kill_at(&self, op: u64) {
        lock(&self.shared.state).kill_at = Some(op);
    }

    /// Cuts the power between two operations.
    pub fn cut_power_now(&self) {
        let hook = {
            let mut state = lock(&self.shared.state);
            match state.power {
                Power::On | Power::Killed => {
                    state.power = Power::Cut;
                    state.on_cut.take()
                }
                Power::Cut | Power::Gone => None,
            }
        };
        if let Some(hook) = hook {
            hook();
        }
    }

    /// Sets what is called, once, at the moment the power is cut. It runs inside the operation that is cut, without any lock held.
    pub fn on_cut(&self, hook: impl FnOnce() + Send + 'static) {
        lock(&self.shared.state).on_cut = Some(Box::new(hook));
    }

    /// Whether the power was cut or the process killed, so that everything returns an error.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        lock(&self.shared.state).power != Power::On
    }

    /// A new disk with what may be found when the power is back: everything synced and an arbitrary subset of the rest. Cuts the power
    /// if it is on. Each call may find something else. Planted bugs and the capacity stay, planned faults and locks do not.
    ///
    /// # Panics
    /// If the state has moved on to another disk by [`Self::crash_process`].
    #[must_use]
    pub fn after_power_cut(&self) -> Self {
        self.cut_power_now();
        let mut state = lock(&self.shared.state);
        assert!(state.power == Power::Cut, "the state has moved to another disk");
        self.restarted(state.after_power_cut())
    }

    /// A new disk for the process that starts after this one was killed (kill -9): all that was written is there, no job that was waiting
    /// runs, locks are free, and what was not synced can still be lost by a later power cut. This disk and its files only return
    /// errors from now on.
    ///
    /// # Panics
    /// If the power was cut, or the process already killed.
    #[must_use]
    pub fn crash_process(&self) -> Self {
        let next = {
            let mut state = lock(&self.shared.state);
            assert!(matches!(state.power, Power::On | Power::Killed), "only a running process can be killed");
            state.after_kill()
        };
        if let Jobs::Queued(queue) = &self.shared.jobs {
            let waiting = std::mem::take(&mut *lock(queue));
            drop(waiting);
        }
        self.restarted(next)
    }

    fn restarted(&self, state: State) -> Self {
        let next = Self::new(state, self.shared.jobs.for_restart());
        lock(&next.shared.skip_sync).clone_from(&lock(&self.shared.skip_sync));
        next
    }

    /// Plants a bug: syncs of files say `Ok` and make nothing durable.
    pub fn set_sync_is_noop(&self, noop: bool) {
        lock(&self.shared.state).sync_is_noop = noop;
    }

    /// Plants a bug: syncs of directories say `Ok` and make nothing durable.
    pub fn set_dir_sync_is_noop(&self, noop: bool) {
        lock(&self.shared.state).dir_sync_is_noop = noop;
    }

    /// Plants a bug: from now on no sync makes anything durable, and a power cut takes the disk back to what is durable now, whole and consistent. Nothing on it
    /// shows what is gone.
    pub fn lie(&self) {
        let mut state = lock(&self.shared.state);
        (state.sync_is_noop, state.dir_sync_is_noop, state.merciless) = (true, true, true);
    }

    /// From now on a power cut leaves nothing that was not synced, or any of it.
    pub fn set_merciless(&self, merciless: bool) {
        lock(&self.shared.state).merciless = merciless;
    }

    /// Cuts the power during the next write to a file whose name ends like that: it is torn.
    pub fn cut_power_in_write(&self, name_ends: &str) {
        lock(&self.shared.state).cut_in_write = Some(name_ends.to_owned());
    }

    /// Plants a bug: syncs of the files and directories that `skip` names say `Ok` and make nothing durable. It is asked with the disk and
    /// the path that the file was opened by.
    pub fn skip_syncs(&self, skip: impl Fn(&Self, &str) -> bool + Send + Sync + 'static) {
        *lock(&self.shared.skip_sync) = Some(Arc::new(skip));
    }

    fn tear_if_due(&self, path: &str) {
        let mut state = lock(&self.shared.state);
        if state.cut_in_write.as_ref().is_some_and(|ends| path.ends_with(ends.as_str())) {
            (state.cut_in_write, state.cuts_now) = (None, true);
        }
    }

    fn skips_sync(&self, path: &str) -> bool {
        let skip = lock(&self.shared.skip_sync).clone();
        skip.is_some_and(|skip| skip(self, path))
    }

    /// Lets sync number `nth` fail (of files and directories, as counted by [`Counters::syncs`]), the way Linux does: later ones say `Ok`.
    pub fn fail_sync_at(&self, nth: u64) {
        lock(&self.shared.state).fail_sync_at = Some(nth);
    }

    /// Bounds the space; `None` takes the bound away. What is used already stays.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        lock(&self.shared.state).capacity_bytes = bytes;
    }

    /// Flips one bit (0 is the lowest) of the byte at `pos`, on the device and in memory.
    ///
    /// # Errors
    /// If there is no such file or byte.
    ///
    /// # Panics
    /// If `bit` is above 7.
    pub fn flip_bit(&self, path: &str, pos: u64, bit: u32) -> io::Result<()> {
        assert!(bit < 8, "a byte has eight bits");
        let mut state = lock(&self.shared.state);
        let id = state.find(path)?;
        let (file, _) = state.file_mut(id)?;
        if pos >= file.len() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        file.flip_bit(pos, bit);
        Ok(())
    }

    /// Flips one bit as [`Self::flip_bit`] does, on the device alone: memory still has what was there.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn rot_bit(&self, path: &str, pos: u64, bit: u32) -> io::Result<()> {
        let mut state = lock(&self.shared.state);
        let id = state.find(path)?;
        state.file_mut(id)?.0.rot_bit(pos, bit);
        Ok(())
    }

    /// Makes a file's pages cold, until they are read or written.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn set_cold(&self, path: &str) -> io::Result<()> {
        let mut state = lock(&self.shared.state);
        let id = state.find(path)?;
        state.file_mut(id)?.0.chill();
        Ok(())
    }

    /// What this disk has done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        lock(&self.shared.state).counters
    }

    /// The number of the next operation that changes state.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.counters().ops
    }

    /// A hash over everything that was done to this disk, and to those that it was restarted from: two runs with the same hash did
    /// the same operations with the same bytes in the same order.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        lock(&self.shared.state).trace.hash()
    }
}

impl fmt::Debug for MemDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.shared.state);
        f.debug_struct("MemDisk")
            .field("power", &state.power)
            .field("counters", &state.counters)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Runs something that changes nothing that a power cut could lose.
    fn look<T>(&self, op: Op, words: &[u64], act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = lock(&self.state);
        if state.power != Power::On {
            return Err(power_is_off());
        }
        state.trace.word(op as u64);
        for &word in words {
            state.trace.word(word);
        }
        act(&mut state)
    }

    /// Runs a numbered operation. `act` is told whether the power fails during it, and then does any part of its work.
    fn change<T>(&self, op: Op, words: &[u64], act: impl FnOnce(&mut State, bool) -> io::Result<T>) -> io::Result<T> {
        let mut hook = None;
        let result = self.look(op, words, |state| {
            if state.kill_at.is_some_and(|at| at <= state.counters.ops) {
                state.power = Power::Killed;
                return Err(power_is_off());
            }
            let last = state.cut_at.is_some_and(|at| at <= state.counters.ops) || std::mem::take(&mut state.cuts_now);
            state.counters.ops += 1;
            let result = act(state, last);
            if last {
                state.power = Power::Cut;
                hook = state.on_cut.take();
                return Err(power_is_off());
            }
            result
        });
        if let Some(hook) = hook {
            hook();
        }
        result
    }

    /// [`Self::change`] for operations that happen wholly or not at all.
    fn change_whole<T>(&self, op: Op, path: &str, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        self.change(op, &[], |state, last| {
            state.trace.bytes(path.as_bytes());
            if last && state.rng.coin() {
                return Err(power_is_off());
            }
            act(state)
        })
    }
}

impl MemDisk {
    fn is_gone(&self) -> bool {
        lock(&self.shared.state).power == Power::Gone
    }
}
