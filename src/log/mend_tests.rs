//! Damage of every kind, mended with what another replica holds; and what must never be taken.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::disk::{Disk, Open};
use super::entry::RaftEntryKind;
use super::mem_disk::MemDisk;
use super::mend::{MendError, Tender};
use super::test_kit::{Kit, PARTITION, batch};
use super::*;
use crate::ids::{LogId, Offset, RaftIndex};

const SEGMENT_BYTES: u64 = 2500;

/// Some segments of several terms, in each of which Raft's own entries stand between records; a checkpoint somewhere; all durable and marked. The same for
/// the same seed, but for where segments end.
fn replica(seed: u64, segment_bytes: u64) -> Kit {
    let kit = Kit::new(segment_bytes);
    kit.append_raft(1, RaftEntryKind::Membership, b"three voters");
    for number in 0..30 {
        let term = 1 + number / 6;
        match number % 6 {
            0 => drop(kit.append_raft(term, RaftEntryKind::Blank, b"")),
            4 => drop(kit.append_raft(term, RaftEntryKind::Command, b"a command")),
            size => drop(kit.append(term, batch(seed * 100 + number, 1 + usize::try_from(size).expect("small"), 150))),
        }
        if number == 13 && seed.is_multiple_of(3) {
            kit.checkpoint(0);
        }
    }
    kit.flush();
    kit.log.mark_flushed();
    kit.sync_journal();
    kit
}

fn logs(disk: &MemDisk) -> BTreeMap<String, Vec<u8>> {
    let dir = directory(PARTITION);
    let read = |name: String| {
        let file = disk.open(&format!("{dir}/{name}"), Open::ReadOnly).expect("there");
        let mut bytes = vec![0; usize::try_from(file.len().expect("a length")).expect("small")];
        file.read_at(0, &mut bytes).expect("read");
        (name, bytes)
    };
    let names = disk.list(&dir).expect("there").into_iter().map(|entry| entry.name);
    names.filter(|name| name.ends_with(".log")).map(read).collect()
}

fn path(name: &str) -> String {
    format!("{}/{name}", directory(PARTITION))
}

/// Mends all that can be mended, a few bytes at a time.
fn mend(log: &Log, from: &Log) -> Result<(), MendError> {
    loop {
        let found = log.gaps()?;
        let Some(mut gap) = found.gaps.into_iter().next() else {
            assert!(found.unproven.is_empty(), "{:?}", found.unproven);
            return Ok(());
        };
        loop {
            let lent = from.lend(gap.wanted(), gap.witness, 400)?;
            if log.mend(&mut gap, &lent)? {
                break;
            }
        }
    }
}

/// All of a log, as it is read by index and as it is fetched.
fn contents(kit: &Kit) -> (Vec<entry::StoredEntry>, Vec<u8>, Vec<epochs::EpochStart>) {
    let state = kit.log.state();
    let end = state.last.expect("there are entries").index.next();
    let stored = kit.log.stored(RaftIndex(0)..end, u64::MAX).expect("all can be read");
    let (mut at, mut fetched) = (0, Vec::new());
    while at < state.next_offset.0 {
        let bytes = kit.read(at, 600, state.next_offset.0).expect("served");
        let mut rest = &bytes[..];
        while let Ok(header) = crate::protocol::batch::BatchHeader::parse(rest) {
            at = header.next_offset();
            rest = &rest[header.size_bytes()..];
        }
        fetched.extend_from_slice(&bytes);
    }
    (stored, fetched, kit.log.epochs())
}

/// One log holds what another does, in each of the ways in which it is read.
fn assert_same(one: &Kit, other: &Kit, what: &str) {
    let (one, other) = (contents(one), contents(other));
    let differ = one.0.iter().zip(&other.0).find(|(one, other)| one != other);
    assert!(differ.is_none() && one.0.len() == other.0.len(), "{what}: entry {:?}", differ.map(|(one, _)| one.id));
    assert_eq!(one.2, other.2, "{what}");
    assert!(one.1 == other.1, "{what}: what is fetched, {} and {} bytes", one.1.len(), other.1.len());
}

/// A log with the same files, byte for byte, but for what is written behind the data's end.
fn assert_whole(kit: &Kit, before: &BTreeMap<String, Vec<u8>>, what: &str) {
    assert!(kit.log.damage().is_empty(), "{what}: {:?}", kit.log.damage());
    for (name, bytes) in before {
        let now = &logs(&kit.disk)[name];
        let shorter = now.len().min(bytes.len());
        assert!(now[..shorter] == bytes[..shorter], "{what}: {name} is as it was");
        assert!(now[shorter..].iter().chain(&bytes[shorter..]).all(|byte| *byte == 0), "{what}: {name}");
    }
}

#[test]
fn any_flipped_bit_is_mended_and_nothing_else_changes() {
    let mut found = 0;
    for seed in 0..300 {
        let (kit, peer) = (replica(seed, SEGMENT_BYTES), replica(seed, 1700));
        let disk = kit.disk.crash_process();
        let before = logs(&disk);
        let (name, len) = before
            .iter()
            .map(|(name, bytes)| (name, bytes.len()))
            .nth(usize::try_from(seed).expect("small") % before.len())
            .expect("some");
        let pos = (seed * 7919) % u64::try_from(len).expect("small");
        disk.flip_bit(&path(name), pos, u32::try_from(seed % 8).expect("small")).expect("there");
        let kit = Kit::open(disk, SEGMENT_BYTES, seed % 2 == 0);
        // As the scrub does: what a start does not read back is met later.
        let mut place = None;
        loop {
            place = kit.log.scrub(place, 300).expect("the disk works").next;
            if place.is_none() {
                break;
            }
        }
        found += u64::from(!kit.log.damage().is_empty());
        mend(&kit.log, &peer.log).unwrap_or_else(|error| panic!("seed {seed}, {name} at {pos}: {error}"));
        assert_whole(&kit, &before, &format!("seed {seed}"));
        assert_same(&kit, &peer, &format!("seed {seed}"));
        let kit = Kit::open(kit.disk.after_power_cut(), SEGMENT_BYTES, false);
        assert!(!kit.recovered.forgotten && kit.recovered.damage.is_empty(), "seed {seed}: {:?}", kit.recovered);
        assert_same(&kit, &peer, &format!("seed {seed}"));
    }
    assert!(found > 250, "damage is found: {found}");
}

#[test]
fn several_damages_are_mended_together() {
    let mut forgotten = 0;
    for seed in 0..100 {
        let (kit, peer) = (replica(seed, SEGMENT_BYTES), replica(seed, 4000));
        let disk = kit.disk.crash_process();
        let before = logs(&disk);
        for (number, (name, bytes)) in (0..).zip(&before) {
            for part in 1..4 {
                let len = u64::try_from(bytes.len()).expect("small");
                disk.flip_bit(&path(name), (seed * 613 + number * 37 + part * len / 4) % len, 3).expect("there");
            }
        }
        let kit = Kit::open(disk, SEGMENT_BYTES, false);
        if kit.recovered.forgotten {
            // So much of its end that it cannot be told: it is filled anew.
            forgotten += 1;
            continue;
        }
        let mut place = None;
        while let Some(next) = kit.log.scrub(place, 300).expect("the disk works").next {
            place = Some(next);
        }
        mend(&kit.log, &peer.log).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_whole(&kit, &before, &format!("seed {seed}"));
        assert_same(&kit, &peer, &format!("seed {seed}"));
    }
    assert!(forgotten <= 5, "{forgotten} of 100 are called forgotten");
}

#[test]
fn files_that_are_too_short_are_filled() {
    for seed in 0..60 {
        let (kit, peer) = (replica(seed, SEGMENT_BYTES), replica(seed, 4000));
        let disk = kit.disk.crash_process();
        let before = logs(&disk);
        let sealed: Vec<_> = before.iter().take(before.len() - 1).collect();
        let (name, bytes) = sealed[usize::try_from(seed).expect("small") % sealed.len()];
        let len = u64::try_from(bytes.len()).expect("small");
        disk.open(&path(name), Open::Existing).expect("there").set_len((seed * 131) % len).expect("the disk works");
        let kit = Kit::open(disk, SEGMENT_BYTES, false);
        if kit.recovered.forgotten {
            continue;
        }
        let mut place = None;
        while let Some(next) = kit.log.scrub(place, 3000).expect("the disk works").next {
            place = Some(next);
        }
        mend(&kit.log, &peer.log).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_same(&kit, &peer, &format!("seed {seed}"));
        let kit = Kit::open(kit.disk.after_power_cut(), SEGMENT_BYTES, false);
        assert!(kit.recovered.damage.is_empty(), "seed {seed}: {:?}", kit.recovered);
        assert_same(&kit, &peer, &format!("seed {seed}"));
    }
}

/// A log with damage in two segments.
fn damaged(seed: u64) -> (Kit, BTreeMap<String, Vec<u8>>) {
    let kit = replica(1, SEGMENT_BYTES);
    let disk = kit.disk.crash_process().seeded(seed);
    let before = logs(&disk);
    let names: Vec<_> = before.keys().cloned().collect();
    disk.flip_bit(&path(&names[1]), 700, 1).expect("there");
    disk.flip_bit(&path(&names[2]), 20, 1).expect("there");
    (Kit::open(disk, SEGMENT_BYTES, false), before)
}

#[test]
fn a_mending_that_is_cut_short_is_finished_by_the_next() {
    let peer = replica(1, SEGMENT_BYTES);
    let (kit, _) = damaged(0);
    assert_eq!(kit.recovered.damage.len(), 2, "{:?}", kit.recovered);
    let first = kit.disk.ops();
    mend(&kit.log, &peer.log).expect("the disk works");
    let ops = kit.disk.ops();
    assert!(ops >= first + 4, "two writes and two syncs at least");
    for op in first..ops {
        for cut in [true, false] {
            let (kit, before) = damaged(op);
            match cut {
                true => kit.disk.cut_power_at(op),
                false => kit.disk.kill_at(op),
            }
            assert!(mend(&kit.log, &peer.log).is_err());
            let disk = if cut { kit.disk.after_power_cut() } else { kit.disk.crash_process() };
            let kit = Kit::open(disk, SEGMENT_BYTES, false);
            assert!(!kit.recovered.forgotten && kit.recovered.cut.is_none(), "cut at {op}: {:?}", kit.recovered);
            mend(&kit.log, &peer.log).expect("the disk works");
            assert_whole(&kit, &before, &format!("cut at {op}"));
            assert_same(&kit, &peer, "mended");
        }
    }
}

#[test]
fn nothing_is_taken_that_did_not_stand_there() {
    let peer = replica(1, SEGMENT_BYTES);
    let (kit, _) = damaged(0);
    let unchanged = logs(&kit.disk);
    let mut gap = kit.log.gaps().expect("the disk works").gaps.remove(0);
    let good = peer.log.lend(gap.wanted(), gap.witness, u64::MAX).expect("it has them");
    let mut refused = |lent: Bytes, what: &str| {
        let error = kit.log.mend(&mut gap, &lent).expect_err(what);
        assert!(matches!(error, MendError::Unfit { .. }), "{what}: {error}");
        assert_eq!(logs(&kit.disk), unchanged, "{what}");
    };
    refused(Bytes::new(), "nothing");
    for cut in 1..good.len() {
        refused(good.slice(..cut), "an entry that is cut");
    }
    for at in 0..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 4;
        refused(bad.into(), "a flipped bit");
    }
    refused([&good[..], &good[..]].concat().into(), "more than was asked for");
    assert!(kit.log.mend(&mut gap, &good).expect("it fits"));
}

#[test]
fn whoever_has_another_history_lends_nothing() {
    let (kit, _) = damaged(0);
    let gap = kit.log.gaps().expect("the disk works").gaps.remove(0);
    let other = Kit::new(SEGMENT_BYTES);
    for number in 0..40 {
        other.append(9, batch(number, 1, 100));
    }
    let refused = other.log.lend(gap.wanted(), gap.witness, u64::MAX);
    assert!(matches!(refused, Err(LogError::NoSuchEntries { .. })), "{refused:?}");
    let beyond = LogId { index: RaftIndex(gap.wanted().start.0), ..gap.witness };
    let peer = replica(1, SEGMENT_BYTES);
    if gap.wanted().end.0 > beyond.index.0 + 1 {
        assert!(peer.log.lend(gap.wanted(), beyond, u64::MAX).is_err(), "a witness before the range proves nothing");
    }
}

#[test]
fn an_entry_that_can_be_read_is_never_changed() {
    // All of a segment counts as damaged, though one entry is: as it does when no index says where the next one begins.
    let kit = replica(2, SEGMENT_BYTES);
    let disk = kit.disk.crash_process();
    let before = logs(&disk);
    let name = before.keys().nth(1).expect("several").clone();
    disk.flip_bit(&path(&name), 2, 0).expect("there");
    for entry in disk.list(&directory(PARTITION)).expect("there") {
        if entry.name.ends_with(".index") {
            disk.remove_file(&path(&entry.name)).expect("there");
        }
    }
    let kit = Kit::open(disk, SEGMENT_BYTES, true);
    let first: i64 = name.split('-').nth(1).and_then(|part| part.parse().ok()).expect("an offset");
    let end = kit.log.state().next_offset;
    assert!(kit.read(first, 99, end.0).is_err());
    let bytes_before = kit.disk.counters().bytes_written;
    let peer = replica(2, SEGMENT_BYTES);
    mend(&kit.log, &peer.log).expect("the disk works");
    assert_whole(&kit, &before, "mended");
    let written = kit.disk.counters().bytes_written - bytes_before;
    assert!(written < 1200, "one entry was written, not all: {written} bytes");
    assert_same(&kit, &peer, "mended");
}

/// Remembers what it hears.
#[derive(Default)]
struct Heard(Arc<Mutex<Vec<Damage>>>);

impl Tender for Heard {
    fn found(&self, damage: &Damage) {
        self.0.lock().expect("no panic").push(damage.clone());
    }
    fn still_there(&self) {}
    fn mends(&self) -> bool {
        true
    }
}

#[test]
fn the_scrub_finds_what_nobody_reads_and_tells_it_once() {
    let kit = replica(1, SEGMENT_BYTES);
    let name = kit.files(".log")[2].clone();
    let heard = Heard::default();
    let told = Arc::clone(&heard.0);
    kit.log.set_tender(Box::new(heard));
    let scrub = || {
        let (mut place, mut bytes) = (None, 0);
        loop {
            let done = kit.log.scrub(place, 500).expect("the disk works");
            (place, bytes) = (done.next, bytes + done.bytes);
            if place.is_none() {
                return (bytes, done.rewritten);
            }
        }
    };
    assert!(scrub().0 > 5000 && told.lock().expect("no panic").is_empty());
    kit.disk.flip_bit(&path(&name), 900, 5).expect("there");
    scrub();
    let found = told.lock().expect("no panic").clone();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].path.ends_with(&name) && found[0].position.contains(&900), "{found:?}");
}

#[test]
fn what_is_whole_in_memory_is_written_again() {
    let kit = replica(1, SEGMENT_BYTES);
    let name = kit.files(".log")[1].clone();
    let before = logs(&kit.disk);
    kit.disk.rot_bit(&path(&name), 900, 5).expect("there");
    let (mut place, mut rewritten) = (None, 0);
    loop {
        let done = kit.log.scrub(place, 500).expect("the disk works");
        (place, rewritten) = (done.next, rewritten + done.rewritten);
        if place.is_none() {
            break;
        }
    }
    assert_eq!(rewritten, 1);
    assert!(kit.log.damage().is_empty(), "{:?}", kit.log.damage());
    let disk = kit.disk.after_power_cut();
    for (name, bytes) in before {
        let now = &logs(&disk)[&name];
        assert!(now.starts_with(&bytes[..now.len().min(bytes.len())]), "{name} is as it was, on the device too");
    }
    let kit = Kit::open(disk, SEGMENT_BYTES, false);
    assert!(kit.recovered.damage.is_empty() && kit.log.state().next_offset > Offset(0));
}
