//! `ottla cluster drain`.

use std::time::Duration;

use tokio::time::sleep;

use super::status::look;
use crate::cli::client::{Client, ClientError};
use crate::cli::connect::{Connect, Failure, print_text};
use crate::machine::controller::configs::DRAIN;
use crate::protocol::messages::IncrementalAlterConfigsRequest;
use crate::protocol::messages::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};

/// DescribeConfigs' and AlterConfigs' number for brokers.
pub(super) const BROKER_RESOURCE: i8 = 4;
pub(super) const SET: i8 = 0;
const DELETE: i8 = 1;
/// Between two looks of `--wait`.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Move everything that a broker holds to the others, a few partitions at a time; it gets nothing new until that is undone.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ottla cluster drain 3 --wait\n  ottla cluster drain 3 --undo\n\n\
The broker may be running or gone for good. Clients do not notice but for a moment for each partition that it leads. When it is empty, \
`ottla cluster remove` takes it out of the cluster.\n\nExit codes: 0 done, 1 refused, 3 no broker answered.")]
pub struct Args {
    /// The broker's id.
    #[arg(value_name = "BROKER", value_parser = clap::value_parser!(i32).range(0..))]
    broker: i32,
    /// Let the broker keep what it has, and get its share again.
    #[arg(long)]
    undo: bool,
    /// End when the broker is empty, and say now and then how much is left.
    #[arg(short, long, conflicts_with = "undo")]
    wait: bool,
    /// Only say whether it would work.
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.connect.client().await?;
    set(&mut client, args).await?;
    if !args.wait {
        return Ok(());
    }
    let mut said = None;
    loop {
        match look(&mut client).await {
            Ok(health) => {
                let left = health.replicas_on(args.broker);
                if left == 0 {
                    return print_text(&format!("broker {} is empty\n", args.broker));
                }
                if said != Some(left) {
                    print_text(&format!("broker {} holds replicas of {left} partitions\n", args.broker))?;
                    said = Some(left);
                }
            }
            Err(error) if error.may_pass() => eprintln!("ottla: {error}"),
            Err(error) => return Err(error.into()),
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn set(client: &mut Client, args: &Args) -> Result<(), Failure> {
    let (config_operation, value) = if args.undo { (DELETE, None) } else { (SET, Some("true".into())) };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: BROKER_RESOURCE,
            resource_name: args.broker.to_string().into(),
            configs: vec![AlterableConfig { name: DRAIN.into(), config_operation, value }],
        }],
        validate_only: args.dry_run,
    };
    let response = client.ask_controller(&request).await?;
    match response.responses.into_iter().find(|response| response.error_code.is_error()) {
        None => Ok(()),
        Some(refused) => Err(Failure::Client(ClientError::Refused {
            what: format!("draining broker {}", args.broker),
            code: refused.error_code,
            message: refused.error_message.map(|message| message.to_string()),
        })),
    }
}
