//! One connection to one broker: requests go out, answers come back in the same order, as many at once as the caller likes.
//!
//! Invariants: every answer's correlation id is the one that is due; after any failure the connection is not used again,
//! because half a frame may be on its way. Memory for an answer grows with the bytes that came, not with the announced size.
//! It never sends on its own and has no tasks: whoever calls drives it.

use std::collections::VecDeque;
use std::io;
use std::io::IoSlice;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::error::ClientError;
use crate::protocol::api::ApiKey;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::frame::{self, SIZE_BYTES};
use crate::protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use crate::protocol::wire::{Message, Request};

/// What the broker's logs call this client.
pub const CLIENT_ID: &str = "ottla";

/// The version of ApiVersions that is tried first; a broker that lacks it answers with version 0 (KIP-511).
const API_VERSIONS: i16 = 3;

/// The last versions in which topics have names, of APIs that know only ids from then on: what this client is told are names.
const NAMES_UPTO: [(ApiKey, i16); 3] = [(ApiKey::Produce, 12), (ApiKey::OffsetCommit, 9), (ApiKey::OffsetFetch, 9)];

/// Room that is made for an announced frame before any of it came.
const TRUSTED_BYTES: usize = 4 << 20;

/// The newest version in which this client asks.
#[must_use]
pub fn newest(api: ApiKey) -> i16 {
    let named = NAMES_UPTO.iter().find(|(named, _)| *named == api);
    named.map_or(*api.spec().versions.end(), |(_, upto)| *upto)
}

/// The versions that a broker speaks.
#[derive(Clone, Debug, Default)]
pub struct Versions(Vec<(i16, i16, i16)>);

impl Versions {
    /// First and last version of the API, if the broker has it.
    #[must_use]
    pub fn of(&self, api: ApiKey) -> Option<(i16, i16)> {
        self.0.iter().find(|(key, ..)| *key == api.key()).map(|(_, first, last)| (*first, *last))
    }

    /// The newest version that both sides speak, and that names topics.
    #[must_use]
    pub fn common(&self, api: ApiKey) -> Option<i16> {
        let (first, last) = self.of(api)?;
        let newest = last.min(newest(api));
        (newest >= first && newest >= *api.spec().versions.start()).then_some(newest)
    }
}

/// A connection whose versions have been agreed on.
#[derive(Debug)]
pub struct Connection {
    broker: String,
    stream: TcpStream,
    versions: Versions,
    next_id: i32,
    due: VecDeque<i32>,
    /// The last frame: its memory takes the next one, if the caller has dropped what came in it.
    spare: Option<Bytes>,
    usable: bool,
}

impl Connection {
    /// Connects to `host:port` and asks what the broker speaks, within `patience`.
    ///
    /// # Errors
    /// If the broker cannot be reached or does not answer as a Kafka broker does.
    pub async fn open(broker: &str, patience: Duration) -> Result<Self, ClientError> {
        let connect = |source| ClientError::Connect { broker: broker.to_owned(), source };
        let stream = match timeout(patience, TcpStream::connect(broker)).await {
            Ok(connected) => connected.map_err(connect)?,
            Err(_) => return Err(connect(io::Error::from(io::ErrorKind::TimedOut))),
        };
        stream.set_nodelay(true).map_err(connect)?;
        let mut connection = Self {
            broker: broker.to_owned(),
            stream,
            versions: Versions::default(),
            next_id: 0,
            due: VecDeque::new(),
            spare: None,
            usable: true,
        };
        connection.versions = connection.agree(patience).await?;
        Ok(connection)
    }

    async fn agree(&mut self, patience: Duration) -> Result<Versions, ClientError> {
        let request = ApiVersionsRequest {
            client_software_name: CLIENT_ID.into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
        };
        self.send_at(API_VERSIONS, &request, true).await?;
        let frame = self.frame(ApiKey::ApiVersions, patience).await?;
        // A broker that lacks the version answers in version 0, which begins with the error as every version does.
        let refused = frame.get(4..6) == Some(&ErrorCode::UNSUPPORTED_VERSION.0.to_be_bytes()[..]);
        let response: ApiVersionsResponse = self.decode(frame, if refused { 0 } else { API_VERSIONS })?;
        if response.error_code.is_error() && !refused {
            return Err(self.refused("ApiVersions", response.error_code, None));
        }
        Ok(Versions(response.api_keys.iter().map(|api| (api.api_key, api.min_version, api.max_version)).collect()))
    }

    /// The broker's address, as it was given.
    #[must_use]
    pub fn broker(&self) -> &str {
        &self.broker
    }

    /// Whether nothing has failed on it yet.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.usable
    }

    /// The version in which requests of that API are sent.
    ///
    /// # Errors
    /// If there is none in common.
    pub fn version(&self, api: ApiKey) -> Result<i16, ClientError> {
        let theirs = || self.versions.of(api);
        let broker = || self.broker.clone();
        self.versions.common(api).ok_or_else(|| ClientError::Version { broker: broker(), api, theirs: theirs() })
    }

    /// An error that the broker answered with.
    #[must_use]
    pub fn refused(&self, what: &str, code: ErrorCode, message: Option<&str>) -> ClientError {
        let what = format!("{what} refused by broker {}", self.broker);
        ClientError::Refused { what, code, message: message.filter(|text| !text.is_empty()).map(ToOwned::to_owned) }
    }

    /// Sends a request and waits for its answer; nothing else may be under way.
    ///
    /// # Errors
    /// If no answer came within `patience` or it cannot be read. Error codes in it are the caller's to look at.
    pub async fn call<R: Request>(&mut self, request: &R, patience: Duration) -> Result<R::Response, ClientError> {
        assert!(self.due.is_empty(), "a call waits for its own answer only");
        self.send(request).await?;
        self.receive::<R>(patience).await
    }

    /// Sends a request whose answer [`Connection::receive`] takes later.
    ///
    /// # Errors
    /// If it could not be sent.
    pub async fn send<R: Request>(&mut self, request: &R) -> Result<(), ClientError> {
        self.send_at(self.version(R::API)?, request, true).await
    }

    /// Sends a request that gets no answer: Produce without acknowledgements.
    ///
    /// # Errors
    /// If it could not be sent.
    pub async fn send_unanswered<R: Request>(&mut self, request: &R) -> Result<(), ClientError> {
        self.send_at(self.version(R::API)?, request, false).await
    }

    async fn send_at<R: Request>(&mut self, version: i16, request: &R, answered: bool) -> Result<(), ClientError> {
        let id = self.next_id;
        self.next_id = id.wrapping_add(1);
        let chunks = frame::encode_request(version, id, Some(CLIENT_ID), request)
            .map_err(|source| ClientError::Encode { broker: self.broker.clone(), source })?;
        // Unusable until all of it is out: the future may be dropped half way.
        let was_usable = std::mem::replace(&mut self.usable, false);
        write_all(&mut self.stream, &chunks)
            .await
            .map_err(|source| ClientError::Io { broker: self.broker.clone(), source })?;
        self.usable = was_usable;
        if answered {
            self.due.push_back(id);
        }
        Ok(())
    }

    /// The answer to the oldest request under way, which must be an `R`.
    ///
    /// # Errors
    /// If no answer came within `patience` or it cannot be read. Error codes in it are the caller's to look at.
    pub async fn receive<R: Request>(&mut self, patience: Duration) -> Result<R::Response, ClientError> {
        let version = self.version(R::API)?;
        let frame = self.frame(R::API, patience).await?;
        self.decode(frame, version)
    }

    /// Reads one frame; its size is checked and not part of it.
    async fn frame(&mut self, api: ApiKey, patience: Duration) -> Result<Bytes, ClientError> {
        self.usable = false;
        match timeout(patience, read_frame(&mut self.stream, self.spare.take())).await {
            Err(_) => Err(ClientError::Timeout { broker: self.broker.clone(), api, after: patience }),
            Ok(Err(ReadFrameError::Frame(source))) => Err(ClientError::Frame { broker: self.broker.clone(), source }),
            Ok(Err(ReadFrameError::Io(source))) => Err(ClientError::Io { broker: self.broker.clone(), source }),
            Ok(Ok(None)) => Err(ClientError::Closed { broker: self.broker.clone(), api }),
            Ok(Ok(Some(frame))) => {
                self.usable = true;
                self.spare = Some(frame.clone());
                Ok(frame)
            }
        }
    }

    fn decode<M: crate::protocol::wire::Response>(&mut self, frame: Bytes, version: i16) -> Result<M, ClientError> {
        let expected = self.due.pop_front().expect("an answer is taken for each request that gets one");
        let decoded = frame::decode_response(frame, version);
        let (got, message) = decoded.map_err(|source| {
            self.usable = false;
            ClientError::Malformed { broker: self.broker.clone(), source }
        })?;
        if got != expected {
            self.usable = false;
            return Err(ClientError::OutOfOrder { broker: self.broker.clone(), expected, got });
        }
        Ok(message)
    }

    /// The stream and its version of an API, for loads that write their own frames. Nothing may be under way.
    ///
    /// # Errors
    /// If there is no version in common.
    pub fn into_stream<R: Message>(self) -> Result<(TcpStream, i16), ClientError> {
        assert!(self.due.is_empty(), "the stream is given away between requests");
        let version = self.version(R::API)?;
        Ok((self.stream, version))
    }
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadFrameError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bytes are no frame.
    #[error(transparent)]
    Frame(#[from] frame::FrameError),
}

/// Reads one frame without its size, or `None` at the end of the stream. Memory of `spare` is used if nobody else
/// holds it.
///
/// # Errors
/// If the connection fails or the size cannot be.
pub async fn read_frame(stream: &mut TcpStream, spare: Option<Bytes>) -> Result<Option<Bytes>, ReadFrameError> {
    let mut front = [0; SIZE_BYTES];
    match stream.read(&mut front).await? {
        0 => return Ok(None),
        got => stream.read_exact(&mut front[got..]).await.map(drop)?,
    }
    let size = frame::response_size(front)?;
    let mut frame = spare.and_then(|spare| spare.try_into_mut().ok()).unwrap_or_default();
    frame.clear();
    while frame.len() < size {
        let missing = size - frame.len();
        // What is announced is believed up to a bound; past it, at most as much again as has really come.
        frame.reserve(missing.min(frame.len().max(TRUSTED_BYTES)));
        if stream.read_buf(&mut (&mut frame).limit(missing)).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
    Ok(Some(frame.freeze()))
}

/// Takes a whole frame off the buffer's front, without its size, or says how many bytes are missing at least.
///
/// # Errors
/// If the size cannot be.
pub fn take_frame(buffer: &mut BytesMut) -> Result<Result<Bytes, usize>, frame::FrameError> {
    let Some(front) = buffer.first_chunk::<SIZE_BYTES>() else { return Ok(Err(SIZE_BYTES)) };
    let whole = SIZE_BYTES + frame::response_size(*front)?;
    match whole.checked_sub(buffer.len()) {
        None | Some(0) => {
            let mut frame = buffer.split_to(whole).freeze();
            Ok(Ok(frame.split_off(SIZE_BYTES)))
        }
        Some(missing) => Ok(Err(missing)),
    }
}

async fn write_all(stream: &mut TcpStream, chunks: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
    let mut left = &mut slices[..];
    IoSlice::advance_slices(&mut left, 0);
    while !left.is_empty() {
        match stream.write_vectored(left).await? {
            0 => return Err(io::Error::from(io::ErrorKind::WriteZero)),
            written => IoSlice::advance_slices(&mut left, written),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
