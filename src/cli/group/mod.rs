//! `ottla group ...`: consumer groups, their members, and how far they have come.

mod delete;
mod delete_offsets;
mod describe;
mod described;
mod export;
mod import;
mod lag;
mod list;
mod members;
mod offsets;
mod reset;

pub(super) use offsets::committed;

use clap::Subcommand;

use super::Exit;
use super::connect;

/// List, look at, move and delete consumer groups.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 done, 1 refused, 2 wrong arguments, 3 no broker answered, 4 no such group.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    List(list::Args),
    Describe(describe::Args),
    Members(members::Args),
    Lag(lag::Args),
    Reset(reset::Args),
    Delete(delete::Args),
    DeleteOffsets(delete_offsets::Args),
    Export(export::Args),
    Import(import::Args),
}

/// Runs `ottla group ...`.
pub fn run(args: &Args) -> Exit {
    connect::run(async {
        match &args.command {
            Command::List(args) => list::run(args).await,
            Command::Describe(args) => describe::run(args).await,
            Command::Members(args) => members::run(args).await,
            Command::Lag(args) => lag::run(args).await,
            Command::Reset(args) => reset::run(args).await,
            Command::Delete(args) => delete::run(args).await,
            Command::DeleteOffsets(args) => delete_offsets::run(args).await,
            Command::Export(args) => export::run(args).await,
            Command::Import(args) => import::run(args).await,
        }
    })
}
