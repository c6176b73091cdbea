//! The memory of requests in flight: one budget over all connections, taken from before room is made for bytes.
//!
//! A frame takes what it needs as its bytes arrive, so frames hold some and wait for more. Invariants:
//! - Some frame can always go on: when the budget is spent, one of those that wait may take what the rest of its frame needs
//!   beyond it. So requests take at most the budget and one request more.
//! - Frames of up to `SMALL_FRAME_BYTES` do not wait behind large ones: an eighth of the budget is theirs alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// The budget's unit: a permit stands for this many bytes.
const UNIT_BYTES: usize = 1 << 10;
/// The largest frame that has a share of its own.
const SMALL_FRAME_BYTES: usize = 64 << 10;
/// What a partition's answer takes in memory, about, until it is encoded.
const ANSWER_BYTES: usize = 512;
/// Partitions whose answers are not counted.
const FEW_PARTITIONS: usize = 64;
/// What a list's element and its answer take in memory, about, for each byte of it in the request: elements of some ten bytes each
/// become names, decisions and results of some hundred.
const UNFOLDED_PER_BYTE: usize = 32;

/// The budget.
#[derive(Debug)]
pub struct RequestMemory {
    shared: Arc<Semaphore>,
    small: Arc<Semaphore>,
    beyond: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// What one request holds of the budget, until it is dropped.
#[derive(Debug, Default)]
pub struct Held {
    shared: Option<OwnedSemaphorePermit>,
    small: Option<OwnedSemaphorePermit>,
    beyond: Option<OwnedSemaphorePermit>,
}

/// The broker is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker is stopping")]
pub struct Stopping;

/// Counts somebody who waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

fn keep(held: &mut Option<OwnedSemaphorePermit>, more: OwnedSemaphorePermit) {
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
}

impl RequestMemory {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let permits = (bytes / UNIT_BYTES).min(Semaphore::MAX_PERMITS);
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        let small = permits / 8;
        Self { shared: semaphore(permits - small), small: semaphore(small), beyond: semaphore(1), waiting: 0.into() }
    }

    /// Takes `bytes` more for a frame of `whole` bytes; waits until there are so many.
    ///
    /// # Errors
    /// If the broker is stopping.
    pub async fn grow(&self, held: &mut Held, bytes: usize, whole: usize) -> Result<(), Stopping> {
        if held.beyond.is_some() {
            return Ok(());
        }
        // A request that takes more than there is in all goes on when it is the one beyond.
        let more = units(bytes);
        match Arc::clone(&self.shared).try_acquire_many_owned(more) {
            Ok(permit) => {
                keep(&mut held.shared, permit);
                return Ok(());
            }
            Err(TryAcquireError::Closed) => return Err(Stopping),
            Err(TryAcquireError::NoPermits) => {}
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        let is_small = whole <= SMALL_FRAME_BYTES;
        let (other, others) = if is_small { (&self.small, more) } else { (&self.beyond, 1) };
        tokio::select! {
            biased;
            permit = Arc::clone(&self.shared).acquire_many_owned(more) => keep(&mut held.shared, permit.map_err(|_| Stopping)?),
            permit = Arc::clone(other).acquire_many_owned(others) => {
                let permit = permit.map_err(|_| Stopping)?;
                keep(if is_small { &mut held.small } else { &mut held.beyond }, permit);
            }
        }
        Ok(())
    }

    /// Takes what the answers to so many partitions need beside the request, if they are more than a few.
    ///
    /// # Errors
    /// If the broker is stopping.
    pub async fn grow_for_answers(&self, held: &mut Held, partitions: usize) -> Result<(), Stopping> {
        match partitions {
            ..=FEW_PARTITIONS => Ok(()),
            _ => self.grow(held, partitions.saturating_mul(ANSWER_BYTES), usize::MAX).await,
        }
    }

    /// Takes what a request of lists, not of records, unfolds to beside its `bytes`, if it is a large one.
    ///
    /// # Errors
    /// If the broker is stopping.
    pub async fn grow_for_lists(&self, held: &mut Held, bytes: usize) -> Result<(), Stopping> {
        match bytes {
            ..=SMALL_FRAME_BYTES => Ok(()),
            _ => self.grow(held, bytes.saturating_mul(UNFOLDED_PER_BYTE), usize::MAX).await,
        }
    }

    /// Whether a frame waits for memory that others hold.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const KIB: usize = 1 << 10;

    fn grow(memory: &RequestMemory, held: &mut Held, bytes: usize, whole: usize) -> bool {
        memory.grow(held, bytes, whole).now_or_never().is_some_and(|outcome| outcome.is_ok())
    }

    #[test]
    fn one_frame_goes_on_when_all_hold_some_and_want_more() {
        let memory = RequestMemory::new(800 * KIB);
        let (mut one, mut two, mut three) = (Held::default(), Held::default(), Held::default());
        assert!(grow(&memory, &mut one, 400 * KIB, 800 * KIB));
        assert!(grow(&memory, &mut two, 300 * KIB, 800 * KIB));
        assert!(grow(&memory, &mut one, 400 * KIB, 800 * KIB), "beyond the budget");
        assert!(!grow(&memory, &mut two, 400 * KIB, 800 * KIB), "one at a time");
        assert!(!memory.is_short(), "nobody waits any more");
        drop(one);
        assert!(grow(&memory, &mut two, 400 * KIB, 800 * KIB));
        assert!(grow(&memory, &mut three, 100 * KIB, 100 * KIB));
    }

    #[test]
    fn small_frames_do_not_wait_behind_large_ones() {
        let memory = RequestMemory::new(800 * KIB);
        let (mut large, mut small) = (Held::default(), Held::default());
        assert!(grow(&memory, &mut large, 700 * KIB, 1000 * KIB));
        assert!(grow(&memory, &mut large, 300 * KIB, 1000 * KIB));
        assert!(grow(&memory, &mut small, 60 * KIB, 60 * KIB), "from their own share");
        assert!(!grow(&memory, &mut Held::default(), 60 * KIB, 60 * KIB), "which has an end too");
        let answers = memory.grow_for_answers(&mut small, 2000).now_or_never();
        assert_eq!(answers, None, "a request waits for what its answers take");
        drop((large, small));
        assert!(grow(&memory, &mut Held::default(), 60 * KIB, 60 * KIB));
        assert_eq!(memory.grow_for_answers(&mut Held::default(), 2000).now_or_never(), Some(Ok(())));
    }

    #[test]
    fn large_lists_are_handled_one_or_two_at_a_time() {
        let memory = RequestMemory::new(32 << 20);
        let mut held: [Held; 3] = Default::default();
        let mut grow = |number: usize, bytes| memory.grow_for_lists(&mut held[number], bytes).now_or_never();
        assert_eq!(grow(0, 700 * KIB), Some(Ok(())));
        assert_eq!(grow(1, 700 * KIB), Some(Ok(())), "beyond the budget");
        assert_eq!(grow(2, 700 * KIB), None);
        assert_eq!(grow(2, 64 * KIB), Some(Ok(())), "what is small unfolds to little");
    }
}
