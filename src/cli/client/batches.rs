//! Walks the record batches of a fetched piece of log, each one checked before it is handed out.
//!
//! A broker cuts its answer by bytes, so the last batch may be there in part only: it is left out.

use bytes::Bytes;

use crate::protocol::batch::{self, BatchError, BatchHeader, LENGTH_OVERHEAD};

/// Why a fetched batch cannot be believed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchesError {
    /// The header cannot be.
    #[error("the batch at offset {offset} is malformed: {error}")]
    Malformed {
        /// The offset that the batch was due at.
        offset: i64,
        /// What is wrong with it.
        error: BatchError,
    },
    /// The bytes are not those that were written.
    #[error("the batch at offset {offset} fails its CRC check")]
    Crc {
        /// The batch's base offset.
        offset: i64,
    },
    /// A format of before Kafka 0.11.
    #[error("the batch at offset {offset} has the old record format {magic}, which is not read here")]
    OldFormat {
        /// The batch's base offset.
        offset: i64,
        /// The format.
        magic: i8,
    },
    /// The batch does not follow the one before it.
    #[error("the batch at offset {got} ends before offset {expected}, which was due")]
    Backwards {
        /// The offset that was due.
        expected: i64,
        /// The batch's base offset.
        got: i64,
    },
}

/// Iterator over the whole batches of fetched records; ends at the first error.
#[derive(Debug)]
pub struct Batches {
    records: Bytes,
    next_offset: i64,
}

impl Batches {
    /// The batches of `records`, which were fetched from `offset` on.
    #[must_use]
    pub const fn new(records: Bytes, offset: i64) -> Self {
        Self { records, next_offset: offset }
    }

    /// The offset behind the last batch that was handed out.
    #[must_use]
    pub const fn next_offset(&self) -> i64 {
        self.next_offset
    }

    fn take(&mut self) -> Result<Option<(BatchHeader, Bytes)>, BatchesError> {
        let Some(front) = self.records.first_chunk::<LENGTH_OVERHEAD>() else { return Ok(None) };
        let [_, _, _, _, _, _, _, _, length @ ..] = front;
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        if LENGTH_OVERHEAD + length > self.records.len() {
            return Ok(None);
        }
        let malformed = |error| BatchesError::Malformed { offset: self.next_offset, error };
        let header = BatchHeader::parse(&self.records).map_err(malformed)?;
        let offset = header.base_offset;
        if header.magic != batch::MAGIC {
            return Err(BatchesError::OldFormat { offset, magic: header.magic });
        }
        let batch = self.records.split_to(header.size_bytes());
        if !batch::crc_matches(&batch) {
            return Err(BatchesError::Crc { offset });
        }
        if header.next_offset() <= self.next_offset {
            return Err(BatchesError::Backwards { expected: self.next_offset, got: offset });
        }
        self.next_offset = header.next_offset();
        Ok(Some((header, batch)))
    }
}

impl Iterator for Batches {
    type Item = Result<(BatchHeader, Bytes), BatchesError>;

    fn next(&mut self) -> Option<Self::Item> {
        let taken = self.take();
        if taken.is_err() {
            self.records.clear();
        }
        taken.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::compression::Compression;
    use crate::protocol::record::{BatchBuilder, NewRecord};

    fn log(batches: i64) -> Vec<u8> {
        let mut log = Vec::new();
        for offset in 0..batches {
            let mut builder = BatchBuilder::new(Compression::None);
            builder.push(&NewRecord { value: Some(b"v"), ..NewRecord::default() });
            let mut batch = builder.build().to_vec();
            batch[..8].copy_from_slice(&offset.to_be_bytes());
            log.extend_from_slice(&batch);
        }
        log
    }

    #[test]
    fn whole_batches_are_handed_out_and_a_cut_one_is_left() {
        let log = log(3);
        let mut batches = Batches::new(Bytes::from(log[..log.len() - 1].to_vec()), 0);
        assert_eq!(batches.by_ref().filter(Result::is_ok).count(), 2);
        assert_eq!(batches.next_offset(), 2);
    }

    #[test]
    fn a_flipped_bit_is_found_and_nothing_follows_it() {
        let mut log = log(3);
        *log.last_mut().unwrap() ^= 1;
        let found: Vec<_> = Batches::new(Bytes::from(log), 0).collect();
        assert_eq!(found.len(), 3);
        assert_eq!(found[2].as_ref().unwrap_err(), &BatchesError::Crc { offset: 2 });
    }

    #[test]
    fn a_batch_that_was_seen_is_refused() {
        let error = Batches::new(Bytes::from(log(1)), 1).next().unwrap().unwrap_err();
        assert_eq!(error, BatchesError::Backwards { expected: 1, got: 0 });
    }
}
