//! `ottla bench groups fill`: a known state of many groups and offsets, and whether it is there.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use super::member::{self, Member, committed, passes};
use super::{Share, check_offsets, shares};
use crate::cli::bench::setup::{Topic, runtime};
use crate::cli::client::{Connection, RETRY_PAUSE};
use crate::cli::connect::{Connect, Failure, Format, print_json, print_text};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::offset_fetch::OffsetFetchRequestGroup;
use crate::protocol::messages::{OffsetCommitRequest, OffsetFetchRequest, OffsetFetchResponse};

/// Requests under way on each connection.
const IN_FLIGHT: usize = 8;
/// Kafka's brokers allow no longer ones.
const SESSION: Duration = Duration::from_secs(1800);

/// Commit so many offsets in so many groups, once; or check that they are committed.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    topic: Topic,
    /// Groups.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    groups: u32,
    /// What their names begin with.
    #[arg(long, default_value = "fill")]
    prefix: String,
    /// Offsets of each group, one a partition.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    offsets: u32,
    /// With a member in each group.
    #[arg(long)]
    members: bool,
    /// Commit nothing; read what is committed and compare.
    #[arg(long)]
    check: bool,
    /// Connections.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connect: Connect,
}

/// What one connection needs to know.
#[derive(Clone)]
struct Settings {
    topic: member::Topic,
    offsets: u32,
    members: bool,
    check: bool,
    patience: Duration,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    check_offsets(args.offsets, &args.topic)?;
    let began = runtime()?.block_on(async {
        let mut client = args.connect.client().await?;
        let settings = Settings {
            topic: member::Topic::of(&args.topic.ready(&mut client).await?),
            offsets: args.offsets,
            members: args.members,
            check: args.check,
            patience: args.connect.timeout,
        };
        let shares = shares(&mut client, &args.prefix, args.groups, args.connections).await?;
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for share in shares {
            tasks.spawn(drive(share, settings.clone()));
        }
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|error| Failure::Usage(format!("a connection's task ended: {error}")))??;
        }
        Ok::<_, Failure>(began)
    })?;
    let (seconds, offsets) = (began.elapsed().as_secs_f64(), u64::from(args.groups) * u64::from(args.offsets));
    if args.format == Format::Json {
        return print_json(
            &json!({"groups": args.groups, "offsets": offsets, "seconds": seconds, "checked": args.check}),
        );
    }
    let verb = if args.check { "checked" } else { "committed" };
    print_text(&format!("{verb} {offsets} offsets of {} groups in {seconds:.2} s\n", args.groups))
}

/// The offset that a group has committed of a partition.
fn offset(group: u32, partition: u32) -> i64 {
    i64::from(group) * 100_000 + i64::from(partition)
}

async fn drive(share: Share, settings: Settings) -> Result<(), Failure> {
    let mut connection = Connection::open(&share.broker, settings.patience).await?;
    if settings.check {
        check(&mut connection, &share, &settings).await
    } else {
        fill(&mut connection, &share, &settings).await
    }
}

async fn fill(connection: &mut Connection, share: &Share, settings: &Settings) -> Result<(), Failure> {
    let (mut under_way, mut again) = (VecDeque::new(), Vec::new());
    for (number, group) in &share.groups {
        let mut member = Member::new(group, &settings.topic, SESSION);
        if settings.members {
            taken(connection, &mut under_way, &mut again, 1, settings).await?;
            member.enter(connection, settings.patience).await?;
        }
        connection.send(&commit(&member, *number, settings)).await?;
        under_way.push_back((*number, member));
        taken(connection, &mut under_way, &mut again, IN_FLIGHT, settings).await?;
    }
    taken(connection, &mut under_way, &mut again, 1, settings).await?;
    // Of coordinators that were not there yet.
    for (number, member) in again {
        let until = Instant::now() + settings.patience;
        loop {
            let response = connection.call(&commit(&member, number, settings), settings.patience).await?;
            match committed(&response) {
                ErrorCode::NONE => break,
                code if passes(code) && Instant::now() < until => tokio::time::sleep(RETRY_PAUSE).await,
                code => return Err(member.refused("OffsetCommit", code).into()),
            }
        }
    }
    Ok(())
}

fn commit(member: &Member, number: u32, settings: &Settings) -> OffsetCommitRequest {
    member.commit((0..settings.offsets).map(|partition| offset(number, partition)))
}

/// Takes answers until fewer than `fewer` are under way.
async fn taken(
    connection: &mut Connection,
    under_way: &mut VecDeque<(u32, Member)>,
    again: &mut Vec<(u32, Member)>,
    fewer: usize,
    settings: &Settings,
) -> Result<(), Failure> {
    while under_way.len() >= fewer
        && let Some((number, member)) = under_way.pop_front()
    {
        match committed(&connection.receive::<OffsetCommitRequest>(settings.patience).await?) {
            ErrorCode::NONE => {}
            code if passes(code) => again.push((number, member)),
            code => return Err(member.refused("OffsetCommit", code).into()),
        }
    }
    Ok(())
}

async fn check(connection: &mut Connection, share: &Share, settings: &Settings) -> Result<(), Failure> {
    for (number, group) in &share.groups {
        let request = OffsetFetchRequest {
            groups: vec![OffsetFetchRequestGroup {
                group_id: group.as_str().into(),
                topics: None,
                ..Default::default()
            }],
            ..OffsetFetchRequest::default()
        };
        let response: OffsetFetchResponse = connection.call(&request, settings.patience).await?;
        let mut found = std::collections::BTreeMap::new();
        for topic in response.groups.iter().flat_map(|group| &group.topics) {
            found.extend(topic.partitions.iter().map(|it| (it.partition_index, it.committed_offset)));
        }
        let index = |partition: u32| i32::try_from(partition).unwrap_or(i32::MAX);
        let wanted = (0..settings.offsets).map(|partition| (index(partition), offset(*number, partition)));
        if !wanted.eq(found) {
            let problem = "other offsets are committed than were".to_owned();
            return Err(Failure::Data { what: format!("group {group}"), problem });
        }
    }
    Ok(())
}
