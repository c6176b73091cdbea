//! `ottla topic ...`: topics, their partitions and configurations.

mod add_partitions;
mod alter;
mod create;
mod delete;
mod describe;
mod list;
mod trim;

pub(super) use delete::delete as delete_topics;

use clap::Subcommand;

use super::Exit;
use super::connect::{self, Failure};
use crate::protocol::error_code::ErrorCode;

/// What the Kafka protocol calls a topic among the resources that have configurations.
pub(super) const TOPIC_RESOURCE: i8 = 2;

/// Create, look at, change and delete topics.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 done, 1 refused, 2 wrong arguments, 3 no broker answered, 4 no such topic or partition."
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(create::Args),
    List(list::Args),
    Describe(describe::Args),
    Delete(delete::Args),
    Alter(alter::Args),
    AddPartitions(add_partitions::Args),
    Trim(trim::Args),
}

/// Runs `ottla topic ...`.
pub fn run(args: &Args) -> Exit {
    connect::run(async {
        match &args.command {
            Command::Create(args) => create::run(args).await,
            Command::List(args) => list::run(args).await,
            Command::Describe(args) => describe::run(args).await,
            Command::Delete(args) => delete::run(args).await,
            Command::Alter(args) => alter::run(args).await,
            Command::AddPartitions(args) => add_partitions::run(args).await,
            Command::Trim(args) => trim::run(args).await,
        }
    })
}

/// What became of one of several topics or partitions.
pub(super) struct Outcome {
    what: String,
    code: ErrorCode,
    message: Option<String>,
}

impl Outcome {
    pub(super) fn new(what: &str, code: ErrorCode, message: Option<&str>) -> Self {
        Self { what: what.to_owned(), code, message: message.map(ToOwned::to_owned) }
    }

    /// The reason in the broker's words, or in the protocol's.
    fn reason(&self) -> &str {
        match self.message.as_deref() {
            Some(message) if !message.is_empty() => message,
            _ => self.code.meaning(),
        }
    }
}

/// Fails if any of the outcomes did: as that one where it is the only one, else after naming each on stderr.
pub(super) fn check(verb: &str, outcomes: &[Outcome]) -> Result<(), Failure> {
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.code.is_error()).collect();
    let refused = |outcome: &Outcome| crate::cli::client::ClientError::Refused {
        what: format!("{verb} {}", outcome.what),
        code: outcome.code,
        message: Some(outcome.reason().to_owned()),
    };
    match failed[..] {
        [] => Ok(()),
        [only] if outcomes.len() == 1 => Err(refused(only).into()),
        _ => {
            failed.iter().for_each(|outcome| eprintln!("ottla: {}", refused(outcome)));
            Err(Failure::Some { failed: failed.len(), of: outcomes.len() })
        }
    }
}
