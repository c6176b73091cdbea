//! The machine of a topic's partition: where its log starts, and its producers.
//!
//! Log start only moves forward: retention and deletion of records propose it, no replica moves it by itself.

use bytes::Bytes;

use super::keyed::LastValues;
use super::producer_state::{Expired, ProducerState};
use super::state_bytes::{Reader, StateError, Writer};
use super::{Committed, Machine, MachineError, What};
use crate::ids::{Offset, ProducerId};
use crate::protocol::record::read_records;

const SNAPSHOT_VERSION: u8 = 1;
/// A coordinator's: the values of its keys follow.
const COORDINATOR_SNAPSHOT_VERSION: u8 = 2;

/// What a batch of a coordinator may hold unpacked. Only this broker writes them, and uncompressed.
const UNPACKED_BYTES_MAX: usize = 256 << 20;

// Tags of commands: stored, never used anew.
const LOG_START: u8 = 1;
const EXPIRE_PRODUCERS: u8 = 2;

/// Producers that one [`Command::ExpireProducers`] names at most.
pub const EXPIRED_MAX: usize = 10_000;

/// What may be proposed to a partition beside records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Records below this offset are gone. It must not lie past the high watermark; one that would move backwards
    /// changes nothing.
    LogStart(Offset),
    /// Forget idle producers.
    ExpireProducers(Vec<Expired>),
}

impl Command {
    /// The command's bytes, as they are stored.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::LogStart(offset) => {
                let mut out = Writer::tagged(LOG_START);
                out.i64(offset.0);
                out.finish()
            }
            Self::ExpireProducers(expired) => {
                let mut out = Writer::tagged(EXPIRE_PRODUCERS);
                out.count(expired.len());
                for Expired { producer, last } in expired {
                    out.i64(producer.0);
                    out.i64(last.0);
                }
                out.finish()
            }
        }
    }

    /// Reads a command's bytes.
    ///
    /// # Errors
    /// When they are damaged, or the command is of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let mut from = Reader::new(bytes);
        let command = match from.u8("command")? {
            LOG_START => match from.i64("log start")? {
                offset if offset < 0 => return Err(StateError::Invalid("log start")),
                offset => Self::LogStart(Offset(offset)),
            },
            EXPIRE_PRODUCERS => {
                let count = from.count(16, "expired producers")?;
                let mut expired = Vec::with_capacity(count);
                for _ in 0..count {
                    let producer = ProducerId(from.i64("producer id")?);
                    expired.push(Expired { producer, last: Offset(from.i64("last offset")?) });
                }
                Self::ExpireProducers(expired)
            }
            tag => return Err(StateError::Newer { what: "partition command", number: tag.into() }),
        };
        from.end()?;
        Ok(command)
    }
}

/// The state of a topic's partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionMachine {
    log_start: Offset,
    producers: ProducerState,
    /// The last value of each key, in a coordinator's partition.
    values: Option<Box<LastValues>>,
}

impl PartitionMachine {
    /// The machine of a coordinator's partition, which keeps the last value of each key.
    #[must_use]
    pub fn coordinator() -> Self {
        Self { values: Some(Box::default()), ..Self::default() }
    }

    /// The last value of each key, in a coordinator's partition.
    #[must_use]
    pub fn values(&self) -> Option<&LastValues> {
        self.values.as_deref()
    }

    /// The first offset that clients may read.
    #[must_use]
    pub const fn log_start(&self) -> Offset {
        self.log_start
    }

    /// The idempotent producers.
    #[must_use]
    pub const fn producers(&self) -> &ProducerState {
        &self.producers
    }
}

impl Machine for PartitionMachine {
    fn apply(&mut self, entry: Committed<'_>) -> Result<(), MachineError> {
        match entry.what {
            What::Records { header, batch } => {
                if let Some(values) = &mut self.values {
                    fold(values, batch.ok_or(MachineError::Records)?)?;
                }
                self.producers.apply(header);
            }
            What::Command(bytes) => match Command::decode(bytes).map_err(MachineError::Command)? {
                Command::LogStart(offset) => self.log_start = self.log_start.max(offset),
                Command::ExpireProducers(expired) => self.producers.expire(&expired),
            },
            What::Blank => {}
        }
        Ok(())
    }

    fn reads_records(&self) -> bool {
        self.values.is_some()
    }

    fn log_start(&self) -> Offset {
        self.log_start
    }

    fn snapshot_bytes(&self) -> u64 {
        self.values.as_ref().map_or(0, |values| values.bytes())
    }

    fn snapshot(&self) -> Bytes {
        let version = if self.values.is_some() { COORDINATOR_SNAPSHOT_VERSION } else { SNAPSHOT_VERSION };
        let mut out = Writer::tagged(version);
        out.i64(self.log_start.0);
        self.producers.write(&mut out);
        if let Some(values) = &self.values {
            values.write(&mut out);
        }
        out.finish()
    }

    fn restore(snapshot: &[u8]) -> Result<Self, MachineError> {
        let read = || {
            let mut from = Reader::new(snapshot);
            let version = from.u8("version")?;
            let has_values = match version {
                SNAPSHOT_VERSION => false,
                COORDINATOR_SNAPSHOT_VERSION => true,
                number => return Err(StateError::Newer { what: "version", number: number.into() }),
            };
            let log_start = Offset(from.i64("log start")?);
            let producers = ProducerState::read(&mut from)?;
            let values = if has_values { Some(Box::new(LastValues::read(&mut from)?)) } else { None };
            from.end()?;
            Ok(Self { log_start, producers, values })
        };
        read().map_err(MachineError::Snapshot)
    }
}

/// Folds a coordinator's records in; nothing, if one of them cannot be read.
fn fold(values: &mut LastValues, batch: &Bytes) -> Result<(), MachineError> {
    let unreadable = |error: &dyn std::fmt::Display| MachineError::Unreadable(error.to_string());
    let records = read_records(batch, UNPACKED_BYTES_MAX).map_err(|error| unreadable(&error))?;
    let records: Vec<_> = records.collect::<Result<_, _>>().map_err(|error| unreadable(&error))?;
    for record in records {
        // One without a key says nothing to anybody.
        if let Some(key) = &record.key {
            values.put(key, record.value.as_deref());
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "partition_tests.rs"]
mod tests;
