//! The codecs of a record batch (KIP-98's attribute bits 0-2), both ways.
//!
//! Decompression is bounded by the caller: at most `max_bytes` come out, memory grows with what actually came out and not
//! with what a frame header claims (zstd's window aside, which is capped by [`ZSTD_WINDOW_LOG_MAX`]).
//! What is written is what every known client reads: snappy in the block framing of the Java client, lz4 frames with
//! independent blocks.

use std::io::{self, Read, Write};

use bytes::Bytes;

/// The largest zstd window that is accepted, as a power of two: 128 MiB, what the highest level of zstd writes.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Bytes of input to each block of the snappy framing, as the Java client chooses it.
const SNAPPY_BLOCK_BYTES: usize = 32 * 1024;

/// What the Java client's snappy framing starts with: magic, then version 1 and lowest compatible version 1.
const SNAPPY_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const SNAPPY_HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Gzip, one or more members.
    Gzip,
    /// Snappy: raw, or in the block framing of the Java client.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard frames (KIP-110).
    Zstd,
}

/// Why compressed bytes did not become records.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// More came out than the caller allowed.
    #[error("records are larger than {max_bytes} bytes when decompressed")]
    TooLarge {
        /// The caller's bound.
        max_bytes: usize,
    },
    /// The bytes are not what the codec calls valid.
    #[error("invalid {codec} data: {source}")]
    Invalid {
        /// The codec's name.
        codec: Compression,
        /// What the codec said.
        source: io::Error,
    },
}

impl Compression {
    /// All codecs, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec with the number that stands in a batch's attributes.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The number that stands in a batch's attributes.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Kafka's name for it, as in `compression.type`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The codec that Kafka calls `name`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }

    /// Compresses `plain`.
    #[must_use]
    pub fn compress(self, plain: &[u8]) -> Vec<u8> {
        // Writing into memory has no way to fail, and the parameters are constants.
        match self {
            Self::None => plain.to_vec(),
            Self::Gzip => {
                let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                writer.write_all(plain).and_then(|()| writer.finish()).expect("memory takes every write")
            }
            Self::Snappy => compress_snappy(plain),
            Self::Lz4 => compress_lz4(plain),
            Self::Zstd => {
                zstd::bulk::compress(plain, zstd::DEFAULT_COMPRESSION_LEVEL).expect("memory takes every write")
            }
        }
    }

    /// Decompresses `packed` into at most `max_bytes`. Uncompressed input is returned as the same bytes, not copied.
    ///
    /// # Errors
    /// When the bytes are not valid for the codec, or more than `max_bytes` would come out.
    pub fn decompress(self, packed: &Bytes, max_bytes: usize) -> Result<Bytes, CompressionError> {
        let plain = match self {
            Self::None if packed.len() > max_bytes => return Err(CompressionError::TooLarge { max_bytes }),
            Self::None => return Ok(packed.clone()),
            Self::Gzip => self.read_all(flate2::bufread::MultiGzDecoder::new(packed.as_ref()), max_bytes)?,
            Self::Snappy => decompress_snappy(packed, max_bytes)?,
            Self::Lz4 => self.read_all(Lz4Frames::new(packed), max_bytes)?,
            Self::Zstd => {
                let mut reader =
                    zstd::stream::read::Decoder::with_buffer(packed.as_ref()).map_err(|e| self.invalid(e))?;
                reader.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|e| self.invalid(e))?;
                self.read_all(reader, max_bytes)?
            }
        };
        Ok(Bytes::from(plain))
    }

    /// Reads a decoder to its end; one byte past the bound is enough to know that it is too large.
    fn read_all(self, reader: impl Read, max_bytes: usize) -> Result<Vec<u8>, CompressionError> {
        let mut plain = Vec::new();
        let bound = u64::try_from(max_bytes).unwrap_or(u64::MAX).saturating_add(1);
        reader.take(bound).read_to_end(&mut plain).map_err(|e| self.invalid(e))?;
        if plain.len() > max_bytes { Err(CompressionError::TooLarge { max_bytes }) } else { Ok(plain) }
    }

    fn invalid(self, source: io::Error) -> CompressionError {
        CompressionError::Invalid { codec: self, source }
    }
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

fn compress_lz4(plain: &[u8]) -> Vec<u8> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    // The Java client refuses linked blocks.
    let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
    let mut writer = FrameEncoder::with_frame_info(info, Vec::new());
    writer.write_all(plain).expect("memory takes every write");
    writer.finish().expect("memory takes every write")
}

fn compress_snappy(plain: &[u8]) -> Vec<u8> {
    let mut encoder = snap::raw::Encoder::new();
    let mut out = SNAPPY_HEADER.to_vec();
    for block in plain.chunks(SNAPPY_BLOCK_BYTES) {
        let packed = encoder.compress_vec(block).expect("a block of 32 KiB is far below snappy's limit");
        let length = i32::try_from(packed.len()).expect("a packed block of 32 KiB fits");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&packed);
    }
    out
}

/// Both forms that clients write: the Java client's blocks, or one raw block without any framing (librdkafka).
fn decompress_snappy(packed: &[u8], max_bytes: usize) -> Result<Vec<u8>, CompressionError> {
    let mut out = Vec::new();
    if !packed.starts_with(&SNAPPY_MAGIC) {
        append_snappy_block(packed, max_bytes, &mut out)?;
        return Ok(out);
    }
    let cut_short = || Compression::Snappy.invalid(io::ErrorKind::UnexpectedEof.into());
    // The two version numbers behind the magic have only ever been 1.
    let mut rest = packed.get(SNAPPY_HEADER.len()..).ok_or_else(cut_short)?;
    while !rest.is_empty() {
        // Streams that were written one after another carry the header again.
        if rest.starts_with(&SNAPPY_MAGIC) {
            rest = rest.get(SNAPPY_HEADER.len()..).ok_or_else(cut_short)?;
            continue;
        }
        let (length, behind) = rest.split_first_chunk::<4>().ok_or_else(cut_short)?;
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| cut_short())?;
        let block = behind.get(..length).ok_or_else(cut_short)?;
        append_snappy_block(block, max_bytes, &mut out)?;
        rest = &behind[length..];
    }
    Ok(out)
}

fn append_snappy_block(block: &[u8], max_bytes: usize, out: &mut Vec<u8>) -> Result<(), CompressionError> {
    /// Snappy cannot shrink anything by more than this, so a block that claims more lies: checked before its claim is
    /// allocated (a copy of 64 bytes takes at least 3).
    const MOST_SHRINK: usize = 64;
    let invalid = |e: snap::Error| Compression::Snappy.invalid(io::Error::new(io::ErrorKind::InvalidData, e));
    let length = snap::raw::decompress_len(block).map_err(invalid)?;
    if length > block.len().saturating_mul(MOST_SHRINK) {
        return Err(Compression::Snappy.invalid(io::ErrorKind::InvalidData.into()));
    }
    if length > max_bytes.saturating_sub(out.len()) {
        return Err(CompressionError::TooLarge { max_bytes });
    }
    let start = out.len();
    out.resize(start + length, 0);
    snap::raw::Decoder::new().decompress(block, &mut out[start..]).map_err(invalid)?;
    Ok(())
}

/// LZ4 frames one after another. Each has a decoder of its own: one decoder keeps the buffers of the frame before, whose
/// size it then takes for granted.
struct Lz4Frames<'a> {
    decoder: lz4_flex::frame::FrameDecoder<&'a [u8]>,
}

impl<'a> Lz4Frames<'a> {
    fn new(packed: &'a [u8]) -> Self {
        Self { decoder: lz4_flex::frame::FrameDecoder::new(packed) }
    }
}

impl Read for Lz4Frames<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.decoder.read(buffer)?;
            let rest = *self.decoder.get_ref();
            if read > 0 || buffer.is_empty() || rest.is_empty() {
                return Ok(read);
            }
            // The end of a frame with input left. Each turn consumes at least a frame header, or fails.
            self.decoder = lz4_flex::frame::FrameDecoder::new(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn incompressible_and_not() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..3000),
            (any::<u8>(), 0..200_000usize).prop_map(|(byte, n)| vec![byte; n]),
        ]
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_back(plain in incompressible_and_not()) {
            for codec in Compression::ALL {
                let packed = Bytes::from(codec.compress(&plain));
                prop_assert_eq!(&codec.decompress(&packed, plain.len()).unwrap(), &plain);
            }
        }

        #[test]
        fn junk_is_an_error_or_bounded(junk in proptest::collection::vec(any::<u8>(), 0..500)) {
            for codec in Compression::ALL {
                if let Ok(plain) = codec.decompress(&Bytes::from(junk.clone()), 100) {
                    prop_assert!(plain.len() <= 100);
                }
            }
        }

        #[test]
        fn damaged_data_never_panics(n in 1..5000usize, at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()) {
            for codec in Compression::ALL {
                let mut packed = codec.compress(&vec![7; n]);
                let at = at.index(packed.len());
                packed[at] = to;
                packed.truncate(cut.index(packed.len() + 1));
                let _ = codec.decompress(&Bytes::from(packed), 10_000);
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_the_bound() {
        for codec in Compression::ALL {
            let packed = Bytes::from(codec.compress(&vec![0; 10_000_000]));
            assert!(matches!(codec.decompress(&packed, 9_999_999), Err(CompressionError::TooLarge { .. })), "{codec}");
        }
    }

    #[test]
    fn snappy_without_framing_is_read() {
        let plain = b"a raw block, as librdkafka writes it, as librdkafka writes it".to_vec();
        let packed = Bytes::from(snap::raw::Encoder::new().compress_vec(&plain).unwrap());
        assert_eq!(Compression::Snappy.decompress(&packed, 1000).unwrap(), plain);
    }

    #[test]
    fn a_snappy_block_that_claims_gigabytes_allocates_nothing() {
        let claim = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
        assert!(matches!(Compression::Snappy.decompress(&claim, usize::MAX), Err(CompressionError::Invalid { .. })));
    }

    #[test]
    fn members_and_frames_one_after_another_are_all_read() {
        for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let packed = [codec.compress(b"one, "), codec.compress(b"two")].concat();
            assert_eq!(codec.decompress(&Bytes::from(packed), 100).unwrap(), "one, two", "{codec}");
        }
    }

    #[test]
    fn codes_and_names_are_kafkas() {
        let table: Vec<_> = Compression::ALL.iter().map(|c| (c.code(), c.name())).collect();
        assert_eq!(table, [(0, "none"), (1, "gzip"), (2, "snappy"), (3, "lz4"), (4, "zstd")]);
        for codec in Compression::ALL {
            assert_eq!(Compression::from_code(codec.code()), Some(codec));
            assert_eq!(Compression::from_name(codec.name()), Some(codec));
        }
        assert_eq!(Compression::from_code(5), None);
    }
}
