use super::*;
use crate::ids::LogId;
use crate::machine::{Committed, Machine, What};
use crate::protocol::compression::Compression;
use crate::protocol::record::{BatchBuilder, NewRecord, Producer};

const TERM: Term = Term(3);
const START: Place = Place { index: RaftIndex(5), base_offset: Offset(10) };

fn header(base_sequence: i32) -> BatchHeader {
    let producer = Producer { id: 7, epoch: 0, base_sequence };
    let mut builder = BatchBuilder::new(Compression::None).producer(producer);
    for _ in 0..2 {
        builder.push(&NewRecord { timestamp: 1, key: None, value: Some(b"v"), headers: &[] });
    }
    BatchHeader::parse(&builder.build()).unwrap()
}

fn propose(leader: &mut Leader, machine: &PartitionMachine, base_sequence: i32) -> Place {
    match leader.decide(machine, &header(base_sequence)) {
        Decision::Propose(place) => assert_eq!(leader.proposed_batch(&header(base_sequence), 100), place),
        other => panic!("{other:?}"),
    }
    Place { index: RaftIndex(leader.next.index.0 - 1), base_offset: Offset(leader.next.base_offset.0 - 2) }
}

/// What the group does with a batch that got its predicted place.
fn apply(machine: &mut PartitionMachine, place: Place, base_sequence: i32) {
    let stamped = BatchHeader { base_offset: place.base_offset.0, ..header(base_sequence) };
    let id = LogId { term: TERM, index: place.index };
    machine.apply(Committed { id, what: What::Records { header: &stamped, batch: None } }).unwrap();
}

#[test]
fn a_retry_of_an_undecided_batch_waits_for_that_very_entry() {
    let (mut machine, mut leader) = (PartitionMachine::default(), Leader::new(TERM, START));
    let first = propose(&mut leader, &machine, 0);
    let second = propose(&mut leader, &machine, 2);
    assert_eq!((first.base_offset, second.base_offset), (Offset(10), Offset(12)));
    let retried = leader.decide(&machine, &header(2));
    assert_eq!(retried, Decision::After(second.index, Answer::Duplicate(Offset(12))));
    apply(&mut machine, first, 0);
    leader.applied(first.index);
    assert_eq!(leader.decide(&machine, &header(2)), retried, "the entry it rests on is still undecided");
    apply(&mut machine, second, 2);
    leader.applied(second.index);
    assert_eq!(leader.decide(&machine, &header(2)), Decision::Now(Answer::Duplicate(Offset(12))));
    assert!(leader.is_idle() && leader.in_flight_bytes() == 0);
}

#[test]
fn a_refusal_that_rests_on_an_undecided_batch_waits_for_it_too() {
    let (machine, mut leader) = (PartitionMachine::default(), Leader::new(TERM, START));
    let first = propose(&mut leader, &machine, 0);
    match leader.decide(&machine, &header(9)) {
        Decision::After(index, Answer::Refused(_)) => assert_eq!(index, first.index),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_failed_proposal_stops_deciding_until_the_overlay_is_rebuilt_whichever_it_is() {
    for failing in 0..4u64 {
        let (mut machine, mut leader) = (PartitionMachine::default(), Leader::new(TERM, START));
        let places: Vec<Place> = (0..4).map(|n| propose(&mut leader, &machine, n * 2)).collect();
        let mut applied = START;
        for (n, place) in (0u64..).zip(&places) {
            // What follows a proposal that was not appended was not either.
            if n < failing {
                apply(&mut machine, *place, i32::try_from(n * 2).unwrap());
                leader.applied(place.index);
                applied = Place { index: place.index.next(), base_offset: place.base_offset.plus(2) };
            } else {
                leader.failed(place.index);
            }
        }
        assert!(leader.is_poisoned());
        leader.rebuild(TERM.next(), applied);
        let again = propose(&mut leader, &machine, i32::try_from(failing * 2).unwrap());
        assert_eq!(again, applied, "the batch that failed goes where the log really ends");
    }
}

#[test]
#[should_panic(expected = "overlay-predicts")]
fn nothing_is_decided_on_a_poisoned_overlay() {
    let (machine, mut leader) = (PartitionMachine::default(), Leader::new(TERM, START));
    let place = propose(&mut leader, &machine, 0);
    leader.failed(place.index);
    let _ = leader.decide(&machine, &header(2));
}

#[test]
fn what_follows_a_batch_that_was_sent_back_waits_for_it() {
    let mut leader = Leader::new(Term(1), Place { index: RaftIndex(0), base_offset: Offset(0) });
    let batch = |epoch: i16, sequence: i32| {
        let mut header = BatchHeader::parse(&[&[0; 11][..], &[49], &[0; 49]].concat()).unwrap();
        (header.producer_id, header.producer_epoch, header.base_sequence) = (7, epoch, sequence);
        header
    };
    assert!(
        !leader.comes_too_soon(&PartitionMachine::default(), &batch(0, 5)),
        "a producer that is not known may begin anywhere"
    );
    leader.send_back(&batch(0, 3));
    leader.send_back(&batch(0, 0));
    leader.send_back(&batch(0, 6));
    assert!(leader.comes_too_soon(&PartitionMachine::default(), &batch(0, 3)), "the first was 0");
    leader.rebuild(Term(2), Place { index: RaftIndex(4), base_offset: Offset(0) });
    assert!(leader.comes_too_soon(&PartitionMachine::default(), &batch(0, 6)), "in another term too");
    assert!(!leader.comes_too_soon(&PartitionMachine::default(), &batch(0, 0)), "here it is");
    assert!(!leader.comes_too_soon(&PartitionMachine::default(), &batch(0, 3)));
    leader.send_back(&batch(0, i32::MAX));
    assert!(leader.comes_too_soon(&PartitionMachine::default(), &batch(0, 2)), "sequences go round");
    assert!(!leader.comes_too_soon(&PartitionMachine::default(), &batch(1, 0)), "a new epoch begins anew");
    assert!(!leader.comes_too_soon(&PartitionMachine::default(), &batch(0, 2)), "and the old one is over");
    assert!(leader.begins_in_the_middle(&PartitionMachine::default(), &batch(0, 2)));
    assert!(!leader.begins_in_the_middle(&PartitionMachine::default(), &batch(0, 0)));
}

#[test]
fn a_known_producer_is_not_told_of_a_gap_that_its_leader_has_made() {
    let (mut machine, mut leader) = (PartitionMachine::default(), Leader::new(TERM, START));
    let first = propose(&mut leader, &machine, 0);
    apply(&mut machine, first, 0);
    leader.applied(first.index);
    // The second was sent back, the third comes before it has come again.
    leader.send_back(&header(2));
    assert!(leader.comes_too_soon(&machine, &header(4)));
    leader.send_back(&header(4));
    assert!(!leader.comes_too_soon(&machine, &header(0)), "what is stored is answered as a duplicate");
    assert!(leader.comes_too_soon(&machine, &header(4)), "and changes nothing");
    assert!(!leader.comes_too_soon(&machine, &header(2)));
    let second = propose(&mut leader, &machine, 2);
    assert!(!leader.comes_too_soon(&machine, &header(4)));
    apply(&mut machine, second, 2);
    leader.applied(second.index);
    propose(&mut leader, &machine, 4);
    // A gap that the producer itself has made is refused.
    assert!(!leader.comes_too_soon(&machine, &header(8)));
    assert!(matches!(leader.decide(&machine, &header(8)), Decision::After(_, Answer::Refused(_))));
}

#[test]
fn nobody_waits_for_a_batch_that_its_producer_has_sent_elsewhere_since() {
    let (mut machine, mut leader) = (PartitionMachine::default(), Leader::new(TERM, START));
    let first = propose(&mut leader, &machine, 0);
    apply(&mut machine, first, 0);
    leader.applied(first.index);
    leader.send_back(&header(2));
    // Another leader took it, and what follows.
    for (at, sequence) in (0u64..).zip([2, 4]) {
        let index = RaftIndex(first.index.0 + 1 + at);
        apply(&mut machine, Place { index, base_offset: Offset(12 + 2 * i64::try_from(at).unwrap()) }, sequence);
    }
    assert!(!leader.comes_too_soon(&machine, &header(6)));
    assert!(matches!(leader.decide(&machine, &header(6)), Decision::Propose(_)));
}

#[test]
fn a_batch_that_does_not_come_again_is_not_waited_for_for_ever() {
    let (machine, mut leader) = (PartitionMachine::default(), Leader::new(TERM, START));
    leader.send_back(&header(0));
    assert!((0..WAITS_MAX).all(|_| leader.comes_too_soon(&machine, &header(2))));
    assert!(!leader.comes_too_soon(&machine, &header(2)));
}
