//! The leader's side of a session: requests go out as openraft makes them, several under way, and answers come back in their order.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::errors::{RPCError, Unreachable};
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::time::{Instant, Sleep};

use super::groups::Votes;
use super::link::{Budget, Session};
use super::peers::Peers;
use super::proto::AppendFrame;
use super::wire::{self, Target};
use crate::raft::types::TypeConfig;

/// Requests of a session that may be under way: what the follower's core takes in one go.
const REQUESTS_MAX: usize = 64;
/// A session with more than this under way catches up.
const LIVE_BYTES_MAX: usize = 1 << 20;
/// What a session may have under way.
const BYTES_MAX: usize = 8 << 20;
/// A replica that is so many entries behind is still to be filled; closer up it is about to count, and must not be kept waiting.
const FAR_BEHIND: u64 = 64;
/// A peer that says nothing for so long, though it was asked, is not there. Far more than a slow sync.
const PATIENCE: Duration = Duration::from_secs(10);

/// One answer, or why there are no more.
pub(super) type Answer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// Whom a session is for, and who decides how fast it may be.
pub(super) struct Route {
    pub(super) target: Target,
    pub(super) peers: Arc<Peers>,
    pub(super) votes: Arc<dyn Votes>,
}

impl Route {
    /// Whether a request fills a replica that does not count yet, and is not about to: that goes at a pace of its own.
    fn fills(&self, request: &AppendEntriesRequest<TypeConfig>) -> bool {
        let committed = request.leader_commit.as_ref().map(|id| id.index());
        let last = request.entries.last().map(|entry| entry.log_id.index());
        let is_far = last.zip(committed).is_some_and(|(last, committed)| last + FAR_BEHIND < committed);
        is_far && !self.votes.votes(self.target.group, self.target.replica)
    }
}

type Waiting = Pin<Box<dyn Future<Output = Budget> + Send>>;

struct Sent {
    bytes: usize,
    at: Instant,
    _budget: Arc<Budget>,
}

struct State<S> {
    /// On the peer's stream as it was when something was asked that the last one could not carry any more: a peer that comes is tried on a connection of now.
    session: Option<Session>,
    requests: Option<S>,
    route: Route,
    /// The target goes with the first frame of a session.
    target: Option<Target>,
    /// Made, and waiting for its bytes to be allowed.
    next: Option<(AppendFrame, usize, Waiting)>,
    sent: VecDeque<Sent>,
    sent_bytes: usize,
    /// Looks at whether the peer still answers: one timer, set anew when it rings and not with each request.
    watch: Pin<Box<Sleep>>,
    over: bool,
}

enum Event {
    Reply(Option<super::proto::AppendReply>),
    Allowed(Budget),
    Request(Option<AppendEntriesRequest<TypeConfig>>),
    Silence,
}

/// Sends what `requests` yields to the target of `route` and yields what is answered.
pub(super) fn run<'s, S>(route: Route, requests: S) -> BoxStream<'s, Answer>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
{
    let state = State {
        session: None,
        requests: Some(requests),
        target: None,
        route,
        next: None,
        sent: VecDeque::new(),
        sent_bytes: 0,
        watch: Box::pin(tokio::time::sleep(PATIENCE)),
        over: false,
    };
    futures::stream::unfold(state, |mut state| async move {
        let answer = state.answer().await?;
        Some((answer, state))
    })
    .boxed()
}

impl<S> State<S>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
{
    async fn answer(&mut self) -> Option<Answer> {
        if self.over {
            return None;
        }
        loop {
            if self.requests.is_none() && self.next.is_none() && self.sent.is_empty() {
                return None;
            }
            match self.event().await {
                Event::Reply(Some(reply)) => {
                    if let Some(sent) = self.sent.pop_front() {
                        self.sent_bytes -= sent.bytes;
                    }
                    return Some(match wire::result(reply) {
                        Ok(result) => {
                            self.over = result.is_err();
                            Ok(result)
                        }
                        Err(refused) => self.end(&refused),
                    });
                }
                Event::Reply(None) => return Some(self.end("the connection broke")),
                Event::Silence => {
                    self.session.iter().for_each(Session::give_up);
                    return Some(self.end("no answer"));
                }
                Event::Allowed(budget) => {
                    let (frame, bytes, _) = self.next.take().expect("it was waited for");
                    let budget = Arc::new(budget);
                    if !self.session.as_ref().is_some_and(|session| session.send(frame, &budget)) {
                        return Some(self.end("the connection broke"));
                    }
                    self.sent.push_back(Sent { bytes, at: Instant::now(), _budget: budget });
                    self.sent_bytes += bytes;
                }
                Event::Request(None) => self.requests = None,
                Event::Request(Some(request)) => {
                    let fills = self.route.fills(&request);
                    if !self.is_on_its_way() {
                        return Some(self.end("no address of it is known"));
                    }
                    let session = self.session.as_ref().expect("it is on its way");
                    let mut frame = wire::put_append(session.number(), request);
                    frame.target = self.target.take().map(Into::into);
                    let bytes = wire::size_bytes(&frame);
                    let catches_up = self.sent_bytes + bytes > LIVE_BYTES_MAX;
                    let pace = fills.then(|| self.route.peers.pace().take(bytes));
                    let budget = session.link().budget(bytes, catches_up);
                    let waiting = async move {
                        if let Some(turn) = pace {
                            turn.await;
                        }
                        budget.await
                    };
                    self.next = Some((frame, bytes, Box::pin(waiting)));
                }
            }
        }
    }

    /// Sees to a session that carries the next request: a new one if there is none, or if that ended while nothing was under way. Whether there is one.
    fn is_on_its_way(&mut self) -> bool {
        if self.sent.is_empty() && self.session.as_ref().is_none_or(Session::is_over) {
            let link = self.route.peers.link(self.route.target.replica.broker);
            self.session = link.map(|link| link.session());
            self.target = Some(self.route.target);
        }
        self.session.is_some()
    }

    async fn event(&mut self) -> Event {
        let has_room = self.sent.len() < REQUESTS_MAX && self.sent_bytes < BYTES_MAX && self.next.is_none();
        let Self { session, requests, next, sent, watch, .. } = self;
        let request = async {
            match requests {
                Some(requests) if has_room => requests.next().await,
                _ => std::future::pending().await,
            }
        };
        let silence = async {
            loop {
                let Some(oldest) = sent.front() else { return std::future::pending().await };
                let due = oldest.at + PATIENCE;
                watch.as_mut().await;
                if due <= Instant::now() {
                    return;
                }
                watch.as_mut().reset(due);
            }
        };
        // A stream that broke while nothing was asked is not worth a word: openraft waits before it makes a request to a peer that was not there,
        // and that wait is what keeps it from asking for ever.
        let is_asked = !sent.is_empty() || next.is_some();
        let reply = async {
            match session {
                Some(session) if is_asked => session.replies.recv().await,
                _ => std::future::pending().await,
            }
        };
        let allowed = async {
            match next {
                Some((_, _, waiting)) => waiting.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            reply = reply => Event::Reply(reply),
            budget = allowed => Event::Allowed(budget),
            request = request => Event::Request(request),
            () = silence => Event::Silence,
        }
    }

    fn end(&mut self, why: &str) -> Answer {
        self.over = true;
        let at = self.session.as_ref().map(|session| format!(" at {}", session.link().address()));
        let why = format!("broker {}{}: {why}", self.route.target.replica.broker.0, at.unwrap_or_default());
        Err(RPCError::Unreachable(Unreachable::from_string(why)))
    }
}
