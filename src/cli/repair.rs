//! `ottla repair`: damage in a data directory, found and taken out, while no broker runs.

use std::path::PathBuf;

use serde_json::json;

use super::Exit;
use super::connect::{Failure, Format, end, print_json, print_table, print_text};
use super::stopped;
use crate::broker::repair::{Damaged, RepairError, Report, Wanted, repair};
use crate::log::Hole;

/// Find damage in a data directory, and take it out.
///
/// Reads every byte of every log. Records that cannot be read any more are lost: each range is named with its file, bytes and offsets. Without
/// --apply nothing is changed. With it, the damaged bytes are kept in a file beside, and consumers pass over the offsets that are lost; no
/// other record changes, and a lost offset is never given to another one. The broker must be stopped.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ottla repair --data-dir /var/lib/ottla\n  ottla repair --config /etc/ottla.toml --apply\n  \
ottla repair --data-dir /var/lib/ottla --topic orders --partition 3 --apply\n\n\
Exit codes: 0 all can be read, or was repaired; 1 something cannot be read, or a broker runs; 2 wrong arguments; 4 no such topic or partition."
)]
pub struct Args {
    /// The configuration file, for its broker.data_dir.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory (broker.data_dir).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Only this topic, by its name or id.
    #[arg(long)]
    topic: Option<String>,
    /// Only this partition of it.
    #[arg(long, requires = "topic")]
    partition: Option<i32>,
    /// Take out what cannot be read. Without it, only say what would be done.
    #[arg(long)]
    apply: bool,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs `ottla repair`.
#[must_use]
pub fn run(args: &Args) -> Exit {
    let disk = match stopped::open(args.config.as_deref(), args.data_dir.as_deref()) {
        Ok(disk) => disk,
        Err(exit) => return exit,
    };
    let wanted = Wanted { topic: args.topic.clone(), partition: args.partition, apply: args.apply };
    match repair(&disk, &wanted) {
        Ok(report) => match print(&report, args.format) {
            Ok(()) => exit(&report),
            Err(failure) => end(Err(failure)),
        },
        Err(error) => {
            eprintln!("ottla: {error}");
            if matches!(error, RepairError::NotFound(_)) { Exit::NotFound } else { Exit::Failed }
        }
    }
}

fn exit(report: &Report) -> Exit {
    if report.problems.is_empty() && !report.untouched { Exit::Done } else { Exit::Failed }
}

fn print(report: &Report, format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        return print_json(&as_json(report));
    }
    if !report.damaged.is_empty() {
        let rows: Vec<_> =
            report.damaged.iter().flat_map(|log| log.holes.iter().map(move |hole| row(log, hole))).collect();
        print_table(
            ["TOPIC", "PARTITION", "LOST OFFSETS", "ENTRIES", "FILE", "BYTES", "WHAT IS WRONG", "KEPT AS"],
            &rows,
        )?;
    }
    report.done.iter().try_for_each(|done| print_text(&format!("{done}\n")))?;
    report.problems.iter().for_each(|problem| eprintln!("ottla: {problem}"));
    print_text(&summary(report))
}

fn row(log: &Damaged, (Hole { damage, .. }, kept): &(Hole, Option<String>)) -> [String; 8] {
    let offsets = match damage.offsets.end.0 - damage.offsets.start.0 {
        0 => "none".to_owned(),
        _ => format!("{}..{}", damage.offsets.start, damage.offsets.end),
    };
    [
        log.topic.clone().unwrap_or_else(|| log.id.topic.to_string()),
        log.id.partition.to_string(),
        offsets,
        (damage.indexes.end.0 - damage.indexes.start.0).to_string(),
        damage.path.clone(),
        format!("{}..{}", damage.position.start, damage.position.end),
        damage.fault.to_string(),
        kept.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}

fn summary(report: &Report) -> String {
    let (logs, bytes) = (report.logs, report.bytes);
    let ranges: usize = report.damaged.iter().map(|log| log.holes.len()).sum();
    let records: i64 = report
        .damaged
        .iter()
        .flat_map(|log| &log.holes)
        .map(|(hole, _)| hole.damage.offsets.end.0 - hole.damage.offsets.start.0)
        .sum();
    let found = match ranges {
        0 => "no damage in what can be read of the logs".to_owned(),
        _ => format!(
            "{} in {} cannot be read; {} lost",
            count(ranges, "range"),
            count(report.damaged.len(), "log"),
            count(usize::try_from(records).unwrap_or(usize::MAX), "offset")
        ),
    };
    let next = match (report.untouched, report.damaged.iter().any(|log| log.repaired)) {
        (true, _) => {
            "\nNothing was changed. --apply keeps the damaged bytes aside and lets consumers pass over what is lost."
        }
        (false, true) => "\nTaken out: the broker can be started.",
        (false, false) => "",
    };
    format!("{} with {bytes} bytes read: {found}.{next}\n", count(logs, "log"))
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn as_json(report: &Report) -> serde_json::Value {
    let hole = |log: &Damaged, (Hole { damage, .. }, kept): &(Hole, Option<String>)| {
        json!({"topic": log.topic, "topic_id": log.id.topic.to_string(), "partition": log.id.partition.0,
               "file": damage.path, "first_byte": damage.position.start, "end_byte": damage.position.end,
               "first_offset": damage.offsets.start.0, "end_offset": damage.offsets.end.0,
               "entries": damage.indexes.end.0 - damage.indexes.start.0, "fault": damage.fault.to_string(),
               "repaired": log.repaired, "kept_as": kept})
    };
    let damage: Vec<_> = report.damaged.iter().flat_map(|log| log.holes.iter().map(move |it| hole(log, it))).collect();
    json!({"logs": report.logs, "bytes": report.bytes, "damage": damage, "problems": report.problems, "done": report.done})
}
