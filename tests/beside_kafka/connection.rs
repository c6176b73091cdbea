//! One connection to a broker, whose end is an answer like any other.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;

/// What came back.
pub enum Reply {
    /// A frame, without its size.
    Frame(Bytes),
    /// The broker has closed the connection.
    Closed,
    /// Nothing, for a long time.
    Silence,
}

/// One connection.
pub struct Connection(TcpStream);

impl Connection {
    /// Connects. No answer takes as long as `patience`.
    pub fn open(address: SocketAddr, patience: Duration) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(patience)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Sends bytes. A broker that has gone is noticed by the answer.
    pub fn send(&mut self, bytes: &[u8]) {
        match self.0.write_all(bytes) {
            Err(error) if is_gone(&error) => {}
            sent => sent.unwrap(),
        }
    }

    /// Waits for the next frame.
    pub fn receive(&mut self) -> Reply {
        let mut size = [0; 4];
        match self.0.read_exact(&mut size) {
            Err(error) if is_gone(&error) => return Reply::Closed,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Reply::Silence;
            }
            read => read.expect("an answer or the connection's end"),
        }
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(size)).unwrap()];
        self.0.read_exact(&mut frame).unwrap();
        Reply::Frame(frame.into())
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}
