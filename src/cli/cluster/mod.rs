//! `ottla cluster ...`: the cluster as a whole.

mod drain;
mod health;
mod remove;
mod status;

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
    Drain(drain::Args),
    Remove(remove::Args),
}

/// Runs `ottla cluster ...`.
pub fn run(args: &Args) -> Exit {
    connect::run(async {
        match &args.command {
            Command::Status(args) => status::run(args).await,
            Command::Drain(args) => drain::run(args).await,
            Command::Remove(args) => remove::run(args).await,
        }
    })
}
