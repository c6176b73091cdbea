//! The network seam: every byte to or from a socket goes through [`Network`].
//!
//! `TokioNetwork` is the real one; a simulation brings its own, so that the broker that ships runs in it.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A boxed future of the seam's traits.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The receiving half of a connection.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// The sending half of a connection.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// One established connection, already in halves.
pub struct Connection {
    /// What the peer sends.
    pub reader: Reader,
    /// What the peer receives. Vectored writes are passed through.
    pub writer: Writer,
    /// The peer's address.
    pub peer: SocketAddr,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.peer)
    }
}

/// A listening socket.
pub trait Listener: Send + Sync {
    /// The next connection.
    ///
    /// # Errors
    /// The system's; `EMFILE`/`ENFILE` mean that descriptors have run out and the caller should wait before it asks again.
    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>>;
    /// Where it listens: the real port if 0 was asked for.
    fn local_addr(&self) -> SocketAddr;
}

/// Where connections come from and go to.
pub trait Network: Send + Sync + 'static {
    /// Listens on `address` (`host:port`; port 0 lets the system choose).
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
    /// Connects to `address` (`host:port`).
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>>;
}

/// The operating system's network.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioNetwork;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

struct TokioListener {
    inner: TcpListener,
    address: SocketAddr,
}

fn split(stream: TcpStream, peer: SocketAddr) -> io::Result<Connection> {
    // Replies are written whole: waiting to merge small segments would only delay them.
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    Ok(Connection { reader: Box::new(reader), writer: Box::new(writer), peer })
}

impl Listener for TokioListener {
    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async {
            let (stream, peer) = self.inner.accept().await?;
            split(stream, peer)
        })
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Network for TokioNetwork {
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let mut last = io::Error::new(io::ErrorKind::InvalidInput, format!("{address} names no address"));
            for candidate in tokio::net::lookup_host(address).await? {
                match listen_on(candidate) {
                    Ok(listener) => return Ok(Box::new(listener) as Box<dyn Listener>),
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            let peer = stream.peer_addr()?;
            split(stream, peer)
        })
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TokioListener> {
    let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
    // A restarted broker takes its port back at once, whatever connections of its last life linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let inner = socket.listen(BACKLOG)?;
    let address = inner.local_addr()?;
    Ok(TokioListener { inner, address })
}
