//! Damage of every kind, found, taken out, and what is left read back.

use std::collections::BTreeMap;

use super::disk::{Disk, Open};
use super::entry::{Body, RaftEntryKind, StoredEntry};
use super::journal::Journal;
use super::mem_disk::MemDisk;
use super::name::DAMAGED;
use super::repair::{Examined, examine};
use super::test_kit::{Kit, PARTITION, batch};
use super::*;
use crate::ids::{LogId, Offset, RaftIndex, Term};

const SEGMENT_BYTES: u64 = 2500;

/// Some segments, checkpoints at some of their ends, all of it durable and marked; and what is in them.
fn stored(seed: u64) -> (Kit, Vec<StoredEntry>) {
    let kit = Kit::new(SEGMENT_BYTES);
    kit.append_raft(1, RaftEntryKind::Membership, b"one voter");
    for number in 0..24 {
        let term = 1 + number / 7;
        match number % 5 {
            4 => drop(kit.append_raft(term, RaftEntryKind::Blank, b"")),
            size => drop(kit.append(term, batch(seed * 100 + number, 1 + usize::try_from(size).expect("small"), 150))),
        }
        if number == 9 || number == 17 {
            kit.checkpoint(0);
        }
    }
    kit.flush();
    kit.log.mark_flushed();
    kit.sync_journal();
    let last = kit.log.state().last.expect("there are entries");
    let entries = kit.log.stored(RaftIndex(0)..last.index.next(), u64::MAX).expect("there");
    (kit, entries)
}

fn look(disk: &MemDisk) -> Examined {
    let groups = Journal::look(disk).expect("a whole journal");
    examine(disk, groups.get(&PARTITION).expect("known"), PARTITION).expect("the disk works")
}

/// All files of the log, with their bytes.
fn files(disk: &MemDisk) -> BTreeMap<String, Vec<u8>> {
    let dir = directory(PARTITION);
    let entries = disk.list(&dir).expect("there");
    let read = |name: String| {
        let file = disk.open(&format!("{dir}/{name}"), Open::ReadOnly).expect("there");
        let mut bytes = vec![0; usize::try_from(file.len().expect("a length")).expect("small")];
        file.read_at(0, &mut bytes).expect("read");
        (name, bytes)
    };
    entries.into_iter().map(|entry| read(entry.name)).collect()
}

fn is_in(holes: &[Hole], id: LogId) -> bool {
    holes.iter().any(|hole| hole.damage.indexes.contains(&id.index))
}

/// Opens a repaired log and finds all in it but what was lost.
fn check(disk: &MemDisk, entries: &[StoredEntry], holes: &[Hole], clean: bool) {
    let kit = Kit::open(disk.crash_process(), SEGMENT_BYTES, clean);
    let ids: Vec<LogId> = entries.iter().map(|entry| entry.id).collect();
    assert!(kit.recovered.damage.is_empty() && !kit.recovered.forgotten, "{:?} {holes:?} {ids:?}", kit.recovered);
    assert!(kit.recovered.cut.is_none(), "{:?}", kit.recovered);
    let state = kit.log.state();
    let last = entries.last().expect("there are entries");
    assert_eq!(state.last.map(|id| id.index), Some(last.id.index), "indexes stay");
    let found = kit.log.stored(RaftIndex(0)..last.id.index.next(), u64::MAX).expect("all can be read");
    for (found, entry) in found.iter().zip(entries) {
        let is_lost = matches!(found.body, Body::Raft { kind: RaftEntryKind::Lost, .. });
        assert_eq!(is_lost, is_in(holes, entry.id), "{} of {holes:?}", entry.id);
        assert!(is_lost || found == entry, "{}", entry.id);
    }
    served(&kit, entries, holes);
    // What comes next does not take a lost record's place.
    assert_eq!(kit.append(9, batch(1, 1, 10)), LogId { term: Term(9), index: last.id.index.next() });
    let again = kit.disk.crash_process();
    assert!(look(&again).holes.is_empty(), "a repaired log is whole");
}

/// Reads from each offset on, as a client would.
fn served(kit: &Kit, entries: &[StoredEntry], holes: &[Hole]) {
    let batches = |entry: &&StoredEntry| matches!(entry.body, Body::Records(_)) && !is_in(holes, entry.id);
    let kept: Vec<(&StoredEntry, &bytes::Bytes)> =
        entries.iter().filter(batches).map(|it| (it, bytes_of(it))).collect();
    let end = kit.log.state().next_offset;
    for offset in 0..end.0 {
        let holds = |(entry, bytes): &&(&StoredEntry, &bytes::Bytes)| {
            let header = crate::protocol::batch::BatchHeader::parse(bytes).expect("a batch");
            entry.base_offset.0 >= offset || header.next_offset() > offset
        };
        let rest: Vec<u8> = kept.iter().filter(holds).flat_map(|(_, bytes)| bytes.to_vec()).collect();
        let read = kit.read(offset, 1 << 20, end.0).expect("served");
        assert!(rest.starts_with(&read) && read.is_empty() == rest.is_empty(), "from {offset}");
        let first = kept.iter().find(holds).map_or(&b""[..], |(_, bytes)| &bytes[..]);
        assert_eq!(kit.read(offset, 1, end.0).expect("served"), first, "one batch from {offset}");
        let copy = kit.log.read_copy(Offset(offset), 1 << 20, end).expect("served");
        assert_eq!(copy.slices.concat(), rest);
    }
}

fn bytes_of(entry: &StoredEntry) -> &bytes::Bytes {
    match &entry.body {
        Body::Records(bytes) | Body::Raft { body: bytes, .. } => bytes,
    }
}

/// Examines and repairs, and finds that the one changed nothing and the other kept what it took out.
fn repair(disk: &MemDisk) -> Vec<Hole> {
    let (before, ops) = (files(disk), disk.ops());
    let examined = look(disk);
    assert_eq!(disk.ops(), ops, "to look changes nothing");
    let kept = examined.apply(disk).expect("the disk works");
    let after = files(disk);
    for (hole, kept) in examined.holes.iter().zip(kept) {
        let position = &hole.damage.position;
        let name = hole.damage.path.rsplit('/').next().expect("a name");
        let old = before.get(name).map_or(&[][..], |bytes| {
            let at = |pos: u64| usize::try_from(pos).expect("small").min(bytes.len());
            &bytes[at(position.start)..at(position.end)]
        });
        let kept = kept.map(|path| after[path.rsplit('/').next().expect("a name")].clone());
        assert_eq!(kept.unwrap_or_default(), old, "{hole:?}");
    }
    examined.holes
}

#[test]
fn a_flipped_bit_costs_the_entry_that_it_is_in() {
    let mut whole = 0;
    for seed in 0..250 {
        let (kit, entries) = stored(seed);
        let disk = kit.disk.crash_process();
        let logs: Vec<(String, usize)> =
            files(&disk).into_iter().filter(|(name, _)| name.ends_with(".log")).map(|(n, b)| (n, b.len())).collect();
        let (name, len) = &logs[usize::try_from(seed).expect("small") % logs.len()];
        let pos = (seed * 7919) % u64::try_from(*len).expect("small");
        disk.flip_bit(&format!("{}/{name}", directory(PARTITION)), pos, u32::try_from(seed % 8).expect("small"))
            .expect("there");
        let holes = repair(&disk);
        assert_eq!(holes.len(), 1, "seed {seed}: {holes:?}");
        assert!(
            holes[0].damage.path.ends_with(name) && holes[0].damage.position.contains(&pos),
            "seed {seed}: {holes:?}"
        );
        whole += u64::from(holes[0].damage.indexes.end.0 - holes[0].damage.indexes.start.0 == 1);
        check(&disk, &entries, &holes, seed % 2 == 0);
    }
    assert!(whole >= 240, "only {whole} of 250 cost no more than one entry");
}

#[test]
fn files_that_are_missing_or_too_short_are_filled_to_where_they_were() {
    for seed in 0..60 {
        let (kit, entries) = stored(seed);
        let disk = kit.disk.crash_process();
        let logs: Vec<(String, usize)> =
            files(&disk).into_iter().filter(|(name, _)| name.ends_with(".log")).map(|(n, b)| (n, b.len())).collect();
        let at = usize::try_from(seed / 2).expect("small") % logs.len();
        let path = format!("{}/{}", directory(PARTITION), logs[at].0);
        if seed % 2 == 0 {
            disk.remove_file(&path).expect("there");
        } else {
            let len = u64::try_from(logs[at].1).expect("small");
            disk.open(&path, Open::Existing).expect("there").set_len((seed * 131) % len).expect("the disk works");
        }
        let holes = repair(&disk);
        assert!(!holes.is_empty(), "seed {seed}");
        check(&disk, &entries, &holes, false);
    }
}

#[test]
fn several_damages_of_a_log_are_taken_out_at_once() {
    for seed in 0..60 {
        let (kit, entries) = stored(seed);
        let disk = kit.disk.crash_process();
        let mut flipped = 0;
        for (number, (name, bytes)) in (0..).zip(files(&disk)).filter(|(_, (name, _))| name.ends_with(".log")) {
            for part in 1..3 {
                let len = u64::try_from(bytes.len()).expect("small");
                let pos = (seed * 613 + number * 37 + part * len / 3) % len;
                disk.flip_bit(&format!("{}/{name}", directory(PARTITION)), pos, 3).expect("there");
                flipped += 1;
            }
        }
        let holes = repair(&disk);
        assert!(!holes.is_empty() && holes.len() <= flipped, "seed {seed}: {holes:?}");
        check(&disk, &entries, &holes, false);
    }
}

#[test]
fn a_repair_that_the_power_cuts_is_finished_by_the_next() {
    let damaged = |seed| {
        let (kit, entries) = stored(seed);
        let disk = kit.disk.crash_process();
        let names: Vec<String> = files(&disk).into_keys().filter(|name| name.ends_with(".log")).collect();
        disk.flip_bit(&format!("{}/{}", directory(PARTITION), names[1]), 700, 1).expect("there");
        disk.remove_file(&format!("{}/{}", directory(PARTITION), names[names.len() - 1])).expect("there");
        disk.sync_dir(&directory(PARTITION)).expect("the disk works");
        (disk, entries)
    };
    let (disk, _) = damaged(0);
    let first = disk.ops();
    let all = look(&disk);
    all.apply(&disk).expect("the disk works");
    let holes = all.holes;
    for op in first..disk.ops() {
        let (disk, entries) = damaged(0);
        let disk = disk.seeded(op);
        disk.cut_power_at(op);
        assert!(look(&disk).apply(&disk).is_err());
        let disk = disk.after_power_cut();
        let rest = look(&disk);
        rest.apply(&disk).expect("the disk works");
        assert!(files(&disk).keys().any(|name| name.ends_with(DAMAGED)), "cut at {op}");
        check(&disk, &entries, &holes, false);
    }
}

#[test]
fn a_whole_log_has_no_holes_whatever_its_last_life_left_unsynced() {
    let (kit, _) = stored(1);
    kit.append(9, batch(7, 1, 1000));
    kit.log.truncate_from(RaftIndex(23)).expect("not committed");
    kit.append(10, batch(8, 1, 100));
    for seed in 0..30 {
        let disk = kit.disk.clone().seeded(seed);
        assert!(look(&disk).holes.is_empty());
    }
    assert!(look(&kit.disk.after_power_cut()).holes.is_empty());
}
