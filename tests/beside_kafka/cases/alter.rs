//! IncrementalAlterConfigs and AlterConfigs.

use ottla::protocol::messages::{AlterConfigsRequest, IncrementalAlterConfigsRequest};
use ottla::protocol::messages::{alter_configs, incremental_alter_configs};

use super::configs::{BROKER, TOPIC, describe};
use super::kit::create;
use super::topics::BAD_VALUES;
use crate::run::Run;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// The cases.
pub fn cases(run: &mut Run) {
    create(run, "alter", 1, &[]);
    incremental(run);
    incremental_errors(run);
    values(run);
    brokers(run);
    whole(run);
    whole_errors(run);
}

type Change<'a> = (&'a str, i8, Option<&'a str>);

fn resource(kind: i8, name: &str, changes: &[Change<'_>]) -> incremental_alter_configs::AlterConfigsResource {
    let config = |(name, operation, value): &Change<'_>| incremental_alter_configs::AlterableConfig {
        name: (*name).into(),
        config_operation: *operation,
        value: value.map(Into::into),
    };
    incremental_alter_configs::AlterConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configs: changes.iter().map(config).collect(),
    }
}

fn change(kind: i8, name: &str, changes: &[Change<'_>]) -> IncrementalAlterConfigsRequest {
    IncrementalAlterConfigsRequest { resources: vec![resource(kind, name, changes)], validate_only: false }
}

/// Changes the topic's configs in every version, and asks after each for what they are now.
fn change_and_look(run: &mut Run, step: &str, changes: &[Change<'_>]) {
    let keys = ["retention.ms", "cleanup.policy", "segment.ms", "leader.replication.throttled.replicas"];
    run.step(step, |_| change(TOPIC, "alter", changes));
    run.step_in(&format!("after: {step}"), [4], |_| describe(TOPIC, "alter", Some(&keys)));
}

fn incremental(run: &mut Run) {
    run.case("IncrementalAlterConfigs");
    change_and_look(run, "set", &[("retention.ms", SET, Some("5000")), ("segment.ms", SET, Some("6000"))]);
    change_and_look(run, "delete", &[("segment.ms", DELETE, None)]);
    change_and_look(run, "delete with a value", &[("retention.ms", DELETE, Some("x"))]);
    change_and_look(run, "delete what is not set", &[("segment.ms", DELETE, None)]);
    change_and_look(run, "append", &[("cleanup.policy", APPEND, Some("compact"))]);
    change_and_look(run, "append what is there", &[("cleanup.policy", APPEND, Some("compact"))]);
    change_and_look(run, "subtract", &[("cleanup.policy", SUBTRACT, Some("delete"))]);
    change_and_look(run, "subtract what is not there", &[("cleanup.policy", SUBTRACT, Some("delete"))]);
    change_and_look(run, "subtract the last", &[("cleanup.policy", SUBTRACT, Some("compact"))]);
    change_and_look(run, "back", &[("cleanup.policy", DELETE, None)]);
    change_and_look(
        run,
        "append to what is not set",
        &[("leader.replication.throttled.replicas", APPEND, Some("0:1"))],
    );
    run.step("only checked", |_| IncrementalAlterConfigsRequest {
        validate_only: true,
        ..change(TOPIC, "alter", &[("retention.ms", SET, Some("7000"))])
    });
    run.step_in("after: only checked", [4], |_| describe(TOPIC, "alter", Some(&["retention.ms"])));
    run.step("no changes", |_| change(TOPIC, "alter", &[]));
    run.step("no resources", |_| IncrementalAlterConfigsRequest::default());
}

fn incremental_errors(run: &mut Run) {
    run.case("IncrementalAlterConfigs, errors");
    let topic = |changes: &[Change<'_>]| change(TOPIC, "alter", changes);
    run.step("set without a value", |_| topic(&[("retention.ms", SET, None)]));
    run.step("append without a value", |_| topic(&[("cleanup.policy", APPEND, None)]));
    run.step("one config twice", |_| topic(&[("segment.ms", SET, Some("1")), ("segment.ms", DELETE, None)]));
    run.step("append to what is no list", |_| topic(&[("retention.ms", APPEND, Some("1"))]));
    run.step("subtract from what is no list", |_| topic(&[("retention.ms", SUBTRACT, Some("1"))]));
    run.step("append a value that cannot be", |_| topic(&[("cleanup.policy", APPEND, Some("keep"))]));
    run.step("an operation that there is not", |_| topic(&[("retention.ms", 9, Some("1"))]));
    run.step("a negative operation", |_| topic(&[("retention.ms", -1, Some("1"))]));
    run.step("an unknown config", |_| topic(&[("no.such.config", SET, Some("1"))]));
    run.step("an unknown config to be deleted", |_| topic(&[("no.such.config", DELETE, None)]));
    run.step("an unknown config to be appended to", |_| topic(&[("no.such.config", APPEND, Some("1"))]));
    run.step("one of two is wrong", |_| topic(&[("segment.ms", SET, Some("7")), ("retention.ms", SET, Some("x"))]));
    run.step("an empty name", |_| topic(&[("", SET, Some("1"))]));
    run.step("no such topic", |_| change(TOPIC, "alter-none", &[("retention.ms", SET, Some("1"))]));
    run.step("no such topic, only checked", |_| IncrementalAlterConfigsRequest {
        validate_only: true,
        ..change(TOPIC, "alter-none", &[("retention.ms", SET, Some("1"))])
    });
    run.step("no topic", |_| change(TOPIC, "", &[("retention.ms", SET, Some("1"))]));
    run.step("a topic's name that cannot be", |_| change(TOPIC, "a/b", &[("retention.ms", SET, Some("1"))]));
    run.step("a resource twice", |_| IncrementalAlterConfigsRequest {
        resources: vec![
            resource(TOPIC, "alter", &[("segment.ms", SET, Some("8"))]),
            resource(TOPIC, "alter", &[("retention.ms", SET, Some("8"))]),
        ],
        validate_only: false,
    });
    run.step("one of two resources is wrong", |_| IncrementalAlterConfigsRequest {
        resources: vec![
            resource(TOPIC, "alter-none", &[("segment.ms", SET, Some("9"))]),
            resource(TOPIC, "alter", &[("retention.ms", SET, Some("9000"))]),
        ],
        validate_only: false,
    });
    for kind in [-1, 0, 1, 3, 8, 16, 32, 99] {
        run.step(&format!("resource type {kind}"), |_| change(kind, "x", &[("retention.ms", SET, Some("1"))]));
    }
    run.step_in("after all that", [4], |_| describe(TOPIC, "alter", Some(&["retention.ms", "segment.ms"])));
}

fn values(run: &mut Run) {
    run.case("IncrementalAlterConfigs, values");
    create(run, "alter-values", 1, &[]);
    for (name, value) in BAD_VALUES {
        let step = format!("{name}={value}");
        run.step_in(&step, [1], |_| IncrementalAlterConfigsRequest {
            validate_only: true,
            ..change(TOPIC, "alter-values", &[(*name, SET, Some(*value))])
        });
    }
}

fn brokers(run: &mut Run) {
    run.case("configs of brokers");
    let mut dynamic = |step: &str, name: &str, changes: &[Change<'_>]| {
        run.step(step, |_| change(BROKER, name, changes));
        for (of, resource) in [("the broker", "1"), ("all brokers", "")] {
            run.step_in(&format!("{of} after: {step}"), [4], |_| {
                let mut request = describe(BROKER, resource, Some(&["log.segment.bytes", "message.max.bytes"]));
                request.include_synonyms = true;
                request
            });
        }
        run.step_in(&format!("a topic after: {step}"), [4], |_| {
            let mut request = describe(TOPIC, "alter-values", Some(&["segment.bytes", "max.message.bytes"]));
            request.include_synonyms = true;
            request
        });
    };
    dynamic("of all brokers", "", &[("log.segment.bytes", SET, Some("3000000"))]);
    dynamic("of one broker", "1", &[("log.segment.bytes", SET, Some("4000000"))]);
    dynamic("not any more, of all", "", &[("log.segment.bytes", DELETE, None)]);
    dynamic("not any more, of one", "1", &[("log.segment.bytes", DELETE, None)]);
    for (what, name, config, value) in [
        ("no such broker", "9", "log.segment.bytes", "3000000"),
        ("no broker", "x", "log.segment.bytes", "3000000"),
        ("a negative broker", "-1", "log.segment.bytes", "3000000"),
        ("a value that cannot be", "1", "log.segment.bytes", "x"),
        ("a value that cannot be, of all brokers", "", "log.segment.bytes", "x"),
        ("the topic's name of a config", "1", "segment.bytes", "3000000"),
        ("a config that does not change", "1", "log.dirs", "/tmp"),
        ("a config that does not change, of all brokers", "", "node.id", "2"),
        ("an unknown config", "1", "no.such.config", "1"),
    ] {
        run.step(what, |_| change(BROKER, name, &[(config, SET, Some(value))]));
    }
    run.step("an unknown config to be deleted", |_| change(BROKER, "1", &[("no.such.config", DELETE, None)]));
}

fn replace(kind: i8, name: &str, configs: &[(&str, Option<&str>)]) -> AlterConfigsRequest {
    let config = |(name, value): &(&str, Option<&str>)| alter_configs::AlterableConfig {
        name: (*name).into(),
        value: value.map(Into::into),
    };
    let resource = alter_configs::AlterConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configs: configs.iter().map(config).collect(),
    };
    AlterConfigsRequest { resources: vec![resource], validate_only: false }
}

fn whole(run: &mut Run) {
    run.case("AlterConfigs");
    create(run, "replaced", 1, &[]);
    let keys = ["retention.ms", "segment.ms"];
    run.step("one", |_| replace(TOPIC, "replaced", &[("retention.ms", Some("5000"))]));
    run.step("another", |_| replace(TOPIC, "replaced", &[("segment.ms", Some("6000"))]));
    run.step_in("after another", [4], |_| describe(TOPIC, "replaced", Some(&keys)));
    run.step("only checked", |_| AlterConfigsRequest { validate_only: true, ..replace(TOPIC, "replaced", &[]) });
    run.step_in("after only checked", [4], |_| describe(TOPIC, "replaced", Some(&keys)));
    run.step("none", |_| replace(TOPIC, "replaced", &[]));
    run.step_in("after none", [4], |_| describe(TOPIC, "replaced", Some(&keys)));
    run.step("no resources", |_| AlterConfigsRequest::default());
    run.step("of a broker", |_| replace(BROKER, "1", &[("log.segment.bytes", Some("3000000"))]));
    run.step("of a broker, none", |_| replace(BROKER, "1", &[]));
    run.step("of all brokers", |_| replace(BROKER, "", &[("log.segment.bytes", Some("3000000"))]));
    run.step("of all brokers, none", |_| replace(BROKER, "", &[]));
    run.step_in("the broker after all that", [4], |_| describe(BROKER, "1", Some(&["log.segment.bytes"])));
}

fn whole_errors(run: &mut Run) {
    run.case("AlterConfigs, errors");
    run.step("null", |_| replace(TOPIC, "replaced", &[("retention.ms", None)]));
    run.step("a value that cannot be", |_| replace(TOPIC, "replaced", &[("retention.ms", Some("x"))]));
    run.step("an unknown config", |_| replace(TOPIC, "replaced", &[("no.such.config", Some("1"))]));
    run.step("one config twice", |_| {
        replace(TOPIC, "replaced", &[("segment.ms", Some("1")), ("segment.ms", Some("2"))])
    });
    run.step("no such topic", |_| replace(TOPIC, "replaced-none", &[("segment.ms", Some("1"))]));
    run.step("no topic", |_| replace(TOPIC, "", &[("segment.ms", Some("1"))]));
    run.step("a topic's name that cannot be", |_| replace(TOPIC, "a/b", &[("segment.ms", Some("1"))]));
    run.step("no such broker", |_| replace(BROKER, "9", &[("log.segment.bytes", Some("3000000"))]));
    run.step("no broker", |_| replace(BROKER, "x", &[]));
    run.step("a broker's value that cannot be", |_| replace(BROKER, "1", &[("log.segment.bytes", Some("x"))]));
    run.step("a broker's config that does not change", |_| replace(BROKER, "1", &[("log.dirs", Some("/tmp"))]));
    run.step("a resource twice", |_| {
        let mut request = replace(TOPIC, "replaced", &[("segment.ms", Some("1"))]);
        request.resources.extend(replace(TOPIC, "replaced", &[("retention.ms", Some("1"))]).resources);
        request
    });
    for kind in [-1, 0, 1, 3, 99] {
        run.step(&format!("resource type {kind}"), |_| replace(kind, "x", &[]));
    }
    run.step_in("after all that", [4], |_| describe(TOPIC, "replaced", Some(&["retention.ms", "segment.ms"])));
}
