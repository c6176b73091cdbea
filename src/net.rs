//! The network seam: every byte to or from a socket goes through [`Network`].
//!
//! `TokioNetwork` is the real one; a simulation brings its own, so that the broker that ships runs in it.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::sync::{Mutex, OnceLock};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A boxed future of the seam's traits.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The receiving half of a connection.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// The sending half of a connection.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Whether the other side has ended a connection, as the system knows by now, be it that nothing of it has been read yet. Waits for nothing.
pub type Probe = Box<dyn Fn() -> bool + Send + Sync>;

/// One established connection, already in halves.
pub struct Connection {
    /// What the peer sends.
    pub reader: Reader,
    /// What the peer receives. Vectored writes are passed through.
    pub writer: Writer,
    /// The peer's address.
    pub peer: SocketAddr,
    /// Whether the peer has ended it; none where nobody asks, or can tell.
    pub probe: Option<Probe>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.peer)
    }
}

/// A listening socket.
pub trait Listener: Send + Sync {
    /// Takes connections from now on; before, they are refused.
    ///
    /// # Errors
    /// If somebody else has begun to listen there.
    fn open(&self) -> io::Result<()>;
    /// The next connection, once it is open.
    ///
    /// # Errors
    /// The system's; `EMFILE`/`ENFILE` mean that descriptors have run out and the caller should wait before it asks again.
    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>>;
    /// Where it listens: the real port if 0 was asked for.
    fn local_addr(&self) -> SocketAddr;
}

/// Where connections come from and go to.
pub trait Network: Send + Sync + 'static {
    /// Takes `address` (`host:port`; port 0 lets the system choose), to listen there later: whoever comes before [`Listener::open`] is refused, and not
    /// kept waiting.
    fn bind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>>;
    /// Listens on `address` from now on.
    fn listen<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = self.bind(address).await?;
            listener.open()?;
            Ok(listener)
        })
    }
    /// Connects to `address` (`host:port`).
    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>>;
}

/// The operating system's network.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioNetwork;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

struct TokioListener {
    /// Until it is opened.
    bound: Mutex<Option<TcpSocket>>,
    open: OnceLock<TcpListener>,
    address: SocketAddr,
}

fn split(stream: TcpStream, peer: SocketAddr) -> io::Result<Connection> {
    // Replies are written whole: waiting to merge small segments would only delay them.
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    Ok(Connection { reader: Box::new(reader), writer: Box::new(writer), peer, probe: None })
}

impl Listener for TokioListener {
    fn open(&self) -> io::Result<()> {
        let bound = self.bound.lock().expect("no panic under the lock of a socket").take();
        if let Some(socket) = bound {
            let listening = socket.listen(BACKLOG)?;
            self.open.get_or_init(|| listening);
        }
        Ok(())
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async {
            let open = self.open.get().ok_or(io::ErrorKind::NotConnected)?;
            let (stream, peer) = open.accept().await?;
            split(stream, peer)
        })
    }

    fn local_addr(&self) -> SocketAddr {
        self.address
    }
}

impl Network for TokioNetwork {
    fn bind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let mut last = io::Error::new(io::ErrorKind::InvalidInput, format!("{address} names no address"));
            for candidate in tokio::net::lookup_host(address).await? {
                match bind_to(candidate) {
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
            // A descriptor of its own, which keeps no connection open: the writer shuts that down when it goes.
            let watched = stream.as_fd().try_clone_to_owned().ok();
            let probe = watched.map(|socket| Box::new(move || has_ended(&socket)) as Probe);
            Ok(Connection { probe, ..split(stream, peer)? })
        })
    }
}

fn has_ended(socket: &OwnedFd) -> bool {
    // What has come before the end may wait to be read: `RDHUP` does not hang on that. Errors and a connection that is down are always told.
    let mut looked = [PollFd::new(socket, PollFlags::RDHUP)];
    poll(&mut looked, Some(&Timespec::default())).is_ok_and(|found| found > 0)
}

fn bind_to(address: SocketAddr) -> io::Result<TokioListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted broker takes its port back at once, whatever connections of its last life linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let address = socket.local_addr()?;
    Ok(TokioListener { bound: Mutex::new(Some(socket)), open: OnceLock::new(), address })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn who_comes_before_a_listener_is_open_is_refused_and_not_kept_waiting() {
        let listener = TokioNetwork.bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().to_string();
        let refused = TokioNetwork.connect(&address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(listener.accept().await.unwrap_err().kind(), io::ErrorKind::NotConnected);
        listener.open().unwrap();
        let (called, taken) = tokio::join!(TokioNetwork.connect(&address), listener.accept());
        assert_eq!(called.unwrap().peer.to_string(), address);
        taken.unwrap();
        listener.open().unwrap();
        let taken = TokioNetwork.listen(&address).await.map(drop).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }

    #[tokio::test]
    async fn an_end_is_known_before_what_came_earlier_has_been_read() {
        let listener = TokioNetwork.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().to_string();
        let (called, taken) = tokio::join!(TokioNetwork.connect(&address), listener.accept());
        let (called, mut taken) = (called.unwrap(), taken.unwrap());
        let is_over = called.probe.unwrap();
        assert!(!is_over());
        taken.writer.write_all(b"said before").await.unwrap();
        assert!(!is_over(), "there is something to read, and no end");
        drop(taken);
        // The other side's system has said so by the time that its call returns.
        assert!(is_over());
    }
}
