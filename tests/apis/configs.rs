//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs.

use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::describe_configs::{DescribeConfigsResource, DescribeConfigsResourceResult};
use ottla::protocol::messages::{
    AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest, alter_configs,
    incremental_alter_configs as incremental,
};

use crate::kit::{Client, Server};

pub const TOPIC: i8 = 2;
const BROKER: i8 = 4;
pub const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;

fn describe(
    client: &mut Client,
    resource_type: i8,
    name: &str,
) -> Result<Vec<DescribeConfigsResourceResult>, ErrorCode> {
    let resource = DescribeConfigsResource { resource_type, resource_name: name.into(), configuration_keys: None };
    let request =
        DescribeConfigsRequest { resources: vec![resource], include_synonyms: true, include_documentation: true };
    let result = client.ask(&request).results.remove(0);
    if result.error_code.is_error() { Err(result.error_code) } else { Ok(result.configs) }
}

/// Value and source.
fn config(client: &mut Client, resource_type: i8, name: &str, config: &str) -> (String, i8) {
    let configs = describe(client, resource_type, name).unwrap();
    let found = configs.into_iter().find(|found| found.name == config).unwrap();
    (found.value.unwrap().to_string(), found.config_source)
}

/// Changes single configs.
pub fn alter(client: &mut Client, resource_type: i8, name: &str, changes: &[(&str, i8, Option<&str>)]) -> ErrorCode {
    let change = |(name, config_operation, value): &(&str, i8, Option<&str>)| incremental::AlterableConfig {
        name: (*name).into(),
        config_operation: *config_operation,
        value: value.map(Into::into),
    };
    let configs = changes.iter().map(change).collect();
    let resources = vec![incremental::AlterConfigsResource { resource_type, resource_name: name.into(), configs }];
    client.ask(&IncrementalAlterConfigsRequest { resources, validate_only: false }).responses[0].error_code
}

#[test]
fn a_topics_configs_say_where_they_come_from() {
    let server = Server::start_with(|config| config.topics.retention_ms = Some(5000));
    let mut client = server.connect();
    client.create_topic("t", 1);
    assert_eq!(config(&mut client, TOPIC, "t", "retention.ms"), ("5000".to_owned(), 4), "from the broker's file");
    assert_eq!(config(&mut client, TOPIC, "t", "segment.bytes"), ("1073741824".to_owned(), 5));
    assert_eq!(alter(&mut client, TOPIC, "t", &[("retention.ms", SET, Some("77"))]), ErrorCode::NONE);
    let configs = describe(&mut client, TOPIC, "t").unwrap();
    let retention = configs.iter().find(|config| config.name == "retention.ms").unwrap();
    let synonyms: Vec<_> = retention.synonyms.iter().map(|synonym| (&*synonym.name, synonym.source)).collect();
    assert_eq!(synonyms, [("retention.ms", 1), ("log.retention.ms", 4)]);
    assert_eq!((retention.config_type, retention.read_only), (5, false));
    assert!(retention.documentation.is_some());
    assert_eq!(describe(&mut client, TOPIC, "no").unwrap_err(), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(describe(&mut client, TOPIC, "a b").unwrap_err(), ErrorCode::INVALID_TOPIC_EXCEPTION);
    assert_eq!(describe(&mut client, 99, "x").unwrap_err(), ErrorCode::INVALID_REQUEST);
}

#[test]
fn single_configs_are_set_deleted_and_appended_to() {
    let server = Server::start_with(|_| {});
    let mut client = server.connect();
    client.create_topic("t", 1);
    let mut change = |changes: &[(&str, i8, Option<&str>)]| alter(&mut client, TOPIC, "t", changes);
    assert_eq!(change(&[("cleanup.policy", APPEND, Some("compact"))]), ErrorCode::NONE);
    assert_eq!(change(&[("retention.ms", SET, Some("x"))]), ErrorCode::INVALID_CONFIG);
    assert_eq!(change(&[("nosuch", SET, Some("1"))]), ErrorCode::INVALID_CONFIG);
    assert_eq!(change(&[("retention.ms", APPEND, Some("1"))]), ErrorCode::INVALID_CONFIG);
    assert_eq!(change(&[("retention.ms", SET, None)]), ErrorCode::INVALID_REQUEST);
    assert_eq!(change(&[("retention.ms", 9, Some("1"))]), ErrorCode::INVALID_REQUEST);
    assert_eq!(change(&[("retention.ms", SET, Some("1")), ("retention.ms", DELETE, None)]), ErrorCode::INVALID_REQUEST);
    assert_eq!(config(&mut client, TOPIC, "t", "cleanup.policy"), ("delete,compact".to_owned(), 1));
    assert_eq!(alter(&mut client, TOPIC, "t", &[("cleanup.policy", DELETE, None)]), ErrorCode::NONE);
    assert_eq!(config(&mut client, TOPIC, "t", "cleanup.policy"), ("delete".to_owned(), 5));
    assert_eq!(alter(&mut client, TOPIC, "no", &[]), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
}

#[test]
fn the_old_api_replaces_a_configuration_as_a_whole() {
    let server = Server::start_with(|_| {});
    let mut client = server.connect();
    client.create_topic("t", 1);
    assert_eq!(alter(&mut client, TOPIC, "t", &[("retention.ms", SET, Some("77"))]), ErrorCode::NONE);
    let configs = vec![alter_configs::AlterableConfig { name: "segment.ms".into(), value: Some("88".into()) }];
    let resource = alter_configs::AlterConfigsResource { resource_type: TOPIC, resource_name: "t".into(), configs };
    let mut replace = |validate_only, resources| {
        let response = client.ask(&AlterConfigsRequest { resources, validate_only });
        response.responses.iter().map(|response| response.error_code).collect::<Vec<_>>()
    };
    assert_eq!(replace(true, vec![resource.clone()]), [ErrorCode::NONE]);
    assert_eq!(replace(false, vec![resource.clone(), resource.clone()]), [ErrorCode::INVALID_REQUEST; 2]);
    assert_eq!(config(&mut client, TOPIC, "t", "retention.ms").0, "77", "nothing was changed so far");
    let response = client.ask(&AlterConfigsRequest { resources: vec![resource], validate_only: false });
    assert_eq!(response.responses[0].error_code, ErrorCode::NONE);
    assert_eq!(config(&mut client, TOPIC, "t", "retention.ms").0, "604800000");
    assert_eq!(config(&mut client, TOPIC, "t", "segment.ms").0, "88");
}

#[test]
fn a_broker_shows_its_configuration_and_takes_defaults_for_topics() {
    let server = Server::start_with(|_| {});
    let mut client = server.connect();
    client.create_topic("t", 1);
    assert_eq!(config(&mut client, BROKER, "1", "auto.create.topics.enable"), ("true".to_owned(), 5));
    assert_eq!(config(&mut client, BROKER, "1", "broker.id"), ("1".to_owned(), 4));
    assert_eq!(describe(&mut client, BROKER, "2").unwrap_err(), ErrorCode::INVALID_REQUEST);
    assert_eq!(alter(&mut client, BROKER, "1", &[("log.dirs", SET, Some("x"))]), ErrorCode::INVALID_REQUEST);
    assert_eq!(alter(&mut client, BROKER, "2", &[]), ErrorCode::INVALID_REQUEST);
    assert_eq!(alter(&mut client, BROKER, "", &[("log.retention.ms", SET, Some("55"))]), ErrorCode::NONE);
    assert_eq!(config(&mut client, TOPIC, "t", "retention.ms"), ("55".to_owned(), 3));
    assert_eq!(describe(&mut client, BROKER, "").unwrap().len(), 1);
    assert_eq!(alter(&mut client, BROKER, "1", &[("log.retention.ms", SET, Some("44"))]), ErrorCode::NONE);
    assert_eq!(config(&mut client, TOPIC, "t", "retention.ms"), ("44".to_owned(), 2));
}
