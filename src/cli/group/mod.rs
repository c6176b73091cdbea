//! `ottla group ...`: consumer groups, their members, and how far they have come.

mod delete;
mod delete_offsets;
mod describe;
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
use super::client::{Client, ClientError};
use super::connect::{self, Failure};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::DescribeGroupsRequest;
use crate::protocol::messages::describe_groups::DescribedGroup;

/// The state of a group that is not there.
const DEAD: &str = "Dead";

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

/// A group as its coordinator describes it.
///
/// # Errors
/// [`Failure::NoGroup`] if there is none of that name.
async fn described(client: &mut Client, group: &str) -> Result<DescribedGroup, Failure> {
    let coordinator = client.coordinator(group).await?;
    let request = DescribeGroupsRequest { groups: vec![group.into()], ..DescribeGroupsRequest::default() };
    let response = client.ask_broker(coordinator, &request).await?;
    let what = || format!("group {group}");
    let found = response.groups.into_iter().next().ok_or_else(|| Failure::Data {
        what: what(),
        problem: "the coordinator's answer does not name it".to_owned(),
    })?;
    if is_missing(&found) {
        return Err(Failure::NoGroup(group.to_owned()));
    }
    if found.error_code.is_error() {
        let refused = ClientError::Refused {
            what: format!("describing {}", what()),
            code: found.error_code,
            message: found.error_message.map(|message| message.to_string()),
        };
        return Err(refused.into());
    }
    Ok(found)
}

/// Whether there is no such group: brokers say so in an error from version 6 on, and before that in its state.
fn is_missing(group: &DescribedGroup) -> bool {
    group.error_code == ErrorCode::GROUP_ID_NOT_FOUND || (!group.error_code.is_error() && group.group_state == DEAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_missing_however_its_broker_says_it() {
        let group = |error_code, state: &str| DescribedGroup {
            error_code,
            group_state: state.into(),
            ..DescribedGroup::default()
        };
        assert!(is_missing(&group(ErrorCode::NONE, DEAD)));
        assert!(is_missing(&group(ErrorCode::GROUP_ID_NOT_FOUND, DEAD)));
        assert!(!is_missing(&group(ErrorCode::NONE, "Empty")));
        assert!(!is_missing(&group(ErrorCode::NOT_COORDINATOR, "")), "it is somewhere else");
    }
}
