//! A small Kafka client on the broker's own codec, over the simulated network.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ottla::protocol::frame::{self, SIZE_BYTES};
use ottla::protocol::wire::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::history::Shared;
use crate::world::{BROKER, PORT};

/// A reply that does not come within this is a lost connection.
const REPLY_TIME_MAX: Duration = Duration::from_secs(5);

/// One connection.
pub struct Client {
    stream: turmoil::net::TcpStream,
    history: Shared,
    name: String,
    next_correlation: i32,
    reply_time_max: Duration,
}

/// The connection is gone, or the reply was not one: connect again.
#[derive(Debug)]
pub struct Lost;

impl Client {
    /// Connects, trying again until the broker is there.
    pub async fn connect(history: &Shared) -> Self {
        Self::connect_as(history, "simulation").await
    }

    /// Connects as a client that has a name for itself.
    pub async fn connect_as(history: &Shared, name: &str) -> Self {
        loop {
            if let Ok(stream) = turmoil::net::TcpStream::connect((BROKER, PORT)).await {
                return Self::over(stream, history, name, REPLY_TIME_MAX);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// As [`Self::connect_to`], as a client that has a name for itself.
    pub async fn connect_to_as(history: &Shared, host: &str, patience: Duration, name: &str) -> Result<Self, Lost> {
        let client = Self::connect_to(history, host, patience).await?;
        Ok(Self { name: name.to_owned(), ..client })
    }

    /// Connects to one of several brokers. It and each of its answers may take as long as `patience`.
    pub async fn connect_to(history: &Shared, host: &str, patience: Duration) -> Result<Self, Lost> {
        let stream = tokio::time::timeout(patience, turmoil::net::TcpStream::connect((host, PORT))).await;
        let stream = stream.map_err(|_| Lost)?.map_err(|_| Lost)?;
        Ok(Self::over(stream, history, "simulation", patience))
    }

    fn over(stream: turmoil::net::TcpStream, history: &Shared, name: &str, reply_time_max: Duration) -> Self {
        Self { stream, history: history.clone(), name: name.to_owned(), next_correlation: 0, reply_time_max }
    }

    /// Sends a request and returns its correlation id.
    pub async fn send<R: Request>(&mut self, version: i16, request: &R) -> Result<i32, Lost> {
        let id = self.next_correlation;
        self.next_correlation += 1;
        let slices = frame::encode_request(version, id, Some(&self.name), request).expect("the version exists");
        for slice in slices {
            self.history.lock().wire(b">", &slice);
            self.stream.write_all(&slice).await.map_err(|_| Lost)?;
        }
        Ok(id)
    }

    /// Receives the next reply, which must be that of `id`.
    pub async fn receive<R: Request>(&mut self, version: i16, id: i32) -> Result<R::Response, Lost> {
        let receive = async {
            let mut size = [0; SIZE_BYTES];
            self.stream.read_exact(&mut size).await.map_err(|_| Lost)?;
            let size = frame::response_size(size).map_err(|_| Lost)?;
            let mut body = BytesMut::zeroed(size);
            self.stream.read_exact(&mut body).await.map_err(|_| Lost)?;
            Ok::<Bytes, Lost>(body.freeze())
        };
        let body = tokio::time::timeout(self.reply_time_max, receive).await.map_err(|_| Lost)??;
        self.history.lock().wire(b"<", &body);
        let (got, response) = frame::decode_response(body, version).expect("the broker's replies can be read");
        assert_eq!(got, id, "replies come in the order of their requests");
        Ok(response)
    }

    /// One request and its reply.
    pub async fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response, Lost> {
        let id = self.send(version, request).await?;
        self.receive::<R>(version, id).await
    }
}
