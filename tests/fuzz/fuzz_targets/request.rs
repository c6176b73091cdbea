//! Whole frames from a stranger: header and body of any API and version, and responses that a client would read.
//!
//! What is accepted must say the same after it is written and read again.

#![no_main]

#[path = "../../codec/every.rs"]
mod every;

use bytes::Bytes;
use every::{Visit, both_messages};
use libfuzzer_sys::fuzz_target;
use ottla::protocol::frame::{decode_body, request_size, write_body};
use ottla::protocol::header::{RequestHeader, decode_response_header};
use ottla::protocol::primitive::Writer;
use ottla::protocol::wire::Message;

struct ReadsBack(Bytes);

impl Visit for ReadsBack {
    fn message<M: Message>(&mut self, version: i16) {
        let Ok(message) = decode_body::<M>(self.0.clone(), version) else { return };
        let mut writer = Writer::default();
        write_body(&mut writer, &message, version).expect("what was read can be written");
        let written = Bytes::from(writer.into_chunks().concat());
        assert_eq!(decode_body::<M>(written, version).as_ref(), Ok(&message));
    }
}

fuzz_target!(|data: &[u8]| {
    if let Some(front) = data.first_chunk() {
        let _ = request_size(*front, 100 << 20);
    }
    let Ok((header, body)) = RequestHeader::decode(Bytes::copy_from_slice(data)) else { return };
    let _ = decode_response_header(body.clone(), header.api, header.version);
    both_messages(&mut ReadsBack(body), header.api, header.version);
});
