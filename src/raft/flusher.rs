//! Group commit: turns "appended" into "durable", for every group of the broker.
//!
//! A dirty log is queued to the disk's flush lane once; one flush makes durable all that was written before it, and
//! completes only what was captured before its first sync began (`acked-is-flushed`). No timers: what arrives during a
//! flush goes with the next one. With page-cache durability the callbacks complete at once, and the flush follows when
//! enough bytes or time have passed.
//!
//! A failed flush is final (the kernel reports a lost page once and then forgets it): nothing is acknowledged any more
//! and the fatal hook ends the process.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use crate::flaws::{Flaw, Flaws};
use crate::ids::RaftIndex;
use crate::log::Log;
use crate::log::disk::{Disk, Lane};
use crate::log::journal::Journal;
use crate::metrics::Metrics;

/// Called once per completed append, with the outcome of the sync that covers it.
pub type Flushed = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Why the process must end. Its exit code is 74 (`EX_IOERR`).
#[derive(Clone, Debug)]
pub struct Fatal {
    /// What failed, for the log and the operator.
    pub reason: String,
}

/// Ends the process (production) or the simulated host. Called at most once a broker.
pub type FatalHook = Arc<dyn Fn(Fatal) + Send + Sync>;

/// Unsynced bytes that a page-cache log may gather before it is flushed in the background.
pub const PAGE_CACHE_DIRTY_BYTES_MAX: u64 = 64 << 20;

/// Flush rounds that one job runs before it goes to the back of the queue, so that a busy log cannot hold a thread.
const ROUNDS_PER_JOB: u32 = 4;

/// The broker's flusher: shared by all its groups.
pub struct Flusher {
    disk: Arc<dyn Disk>,
    dead: AtomicBool,
    fatal: FatalHook,
    metrics: Arc<Metrics>,
    /// Bytes applied since their groups' last descriptors, over the whole broker: what a restart would read back.
    pub undescribed_bytes: Arc<AtomicU64>,
}

impl Flusher {
    /// A flusher over a disk. `fatal` is called when a sync fails.
    #[must_use]
    pub fn new(disk: Arc<dyn Disk>, metrics: Arc<Metrics>, fatal: FatalHook) -> Arc<Self> {
        Arc::new(Self { disk, dead: AtomicBool::new(false), fatal, metrics, undescribed_bytes: Arc::default() })
    }

    /// Dies when the journal fails too.
    #[must_use]
    pub fn watch(self: Arc<Self>, journal: &Journal) -> Arc<Self> {
        let dies = Arc::clone(&self);
        journal.on_failure(Box::new(move |reason| dies.die(reason)));
        self
    }

    /// Whether a sync has failed: no read and no write may be answered any more.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Stops all acknowledgements and ends the process, once.
    pub fn die(&self, reason: String) {
        if !self.dead.swap(true, Ordering::AcqRel) {
            (self.fatal)(Fatal { reason });
        }
    }
}

#[derive(Default)]
struct Queue {
    pending: VecDeque<(RaftIndex, Flushed)>,
    /// Set while a job of this log is queued or running: at most one.
    running: bool,
    /// Set while the running flush has callbacks to complete.
    awaited: bool,
    /// A flush is wanted although nobody waits for it.
    wanted: bool,
    dirty_bytes: u64,
}

/// One log's place in the flusher.
pub struct LogFlusher {
    flusher: Arc<Flusher>,
    log: Arc<Log>,
    page_cache: AtomicBool,
    pub(super) flaws: Flaws,
    queue: Mutex<Queue>,
}

impl LogFlusher {
    /// Registers a log. With `page_cache`, appends are acknowledged before they are synced.
    #[must_use]
    pub fn new(flusher: Arc<Flusher>, log: Arc<Log>, page_cache: bool, flaws: Flaws) -> Arc<Self> {
        Arc::new(Self { flusher, log, page_cache: AtomicBool::new(page_cache), flaws, queue: Mutex::default() })
    }

    /// Changes the durability of appends from now on.
    pub fn set_page_cache(&self, page_cache: bool) {
        self.page_cache.store(page_cache, Ordering::Relaxed);
    }

    /// Whether appends are acknowledged before they are synced.
    #[must_use]
    pub fn is_page_cache(&self) -> bool {
        self.page_cache.load(Ordering::Relaxed)
    }

    /// `bytes` were appended up to and including `last`: `done` is called when they are durable. `must_sync` marks entries that are
    /// synced whatever the log's durability (memberships, blanks, commands).
    pub fn appended(self: &Arc<Self>, last: RaftIndex, bytes: u64, must_sync: bool, done: Flushed) {
        if self.flusher.is_dead() {
            return done(Err(dead()));
        }
        let mut queue = self.lock();
        queue.dirty_bytes += bytes;
        if self.flaws.has(Flaw::AckBeforeSync) {
            queue.wanted = true;
            self.start(queue);
            return done(Ok(()));
        }
        // Completions are a watermark: one that is not synced may not overtake one that is waited for.
        let overtakes = queue.awaited || !queue.pending.is_empty();
        if must_sync || overtakes || !self.is_page_cache() {
            queue.pending.push_back((last, done));
            return self.start(queue);
        }
        queue.wanted |= queue.dirty_bytes >= PAGE_CACHE_DIRTY_BYTES_MAX;
        if queue.wanted {
            self.start(queue);
        } else {
            drop(queue);
        }
        done(Ok(()));
    }

    /// Flushes what is dirty, although nobody waits for it (page-cache logs, in the background).
    pub fn flush_soon(self: &Arc<Self>) {
        let mut queue = self.lock();
        if queue.dirty_bytes > 0 && !self.flusher.is_dead() {
            queue.wanted = true;
            self.start(queue);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().expect("no panic happens under the flush queue's lock")
    }

    fn start(self: &Arc<Self>, mut queue: std::sync::MutexGuard<'_, Queue>) {
        if queue.running {
            return;
        }
        queue.running = true;
        drop(queue);
        self.offload();
    }

    fn offload(self: &Arc<Self>) {
        let this = Arc::clone(self);
        self.flusher.disk.offload(Lane::Flush, Box::new(move || this.run()));
    }

    fn run(self: Arc<Self>) {
        for _ in 0..ROUNDS_PER_JOB {
            if !self.round() {
                return;
            }
        }
        self.offload();
    }

    /// One flush. Says whether there is more to do.
    fn round(&self) -> bool {
        // The plan captures the log's end first; callbacks of later appends are left for the next round.
        let plan = self.log.begin_flush();
        let (captured, dirty) = {
            let mut queue = self.lock();
            queue.wanted = false;
            let dirty = std::mem::take(&mut queue.dirty_bytes);
            let end = plan.as_ref().map(|plan| plan.upto().index);
            let covered = queue.pending.iter().take_while(|(index, _)| end.is_none_or(|end| *index <= end)).count();
            queue.awaited = covered > 0;
            (queue.pending.drain(..covered).collect::<Vec<_>>(), dirty)
        };
        let outcome = match plan {
            Some(plan) => {
                let began = Instant::now();
                let outcome = plan.run();
                self.flusher.metrics.flushed(began.elapsed(), dirty);
                outcome.and_then(|()| self.log.end_flush(plan).map(drop).map_err(io::Error::other))
            }
            None => Ok(()),
        };
        let outcome = if self.flusher.is_dead() { Err(dead()) } else { outcome };
        match outcome {
            Ok(()) => captured.into_iter().for_each(|(_, done)| done(Ok(()))),
            Err(error) => return self.fail(captured, &error, dirty),
        }
        let mut queue = self.lock();
        queue.awaited = false;
        queue.running = queue.wanted || !queue.pending.is_empty();
        queue.running
    }

    fn fail(&self, captured: Vec<(RaftIndex, Flushed)>, error: &io::Error, dirty: u64) -> bool {
        self.flusher.die(format!("sync {} bytes of partition {}: {error}", dirty, self.log.id()));
        let rest = {
            let mut queue = self.lock();
            queue.running = false;
            std::mem::take(&mut queue.pending)
        };
        for (_, done) in captured.into_iter().chain(rest) {
            done(Err(io::Error::new(error.kind(), error.to_string())));
        }
        false
    }
}

fn dead() -> io::Error {
    io::Error::other("an earlier sync failed: nothing is durable any more")
}
