//! `ottla cluster unsafe-recover`: what is left of a cluster goes on without its majority, by an operator's word.

use std::path::PathBuf;

use serde_json::json;

use super::super::Exit;
use super::super::client::{Client, ClientError};
use super::super::connect::{self, Connect, Failure, Format, end, print_json, print_table, print_text};
use super::super::stopped;
use super::drain::{BROKER_RESOURCE, SET};
use super::health::Partition;
use super::status::look;
use crate::broker::unsafe_recover::{Named, Plan, unsafe_recover};
use crate::ids::BrokerId;
use crate::machine::controller::configs::GIVEN_UP;
use crate::protocol::messages::IncrementalAlterConfigsRequest;
use crate::protocol::messages::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};

/// Go on with what is left when most brokers are gone for good. Loses records.
///
/// Only for brokers whose disks will never come back: as long as a majority can be started with its data, start it, and nothing is lost. All
/// brokers must be stopped. Of those that are left, take the one whose log of the cluster's metadata ends last (run this on each without --apply, and
/// compare), name the others as lost with --lost, and start the broker, then the other ones that are left. Each partition whose majority is lost goes on
/// from the longest log that is left; what only the lost brokers had is gone, acknowledged or not. A lost broker comes back with an empty
/// data directory only: with its old one it is refused. Without --apply nothing is changed.
///
/// Where most of the brokers that decide on the cluster's metadata are left, and only partitions have lost their majorities, the cluster goes on running:
/// say --running, and no data directory.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ottla cluster unsafe-recover --data-dir /var/lib/ottla --lost 1,3\n  \
ottla cluster unsafe-recover --config /etc/ottla.toml --lost 1,3 --apply\n  \
ottla cluster unsafe-recover --running --brokers broker-2:9092 --lost 4,5 --apply\n\n\
Exit codes: 0 done, or it could be; 1 it cannot be done, or a broker runs; 2 wrong arguments; 3 (--running) no broker answered.")]
pub struct Args {
    /// The configuration file, for its broker.data_dir.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory (broker.data_dir).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Tell the running cluster: its metadata has its majority, and only partitions have lost theirs.
    #[arg(long, conflicts_with_all = ["config", "data_dir"])]
    running: bool,
    /// The ids of the brokers that are gone for good.
    #[arg(long, value_name = "ID,...", value_delimiter = ',', required = true)]
    lost: Vec<i32>,
    /// Do it. Without it, only say what would be done and lost.
    #[arg(long)]
    apply: bool,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connect: Connect,
}

/// Runs `ottla cluster unsafe-recover`.
#[must_use]
pub fn run(args: &Args) -> Exit {
    if args.running {
        return connect::run(tell(args));
    }
    let disk = match stopped::open(args.config.as_deref(), args.data_dir.as_deref()) {
        Ok(disk) => disk,
        Err(exit) => return exit,
    };
    let lost: Vec<BrokerId> = args.lost.iter().copied().map(BrokerId).collect();
    match unsafe_recover(&disk, &lost, args.apply) {
        Ok(plan) => match print(&plan, args.apply, args.format) {
            Ok(()) => Exit::Done,
            Err(failure) => end(Err(failure)),
        },
        Err(error) => {
            eprintln!("ottla: {error}");
            Exit::Failed
        }
    }
}

/// Has the running cluster give brokers up; all of them are looked at before the first is.
async fn tell(args: &Args) -> Result<(), Failure> {
    let mut client = args.connect.client().await?;
    give_up(&mut client, args, true).await?;
    let health = look(&mut client).await?;
    if args.apply {
        give_up(&mut client, args, false).await?;
    }
    let left = |partition: &Partition| -> Vec<BrokerId> {
        partition.replicas.iter().filter(|broker| !args.lost.contains(broker)).copied().map(BrokerId).collect()
    };
    let all = health.leaderless.iter().chain(&health.under_replicated);
    let doomed = all.map(|it| ((it.topic.clone(), it.partition), left(it), it.replicas.len()));
    let doomed = doomed.filter(|(_, left, replicas)| 2 * left.len() <= *replicas);
    let (refounded, gone): (Vec<_>, Vec<_>) =
        doomed.map(|(named, left, _)| (named, left)).partition(|(_, left)| !left.is_empty());
    let gone: Vec<_> = gone.into_iter().map(|(named, _)| named).collect();
    if args.format == Format::Json {
        let (refounded, gone) = partitions_as_json(&refounded, &gone);
        return print_json(&json!({"applied": args.apply, "lost": args.lost, "refounded": refounded, "gone": gone}));
    }
    print_fates(&refounded, &gone)?;
    print_text(match args.apply {
        true => {
            "Done. What goes on does so in some seconds. A broker that was given up is refused with its old data directory: start it with an empty one. \
             Topics of which nothing is left have to be deleted and created again.\n"
        }
        false => {
            "Nothing was changed. If these brokers can still be started with their data, do that instead: nothing is lost then. \
             --apply cannot be taken back; those given up must never run again on their old data.\n"
        }
    })
}

async fn give_up(client: &mut Client, args: &Args, validate_only: bool) -> Result<(), Failure> {
    let resource = |broker: &i32| AlterConfigsResource {
        resource_type: BROKER_RESOURCE,
        resource_name: broker.to_string().into(),
        configs: vec![AlterableConfig { name: GIVEN_UP.into(), config_operation: SET, value: Some("true".into()) }],
    };
    let resources = args.lost.iter().map(resource).collect();
    let response = client.ask_controller(&IncrementalAlterConfigsRequest { resources, validate_only }).await?;
    match response.responses.into_iter().find(|response| response.error_code.is_error()) {
        None => Ok(()),
        Some(refused) => Err(Failure::Client(ClientError::Refused {
            what: format!("giving up broker {}", refused.resource_name),
            code: refused.error_code,
            message: refused.error_message.map(|message| message.to_string()),
        })),
    }
}

fn ids(brokers: &[BrokerId]) -> String {
    if brokers.is_empty() {
        return "none".to_owned();
    }
    brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn print(plan: &Plan, applied: bool, format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        return print_json(&as_json(plan, applied));
    }
    let last = plan.last.map_or("nowhere".to_owned(), |last| format!("at entry {} of term {}", last.index, last.term));
    print_text(&format!(
        "Cluster {}: broker {} goes on; its log of the metadata ends {last}.\nGiven up: {}. Left besides: {}.\n\n",
        plan.cluster_id,
        plan.me,
        ids(&plan.lost),
        ids(&plan.left)
    ))?;
    print_fates(&plan.refounded, &plan.gone)?;
    print_text(&format!(
        "{} keep their majority; {} go on from what is left, and what only the brokers given up had of them is gone; of {} nothing is left.\n",
        partitions(plan.whole),
        partitions(plan.refounded.len()),
        partitions(plan.gone.len())
    ))?;
    let next = match applied {
        true => {
            "Done. Start this broker, then the others that are left. A broker that was given up is refused with its old data directory: \
             start it with an empty one. Topics of which nothing is left have to be deleted and created again.\n"
        }
        false => {
            "Nothing was changed. If a majority can still be started with its data, do that instead: nothing is lost then. \
             --apply cannot be taken back; all brokers must be stopped, and those given up must never run again on their old data.\n"
        }
    };
    print_text(next)
}

/// A table of what becomes of partitions that have lost their majority.
fn print_fates(refounded: &[(Named, Vec<BrokerId>)], gone: &[Named]) -> Result<(), Failure> {
    let row = |what: &str, (topic, partition): &Named, left: &[BrokerId]| {
        [topic.clone(), partition.to_string(), what.to_owned(), ids(left)]
    };
    let mut rows: Vec<_> =
        refounded.iter().map(|(named, left)| row("goes on from the longest log left", named, left)).collect();
    rows.extend(gone.iter().map(|named| row("LOST: nothing is left", named, &[])));
    if rows.is_empty() {
        return Ok(());
    }
    rows.sort();
    print_table(["TOPIC", "PARTITION", "WHAT BECOMES OF IT", "LEFT ON"], &rows)?;
    print_text("\n")
}

fn partitions_as_json(
    refounded: &[(Named, Vec<BrokerId>)],
    gone: &[Named],
) -> (Vec<serde_json::Value>, Vec<serde_json::Value>) {
    let refounded = refounded
        .iter()
        .map(|((topic, partition), left)| json!({"topic": topic, "partition": partition, "left_on": numbers(left)}));
    let gone = gone.iter().map(|(topic, partition)| json!({"topic": topic, "partition": partition}));
    (refounded.collect(), gone.collect())
}

fn numbers(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|broker| broker.0).collect()
}

fn partitions(count: usize) -> String {
    if count == 1 { "1 partition".to_owned() } else { format!("{count} partitions") }
}

fn as_json(plan: &Plan, applied: bool) -> serde_json::Value {
    let (refounded, gone) = partitions_as_json(&plan.refounded, &plan.gone);
    json!({"applied": applied, "cluster_id": plan.cluster_id, "broker": plan.me.0,
           "last_term": plan.last.map(|last| last.term.0), "last_index": plan.last.map(|last| last.index.0),
           "lost": numbers(&plan.lost), "left": numbers(&plan.left), "whole": plan.whole,
           "refounded": refounded, "gone": gone})
}
