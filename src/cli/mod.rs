//! The command line: one file a subcommand, each with its `Args` and a `run` that says how it went.
//!
//! What a command is asked for goes to stdout, everything else to stderr. The exit codes of [`Exit`] are a contract.

pub mod bench;
pub mod client;
pub mod cluster;
pub mod completion;
pub mod config;
pub mod connect;
pub mod consume;
pub mod dev;
pub mod group;
pub mod logging;
pub mod position;
pub mod produce;
pub mod repair;
pub mod serve;
pub mod stopped;
pub mod topic;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// How a command ended, as its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: it did what it was asked to.
    Done = 0,
    /// 1: it could not.
    Failed = 1,
    /// 2: the arguments or the configuration are wrong.
    Usage = 2,
    /// 3: no broker could be reached, or none answered in time.
    Unreachable = 3,
    /// 4: there is no such topic, partition or group.
    NotFound = 4,
    /// 74: the device failed a write or a sync (`EX_IOERR`); look at it before starting again.
    DeviceFailed = 74,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A distributed event-streaming broker that speaks the Apache Kafka protocol.
#[derive(Debug, Parser)]
#[command(name = "ottla", version, about, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Dev(dev::Args),
    Cluster(cluster::Args),
    Topic(topic::Args),
    Group(group::Args),
    Produce(produce::Args),
    Consume(consume::Args),
    Bench(bench::Args),
    Config(config::Args),
    Repair(repair::Args),
    Completion(completion::Args),
}

/// Runs the command that the arguments name. The first argument is the program's own name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" with code 0, on stdout. A closed pipe is no reason to fail.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let exit = match cli.command {
        Command::Serve(args) => serve::run(&args),
        Command::Dev(args) => dev::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Topic(args) => topic::run(&args),
        Command::Group(args) => group::run(&args),
        Command::Produce(args) => produce::run(&args),
        Command::Consume(args) => consume::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Repair(args) => repair::run(&args),
        Command::Completion(args) => completion::run(&args),
    };
    exit.into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
