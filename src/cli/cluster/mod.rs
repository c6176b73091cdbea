//! `ottla cluster ...`: the cluster as a whole.

mod drain;
mod health;
mod remove;
mod status;
mod unsafe_recover;

use clap::Subcommand;

use super::Exit;
use super::connect;

/// Look at the cluster as a whole, and take brokers out of it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(status::Args),
    UnsafeRecover(unsafe_recover::Args),
    Drain(drain::Args),
    Remove(remove::Args),
}

/// Runs `ottla cluster ...`.
pub fn run(args: &Args) -> Exit {
    match &args.command {
        Command::Status(args) => connect::run(status::run(args)),
        Command::Drain(args) => connect::run(drain::run(args)),
        Command::Remove(args) => connect::run(remove::run(args)),
        Command::UnsafeRecover(args) => unsafe_recover::run(args),
    }
}
