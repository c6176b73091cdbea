//! UnregisterBroker: takes a broker out of the cluster, once it holds nothing.

use super::alter::{self, not_made, refused};
use crate::ids::BrokerId;
use crate::machine::controller::Controller;
use crate::protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use crate::server::dispatch::Call;

/// Handles one UnregisterBroker request.
pub async fn handle(call: &Call, request: UnregisterBrokerRequest) -> UnregisterBrokerResponse {
    let broker = BrokerId(request.broker_id);
    let is_alive = call.context.is_alive(broker);
    let decide = |controller: &Controller| {
        let record = controller.decide_remove_broker(broker, is_alive).map_err(refused)?;
        Ok((vec![record], ()))
    };
    let (error_code, error_message) = alter::told(call, call.context.controller.change(decide).await.map_err(not_made));
    UnregisterBrokerResponse { error_code, error_message, ..Default::default() }
}
