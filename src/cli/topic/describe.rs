//! `ottla topic describe`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::TOPIC_RESOURCE;
use super::list::replicas;
use crate::cli::client::{Client, ClientError, Found, ListOffsets};
use crate::cli::connect::{Connect, Failure, Format, print_json, print_table, print_text};
use crate::protocol::messages::DescribeConfigsRequest;
use crate::protocol::messages::describe_configs::{DescribeConfigsResource, DescribeConfigsResourceResult};
use crate::protocol::messages::metadata::{MetadataResponsePartition, MetadataResponseTopic};

/// The sources that DescribeConfigs names (KIP-226), by their numbers.
const SOURCES: [(i8, &str); 6] = [
    (1, "topic"),
    (2, "dynamic-broker"),
    (3, "dynamic-default-broker"),
    (4, "static-broker"),
    (5, "default"),
    (6, "dynamic-broker-logger"),
];
const SOURCE_TOPIC: i8 = 1;

/// Only brokers that are Ottla have topic configs of this prefix.
const OWN_PREFIX: &str = "ottla.";
/// Said of every topic whose policy asks for compaction, until there is some.
const NOT_COMPACTING: &str =
    "cleanup.policy=compact is set, but compaction is not running: every record is kept, none is deleted by time";

/// Describe topics: partitions, leaders, offsets, configurations.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ottla topic describe orders\n  ottla topic describe orders --all-configs\n  \
ottla topic describe orders payments --format json")]
pub struct Args {
    /// The topics.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Show the configurations that are not the topic's own, too.
    #[arg(short, long)]
    all_configs: bool,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connect: Connect,
}

/// All that is known of a topic.
struct Described {
    topic: MetadataResponseTopic,
    start: BTreeMap<i32, Found>,
    end: BTreeMap<i32, Found>,
    configs: Vec<DescribeConfigsResourceResult>,
}

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.connect.client().await?;
    let mut values = Vec::new();
    for (at, name) in args.topics.iter().enumerate() {
        let described = describe(&mut client, name).await?;
        match args.format {
            Format::Json => values.push(described.json()),
            Format::Table => {
                if at > 0 {
                    print_text("\n")?;
                }
                described.print(args.all_configs)?;
            }
        }
    }
    if args.format == Format::Json { print_json(&json!({ "topics": values })) } else { Ok(()) }
}

async fn describe(client: &mut Client, name: &str) -> Result<Described, ClientError> {
    let topic = client.topic(name, false).await?;
    let partitions: Vec<i32> = topic.partitions.iter().map(|partition| partition.partition_index).collect();
    let start = client.list_offsets(&topic, &partitions, ListOffsets::Start).await?;
    let end = client.list_offsets(&topic, &partitions, ListOffsets::End).await?;
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: TOPIC_RESOURCE,
            resource_name: name.into(),
            configuration_keys: None,
        }],
        ..DescribeConfigsRequest::default()
    };
    let response = client.ask(&request).await?;
    let mut configs = Vec::new();
    for result in response.results {
        if result.error_code.is_error() {
            let what = format!("DescribeConfigs of topic {name}");
            return Err(client.any().await?.refused(&what, result.error_code, result.error_message.as_deref()));
        }
        configs.extend(result.configs);
    }
    configs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Described { topic, start, end, configs })
}

impl Described {
    fn note(&self) -> Option<&'static str> {
        let is_ottla = self.configs.iter().any(|config| config.name.starts_with(OWN_PREFIX));
        let policy = self.configs.iter().find(|config| &config.name == "cleanup.policy");
        let compacts = policy.and_then(|config| config.value.as_deref()).is_some_and(|value| value.contains("compact"));
        (is_ottla && compacts).then_some(NOT_COMPACTING)
    }

    fn bounds(&self, partition: &MetadataResponsePartition) -> (i64, i64) {
        let offset = |found: &BTreeMap<i32, Found>| found.get(&partition.partition_index).map_or(-1, |f| f.offset);
        (offset(&self.start), offset(&self.end))
    }

    fn print(&self, all_configs: bool) -> Result<(), Failure> {
        let topic = &self.topic;
        let name = topic.name.as_deref().unwrap_or_default();
        let (id, partitions, replicas) = (topic.topic_id, topic.partitions.len(), replicas(topic));
        let note = self.note().map_or_else(String::new, |note| format!("Note        {note}\n"));
        print_text(&format!(
            "Topic       {name}\nId          {id}\nPartitions  {partitions}\nReplicas    {replicas}\n{note}\n"
        ))?;
        let list = |nodes: &[i32]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let row = |partition: &MetadataResponsePartition| {
            let (start, end) = self.bounds(partition);
            [
                partition.partition_index.to_string(),
                partition.leader_id.to_string(),
                partition.leader_epoch.to_string(),
                list(&partition.replica_nodes),
                list(&partition.isr_nodes),
                start.to_string(),
                end.to_string(),
            ]
        };
        let rows: Vec<_> = topic.partitions.iter().map(row).collect();
        print_table(["PARTITION", "LEADER", "EPOCH", "REPLICAS", "IN-SYNC", "LOG-START", "HIGH-WATERMARK"], &rows)?;
        print_text("\n")?;
        let shown = |config: &&DescribeConfigsResourceResult| all_configs || config.config_source == SOURCE_TOPIC;
        let rows: Vec<_> = self
            .configs
            .iter()
            .filter(shown)
            .map(|c| [c.name.to_string(), shown_value(c), source(c.config_source).to_owned()])
            .collect();
        match rows.is_empty() {
            true => print_text("No configs of its own (--all-configs shows what holds).\n"),
            false => print_table(["CONFIG", "VALUE", "SOURCE"], &rows),
        }
    }

    fn json(&self) -> Value {
        let partition = |partition: &MetadataResponsePartition| {
            let (start, end) = self.bounds(partition);
            json!({"partition": partition.partition_index, "leader": partition.leader_id,
                   "leader_epoch": partition.leader_epoch, "replicas": partition.replica_nodes,
                   "in_sync": partition.isr_nodes, "offline": partition.offline_replicas,
                   "log_start_offset": start, "high_watermark": end})
        };
        let config = |config: &DescribeConfigsResourceResult| {
            json!({"name": *config.name, "value": config.value.as_deref(), "source": source(config.config_source),
                   "read_only": config.read_only, "sensitive": config.is_sensitive})
        };
        json!({"topic": self.topic.name.as_deref(), "id": self.topic.topic_id.to_string(),
               "internal": self.topic.is_internal, "replication_factor": replicas(&self.topic), "note": self.note(),
               "partitions": self.topic.partitions.iter().map(partition).collect::<Vec<_>>(),
               "configs": self.configs.iter().map(config).collect::<Vec<_>>()})
    }
}

fn shown_value(config: &DescribeConfigsResourceResult) -> String {
    match &config.value {
        Some(value) => value.to_string(),
        None if config.is_sensitive => "(hidden)".to_owned(),
        None => "-".to_owned(),
    }
}

fn source(number: i8) -> &'static str {
    SOURCES.iter().find(|(source, _)| *source == number).map_or("unknown", |(_, name)| name)
}
