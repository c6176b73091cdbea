//! One partition's append-only log, the journal that remembers votes and checkpoints of all of them, and the `Disk` seam under both.
//!
//! A partition's Raft log *is* its Kafka log: a run of record batches exactly as clients fetch them, one batch per Raft entry, with a few
//! entries of Raft's own between them. Raft index and Kafka offset are two countings of the same entries.
//!
//! - [`disk`]: the seam. [`mmap`] is the real disk, [`mem_disk`] the one of tests and simulation.
//! - [`journal`]: `raft.journal`, one for each data directory.
//! - [`Log`]: one partition's log; [`Log::open`] recovers it. [`entry`]: what it is made of. [`retention`]: what may be deleted.
//!
//! # Invariants
//! - What was acknowledged as durable is never lost, changed or cut: damage to it is reported and kept.
//! - Nothing persistent names an entry that this disk has not synced.
//! - Published bytes never change under a reader.
//! - Nothing here reads a clock, draws a random number or starts a thread.

mod append;
mod chunks;
mod codec;
#[cfg(test)]
mod crash_tests;
pub mod descriptor;
pub mod disk;
mod disk_args;
#[cfg(test)]
mod disk_contract_tests;
mod entries;
pub mod entry;
pub mod epochs;
mod error;
mod fetch;
mod flush;
mod index;
pub mod journal;
mod journal_file;
mod journal_frame;
mod journal_state;
mod lookup;
pub mod mem_disk;
mod mend;
#[cfg(test)]
mod mend_tests;
pub mod mmap;
mod name;
mod parents;
mod partition;
mod recent;
mod recovery;
mod recovery_files;
mod recovery_scan;
#[cfg(test)]
mod recovery_tests;
pub mod repair;
mod repair_holes;
#[cfg(test)]
mod repair_tests;
mod resync;
pub mod retention;
mod scrub;
mod segment;
mod trim;
mod walk;

#[cfg(test)]
mod full_disk_tests;
#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod test_kit;

pub use descriptor::{Descriptor, Mark, Place};
pub use entries::LogPoint;
pub use error::{Damage, LogError, ReadError};
pub use fetch::{ColdRange, Fetched, Reading};
pub use flush::FlushPlan;
pub use lookup::TimedOffset;
pub use mend::{Gap, Gaps, MendError, Tender};
pub use name::{SegmentName, TOPICS, directory};
pub use partition::{Appended, Log, LogConfig, LogState, OpenAfter, SegmentInfo};
pub use recovery::{CutReport, Recovered};
pub use repair_holes::Hole;
pub use scrub::{ScrubPlace, Scrubbed};
pub use trim::Deleted;
