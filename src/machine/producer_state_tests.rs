use super::*;
use crate::ids::Term;
use crate::protocol::batch::{HEADER_BYTES, MAGIC};
use proptest::prelude::*;

fn header(producer: i64, epoch: i16, first: i32, records: i32) -> BatchHeader {
    let zero = BatchHeader::parse(
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0].iter().copied().chain([0; HEADER_BYTES]).collect::<Vec<_>>(),
    );
    BatchHeader {
        magic: MAGIC,
        producer_id: producer,
        producer_epoch: epoch,
        base_sequence: first,
        record_count: records,
        last_offset_delta: records - 1,
        ..zero.unwrap()
    }
}

fn at(header: BatchHeader, base_offset: i64) -> BatchHeader {
    BatchHeader { base_offset, ..header }
}

fn id(index: u64) -> LogId {
    LogId { term: Term(1), index: RaftIndex(index) }
}

fn state(batches: &[BatchHeader]) -> ProducerState {
    let mut state = ProducerState::default();
    for batch in batches {
        state.apply(batch);
    }
    state
}

fn decide(state: &ProducerState, header: &BatchHeader) -> Verdict {
    state.decide(&Overlay::default(), header)
}

fn refused(verdict: Verdict) -> Refusal {
    match verdict {
        Verdict::Refuse { why, .. } => why,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn batches_follow_one_another() {
    let state = state(&[at(header(1, 0, 0, 10), 100)]);
    assert_eq!(decide(&state, &header(1, 0, 10, 3)), Verdict::Append);
    let gap = Refusal::OutOfOrder { producer: ProducerId(1), got: 11, last: 9 };
    assert_eq!(refused(decide(&state, &header(1, 0, 11, 3))), gap);
    assert!(matches!(refused(decide(&state, &header(1, 0, 5, 3))), Refusal::OutOfOrder { .. }));
}

#[test]
fn a_batch_without_a_producer_is_always_appended() {
    let none = BatchHeader { producer_id: -1, producer_epoch: -1, base_sequence: -1, ..header(0, 0, 0, 1) };
    assert_eq!(decide(&state(&[none]), &none), Verdict::Append);
    assert!(state(&[none]).is_empty());
}

#[test]
fn an_exact_duplicate_of_the_last_five_gets_its_first_offset() {
    let batches: Vec<_> = (0..6).map(|i| at(header(1, 0, i * 10, 10), i64::from(i) * 1000)).collect();
    let state = state(&batches);
    for batch in &batches[1..] {
        let expected = Verdict::Duplicate { base_offset: Offset(batch.base_offset), depends_on: None };
        assert_eq!(decide(&state, &at(*batch, 0)), expected);
    }
    // The sixth is forgotten, and half a batch is no duplicate.
    assert!(matches!(refused(decide(&state, &batches[0])), Refusal::OutOfOrder { .. }));
    assert!(matches!(refused(decide(&state, &header(1, 0, 50, 5))), Refusal::OutOfOrder { .. }));
}

#[test]
fn epochs_fence() {
    let state = state(&[header(1, 5, 0, 10)]);
    let old = Refusal::OldEpoch { producer: ProducerId(1), got: ProducerEpoch(4), known: ProducerEpoch(5) };
    assert_eq!(refused(decide(&state, &header(1, 4, 10, 1))), old);
    assert_eq!(refused(decide(&state, &header(1, 4, 0, 10))), old);
    assert_eq!(decide(&state, &header(1, 6, 0, 1)), Verdict::Append);
    assert!(matches!(refused(decide(&state, &header(1, 6, 10, 1))), Refusal::NewEpochNotAtZero { got: 10, .. }));
}

#[test]
fn a_new_epoch_starts_anew() {
    let state = state(&[at(header(1, 0, 0, 10), 0), at(header(1, 1, 0, 10), 10)]);
    let expected = Verdict::Duplicate { base_offset: Offset(10), depends_on: None };
    assert_eq!(decide(&state, &header(1, 1, 0, 10)), expected);
    assert_eq!(decide(&state, &header(1, 1, 10, 1)), Verdict::Append);
}

#[test]
fn an_unknown_producer_may_start_anywhere() {
    assert_eq!(decide(&ProducerState::default(), &header(1, 3, 77, 1)), Verdict::Append);
}

#[test]
fn sequences_wrap_to_zero() {
    let state = state(&[header(1, 0, i32::MAX - 1, 2)]);
    assert_eq!(decide(&state, &header(1, 0, 0, 5)), Verdict::Append);
    let around = state_after(&state, header(1, 0, 0, 5));
    assert_eq!(decide(&around, &header(1, 0, 5, 1)), Verdict::Append);
    let across = self::state(&[header(1, 0, i32::MAX - 1, 4)]);
    assert_eq!(decide(&across, &header(1, 0, 2, 1)), Verdict::Append);
}

fn state_after(state: &ProducerState, header: BatchHeader) -> ProducerState {
    let mut state = state.clone();
    state.apply(&header);
    state
}

#[test]
fn undecided_batches_count_and_answers_name_the_entry_they_rest_on() {
    let state = state(&[at(header(1, 0, 0, 10), 0)]);
    let mut overlay = Overlay::default();
    overlay.note(id(7), Offset(10), &header(1, 0, 10, 10));
    overlay.note(id(9), Offset(20), &header(1, 0, 20, 10));

    assert_eq!(state.decide(&overlay, &header(1, 0, 30, 1)), Verdict::Append);
    let pending = Verdict::Duplicate { base_offset: Offset(10), depends_on: Some(id(7)) };
    assert_eq!(state.decide(&overlay, &header(1, 0, 10, 10)), pending);
    let committed = Verdict::Duplicate { base_offset: Offset(0), depends_on: None };
    assert_eq!(state.decide(&overlay, &header(1, 0, 0, 10)), committed);
    let why = Refusal::OutOfOrder { producer: ProducerId(1), got: 40, last: 29 };
    assert_eq!(state.decide(&overlay, &header(1, 0, 40, 1)), Verdict::Refuse { why, depends_on: Some(id(9)) });
}

#[test]
fn an_undecided_epoch_fences_too() {
    let state = state(&[header(1, 0, 0, 10)]);
    let mut overlay = Overlay::default();
    overlay.note(id(3), Offset(10), &header(1, 1, 0, 10));
    let verdict = state.decide(&overlay, &header(1, 0, 10, 1));
    assert!(
        matches!(verdict, Verdict::Refuse { why: Refusal::OldEpoch { .. }, depends_on: Some(entry) } if entry == id(3))
    );
    // A duplicate of the fenced epoch is refused as well, as Kafka does.
    assert!(matches!(refused(state.decide(&overlay, &header(1, 0, 0, 10))), Refusal::OldEpoch { .. }));
}

#[test]
fn the_overlay_lets_go_of_what_is_applied() {
    let mut overlay = Overlay::default();
    for index in 0..6 {
        overlay.note(id(index), Offset(0), &header(i64::try_from(index % 2).unwrap(), 0, 0, 1));
    }
    overlay.applied(RaftIndex(3));
    assert_eq!(overlay.len(), 2);
    overlay.applied(RaftIndex(5));
    assert_eq!(overlay, Overlay::default());
}

#[test]
fn a_poisoned_overlay_forgets_everything() {
    let state = state(&[header(1, 0, 0, 10)]);
    let mut overlay = Overlay::default();
    overlay.note(id(3), Offset(10), &header(1, 0, 10, 10));
    overlay.clear();
    assert_eq!(state.decide(&overlay, &header(1, 0, 10, 10)), Verdict::Append);
    overlay.note(id(3), Offset(10), &header(1, 0, 10, 10));
}

#[test]
fn only_a_producer_that_stayed_idle_expires() {
    let mut state = state(&[at(header(1, 0, 0, 1), 10), at(header(2, 0, 0, 1), 11)]);
    let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));
    let mut watch = ExpiryWatch::default();
    assert_eq!(watch.look(state.last_batches(), hour, day, 10), []);
    state.apply(&at(header(2, 0, 1, 1), 12));
    assert_eq!(watch.look(state.last_batches(), hour * 2, day, 10), []);
    let expired = watch.look(state.last_batches(), hour + day, day, 10);
    assert_eq!(expired, [Expired { producer: ProducerId(1), last: Offset(10) }]);
    // It writes after all, before the proposal is applied.
    state.apply(&at(header(1, 0, 1, 1), 13));
    state.expire(&expired);
    assert_eq!(state.len(), 2);
    state.expire(&[Expired { producer: ProducerId(1), last: Offset(13) }]);
    assert_eq!(state.last_batches().collect::<Vec<_>>(), [(ProducerId(2), Offset(12))]);
}

fn batches() -> impl Strategy<Value = Vec<BatchHeader>> {
    let batch = (0..4i64, 0..3i16, prop_oneof![0..20i32, Just(i32::MAX)], 1..4i32)
        .prop_map(|(producer, epoch, first, records)| header(producer, epoch, first, records));
    proptest::collection::vec(batch, 0..60)
}

proptest! {
    /// What clients see of a log in which every batch goes through `decide`, applied late: no batch twice, none missing.
    #[test]
    fn decided_sequences_have_no_gap_and_no_duplicate(batches in batches(), lag in 0..8usize) {
        let (mut state, mut overlay) = (ProducerState::default(), Overlay::default());
        let mut undecided = VecDeque::new();
        let mut log: Vec<BatchHeader> = Vec::new();
        for (index, batch) in (0..).zip(&batches) {
            match state.decide(&overlay, batch) {
                Verdict::Append => {
                    let batch = at(*batch, i64::try_from(log.len()).unwrap() * 100);
                    overlay.note(id(index), Offset(batch.base_offset), &batch);
                    undecided.push_back((index, batch));
                    log.push(batch);
                }
                Verdict::Duplicate { base_offset, .. } => {
                    let original = log.iter().find(|known| known.base_offset == base_offset.0).unwrap();
                    prop_assert_eq!(at(*original, 0), at(*batch, 0));
                }
                Verdict::Refuse { .. } => {}
            }
            while undecided.len() > lag {
                let (index, batch) = undecided.pop_front().unwrap();
                state.apply(&batch);
                overlay.applied(RaftIndex(index));
            }
        }
        for producer in 0..4 {
            let own: Vec<_> = log.iter().filter(|batch| batch.producer_id == producer).collect();
            for pair in own.windows(2) {
                let next = if pair[0].producer_epoch == pair[1].producer_epoch { advance_sequence(pair[0].last_sequence(), 1) } else { 0 };
                prop_assert_eq!(pair[1].base_sequence, next);
                prop_assert!(pair[0].producer_epoch <= pair[1].producer_epoch);
            }
        }
    }

    #[test]
    fn state_reads_back_what_it_writes(batches in batches()) {
        let state = state(&batches);
        let mut out = Writer::default();
        state.write(&mut out);
        let bytes = out.finish();
        let mut from = Reader::new(&bytes);
        prop_assert_eq!(ProducerState::read(&mut from), Ok(state));
        prop_assert_eq!(from.end(), Ok(()));
    }

    #[test]
    fn damaged_state_never_panics(junk in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = ProducerState::read(&mut Reader::new(&junk));
    }
}
