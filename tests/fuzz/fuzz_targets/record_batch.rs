//! Record batches from a stranger: the header, the checks of Produce, and the records inside with every codec.
//!
//! Random bytes never match a CRC, so the target puts the right one (and a believable frame) over what it is given.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ottla::protocol::batch::{
    BatchHeader, HEADER_BYTES, LENGTH_OVERHEAD, MAGIC, check_client_batch, crc_matches, stamp_crc,
};
use ottla::protocol::compression::Compression;
use ottla::protocol::record::read_records;

/// What the records of one batch may decompress to.
const DECOMPRESSED_MAX_BYTES: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    read(data);
    if data.len() < HEADER_BYTES {
        return;
    }
    let mut batch = data.to_vec();
    batch[..8].fill(0);
    let length = i32::try_from(batch.len() - LENGTH_OVERHEAD).expect("fuzz inputs are small");
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = MAGIC.to_be_bytes()[0];
    for compression in Compression::ALL {
        // The low three bits of the attributes are the codec.
        batch[22] = (batch[22] & !7) | compression.code();
        stamp_crc(&mut batch);
        assert!(crc_matches(&batch));
        read(&batch);
    }
});

fn read(batch: &[u8]) {
    if let Ok(header) = BatchHeader::parse(batch) {
        let _ = (header.size_bytes(), header.is_control(), header.is_transactional(), header.compression());
    }
    if let Ok(header) = check_client_batch(batch) {
        // Produce counts on this for every batch that it takes.
        assert_eq!(header.encode(), batch[..HEADER_BYTES]);
        assert_eq!(header.size_bytes(), batch.len());
        assert!(header.record_count > 0 && header.last_offset() == i64::from(header.record_count) - 1);
        let _ = header.last_sequence();
    }
    if let Ok(records) = read_records(&Bytes::copy_from_slice(batch), DECOMPRESSED_MAX_BYTES) {
        records.take(1 << 16).for_each(drop);
    }
}
