//! Names of a partition's directory and files.
//!
//! A segment file is named after the Raft index and the offset of its first entry and after its *generation*, zero-padded
//! so that names sort: a file of a higher generation supersedes every entry at or above its first index in files of lower ones
//! (that is how a truncation is written down without touching bytes that readers may be looking at).

use std::fmt;

use crate::ids::{Offset, PartitionId, RaftIndex};

/// The directory that holds all topics' directories.
pub const TOPICS: &str = "topics";
/// What a segment file's name ends with.
pub(super) const LOG: &str = ".log";
/// What the file of a sealed segment's index ends with.
pub(super) const INDEX: &str = ".index";
/// What a file with bytes that recovery cut off ends with.
pub(super) const CUT: &str = ".cut";

/// What a file with bytes that a repair took out ends with.
pub(super) const DAMAGED: &str = ".damaged";

/// What a segment is called: where it begins, and its generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// The Raft index of the first entry.
    pub first_index: RaftIndex,
    /// The base offset of the first entry.
    pub first_offset: Offset,
    /// Raised by each truncation.
    pub generation: u32,
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}-{:020}-{:010}", self.first_index.0, self.first_offset.0, self.generation)
    }
}

impl SegmentName {
    /// Reads a file name without its suffix; `None` unless [`fmt::Display`] would write exactly that.
    #[must_use]
    pub fn parse(stem: &str) -> Option<Self> {
        let mut parts = stem.split('-');
        let name = Self {
            first_index: RaftIndex(parts.next()?.parse().ok()?),
            first_offset: Offset(parts.next()?.parse().ok()?),
            generation: parts.next()?.parse().ok()?,
        };
        (name.first_offset.0 >= 0 && name.to_string() == stem).then_some(name)
    }
}

/// The directory of a partition's log.
#[must_use]
pub fn directory(id: PartitionId) -> String {
    format!("{TOPICS}/{}/{}", id.topic, id.partition)
}

/// The directories whose names must be durable before anything in the log's directory counts, innermost first.
pub(super) fn parents(id: PartitionId) -> [String; 3] {
    [format!("{TOPICS}/{}", id.topic), TOPICS.to_owned(), String::new()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_name_reads_back_and_sorts_by_index() {
        let name = |index, offset, generation| SegmentName {
            first_index: RaftIndex(index),
            first_offset: Offset(offset),
            generation,
        };
        let early = name(9, 100, 4);
        assert_eq!(early.to_string(), "00000000000000000009-00000000000000000100-0000000004");
        assert_eq!(SegmentName::parse(&early.to_string()), Some(early));
        assert!(early.to_string() < name(10, 0, 0).to_string());
        for junk in ["", "1-2-3", "00000000000000000009-00000000000000000100", "x", "-1-0-0"] {
            assert_eq!(SegmentName::parse(junk), None, "{junk}");
        }
    }

    #[test]
    fn the_controllers_log_lies_beside_the_topics() {
        assert_eq!(directory(PartitionId::CONTROLLER), "topics/00000000-0000-0000-0000-000000000001/0");
    }
}
