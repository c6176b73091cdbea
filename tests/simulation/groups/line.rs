//! A client's line to the coordinator of its group: it is found, lost and found again.

use std::any::Any;
use std::time::Duration;

use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::FindCoordinatorRequest;
use ottla::protocol::wire::Request;

use super::Stage;
use crate::client::{Client, Lost};
use crate::cluster::room::host;
use crate::cluster::story::BROKERS;

/// How long an answer that does not wait for others is waited for.
pub const PATIENCE: Duration = Duration::from_millis(300);
/// Between two tries.
pub const REST: Duration = Duration::from_millis(20);

/// See the module's documentation.
pub struct Line {
    stage: Stage,
    name: String,
    group: &'static str,
    client: Option<Client>,
    /// Which of several brokers is asked next.
    turn: usize,
}

impl Line {
    /// The line of a client that has a name for itself.
    pub fn new(stage: &Stage, name: &str, group: &'static str) -> Self {
        Self { stage: stage.clone(), name: name.to_owned(), group, client: None, turn: name.len() }
    }

    /// One request and its answer. Without one, the connection is given up.
    pub async fn call<R: Request + 'static>(&mut self, version: i16, mut request: R) -> Result<R::Response, Lost> {
        self.call_within(PATIENCE, version, &mut request).await
    }

    /// As [`Self::call`], for what may wait for others.
    pub async fn call_within<R: Request + 'static>(
        &mut self,
        patience: Duration,
        version: i16,
        request: &mut R,
    ) -> Result<R::Response, Lost> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => self.connect().await?,
        };
        self.stage.front.asked(request as &mut dyn Any);
        let answered = tokio::time::timeout(patience, client.call(version, request)).await;
        let Ok(Ok(response)) = answered else {
            self.stage.log.lock().lost += 1;
            return Err(Lost);
        };
        self.client = Some(client);
        Ok(response)
    }

    async fn connect(&mut self) -> Result<Client, Lost> {
        if self.stage.room.is_some() {
            self.turn = self.turn.wrapping_add(1);
            return tokio::time::timeout(PATIENCE, self.connect_among()).await.map_err(|_| Lost)?;
        }
        let find = async {
            let mut client = Client::connect_as(&self.stage.wire, &self.name).await;
            loop {
                let request = FindCoordinatorRequest { key: self.group.into(), ..Default::default() };
                if client.call(2, &request).await?.error_code == ErrorCode::NONE {
                    return Ok(client);
                }
                tokio::time::sleep(REST).await;
            }
        };
        tokio::time::timeout(PATIENCE, find).await.map_err(|_| Lost)?
    }

    /// Asks one of several brokers where the coordinator is, and connects to that.
    async fn connect_among(&self) -> Result<Client, Lost> {
        let connect = |host: String| {
            let (wire, name) = (&self.stage.wire, &self.name);
            async move { Client::connect_to_as(wire, &host, PATIENCE, name).await }
        };
        let mut client = connect(host(self.turn % BROKERS)).await?;
        let request = FindCoordinatorRequest { key: self.group.into(), ..Default::default() };
        let found = client.call(2, &request).await?;
        if found.error_code != ErrorCode::NONE {
            tokio::time::sleep(REST).await;
            return Err(Lost);
        }
        let client = connect(found.host.to_string()).await?;
        self.stage.log.lock().coordinates(self.group, found.node_id);
        Ok(client)
    }

    /// Gives the connection up: the coordinator may be elsewhere.
    pub fn hang_up(&mut self) {
        self.client = None;
    }
}
