//! An answer as fields: `path = value`, where the elements of lists are named by what they are about.
//!
//! The order of a list of named elements is a field of its own, `path.order`.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use ottla::protocol::batch::BatchHeader;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::FetchResponse;
use ottla::protocol::record::read_records;
use ottla::protocol::value::Records;
use ottla::protocol::wire::Response;

use crate::debug::{Value, parse};
use crate::mapping::{Mapping, without_version};
use crate::recording::Fields;

/// The fields that can name an element, the best first.
const NAMES: &[&str] = &[
    "api_key",
    "key",
    "resource_name",
    "name",
    "topic",
    "topic_name",
    "partition_index",
    "partition",
    "index",
    "batch_index",
    "node_id",
    "broker_id",
    "group_id",
    "group_instance_id",
    "member_id",
    "log_dir",
];
/// Lists with many elements of a few fields.
const IN_ONE_LINE: &[&str] =
    &["api_keys", "supported_features", "finalized_features", "configs", "synonyms", "brokers", "node_endpoints"];
/// The lists that Kafka puts into a random order, by message and name: by the hash of ids that are drawn, for one.
const SHUFFLED: &[(&str, &str)] =
    &[("DeleteTopicsResponse", "responses"), ("JoinGroupResponse", "members"), ("DescribeGroupsResponse", "members")];
/// The source of a config that nobody has set.
const DEFAULT_SOURCE: &str = "5";
/// What the records of a test unpack to at most.
const UNPACKED_MAX_BYTES: usize = 16 << 20;

/// The fields of a response that came in `version`, mapped. The configs of a created topic that nobody has set stand there
/// only `with_defaults`.
pub fn fields<R: Response + 'static>(response: &R, version: i16, mapping: &mut Mapping, with_defaults: bool) -> Fields {
    let value = parse(&format!("{response:?}"));
    learn(&value, mapping);
    let mut flat = Flat { version, message: R::NAME, mapping, with_defaults, fields: Fields::new() };
    flat.value("", "", &value);
    if let Some(fetch) = (response as &dyn Any).downcast_ref::<FetchResponse>() {
        flat.records(fetch);
    }
    flat.fields
}

/// Learns the ids of topics that the answer names.
fn learn(value: &Value, mapping: &mut Mapping) {
    match value {
        Value::Struct(fields) => {
            if let (Some(Value::Atom(id)), Some(Value::Atom(name))) = (fields.get("topic_id"), fields.get("name"))
                && name != "None"
            {
                mapping.learn_topic(id, name.trim_matches('"'));
            }
            fields.values().for_each(|value| learn(value, mapping));
        }
        Value::List(values) => values.iter().for_each(|value| learn(value, mapping)),
        Value::Atom(_) => {}
    }
}

fn is_atom(value: &Value) -> bool {
    matches!(value, Value::Atom(_))
}

/// Whether the field of the structure is that.
fn has(value: &Value, field: &str, atom: &str) -> bool {
    matches!(value, Value::Struct(fields) if fields.get(field) == Some(&Value::Atom(atom.to_owned())))
}

/// Whether the field is there, and is neither null nor empty.
fn says(fields: &BTreeMap<String, Value>, name: &str) -> bool {
    matches!(fields.get(name), Some(Value::Atom(value)) if !matches!(value.as_str(), "None" | "\"\""))
}

struct Flat<'a> {
    version: i16,
    message: &'static str,
    mapping: &'a mut Mapping,
    with_defaults: bool,
    fields: Fields,
}

impl Flat<'_> {
    fn add(&mut self, path: &str, value: String) {
        let path = without_version(path.trim_start_matches('.'), self.version);
        let before = self.fields.insert(path.clone(), value);
        assert!(before.is_none(), "two fields at {path}");
    }

    fn value(&mut self, path: &str, field: &str, value: &Value) {
        match value {
            // A structure that says nothing.
            Value::Struct(fields) if fields.values().all(|value| *value == Value::Atom("-1".to_owned())) => {}
            Value::Struct(fields) => {
                // What names an element is in its path.
                let named = path.ends_with(']').then(|| NAMES.iter().find(|name| says(fields, name))).flatten();
                for (name, value) in fields.iter().filter(|(name, _)| Some(&name.as_str()) != named) {
                    self.value(&format!("{path}.{name}"), name, value);
                }
            }
            Value::List(values) if values.is_empty() => self.add(path, "none".to_owned()),
            Value::List(values) if values.iter().all(|value| matches!(value, Value::Atom(_))) => {
                let said: Vec<_> = values.iter().map(|value| self.scalar(path, field, value)).collect();
                self.add(path, format!("[{}]", said.join(", ")));
            }
            Value::List(values) => {
                let leaves_out = path.starts_with(".topics[") && field == "configs" && !self.with_defaults;
                let is_told = |value: &&Value| !(leaves_out && has(value, "config_source", DEFAULT_SOURCE));
                self.list(path, field, &values.iter().filter(is_told).collect::<Vec<_>>());
            }
            Value::Atom(_) => {
                let said = self.scalar(path, field, value);
                self.add(path, said);
            }
        }
    }

    fn list(&mut self, path: &str, field: &str, values: &[&Value]) {
        let mut names: Vec<String> = Vec::new();
        for value in values {
            let mut name = self.name_of(value);
            while names.contains(&name) {
                name.push('\'');
            }
            let path = format!("{path}[{name}]");
            match value {
                Value::Struct(fields) if IN_ONE_LINE.contains(&field) && fields.values().all(is_atom) => {
                    let said = self.in_one_line(&path, fields);
                    self.add(&path, said);
                }
                value => self.value(&path, field, value),
            }
            names.push(name);
        }
        let order = without_version(&names.join(" "), self.version);
        if names.len() > 1 && !SHUFFLED.contains(&(self.message, field)) {
            self.add(&format!("{path}.order"), order);
        }
    }

    fn in_one_line(&mut self, path: &str, fields: &BTreeMap<String, Value>) -> String {
        let named = NAMES.iter().find(|name| says(fields, name));
        let fields = fields.iter().filter(|(name, _)| Some(&name.as_str()) != named);
        let said: Vec<_> = fields.map(|(name, value)| format!("{name}: {}", self.scalar(path, name, value))).collect();
        said.join(", ")
    }

    /// What an element is about.
    fn name_of(&mut self, element: &Value) -> String {
        let Value::Struct(fields) = element else { return String::new() };
        if let Some(name) = NAMES.iter().find(|name| says(fields, name))
            && let Value::Atom(value) = &fields[*name]
        {
            let said = self.mapping.value("", name, value, self.version);
            return said.trim_matches('"').to_owned();
        }
        if let Some(Value::Atom(id)) = fields.get("topic_id")
            && let Some(name) = self.mapping.topic(id)
        {
            return name.to_owned();
        }
        String::new()
    }

    fn scalar(&mut self, path: &str, field: &str, value: &Value) -> String {
        let Value::Atom(value) = value else { panic!("{path} is no scalar") };
        if field.ends_with("error_code") {
            return ErrorCode(value.parse().expect("a code is a number")).name().to_owned();
        }
        self.mapping.value(path, field, value, self.version)
    }

    /// What lies in the records of each partition.
    fn records(&mut self, fetch: &FetchResponse) {
        for topic in &fetch.responses {
            let id = topic.topic_id.to_string();
            let name = self.mapping.topic(&id).map_or_else(|| topic.topic.to_string(), str::to_owned);
            for partition in &topic.partitions {
                let batches = partition.records.as_ref().map(batches).unwrap_or_default();
                for (number, batch) in batches.iter().enumerate() {
                    let path = format!("responses[{name}].partitions[{}].batch {number}", partition.partition_index);
                    for (field, value) in batch {
                        let value = self.mapping.value(&path, field, value, self.version);
                        self.add(&format!("{path}.{field}"), value);
                    }
                }
            }
        }
    }
}

/// The batches, each as the fields of its header and one for its records.
fn batches(records: &Records) -> Vec<Vec<(&'static str, String)>> {
    let mut rest = records.clone().into_bytes();
    let mut found = Vec::new();
    while !rest.is_empty() {
        let header = match BatchHeader::parse(&rest) {
            Ok(header) if header.size_bytes() <= rest.len() => header,
            _ => {
                // A batch may be cut where the limit was reached.
                found.push(vec![("bytes", format!("{} of a batch", rest.len()))]);
                break;
            }
        };
        let batch = rest.split_to(header.size_bytes());
        found.push(vec![
            ("base_offset", header.base_offset.to_string()),
            ("leader_epoch", header.leader_epoch.to_string()),
            ("attributes", format!("{:#04x}", header.attributes)),
            ("last_offset_delta", header.last_offset_delta.to_string()),
            ("timestamp", header.max_timestamp.to_string()),
            ("producer_id", header.producer_id.to_string()),
            ("producer_epoch", header.producer_epoch.to_string()),
            ("base_sequence", header.base_sequence.to_string()),
            ("records", contents(&batch)),
        ]);
    }
    found
}

/// Keys and values; what is long is told by its length.
fn contents(batch: &Bytes) -> String {
    let short = |bytes: Option<Bytes>| match bytes {
        None => "null".to_owned(),
        Some(bytes) if bytes.len() > 16 => format!("{} bytes", bytes.len()),
        Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
    };
    let mut said = String::new();
    for record in read_records(batch, UNPACKED_MAX_BYTES).expect("a stored batch is readable") {
        let record = record.expect("a stored record is readable");
        write!(said, "({}: {})", short(record.key), short(record.value)).expect("a string takes everything");
    }
    said
}
