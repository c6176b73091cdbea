use std::io;
use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;

use super::super::descriptor::{Descriptor, Mark, Place};
use super::super::disk::{Disk, Open};
use super::super::epochs::EpochStart;
use super::super::mem_disk::MemDisk;
use super::super::name::SegmentName;
use super::*;
use crate::ids::{Offset, PartitionIndex, RaftIndex, Term, TopicId};

const GROUP: PartitionId = PartitionId { topic: TopicId([1; 16]), partition: PartitionIndex(2) };
const OTHER: PartitionId = PartitionId { topic: TopicId([2; 16]), partition: PartitionIndex(0) };

type Results = Arc<Mutex<Vec<(u32, io::Result<()>)>>>;

fn shared(disk: &MemDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn note(results: &Results, number: u32) -> Done {
    let results = Arc::clone(results);
    Box::new(move |result| results.lock().expect("no panic").push((number, result)))
}

fn acknowledged(results: &Results) -> Vec<u32> {
    results.lock().expect("no panic").iter().filter(|(_, result)| result.is_ok()).map(|(number, _)| *number).collect()
}

fn ignore() -> Done {
    Box::new(|result| result.expect("the disk works"))
}

fn id(term: u64, index: u64) -> LogId {
    LogId { term: Term(term), index: RaftIndex(index) }
}

fn place(position: u64) -> Place {
    let segment = SegmentName { first_index: RaftIndex(0), first_offset: Offset(0), generation: 1 };
    Place { segment, position }
}

fn descriptor(index: u64, next_offset: i64, log_start: i64, roll: bool) -> Descriptor {
    Descriptor {
        id: id(2, index),
        membership: Bytes::from_static(b"members"),
        next_offset: Offset(next_offset),
        log_start: Offset(log_start),
        epochs: vec![EpochStart { term: Term(2), index: RaftIndex(0), offset: Offset(0) }],
        machine: Bytes::from_static(b"machine"),
        place: Some(place(index * 100)),
        roll,
    }
}

#[test]
fn everything_put_is_there_after_a_power_cut() {
    let disk = MemDisk::inline();
    let journal = Journal::create(shared(&disk)).expect("created");
    journal.put_vote(GROUP, Bytes::from_static(b"vote 1"), ignore());
    journal.put_committed(GROUP, id(2, 7));
    journal.put_purged(GROUP, id(1, 3));
    journal.put_mark(GROUP, Mark { id: id(2, 9), next_offset: Offset(90), place: place(900) });
    journal.put_vote(OTHER, Bytes::from_static(b"other"), ignore());
    journal.put_descriptor(GROUP, descriptor(5, 50, 0, false), ignore());
    journal.put_vote(GROUP, Bytes::from_static(b"vote 2"), ignore());
    let before = journal.group(GROUP);
    let again = Journal::open(shared(&disk.after_power_cut())).expect("whole");
    assert_eq!(again.group(GROUP), before);
    assert_eq!(before.vote, Some(Bytes::from_static(b"vote 2")));
    assert_eq!(before.committed, Some(id(2, 7)));
    assert_eq!(before.checkpoint(), Some(&descriptor(5, 50, 0, false)));
    assert_eq!(again.groups(), [GROUP, OTHER]);
    again.remove_group(GROUP, ignore());
    assert_eq!(again.groups(), [OTHER]);
    assert_eq!(again.group(GROUP), GroupState::default());
}

#[test]
fn lazy_values_wait_for_the_next_frame_or_a_sync() {
    let disk = MemDisk::inline();
    let journal = Journal::create(shared(&disk)).expect("created");
    let syncs = disk.counters().syncs;
    journal.put_committed(GROUP, id(1, 1));
    journal.put_committed(GROUP, id(1, 2));
    assert_eq!(disk.counters().syncs, syncs);
    assert_eq!(journal.group(GROUP).committed, Some(id(1, 2)));
    journal.sync(ignore());
    assert_eq!(disk.counters().syncs, syncs + 1);
    journal.sync(ignore());
    assert_eq!(disk.counters().syncs, syncs + 1, "nothing to make durable");
    let again = Journal::open(shared(&disk.after_power_cut())).expect("whole");
    assert_eq!(again.group(GROUP).committed, Some(id(1, 2)));
}

#[test]
fn what_is_put_during_a_commit_shares_the_next_one() {
    let disk = MemDisk::queued();
    let journal = Journal::create(shared(&disk)).expect("created");
    let results = Results::default();
    for number in 0..10 {
        journal.put_vote(GROUP, Bytes::from(vec![u8::try_from(number).expect("small")]), note(&results, number));
    }
    assert_eq!(disk.waiting_jobs(), 1, "one commit in flight");
    assert_eq!(journal.group(GROUP).vote, None, "not durable yet");
    let syncs = disk.counters().syncs;
    disk.run_all();
    assert_eq!(disk.counters().syncs, syncs + 1);
    assert_eq!(acknowledged(&results), (0..10).collect::<Vec<_>>());
    assert_eq!(journal.group(GROUP).vote, Some(Bytes::from_static(&[9])));
}

#[test]
fn a_failed_sync_fails_everything_waiting_and_everything_later() {
    let disk = MemDisk::queued();
    let journal = Journal::create(shared(&disk)).expect("created");
    let results = Results::default();
    disk.fail_sync_at(disk.counters().syncs);
    journal.put_vote(GROUP, Bytes::from_static(b"lost"), note(&results, 0));
    journal.put_vote(OTHER, Bytes::from_static(b"lost"), note(&results, 1));
    disk.run_all();
    journal.put_vote(GROUP, Bytes::from_static(b"later"), note(&results, 2));
    disk.run_all();
    assert!(journal.has_failed());
    let results = results.lock().expect("no panic");
    assert_eq!(results.len(), 3);
    assert!(results.iter().all(|(_, result)| result.is_err()));
}

#[test]
fn a_failed_sync_is_told_though_nobody_waits_for_it() {
    let disk = MemDisk::queued();
    let journal = Journal::create(shared(&disk)).expect("created");
    let told = Arc::new(Mutex::new(Vec::new()));
    let hook = || {
        let told = Arc::clone(&told);
        Box::new(move |reason| told.lock().expect("no panic").push(reason))
    };
    journal.on_failure(hook());
    disk.fail_sync_at(disk.counters().syncs);
    journal.remove_group(GROUP, Box::new(drop));
    disk.run_all();
    journal.remove_group(OTHER, Box::new(drop));
    disk.run_all();
    assert_eq!(told.lock().expect("no panic").len(), 1, "once");
    journal.on_failure(hook());
    assert_eq!(told.lock().expect("no panic").len(), 2, "whoever asks later is told at once");
}

#[test]
fn a_torn_last_frame_is_cut_and_a_bad_one_before_it_refuses() {
    let disk = MemDisk::inline();
    let journal = Journal::create(shared(&disk)).expect("created");
    for number in 0..4_u8 {
        journal.put_vote(GROUP, Bytes::from(vec![number]), ignore());
    }
    let whole = disk.open(JOURNAL, Open::ReadOnly).expect("there").len().expect("a length");
    assert_eq!(whole, 5 * 512, "each frame has sectors of its own");
    let torn = disk.after_power_cut();
    torn.flip_bit(JOURNAL, whole - 512 + 30, 3).expect("there");
    let journal = Journal::open(shared(&torn)).expect("a torn tail is cut");
    assert_eq!(journal.group(GROUP).vote, Some(Bytes::from_static(&[2])));
    journal.put_vote(GROUP, Bytes::from_static(b"on"), ignore());
    let damaged = torn.after_power_cut();
    damaged.flip_bit(JOURNAL, 512 + 30, 3).expect("there");
    let error = Journal::open(shared(&damaged)).expect_err("valid frames lie behind the bad one");
    assert!(matches!(error, JournalError::Damaged { position: 512 }), "{error}");
    assert!(error.to_string().contains("ottla repair"), "{error}");
}

#[test]
fn a_journal_that_is_missing_or_of_another_version_does_not_open() {
    let disk = MemDisk::inline();
    assert!(matches!(Journal::open(shared(&disk)), Err(JournalError::Missing)));
    drop(Journal::create(shared(&disk)).expect("created"));
    assert!(matches!(Journal::create(shared(&disk)), Err(JournalError::Exists)));
    let other = MemDisk::inline();
    let mut payload = Vec::new();
    Record::Format(9).encode(&mut payload);
    let frame = super::super::journal_frame::encode_frame(0, &payload);
    let file = other.open(JOURNAL, Open::New).expect("created");
    file.write_at(0, &[io::IoSlice::new(&frame)]).expect("written");
    assert!(matches!(Journal::open(shared(&other)), Err(JournalError::Version { found: 9 })));
}

#[test]
fn dead_bytes_are_compacted_away_and_nothing_is_lost() {
    let disk = MemDisk::inline();
    let journal = Journal::create(shared(&disk)).expect("created");
    journal.put_descriptor(OTHER, descriptor(5, 50, 0, false), ignore());
    let machine = Bytes::from(vec![5; 500_000]);
    for index in 0..30 {
        let newer = Descriptor { machine: machine.clone(), ..descriptor(index, 0, 0, false) };
        journal.put_descriptor(GROUP, newer, ignore());
        journal.put_vote(GROUP, Bytes::from(index.to_be_bytes().to_vec()), ignore());
    }
    let len = disk.open(JOURNAL, Open::ReadOnly).expect("there").len().expect("a length");
    assert!(len < 11 << 20, "{len} bytes for half a MiB of state");
    let before = (journal.group(GROUP), journal.group(OTHER));
    let again = Journal::open(shared(&disk.after_power_cut())).expect("whole");
    assert_eq!((again.group(GROUP), again.group(OTHER)), before);
    assert_eq!(before.0.descriptors.len(), 1);
}

#[test]
fn votes_are_written_on_a_full_disk_and_descriptors_refused() {
    let disk = MemDisk::inline();
    let journal = Journal::create(shared(&disk)).expect("created");
    disk.set_capacity(Some(0));
    let results = Results::default();
    let large = Descriptor { machine: Bytes::from(vec![1; 8 << 20]), ..descriptor(5, 50, 0, false) };
    journal.put_descriptor(GROUP, large, note(&results, 0));
    for number in 1..500 {
        journal.put_vote(GROUP, Bytes::from_static(b"vote"), note(&results, number));
    }
    assert_eq!(acknowledged(&results), (1..500).collect::<Vec<_>>());
    let refused = results.lock().expect("no panic")[0].1.as_ref().map_err(io::Error::kind).copied();
    assert_eq!(refused, Err(io::ErrorKind::StorageFull));
    disk.set_capacity(None);
    journal.put_descriptor(GROUP, descriptor(6, 60, 0, false), note(&results, 500));
    assert_eq!(acknowledged(&results).last(), Some(&500), "there is room again");
}

#[test]
fn kept_are_the_newest_descriptor_and_those_of_rolls_that_can_be_sent() {
    let mut state = GroupState::default();
    let mut put = |index, next_offset, log_start, roll| {
        state.apply(Change::Descriptor(Box::new(descriptor(index, next_offset, log_start, roll))));
        state.descriptors.iter().map(|it| it.id.index.0).collect::<Vec<_>>()
    };
    assert_eq!(put(10, 100, 0, true), [10]);
    assert_eq!(put(15, 150, 0, false), [10, 15]);
    assert_eq!(put(20, 200, 0, true), [10, 20]);
    assert_eq!(put(25, 250, 0, false), [10, 20, 25]);
    assert_eq!(put(30, 300, 230, true), [20, 30], "the last at or below log start stays");
    assert_eq!(put(30, 300, 230, false), [20, 30], "the same entry again");
    assert_eq!(state.snapshot(Offset(299)).map(|it| it.id.index.0), Some(20));
    assert_eq!(state.snapshot(Offset(300)).map(|it| it.id.index.0), Some(30));
    assert_eq!(state.snapshot(Offset(199)), None);
    let received = Descriptor { place: None, ..descriptor(90, 900, 900, true) };
    state.apply(Change::Descriptor(Box::new(received)));
    assert_eq!(state.descriptors.len(), 1, "this log begins anew there");
}

/// Votes acknowledged before a power cut at any moment are there after it, and the journal opens.
fn votes_survive(seed: u64, prepare: impl Fn(&MemDisk)) -> bool {
    let run = |cut: Option<u64>| {
        let disk = MemDisk::queued().seeded(seed);
        prepare(&disk);
        if let Some(cut) = cut {
            disk.cut_power_at(cut);
        }
        let results = Results::default();
        if let Ok(journal) = Journal::create(shared(&disk)) {
            let big = Bytes::from(vec![seed.to_be_bytes()[7]; 3000]);
            for number in 0..12_u32 {
                let vote = [&number.to_be_bytes()[..], &big].concat().into();
                journal.put_vote(GROUP, vote, note(&results, number));
                journal.put_committed(OTHER, id(1, u64::from(number)));
                if (u64::from(number) + seed).is_multiple_of(3) {
                    disk.run_all();
                }
            }
            disk.run_all();
        }
        (disk, acknowledged(&results).last().copied())
    };
    let (disk, _) = run(None);
    let ops = disk.ops();
    (0..ops).all(|op| {
        let (disk, last) = run(Some(op));
        let again = Journal::open(shared(&disk.after_power_cut()));
        match (again, last) {
            (Ok(journal), Some(last)) => {
                let vote = journal.group(GROUP).vote;
                vote.is_some_and(|vote| vote[..4] >= last.to_be_bytes()[..])
            }
            (Ok(_), None) => true,
            // Before the first sync of the directory there may be nothing at all.
            (Err(JournalError::Missing), last) => last.is_none(),
            (Err(_), _) => false,
        }
    })
}

#[test]
fn acknowledged_votes_survive_a_power_cut_at_every_operation() {
    for seed in 0..40 {
        assert!(votes_survive(seed, |_| {}), "seed {seed}");
    }
}

#[test]
fn a_journal_that_does_not_sync_is_caught_by_the_same_test() {
    assert!(!(0..40).all(|seed| votes_survive(seed, |disk| disk.set_sync_is_noop(true))));
    assert!(!(0..40).all(|seed| votes_survive(seed, |disk| disk.set_dir_sync_is_noop(true))));
}

#[test]
fn the_bytes_of_format_version_1_do_not_change() {
    let disk = MemDisk::inline();
    let journal = Journal::create(shared(&disk)).expect("created");
    journal.put_committed(GROUP, id(2, 7));
    journal.put_purged(GROUP, id(1, 3));
    journal.put_mark(GROUP, Mark { id: id(2, 9), next_offset: Offset(90), place: place(900) });
    journal.put_descriptor(GROUP, descriptor(5, 50, 4, true), ignore());
    journal.put_vote(GROUP, Bytes::from_static(b"vote"), ignore());
    journal.remove_group(OTHER, ignore());
    let file = disk.open(JOURNAL, Open::ReadOnly).expect("there");
    let mut bytes = vec![0; usize::try_from(file.len().expect("a length")).expect("small")];
    file.read_at(0, &mut bytes).expect("read");
    super::super::test_kit::assert_golden("journal", &bytes);
}
