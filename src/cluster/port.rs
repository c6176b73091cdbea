//! The listener for other brokers: every connection serves the brokers' services, each by its path.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::server::NamedService;

use super::Desk;
use super::desk::Counter;
use crate::net::{Connection, Listener};
use crate::raft::transport::proto::liveness_server::LivenessServer;
use crate::raft::transport::proto::membership_server::MembershipServer;
use crate::raft::transport::proto::replication_server::ReplicationServer;
use crate::raft::transport::service::Service;
use crate::raft::transport::{KEEP_ALIVE, KEEP_ALIVE_PATIENCE, WINDOW_BYTES};

/// Connections of other brokers at a time: three from each, and some that only say hello.
const CONNECTIONS_MAX: usize = 4_096;

/// What one connection serves.
#[derive(Clone)]
pub struct Services {
    /// Replication and signs of life: none before this broker has a cluster.
    pub groups: Option<Service>,
    /// Who belongs to the cluster.
    pub desk: Option<Arc<dyn Desk>>,
}

impl Services {
    /// Serves one connection until it ends.
    ///
    /// # Errors
    /// Of the connection.
    pub async fn serve(self, connection: Connection) -> io::Result<()> {
        let both = tokio::io::join(connection.reader, connection.writer);
        let cluster = self.groups.as_ref().map(|groups| groups.cluster().to_owned());
        let service = ByPath {
            groups: self.groups.map(Service::servers),
            membership: self.desk.map(|desk| MembershipServer::new(Counter { cluster, desk })),
        };
        // No "date" in answers: that would be the system's clock, and another run of a simulation.
        hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
            .timer(hyper_util::rt::TokioTimer::new())
            .auto_date_header(false)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_PATIENCE)
            .initial_connection_window_size(WINDOW_BYTES)
            .initial_stream_window_size(WINDOW_BYTES)
            .serve_connection(
                hyper_util::rt::TokioIo::new(both),
                hyper_util::service::TowerToHyperService::new(service),
            )
            .await
            .map_err(io::Error::other)
    }
}

/// Accepts connections until it is dropped. What is served is what `services` says when a connection comes; when that changes, those that came before end.
pub async fn serve(listener: Box<dyn Listener>, mut services: watch::Receiver<Services>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            changed = services.changed() => match changed {
                Ok(()) => {
                    connections.shutdown().await;
                    continue;
                }
                Err(_) => return,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(connection) if connections.len() >= CONNECTIONS_MAX => {
                tracing::warn!(peer = %connection.peer, "refused a connection to the cluster's port: too many are open");
            }
            Ok(connection) => {
                let (serving, peer) = (services.borrow().clone(), connection.peer);
                connections.spawn(async move {
                    if let Err(error) = serving.serve(connection).await {
                        tracing::debug!(%peer, %error, "a connection of another broker ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection of another broker");
                tokio::time::sleep(crate::server::ACCEPT_REST).await;
            }
        }
    }
}

/// The services of one connection, by the path of a call.
#[derive(Clone)]
struct ByPath {
    groups: Option<(ReplicationServer<Service>, LivenessServer<Service>)>,
    membership: Option<MembershipServer<Counter>>,
}

type Call = tonic::codegen::http::Request<hyper::body::Incoming>;
type Answer = tonic::codegen::http::Response<tonic::body::Body>;

impl tower::Service<Call> for ByPath {
    type Response = Answer;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let name = call.uri().path().split('/').nth(1);
        match (name, &mut self.groups, &mut self.membership) {
            (Some(<MembershipServer<Counter> as NamedService>::NAME), _, Some(membership)) => membership.call(call),
            (Some(<LivenessServer<Service> as NamedService>::NAME), Some((_, liveness)), _) => liveness.call(call),
            // What it does not know either it answers as gRPC has it.
            (_, Some((replication, _)), _) => replication.call(call),
            _ => Box::pin(async { Ok(tonic::Status::unavailable("this broker has no cluster yet").into_http()) }),
        }
    }
}
