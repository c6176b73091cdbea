//! A small Kafka client for the operator's subcommands: it knows the brokers, asks the right one, and says what went wrong.
//!
//! It works against any broker of the Kafka protocol. One caller at a time; requests are not retried here, but a lost
//! connection is opened again for the next request.

mod batches;
mod connection;
mod coordinator;
mod error;
mod leaders;

pub use batches::{Batches, BatchesError};
pub use connection::{CLIENT_ID, Connection, ReadFrameError, Versions, newest, read_frame, take_frame};
pub use error::ClientError;
pub use leaders::{Found, ListOffsets, by_leader};

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::protocol::api::ApiKey;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::metadata::{MetadataRequestTopic, MetadataResponseTopic};
use crate::protocol::messages::{MetadataRequest, MetadataResponse};
use crate::protocol::wire::Request;

/// Between two tries of what may pass.
pub const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A cluster, reached through some of its brokers.
#[derive(Debug)]
pub struct Client {
    bootstrap: Vec<String>,
    timeout: Duration,
    /// The connection to one of the given addresses.
    first: Connection,
    /// Where the brokers are, as the last metadata said.
    brokers: BTreeMap<i32, String>,
    controller: i32,
    connections: BTreeMap<i32, Connection>,
}

impl Client {
    /// Connects to the first of the addresses that answers, and learns of the others. `timeout` holds for each request.
    ///
    /// # Errors
    /// If none answers.
    pub async fn connect(bootstrap: &[String], timeout: Duration) -> Result<Self, ClientError> {
        let mut client = Self {
            bootstrap: bootstrap.to_vec(),
            timeout,
            first: open_any(bootstrap, timeout).await?,
            brokers: BTreeMap::new(),
            controller: -1,
            connections: BTreeMap::new(),
        };
        client.metadata(Some(&[]), false).await?;
        Ok(client)
    }

    /// How long each request may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The brokers by id, with their addresses.
    #[must_use]
    pub fn brokers(&self) -> &BTreeMap<i32, String> {
        &self.brokers
    }

    /// A connection to any broker.
    ///
    /// # Errors
    /// If it was lost and no address answers now.
    pub async fn any(&mut self) -> Result<&mut Connection, ClientError> {
        if !self.first.is_usable() {
            self.first = open_any(&self.bootstrap, self.timeout).await?;
        }
        Ok(&mut self.first)
    }

    /// The connection to a broker of the cluster.
    ///
    /// # Errors
    /// If the metadata has no such broker, or it cannot be reached.
    pub async fn broker(&mut self, id: i32) -> Result<&mut Connection, ClientError> {
        if !self.connections.get(&id).is_some_and(Connection::is_usable) {
            self.connections.remove(&id);
            let opened = self.open(id).await?;
            self.connections.insert(id, opened);
        }
        Ok(self.connections.get_mut(&id).expect("opened above"))
    }

    /// A new connection to a broker of the cluster, for the caller alone.
    ///
    /// # Errors
    /// If the metadata has no such broker, or it cannot be reached.
    pub async fn open(&self, id: i32) -> Result<Connection, ClientError> {
        let address = self.brokers.get(&id).ok_or_else(|| ClientError::Missing {
            broker: self.first.broker().to_owned(),
            api: ApiKey::Metadata,
            what: format!("broker {id}"),
        })?;
        Connection::open(address, self.timeout).await
    }

    /// Asks any broker.
    ///
    /// # Errors
    /// If no answer came. Error codes in it are the caller's to look at.
    pub async fn ask<R: Request>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        let timeout = self.timeout;
        self.any().await?.call(request, timeout).await
    }

    /// Asks the broker that takes administrative requests.
    ///
    /// # Errors
    /// If no answer came. Error codes in it are the caller's to look at.
    pub async fn ask_controller<R: Request>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        if !self.brokers.contains_key(&self.controller) {
            return self.ask(request).await;
        }
        self.ask_broker(self.controller, request).await
    }

    /// Asks one broker.
    ///
    /// # Errors
    /// If no answer came. Error codes in it are the caller's to look at.
    pub async fn ask_broker<R: Request>(&mut self, id: i32, request: &R) -> Result<R::Response, ClientError> {
        let timeout = self.timeout;
        self.broker(id).await?.call(request, timeout).await
    }

    /// The cluster as any broker knows it now: all topics for `None`.
    ///
    /// # Errors
    /// If no answer came. Errors of single topics are the caller's to look at.
    pub async fn metadata(&mut self, topics: Option<&[&str]>, create: bool) -> Result<MetadataResponse, ClientError> {
        let asked =
            |name: &&str| MetadataRequestTopic { name: Some((*name).into()), ..MetadataRequestTopic::default() };
        let request = MetadataRequest {
            topics: topics.map(|topics| topics.iter().map(asked).collect()),
            allow_auto_topic_creation: create,
            ..MetadataRequest::default()
        };
        let response = self.ask(&request).await?;
        self.controller = response.controller_id;
        self.brokers = response.brokers.iter().map(|b| (b.node_id, address(&b.host, b.port))).collect();
        // A broker that moved is found at its new address.
        let brokers = &self.brokers;
        self.connections.retain(|id, connection| brokers.get(id).is_some_and(|address| address == connection.broker()));
        Ok(response)
    }

    /// One topic, as soon as all its partitions have leaders; `create` lets the broker create it if it does that.
    ///
    /// # Errors
    /// If there is no such topic, or it has no leaders within the timeout.
    pub async fn topic(&mut self, name: &str, create: bool) -> Result<MetadataResponseTopic, ClientError> {
        let until = Instant::now() + self.timeout;
        loop {
            let error = match self.try_topic(name, create).await {
                Ok(topic) => return Ok(topic),
                Err(error) => error,
            };
            let unknown = error.code() == Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) && !create;
            if unknown || !error.may_pass() || Instant::now() >= until {
                return Err(error);
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    async fn try_topic(&mut self, name: &str, create: bool) -> Result<MetadataResponseTopic, ClientError> {
        let response = self.metadata(Some(&[name]), create).await?;
        let broker = self.first.broker();
        let missing =
            || ClientError::Missing { broker: broker.to_owned(), api: ApiKey::Metadata, what: format!("topic {name}") };
        let mut topic =
            response.topics.into_iter().find(|topic| topic.name.as_deref() == Some(name)).ok_or_else(missing)?;
        if topic.error_code.is_error() {
            return Err(ClientError::Refused {
                what: format!("topic {name}, asked of broker {broker}"),
                code: topic.error_code,
                message: None,
            });
        }
        topic.partitions.sort_by_key(|partition| partition.partition_index);
        let leaderless = topic.partitions.iter().find(|partition| !self.brokers.contains_key(&partition.leader_id));
        match leaderless {
            Some(partition) => {
                Err(ClientError::NoLeader { topic: name.to_owned(), partition: partition.partition_index })
            }
            None => Ok(topic),
        }
    }
}

/// `host:port`, with brackets where the host is an IPv6 address.
fn address(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn open_any(bootstrap: &[String], timeout: Duration) -> Result<Connection, ClientError> {
    let mut errors = Vec::new();
    for broker in bootstrap {
        match Connection::open(broker, timeout).await {
            Ok(connection) => return Ok(connection),
            Err(error) => errors.push(error),
        }
    }
    match errors.len() {
        1 => Err(errors.swap_remove(0)),
        _ => Err(ClientError::NoBroker(errors)),
    }
}
