//! Bytes that do not compress, faster than the kernel copies them: eight xorshift generators side by side.

/// Lanes of eight bytes; enough for the compiler to use vector registers.
const LANES: usize = 8;

/// An endless stream of noise. Not for secrets.
#[derive(Clone, Debug)]
pub(super) struct Noise([u64; LANES]);

impl Noise {
    /// The stream of that seed; no two seeds share one.
    pub(super) fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| split_mix(&mut state).max(1)))
    }

    /// Fills `out` with the stream's next bytes.
    pub(super) fn fill(&mut self, out: &mut [u8]) {
        // In a local, so that the lanes stay in registers.
        let mut lanes = self.0;
        let (blocks, tail) = out.as_chunks_mut::<{ LANES * 8 }>();
        for block in blocks {
            step(&mut lanes);
            write(&lanes, block);
        }
        if !tail.is_empty() {
            step(&mut lanes);
            let mut block = [0; LANES * 8];
            write(&lanes, &mut block);
            tail.copy_from_slice(&block[..tail.len()]);
        }
        self.0 = lanes;
    }
}

#[inline]
fn step(lanes: &mut [u64; LANES]) {
    for lane in lanes {
        *lane ^= *lane << 13;
        *lane ^= *lane >> 7;
        *lane ^= *lane << 17;
    }
}

#[inline]
fn write(lanes: &[u64; LANES], block: &mut [u8; LANES * 8]) {
    for (lane, bytes) in lanes.iter().zip(block.as_chunks_mut::<8>().0) {
        *bytes = lane.to_le_bytes();
    }
}

/// Spreads neighbouring seeds over the whole range.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::compression::Compression;

    #[test]
    fn noise_does_not_compress_and_does_not_repeat() {
        let mut noise = Noise::new(1);
        let mut all = Vec::new();
        for size in [1000, 100, 1, 64 << 10] {
            let start = all.len();
            all.resize(start + size, 0);
            noise.fill(&mut all[start..]);
        }
        for codec in Compression::ALL {
            assert!(codec.compress(&all).len() >= all.len(), "{codec:?}");
        }
        let mut other = [0; 64];
        Noise::new(2).fill(&mut other);
        assert!(!all.windows(64).any(|window| window == other));
    }
}
