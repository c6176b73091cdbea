//! DescribeConfigs: topics' and brokers' configurations, with where each value was set (KIP-226).

use std::collections::{BTreeSet, HashSet};

use super::alter::refused;
use crate::ids::BrokerId;
use crate::machine::controller::configs::DRAIN;
use crate::machine::controller::names::check_name;
use crate::machine::topic_config::{self, BrokerValues, DEFINITIONS, Definition, Found, Kind, Source, Values};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::create_topics::CreatableTopicConfigs;
use crate::protocol::messages::describe_configs::{
    DescribeConfigsResource, DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use crate::protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use crate::server::dispatch::Call;
use crate::server::{BrokerConfig, Context};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// What the request wants of each entry.
#[derive(Clone, Copy)]
struct Detail {
    synonyms: bool,
    documentation: bool,
}

/// Handles one DescribeConfigs request.
pub async fn handle(call: &Call, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let detail = Detail { synonyms: request.include_synonyms, documentation: request.include_documentation };
    // A resource that is named again is answered once: its answer is some hundred times as long as its name.
    let mut seen = HashSet::new();
    let mut resources = request.resources;
    resources.retain(|resource| seen.insert((resource.resource_type, resource.resource_name.clone())));
    let results = resources.into_iter().map(|resource| {
        let described = match resource.resource_type {
            TOPIC => topic(call, &resource.resource_name, detail),
            BROKER => broker(call, &resource, detail),
            other => Err((ErrorCode::INVALID_REQUEST, Some(format!("Unsupported resource type: {other}")))),
        };
        result(call, resource, described)
    });
    DescribeConfigsResponse { results: results.collect(), ..Default::default() }
}

type Described = Result<Vec<DescribeConfigsResourceResult>, (ErrorCode, Option<String>)>;

fn result(call: &Call, resource: DescribeConfigsResource, described: Described) -> DescribeConfigsResult {
    let (error_code, error_message, mut configs) = match described {
        Ok(configs) => (ErrorCode::NONE, None, configs),
        Err((code, message)) => (code, message, Vec::new()),
    };
    call.context.metrics.error(call.header.api.key(), error_code.0);
    if let Some(keys) = resource.configuration_keys.filter(|keys| !keys.is_empty()) {
        let keys: BTreeSet<_> = keys.into_iter().collect();
        configs.retain(|config| keys.contains(&config.name));
    }
    DescribeConfigsResult {
        error_code,
        // Kafka says nothing with an empty text, and null nowhere.
        error_message: Some(error_message.unwrap_or_default().into()),
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        configs,
    }
}

fn topic(call: &Call, name: &str, detail: Detail) -> Described {
    check_name(name).map_err(refused).map_err(|(code, message)| (code, Some(message)))?;
    let context = &call.context;
    let found = context.controller.read(|controller| {
        let topic = controller.topic(name)?;
        let broker = context.broker_values(controller);
        Some(DEFINITIONS.iter().map(|definition| topic_entry(definition, &topic.configs, broker, detail)).collect())
    });
    found.ok_or((ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, None))
}

fn topic_entry(
    definition: &'static Definition,
    topic: &Values,
    broker: BrokerValues<'_>,
    detail: Detail,
) -> DescribeConfigsResourceResult {
    let found = topic_config::effective(definition, topic, broker);
    let synonyms = topic_config::synonyms(definition, topic, broker);
    let mut entry = entry(definition.name, found, definition.kind, &synonyms, detail);
    entry.documentation = detail.documentation.then(|| definition.doc.into());
    entry
}

fn entry(
    name: &str,
    found: Found<'_>,
    kind: Kind,
    synonyms: &[Found<'_>],
    detail: Detail,
) -> DescribeConfigsResourceResult {
    let listed = if detail.synonyms { synonyms } else { &[] };
    let listed = listed.iter().map(|synonym| DescribeConfigsSynonym {
        name: synonym.name.into(),
        value: Some(synonym.value.into()),
        source: synonym.source.code(),
    });
    DescribeConfigsResourceResult {
        name: name.into(),
        value: Some(found.value.trim().into()),
        read_only: false,
        config_source: found.source.code(),
        is_sensitive: false,
        synonyms: listed.collect(),
        config_type: kind.code(),
        documentation: None,
    }
}

/// A broker's configuration: this one's, or what all brokers share when no broker is named.
fn broker(call: &Call, resource: &DescribeConfigsResource, detail: Detail) -> Described {
    let (context, name) = (&call.context, &*resource.resource_name);
    let me = context.broker.0;
    let invalid = |message: String| (ErrorCode::INVALID_REQUEST, Some(message));
    if name.is_empty() {
        return Ok(context.controller.read(|controller| {
            let values = context.broker_values(controller).dynamic_default;
            let set = values.iter().filter_map(|(name, value)| {
                let definition = topic_config::find_by_broker_name(name)?;
                let found = Found { name, value, source: Source::DynamicDefaultBroker };
                Some(entry(name, found, definition.kind, &[found], detail))
            });
            set.collect()
        }));
    }
    let id = name.parse::<i32>().map_err(|_| invalid(format!("Broker id must be an integer, but it is: {name}")))?;
    let keys = resource.configuration_keys.as_deref().unwrap_or_default();
    if id != me && !keys.is_empty() && keys.iter().all(|key| &**key == DRAIN) {
        // Every broker knows it of every other.
        return Ok(vec![drain_entry(context, BrokerId(id), detail)]);
    }
    if id != me {
        let message = format!("Unexpected broker id, expected {me} or empty string, but received {name}");
        return Err(invalid(message));
    }
    let mut entries: Vec<_> = context.broker_configs.iter().map(|config| fixed_entry(config, detail)).collect();
    context.controller.read(|controller| {
        let values = context.broker_values(controller);
        for definition in DEFINITIONS {
            entries.extend(default_entry(definition, values, detail));
        }
    });
    entries.push(drain_entry(context, context.broker, detail));
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Whether a broker gives its replicas away.
fn drain_entry(context: &Context, broker: BrokerId, detail: Detail) -> DescribeConfigsResourceResult {
    let value = context.controller.read(|controller| controller.broker_configs(broker).get(DRAIN).cloned());
    let default = Found { name: DRAIN, value: "false", source: Source::Default };
    let set = value.as_deref().map(|value| Found { name: DRAIN, value, source: Source::DynamicBroker });
    let synonyms: Vec<Found<'_>> = set.into_iter().chain([default]).collect();
    let mut entry = entry(DRAIN, synonyms[0], Kind::Boolean, &synonyms, detail);
    let doc = "Whether this broker's replicas move to others and it gets no new ones.";
    entry.documentation = detail.documentation.then(|| doc.into());
    entry
}

/// A broker's default for a topic config.
fn default_entry(
    definition: &'static Definition,
    broker: BrokerValues<'_>,
    detail: Detail,
) -> Option<DescribeConfigsResourceResult> {
    let name = definition.broker_name?;
    let nothing = Values::new();
    let synonyms = topic_config::synonyms(definition, &nothing, broker);
    let default = Found { name, value: definition.default, source: Source::Default };
    let found = synonyms.first().copied().unwrap_or(default);
    let mut entry = entry(name, found, definition.kind, &synonyms, detail);
    if synonyms.is_empty() {
        // The broker's config has no default of its own: the topic's counts.
        entry.value = None;
    }
    entry.documentation = detail.documentation.then(|| definition.doc.into());
    Some(entry)
}

/// What the broker's file or its build says, and what does not change while it runs.
fn fixed_entry(config: &BrokerConfig, detail: Detail) -> DescribeConfigsResourceResult {
    let source = if config.is_set { Source::StaticBroker } else { Source::Default };
    let found = Found { name: config.name, value: &config.value, source };
    let mut entry = entry(config.name, found, config.kind, &[found], detail);
    entry.read_only = true;
    entry.documentation = detail.documentation.then(|| config.doc.into());
    entry
}

/// The configuration of a topic that was just created, as CreateTopics answers it.
pub(super) fn of_new_topic(context: &Context, topic: &Values) -> Vec<CreatableTopicConfigs> {
    context.controller.read(|controller| {
        let broker = context.broker_values(controller);
        let entries = DEFINITIONS.iter().map(|definition| {
            let found = topic_config::effective(definition, topic, broker);
            CreatableTopicConfigs {
                name: definition.name.into(),
                value: Some(found.value.into()),
                read_only: false,
                config_source: found.source.code(),
                is_sensitive: false,
            }
        });
        entries.collect()
    })
}
