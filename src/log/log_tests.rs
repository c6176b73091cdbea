//! The log from outside: appended, read back in every way, cut, deleted, damaged, opened again.

use std::sync::Arc;

use bytes::Bytes;

use super::disk::{Disk, Open};
use super::entry::{Body, RaftEntryKind};
use super::test_kit::{Kit, PARTITION, assert_golden, batch, entry, stamped, timed_batch};
use super::*;
use crate::ids::{LogId, Offset, RaftIndex, Term, Timestamp};

fn id(term: u64, index: u64) -> LogId {
    LogId { term: Term(term), index: RaftIndex(index) }
}

fn range(from: u64, to: u64) -> std::ops::Range<RaftIndex> {
    RaftIndex(from)..RaftIndex(to)
}

/// Blank, three batches, a membership, two batches, a command: offsets 0..14 in batches of 2, 3, 4 and 3, 2 records.
fn mixed(segment_bytes: u64) -> (Kit, Vec<Vec<u8>>) {
    let kit = Kit::new(segment_bytes);
    let mut stored = Vec::new();
    kit.append_raft(1, RaftEntryKind::Blank, b"");
    let mut offset = 0;
    for (number, records) in [(0, 2), (1, 3), (2, 4)] {
        let one = batch(number, records, 50);
        kit.append(1, one.clone());
        stored.push(stamped(&one, offset, 1));
        offset += i64::try_from(records).expect("small");
    }
    kit.append_raft(1, RaftEntryKind::Membership, b"three voters");
    for (number, records) in [(3, 3), (4, 2)] {
        let one = batch(number, records, 50);
        kit.append(2, one.clone());
        stored.push(stamped(&one, offset, 2));
        offset += i64::try_from(records).expect("small");
    }
    kit.append_raft(2, RaftEntryKind::Command, b"log start 3");
    (kit, stored)
}

#[test]
fn a_client_reads_whole_batches_without_rafts_own_entries() {
    for segment_bytes in [1 << 20, 600, 1] {
        let (kit, stored) = mixed(segment_bytes);
        let all = stored.concat();
        assert_eq!(kit.read(0, 1 << 20, 14).expect("there"), all, "segments of {segment_bytes}");
        assert_eq!(kit.read(3, 1 << 20, 14).expect("there"), stored[1..].concat(), "from within a batch");
        assert_eq!(
            kit.read(0, 1 << 20, 5).expect("there"),
            stored[..2].concat(),
            "nothing at or above the visible end"
        );
        assert_eq!(kit.read(5, 1, 14).expect("there"), stored[2], "one batch, however large");
        assert_eq!(kit.read(5, stored[2].len() + 1, 14).expect("there"), stored[2]);
        assert_eq!(kit.read(2, stored[1].len() + stored[2].len(), 9).expect("there"), stored[1..3].concat());
        assert_eq!(kit.read(14, 1 << 20, 14).expect("the end"), Bytes::new());
        assert!(matches!(kit.read(14, 1, 13), Err(ReadError::OutOfRange { .. })));
        assert!(matches!(kit.read(15, 1, 100), Err(ReadError::OutOfRange { .. })));
        let copy = kit.log.read_copy(Offset(3), 1 << 20, Offset(14)).expect("there");
        assert_eq!(copy.slices.concat(), stored[1..].concat());
        assert_eq!(copy.next_offset, Offset(14));
    }
}

#[test]
fn what_is_read_is_the_same_after_a_kill_and_after_a_clean_stop() {
    for segment_bytes in [1 << 20, 600] {
        let (kit, stored) = mixed(segment_bytes);
        let before = kit.log.state();
        let kit = kit.restart(segment_bytes);
        let after = LogState { flushed: before.last, ..before };
        assert_eq!(kit.log.state(), after, "after kill -9 all that was written is there, and durable now");
        assert_eq!(kit.read(0, 1 << 20, 14).expect("there"), stored.concat());
        let kit = kit.stop_and_start(segment_bytes);
        assert_eq!(kit.log.state(), after);
        assert_eq!(kit.read(0, 1 << 20, 14).expect("there"), stored.concat());
        assert!(kit.recovered.cut.is_none() && kit.recovered.damage.is_empty() && !kit.recovered.forgotten);
    }
}

#[test]
fn after_a_clean_stop_behind_a_checkpoint_nothing_is_read() {
    let (kit, _) = mixed(600);
    kit.checkpoint(0);
    let kit = kit.stop_and_start(600);
    assert_eq!(kit.recovered.read_bytes, 0);
    assert_eq!(kit.log.state().last, Some(id(2, 7)));
    assert_eq!(kit.recovered.descriptor.as_ref().map(|it| it.id), Some(id(2, 7)));
    assert_eq!(kit.log.epochs().len(), 2);
}

#[test]
fn raft_reads_back_entries_and_summaries() {
    for segment_bytes in [1 << 20, 600] {
        let (kit, stored) = mixed(segment_bytes);
        let kit = if segment_bytes == 600 { kit.restart(600) } else { kit };
        let all = kit.log.stored(range(0, 8), u64::MAX).expect("there");
        assert_eq!(
            all.iter().map(|it| it.id).collect::<Vec<_>>(),
            [id(1, 0), id(1, 1), id(1, 2), id(1, 3), id(1, 4), id(2, 5), id(2, 6), id(2, 7)]
        );
        assert_eq!(all.iter().map(|it| it.base_offset.0).collect::<Vec<_>>(), [0, 0, 2, 5, 9, 9, 12, 14]);
        assert_eq!(all[3].body, Body::Records(stored[2].clone().into()));
        assert_eq!(
            all[4].body,
            Body::Raft { kind: RaftEntryKind::Membership, body: Bytes::from_static(b"three voters") }
        );
        assert_eq!(kit.log.stored(range(2, 8), 1).expect("one at least").len(), 1);
        assert!(matches!(kit.log.stored(range(7, 9), 1), Err(LogError::NoSuchEntries { .. })));
        let summaries = kit.log.summaries(range(3, 8), 100).expect("there");
        assert_eq!(summaries.len(), 5);
        assert_eq!(summaries[0].header.record_count, 4);
        assert_eq!(summaries[4].raft_body, Some((RaftEntryKind::Command, Bytes::from_static(b"log start 3"))));
        assert_eq!(kit.log.summaries(range(0, 8), 3).expect("there").len(), 3);
        assert_eq!(
            kit.log.memberships(range(0, 8), 9).expect("there"),
            [(id(1, 4), Bytes::from_static(b"three voters"))]
        );
        assert_eq!(kit.log.id_at(RaftIndex(5)), Some(id(2, 5)));
        assert_eq!(kit.log.id_at(RaftIndex(8)), None);
    }
}

#[test]
fn an_append_that_does_not_follow_changes_nothing() {
    let (kit, _) = mixed(1 << 20);
    let before = kit.log.state();
    let blank = || Body::Raft { kind: RaftEntryKind::Blank, body: Bytes::new() };
    let append = |entries: &[entry::NewEntry]| kit.log.append(entries).expect_err("refused");
    assert!(matches!(append(&[entry(2, 9, blank())]), LogError::Gap { .. }));
    assert!(matches!(append(&[entry(2, 7, blank())]), LogError::Gap { .. }));
    assert!(matches!(append(&[entry(2, 8, blank()), entry(2, 10, blank())]), LogError::Gap { .. }));
    assert!(matches!(append(&[entry(1, 8, blank())]), LogError::TermFalls { .. }));
    let short = batch(1, 1, 10).slice(..70);
    assert!(matches!(append(&[entry(2, 8, Body::Records(short))]), LogError::NotABatch(_)));
    assert_eq!(kit.log.state(), before);
    kit.append_raft(2, RaftEntryKind::Blank, b"");
}

#[test]
fn many_entries_of_one_append_go_to_as_many_segments_as_they_need() {
    let kit = Kit::new(1000);
    let entries: Vec<_> = (0..700).map(|index| entry(1, index, Body::Records(batch(index, 2, 100)))).collect();
    let appended = kit.log.append(&entries).expect("the disk works");
    assert_eq!(appended, Appended { last: id(1, 699), next_offset: Offset(1400) });
    let segments = kit.log.segments();
    assert!(segments.len() > 100);
    assert!(segments.iter().all(|segment| segment.size_bytes <= 1000));
    assert!(segments.windows(2).all(|pair| pair[0].next_index == pair[1].first_index && pair[0].sealed));
    let huge = batch(1, 1, 5000);
    kit.append(1, huge.clone());
    kit.append(1, batch(2, 1, 10));
    let segments = kit.log.segments();
    assert_eq!(segments[segments.len() - 2].next_index.0 - segments[segments.len() - 2].first_index.0, 1);
    assert_eq!(kit.read(1400, 1, 1402).expect("there"), stamped(&huge, 1400, 1));
}

#[test]
fn a_segment_is_older_when_its_newest_record_is() {
    let mut kit = Kit::new(10_000);
    let log = |kit: &Kit, than| {
        let segments = kit.log.segments();
        let older = segments.iter().map(|segment| kit.log.is_older(segment, Timestamp(than)).expect("the disk works"));
        older.collect::<Vec<_>>()
    };
    assert!(log(&kit, 1 << 40).is_empty());
    kit.append_raft(1, RaftEntryKind::Blank, b"");
    assert_eq!(log(&kit, 0), [true], "there is no record in it");
    kit.append(1, timed_batch(1, 1, 10, 5000));
    kit.append(1, timed_batch(2, 1, 10, 9000));
    kit.append(1, timed_batch(3, 1, 10, 7000));
    kit.log.roll().expect("there is space");
    kit.append(1, timed_batch(4, 1, 10, -1));
    kit.flush();
    for life in 0..3 {
        assert_eq!(log(&kit, 1 << 40), [true, false], "in life {life} nobody knows how old the second is");
        assert_eq!(log(&kit, 9000), [false, false], "in life {life}");
        assert_eq!(log(&kit, 9001), [true, false], "in life {life}");
        kit = if life == 0 { kit.stop_and_start(10_000) } else { kit.restart(10_000) };
    }
}

#[test]
fn a_flush_says_durable_what_was_written_before_it_began() {
    let (kit, _) = mixed(600);
    let plan = kit.log.begin_flush().expect("all is dirty");
    kit.append(2, batch(9, 1, 10));
    plan.run().expect("the disk works");
    assert_eq!(kit.log.end_flush(plan).expect("the disk works"), Some(id(2, 7)));
    assert_eq!(kit.log.state().flushed, Some(id(2, 7)));
    let kit = Kit::open(kit.disk.after_power_cut(), 600, false);
    assert!(kit.log.state().last >= Some(id(2, 7)));
    kit.append(2, batch(9, 1, 10));
    kit.flush();
    assert!(kit.log.begin_flush().is_none());
}

#[test]
fn a_failed_sync_stops_the_log_for_good() {
    let (kit, _) = mixed(1 << 20);
    let plan = kit.log.begin_flush().expect("all is dirty");
    kit.disk.fail_sync_at(kit.disk.counters().syncs);
    assert!(plan.run().is_err());
    assert!(matches!(kit.log.end_flush(plan), Err(LogError::Failed)));
    let again = kit.log.begin_flush().expect("nothing is durable");
    assert!(again.run().is_err(), "the kernel would say Ok now");
    let blank = Body::Raft { kind: RaftEntryKind::Blank, body: Bytes::new() };
    assert!(matches!(kit.log.append(&[entry(2, 8, blank)]), Err(LogError::Failed)));
    assert_eq!(kit.log.state().flushed, None);
}

#[test]
fn truncated_entries_are_replaced_and_stay_away_after_a_restart() {
    for segment_bytes in [1 << 20, 600] {
        for from in 0..8 {
            let (kit, _) = mixed(segment_bytes);
            kit.flush();
            let before = kit.log.stored(range(0, 8), u64::MAX).expect("there");
            kit.log.truncate_from(RaftIndex(from)).expect("none is committed");
            let state = kit.log.state();
            assert_eq!(
                state.last,
                from.checked_sub(1).and_then(|last| before.get(usize::try_from(last).unwrap()).map(|it| it.id))
            );
            assert_eq!(state.next_offset, before[usize::try_from(from).unwrap()].base_offset);
            assert_eq!(state.flushed, state.last);
            let one = batch(77, 2, 30);
            kit.append_at(9, from, Body::Records(one.clone()));
            kit.append_at(9, from + 1, Body::Records(one.clone()));
            kit.flush();
            let offset = state.next_offset.0;
            let expected = [stamped(&one, offset, 9), stamped(&one, offset + 2, 9)].concat();
            assert_eq!(kit.read(offset, 1 << 20, offset + 4).expect("there"), expected);
            let kit = Kit::open(kit.disk.after_power_cut(), segment_bytes, false);
            assert_eq!(kit.read(offset, 1 << 20, offset + 4).expect("there"), expected);
            let after = kit.log.stored(range(0, from + 2), u64::MAX).expect("there");
            let kept = usize::try_from(from).unwrap();
            assert_eq!(after[..kept], before[..kept]);
            assert_eq!(kit.log.state().last, Some(id(9, from + 1)));
            assert!(kit.recovered.damage.is_empty() && !kit.recovered.forgotten, "{:?}", kit.recovered);
        }
    }
}

#[test]
fn a_flush_begun_before_a_truncation_says_nothing_of_what_came_after() {
    let (kit, _) = mixed(1 << 20);
    let plan = kit.log.begin_flush().expect("all is dirty");
    kit.log.truncate_from(RaftIndex(3)).expect("none is committed");
    for index in 3..9 {
        kit.append_at(5, index, Body::Records(batch(index, 1, 10)));
    }
    plan.run().expect("the disk works");
    assert_eq!(kit.log.end_flush(plan).expect("the disk works"), None);
    kit.flush();
    assert_eq!(kit.log.state().flushed, Some(id(5, 8)));
}

#[test]
fn committed_entries_cannot_be_truncated() {
    let (kit, _) = mixed(1 << 20);
    kit.log.save_committed(id(1, 3));
    assert!(matches!(kit.log.truncate_from(RaftIndex(3)), Err(LogError::TruncateCommitted { .. })));
    kit.log.truncate_from(RaftIndex(4)).expect("not committed");
    assert_eq!(kit.log.state().last, Some(id(1, 3)));
}

#[test]
fn a_log_holds_what_it_has_and_what_it_had_before_it_was_purged() {
    let (kit, _) = mixed(1 << 20);
    let last = kit.log.state().last.expect("there are entries");
    assert!(kit.log.holds(last));
    assert!(!kit.log.holds(LogId { term: Term(last.term.0 + 1), ..last }), "another entry stands there");
    assert!(!kit.log.holds(LogId { index: last.index.next(), ..last }), "behind its end");
    assert!(!kit.log.holds(LogId { index: RaftIndex(u64::MAX), term: Term(u64::MAX) }));
    kit.log.save_committed(id(1, 3));
    assert_eq!(kit.log.committed(), Some(id(1, 3)), "though nothing is flushed");
}

#[test]
fn committed_is_remembered_no_further_than_what_is_flushed() {
    let (kit, _) = mixed(1 << 20);
    kit.log.save_committed(id(1, 3));
    assert_eq!(kit.journal.group(PARTITION).committed, None, "nothing is durable");
    kit.flush();
    assert_eq!(kit.journal.group(PARTITION).committed, Some(id(1, 3)));
    let descriptor = kit.checkpoint(0);
    kit.append(2, batch(1, 1, 1));
    let ahead = Descriptor { id: id(2, 8), ..descriptor };
    assert!(matches!(kit.log.put_descriptor(ahead, Box::new(|_| {})), Err(LogError::NotFlushed { .. })));
}

#[test]
fn purged_entries_are_gone_and_segments_below_the_log_start_with_them() {
    let (kit, stored) = mixed(600);
    kit.flush();
    kit.log.purge(id(1, 2)).expect("in the log");
    assert!(matches!(kit.log.stored(range(2, 4), 9), Err(LogError::NoSuchEntries { .. })));
    assert_eq!(kit.log.stored(range(3, 4), 9).expect("there").len(), 1);
    assert_eq!(kit.log.delete_before(Offset(0)), Deleted::default(), "clients may still read them");
    assert_eq!(kit.read(0, 1 << 20, 14).expect("there"), stored.concat());
    kit.log.purge(id(2, 7)).expect("in the log");
    let files = kit.files(".log").len();
    let deleted = kit.log.delete_before(Offset(9));
    assert!(deleted.segments > 0 && deleted.bytes > 0);
    assert_eq!(kit.files(".log").len(), files - deleted.segments);
    let first = kit.log.first_offset_kept();
    assert!(first > Offset(0) && first <= Offset(9));
    assert_eq!(kit.read(9, 1 << 20, 14).expect("there"), stored[3..].concat());
    assert!(matches!(kit.read(0, 1, 14), Err(ReadError::OutOfRange { .. })));
    let kit = Kit::open(kit.disk.after_power_cut(), 600, false);
    assert_eq!(kit.log.state().purged, Some(id(2, 7)));
    assert_eq!(kit.log.state().last, Some(id(2, 7)));
    assert_eq!(kit.log.state().next_offset, Offset(14));
    kit.append(2, batch(1, 1, 10));
}

#[test]
fn a_purge_beyond_the_end_needs_a_descriptor_and_begins_the_log_anew() {
    let (kit, _) = mixed(600);
    kit.flush();
    assert!(matches!(kit.log.purge(id(4, 100)), Err(LogError::PurgeWithoutDescriptor { .. })));
    assert_eq!(kit.log.state().last, Some(id(2, 7)));
    let received = Descriptor {
        id: id(4, 100),
        membership: Bytes::new(),
        next_offset: Offset(500),
        log_start: Offset(500),
        epochs: Vec::new(),
        machine: Bytes::new(),
        place: None,
        roll: true,
    };
    kit.journal.put_descriptor(PARTITION, received, Box::new(|result| result.expect("the disk works")));
    // A crash between the two: opening the log finishes the work.
    let crashed = Kit::open(kit.disk.crash_process(), 600, false);
    assert_eq!(crashed.log.state().last, Some(id(4, 100)));
    assert_eq!(crashed.log.state().purged, Some(id(4, 100)));
    assert!(!crashed.recovered.forgotten);
    crashed.log.purge(id(4, 100)).expect("it is there already");
    let one = batch(1, 2, 10);
    crashed.append(4, one.clone());
    crashed.flush();
    let kit = Kit::open(crashed.disk.after_power_cut(), 600, false);
    assert_eq!(kit.log.state().last, Some(id(4, 101)));
    assert_eq!(kit.read(500, 99, 502).expect("there"), stamped(&one, 500, 4));
}

#[test]
fn a_record_is_found_by_its_timestamp() {
    for segment_bytes in [1 << 20, 400] {
        let kit = Kit::new(segment_bytes);
        kit.append_raft(1, RaftEntryKind::Blank, b"");
        for (number, timestamp) in [(0, 1000), (1, 3000), (2, 2000), (3, 9000), (4, 8000)] {
            kit.append(1, timed_batch(number, 3, 20, timestamp));
        }
        let kit = if segment_bytes == 400 { kit.restart(400) } else { kit };
        let find = |timestamp, end| {
            let found = kit.log.offset_for_time(Timestamp(timestamp), Offset(0)..Offset(end)).expect("the disk works");
            found.map(|it| (it.offset.0, it.timestamp.0, it.epoch.0))
        };
        assert_eq!(find(0, 15), Some((0, 1000, 1)));
        assert_eq!(find(1001, 15), Some((1, 1001, 1)), "within a batch");
        assert_eq!(find(1003, 15), Some((3, 3000, 1)));
        assert_eq!(find(3002, 15), Some((5, 3002, 1)));
        assert_eq!(find(3003, 15), Some((9, 9000, 1)), "a later batch may have an earlier timestamp");
        assert_eq!(find(3003, 9), None, "not visible");
        assert_eq!(find(9003, 15), None);
        let behind = |timestamp, start| {
            let found =
                kit.log.offset_for_time(Timestamp(timestamp), Offset(start)..Offset(15)).expect("the disk works");
            found.map(|it| (it.offset.0, it.timestamp.0))
        };
        assert_eq!(behind(0, 2), Some((2, 1002)), "log start lies within a batch");
        assert_eq!(behind(3001, 5), Some((5, 3002)));
        assert_eq!(behind(3002, 6), Some((9, 9000)));
        assert_eq!(behind(9000, 10), Some((10, 9001)));
        assert_eq!(behind(9000, 12), None);
        let highest = |end| {
            let found = kit.log.max_timestamp(Offset(0)..Offset(end)).expect("the disk works");
            found.map(|it| (it.offset.0, it.timestamp.0))
        };
        assert_eq!(highest(15), Some((11, 9002)));
        assert_eq!(highest(9), Some((5, 3002)));
        assert_eq!(highest(0), None);
    }
}

#[test]
fn a_consumer_learns_where_an_epoch_ended() {
    let (kit, _) = mixed(600);
    let kit = kit.restart(600);
    assert_eq!(kit.log.end_of_epoch(Term(1)), Some((Term(1), Offset(9))));
    assert_eq!(kit.log.end_of_epoch(Term(2)), Some((Term(2), Offset(14))));
    assert_eq!(kit.log.end_of_epoch(Term(3)), None);
    assert_eq!(kit.log.epoch_at(Offset(8)), Some(Term(1)));
    assert_eq!(kit.log.epoch_at(Offset(9)), Some(Term(2)));
}

#[test]
fn a_segment_is_rolled_by_age() {
    let kit = Kit::new(1 << 20);
    kit.append_raft(1, RaftEntryKind::Blank, b"");
    assert!(!kit.log.roll_due(Timestamp(1 << 40), 1000).expect("the disk works"), "no records, no age");
    kit.append(1, timed_batch(1, 1, 10, 5000));
    let kit = kit.restart(1 << 20);
    assert!(!kit.log.roll_due(Timestamp(5999), 1000).expect("the disk works"));
    assert!(kit.log.roll_due(Timestamp(6000), 1000).expect("the disk works"));
    kit.log.roll().expect("the disk works");
    kit.log.roll().expect("an empty one is not rolled");
    assert_eq!(kit.log.segments().len(), 2);
    assert!(kit.log.point_at(RaftIndex(1)).expect("there").ends_segment);
    kit.append(1, batch(2, 1, 10));
    assert!(kit.log.summaries(range(2, 3), 1).expect("there")[0].starts_segment);
}

#[test]
fn a_flipped_bit_is_reported_and_only_its_batch_is_not_served() {
    for (in_header, sealed) in [(false, false), (false, true), (true, false), (true, true)] {
        let (kit, stored) = mixed(1 << 20);
        kit.checkpoint_at_start();
        kit.flush();
        if sealed {
            kit.log.roll().expect("the disk works");
            kit.append_raft(2, RaftEntryKind::Command, b"on");
            kit.flush();
        }
        let kit = kit.stop_and_start(1 << 20);
        // The third batch, offsets 5..9, behind the blank and two batches.
        let at = 61 + stored[0].len() + stored[1].len();
        let path = format!("{}/{}", directory(PARTITION), kit.files(".log")[0]);
        let bit = u64::try_from(if in_header { at + 7 } else { at + 100 }).expect("small");
        let kit = Kit::open(kit.disk.crash_process(), 1 << 20, true);
        let disk = kit.disk.crash_process();
        disk.flip_bit(&path, bit, 2).expect("there");
        let mut disk = disk;
        for clean in [true, false] {
            let kit = Kit::open(disk, 1 << 20, clean);
            assert!(kit.recovered.cut.is_none() && !kit.recovered.forgotten, "{:?}", kit.recovered);
            assert_eq!(kit.read(0, 1 << 20, 14).expect("there"), stored[..2].concat());
            let error = kit.read(6, 1 << 20, 14).expect_err("damaged");
            let ReadError::Corrupt(damage) = error else { panic!("{error}") };
            assert_eq!(damage.offsets.start, Offset(5));
            assert_eq!(damage.path, path);
            assert!(kit.log.damage().contains(&damage));
            assert!(matches!(kit.log.stored(range(3, 4), 1), Err(LogError::Damaged(_))));
            if !in_header {
                assert_eq!(damage.offsets, Offset(5)..Offset(9));
                assert_eq!(kit.read(9, 1 << 20, 14).expect("there"), stored[3..].concat());
            }
            let end = kit.log.state().next_offset.0;
            kit.append(2, batch(50, 1, 10));
            assert_eq!(kit.read(end, 99, end + 1).expect("still writable"), stamped(&batch(50, 1, 10), end, 2));
            let kit = if clean { kit.stop_and_start(1 << 20) } else { kit };
            disk = kit.disk.crash_process();
        }
    }
}

#[test]
fn cold_bytes_are_checked_before_they_are_served() {
    let (kit, stored) = mixed(1 << 20);
    kit.flush();
    let path = format!("{}/{}", directory(PARTITION), kit.files(".log")[0]);
    assert!(matches!(kit.log.read(Offset(0), 99, Offset(14)).expect("there"), Reading::Fetched(_)));
    kit.disk.set_cold(&path).expect("there");
    let at = u64::try_from(61 + stored[0].len() + 100).expect("small");
    kit.disk.flip_bit(&path, at, 1).expect("there");
    let Reading::NeedsDevice(cold) = kit.log.read(Offset(0), 99, Offset(14)).expect("there") else {
        panic!("it would wait for the device");
    };
    let found = kit.log.warm(cold).expect("the disk works");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].offsets, Offset(2)..Offset(5));
    assert_eq!(kit.read(0, 1 << 20, 14).expect("there"), stored[0]);
    assert!(matches!(kit.read(2, 1 << 20, 14), Err(ReadError::Corrupt(_))));
    assert_eq!(kit.read(5, 1 << 20, 14).expect("there"), stored[2..].concat());
}

#[test]
fn a_log_that_lost_its_end_has_forgotten() {
    let (kit, _) = mixed(1 << 20);
    kit.checkpoint(0);
    let path = format!("{}/{}", directory(PARTITION), kit.files(".log")[0]);
    let file = kit.disk.open(&path, Open::Existing).expect("there");
    file.set_len(file.len().expect("a length") - 1).expect("the disk works");
    file.sync().expect("the disk works");
    let kit = kit.restart(1 << 20);
    assert!(kit.recovered.forgotten);
    assert_eq!(kit.log.state().last, Some(id(2, 6)));
    assert_eq!(kit.recovered.descriptor, None, "no state is ahead of the log");
    let disk = kit.disk.crash_process();
    disk.remove_file(&path).expect("there");
    let kit = Kit::open(disk, 1 << 20, false);
    assert!(kit.recovered.forgotten);
}

#[test]
fn what_is_cut_is_kept_aside_and_reported() {
    let (kit, _) = mixed(1 << 20);
    kit.flush();
    let path = format!("{}/{}", directory(PARTITION), kit.files(".log")[0]);
    let file = kit.disk.open(&path, Open::Existing).expect("there");
    let end = file.len().expect("a length");
    file.write_at(end, &[std::io::IoSlice::new(&[7; 100])]).expect("the disk works");
    let kit = kit.restart(1 << 20);
    let cut = kit.recovered.cut.as_ref().expect("junk behind the end");
    assert_eq!((cut.position, cut.bytes), (end, 100));
    assert_eq!(kit.files(".cut").len(), 1);
    assert_eq!(kit.log.state().last, Some(id(2, 7)));
    let file = kit.disk.open(cut.kept_as.as_ref().expect("kept"), Open::ReadOnly).expect("there");
    assert_eq!(file.len().expect("a length"), 100);
    assert!(kit.restart(1 << 20).recovered.cut.is_none());
}

#[test]
fn an_index_file_is_used_and_a_bad_one_is_built_again() {
    let kit = Kit::new(100_000);
    let mut offset = 0;
    for number in 0..100 {
        kit.append(1, batch(number, 1, 5000));
        offset += 1;
    }
    let indexes = kit.files(".index");
    assert_eq!(indexes.len(), kit.files(".log").len() - 1, "one for each sealed segment");
    let kit = kit.stop_and_start(100_000);
    assert_eq!(kit.files(".index").len(), kit.files(".log").len());
    let path = format!("{}/{}", directory(PARTITION), indexes[2]);
    kit.disk.flip_bit(&path, 40, 0).expect("there");
    for from in 0..offset {
        let one = stamped(&batch(u64::try_from(from).expect("small"), 1, 5000), from, 1);
        assert_eq!(kit.read(from, 1, offset).expect("there"), one);
        let by_index =
            kit.log.stored(range(u64::try_from(from).expect("small"), u64::try_from(from).expect("small") + 1), 1);
        assert_eq!(by_index.expect("there")[0].body, Body::Records(one.into()));
    }
}

#[test]
fn the_bytes_of_entries_and_index_files_do_not_change() {
    let (kit, _) = mixed(1 << 20);
    kit.log.seal_clean().expect("the disk works");
    for suffix in [".log", ".index"] {
        let files = kit.files(suffix);
        assert_eq!(files, [format!("00000000000000000000-00000000000000000000-0000000000{suffix}")]);
        let file = kit.disk.open(&format!("{}/{}", directory(PARTITION), files[0]), Open::ReadOnly).expect("there");
        let mut bytes = vec![0; usize::try_from(file.len().expect("a length")).expect("small")];
        file.read_at(0, &mut bytes).expect("read");
        assert_golden(if suffix == ".log" { "segment" } else { "index" }, &bytes);
    }
}

#[test]
fn readers_are_not_in_the_way_of_a_writer() {
    let kit = Arc::new(Kit::new(200_000));
    kit.append_raft(1, RaftEntryKind::Blank, b"");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut offset = 0;
                while offset < 500 {
                    let end = kit.log.state().next_offset.0;
                    if end > offset {
                        let bytes = kit.read(offset, 20_000, end).expect("there");
                        let header = crate::protocol::batch::BatchHeader::parse(&bytes).expect("a batch");
                        assert_eq!(header.base_offset, offset);
                        let mut rest = &bytes[..];
                        while let Ok(header) = crate::protocol::batch::BatchHeader::parse(rest) {
                            assert!(crate::protocol::batch::crc_matches(&rest[..header.size_bytes()]));
                            offset = header.next_offset();
                            rest = &rest[header.size_bytes()..];
                        }
                    }
                }
            });
        }
        for number in 0..500 {
            kit.append(1, batch(number, 1, 2000));
            if number % 50 == 0 {
                kit.flush();
            }
        }
    });
}

impl Kit {
    /// A checkpoint before everything that matters, so that a restart reads all of it back.
    fn checkpoint_at_start(&self) {
        self.flush();
        self.checkpoint_at(0, 0, false);
    }
}
