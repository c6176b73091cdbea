//! What comes before a load: its topic, which connection goes to which partitions, and the threads.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::meter::{Worker, histogram};
use crate::cli::client::{Client, ClientError, ListOffsets, RETRY_PAUSE};
use crate::cli::connect::{Failure, setting};
use crate::cli::topic::delete_topics;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::CreateTopicsRequest;
use crate::protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig};
use crate::protocol::messages::metadata::MetadataResponseTopic;

/// How long it is waited for leaderships to go back to those that should have them.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

/// The topic that a load writes to.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Topic {
    /// The topic; created if it is not there.
    #[arg(long, default_value = "ottla-bench")]
    pub(super) topic: String,
    /// How many of its partitions are written to.
    #[arg(short, long, default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..))]
    pub(super) partitions: i32,
    /// Replicas of each partition when it is created; left out, the broker's default.
    #[arg(short, long, default_value_t = -1, hide_default_value = true, value_parser = clap::value_parser!(i16).range(-1..))]
    pub(super) replication_factor: i16,
    /// A configuration of the topic when it is created; may be repeated.
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = setting)]
    pub(super) config: Vec<(String, String)>,
    /// Delete the topic first if it is there.
    #[arg(long)]
    pub(super) fresh: bool,
}

impl Topic {
    /// The topic, there and with leaders.
    pub(super) async fn ready(&self, client: &mut Client) -> Result<MetadataResponseTopic, Failure> {
        if self.fresh {
            for result in delete_topics(client, &[&self.topic]).await? {
                let code = result.error_code;
                if code.is_error() && code != ErrorCode::UNKNOWN_TOPIC_OR_PARTITION {
                    return Err(refused("deleting", &self.topic, code, result.error_message.as_deref()).into());
                }
            }
        }
        self.create(client).await?;
        let topic = client.topic(&self.topic, true).await?;
        let count = topic.partitions.len();
        if i32::try_from(count).is_ok_and(|count| count < self.partitions) {
            let (name, wanted) = (&self.topic, self.partitions);
            return Err(Failure::Usage(format!(
                "topic {name} has {count} partitions, not {wanted}: --fresh makes it anew"
            )));
        }
        let topic = self.settled(client, topic).await?;
        lead(client, &topic).await?;
        Ok(topic)
    }

    /// Returns when the replicas that should lead do, if they live: leaderships go back to them some time after others were elected, and the load goes to
    /// whoever leads when it begins.
    async fn settled(
        &self,
        client: &mut Client,
        mut topic: MetadataResponseTopic,
    ) -> Result<MetadataResponseTopic, ClientError> {
        let until = Instant::now() + SETTLED_WITHIN;
        let settled = |client: &Client, topic: &MetadataResponseTopic| {
            topic.partitions.iter().all(|partition| match partition.replica_nodes.first() {
                Some(preferred) if client.brokers().contains_key(preferred) => partition.leader_id == *preferred,
                _ => true,
            })
        };
        while !settled(client, &topic) && Instant::now() < until {
            sleep(RETRY_PAUSE).await;
            topic = client.topic(&self.topic, false).await?;
        }
        Ok(topic)
    }

    async fn create(&self, client: &mut Client) -> Result<(), Failure> {
        let config = |(name, value): &(String, String)| CreatableTopicConfig {
            name: name.as_str().into(),
            value: Some(value.as_str().into()),
        };
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: self.topic.as_str().into(),
                num_partitions: self.partitions,
                replication_factor: self.replication_factor,
                assignments: Vec::new(),
                configs: self.config.iter().map(config).collect(),
            }],
            timeout_ms: i32::try_from(client.timeout().as_millis()).unwrap_or(i32::MAX),
            validate_only: false,
        };
        let until = Instant::now() + client.timeout();
        loop {
            let response = client.ask_controller(&request).await?;
            let Some(result) = response.topics.iter().find(|result| result.error_code.is_error()) else {
                return Ok(());
            };
            // A topic that is being deleted may be there for a moment yet.
            let there = result.error_code == ErrorCode::TOPIC_ALREADY_EXISTS;
            if there && !self.fresh {
                return Ok(());
            }
            if !there || Instant::now() >= until {
                let message = result.error_message.as_deref();
                return Err(refused("creating", &self.topic, result.error_code, message).into());
            }
            sleep(RETRY_PAUSE).await;
        }
    }
}

/// Returns when the leaders of a new topic know that they lead it: metadata may say so before.
async fn lead(client: &mut Client, topic: &MetadataResponseTopic) -> Result<(), ClientError> {
    let partitions: Vec<i32> = topic.partitions.iter().map(|partition| partition.partition_index).collect();
    let until = Instant::now() + client.timeout();
    loop {
        match client.list_offsets(topic, &partitions, ListOffsets::End).await {
            Err(error) if error.may_pass() && Instant::now() < until => sleep(RETRY_PAUSE).await,
            known => return known.map(drop),
        }
    }
}

fn refused(verb: &str, topic: &str, code: ErrorCode, message: Option<&str>) -> ClientError {
    ClientError::Refused { what: format!("{verb} topic {topic}"), code, message: message.map(ToOwned::to_owned) }
}

/// What one connection works on: partitions of one leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Share {
    /// The leader's address.
    pub(super) broker: String,
    pub(super) partitions: Vec<i32>,
}

/// Deals the partitions out to the connections: every partition to one at least, every connection to one leader.
pub(super) fn shares(
    client: &Client,
    topic: &MetadataResponseTopic,
    partitions: i32,
    connections: usize,
) -> Result<Vec<Share>, Failure> {
    let mut leaders: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for partition in topic.partitions.iter().filter(|partition| partition.partition_index < partitions) {
        leaders.entry(partition.leader_id).or_default().push(partition.partition_index);
    }
    if connections < leaders.len() {
        let problem = format!("{} brokers lead the partitions: as many connections are needed at least", leaders.len());
        return Err(Failure::Usage(problem));
    }
    let dealt = deal(leaders.values(), connections);
    let addresses: Vec<&String> = leaders.keys().filter_map(|leader| client.brokers().get(leader)).collect();
    if addresses.len() < leaders.len() {
        return Err(ClientError::NoLeader {
            topic: topic.name.as_deref().unwrap_or_default().to_owned(),
            partition: 0,
        }
        .into());
    }
    let share = |(leader, partitions): (usize, _)| Share { broker: addresses[leader].clone(), partitions };
    Ok(dealt.into_iter().map(share).collect())
}

/// For each connection the number of its leader and its partitions.
pub(super) fn deal<'a>(
    leaders: impl ExactSizeIterator<Item = &'a Vec<i32>>,
    connections: usize,
) -> Vec<(usize, Vec<i32>)> {
    let count = leaders.len();
    let mut dealt = Vec::new();
    for (leader, partitions) in leaders.enumerate() {
        let own = (connections - leader).div_ceil(count);
        for connection in 0..own {
            let turn = partitions.iter().skip(connection % partitions.len()).step_by(own.min(partitions.len()));
            dealt.push((leader, turn.copied().collect()));
        }
    }
    dealt
}

/// A runtime for what comes before the load.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread().enable_all().build().map_err(|source| Failure::Io { what: "starting", source })
}

/// Threads for so many connections: two keep up with a broker that shares two cores with them.
pub(super) fn threads(asked: Option<usize>, connections: usize) -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    asked.unwrap_or(cores.div_ceil(2).max(2)).clamp(1, connections.max(1))
}

/// Starts the threads, deals the jobs out to them, and runs each job as a task of its thread.
pub(super) fn start<J, F, R>(threads: usize, jobs: Vec<J>, drive: F) -> Result<Vec<Worker>, Failure>
where
    J: Send + 'static,
    F: Fn(J) -> R + Clone + Send + 'static,
    R: Future<Output = Result<Histogram<u64>, Failure>> + Send + 'static,
{
    let mut dealt: Vec<Vec<J>> = (0..threads).map(|_| Vec::new()).collect();
    for (at, job) in jobs.into_iter().enumerate() {
        dealt[at % threads].push(job);
    }
    let spawn = |jobs: Vec<J>| {
        let drive = drive.clone();
        let builder = thread::Builder::new().name("bench".to_owned());
        builder.spawn(move || runtime()?.block_on(run_all(jobs, drive)))
    };
    let workers = dealt.into_iter().map(spawn).collect::<io::Result<_>>();
    workers.map_err(|source| Failure::Io { what: "starting a thread", source })
}

async fn run_all<J, F, R>(jobs: Vec<J>, drive: F) -> Result<Histogram<u64>, Failure>
where
    F: Fn(J) -> R,
    R: Future<Output = Result<Histogram<u64>, Failure>> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for job in jobs {
        tasks.spawn(drive(job));
    }
    let mut times = histogram();
    while let Some(ended) = tasks.join_next().await {
        let own = ended.map_err(|error| Failure::Usage(format!("a connection's task ended: {error}")))??;
        times.add(own).expect("all histograms have the same bounds");
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_a_connection_and_every_connection_a_partition() {
        let one = [vec![0, 1, 2, 3, 4]];
        assert_eq!(deal(one.iter(), 2), [(0, vec![0, 2, 4]), (0, vec![1, 3])]);
        let few = [vec![0, 1]];
        assert_eq!(deal(few.iter(), 3), [(0, vec![0]), (0, vec![1]), (0, vec![0])]);
        let three = [vec![0, 3], vec![1, 4], vec![2]];
        let dealt = deal(three.iter(), 4);
        assert_eq!(dealt, [(0, vec![0]), (0, vec![3]), (1, vec![1, 4]), (2, vec![2])]);
    }
}
