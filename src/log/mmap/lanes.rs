//! The disk's own threads: a queue and a pool for each [`Lane`].
//!
//! A pool starts with one thread, grows by one when a job finds nobody idle, up to its limit, and keeps what it has. A job wakes
//! exactly one idle thread. A job that panics has reported it and costs nothing but itself.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::{MmapOptions, lock};
use crate::log::disk::{Job, Lane};

/// The pools of all lanes. Dropping it runs what is queued, then ends the threads.
#[derive(Debug)]
pub(super) struct Lanes {
    flush: Pool,
    read: Pool,
    background: Pool,
}

struct Pool {
    name: &'static str,
    limit: usize,
    shared: Arc<PoolShared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct PoolShared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Threads that wait for a job, and those that were woken for one and have not taken it yet.
    idle: usize,
    threads: usize,
    stop: bool,
}

impl Lanes {
    pub(super) fn start(options: &MmapOptions) -> io::Result<Self> {
        Ok(Self {
            flush: Pool::start("flush", options.flush_threads)?,
            read: Pool::start("read", options.read_threads)?,
            background: Pool::start("background", options.background_threads)?,
        })
    }

    pub(super) fn push(&self, lane: Lane, job: Job) {
        match lane {
            Lane::Flush => self.flush.push(job),
            Lane::Read => self.read.push(job),
            Lane::Background => self.background.push(job),
        }
    }
}

impl Pool {
    fn start(name: &'static str, limit: usize) -> io::Result<Self> {
        let pool = Self { name, limit, shared: Arc::default(), threads: Mutex::default() };
        lock(&pool.shared.queue).threads = 1;
        pool.spawn(0)?;
        Ok(pool)
    }

    fn spawn(&self, number: usize) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new().name(format!("{}-{number}", self.name)).spawn(move || shared.work())?;
        lock(&self.threads).push(thread);
        Ok(())
    }

    fn push(&self, job: Job) {
        let mut queue = lock(&self.shared.queue);
        queue.jobs.push_back(job);
        if queue.jobs.len() <= queue.idle {
            drop(queue);
            self.shared.wake.notify_one();
        } else if queue.threads < self.limit {
            let number = queue.threads;
            queue.threads += 1;
            drop(queue);
            // The others do the work if the system has no thread to give.
            if self.spawn(number).is_err() {
                lock(&self.shared.queue).threads -= 1;
            }
        }
    }
}

impl PoolShared {
    fn work(&self) {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                // The panic hook has told about it; whoever waits for the job's answer sees that it will not come.
                drop(catch_unwind(AssertUnwindSafe(job)));
                queue = lock(&self.queue);
            } else if queue.stop {
                return;
            } else {
                queue.idle += 1;
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.queue).stop = true;
        self.shared.wake.notify_all();
        let threads = std::mem::take(&mut *lock(&self.threads));
        let own = thread::current().id();
        // The last owner may be a job: its own thread cannot wait for itself, and ends when the job is done.
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != own) {
            drop(thread.join());
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = lock(&self.shared.queue);
        f.debug_struct("Pool")
            .field("name", &self.name)
            .field("threads", &queue.threads)
            .field("jobs", &queue.jobs.len())
            .finish_non_exhaustive()
    }
}
