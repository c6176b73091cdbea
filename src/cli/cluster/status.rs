//! `ottla cluster status`.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;

use super::drain::BROKER_RESOURCE;
use super::health::{Health, Move, Moves, Partition};
use crate::cli::client::{Client, ClientError};
use crate::cli::connect::{Connect, Failure, Format, print_json, print_table, print_text};
use crate::machine::controller::configs::DRAIN;
use crate::protocol::api::ApiKey;
use crate::protocol::messages::describe_cluster::DescribeClusterBroker;
use crate::protocol::messages::describe_configs::{DescribeConfigsResource, DescribeConfigsResult};
use crate::protocol::messages::describe_topic_partitions::{Cursor, DescribeTopicPartitionsResponseTopic};
use crate::protocol::messages::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use crate::protocol::messages::list_partition_reassignments::OngoingTopicReassignment;
use crate::protocol::messages::metadata::MetadataResponseTopic;
use crate::protocol::messages::{
    DescribeClusterRequest, DescribeClusterResponse, DescribeConfigsRequest, DescribeTopicPartitionsRequest,
    ListOffsetsRequest, ListPartitionReassignmentsRequest,
};

/// Between two looks of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// DescribeCluster's number for the endpoints of brokers.
const BROKERS: i8 = 1;
/// ListOffsets's number for the end of a log, and for the replica of whoever is asked, whether it leads or not.
const LATEST: i64 = -1;
const THIS_REPLICA: i32 = -2;

/// Show whether the cluster is well: its brokers, partitions without a leader or with replicas missing, and replicas on the move.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ottla cluster status\n  ottla cluster status --watch\n  ottla cluster status --watch --exit-when-healthy\n  \
ottla cluster status --format json\n\n\
Exit codes: 0 healthy, 1 not healthy, 2 wrong arguments, 3 no broker answered. With --watch and --format json each look is one line."
)]
pub struct Args {
    /// Look again every two seconds, until Ctrl-C.
    #[arg(short, long)]
    watch: bool,
    /// End, with 0, as soon as the cluster is healthy.
    #[arg(short, long, requires = "watch")]
    exit_when_healthy: bool,
    /// Name so many partitions at most that lack a leader, and so many that lack replicas; all of them are counted.
    #[arg(long, value_name = "PARTITIONS", default_value_t = 20)]
    limit: usize,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    if args.watch {
        return watch(args).await;
    }
    let mut client = args.connect.client().await?;
    let health = measured(&mut client, args.limit).await?;
    print(&health, args)?;
    if health.is_healthy() { Ok(()) } else { Err(Failure::Unhealthy) }
}

/// Looks until Ctrl-C, or until all is well. What cannot be asked is said, and asked again.
async fn watch(args: &Args) -> Result<(), Failure> {
    let mut client = None;
    loop {
        match look_with(&mut client, args).await {
            Ok(health) => {
                print(&health, args)?;
                if args.exit_when_healthy && health.is_healthy() {
                    return Ok(());
                }
            }
            Err(error) if error.may_pass() => eprintln!("ottla: {error}"),
            Err(error) => return Err(error.into()),
        }
        sleep(WATCH_EVERY).await;
        if args.format == Format::Table {
            print_text("\n")?;
        }
    }
}

async fn look_with(kept: &mut Option<Client>, args: &Args) -> Result<Health, ClientError> {
    let mut client = match kept.take() {
        Some(client) => client,
        None => args.connect.client().await?,
    };
    let health = measured(&mut client, args.limit).await?;
    *kept = Some(client);
    Ok(health)
}

/// What there is now, and how far behind the replicas are that are shown as such.
async fn measured(client: &mut Client, limit: usize) -> Result<Health, ClientError> {
    let mut health = look(client).await?;
    let shown = health.under_replicated.len().min(limit);
    measure(client, &mut health.under_replicated[..shown]).await;
    Ok(health)
}

/// Asks leaders and those that are behind them for the ends of their logs. Of who does not answer nothing is known.
async fn measure(client: &mut Client, partitions: &mut [Partition]) {
    let mut asked: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for (at, partition) in partitions.iter().enumerate() {
        let behind = partition.missing().filter(|broker| !partition.offline.contains(broker));
        behind.chain([partition.leader]).for_each(|broker| asked.entry(broker).or_default().push(at));
    }
    let mut ends: BTreeMap<(i32, String, i32), i64> = BTreeMap::new();
    for (broker, places) in asked {
        let topic = |at: usize| ListOffsetsTopic {
            name: partitions[at].topic.as_str().into(),
            partitions: vec![ListOffsetsPartition {
                partition_index: partitions[at].partition,
                timestamp: LATEST,
                ..ListOffsetsPartition::default()
            }],
        };
        let topics = places.into_iter().map(topic).collect();
        let request = ListOffsetsRequest { replica_id: THIS_REPLICA, topics, ..ListOffsetsRequest::default() };
        let Ok(response) = client.ask_broker(broker, &request).await else { continue };
        for topic in response.topics {
            let found = topic.partitions.iter().filter(|found| !found.error_code.is_error());
            ends.extend(found.map(|it| ((broker, topic.name.to_string(), it.partition_index), it.offset)));
        }
    }
    for partition in partitions {
        let end = |broker: i32| ends.get(&(broker, partition.topic.clone(), partition.partition));
        let Some(leader) = end(partition.leader) else { continue };
        let lag = partition.missing().filter_map(|broker| Some((broker, (leader - end(broker)?).max(0)))).collect();
        partition.lag = lag;
    }
}

/// What there is now.
pub(super) async fn look(client: &mut Client) -> Result<Health, ClientError> {
    let cluster = describe(client).await?;
    let partitions = match described(client).await {
        // An older broker.
        Err(ClientError::Version { .. }) => {
            client.metadata(None, false).await?.topics.into_iter().flat_map(of_metadata).collect()
        }
        described => described?,
    };
    let moves = Moves { under_way: under_way(client).await?, drained: drained(client, &cluster).await? };
    Ok(Health::of(&cluster, partitions, moves))
}

/// The moves of replicas that are under way.
async fn under_way(client: &mut Client) -> Result<Vec<Move>, ClientError> {
    let response = match client.ask_controller(&ListPartitionReassignmentsRequest::default()).await {
        // A broker that moves nothing.
        Err(ClientError::Version { .. }) => return Ok(Vec::new()),
        response => response?,
    };
    let of_topic = |topic: OngoingTopicReassignment| {
        let name = topic.name.to_string();
        topic.partitions.into_iter().map(move |it| Move {
            topic: name.clone(),
            partition: it.partition_index,
            adding: it.adding_replicas,
            removing: it.removing_replicas,
        })
    };
    Ok(response.topics.into_iter().flat_map(of_topic).collect())
}

/// The brokers that are drained. Those of Apache Kafka know nothing of that.
async fn drained(client: &mut Client, cluster: &DescribeClusterResponse) -> Result<Vec<i32>, ClientError> {
    let resource = |broker: &DescribeClusterBroker| DescribeConfigsResource {
        resource_type: BROKER_RESOURCE,
        resource_name: broker.broker_id.to_string().into(),
        configuration_keys: Some(vec![DRAIN.into()]),
    };
    let resources = cluster.brokers.iter().map(resource).collect();
    let response = client.ask(&DescribeConfigsRequest { resources, ..Default::default() }).await?;
    let is_drained = |result: &DescribeConfigsResult| {
        result.configs.iter().any(|config| &*config.name == DRAIN && config.value.as_deref() == Some("true"))
    };
    let drained = response.results.iter().filter(|result| is_drained(result));
    Ok(drained.filter_map(|result| result.resource_name.parse().ok()).collect())
}

/// The cluster's brokers, those that are away included.
pub(super) async fn describe(client: &mut Client) -> Result<DescribeClusterResponse, ClientError> {
    let request = DescribeClusterRequest { endpoint_type: BROKERS, ..DescribeClusterRequest::default() };
    // Brokers that are known and away are asked for where that can be said: the field came with version 2.
    let request = match client.any().await?.version(ApiKey::DescribeCluster)? {
        0 | 1 => request,
        _ => DescribeClusterRequest { include_fenced_brokers: true, ..request },
    };
    let cluster = client.ask(&request).await?;
    if cluster.error_code.is_error() {
        let connection = client.any().await?;
        return Err(connection.refused("DescribeCluster", cluster.error_code, cluster.error_message.as_deref()));
    }
    Ok(cluster)
}

/// All partitions, page by page.
async fn described(client: &mut Client) -> Result<Vec<Partition>, ClientError> {
    let mut request = DescribeTopicPartitionsRequest { response_partition_limit: 2000, ..Default::default() };
    let mut partitions = Vec::new();
    loop {
        let page = client.ask(&request).await?;
        partitions.extend(page.topics.into_iter().flat_map(of_description));
        match page.next_cursor {
            // A page that leads back would never end.
            Some(next) if request.cursor.as_ref().is_none_or(|last| is_behind(&next, last)) => {
                request.cursor = Some(next)
            }
            _ => return Ok(partitions),
        }
    }
}

fn is_behind(next: &Cursor, last: &Cursor) -> bool {
    (&*next.topic_name, next.partition_index) > (&*last.topic_name, last.partition_index)
}

fn of_description(topic: DescribeTopicPartitionsResponseTopic) -> impl Iterator<Item = Partition> {
    let name = topic.name.as_deref().unwrap_or_default().to_owned();
    topic.partitions.into_iter().map(move |it| Partition {
        topic: name.clone(),
        partition: it.partition_index,
        leader: it.leader_id,
        replicas: it.replica_nodes,
        in_sync: it.isr_nodes,
        offline: it.offline_replicas,
        lag: BTreeMap::new(),
    })
}

fn of_metadata(topic: MetadataResponseTopic) -> impl Iterator<Item = Partition> {
    let name = topic.name.as_deref().unwrap_or_default().to_owned();
    topic.partitions.into_iter().map(move |it| Partition {
        topic: name.clone(),
        partition: it.partition_index,
        leader: it.leader_id,
        replicas: it.replica_nodes,
        in_sync: it.isr_nodes,
        offline: it.offline_replicas,
        lag: BTreeMap::new(),
    })
}

fn print(health: &Health, args: &Args) -> Result<(), Failure> {
    if args.format == Format::Json {
        let json = health.json(args.limit);
        return if args.watch { print_text(&format!("{json}\n")) } else { print_json(&json) };
    }
    print_text(&health.summary())?;
    print_table(["BROKER", "ADDRESS", "RACK", "LEADERS", "REPLICAS", "STATE"], &health.broker_rows())?;
    for (what, all) in [("Without a leader", &health.leaderless), ("Under-replicated", &health.under_replicated)] {
        if all.is_empty() {
            continue;
        }
        print_text(&format!("\n{what}: {} of {} partitions\n", all.len(), health.partitions))?;
        let rows: Vec<_> = all.iter().take(args.limit).map(Partition::row).collect();
        print_table(["TOPIC", "PARTITION", "LEADER", "REPLICAS", "IN-SYNC", "MISSING"], &rows)?;
        if all.len() > args.limit {
            print_text(&format!("and {} more (--limit shows more)\n", all.len() - args.limit))?;
        }
    }
    if !health.moving.is_empty() {
        print_text(&format!("\nMoving: {} of {} partitions\n", health.moving.len(), health.partitions))?;
        let rows: Vec<_> = health.moving.iter().take(args.limit).map(Move::row).collect();
        print_table(["TOPIC", "PARTITION", "TO", "FROM"], &rows)?;
    }
    Ok(())
}
