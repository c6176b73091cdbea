//! The listener for other brokers: every connection serves the brokers' services, each by its path.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Desk;
use super::desk::Counter;
use crate::net::{Connection, Listener};
use crate::raft::transport::proto::membership_server::MembershipServer;
use crate::raft::transport::serve::serve_connection;
use crate::raft::transport::service::Service;

/// How long the listener rests when the system has no descriptor for another connection.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// Connections of other brokers at a time: three from each, and some that only say hello.
const CONNECTIONS_MAX: usize = 4_096;

/// What one connection serves.
#[derive(Clone)]
pub struct Services {
    /// Replication and signs of life: none before this broker has a cluster.
    pub groups: Option<Service>,
    /// Who belongs to the cluster.
    pub desk: Arc<dyn Desk>,
}

impl Services {
    /// Serves one connection until it ends.
    ///
    /// # Errors
    /// Of the connection.
    pub async fn serve(self, connection: Connection) -> io::Result<()> {
        let cluster = self.groups.as_ref().map(|groups| groups.cluster().to_owned());
        let desk = Arc::clone(&self.desk);
        let heard = Arc::new(move |cluster: &str| desk.called(cluster));
        let membership = MembershipServer::new(Counter { cluster, desk: self.desk });
        serve_connection(self.groups, Some(membership), Some(heard), connection).await
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
            accepted = listener.accept_peer() => accepted,
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
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}
