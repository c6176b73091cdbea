//! `ottla bench ...`: loads for any broker of the Kafka protocol, and what they measured.
//!
//! The generator shares the machine with what it measures, so it does little itself: records are made in place, nothing is
//! allocated for a record, a connection is one task. Each record is distinct and does not compress; each batch gets its
//! checksum in the run; whatever is read is checked. Megabytes are 10^6 bytes of record batches, headers included.

mod arrivals;
mod consume;
mod echo;
mod frame;
mod groups;
mod latency;
mod meter;
mod noise;
mod process;
mod produce;
mod setup;

use clap::Subcommand;

use super::Exit;
use super::connect;

/// Measure a broker.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Any Kafka broker can be measured. MB are 10^6 bytes of record batches; CPU time is user and system."
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Produce(produce::Args),
    Consume(consume::Args),
    Latency(latency::Args),
    Echo(echo::Args),
    Groups(groups::Args),
}

/// Runs `ottla bench ...`.
pub fn run(args: &Args) -> Exit {
    connect::end(match &args.command {
        Command::Produce(args) => produce::run(args),
        Command::Consume(args) => consume::run(args),
        Command::Latency(args) => latency::run(args),
        Command::Echo(args) => echo::run(args),
        Command::Groups(args) => groups::run(args),
    })
}
