//! What retention deletes: pure decisions, from the segments and the settings to a new log start.
//!
//! As Kafka does: whole segments, oldest first, never past the high watermark; by time a segment goes when its newest record is
//! older than the setting, by size while the rest still holds that much.

use super::journal::GroupState;
use super::partition::SegmentInfo;
use crate::ids::{LogId, Offset, Timestamp};

/// What a topic keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionLimits {
    /// `retention.ms`; `None`: for ever.
    pub ms: Option<u64>,
    /// `retention.bytes`; `None`: any number.
    pub bytes: Option<u64>,
}

/// The log start that retention wants, if it is higher than the present one. `now` in the clock of the records' timestamps.
/// It may be the end of the active segment, when that is old too: [`super::Log::roll`] it, so that it can be deleted.
#[must_use]
pub fn new_log_start(
    segments: &[SegmentInfo],
    log_start: Offset,
    high_watermark: Offset,
    limits: RetentionLimits,
    now: Timestamp,
) -> Option<Offset> {
    // What is below log start is gone already as far as anyone can see.
    let counted = segments.iter().filter(|segment| segment.next_offset > log_start);
    let mut size: u64 = counted.clone().map(|segment| segment.size_bytes).sum();
    let mut start = log_start;
    for segment in counted {
        if segment.next_offset > high_watermark {
            break;
        }
        let rest = size - segment.size_bytes;
        let too_large = segment.sealed && limits.bytes.is_some_and(|bytes| rest >= bytes);
        if !too_large && !limits.ms.is_some_and(|ms| is_older(segment.max_timestamp, ms, now)) {
            break;
        }
        size = rest;
        start = segment.next_offset;
    }
    (start > log_start).then_some(start)
}

/// Up to where Raft may purge once log start has moved: the state there is what a lagging replica is sent, so that it gets all records
/// from log start on.
#[must_use]
pub fn purge_point(group: &GroupState, log_start: Offset) -> Option<LogId> {
    group.snapshot(log_start).map(|descriptor| descriptor.id)
}

/// A segment without timestamps is kept: nobody knows how old it is.
fn is_older(newest: Timestamp, ms: u64, now: Timestamp) -> bool {
    newest.0 >= 0 && now.0.checked_sub(newest.0).and_then(|age| u64::try_from(age).ok()).is_some_and(|age| age > ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::RaftIndex;

    fn segments() -> Vec<SegmentInfo> {
        let segment = |number: u64, sealed| {
            let at = i64::try_from(number).expect("small");
            SegmentInfo {
                first_index: RaftIndex(number * 10),
                next_index: RaftIndex(number * 10 + 10),
                base_offset: Offset(at * 100),
                next_offset: Offset(at * 100 + 100),
                size_bytes: 1000,
                first_timestamp: Timestamp(at * 1000),
                max_timestamp: Timestamp(at * 1000 + 999),
                sealed,
            }
        };
        vec![segment(0, true), segment(1, true), segment(2, true), segment(3, false)]
    }

    fn start(limits: RetentionLimits, log_start: i64, high_watermark: i64, now: i64) -> Option<i64> {
        new_log_start(&segments(), Offset(log_start), Offset(high_watermark), limits, Timestamp(now)).map(|it| it.0)
    }

    #[test]
    fn segments_whose_newest_record_is_too_old_go() {
        let limits = RetentionLimits { ms: Some(500), bytes: None };
        assert_eq!(start(limits, 0, 400, 1499), None, "exactly as old as allowed");
        assert_eq!(start(limits, 0, 400, 1500), Some(100));
        assert_eq!(start(limits, 0, 400, 100_000), Some(400), "the active one too");
        assert_eq!(start(limits, 0, 399, 100_000), Some(300), "but nothing that is not committed");
        assert_eq!(start(limits, 150, 400, 2000), None);
        assert_eq!(start(limits, 100, 400, 2500), Some(200));
        assert_eq!(start(RetentionLimits::default(), 0, 400, 100_000), None);
    }

    #[test]
    fn sealed_segments_go_while_the_rest_is_large_enough() {
        let limits = |bytes| RetentionLimits { ms: None, bytes: Some(bytes) };
        assert_eq!(start(limits(4000), 0, 400, 0), None);
        assert_eq!(start(limits(3001), 0, 400, 0), None);
        assert_eq!(start(limits(3000), 0, 400, 0), Some(100));
        assert_eq!(start(limits(0), 0, 400, 0), Some(300), "the active segment stays");
        assert_eq!(start(limits(1000), 250, 400, 0), Some(300), "what log start has passed is not counted");
    }

    #[test]
    fn a_segment_without_timestamps_is_not_old() {
        let mut segments = segments();
        segments[0].max_timestamp = Timestamp(-1);
        let limits = RetentionLimits { ms: Some(1), bytes: None };
        assert_eq!(new_log_start(&segments, Offset(0), Offset(400), limits, Timestamp(1 << 40)), None);
    }
}
