//! Valid messages of every kind from a seed: a [`Source`] that invents what a [`Reader`](ottla::protocol::primitive::Reader)
//! would find in a frame, so that it follows the declarations by itself.

use bytes::Bytes;
use ottla::protocol::primitive::{At, DecodeError, Source, Writer};
use ottla::protocol::value::{Records, Text};
use ottla::protocol::wire::Message;

/// Draws from a seed.
pub struct Generator(u64);

impl Generator {
    /// A generator of its own for each seed, message and version.
    pub fn new<M: Message>(seed: u64, version: i16) -> Self {
        let name = M::NAME.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self(name ^ (u64::from(version.unsigned_abs()) << 48))
    }

    /// The next draw (splitmix64).
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).expect("below a usize")
    }

    /// Mostly small numbers, sometimes any.
    fn integer(&mut self) -> i64 {
        match self.below(4) {
            0 => -1,
            1 => i64::from(self.below(2) == 0),
            _ => self.next().cast_signed(),
        }
    }
}

impl Source for Generator {
    fn i8(&mut self) -> Result<i8, DecodeError> {
        Ok(self.integer().to_le_bytes()[0].cast_signed())
    }

    fn i16(&mut self) -> Result<i16, DecodeError> {
        let [a, b, ..] = self.integer().to_le_bytes();
        Ok(i16::from_le_bytes([a, b]))
    }

    fn i32(&mut self) -> Result<i32, DecodeError> {
        let [a, b, c, d, ..] = self.integer().to_le_bytes();
        Ok(i32::from_le_bytes([a, b, c, d]))
    }

    fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(self.integer())
    }

    fn uuid(&mut self) -> Result<[u8; 16], DecodeError> {
        let (high, low) = (self.next(), self.next());
        Ok(((u128::from(high) << 64) | u128::from(low)).to_be_bytes())
    }

    fn text(&mut self, at: At) -> Result<Option<Text>, DecodeError> {
        let letters = ['a', 'ö', '.', '日', '🦀'];
        Ok(match self.below(5) {
            0 if at.nullable => None,
            1 => Some(Text::from("x".repeat(self.below(300)))),
            _ => Some(Text::from((0..self.below(9)).map(|_| letters[self.below(5)]).collect::<String>())),
        })
    }

    fn records(&mut self, at: At) -> Result<Option<Records>, DecodeError> {
        let slice = |generator: &mut Self| {
            let byte = generator.next().to_le_bytes()[0];
            Bytes::from(vec![byte; generator.below(2000)])
        };
        Ok(match self.below(5) {
            0 if at.nullable => None,
            1 => Some(Records::from((0..self.below(4)).map(|_| slice(self)).collect::<Vec<_>>())),
            _ => Some(Records::from(slice(self))),
        })
    }

    fn count(&mut self, at: At, _: usize, _: usize) -> Result<Option<usize>, DecodeError> {
        Ok(match self.below(6) {
            0 if at.nullable => None,
            // Long enough for a compact length of two bytes, and rare: arrays nest.
            5 if self.below(50) == 0 => Some(130),
            n => Some(n.min(3)),
        })
    }

    fn present(&mut self, at: At) -> Result<bool, DecodeError> {
        Ok(!at.nullable || self.below(2) == 0)
    }

    fn tags(&mut self, mut read: impl FnMut(&mut Self, u32) -> Result<bool, DecodeError>) -> Result<(), DecodeError> {
        for tag in 0..8 {
            if self.below(2) == 0 {
                read(self, tag)?;
            }
        }
        Ok(())
    }
}

/// A message from a seed.
pub fn generate<M: Message>(seed: u64, version: i16) -> M {
    let at = At { version, flexible: M::API.is_flexible(version), nullable: false };
    M::read(&mut Generator::new::<M>(seed, version), at).expect("a generator always has a value")
}

/// The bytes of a body.
pub fn body<M: Message>(message: &M, version: i16) -> Bytes {
    let mut writer = Writer::default();
    ottla::protocol::frame::write_body(&mut writer, message, version)
        .unwrap_or_else(|error| panic!("{} version {version}: {error}: {message:?}", M::NAME));
    Bytes::from(writer.into_chunks().concat())
}
