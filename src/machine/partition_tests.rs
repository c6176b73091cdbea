use super::*;
use crate::ids::{LogId, RaftIndex, Term};
use crate::protocol::batch::BatchHeader;
use crate::protocol::compression::Compression;
use crate::protocol::record::{BatchBuilder, NewRecord, Producer};
use proptest::prelude::*;

fn apply(machine: &mut PartitionMachine, what: What<'_>) -> Result<(), MachineError> {
    machine.apply(Committed { id: LogId { term: Term(1), index: RaftIndex(1) }, what })
}

fn batch(producer: i64, base_sequence: i32) -> BatchHeader {
    let mut builder = BatchBuilder::new(Compression::None).producer(Producer { id: producer, epoch: 0, base_sequence });
    builder.push(&NewRecord::default());
    BatchHeader { base_offset: 300, ..BatchHeader::parse(&builder.build()).unwrap() }
}

#[test]
fn commands_keep_their_bytes() {
    let log_start = Command::LogStart(Offset(258));
    assert_eq!(log_start.encode().as_ref(), [1, 0, 0, 0, 0, 0, 0, 1, 2]);
    let expire = Command::ExpireProducers(vec![Expired { producer: ProducerId(7), last: Offset(9) }]);
    assert_eq!(expire.encode().as_ref(), [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9]);
    for command in [log_start, expire] {
        assert_eq!(Command::decode(&command.encode()), Ok(command));
    }
}

#[test]
fn a_snapshot_keeps_its_bytes() {
    let mut machine = PartitionMachine::default();
    apply(&mut machine, What::Command(&Command::LogStart(Offset(5)).encode())).unwrap();
    apply(&mut machine, What::Records { header: &batch(7, 3), batch: None }).unwrap();
    let golden = [
        &[1][..],                           // version
        &[0, 0, 0, 0, 0, 0, 0, 5],          // log start
        &[0, 0, 0, 1],                      // producers
        &[0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 1], // id, epoch, batches
        &[0, 0, 0, 3, 0, 0, 0, 3],          // sequences
        &[0, 0, 0, 0, 0, 0, 1, 44],         // base offset
    ];
    assert_eq!(machine.snapshot().as_ref(), golden.concat());
    assert_eq!(PartitionMachine::restore(&machine.snapshot()), Ok(machine));
}

#[test]
fn log_start_never_moves_back() {
    let mut machine = PartitionMachine::default();
    for (offset, expected) in [(5, 5), (3, 5), (9, 9)] {
        apply(&mut machine, What::Command(&Command::LogStart(Offset(offset)).encode())).unwrap();
        assert_eq!(machine.log_start(), Offset(expected));
    }
}

#[test]
fn what_a_newer_version_wrote_stops_and_changes_nothing() {
    let mut machine = PartitionMachine::default();
    let newer = StateError::Newer { what: "partition command", number: 99 };
    assert_eq!(apply(&mut machine, What::Command(&[99, 1])), Err(MachineError::Command(newer)));
    assert_eq!(machine, PartitionMachine::default());
    let newer = StateError::Newer { what: "version", number: 3 };
    assert_eq!(PartitionMachine::restore(&[3]), Err(MachineError::Snapshot(newer)));
}

#[test]
fn producers_are_forgotten_by_command() {
    let mut machine = PartitionMachine::default();
    apply(&mut machine, What::Records { header: &batch(7, 0), batch: None }).unwrap();
    apply(&mut machine, What::Blank).unwrap();
    let expire = Command::ExpireProducers(vec![Expired { producer: ProducerId(7), last: Offset(300) }]);
    apply(&mut machine, What::Command(&expire.encode())).unwrap();
    assert!(machine.producers().is_empty());
}

proptest! {
    #[test]
    fn damaged_bytes_never_panic(junk in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = Command::decode(&junk);
        let _ = PartitionMachine::restore(&junk);
    }
}
