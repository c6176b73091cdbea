//! `ottla cluster remove`.

use std::time::Duration;

use tokio::time::sleep;

use super::status::describe;
use crate::cli::client::{Client, ClientError};
use crate::cli::connect::{Connect, Failure};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::UnregisterBrokerRequest;

const LOOKS: u32 = 6;
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Take a broker out of the cluster for good, once it is empty and stopped.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  ottla cluster drain 3 --wait && ottla cluster remove 3 --force\n  ottla cluster remove 3\n\n\
Its id may be used again, by a broker with an empty data directory; one that comes back with its old directory is refused.\n\n\
Exit codes: 0 removed, 1 refused, 3 no broker answered."
)]
pub struct Args {
    /// The broker's id.
    #[arg(value_name = "BROKER", value_parser = clap::value_parser!(i32).range(0..))]
    broker: i32,
    /// Also if it is running: it stops by itself then. It must be drained all the same.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.connect.client().await?;
    if !args.force && is_running(&mut client, args.broker).await? {
        return Err(refused(
            args.broker,
            ErrorCode::POLICY_VIOLATION,
            Some("it is running: stop it first, or say --force, and it stops by itself".to_owned()),
        ));
    }
    let response = client.ask_controller(&UnregisterBrokerRequest { broker_id: args.broker }).await?;
    if response.error_code.is_error() {
        return Err(refused(args.broker, response.error_code, response.error_message.map(|it| it.to_string())));
    }
    Ok(())
}

/// Whether a broker is heard, and goes on to be: one that has just stopped is missed a moment later.
async fn is_running(client: &mut Client, broker: i32) -> Result<bool, Failure> {
    for _ in 0..LOOKS {
        let cluster = describe(client).await?;
        if !cluster.brokers.iter().any(|listed| listed.broker_id == broker && !listed.is_fenced) {
            return Ok(false);
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(true)
}

fn refused(broker: i32, code: ErrorCode, message: Option<String>) -> Failure {
    Failure::Client(ClientError::Refused { what: format!("removing broker {broker}"), code, message })
}
