//! What stands before a message's body: request headers 1 and 2, response headers 0 and 1.
//!
//! The client id is a classic nullable string in both request headers (KIP-511); header 2 and response header 1 add
//! tagged fields, none of which is defined.

use bytes::Bytes;

use super::api::ApiKey;
use super::primitive::{At, DecodeError, EncodeError, Reader, Source, Writer};
use super::value::Text;

/// The bytes in front of a request's client id: API key, version, correlation id.
const FIXED_BYTES: usize = 8;

const CLIENT_ID: At = At { version: 1, flexible: false, nullable: true };

/// What a request says before its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API that is asked.
    pub api: ApiKey,
    /// The version of the request and of its response.
    pub version: i16,
    /// The client's number for the request, which the response repeats.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<Text>,
}

/// Why a request cannot be understood; the connection is closed, except where [`HeaderError::Version`] says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The frame holds no whole header.
    #[error("malformed request header: {0}")]
    Malformed(#[from] DecodeError),
    /// No such API here.
    #[error("unknown API key {0}")]
    UnknownApi(i16),
    /// The API has no such version here. ApiVersions is answered nevertheless: version 0, error UNSUPPORTED_VERSION,
    /// with the supported versions (KIP-511).
    #[error("{api} has no version {version}")]
    Version {
        /// The API that is asked.
        api: ApiKey,
        /// The version that is not supported.
        version: i16,
        /// The client's number for the request.
        correlation_id: i32,
    },
}

impl RequestHeader {
    /// Splits a request's frame (without its size) into header and body.
    ///
    /// # Errors
    /// If the API or version is not supported, or the header is cut short.
    pub fn decode(frame: Bytes) -> Result<(Self, Bytes), HeaderError> {
        let mut reader = Reader::new(frame, 0);
        let key = reader.i16()?;
        let version = reader.i16()?;
        let correlation_id = reader.i32()?;
        let api = ApiKey::from_key(key).ok_or(HeaderError::UnknownApi(key))?;
        if !api.accepts(version) {
            return Err(HeaderError::Version { api, version, correlation_id });
        }
        let client_id = reader.text(CLIENT_ID)?;
        if api.is_flexible(version) {
            reader.tags(|_, _| Ok(false))?;
        }
        Ok((Self { api, version, correlation_id, client_id }, reader.rest()))
    }

    /// Writes the header.
    ///
    /// # Errors
    /// If the client id is longer than a string may be.
    pub fn write(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.i16(self.api.key());
        writer.i16(self.version);
        writer.i32(self.correlation_id);
        writer.text(CLIENT_ID, self.client_id.as_deref())?;
        if self.api.is_flexible(self.version) {
            writer.varint(0);
        }
        Ok(())
    }

    /// How many bytes [`RequestHeader::write`] writes at most.
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        FIXED_BYTES + 2 + self.client_id.as_ref().map_or(0, |id| id.len()) + 1
    }
}

/// Splits a response's frame (without its size) into correlation id and body.
///
/// # Errors
/// If the header is cut short.
pub fn decode_response_header(frame: Bytes, api: ApiKey, version: i16) -> Result<(i32, Bytes), DecodeError> {
    let mut reader = Reader::new(frame, 0);
    let correlation_id = reader.i32()?;
    if api.has_flexible_response_header(version) {
        reader.tags(|_, _| Ok(false))?;
    }
    Ok((correlation_id, reader.rest()))
}

/// Writes a response's header.
pub fn write_response_header(writer: &mut Writer, api: ApiKey, version: i16, correlation_id: i32) {
    writer.i32(correlation_id);
    if api.has_flexible_response_header(version) {
        writer.varint(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(api: ApiKey, version: i16, client_id: Option<&str>) -> RequestHeader {
        RequestHeader { api, version, correlation_id: 7, client_id: client_id.map(Text::from) }
    }

    #[test]
    fn headers_read_back_in_both_forms() {
        for version in [8, 9] {
            for client_id in [None, Some(""), Some("me")] {
                let header = header(ApiKey::Produce, version, client_id);
                let mut writer = Writer::default();
                header.write(&mut writer).unwrap();
                assert!(writer.len() <= header.max_bytes());
                writer.raw(b"body");
                let frame = Bytes::from(writer.into_chunks().concat());
                assert_eq!(RequestHeader::decode(frame), Ok((header, Bytes::from_static(b"body"))));
            }
        }
    }

    #[test]
    fn the_client_id_is_a_classic_string_in_the_flexible_header_and_unknown_tags_are_skipped() {
        let frame = b"\0\x12\0\x03\0\0\0\x07\0\x02me\x01\x05\x02xxbody";
        let (header, body) = RequestHeader::decode(Bytes::from_static(frame)).unwrap();
        assert_eq!(header.client_id.as_deref(), Some("me"));
        assert_eq!(body, "body");
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let decode = |frame: &'static [u8]| RequestHeader::decode(Bytes::from_static(frame)).unwrap_err();
        assert_eq!(decode(b"\0\x63\0\0\0\0\0\0"), HeaderError::UnknownApi(99));
        let version = HeaderError::Version { api: ApiKey::ApiVersions, version: 99, correlation_id: 7 };
        assert_eq!(decode(b"\0\x12\0\x63\0\0\0\x07rubbish"), version);
        assert_eq!(decode(b"\0\x12\0"), HeaderError::Malformed(DecodeError::Truncated { missing: 1 }));
    }

    #[test]
    fn response_headers_are_flexible_except_for_api_versions() {
        for (api, version, bytes) in [(ApiKey::Fetch, 11, 4), (ApiKey::Fetch, 12, 5), (ApiKey::ApiVersions, 3, 4)] {
            let mut writer = Writer::default();
            write_response_header(&mut writer, api, version, 9);
            assert_eq!(writer.len(), bytes);
            let frame = Bytes::from(writer.into_chunks().concat());
            assert_eq!(decode_response_header(frame, api, version), Ok((9, Bytes::new())));
        }
    }
}
