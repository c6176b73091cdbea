//! What a restart must not lose, bring back or mistake: each test is a bug that the crash test has found.

use std::sync::Arc;

use bytes::Bytes;

use super::disk::Disk;
use super::entry::{Body, RaftEntryKind};
use super::mem_disk::MemDisk;
use super::name::INDEX;
use super::test_kit::{Kit, PARTITION, batch, stamped};
use super::*;
use crate::ids::{LogId, Offset, PartitionId, PartitionIndex, RaftIndex, Term};

const SEGMENT_BYTES: u64 = 1000;

fn id(term: u64, index: u64) -> LogId {
    LogId { term: Term(term), index: RaftIndex(index) }
}

/// Entries of one record each, in a few segments: index and offset are the same.
fn filled(terms: &[u64]) -> Kit {
    let kit = Kit::new(SEGMENT_BYTES);
    for (number, term) in (0..).zip(terms) {
        kit.append(*term, batch(number, 1, 300));
    }
    kit
}

/// The same on a disk whose jobs wait, so that no file is removed; all of it is durable.
fn queued(seed: u64, terms: &[u64]) -> Kit {
    let disk = MemDisk::queued().seeded(seed);
    journal::Journal::create(Arc::new(disk.clone())).expect("a new disk");
    let kit = Kit::open(disk, SEGMENT_BYTES, false);
    for (number, term) in (0..).zip(terms) {
        kit.append(*term, batch(number, 1, 300));
    }
    kit.flush();
    kit
}

/// Another replica's state at an entry.
fn received(at: LogId, next_offset: i64) -> Descriptor {
    Descriptor {
        id: at,
        membership: Bytes::new(),
        next_offset: Offset(next_offset),
        log_start: Offset(next_offset),
        epochs: vec![epochs::EpochStart { term: at.term, index: RaftIndex(0), offset: Offset(0) }],
        machine: Bytes::new(),
        place: None,
        roll: true,
    }
}

fn put(kit: &Kit, descriptor: Descriptor) {
    kit.journal.put_descriptor(PARTITION, descriptor, Box::new(|result| result.expect("the disk works")));
}

#[test]
fn entries_that_are_kept_keep_their_terms_when_segments_before_them_are_deleted() {
    let kit = filled(&[1, 1, 1, 1, 2, 2, 3, 3, 4, 4]);
    kit.flush();
    kit.log.purge(id(2, 4)).expect("in the log");
    assert!(kit.log.delete_before(Offset(i64::MAX)).segments > 0);
    assert_eq!(kit.log.end_of_epoch(Term(2)), Some((Term(2), Offset(6))));
    for index in 5..10 {
        assert!(kit.log.id_at(RaftIndex(index)).is_some(), "the term at {index}");
    }
    kit.log.truncate_from(RaftIndex(8)).expect("not committed");
    assert_eq!(kit.log.state().last, Some(id(3, 7)), "the log is not empty");
    assert_eq!(kit.append(5, batch(77, 1, 10)), id(5, 8));
}

#[test]
fn what_was_truncated_does_not_come_back_whatever_ends_the_process() {
    for seed in 0..60 {
        let kit = queued(seed, &[1; 10]);
        kit.log.truncate_from(RaftIndex(4)).expect("not committed");
        let disk = if seed % 3 == 0 { kit.disk.crash_process() } else { kit.disk.after_power_cut() };
        truncated_at_four(&Kit::open(disk, SEGMENT_BYTES, false));
    }
    let kit = filled(&[1; 10]);
    kit.flush();
    kit.log.truncate_from(RaftIndex(4)).expect("not committed");
    truncated_at_four(&kit.stop_and_start(SEGMENT_BYTES));
}

fn truncated_at_four(kit: &Kit) {
    assert_eq!(kit.log.state().last, Some(id(1, 3)));
    assert!(!kit.recovered.forgotten && kit.recovered.damage.is_empty(), "{:?}", kit.recovered);
}

#[test]
fn an_empty_file_at_a_clean_stop_keeps_its_name_when_entries_have_come_to_it() {
    for seed in 0..20 {
        let kit = filled(&[1; 3]);
        kit.flush();
        kit.log.roll().expect("the disk works");
        let kit = kit.stop_and_start(SEGMENT_BYTES);
        let last = kit.append(2, batch(9, 1, 10));
        kit.flush();
        let kit = Kit::open(kit.disk.clone().seeded(seed).after_power_cut(), SEGMENT_BYTES, false);
        assert_eq!(kit.log.state().last, Some(last), "seed {seed}");
    }
}

#[test]
fn a_log_whose_every_entry_was_truncated_begins_anew_and_has_not_forgotten() {
    let kit = filled(&[1; 6]);
    kit.flush();
    kit.log.mark_flushed();
    kit.sync_journal();
    kit.log.truncate_from(RaftIndex(0)).expect("not committed");
    let mut kit = kit.stop_and_start(SEGMENT_BYTES);
    for _ in 0..3 {
        assert_eq!(kit.log.state().last, None);
        assert!(!kit.recovered.forgotten, "the mark's entries were truncated");
        kit = Kit::open(kit.disk.after_power_cut(), SEGMENT_BYTES, false);
    }
    assert_eq!(kit.append_at(2, 0, Body::Raft { kind: RaftEntryKind::Blank, body: Bytes::new() }), id(2, 0));
}

#[test]
fn a_later_file_does_not_join_a_history_that_its_generation_has_ended() {
    // Entries are as large in both histories: only the missing file tells that they are two.
    for seed in 0..100 {
        let kit = queued(seed, &[1; 12]);
        kit.log.truncate_from(RaftIndex(2)).expect("not committed");
        for index in 2..12 {
            kit.append(9, batch(index, 1, 300));
        }
        let kit = Kit::open(kit.disk.after_power_cut(), SEGMENT_BYTES, false);
        let last = kit.log.state().last.expect("two entries were durable and kept");
        let terms: Vec<u64> =
            (0..=last.index.0).map(|at| kit.log.id_at(RaftIndex(at)).expect("there").term.0).collect();
        assert!(terms[..2] == [1, 1] && terms[2..].iter().all(|term| *term == 9), "seed {seed}: {terms:?}");
        assert!(!kit.recovered.forgotten, "seed {seed}");
    }
}

#[test]
fn what_stood_before_a_received_descriptor_is_gone_even_if_the_cut_was_not_recorded() {
    let kit = filled(&[1; 8]);
    kit.flush();
    put(&kit, received(id(3, 20), 20));
    kit.log.purge(id(3, 20)).expect("there is a descriptor");
    let one = batch(21, 1, 10);
    kit.append(3, one.clone());
    kit.flush();
    // The journal as it was before the purge; the files as they are.
    let fresh = Kit::new(SEGMENT_BYTES);
    put(&fresh, received(id(3, 20), 20));
    for name in kit.files(".log") {
        copy(&kit, &fresh, &format!("{}/{name}", directory(PARTITION)));
    }
    let kit = Kit::open(fresh.disk.crash_process(), SEGMENT_BYTES, false);
    assert_eq!(kit.log.state().purged, Some(id(3, 20)));
    assert_eq!(kit.log.state().last, Some(id(3, 21)));
    assert_eq!(kit.log.first_offset_kept(), Offset(20), "nothing of the other history");
    assert_eq!(kit.read(20, 99, 21).expect("there"), stamped(&one, 20, 3));
    // The cut is recorded now, whatever descriptor comes next.
    kit.checkpoint(20);
    let kit = Kit::open(kit.disk.after_power_cut(), SEGMENT_BYTES, false);
    assert_eq!(kit.log.state().purged, Some(id(3, 20)));
    assert!(kit.recovered.damage.is_empty(), "{:?}", kit.recovered);
}

fn copy(from: &Kit, to: &Kit, path: &str) {
    let source = from.disk.open(path, disk::Open::ReadOnly).expect("there");
    let mut bytes = vec![0; usize::try_from(source.len().expect("a length")).expect("small")];
    source.read_at(0, &mut bytes).expect("read");
    let copy = to.disk.open(path, disk::Open::New).expect("not there yet");
    copy.write_at(0, &[std::io::IoSlice::new(&bytes)]).expect("the disk works");
    copy.sync().expect("the disk works");
}

#[test]
fn a_log_that_began_anew_has_not_forgotten_what_it_had_before() {
    let kit = filled(&[1; 8]);
    kit.flush();
    kit.log.mark_flushed();
    put(&kit, received(id(3, 20), 20));
    let mut kit = Kit::open(kit.disk.after_power_cut(), SEGMENT_BYTES, false);
    for _ in 0..3 {
        assert_eq!(kit.log.state().last, Some(id(3, 20)));
        assert!(!kit.recovered.forgotten, "{:?}", kit.recovered);
        kit = Kit::open(kit.disk.after_power_cut(), SEGMENT_BYTES, false);
    }
    assert!(kit.files(".log").is_empty(), "and its files are removed");
}

#[test]
fn an_index_of_entries_that_were_cut_is_not_used_for_those_that_come_in_their_place() {
    const LARGE: u64 = 1 << 20;
    let kit = Kit::new(LARGE);
    kit.append(1, batch(0, 1, 10));
    kit.log.roll().expect("the disk works");
    for number in 0..6 {
        kit.append(1, batch(number, 1, 20_000));
    }
    kit.log.seal_clean().expect("the disk works");
    let (path, indexes) = (format!("{}/{}", directory(PARTITION), kit.files(".log")[1]), kit.files(INDEX).len());
    assert_eq!(indexes, 2);
    let disk = kit.disk.crash_process();
    // What was never said to be durable is lost, its index is not.
    disk.open(&path, disk::Open::Existing).expect("there").set_len(0).expect("the disk works");
    let kit = Kit::open(disk, LARGE, false);
    assert_eq!(kit.log.state().last, Some(id(1, 0)));
    let value = |offset: i64| batch(u64::try_from(offset).expect("small"), 1, 1500);
    for offset in 1..200 {
        kit.append(2, value(offset));
    }
    kit.checkpoint(0);
    let kit = kit.restart(LARGE);
    for offset in 1..200 {
        assert_eq!(kit.read(offset, 1, 200).expect("there"), stamped(&value(offset), offset, 2));
    }
}

#[test]
fn what_a_recovery_puts_aside_is_not_removed_for_older_cuts_with_higher_names() {
    let kit = filled(&[1; 3]);
    kit.flush();
    for number in 0..9 {
        let path = format!("{}/{:020}-0.cut", directory(PARTITION), 1000 + number);
        kit.disk.open(&path, disk::Open::New).expect("not there yet");
    }
    let path = format!("{}/{}", directory(PARTITION), kit.files(".log")[1]);
    let file = kit.disk.open(&path, disk::Open::Existing).expect("there");
    file.write_at(file.len().expect("a length"), &[std::io::IoSlice::new(&[7; 50])]).expect("the disk works");
    let kit = kit.restart(SEGMENT_BYTES);
    let kept = kit.recovered.cut.as_ref().expect("junk behind the end").kept_as.clone().expect("there is space");
    assert!(kit.disk.open(&kept, disk::Open::ReadOnly).is_ok(), "{kept} is kept");
    assert_eq!(kit.files(".cut").len(), 5);
}

/// Whoever opens a log goes by what this says whether the process may go on.
#[test]
fn each_sync_of_a_recovery_that_fails_is_told_as_one() {
    for nth in 0.. {
        let kit = filled(&[1; 5]);
        let disk = kit.disk.crash_process();
        let journal = journal::Journal::open(Arc::new(disk.clone())).expect("a whole journal");
        let before = disk.counters().syncs;
        disk.fail_sync_at(before + nth);
        let config = LogConfig { segment_bytes: SEGMENT_BYTES };
        let opened = Log::open(Arc::new(disk.clone()), journal, PARTITION, config, OpenAfter { clean: false });
        match opened {
            Ok(_) => {
                assert!(disk.counters().syncs == before + nth && nth >= 5, "only {nth} syncs");
                return;
            }
            Err(error) => assert!(matches!(error, LogError::Sync(_)), "sync {nth}: {error}"),
        }
    }
}

/// Logs of one topic, opened in one process after a kill -9.
struct Starting {
    disk: MemDisk,
    journal: Arc<journal::Journal>,
}

impl Starting {
    fn of(disk: MemDisk) -> Self {
        let journal = journal::Journal::open(Arc::new(disk.clone())).expect("a whole journal");
        Self { disk, journal }
    }

    fn id(partition: i32) -> PartitionId {
        PartitionId { partition: PartitionIndex(partition), ..PARTITION }
    }

    /// Opens one; how many syncs that took.
    fn open(&self, partition: i32, clean: bool) -> Result<u64, LogError> {
        let (before, config) = (self.disk.counters().syncs, LogConfig { segment_bytes: SEGMENT_BYTES });
        let disk = Arc::new(self.disk.clone());
        Log::open(disk, Arc::clone(&self.journal), Self::id(partition), config, OpenAfter { clean })?;
        Ok(self.disk.counters().syncs - before)
    }
}

#[test]
fn what_is_above_the_logs_of_a_topic_is_synced_once_after_a_kill() {
    let disk = filled(&[1; 5]).disk;
    let first = Starting::of(disk.crash_process());
    for partition in 0..3 {
        first.open(partition, false).unwrap();
    }
    let again = Starting::of(first.disk.crash_process());
    let syncs: Vec<u64> = (0..3).map(|partition| again.open(partition, false).unwrap()).collect();
    assert_eq!((syncs[1] + 3, syncs[2] + 3), (syncs[0], syncs[0]), "three directories are above each");
}

#[test]
fn a_log_that_was_made_has_a_durable_name_whatever_was_synced_before() {
    for (seed, clean) in (0..20).flat_map(|seed| [(seed, false), (seed, true)]) {
        let disk = MemDisk::inline().seeded(seed);
        journal::Journal::create(Arc::new(disk.clone())).expect("a new disk");
        Starting::of(disk.clone()).open(0, false).unwrap();
        let starting = Starting::of(disk.crash_process());
        starting.open(0, clean).unwrap();
        starting.open(1, clean).unwrap();
        // Another attempt came so far, and found no descriptor to sync with.
        starting.journal.parents().will_make(Starting::id(2));
        starting.disk.create_dir_all(&directory(Starting::id(2))).unwrap();
        starting.open(2, clean).unwrap();
        let left = starting.disk.after_power_cut();
        for partition in 0..3 {
            let dir = directory(Starting::id(partition));
            assert!(left.list(&dir).is_ok(), "seed {seed}, clean {clean}: {dir} is gone");
        }
    }
}
