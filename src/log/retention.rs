//! What retention deletes: pure decisions, from the segments and the settings to a new log start.
//!
//! As Kafka does: whole segments, oldest first, never past the high watermark; by time a segment goes when its newest record is
//! older than the setting, by size while the rest still holds that much.

use super::journal::GroupState;
use super::partition::SegmentInfo;
use crate::ids::{LogId, Offset};

/// The log start that retention wants, if it is higher than the present one: by size if the topic keeps at most `bytes`, and by time where
/// `is_old` says that all of a segment's records are past their time. That is asked only as far as it matters. The answer may be the
/// end of the active segment, when that is old too: [`super::Log::roll`] it, so that it can be deleted.
///
/// # Errors
/// Those of `is_old`.
pub fn new_log_start<E>(
    segments: &[SegmentInfo],
    log_start: Offset,
    high_watermark: Offset,
    bytes: Option<u64>,
    mut is_old: impl FnMut(&SegmentInfo) -> Result<bool, E>,
) -> Result<Option<Offset>, E> {
    // What is below log start is gone already as far as anyone can see.
    let counted = segments.iter().filter(|segment| segment.next_offset > log_start);
    let mut size: u64 = counted.clone().map(|segment| segment.size_bytes).sum();
    let mut start = log_start;
    for segment in counted {
        if segment.next_offset > high_watermark {
            break;
        }
        let rest = size - segment.size_bytes;
        let too_large = segment.sealed && bytes.is_some_and(|bytes| rest >= bytes);
        if !too_large && !is_old(segment)? {
            break;
        }
        size = rest;
        start = segment.next_offset;
    }
    Ok((start > log_start).then_some(start))
}

/// Up to where Raft may purge once log start has moved: the state there is what a lagging replica is sent, so that it gets all records
/// from log start on.
#[must_use]
pub fn purge_point(group: &GroupState, log_start: Offset) -> Option<LogId> {
    group.snapshot(log_start).map(|descriptor| descriptor.id)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

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
                sealed,
            }
        };
        vec![segment(0, true), segment(1, true), segment(2, true), segment(3, false)]
    }

    fn start(old: usize, bytes: Option<u64>, log_start: i64, high_watermark: i64) -> Option<i64> {
        let segments = segments();
        let is_old = |segment: &SegmentInfo| {
            let number = segments.iter().position(|it| it == segment).expect("one of them");
            Ok::<_, Infallible>(number < old)
        };
        let Ok(start) = new_log_start(&segments, Offset(log_start), Offset(high_watermark), bytes, is_old);
        start.map(|it| it.0)
    }

    #[test]
    fn segments_whose_newest_record_is_too_old_go() {
        assert_eq!(start(0, None, 0, 400), None);
        assert_eq!(start(1, None, 0, 400), Some(100));
        assert_eq!(start(4, None, 0, 400), Some(400), "the active one too");
        assert_eq!(start(4, None, 0, 399), Some(300), "but nothing that is not committed");
        assert_eq!(start(1, None, 150, 400), None);
        assert_eq!(start(2, None, 100, 400), Some(200));
    }

    #[test]
    fn sealed_segments_go_while_the_rest_is_large_enough() {
        assert_eq!(start(0, Some(4000), 0, 400), None);
        assert_eq!(start(0, Some(3001), 0, 400), None);
        assert_eq!(start(0, Some(3000), 0, 400), Some(100));
        assert_eq!(start(0, Some(0), 0, 400), Some(300), "the active segment stays");
        assert_eq!(start(0, Some(1000), 250, 400), Some(300), "what log start has passed is not counted");
    }
}
