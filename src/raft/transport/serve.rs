//! One connection of another broker: every service on it, each by its path.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::server::NamedService;

use super::proto::liveness_server::LivenessServer;
use super::proto::replication_server::ReplicationServer;
use super::service::Service;
use super::{CLUSTER, FRAME_BYTES_MAX, KEEP_ALIVE, KEEP_ALIVE_PATIENCE, WINDOW_BYTES};
use crate::net::Connection;

/// Calls that a peer may give up while they wait to be looked at.
const RESETS_MAX: usize = 16_384;

type Call = tonic::codegen::http::Request<hyper::body::Incoming>;
type Answer = tonic::codegen::http::Response<tonic::body::Body>;
type Answering = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

/// Hears the cluster's id of a call that came while this broker has no cluster.
pub type Heard = Arc<dyn Fn(&str) + Send + Sync>;

/// Serves a connection until it ends: the groups, as soon as this broker has a cluster, and another service.
///
/// # Errors
/// Of the connection.
pub async fn serve_connection<O>(
    groups: Option<Service>,
    other: Option<O>,
    heard: Option<Heard>,
    connection: Connection,
) -> io::Result<()>
where
    O: tower::Service<Call, Response = Answer, Error = Infallible, Future = Answering>,
    O: NamedService + Clone + Send + Unpin + 'static,
{
    let both = tokio::io::join(connection.reader, connection.writer);
    let service = ByPath { groups: groups.map(Service::servers), other, heard };
    // No "date" in answers: that would be the system's clock, and another run of a simulation.
    hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
        .timer(hyper_util::rt::TokioTimer::new())
        .auto_date_header(false)
        // Votes and beats that come too late are given up by whoever asked, many at a time when a broker was away: no attack.
        .max_pending_accept_reset_streams(RESETS_MAX)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_PATIENCE)
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        // A batch in one piece instead of in five.
        .max_frame_size(FRAME_BYTES_MAX)
        .serve_connection(hyper_util::rt::TokioIo::new(both), hyper_util::service::TowerToHyperService::new(service))
        .await
        .map_err(io::Error::other)
}

/// The services of one connection, by the path of a call.
#[derive(Clone)]
struct ByPath<O> {
    groups: Option<(ReplicationServer<Service>, LivenessServer<Service>)>,
    other: Option<O>,
    heard: Option<Heard>,
}

impl<O> tower::Service<Call> for ByPath<O>
where
    O: tower::Service<Call, Response = Answer, Error = Infallible, Future = Answering> + NamedService,
{
    type Response = Answer;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let name = call.uri().path().split('/').nth(1).unwrap_or_default();
        match (&mut self.groups, &mut self.other) {
            (_, Some(other)) if name == O::NAME => other.call(call),
            (Some((_, liveness)), _) if name == <LivenessServer<Service> as NamedService>::NAME => liveness.call(call),
            // What it does not know either it answers as gRPC has it.
            (Some((replication, _)), _) => replication.call(call),
            (None, _) => {
                let cluster = call.headers().get(CLUSTER).and_then(|id| id.to_str().ok());
                if let (Some(heard), Some(cluster)) = (&self.heard, cluster.filter(|id| !id.is_empty())) {
                    heard(cluster);
                }
                Box::pin(async { Ok(tonic::Status::unavailable("this broker has no cluster yet").into_http()) })
            }
        }
    }
}
