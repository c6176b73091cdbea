//! `ottla topic alter`.

use super::{Outcome, TOPIC_RESOURCE, check};
use crate::cli::connect::{Connect, Failure, setting};
use crate::protocol::messages::IncrementalAlterConfigsRequest;
use crate::protocol::messages::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};

/// The operations of KIP-339, by their numbers.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// Change configurations of topics; what is not named stays.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "alter-config",
    after_help = "Examples:\n  ottla topic alter orders --set retention.ms=3600000 --set segment.bytes=16777216\n  \
ottla topic alter orders --unset retention.ms\n  ottla topic alter orders --append cleanup.policy=compact"
)]
#[command(group(clap::ArgGroup::new("change").required(true).multiple(true).args(["set", "unset", "append", "subtract"])))]
pub struct Args {
    /// The topics.
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Set a configuration; may be repeated.
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
    /// Give a configuration its default back; may be repeated.
    #[arg(short, long, value_name = "KEY", alias = "delete")]
    unset: Vec<String>,
    /// Add an element to a configuration that is a list; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    append: Vec<(String, String)>,
    /// Take an element out of a configuration that is a list; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    subtract: Vec<(String, String)>,
    /// Only say whether it would work.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connect: Connect,
}

impl Args {
    fn changes(&self) -> Vec<AlterableConfig> {
        let with_value = |operation: i8| {
            move |(name, value): &(String, String)| AlterableConfig {
                name: name.as_str().into(),
                config_operation: operation,
                value: Some(value.as_str().into()),
            }
        };
        let unset =
            |name: &String| AlterableConfig { name: name.as_str().into(), config_operation: DELETE, value: None };
        let changes = self.set.iter().map(with_value(SET)).chain(self.unset.iter().map(unset));
        changes
            .chain(self.append.iter().map(with_value(APPEND)))
            .chain(self.subtract.iter().map(with_value(SUBTRACT)))
            .collect()
    }
}

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.connect.client().await?;
    let resource = |name: &String| AlterConfigsResource {
        resource_type: TOPIC_RESOURCE,
        resource_name: name.as_str().into(),
        configs: args.changes(),
    };
    let request = IncrementalAlterConfigsRequest {
        resources: args.topics.iter().map(resource).collect(),
        validate_only: args.dry_run,
    };
    let response = client.ask_controller(&request).await?;
    let outcomes: Vec<_> = response
        .responses
        .iter()
        .map(|result| Outcome::new(&result.resource_name, result.error_code, result.error_message.as_deref()))
        .collect();
    check("altering topic", &outcomes)
}
