//! turmoil's network behind the broker's seam. What brokers hear is taken into a hash, and a way between two of them can be made to stall.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use ottla::net::{BoxFuture, Connection, Listener, Network};
use tokio::io::{AsyncRead, ReadBuf};

/// One host's way to the others.
pub struct SimNetwork {
    /// Who uses it.
    pub me: String,
    /// What all hosts of one run share.
    pub wires: Wires,
}

/// What all hosts of one run share: a hash over what brokers heard, and the ways that stall.
#[derive(Clone, Default)]
pub struct Wires(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    hash: u64,
    /// From whom to whom nothing gets through until later, as when packets are lost and sent again.
    stalled: BTreeSet<(String, String)>,
    waiting: Vec<Waker>,
    /// Reads that had to wait because of it.
    held_up: u64,
}

impl Wires {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hash over all bytes that brokers have read.
    pub fn hash(&self) -> u64 {
        self.lock().hash
    }

    /// Reads that found their way stalled.
    pub fn held_up(&self) -> u64 {
        self.lock().held_up
    }

    /// Nothing gets through from one host to another from now on; it waits.
    pub fn stall(&self, from: &str, to: &str) {
        self.lock().stalled.insert((from.to_owned(), to.to_owned()));
    }

    /// What has waited gets through.
    pub fn flow(&self, from: &str, to: &str) {
        let mut state = self.lock();
        state.stalled.remove(&(from.to_owned(), to.to_owned()));
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// What a host hears on one connection.
struct Ear {
    stream: turmoil::net::tcp::OwnedReadHalf,
    /// From whom, and who hears it.
    way: (String, String),
    wires: Wires,
}

impl AsyncRead for Ear {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        {
            let mut state = me.wires.lock();
            if state.stalled.contains(&me.way) {
                state.held_up += 1;
                state.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut me.stream).poll_read(context, buf);
        let heard = &buf.filled()[before..];
        let mut state = me.wires.lock();
        for byte in heard {
            state.hash = (state.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        polled
    }
}

struct SimListener {
    inner: turmoil::net::TcpListener,
    me: String,
    wires: Wires,
}

fn split(stream: turmoil::net::TcpStream, peer: SocketAddr, me: &str, wires: &Wires) -> Connection {
    let (stream, writer) = stream.into_split();
    let from = turmoil::reverse_lookup(peer.ip()).unwrap_or_default();
    let ear = Ear { stream, way: (from, me.to_owned()), wires: wires.clone() };
    Connection { reader: Box::new(ear), writer: Box::new(writer), peer, probe: None }
}

impl Listener for SimListener {
    /// It has been since it was bound: who comes before the first accept waits.
    fn open(&self) -> io::Result<()> {
        Ok(())
    }

    fn accept(&self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async {
            let (stream, peer) = self.inner.accept().await?;
            Ok(split(stream, peer, &self.me, &self.wires))
        })
    }

    fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr().expect("a listener has an address")
    }
}

impl Network for SimNetwork {
    fn bind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let inner = turmoil::net::TcpListener::bind(address).await?;
            let listener = SimListener { inner, me: self.me.clone(), wires: self.wires.clone() };
            Ok(Box::new(listener) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async move {
            let stream = turmoil::net::TcpStream::connect(address).await?;
            let peer = stream.peer_addr()?;
            Ok(split(stream, peer, &self.me, &self.wires))
        })
    }
}
