//! The way to one peer: its connections, and the stream that carries the sessions of all groups.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};

use super::ended::{Ended, Watched};
use super::proto::liveness_client::LivenessClient;
use super::proto::membership_client::MembershipClient;
use super::proto::replication_client::ReplicationClient;
use super::proto::{AppendFrame, AppendReply};
use super::{CLUSTER, KEEP_ALIVE, KEEP_ALIVE_PATIENCE, MESSAGE_BYTES_MAX, WINDOW_BYTES};
use crate::ids::BrokerId;
use crate::net::Network;

/// How long a connection may take to be made.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// What may be under way to a peer: sent, and not answered yet. In KiB, as the semaphores count.
const UNDER_WAY_KIB: u32 = 64 << 10;
/// What of it sessions may take that catch up.
const CATCH_UP_KIB: u32 = 16 << 10;

/// What a session hears. An error: the stream broke.
pub type Replies = mpsc::UnboundedReceiver<AppendReply>;

/// One stream, as long as it lasts.
struct Lane {
    number: u64,
    frames: mpsc::UnboundedSender<Queued>,
    /// What carries it: ends with it, and what is queued with that.
    task: AbortHandle,
    sessions: BTreeMap<u64, mpsc::UnboundedSender<AppendReply>>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A frame, and its part of what may be under way: counted until the frame is neither queued nor unanswered.
struct Queued {
    frame: AppendFrame,
    _budget: Option<Arc<Budget>>,
}

/// The way to one peer.
pub struct Link {
    broker: BrokerId,
    address: String,
    cluster: MetadataValue<Ascii>,
    beats: Channel,
    control: Channel,
    data: Channel,
    lane: Mutex<Option<Lane>>,
    numbers: AtomicU64,
    under_way: Arc<Semaphore>,
    catching_up: Arc<Semaphore>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Link(broker {} at {})", self.broker.0, self.address)
    }
}

impl Link {
    /// A way to whoever listens at `address`, of whom nothing else is known yet.
    pub(crate) fn to_stranger(
        address: &str,
        cluster: &str,
        network: &Arc<dyn Network>,
    ) -> Result<Arc<Self>, tonic::transport::Error> {
        Self::new(BrokerId(-1), address, cluster, network, &Ended::default())
    }

    /// A way to `broker` at `address`. Connects when it is first used. `ended` hears of connections that end.
    pub(super) fn new(
        broker: BrokerId,
        address: &str,
        cluster: &str,
        network: &Arc<dyn Network>,
        ended: &Ended,
    ) -> Result<Arc<Self>, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_PATIENCE)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_PATIENCE)
            .keep_alive_while_idle(true)
            .initial_connection_window_size(WINDOW_BYTES)
            .initial_stream_window_size(WINDOW_BYTES);
        let connect = |network: &Arc<dyn Network>| {
            let (network, address, ended) = (Arc::clone(network), address.to_owned(), ended.clone());
            endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let (network, address, ended) = (Arc::clone(&network), address.clone(), ended.clone());
                async move {
                    let connection = network.connect(&address).await?;
                    let reader = Watched::new(connection.reader, connection.probe, broker, ended);
                    let both = tokio::io::join(reader, connection.writer);
                    Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(both))
                }
            }))
        };
        Ok(Arc::new(Self {
            broker,
            address: address.to_owned(),
            cluster: cluster.parse().expect("a cluster id is printable ASCII"),
            beats: connect(network),
            control: connect(network),
            data: connect(network),
            lane: Mutex::default(),
            numbers: AtomicU64::new(1),
            under_way: Arc::new(Semaphore::new(UNDER_WAY_KIB as usize)),
            catching_up: Arc::new(Semaphore::new(CATCH_UP_KIB as usize)),
        }))
    }

    /// Where it leads.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The peer.
    #[must_use]
    pub fn broker(&self) -> BrokerId {
        self.broker
    }

    /// For small messages that must not wait behind data.
    pub(super) fn control(&self) -> ReplicationClient<Channel> {
        ReplicationClient::new(self.control.clone())
    }

    /// For who belongs to the cluster, and what its controller decides.
    pub(crate) fn membership(&self) -> MembershipClient<Channel> {
        MembershipClient::new(self.control.clone())
    }

    /// For signs of life.
    pub(in crate::raft) fn liveness(&self) -> LivenessClient<Channel> {
        LivenessClient::new(self.beats.clone())
    }

    /// For records and snapshots.
    pub(super) fn data(&self) -> ReplicationClient<Channel> {
        let client = ReplicationClient::new(self.data.clone());
        client.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// A call, with the cluster's id on it.
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert(CLUSTER, self.cluster.clone());
        request
    }

    /// Waits until so many bytes may be under way. `catches_up` for a session that has much under way already.
    pub(super) fn budget(&self, bytes: usize, catches_up: bool) -> impl Future<Output = Budget> + Send + use<> {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).max(1);
        let (all, bulk) = (Arc::clone(&self.under_way), Arc::clone(&self.catching_up));
        async move {
            let bulk = if catches_up { Some(bulk.acquire_many_owned(kib.min(CATCH_UP_KIB)).await) } else { None };
            let all = all.acquire_many_owned(kib.min(UNDER_WAY_KIB)).await;
            Budget { _bulk: bulk.and_then(Result::ok), _all: all.ok() }
        }
    }

    fn lane(&self) -> MutexGuard<'_, Option<Lane>> {
        self.lane.lock().expect("no panic under the lane's lock")
    }

    /// A new session on the stream, which is opened if there is none.
    pub(super) fn session(self: &Arc<Self>) -> Session {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (tell, replies) = mpsc::unbounded_channel();
        let mut guard = self.lane();
        let lane = guard.get_or_insert_with(|| self.open());
        lane.sessions.insert(number, tell);
        Session { number, frames: lane.frames.clone(), replies, link: Arc::clone(self), lane: lane.number }
    }

    fn open(self: &Arc<Self>) -> Lane {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (frames, queue) = mpsc::unbounded_channel();
        let task = tokio::spawn(Arc::clone(self).carry(number, queue)).abort_handle();
        Lane { number, frames, task, sessions: BTreeMap::new() }
    }

    /// Carries frames there and replies back until the stream breaks.
    async fn carry(self: Arc<Self>, number: u64, mut queue: mpsc::UnboundedReceiver<Queued>) {
        let frames = futures::stream::poll_fn(move |context| queue.poll_recv(context)).map(|queued| queued.frame);
        match self.data().append(self.request(frames)).await {
            Ok(response) => {
                let mut replies = response.into_inner();
                loop {
                    match replies.next().await {
                        Some(Ok(reply)) => self.hand_out(number, reply),
                        Some(Err(status)) => break self.say(&status),
                        None => break,
                    }
                }
            }
            Err(status) => self.say(&status),
        }
        self.drop_lane(number);
    }

    fn say(&self, status: &tonic::Status) {
        tracing::debug!(peer = self.broker.0, address = self.address, %status, "the stream to a peer broke");
    }

    fn hand_out(&self, number: u64, reply: AppendReply) {
        if let Some(lane) = self.lane().as_ref().filter(|lane| lane.number == number)
            && let Some(session) = lane.sessions.get(&reply.session)
        {
            // One that is gone has told the peer so.
            drop(session.send(reply));
        }
    }

    /// A stream is over, or does not get anything through. Every session of it hears that its sender is gone.
    fn drop_lane(&self, number: u64) {
        let mut lane = self.lane();
        if lane.as_ref().is_some_and(|lane| lane.number == number) {
            *lane = None;
        }
    }

    /// Gives up what is under way.
    pub fn break_off(&self) {
        *self.lane() = None;
    }
}

/// Bytes that may be under way, until this is dropped.
#[derive(Debug)]
pub(super) struct Budget {
    _all: Option<tokio::sync::OwnedSemaphorePermit>,
    _bulk: Option<tokio::sync::OwnedSemaphorePermit>,
}

/// One group's use of the stream.
pub(super) struct Session {
    number: u64,
    frames: mpsc::UnboundedSender<Queued>,
    /// What the peer answers; ends when the stream breaks.
    pub(super) replies: Replies,
    link: Arc<Link>,
    lane: u64,
}

impl Session {
    /// Its number.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// While nothing is asked: whether its stream has broken, or the peer has ended it, which is all that it says unasked.
    pub(super) fn is_over(&self) -> bool {
        self.replies.is_closed() || !self.replies.is_empty()
    }

    /// The way it uses.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Sends a frame; whether it could be.
    pub(super) fn send(&self, frame: AppendFrame, budget: &Arc<Budget>) -> bool {
        self.frames.send(Queued { frame, _budget: Some(Arc::clone(budget)) }).is_ok()
    }

    /// The peer has not answered for too long: the stream that it does not answer on is given up, for all sessions.
    pub(super) fn give_up(&self) {
        self.link.drop_lane(self.lane);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(lane) = self.link.lane().as_mut().filter(|lane| lane.number == self.lane) {
            lane.sessions.remove(&self.number);
            let frame = AppendFrame { session: self.number, closes: true, ..AppendFrame::default() };
            drop(lane.frames.send(Queued { frame, _budget: None }));
        }
    }
}
