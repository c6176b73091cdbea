//! Whole frames: four bytes of size, a header, a body.
//!
//! A broker reads eight bytes or so, checks the size with [`request_size`] before it makes room for the rest, and then
//! uses [`RequestHeader::decode`](super::header::RequestHeader::decode), [`decode_body`] and [`encode_response`];
//! a client uses [`encode_request`], [`response_size`] and [`decode_response`].
//! The size that is checked never counts itself.

use bytes::Bytes;

use super::api::ApiKey;
use super::header::{self, RequestHeader};
use super::primitive::{At, DecodeError, EncodeError, Reader, Writer};
use super::wire::{Message, Request, Response};

/// The bytes of the size in front of each frame.
pub const SIZE_BYTES: usize = 4;
/// The smallest request: API key, version, correlation id.
pub const REQUEST_MIN_BYTES: usize = 8;
/// The largest response that a client of ours accepts.
pub const RESPONSE_MAX_BYTES: usize = 1 << 30;
/// What the vectors of one decoded message may take in memory, beside its frame.
pub const DECODED_MAX_BYTES: usize = 128 << 20;
/// What those of a request may take: some hundred thousand partitions. Nobody asks for more in earnest, and two bytes of a frame can
/// name a topic.
pub const DECODED_REQUEST_MAX_BYTES: usize = 16 << 20;
/// Room for the small values of a message, so that most frames are written without growing.
const ENCODE_CAPACITY: usize = 512;

/// Why a frame is refused before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The size is negative, or too small to hold what every frame holds.
    #[error("a frame of {0} bytes cannot be")]
    Size(i32),
    /// The size is larger than allowed.
    #[error("a frame of {size} bytes is larger than the {max} bytes allowed")]
    TooLarge {
        /// The announced size.
        size: usize,
        /// The allowed size.
        max: usize,
    },
    /// No such API here.
    #[error("unknown API key {0}")]
    UnknownApi(i16),
}

/// A message that cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {message} version {version}, byte {position} of its body: {error}")]
pub struct Malformed {
    /// The message.
    pub message: &'static str,
    /// Its version.
    pub version: i16,
    /// Where in the body reading stopped.
    pub position: usize,
    /// Why.
    pub error: DecodeError,
}

/// The size of the request that begins with these bytes (size and API key), checked against the API's own limit and
/// `max_bytes` (`socket.request.max.bytes`).
///
/// # Errors
/// If the API is unknown or the size not allowed: the connection is closed.
pub fn request_size(front: [u8; SIZE_BYTES + 2], max_bytes: usize) -> Result<usize, FrameError> {
    let [a, b, c, d, key @ ..] = front;
    let size = checked_size([a, b, c, d], REQUEST_MIN_BYTES, max_bytes)?;
    let key = i16::from_be_bytes(key);
    let api = ApiKey::from_key(key).ok_or(FrameError::UnknownApi(key))?;
    match api.spec().request_max_bytes {
        max if size > max => Err(FrameError::TooLarge { size, max }),
        _ => Ok(size),
    }
}

/// Checks a request's size alone, before its API key is there.
///
/// # Errors
/// If no request is so short: the connection is closed.
pub fn check_least_size(front: [u8; SIZE_BYTES]) -> Result<(), FrameError> {
    checked_size(front, REQUEST_MIN_BYTES, usize::MAX).map(drop)
}

/// The size of the response that begins with these bytes.
///
/// # Errors
/// If the size is not allowed.
pub fn response_size(front: [u8; SIZE_BYTES]) -> Result<usize, FrameError> {
    checked_size(front, size_of::<i32>(), RESPONSE_MAX_BYTES)
}

fn checked_size(front: [u8; SIZE_BYTES], min: usize, max: usize) -> Result<usize, FrameError> {
    let announced = i32::from_be_bytes(front);
    match usize::try_from(announced) {
        Ok(size) if size > max => Err(FrameError::TooLarge { size, max }),
        Ok(size) if size >= min => Ok(size),
        _ => Err(FrameError::Size(announced)),
    }
}

fn place(api: ApiKey, version: i16) -> At {
    At { version, flexible: api.is_flexible(version), nullable: false }
}

/// Decodes a body. Bytes behind the message are ignored, as Kafka does.
///
/// Strings and records share memory with `body`.
///
/// # Errors
/// If the body is not a whole message of that version: the connection is closed.
///
/// # Panics
/// If the API does not have the version: a header that decoded has one that it has.
pub fn decode_body<M: Message>(body: Bytes, version: i16) -> Result<M, Malformed> {
    decode(body, version, DECODED_MAX_BYTES)
}

/// Decodes a request's body, as [`decode_body`], into less memory.
///
/// # Errors
/// If the body is not a whole request of that version, or names too much: the connection is closed.
///
/// # Panics
/// As [`decode_body`].
pub fn decode_request<R: Request>(body: Bytes, version: i16) -> Result<R, Malformed> {
    decode(body, version, DECODED_REQUEST_MAX_BYTES)
}

fn decode<M: Message>(body: Bytes, version: i16, max_heap_bytes: usize) -> Result<M, Malformed> {
    assert!(M::API.accepts(version), "the header's version is checked when it is decoded");
    let mut reader = Reader::new(body, max_heap_bytes);
    let message = M::read(&mut reader, place(M::API, version));
    message.map_err(|error| Malformed { message: M::NAME, version, position: reader.position(), error })
}

/// Writes a body at that version.
///
/// # Errors
/// If the version does not exist or cannot carry the message: a mistake of the caller.
pub fn write_body<M: Message>(writer: &mut Writer, message: &M, version: i16) -> Result<(), EncodeError> {
    if !M::API.accepts(version) {
        return Err(EncodeError::Version { message: M::NAME, version });
    }
    message.write(writer, place(M::API, version))
}

/// A request's frame, size in front, as slices for one vectored write; its records are not copied.
///
/// # Errors
/// If the version does not exist or cannot carry the request.
pub fn encode_request<R: Request>(
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
    request: &R,
) -> Result<Vec<Bytes>, EncodeError> {
    let header =
        RequestHeader { api: R::API, version, correlation_id, client_id: client_id.map(super::value::Text::from) };
    let mut writer = Writer::with_capacity(ENCODE_CAPACITY);
    writer.i32(0);
    header.write(&mut writer)?;
    write_body(&mut writer, request, version)?;
    finish(writer)
}

/// A response's frame, size in front, as slices for one vectored write; its records are not copied.
///
/// # Errors
/// If the version does not exist or cannot carry the response.
pub fn encode_response<R: Response>(
    version: i16,
    correlation_id: i32,
    response: &R,
) -> Result<Vec<Bytes>, EncodeError> {
    let mut writer = Writer::with_capacity(ENCODE_CAPACITY);
    writer.i32(0);
    header::write_response_header(&mut writer, R::API, version, correlation_id);
    write_body(&mut writer, response, version)?;
    finish(writer)
}

/// Puts the size in front.
fn finish(mut writer: Writer) -> Result<Vec<Bytes>, EncodeError> {
    let size = writer.len() - SIZE_BYTES;
    writer.patch_front(i32::try_from(size).map_err(|_| EncodeError::TooLong(size))?);
    Ok(writer.into_chunks())
}

/// Decodes a response's frame (without its size) into its correlation id and message.
///
/// # Errors
/// If the frame is not a whole response of that API and version.
///
/// # Panics
/// If the API does not have the version: nothing was asked in it then.
pub fn decode_response<R: Response>(frame: Bytes, version: i16) -> Result<(i32, R), Malformed> {
    let (correlation_id, body) = header::decode_response_header(frame, R::API, version).map_err(|error| Malformed {
        message: R::NAME,
        version,
        position: 0,
        error,
    })?;
    Ok((correlation_id, decode_body(body, version)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, MetadataRequest};

    fn front(size: i32, key: i16) -> [u8; 6] {
        let mut front = [0; 6];
        front[..4].copy_from_slice(&size.to_be_bytes());
        front[4..].copy_from_slice(&key.to_be_bytes());
        front
    }

    #[test]
    fn a_request_is_refused_by_its_first_bytes() {
        assert_eq!(request_size(front(8, 18), 1 << 30), Ok(8));
        assert_eq!(request_size(front(-1, 18), 1 << 30), Err(FrameError::Size(-1)));
        assert_eq!(request_size(front(7, 18), 1 << 30), Err(FrameError::Size(7)));
        assert_eq!(check_least_size([0; 4]), Err(FrameError::Size(0)));
        assert_eq!(check_least_size(i32::MAX.to_be_bytes()), Ok(()));
        assert_eq!(request_size(front(8, 4), 1 << 30), Err(FrameError::UnknownApi(4)));
        assert!(matches!(request_size(front(i32::MAX, 0), 1 << 30), Err(FrameError::TooLarge { .. })));
        assert!(matches!(request_size(front(9 << 20, 3), 1 << 30), Err(FrameError::TooLarge { max: 8_388_608, .. })));
        assert_eq!(request_size(front(9 << 20, 0), 1 << 30), Ok(9 << 20));
        assert_eq!(request_size(front(9, 0), 8), Err(FrameError::TooLarge { size: 9, max: 8 }));
    }

    #[test]
    fn a_request_and_its_response_cross_both_ways() {
        let request = ApiVersionsRequest { client_software_name: "a".into(), client_software_version: "1".into() };
        let frame = Bytes::from(encode_request(3, 5, Some("me"), &request).unwrap().concat());
        assert_eq!(request_size(frame[..6].try_into().unwrap(), 1 << 20), Ok(frame.len() - 4));
        let (header, body) = RequestHeader::decode(frame.slice(4..)).unwrap();
        assert_eq!((header.version, header.correlation_id), (3, 5));
        assert_eq!(decode_body::<ApiVersionsRequest>(body, 3), Ok(request));

        let response = ApiVersionsResponse { throttle_time_ms: 3, ..Default::default() };
        let frame = Bytes::from(encode_response(3, 5, &response).unwrap().concat());
        assert_eq!(response_size(frame[..4].try_into().unwrap()), Ok(frame.len() - 4));
        assert_eq!(decode_response(frame.slice(4..), 3), Ok((5, response)));
    }

    #[test]
    fn a_malformed_body_says_what_and_where() {
        let hostile = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff]);
        let error = decode_body::<MetadataRequest>(hostile, 0).unwrap_err();
        assert!(error.to_string().starts_with("malformed MetadataRequest version 0, byte 4 of its body"), "{error}");
    }

    #[test]
    fn a_request_unfolds_to_less_than_a_response() {
        // A topic of two bytes takes more than twenty times as much when it is decoded.
        let topics = 2_000_000;
        let mut body = i32::to_be_bytes(topics).to_vec();
        body.resize(4 + 4_000_000, 0);
        let body = Bytes::from(body);
        assert_eq!(decode_request::<MetadataRequest>(body.clone(), 1).unwrap_err().error, DecodeError::TooMuchMemory);
        assert!(decode_body::<MetadataRequest>(body, 1).is_ok());
    }

    #[test]
    fn a_version_that_the_api_lacks_is_not_encoded() {
        let error = encode_request(14, 0, None, &MetadataRequest::default()).unwrap_err();
        assert_eq!(error, EncodeError::Version { message: "MetadataRequest", version: 14 });
    }
}
