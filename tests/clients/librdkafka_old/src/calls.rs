//! Requests as lines of JSON, and their answers.

use std::io::{BufRead, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::Outcome;
use crate::administration::Administration;
use crate::data::Data;

/// Bytes, base64 in JSON.
#[derive(Clone)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// A record's header.
#[derive(Serialize, Deserialize)]
pub struct Header {
    pub key: String,
    pub value: Option<Bytes>,
}

/// A record as it is sent or read.
#[derive(Serialize, Deserialize)]
pub struct Record {
    pub partition: i32,
    #[serde(default)]
    pub offset: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<Header>,
    pub timestamp: i64,
}

/// One line of what to do.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
pub struct Request {
    #[serde(rename = "do")]
    what: String,
    pub topic: String,
    pub group: String,
    pub partition: i32,
    pub partitions: i32,
    pub configs: std::collections::BTreeMap<String, String>,
    pub records: Vec<Record>,
    pub codec: String,
    pub idempotent: bool,
    pub start: i64,
    pub count: usize,
    pub timestamp: i64,
    pub size: usize,
    pub name: String,
    pub value: String,
}

/// Answers the lines of the standard input until it ends.
pub fn serve(bootstrap: &str) -> Outcome<()> {
    let data = Data::new(bootstrap);
    let administration = Administration::new(bootstrap)?;
    for line in std::io::stdin().lock().lines() {
        let request: Request = serde_json::from_str(&line?)?;
        let said = match answer(&data, &administration, &request) {
            Ok(answer) => json!({ "answer": answer }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{said}")?;
        out.flush()?;
    }
    Ok(())
}

fn answer(data: &Data, administration: &Administration, request: &Request) -> Outcome<Value> {
    let Request { topic, group, partition, .. } = request;
    Ok(match request.what.as_str() {
        "create" => json!(administration.create(topic, request.partitions, &request.configs)?),
        "produce" => json!(data.produce(topic, &request.records, &request.codec, request.idempotent)?),
        "read" => json!(data.read(topic, *partition, request.start, request.count)?),
        "time" => json!(data.offset_for_time(topic, *partition, request.timestamp)?),
        "bounds" => json!(data.bounds(topic, *partition)?),
        "too large" => json!(data.refused_as_too_large(topic, request.size)?),
        "grow" => json!(administration.grow(topic, request.partitions)?),
        "partitions" => json!(administration.partitions(topic)?),
        "alter" => json!(administration.alter(topic, &request.name, &request.value)?),
        "config" => json!(administration.config(topic, &request.name)?),
        "brokers" => json!(administration.brokers()?),
        "delete" => json!(administration.delete(topic)?),
        "topics" => json!(administration.topics()?),
        "groups" => json!(administration.groups()?),
        "describe" => json!(administration.describe(group)?),
        "committed" => json!(data.committed(group, topic, *partition)?),
        "delete group" => json!(administration.delete_group(group)?),
        other => return Err(format!("nobody can do {other:?}").into()),
    })
}
