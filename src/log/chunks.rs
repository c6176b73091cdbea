//! Which 1 MiB chunks of a segment may be served: those that this process has written, or read and checked, since they were
//! last out of memory.

/// Bytes of a chunk.
pub(super) const CHUNK_BYTES: u64 = 1 << 20;

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunks(Vec<u64>);

impl Chunks {
    pub(super) fn set(&mut self, chunk: u64, checked: bool) {
        let (word, bit) = Self::place(chunk);
        if checked {
            if self.0.len() <= word {
                self.0.resize(word + 1, 0);
            }
            self.0[word] |= bit;
        } else if let Some(word) = self.0.get_mut(word) {
            *word &= !bit;
        }
    }

    pub(super) fn is_set(&self, chunk: u64) -> bool {
        let (word, bit) = Self::place(chunk);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Takes note that bytes were appended: a chunk stays as it was if it held bytes before, and counts as checked if not.
    pub(super) fn appended(&mut self, from: u64, to: u64) {
        for chunk in from.div_ceil(CHUNK_BYTES)..to.div_ceil(CHUNK_BYTES) {
            self.set(chunk, true);
        }
    }

    fn place(chunk: u64) -> (usize, u64) {
        (usize::try_from(chunk / 64).expect("a file has fewer chunks than memory has words"), 1 << (chunk % 64))
    }
}

/// The chunks that bytes lie in.
pub(super) fn chunks(from: u64, to: u64) -> std::ops::Range<u64> {
    from / CHUNK_BYTES..to.div_ceil(CHUNK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn appending_vouches_only_for_chunks_that_were_empty() {
        let mut checked = Chunks::default();
        checked.appended(100, CHUNK_BYTES + 5);
        assert!(!checked.is_set(0) && checked.is_set(1) && !checked.is_set(2));
        let mut fresh = Chunks::default();
        fresh.appended(0, 10);
        fresh.appended(10, CHUNK_BYTES);
        assert!(fresh.is_set(0) && !fresh.is_set(1));
        fresh.set(0, false);
        assert!(!fresh.is_set(0));
        assert_eq!(chunks(CHUNK_BYTES - 1, CHUNK_BYTES + 1), 0..2);
        assert_eq!(chunks(CHUNK_BYTES, 2 * CHUNK_BYTES), 1..2);
    }
}
