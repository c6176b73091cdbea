//! IncrementalAlterConfigs: sets, deletes, appends to or subtracts from single entries of a configuration (KIP-339).

use super::alter::{self, BROKER, Outcome};
use crate::ids::BrokerId;
use crate::machine::controller::Controller;
use crate::machine::controller::configs::{Change, GIVEN_UP};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterConfigsResourceResponse, AlterableConfig,
};
use crate::protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use crate::server::dispatch::Call;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Handles one IncrementalAlterConfigs request.
pub async fn handle(call: &Call, request: IncrementalAlterConfigsRequest) -> IncrementalAlterConfigsResponse {
    let named: Vec<_> =
        request.resources.iter().map(|resource| (resource.resource_type, resource.resource_name.clone())).collect();
    let repeated = alter::repeated(&named);
    let mut responses = Vec::with_capacity(named.len());
    for (resource, (resource_type, resource_name)) in request.resources.iter().zip(named) {
        let outcome = match repeated.contains(&(resource_type, resource_name.clone())) {
            true => Err(alter::refused_as_repeated()),
            false => change(call, resource, request.validate_only).await,
        };
        let (error_code, error_message) = alter::told(call, outcome);
        responses.push(AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name });
    }
    IncrementalAlterConfigsResponse { responses, ..Default::default() }
}

async fn change(call: &Call, resource: &AlterConfigsResource, validate_only: bool) -> Outcome {
    let names: Vec<&str> = resource.configs.iter().map(|config| &*config.name).collect();
    let nulls = resource.configs.iter().filter(|config| config.config_operation != DELETE && config.value.is_none());
    alter::check_names(&names, nulls.map(|config| &*config.name))?;
    let (resource_type, name) = (resource.resource_type, &*resource.resource_name);
    if resource_type == BROKER && names.contains(&GIVEN_UP) {
        return give_up(call, resource, validate_only).await;
    }
    alter::check_resource(call, resource_type, name, &names)?;
    let changes = resource.configs.iter().map(operation).collect::<Result<Vec<_>, _>>()?;
    let decide = |controller: &Controller, resource| controller.decide_alter_configs(resource, &changes);
    alter::change(call, (resource_type, name), validate_only, decide).await
}

/// Gives up a broker that is gone for good, and whatever partitions have lost with it, by an operator's word.
async fn give_up(call: &Call, resource: &AlterConfigsResource, validate_only: bool) -> Outcome {
    let is_meant = |config: &AlterableConfig| config.config_operation == SET && config.value.as_deref() == Some("true");
    let broker = match (&resource.configs[..], resource.resource_name.parse()) {
        ([config], Ok(id)) if is_meant(config) => BrokerId(id),
        _ => {
            let why = format!("{GIVEN_UP} is set to true on one broker, and with nothing else.");
            return Err((ErrorCode::INVALID_REQUEST, why));
        }
    };
    let is_alive = call.context.is_alive(broker);
    let changed = call.context.controller.change(|controller| {
        let records = controller.decide_give_up(broker, is_alive).map_err(alter::refused)?;
        Ok((if validate_only { Vec::new() } else { records }, ()))
    });
    changed.await.map_err(alter::not_made)?;
    if !validate_only {
        tracing::error!(
            broker = broker.0,
            "a broker is given up for good, by an operator's word: partitions go on from what is left of them"
        );
    }
    Ok(())
}

fn operation(config: &AlterableConfig) -> Result<(String, Change), alter::Refused> {
    let value = config.value.as_deref().map(str::to_owned);
    let change = match config.config_operation {
        SET => Change::Set(value),
        DELETE => Change::Delete,
        APPEND => Change::Append(value),
        SUBTRACT => Change::Subtract(value),
        other => return Err((ErrorCode::INVALID_REQUEST, format!("Unknown operations type {other}"))),
    };
    Ok((config.name.to_string(), change))
}
