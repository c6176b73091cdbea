//! `ottla cluster unsafe-recover`: what is left of a cluster goes on without its majority, by an operator's word.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::super::Exit;
use super::super::config::{environment, load};
use super::super::connect::{Failure, Format, end, print_json, print_table, print_text};
use crate::broker::unsafe_recover::{Plan, unsafe_recover};
use crate::config::Flag;
use crate::ids::BrokerId;
use crate::log::disk::Disk;
use crate::log::mmap::{MmapDisk, MmapOptions};

/// Go on with what is left when most brokers are gone for good. Loses records.
///
/// Only for brokers whose disks will never come back: as long as a majority can be started with its data, start it, and nothing is lost. All
/// brokers must be stopped. Of those that are left, take the one whose log of the cluster's metadata ends last (run this on each without --apply, and
/// compare), name the others as lost with --lost, and start the broker, then the other ones that are left. Each partition whose majority is lost goes on
/// from the longest log that is left; what only the lost brokers had is gone, acknowledged or not. A lost broker comes back with an empty
/// data directory only: with its old one it is refused. Without --apply nothing is changed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ottla cluster unsafe-recover --data-dir /var/lib/ottla --lost 1,3\n  \
ottla cluster unsafe-recover --config /etc/ottla.toml --lost 1,3 --apply\n\n\
Exit codes: 0 done, or it could be; 1 it cannot be done, or a broker runs; 2 wrong arguments.")]
pub struct Args {
    /// The configuration file, for its broker.data_dir.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory (broker.data_dir).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// The ids of the brokers that are gone for good.
    #[arg(long, value_name = "ID,...", value_delimiter = ',', required = true)]
    lost: Vec<i32>,
    /// Do it. Without it, only say what would be done and lost.
    #[arg(long)]
    apply: bool,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs `ottla cluster unsafe-recover`.
#[must_use]
pub fn run(args: &Args) -> Exit {
    let flag = |value: &String| Flag { name: "--data-dir", key: "broker.data_dir", value: value.clone() };
    let config = match load(args.config.as_deref(), environment(), args.data_dir.iter().map(flag).collect()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return Exit::Usage;
        }
    };
    let directory = config.broker.data_dir;
    if !directory.join("topics").is_dir() {
        // To open it would create it.
        eprintln!("ottla: {} is no data directory: it has no topics/", directory.display());
        return Exit::Failed;
    }
    let disk: Arc<dyn Disk> = match MmapDisk::open(directory.clone(), MmapOptions::default()) {
        Ok(disk) => Arc::new(disk),
        Err(error) => {
            eprintln!("ottla: open {}: {error}", directory.display());
            return Exit::Failed;
        }
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
    let row = |what: &str, (topic, partition): &(String, i32), left: &[BrokerId]| {
        [topic.clone(), partition.to_string(), what.to_owned(), ids(left)]
    };
    let mut rows: Vec<_> =
        plan.refounded.iter().map(|(named, left)| row("goes on from the longest log left", named, left)).collect();
    rows.extend(plan.gone.iter().map(|named| row("LOST: nothing is left", named, &[])));
    if !rows.is_empty() {
        rows.sort();
        print_table(["TOPIC", "PARTITION", "WHAT BECOMES OF IT", "LEFT ON"], &rows)?;
        print_text("\n")?;
    }
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

fn partitions(count: usize) -> String {
    if count == 1 { "1 partition".to_owned() } else { format!("{count} partitions") }
}

fn as_json(plan: &Plan, applied: bool) -> serde_json::Value {
    let numbers = |brokers: &[BrokerId]| brokers.iter().map(|broker| broker.0).collect::<Vec<_>>();
    let refounded: Vec<_> = plan
        .refounded
        .iter()
        .map(|((topic, partition), left)| json!({"topic": topic, "partition": partition, "left_on": numbers(left)}))
        .collect();
    let gone: Vec<_> =
        plan.gone.iter().map(|(topic, partition)| json!({"topic": topic, "partition": partition})).collect();
    json!({"applied": applied, "cluster_id": plan.cluster_id, "broker": plan.me.0,
           "last_term": plan.last.map(|last| last.term.0), "last_index": plan.last.map(|last| last.index.0),
           "lost": numbers(&plan.lost), "left": numbers(&plan.left), "whole": plan.whole,
           "refounded": refounded, "gone": gone})
}
