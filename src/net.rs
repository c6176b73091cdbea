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
use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, getrlimit};
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
    /// As [`Listener::accept`], for a connection of another broker: when this process is killed, the system ends it before those that came by `accept`,
    /// as far as it can be told to. Clients ask the brokers that are left as soon as theirs has ended; these had better know by then.
    ///
    /// # Errors
    /// As [`Listener::accept`].
    fn accept_peer(&self) -> BoxFuture<'_, io::Result<Connection>> {
        self.accept()
    }
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
/// Where high descriptors end, however many may be open: the system keeps a table as long as the highest number, of 8 bytes each.
const HIGH_DESCRIPTORS_END: u64 = 1 << 16;

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

impl TokioListener {
    async fn next(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let open = self.open.get().ok_or(io::ErrorKind::NotConnected)?;
        open.accept().await
    }
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
            let (stream, peer) = self.next().await?;
            split(stream, peer)
        })
    }

    fn accept_peer(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async {
            let (stream, peer) = self.next().await?;
            split(first_to_end(stream)?, peer)
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

/// The same connection under a high number: Linux takes the descriptors of a dead process back from the highest to the lowest, and lets go of a thousand
/// log files and of all clients before it comes to what was opened first.
fn first_to_end(stream: TcpStream) -> io::Result<TcpStream> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).min(HIGH_DESCRIPTORS_END);
    let lowest = i32::try_from(limit - limit / 8).unwrap_or(i32::MAX);
    let socket = stream.into_std()?;
    // No number is left up there: then it keeps its own.
    let high = fcntl_dupfd_cloexec(&socket, lowest).map_or(socket, std::net::TcpStream::from);
    TcpStream::from_std(high)
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

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

    /// The numbers of this process's descriptors.
    fn descriptors() -> Vec<u64> {
        let names = std::fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.to_str().unwrap().parse().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_connection_of_a_broker_has_a_higher_descriptor_than_one_of_a_client() {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).min(HIGH_DESCRIPTORS_END);
        let high = || descriptors().iter().filter(|number| **number >= limit - limit / 8).count();
        let listener = TokioNetwork.listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().to_string();
        let (client, taken) = tokio::join!(TokioNetwork.connect(&address), listener.accept());
        let _of_a_client = (client.unwrap(), taken.unwrap());
        assert_eq!(high(), 0);
        let (called, taken) = tokio::join!(TokioNetwork.connect(&address), listener.accept_peer());
        let (mut called, mut taken) = (called.unwrap(), taken.unwrap());
        assert_eq!(high(), 1);
        taken.writer.write_all(b"goes through").await.unwrap();
        let mut heard = [0; 12];
        called.reader.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"goes through");
        drop(taken);
        assert_eq!(high(), 0);
        assert!(called.probe.unwrap()());
    }
}
