//! One life's work: what Raft and the broker ask of a log, at random, with the answers told to the model.

use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;

use super::super::entry::{Body, NewEntry, RaftEntryKind};
use super::super::journal::{Done, Journal};
use super::super::mem_disk::MemDisk;
use super::super::test_kit::{PARTITION, batch};
use super::super::{Descriptor, FlushPlan, Log, LogError};
use super::Rng;
use super::model::Model;
use crate::ids::{LogId, Offset, RaftIndex};

/// Steps of a life that nothing ends before.
const STEPS: u64 = 60;

pub(super) struct Life<'a> {
    pub(super) disk: &'a MemDisk,
    pub(super) journal: Arc<Journal>,
    pub(super) log: Log,
    pub(super) model: &'a mut Model,
    pub(super) rng: &'a mut Rng,
    pub(super) trace: bool,
}

type Answer = Arc<Mutex<Option<bool>>>;

/// A callback, and where its answer will be.
fn answer() -> (Done, Answer) {
    let answer = Answer::default();
    let told = Arc::clone(&answer);
    (Box::new(move |result| *told.lock().expect("no panic") = Some(result.is_ok())), answer)
}

fn is_ok(answer: &Answer) -> bool {
    *answer.lock().expect("no panic") == Some(true)
}

impl Life<'_> {
    /// Works until the disk is gone, or for some steps and then, if it is to `stop`, stops; answers whether it stopped cleanly.
    pub(super) fn work(&mut self, stop: bool) -> Result<bool, String> {
        let steps = if stop { self.rng.below(STEPS) } else { 10 * STEPS };
        for _ in 0..steps {
            let done = self.step();
            if self.disk.is_cut() {
                return Ok(false);
            }
            done.map_err(|error| format!("without a fault: {error}"))?;
        }
        if stop {
            self.log.seal_clean().map_err(|error| error.to_string())?;
            self.sync_journal();
            if let Some(last) = self.log.state().last {
                self.model.flushed(last);
            }
        }
        Ok(stop)
    }

    fn step(&mut self) -> Result<(), LogError> {
        match self.rng.below(100) {
            0..=39 => self.append(),
            40..=54 => self.flush(),
            55..=62 => self.truncate(),
            63..=70 => self.commit(),
            71..=75 => self.checkpoint(),
            76..=79 => self.log.roll(),
            80..=82 => self.purge(),
            83..=84 => self.delete(),
            85..=86 => {
                self.log.mark_flushed();
                Ok(())
            }
            87..=88 => {
                self.sync_journal();
                Ok(())
            }
            89 => self.receive(),
            90..=91 => self.log.reserve(self.rng.below(5000)),
            _ => {
                self.disk.run_next();
                Ok(())
            }
        }
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("  {}, op {}", what(), self.disk.ops());
        }
    }

    fn append(&mut self) -> Result<(), LogError> {
        let mut entries = Vec::new();
        let mut index = self.log.state().last.map_or(RaftIndex(0), |last| last.index.next());
        let mut term = self.model.term();
        for _ in 0..=self.rng.below(6) {
            if self.rng.chance(10) {
                term = term.next();
            }
            let body = match self.rng.below(10) {
                0..=1 => Body::Raft { kind: RaftEntryKind::Blank, body: Bytes::new() },
                2 => Body::Raft { kind: RaftEntryKind::Command, body: Bytes::from(vec![7; self.small(300)]) },
                3 => Body::Records(batch(self.rng.below(1 << 40), 1 + self.small(3), self.small(5000))),
                _ => Body::Records(batch(self.rng.below(1 << 40), 1 + self.small(2), self.small(300))),
            };
            entries.push(NewEntry { id: LogId { term, index }, body });
            index = index.next();
        }
        self.say(|| format!("append {} to {}", entries[0].id, entries[entries.len() - 1].id));
        entries.iter().for_each(|entry| self.model.append(entry));
        self.log.append(&entries).map(drop)
    }

    fn small(&mut self, below: u64) -> usize {
        usize::try_from(self.rng.below(below)).expect("small")
    }

    /// Flushes as the flusher does, with other work while it runs.
    fn flush(&mut self) -> Result<(), LogError> {
        let Some(plan) = self.log.begin_flush() else { return Ok(()) };
        self.say(|| format!("begin the flush of {}", plan.upto()));
        if self.rng.chance(30) {
            self.meanwhile()?;
        }
        plan.run()?;
        if self.rng.chance(30) {
            self.meanwhile()?;
        }
        self.end_flush(plan)
    }

    fn end_flush(&mut self, plan: FlushPlan) -> Result<(), LogError> {
        let flushed = self.log.end_flush(plan)?;
        self.say(|| format!("flushed {flushed:?}"));
        if let Some(flushed) = flushed {
            self.model.flushed(flushed);
        }
        Ok(())
    }

    fn meanwhile(&mut self) -> Result<(), LogError> {
        match self.rng.below(4) {
            0 => self.truncate(),
            1 => self.log.roll(),
            _ => self.append(),
        }
    }

    fn truncate(&mut self) -> Result<(), LogError> {
        let state = self.log.state();
        let Some(last) = state.last else { return Ok(()) };
        let first = self.model.committed.max(state.purged).map_or(self.model.now.first(), |kept| kept.index.next());
        if first > last.index {
            return Ok(());
        }
        let from = RaftIndex(first.0 + self.rng.below(last.index.0 - first.0 + 1));
        self.say(|| format!("truncate from {from}"));
        self.model.truncate(from);
        self.log.truncate_from(from)?;
        self.model.before.clear();
        Ok(())
    }

    /// Some entry between two indexes, both included.
    fn pick(&mut self, from: RaftIndex, to: RaftIndex) -> Option<LogId> {
        let span = to.0.checked_sub(from.0)?;
        let index = RaftIndex(from.0 + self.rng.below(span + 1));
        self.model.now.get(index).map(|entry| entry.id)
    }

    fn commit(&mut self) -> Result<(), LogError> {
        let Some(last) = self.log.state().last else { return Ok(()) };
        let from = self.model.committed.map_or(self.model.now.first(), |id| id.index);
        if let Some(id) = self.pick(from, last.index) {
            self.say(|| format!("commit {id}"));
            self.model.committed = self.model.committed.max(Some(id));
            self.log.save_committed(id);
        }
        Ok(())
    }

    /// The last entry that is committed and durable.
    fn stable(&self) -> Option<LogId> {
        let flushed = self.log.state().flushed?;
        self.model.committed.map(|committed| committed.min_index(flushed))
    }

    fn checkpoint(&mut self) -> Result<(), LogError> {
        let first = self.log.state().purged.map_or(self.model.now.first(), |purged| purged.index.next());
        let Some(id) = self.stable().and_then(|stable| self.pick(first, stable.index)) else { return Ok(()) };
        let point = self.log.point_at(id.index)?;
        let descriptor = Descriptor {
            id: point.id,
            membership: Bytes::from_static(b"members"),
            next_offset: point.next_offset,
            log_start: Offset(0),
            epochs: point.epochs,
            machine: Bytes::from(vec![1; self.small(8)]),
            place: Some(point.place),
            roll: point.ends_segment,
        };
        // Restart points go forward.
        if self.model.descriptors.iter().any(|before| before.id.index >= id.index) {
            return Ok(());
        }
        self.say(|| format!("describe {id}"));
        self.model.descriptors.push(descriptor.clone());
        let (done, told) = answer();
        self.log.put_descriptor(descriptor, done)?;
        if self.rng.chance(70) {
            self.disk.run_all();
        }
        if is_ok(&told) {
            self.model.described = self.model.described.max(Some(id));
        }
        Ok(())
    }

    fn purge(&mut self) -> Result<(), LogError> {
        let first = self.log.state().purged.map_or(self.model.now.first(), |purged| purged.index.next());
        // What a restart begins with is behind what is purged.
        let upto = self.stable().min(self.model.described);
        let Some(id) = upto.and_then(|upto| self.pick(first, upto.index)) else { return Ok(()) };
        self.say(|| format!("purge to {id}"));
        self.model.purged = Some(id);
        self.log.purge(id)
    }

    fn delete(&mut self) -> Result<(), LogError> {
        let deleted = self.log.delete_before(Offset(i64::MAX));
        self.say(|| format!("deleted {deleted:?}"));
        Ok(())
    }

    fn sync_journal(&mut self) {
        let (done, told) = answer();
        let purged = self.log.state().purged;
        self.journal.sync(done);
        self.disk.run_all();
        if is_ok(&told) {
            self.model.purged_durable = purged;
        }
    }

    /// Another replica's state from beyond the log's end: the log begins anew behind it.
    fn receive(&mut self) -> Result<(), LogError> {
        let last = self.log.state().last.unwrap_or_default();
        let id = LogId { term: self.model.term().next(), index: RaftIndex(last.index.0 + 1 + self.rng.below(20)) };
        let next_offset = Offset(self.log.state().next_offset.0 + 5);
        let descriptor = Descriptor {
            id,
            membership: Bytes::new(),
            next_offset,
            log_start: next_offset,
            epochs: Vec::new(),
            machine: Bytes::from_static(b"received"),
            place: None,
            roll: true,
        };
        self.say(|| format!("receive {id}"));
        self.model.descriptors.push(descriptor.clone());
        let (done, told) = answer();
        self.model.begin_anew(id, next_offset);
        self.model.purged = Some(id);
        self.model.committed = Some(id);
        self.journal.put_descriptor(PARTITION, descriptor, done);
        self.disk.run_all();
        if !is_ok(&told) {
            return Ok(());
        }
        // From now on a start finishes the work.
        self.model.described = Some(id);
        self.model.purged_durable = self.model.purged_durable.max(Some(id));
        self.model.before.clear();
        self.log.purge(id)
    }
}
