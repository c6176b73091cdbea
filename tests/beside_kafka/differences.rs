//! Where Ottla's answers may differ from Kafka's: the list, and its use.
//!
//! Each entry has a reason, which is a row of `docs/compatibility.md`. An entry that explains nothing any more fails the test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::recording::{Fields, Recording, Step, api_name};

/// What stands for a field that a broker did not answer.
const ABSENT: &str = "absent";

/// A difference that is meant. In its patterns `*` is any text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The row of `docs/compatibility.md`.
    pub reason: &'static str,
    /// Where: `group/case: step | path`.
    pub place: &'static str,
    /// What Kafka answers; `absent` for nothing.
    pub kafka: &'static str,
    /// What Ottla answers.
    pub ottla: &'static str,
}

const fn differs(reason: &'static str, place: &'static str, kafka: &'static str, ottla: &'static str) -> Difference {
    Difference { reason, place, kafka, ottla }
}

/// Every difference that is meant.
pub const DIFFERENCES: &[Difference] = &[
    // Groups.
    differs("soon-again", "consumer_groups/* | heartbeat_interval_ms", "5000", "50*"),
    differs("order", "consumer_groups/*.members.order", "*", "*"),
    differs("first-epoch", "quorum/*leader_epoch", "first+0", "first-1"),
    // What Ottla does not have yet.
    differs("apis", "api_versions/ApiVersions: a client* | api_keys[*", "*", "absent"),
    differs("apis", "api_versions/ApiVersions: a client* | api_keys.order", "*", "*"),
    differs("features", "api_versions/ApiVersions: a client* | *ed_features[*", "*", "absent"),
    differs("features", "api_versions/ApiVersions: a client* | *ed_features.order", "*", "*"),
    differs("no-share-groups", "coordinators/FindCoordinator: of a share group | *error_code", "*", "INVALID_REQUEST"),
    differs("no-transactions", "coordinators/FindCoordinator: *transaction | *", "*", "*"),
    differs("no-transactions", "coordinators/InitProducerId*", "*", "*"),
    differs(
        "no-transactions",
        "*transaction* | *.error_code",
        "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
        "INVALID_TXN_STATE",
    ),
    differs("no-transactions", "*with a transactional id | *.error_code", "NOT_ENOUGH_REPLICAS", "INVALID_TXN_STATE"),
    differs("resource-types", "configs/DescribeConfigs, errors: the type of groups | *", "*", "*"),
    differs("resource-types", "configs/DescribeConfigs, errors: the type of client metrics | *", "*", "*"),
    differs("resource-types", "alter/*: resource type 32 | *error_code", "INVALID_CONFIG", "INVALID_REQUEST"),
    differs("elr", "*[min.insync.replicas]*", "*", "*"),
    differs("elr", "topics/CreateTopics, configs: * | *.configs.order", "*min.insync.replicas*", "*"),
    differs("elr", "configs/*: what all brokers share | results[].configs", "absent", "none"),
    differs("elr", "alter/AlterConfigs: of all brokers* | responses[].error_code", "INVALID_CONFIG", "NONE"),
    differs("elr", "alter/AlterConfigs: of all brokers* | responses[].error_message", "\"Cluster-level*", "null"),
    // Where Kafka fails.
    differs("kafka-fails", "*error_code", "UNKNOWN_SERVER_ERROR", "INVALID_RE*"),
    differs(
        "kafka-fails",
        "topics/CreatePartitions, errors: too many | *error_code",
        "UNKNOWN_SERVER_ERROR",
        "POLICY_VIOLATION",
    ),
    differs("kafka-fails", "produce/not one batch: null | *", "*", "*"),
    differs("kafka-fails", "alter/AlterConfigs, errors: a resource twice | *", "*", "*"),
    differs("kafka-fails", "metadata/by id: neither | *", "*", "*"),
    differs("kafka-fails", "metadata/DescribeTopicPartitions: an empty name | *", "*", "*"),
    differs("kafka-fails", "fetch/reading: an isolation that there is not | *", "*", "*"),
    differs("kafka-fails", "fetch/limits of bytes: *negative | *", "*", "*"),
    differs("negative-epochs", "offsets/OffsetForLeaderEpoch: an epoch far below | *", "*", "-1"),
    // Answers in other words or another order.
    differs("wording", "*error_message", "\"*", "\"*"),
    differs("wording", "*error_message", "null", "\"*"),
    differs("order", "metadata/all topics: * | topics.order", "*", "*"),
    differs("order", "bytes/text: a list of negative length | topics.order", "*", "*"),
    differs("order", "metadata/DescribeLogDirs: * | *order", "*", "*"),
    differs("order", "metadata/by name: * | topics.order", "*", "*"),
    differs("order", "produce/*order", "*1*", "*1*"),
    differs("order", "produce/by topic id: one * | responses.order", "*", "*"),
    differs("order", "offsets/DeleteRecords: * | *order", "1 0", "0 1"),
    differs("order", "group_offsets/OffsetDelete: what is left | *.partitions.order", "*", "*"),
    differs("order", "group_offsets/*: fetches all* | *.topics.order", "*", "*"),
    differs("order", "group_offsets/*: commits to one of three | *.partitions.order", "9 0", "0 9"),
    differs("order", "topics/*order", "*", "*"),
    differs("order", "configs/*order", "*", "*"),
    differs("order", "alter/*.configs.order", "*", "*"),
    // Produce.
    differs("repeated-topics", "produce/by topic id: one in two parts | *", "*", "*"),
    differs("trailing-bytes", "produce/not one batch: *behind it | *", "*", "*"),
    differs("framing", "produce/damaged: a record's offset | *", "*", "*"),
    differs("compressed", "produce/compression: records that are not what the codec says | *", "*", "*"),
    differs("compressed", "produce/compression: a wrong number of compressed records | *", "*", "*"),
    differs("claimed-append-time", "produce/headers that do not fit: a log append time | *", "*", "*"),
    differs("claimed-append-time", "produce/what was stored*: a log append time | *", "*", "*"),
    differs("max-time", "produce/what was stored*: the largest time | *.timestamp", "2", "5000"),
    differs("log-start-on-errors", "*partition_responses[0].log_start_offset", "0", "-1"),
    differs("duplicate-append-time", "*partition_responses[0].log_append_time_ms", "*", "-1"),
    differs("record-errors", "produce/times: too * | *record_errors*", "*", "absent"),
    // Fetch and offsets.
    differs("replica-ids", "fetch/as another: * | *", "*", "*"),
    differs("whole-batches", "fetch/limits of bytes: * | *.batch 1.bytes", "11 of a batch", "absent"),
    differs("whole-batches", "fetch/limits of bytes: * | *.records", "90 bytes of records", "79 bytes of records"),
    differs("compressor", "fetch/what is stored: compressed by the broker | *.records", "* bytes*", "* bytes*"),
    differs("deleted-times", "offsets/after DeleteRecords*: the largest time | *", "*", "-1"),
    // Administration.
    differs("auto-create", "metadata/created by asking: the first answer | *", "*", "*"),
    differs("hasty-creation", "topics/CreateTopics: no time to wait | *", "*", "*"),
    differs("hasty-creation", "topics/CreateTopics: a negative time to wait | *", "*", "*"),
    differs("checked-topic-id", "topics/CreateTopics* | *.topic_id", "id of *", "none"),
    differs("collisions", "topics/*: names that collide with each other | topics[each_other]*", "*", "*"),
    differs("name-and-id", "topics/*: one by name and by id | *", "*", "*"),
    differs("named-twice", "configs/DescribeConfigs of a topic: a topic twice | *", "*", "*"),
    differs("durability-config", "*[ottla.durability]*", "absent", "*"),
    differs("broker-configs", "configs/DescribeConfigs of a broker: * | results[1].configs[*", "absent", "*"),
    differs("broker-configs", "configs/DescribeConfigs of a broker: * | results[1].configs[*", "*", "absent"),
    differs("broker-configs", "configs/DescribeConfigs of a broker: *[max.connections]*", "*", "*"),
    differs("broker-configs", "alter/configs of brokers: * | *.error_code", "NONE", "INVALID_REQUEST"),
    differs("log-sizes", "*/DescribeLogDirs: *.partition_size", "0", "some"),
    // The wire.
    differs("not-utf-8", "bytes/text: * that is not UTF-8 | *", "*", "*"),
    differs("short-headers", "api_versions/*: a version from the future, its header cut short | *", "closed", "0*"),
];

/// What the comparison found.
#[derive(Default)]
pub struct Findings {
    /// Differences that no entry explains.
    pub unexplained: Vec<String>,
    /// The entries that explain something.
    pub used: BTreeSet<Difference>,
    cases: BTreeSet<String>,
    answers: usize,
    equal: usize,
    fields: usize,
    by_reason: BTreeMap<&'static str, usize>,
}

impl Findings {
    /// Compares the answers to one group of cases.
    pub fn compare(&mut self, group: &str, kafka: &Recording, ottla: &Recording) {
        let heads = |recording: &Recording| -> Vec<(String, i16, Vec<i16>)> {
            let head = |step: &Step| (step.name.clone(), step.api, step.answers.keys().copied().collect());
            recording.steps.iter().map(head).collect()
        };
        assert_eq!(heads(kafka), heads(ottla), "the cases of {group} have changed: record Kafka's answers again");
        for (kafka, ottla) in kafka.steps.iter().zip(&ottla.steps) {
            self.cases.insert(format!("{group}/{}", kafka.name.split(": ").next().unwrap_or_default()));
            let mut unexplained: BTreeMap<(String, String, String), Vec<i16>> = BTreeMap::new();
            for (version, answer) in &kafka.answers {
                let differences = self.answer(group, &kafka.name, answer, &ottla.answers[version]);
                for difference in differences {
                    unexplained.entry(difference).or_default().push(*version);
                }
            }
            for ((path, kafka_said, ottla_said), versions) in unexplained {
                let (name, api) = (&kafka.name, api_name(kafka.api));
                self.unexplained.push(format!(
                    "{group}/{name} | {path}\n    {api} {versions:?}\n    Kafka: {kafka_said}\n    Ottla: {ottla_said}"
                ));
            }
        }
    }

    /// Compares two answers; returns what no entry explains.
    fn answer(&mut self, group: &str, step: &str, kafka: &Fields, ottla: &Fields) -> Vec<(String, String, String)> {
        let mut unexplained = Vec::new();
        let mut is_equal = true;
        let paths: BTreeSet<&String> = kafka.keys().chain(ottla.keys()).collect();
        for path in paths {
            self.fields += 1;
            let said = |fields: &Fields| fields.get(path).cloned().unwrap_or_else(|| ABSENT.to_owned());
            let (kafka, ottla) = (said(kafka), said(ottla));
            if kafka == ottla {
                continue;
            }
            is_equal = false;
            let place = format!("{group}/{step} | {path}");
            let explains = |listed: &&Difference| {
                matches(listed.place, &place) && matches(listed.kafka, &kafka) && matches(listed.ottla, &ottla)
            };
            match DIFFERENCES.iter().find(explains) {
                Some(listed) => {
                    *self.by_reason.entry(listed.reason).or_default() += 1;
                    self.used.insert(*listed);
                }
                None => unexplained.push((path.clone(), kafka, ottla)),
            }
        }
        self.answers += 1;
        self.equal += usize::from(is_equal);
        unexplained
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cases, answers, equal, fields) = (self.cases.len(), self.answers, self.equal, self.fields);
        writeln!(f, "{cases} cases, {answers} answers, {equal} of them equal in all of {fields} fields; else:")?;
        self.by_reason.iter().try_for_each(|(reason, fields)| writeln!(f, "{fields:>7} fields: {reason}"))
    }
}

/// The reasons that the document has rows for: table rows that begin with a name in backticks.
pub fn documented(text: &str) -> BTreeSet<&str> {
    let name = |line: &'_ str| -> Option<usize> { line.strip_prefix("| `")?.find("` |") };
    text.lines().filter_map(|line| Some(&line[3..3 + name(line)?])).collect()
}

/// Whether the pattern, in which `*` is any text, fits the whole text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, mut rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    while let Some((part, more)) = rest.split_once('*') {
        let Some(at) = text.find(part) else { return false };
        (text, rest) = (&text[at + part.len()..], more);
    }
    text.len() >= rest.len() && text.ends_with(rest)
}

#[test]
fn patterns_fit_whole_texts() {
    for (pattern, text) in [("a", "a"), ("*", ""), ("a*", "a"), ("a*c", "abc"), ("*b*", "abc"), ("a*b*c", "axbbxc")] {
        assert!(matches(pattern, text), "{pattern} {text}");
    }
    for (pattern, text) in [("a", "ab"), ("a*c", "abd"), ("ab*b", "ab"), ("*x*", "abc")] {
        assert!(!matches(pattern, text), "{pattern} {text}");
    }
}

#[test]
fn rows_of_a_table_are_reasons() {
    let text = "| reason | what |\n|---|---|\n| `a-b` | words `c` |\n- `d` | no row |";
    assert_eq!(documented(text), BTreeSet::from(["a-b"]));
}
