//! AlterConfigs: replaces a configuration as a whole. Kept for old clients; new ones change single entries.

use super::alter::{self, Outcome};
use crate::machine::controller::Controller;
use crate::protocol::messages::alter_configs::{AlterConfigsResource, AlterConfigsResourceResponse};
use crate::protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};
use crate::protocol::value::Text;
use crate::server::dispatch::Call;

/// Handles one AlterConfigs request.
pub async fn handle(call: &Call, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let named: Vec<_> =
        request.resources.iter().map(|resource| (resource.resource_type, resource.resource_name.clone())).collect();
    let repeated = alter::repeated(&named);
    let mut responses = Vec::with_capacity(named.len());
    for (resource, (resource_type, resource_name)) in request.resources.iter().zip(named) {
        let outcome = match repeated.contains(&(resource_type, resource_name.clone())) {
            true => Err(alter::refused_as_repeated()),
            false => replace(call, resource, request.validate_only).await,
        };
        let (error_code, error_message) = alter::told(call, outcome);
        responses.push(AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name });
    }
    AlterConfigsResponse { responses, ..Default::default() }
}

async fn replace(call: &Call, resource: &AlterConfigsResource, validate_only: bool) -> Outcome {
    let names: Vec<&str> = resource.configs.iter().map(|config| &*config.name).collect();
    let nulls = resource.configs.iter().filter(|config| config.value.is_none()).map(|config| &*config.name);
    alter::check_names(&names, nulls)?;
    let (resource_type, name) = (resource.resource_type, &*resource.resource_name);
    alter::check_resource(call, resource_type, name, &names)?;
    let value = |value: &Option<Text>| value.as_deref().map(str::to_owned);
    let configs: Vec<_> =
        resource.configs.iter().map(|config| (config.name.to_string(), value(&config.value))).collect();
    let decide = |controller: &Controller, resource| controller.decide_replace_configs(resource, &configs);
    alter::change(call, (resource_type, name), validate_only, decide).await
}
