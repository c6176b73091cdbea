//! Housekeeping of partitions that were written to: retention, checkpoints, background flushes. A partition that nobody writes to is not
//! looked at, except once in a while for retention by time and for idle producers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::blocking::on_disk;
use super::expiry::IdleProducers;
use super::{Inner, stopped};
use crate::ids::Offset;
use crate::log::disk::Lane;
use crate::replica::Replica;

/// How often the bytes that a restart would read are looked at: a broker writes a few hundred MB meanwhile at most.
const TICK: Duration = Duration::from_millis(250);
/// Every so many ticks, partitions that were written to are looked at: once a second.
const BUSY_ROUND: u32 = 4;
/// Every so many seconds, all partitions are looked at, and what was written gets a checkpoint.
const FULL_ROUND: u32 = 30;
/// Every so many seconds, retention by time is looked at: Kafka's `log.retention.check.interval.ms`. Records that are old when they
/// come, as those of an import are, can be read for as long as there.
const TIME_ROUND: u32 = 300;
/// Every so many seconds, offsets are looked at that nobody may want any more, and whenever a topic was deleted. Kafka's
/// `offsets.retention.check.interval.ms` is twice as long.
const OFFSETS_ROUND: u32 = TIME_ROUND;
/// Bytes appended since their partition's last descriptor, over the whole broker, at which all get one: bounds what a restart reads.
const UNDESCRIBED_BYTES_MAX: u64 = 256 << 20;
/// How long one partition may keep housekeeping waiting: its group has lost its majority, or has no room.
pub(super) const STEP_PATIENCE: Duration = Duration::from_secs(5);
/// The same for all coordinators together.
const OFFSETS_PATIENCE: Duration = Duration::from_secs(30);
/// Partitions looked at at the same time.
const TURNS_AT_ONCE: usize = 64;

/// Runs until `stop` turns true.
pub(super) async fn run(inner: Arc<Inner>, mut stop: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut tick, mut round) = (0u32, 0u32);
    let mut has_marks = false;
    // Written to in the last second.
    let mut busy = BTreeSet::new();
    let began = Instant::now();
    let mut producers = IdleProducers::new(Duration::from_secs(inner.config.limits.producer_idle_seconds.into()));
    loop {
        let (mut second, mut woken) = (false, false);
        tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            () = inner.janitor.notified() => woken = true,
            _ = ticks.tick() => {
                tick = (tick + 1) % BUSY_ROUND;
                second = tick == 0;
            }
        }
        let checkpoint_is_due = inner.flusher.undescribed_bytes.load(Ordering::Relaxed) > UNDESCRIBED_BYTES_MAX;
        if !(second || woken || checkpoint_is_due) {
            continue;
        }
        round = (round + u32::from(second)) % TIME_ROUND;
        let look = Round { full: second && round.is_multiple_of(FULL_ROUND), by_time: second && round == 0 };
        let checkpoint = look.full || checkpoint_is_due;
        let mut looked_at = Vec::new();
        for replica in inner.replicas.open() {
            let touched = replica.take_touched();
            let rests = second && busy.remove(&replica.id());
            if touched {
                has_marks = true;
                busy.insert(replica.id());
            }
            // One that rests now has nothing to read back, whatever ends the process.
            let checkpoint = checkpoint || (rests && !touched);
            if touched || look.full || checkpoint {
                looked_at.push(Turn { replica, touched, checkpoint });
            }
        }
        // Each turn waits for its partition's own tasks: one after another, a thousand busy ones would take seconds.
        let turns = futures::stream::iter(looked_at);
        turns.for_each_concurrent(TURNS_AT_ONCE, |turn| turn.run(&inner, look)).await;
        if checkpoint {
            inner.controller.checkpoint().await;
            busy.clear();
        }
        if second && std::mem::take(&mut has_marks) {
            // Marks alone do not hurry to the device, and without a recent one damage looks like a tail that was never synced. A sync that
            // fails stops the journal, which whoever waits for it next will notice.
            inner.journal.sync(Box::new(drop));
        }
        producers.look(&inner, began.elapsed()).await;
        if second && (round.is_multiple_of(OFFSETS_ROUND) || inner.has_dropped.swap(false, Ordering::Relaxed)) {
            let controller = Arc::clone(&inner.controller);
            let forgetting = inner.coordinators.expire_offsets(move |topic| controller.topic_id(topic));
            if tokio::time::timeout(OFFSETS_PATIENCE, forgetting).await.is_err() {
                tracing::warn!("forgetting old offsets takes too long; it is tried again");
            }
        }
    }
}

/// What one partition's turn of a round is for.
struct Turn {
    replica: Arc<Replica>,
    touched: bool,
    checkpoint: bool,
}

impl Turn {
    async fn run(self, inner: &Inner, look: Round) {
        if self.touched {
            self.replica.log().mark_flushed();
        }
        if self.checkpoint {
            self.replica.group().checkpoint().await;
        }
        if self.touched || look.full {
            visit(inner, &self.replica, look).await;
        }
    }
}

/// What a look at a partition covers.
#[derive(Clone, Copy)]
struct Round {
    full: bool,
    by_time: bool,
}

async fn visit(inner: &Inner, replica: &Arc<Replica>, round: Round) {
    // Log start is the leader's to move.
    if replica.term().is_some() {
        let (looked_at, now) = (Arc::clone(replica), inner.env.clock.now());
        let due = on_disk(&inner.env.disk, Lane::Background, move || looked_at.retention_due(now, round.by_time));
        match due.await {
            Ok(Ok(Some(due))) => move_log_start(inner, replica, due).await,
            Ok(Ok(None)) | Err(_) => {}
            Ok(Err(error)) => {
                tracing::warn!(partition = %replica.id(), %error, "retention could not look at the segments")
            }
        }
    }
    if replica.take_purgeable() {
        if let Err(error) = replica.roll_below_log_start() {
            tracing::warn!(partition = %replica.id(), %error, "the active segment could not be ended");
        }
        replica.group().checkpoint().await;
        replica.group().purge().await;
    }
    if round.full {
        replica.group().flusher().flush_soon();
    }
}

async fn move_log_start(inner: &Inner, replica: &Arc<Replica>, due: Offset) {
    let Ok(moved) = tokio::time::timeout(STEP_PATIENCE, replica.move_log_start(due)).await else {
        tracing::warn!(partition = %replica.id(), "moving log start takes too long: its group has no majority, or no room; it is tried again");
        return;
    };
    match moved {
        Ok(()) => {
            inner.metrics.log_start_moves.inc();
            tracing::debug!(partition = %replica.id(), log_start = %due, "retention moved log start");
        }
        Err(error) => {
            tracing::warn!(partition = %replica.id(), %error, "retention could not move log start; it is tried again")
        }
    }
}
