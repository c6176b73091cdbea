//! Which partition a record goes to: as the Java client decides it for keys, in turns a batch long without.

use crate::cli::client::ClientError;
use crate::protocol::messages::metadata::MetadataResponseTopic;

/// Decides for one topic.
#[derive(Debug)]
pub(super) struct Partitioner {
    count: usize,
    fixed: Option<i32>,
    next: usize,
}

impl Partitioner {
    pub(super) fn new(topic: &MetadataResponseTopic, fixed: Option<i32>) -> Result<Self, ClientError> {
        let count = topic.partitions.len();
        match fixed {
            Some(partition) if !topic.partitions.iter().any(|p| p.partition_index == partition) => {
                let topic = topic.name.as_deref().unwrap_or_default().to_owned();
                Err(ClientError::NoPartition { topic, partition, count })
            }
            _ => Ok(Self { count, fixed, next: 0 }),
        }
    }

    /// The partition of a record with that key.
    pub(super) fn partition(&self, key: Option<&[u8]>) -> i32 {
        let of_key = |key| murmur2(key) as usize & 0x7fff_ffff;
        let index = key.map_or(self.next, of_key) % self.count.max(1);
        self.fixed.unwrap_or_else(|| i32::try_from(index).expect("a partition count of the protocol"))
    }

    /// Records without a key go to the next partition from now on.
    pub(super) fn turn(&mut self) {
        self.next = (self.next + 1) % self.count.max(1);
    }
}

/// MurmurHash2 as the Java client computes it, so that a key finds the same partition from everywhere.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).expect("a key is smaller than 4 GiB");
    let mut hash = 0x9747_b28c ^ length;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        hash ^= tail.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hash_as_in_the_java_client() {
        let cases: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key).cast_signed(), hash, "{key:?}");
        }
    }

    #[test]
    fn records_without_a_key_take_turns_and_keys_stay() {
        let mut partitioner = Partitioner { count: 3, fixed: None, next: 0 };
        let key = partitioner.partition(Some(b"foobar"));
        assert_eq!(key, (-790_332_482 & 0x7fff_ffff) % 3);
        let turns: Vec<_> = (0..4)
            .map(|_| {
                let partition = partitioner.partition(None);
                partitioner.turn();
                partition
            })
            .collect();
        assert_eq!(turns, [0, 1, 2, 0]);
        assert_eq!(partitioner.partition(Some(b"foobar")), key);
    }
}
