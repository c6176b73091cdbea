//! `ottla bench groups ...`: what coordinators of consumer groups do a second, and what large groups cost.
//!
//! Members here are thin: they speak the classic protocol and read no records. Kafka works on one request of a connection at a time, whatever
//! is under way on it; how many are is part of each result.

mod crowd;
mod fill;
mod member;
mod rate;

use std::collections::BTreeMap;

use clap::Subcommand;

use super::setup::{Topic, deal};
use crate::cli::client::Client;
use crate::cli::connect::Failure;

/// Measure coordinators of consumer groups.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ottla bench groups commit --connections 16 --in-flight 4 --broker-pid $(pidof ottla)\n  \
ottla bench groups fill --groups 10000 --offsets 100 && ottla bench groups fill --groups 10000 --offsets 100 --check\n  \
ottla bench groups crowd --members 5000 --broker-pid $(pidof ottla)"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Commit offsets as members of groups, as fast as the broker takes them.
    Commit(rate::Args),
    /// Send heartbeats of members of groups, as fast as the broker takes them.
    Heartbeat(rate::Args),
    /// Join groups, take the share and leave again, one member a connection at a time; timed from the join to the share. A broker lets the first member
    /// of a group wait for others (`groups.initial_rebalance_delay_ms`): set that to 0 to see what it can do.
    Join(rate::Args),
    Fill(fill::Args),
    Crowd(crowd::Args),
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Commit(args) => rate::run(rate::Load::Commit, args),
        Command::Heartbeat(args) => rate::run(rate::Load::Heartbeat, args),
        Command::Join(args) => rate::run(rate::Load::Join, args),
        Command::Fill(args) => fill::run(args),
        Command::Crowd(args) => crowd::run(args),
    }
}

/// A commit of more offsets than the topic has partitions would be refused by the broker, again and again.
fn check_offsets(offsets: u32, topic: &Topic) -> Result<(), Failure> {
    if i64::from(offsets) <= i64::from(topic.partitions) {
        return Ok(());
    }
    let problem = format!("--offsets {offsets} is more than the topic's --partitions {}", topic.partitions);
    Err(Failure::Usage(problem))
}

/// What one connection works on: groups of one coordinator.
struct Share {
    /// The coordinator's address.
    broker: String,
    /// The groups' numbers and names.
    groups: Vec<(u32, String)>,
}

/// Deals groups out to connections, each to one coordinator.
async fn shares(client: &mut Client, prefix: &str, groups: u32, connections: u32) -> Result<Vec<Share>, Failure> {
    let connections = connections.min(groups) as usize;
    let name = |group: i32| format!("{prefix}-{group}");
    let mut coordinators: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for group in 0..i32::try_from(groups).unwrap_or(i32::MAX) {
        // One broker coordinates all, if there is only one: not asked for each, once the coordinators are there.
        let coordinator = match client.brokers().keys().next() {
            Some(only) if client.brokers().len() == 1 && group > 0 => *only,
            _ => client.coordinator(&name(group)).await?,
        };
        coordinators.entry(coordinator).or_default().push(group);
    }
    if connections < coordinators.len() {
        let problem = format!("{} brokers coordinate the groups: as many connections are needed", coordinators.len());
        return Err(Failure::Usage(problem));
    }
    let brokers: Vec<i32> = coordinators.keys().copied().collect();
    let mut shares = Vec::new();
    for (at, groups) in deal(coordinators.values(), connections) {
        let broker = client.brokers().get(&brokers[at]).cloned().unwrap_or_default();
        let groups = groups.into_iter().map(|group| (group.unsigned_abs(), name(group))).collect();
        shares.push(Share { broker, groups });
    }
    Ok(shares)
}
