//! `ottla cluster ...`: the cluster as a whole.

mod health;
mod status;

use clap::Subcommand;

use super::Exit;
use super::connect;

/// Look at the cluster as a whole.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Status(status::Args),
}

/// Runs `ottla cluster ...`.
pub fn run(args: &Args) -> Exit {
    connect::run(async {
        match &args.command {
            Command::Status(args) => status::run(args).await,
        }
    })
}
