//! Decisions about configs: what `IncrementalAlterConfigs` and `AlterConfigs` ask for becomes records.

use std::collections::BTreeSet;

use super::{Controller, Kind, Record, Refusal, Resource};
use crate::ids::BrokerId;
use crate::machine::topic_config::{self, Definition, Invalid, VALUE_BYTES_MAX, Values};

const TYPE_TOPIC: i8 = 2;
const TYPE_BROKER: i8 = 4;

/// A config of a single broker: "true" while its replicas move to others and it gets no new ones.
pub const DRAIN: &str = "ottla.drain";
/// Set to `true` on a broker that is gone for good, it gives it up (`ottla cluster unsafe-recover --running`). It is done, and not kept.
pub const GIVEN_UP: &str = "ottla.given-up";

/// What is to become of one config (KIP-339).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It gets this value. None is an error, which is Kafka's to name.
    Set(Option<String>),
    /// It gets its default.
    Delete,
    /// These parts are added to the list that it is.
    Append(Option<String>),
    /// These parts are taken from the list that it is.
    Subtract(Option<String>),
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        Self::new(Kind::InvalidConfig, invalid.to_string())
    }
}

impl Controller {
    /// What a request's resource type and name mean. The empty name of a broker is all brokers.
    ///
    /// # Errors
    /// [`Kind::UnknownTopic`], [`Kind::UnknownBroker`]; [`Kind::InvalidRequest`] when the type has no configs here.
    pub fn find_resource(&self, kind: i8, name: &str) -> Result<Resource, Refusal> {
        match (kind, name) {
            (TYPE_TOPIC, "") => Err(Refusal::new(Kind::InvalidRequest, "Default topic resources are not allowed.")),
            (TYPE_TOPIC, name) => {
                super::names::check_name(name)?;
                let unknown = || Refusal::new(Kind::UnknownTopic, format!("The topic '{name}' does not exist."));
                self.topic(name).map(|topic| Resource::Topic(topic.id)).ok_or_else(unknown)
            }
            (TYPE_BROKER, "") => Ok(Resource::AllBrokers),
            (TYPE_BROKER, name) => {
                let message = "Unable to parse broker name as a base 10 number.";
                let id = name.parse().map_err(|_| Refusal::new(Kind::InvalidRequest, message))?;
                if id < 0 {
                    return Err(Refusal::new(Kind::InvalidRequest, "Invalid negative broker ID."));
                }
                let unknown = || Refusal::new(Kind::UnknownBroker, format!("No node with id {id} found."));
                self.brokers.get(&BrokerId(id)).map(|_| Resource::Broker(BrokerId(id))).ok_or_else(unknown)
            }
            (kind, _) => Err(Refusal::new(Kind::InvalidRequest, format!("Unexpected resource type {kind}."))),
        }
    }

    /// Changes some configs of a resource and leaves the others (`IncrementalAlterConfigs`). Yields only what really
    /// changes.
    ///
    /// # Errors
    /// [`Kind::InvalidRequest`] when a config is named twice, has no value, or is none that a running broker can change, or when
    /// a broker's value is not valid; [`Kind::InvalidConfig`] when a topic's is not.
    pub fn decide_alter_configs(
        &self,
        resource: Resource,
        changes: &[(String, Change)],
    ) -> Result<Vec<Record>, Refusal> {
        check_request(changes.iter().map(|(name, change)| {
            (name.as_str(), !matches!(change, Change::Set(None) | Change::Append(None) | Change::Subtract(None)))
        }))?;
        let present = self.values(resource).ok_or_else(Refusal::unknown_topic)?;
        let mut values = present.clone();
        for (name, change) in changes {
            let value = match change {
                Change::Set(value) => value.clone(),
                Change::Delete => None,
                Change::Append(parts) => Some(change_list(resource, &values, name, parts, ListChange::Append)?),
                Change::Subtract(parts) => Some(change_list(resource, &values, name, parts, ListChange::Subtract)?),
            };
            match value {
                Some(value) if value.len() > VALUE_BYTES_MAX => return Err(Invalid::TooLong.into()),
                Some(value) => values.insert(name.clone(), value),
                None => values.remove(name),
            };
        }
        self.check_values(resource, &values)?;
        Ok(difference(resource, present, &values))
    }

    /// Gives a resource exactly these configs (`AlterConfigs`): those not named get their default.
    ///
    /// # Errors
    /// As [`Controller::decide_alter_configs`].
    pub fn decide_replace_configs(
        &self,
        resource: Resource,
        configs: &[(String, Option<String>)],
    ) -> Result<Vec<Record>, Refusal> {
        check_request(configs.iter().map(|(name, value)| (name.as_str(), value.is_some())))?;
        let present = self.values(resource).ok_or_else(Refusal::unknown_topic)?;
        let values = configs.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect();
        self.check_values(resource, &values)?;
        Ok(difference(resource, present, &values))
    }

    fn check_values(&self, resource: Resource, values: &Values) -> Result<(), Refusal> {
        let mut others = values.clone();
        if let Resource::Broker(broker) = resource
            && let Some(drain) = others.remove(DRAIN)
        {
            match drain.as_str() {
                "true" if self.is_draining(broker) => {}
                "true" => self.check_can_drain(broker)?,
                "false" => {}
                other => {
                    let message =
                        format!("Invalid value {other} for configuration {DRAIN}: true or false is expected.");
                    return Err(Refusal::new(Kind::InvalidRequest, message));
                }
            }
        }
        check_values(resource, &others)
    }
}

/// What Kafka asks of each change before it looks at the values.
fn check_request<'a>(configs: impl Iterator<Item = (&'a str, bool)> + Clone) -> Result<(), Refusal> {
    let without: Vec<_> = configs.clone().filter(|(_, has_value)| !has_value).map(|(name, _)| name).collect();
    if !without.is_empty() {
        return Err(Refusal::new(
            Kind::InvalidRequest,
            format!("Null value not supported for : {}", without.join(",")),
        ));
    }
    let mut seen = BTreeSet::new();
    for (name, _) in configs {
        if !seen.insert(name) {
            return Err(Refusal::new(Kind::InvalidRequest, "Error due to duplicate config keys"));
        }
    }
    Ok(())
}

/// The config of that name on that resource, under the name that it has there.
fn find(resource: Resource, name: &str) -> Option<Definition> {
    match resource {
        Resource::Topic(_) => topic_config::find(name).copied(),
        Resource::Broker(_) | Resource::AllBrokers => {
            let definition = topic_config::find_by_broker_name(name)?;
            Some(Definition { name: definition.broker_name?, ..*definition })
        }
    }
}

fn check_values(resource: Resource, values: &Values) -> Result<(), Refusal> {
    if matches!(resource, Resource::Topic(_)) {
        return Ok(topic_config::check_topic(values)?);
    }
    for (name, value) in values {
        let Some(definition) = find(resource, name) else {
            let message = format!("Cannot update these configs dynamically: Set({name})");
            return Err(Refusal::new(Kind::InvalidRequest, message));
        };
        // Kafka's brokers validate their own configs, and have one code for whatever is wrong.
        definition.check(value).map_err(|invalid| Refusal::new(Kind::InvalidRequest, invalid.to_string()))?;
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ListChange {
    Append,
    Subtract,
}

/// The list that comes out when parts are added to or taken from what is set, or else from the default.
fn change_list(
    resource: Resource,
    values: &Values,
    name: &str,
    parts: &Option<String>,
    how: ListChange,
) -> Result<String, Refusal> {
    let definition = find(resource, name).filter(Definition::is_list).ok_or_else(|| {
        let verb = if how == ListChange::Append { "APPEND" } else { "SUBTRACT" };
        let message = format!("Can't {verb} to key {name} because its type is not LIST.");
        Refusal::new(Kind::InvalidConfig, message)
    })?;
    let present = values.get(name).map_or(definition.default, String::as_str);
    let mut list: Vec<_> = topic_config::parts(present).collect();
    for part in topic_config::parts(parts.as_deref().unwrap_or_default()) {
        match how {
            ListChange::Append if list.contains(&part) => {}
            ListChange::Append => list.push(part),
            ListChange::Subtract => list.retain(|present| *present != part),
        }
    }
    Ok(list.join(","))
}

fn difference(resource: Resource, from: &Values, to: &Values) -> Vec<Record> {
    let removed = from.keys().filter(|name| !to.contains_key(*name));
    let removed = removed.map(|name| Record::ConfigRemoved { resource, name: name.clone() });
    let set = to.iter().filter(|(name, value)| from.get(*name) != Some(value));
    let set = set.map(|(name, value)| Record::ConfigSet { resource, name: name.clone(), value: value.clone() });
    removed.chain(set).collect()
}
