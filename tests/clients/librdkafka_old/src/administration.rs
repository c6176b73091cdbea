//! Topics and groups.

use std::collections::BTreeMap;

use futures::executor::block_on;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::types::RDKafkaErrorCode;

use crate::Outcome;
use crate::data::WAIT;

/// An administrator.
pub struct Administration {
    admin: AdminClient<DefaultClientContext>,
}

/// The one result of an admin call about one thing.
fn only<T, N>(results: Vec<Result<T, (N, RDKafkaErrorCode)>>) -> Outcome<T> {
    match results.into_iter().next() {
        Some(Ok(done)) => Ok(done),
        Some(Err((_, code))) => Err(code.to_string().into()),
        None => Err("no result".into()),
    }
}

impl Administration {
    pub fn new(bootstrap: &str) -> Outcome<Self> {
        Ok(Self { admin: ClientConfig::new().set("bootstrap.servers", bootstrap).create()? })
    }

    fn options() -> AdminOptions {
        AdminOptions::new().request_timeout(Some(WAIT)).operation_timeout(Some(WAIT))
    }

    pub fn create(&self, topic: &str, partitions: i32, configs: &BTreeMap<String, String>) -> Outcome<()> {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let new = configs.iter().fold(new, |new, (name, value)| new.set(name, value));
        only(block_on(self.admin.create_topics([&new], &Self::options()))?).map(drop)
    }

    pub fn grow(&self, topic: &str, partitions: i32) -> Outcome<()> {
        let wanted = NewPartitions::new(topic, usize::try_from(partitions)?);
        only(block_on(self.admin.create_partitions([&wanted], &Self::options()))?).map(drop)
    }

    pub fn delete(&self, topic: &str) -> Outcome<()> {
        only(block_on(self.admin.delete_topics(&[topic], &Self::options()))?).map(drop)
    }

    pub fn delete_group(&self, group: &str) -> Outcome<()> {
        only(block_on(self.admin.delete_groups(&[group], &Self::options()))?).map(drop)
    }

    pub fn alter(&self, topic: &str, name: &str, value: &str) -> Outcome<()> {
        let change = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
        only(block_on(self.admin.alter_configs([&change], &Self::options()))?).map(drop)
    }

    pub fn config(&self, topic: &str, name: &str) -> Outcome<String> {
        let asked = ResourceSpecifier::Topic(topic);
        let described = block_on(self.admin.describe_configs([&asked], &Self::options()))?;
        let resource = described.into_iter().next().ok_or("no result")?.map_err(|code| code.to_string())?;
        let entry = resource.get(name).ok_or_else(|| format!("{topic} has no {name}"))?;
        Ok(entry.value.clone().unwrap_or_default())
    }

    pub fn topics(&self) -> Outcome<Vec<String>> {
        let metadata = self.admin.inner().fetch_metadata(None, WAIT)?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    pub fn partitions(&self, topic: &str) -> Outcome<usize> {
        let metadata = self.admin.inner().fetch_metadata(Some(topic), WAIT)?;
        Ok(metadata.topics().first().map_or(0, |topic| topic.partitions().len()))
    }

    pub fn brokers(&self) -> Outcome<usize> {
        Ok(self.admin.inner().fetch_metadata(None, WAIT)?.brokers().len())
    }

    pub fn groups(&self) -> Outcome<Vec<String>> {
        let groups = self.admin.inner().fetch_group_list(None, WAIT)?;
        Ok(groups.groups().iter().map(|group| group.name().to_owned()).collect())
    }

    /// The group's state and how many members it has.
    pub fn describe(&self, group: &str) -> Outcome<(String, usize)> {
        let groups = self.admin.inner().fetch_group_list(Some(group), WAIT)?;
        let described = groups.groups().iter().find(|described| described.name() == group);
        let described = described.ok_or_else(|| format!("no group {group}"))?;
        Ok((described.state().to_owned(), described.members().len()))
    }
}
