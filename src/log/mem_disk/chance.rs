//! The seeded choices of a [`MemDisk`](super::MemDisk), and the rolling hash that proves two runs equal.

/// A splitmix64 generator: small, seedable, the same on every machine.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if `n` is 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next().checked_rem(n).unwrap_or(0)
    }

    pub(super) fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// How much of what was not synced a power cut leaves on the whole disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mercy {
    Nothing,
    Everything,
    Some,
}

impl Mercy {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        match rng.below(8) {
            0 => Self::Nothing,
            1 => Self::Everything,
            _ => Self::Some,
        }
    }

    /// Which of `n` unsynced things (sectors of one file, names) survive. Every subset is possible; those that break recovery code
    /// most often (a prefix, a suffix, one hole, nothing, everything) are made likely, whatever `n` is.
    pub(super) fn survivors(self, rng: &mut Rng, n: usize) -> Vec<bool> {
        let count = u64::try_from(n).expect("a count fits u64");
        let shape = match self {
            Self::Nothing => 0,
            Self::Everything => 1,
            Self::Some => rng.below(8),
        };
        let at = usize::try_from(rng.below(count.max(1))).expect("below a usize");
        let eighths = 1 + rng.below(7);
        (0..n)
            .map(|i| match shape {
                0 => false,
                1 => true,
                2 => i < at,
                3 => i >= at,
                4 => i != at,
                5 => i == at,
                _ => rng.below(8) < eighths,
            })
            .collect()
    }

    /// Whether a single unsynced thing survives.
    pub(super) fn keeps(self, rng: &mut Rng) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Some => rng.coin(),
        }
    }
}

/// A rolling hash over everything done to a disk. Not cryptographic: it tells two runs apart, nobody attacks it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace(u64);

impl Trace {
    pub(super) fn new() -> Self {
        Self(0x51_7C_C1_B7_27_22_0A_95)
    }

    pub(super) fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x2127_599B_F432_5C37);
        self.0 ^= self.0 >> 29;
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.word(u64::try_from(bytes.len()).expect("a length fits u64"));
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
    }

    pub(super) fn hash(self) -> u64 {
        self.0
    }
}
