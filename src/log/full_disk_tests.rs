//! A log on a disk without room: what is refused, and what still finds some.

use super::entry::{Body, RaftEntryKind};
use super::test_kit::{Kit, batch, entry};
use super::*;
use crate::ids::{LogId, Offset, RaftIndex, Term};

fn id(term: u64, index: u64) -> LogId {
    LogId { term: Term(term), index: RaftIndex(index) }
}

#[test]
fn reserved_space_is_there_however_full_the_disk_is() {
    let kit = Kit::new(4000);
    kit.append_raft(1, RaftEntryKind::Blank, b"");
    kit.append(1, batch(0, 1, 3000));
    kit.log.reserve(6000).expect("there is space");
    kit.disk.set_capacity(Some(0));
    kit.append(1, batch(1, 1, 2500));
    kit.append(1, batch(2, 1, 2500));
    kit.append_raft(1, RaftEntryKind::Command, b"of raft's own");
    kit.flush();
    assert!(matches!(kit.log.reserve(1 << 20), Err(LogError::Full)));
    kit.disk.set_capacity(None);
    kit.log.reserve(1 << 20).expect("there is space again");
    let kit = Kit::open(kit.disk.after_power_cut(), 4000, false);
    assert_eq!(kit.log.state().next_offset, Offset(3));
}

#[test]
fn a_full_disk_refuses_an_append_and_the_log_goes_on() {
    let kit = Kit::new(1 << 20);
    kit.append_raft(1, RaftEntryKind::Blank, b"");
    kit.disk.set_capacity(Some(0));
    let large = entry(1, 1, Body::Records(batch(1, 1, 3 << 20)));
    assert!(matches!(kit.log.append(std::slice::from_ref(&large)), Err(LogError::Full)));
    kit.disk.set_capacity(None);
    kit.log.append(&[large]).expect("there is space again");
    kit.flush();
    assert_eq!(kit.log.state().flushed, Some(id(1, 1)));
}

#[test]
fn entries_of_rafts_own_go_past_a_segments_limit_when_there_is_no_room_for_another() {
    let kit = Kit::new(4000);
    kit.append_raft(1, RaftEntryKind::Blank, b"");
    kit.log.reserve(3900).expect("there is space");
    kit.append(1, batch(0, 1, 3800));
    kit.disk.set_capacity(Some(0));
    assert!(matches!(kit.log.reserve(100), Err(LogError::Full)));
    kit.log.reserve_command(100).expect("commands find room");
    for _ in 0..20 {
        kit.append_raft(2, RaftEntryKind::Command, b"log start");
    }
    kit.append_raft(3, RaftEntryKind::Blank, b"");
    assert_eq!(kit.log.segments().len(), 1);
    assert!(matches!(kit.log.roll(), Err(LogError::Full)));
    kit.flush();
    let kit = Kit::open(kit.disk.after_power_cut(), 4000, false);
    assert_eq!(kit.log.state().last, Some(id(3, 22)));
    kit.append_raft(4, RaftEntryKind::Blank, b"");
}

#[test]
fn batches_leave_some_of_the_disk_to_what_makes_room_on_it() {
    const MIB: u64 = 1 << 20;
    let kit = Kit::new(MIB);
    kit.append_raft(1, RaftEntryKind::Blank, b"");
    kit.disk.set_capacity(Some(64 * MIB));
    let mut number = 0;
    while kit.log.reserve(100_100).is_ok() {
        kit.append(1, batch(number, 1, 100_000));
        number += 1;
    }
    let free = disk::Disk::space(&kit.disk).expect("the disk works").free_bytes;
    assert!((2 * MIB..4 * MIB).contains(&free), "{free} bytes are free");
    kit.log.reserve_command(100).expect("commands find room");
    kit.append_raft(1, RaftEntryKind::Command, b"log start");
    kit.log.roll().expect("a roll finds room");
    kit.flush();
    kit.log.purge(id(1, number)).expect("in the log");
    assert!(kit.log.delete_before(Offset(i64::MAX)).segments > 50);
    kit.log.reserve(100_100).expect("there is room again");
}
