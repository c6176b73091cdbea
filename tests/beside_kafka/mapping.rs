//! What ids, times, addresses and epochs stand for, so that two brokers' answers can be equal.

use std::collections::BTreeMap;

/// Times below this are a case's own: its records are from 1970.
const NOW_FROM: i64 = 1_500_000_000_000;

/// What is known of one broker's ids.
pub struct Mapping {
    /// The epoch that leaders begin with.
    pub epoch: Option<i32>,
    port: String,
    topics: BTreeMap<String, String>,
    producers: Vec<String>,
    members: Vec<String>,
}

impl Mapping {
    /// Nothing is known but where the broker listens.
    pub fn new(port: u16) -> Self {
        Self {
            epoch: None,
            port: port.to_string(),
            topics: BTreeMap::new(),
            producers: Vec::new(),
            members: Vec::new(),
        }
    }

    /// Members are numbered anew: what one group of cases is told does not depend on those before it.
    pub fn forget_members(&mut self) {
        self.members.clear();
    }

    /// Learns which topic has the id. A topic created again has another one.
    pub fn learn_topic(&mut self, id: &str, name: &str) {
        if self.topics.contains_key(id) || is_zero(id) {
            return;
        }
        let before = self.topics.values().filter(|known| known.trim_end_matches('\'') == name).count();
        self.topics.insert(id.to_owned(), format!("{name}{}", "'".repeat(before)));
    }

    /// The topic that has the id, if it is known.
    pub fn topic(&self, id: &str) -> Option<&str> {
        self.topics.get(id).map(String::as_str)
    }

    /// What the value of the field at `path` stands for, in an answer of `version`.
    pub fn value(&mut self, path: &str, field: &str, value: &str, version: i16) -> String {
        let number = value.parse::<i64>().ok();
        let mapped = match (field, number) {
            ("topic_id", _) if is_zero(value) => "none".to_owned(),
            ("topic_id", _) => self.topic(value).map_or(value.to_owned(), |name| format!("id of {name}")),
            ("port", _) if value == self.port => "its port".to_owned(),
            ("session_id", Some(1..)) => "a session".to_owned(),
            ("producer_id", Some(0..)) => format!("producer {}", place(&mut self.producers, value)),
            // Its own part is what comes before the random one.
            ("member_id" | "leader", _) if has_uuid(value) => {
                format!("{} member {}", own_part(value), place(&mut self.members, value))
            }
            ("member_id" | "leader", _) if is_short_uuid(value) => {
                format!(" member {}", place(&mut self.members, value))
            }
            ("leader_epoch" | "epoch", Some(epoch @ 0..)) => {
                let first = i64::from(self.epoch.unwrap_or_default());
                format!("first{:+}", epoch - first)
            }
            ("timestamp" | "log_append_time_ms", Some(NOW_FROM..)) => "now".to_owned(),
            ("partition_size" | "total_bytes" | "usable_bytes" | "finalized_features_epoch", Some(1..)) => {
                "some".to_owned()
            }
            ("cluster_id", _) if !matches!(value, "None" | "\"\"") => "its cluster".to_owned(),
            ("log_dir", _) => "its directory".to_owned(),
            ("value", _) if path.contains("[log.dirs]") => "its directory".to_owned(),
            ("documentation", _) if !matches!(value, "None" | "\"\"") => "text".to_owned(),
            _ if value == "None" => "null".to_owned(),
            _ => self.text(value),
        };
        without_version(&mapped, version)
    }

    /// Text with what changes from run to run made out: the port, and points in time.
    fn text(&self, text: &str) -> String {
        let text = text.replace(&format!(":{}", self.port), ":PORT");
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
            let digits = rest[at..].bytes().take_while(u8::is_ascii_digit).count();
            let number = &rest[at..at + digits];
            out.push_str(&rest[..at]);
            // Limits of time are of this age too, or as far away as a number can be.
            let is_time = number.parse().is_ok_and(|time| (NOW_FROM..i64::MAX).contains(&time));
            out.push_str(if is_time { "TIME" } else { number });
            rest = &rest[at + digits..];
        }
        out + rest
    }
}

/// Length of a UUID as text.
const UUID_CHARS: usize = 36;
/// Its length in base 64.
const SHORT_UUID_CHARS: usize = 22;

/// Whether the text ends with a UUID, and its closing quote.
fn has_uuid(text: &str) -> bool {
    let text = text.trim_matches('"');
    let tail = text.len().checked_sub(UUID_CHARS).and_then(|at| text.get(at..));
    tail.is_some_and(|tail| {
        tail.bytes().filter(|byte| *byte == b'-').count() == 4
            && tail.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
    })
}

/// Whether the text is a UUID in Kafka's own form: base 64, nothing before it.
fn is_short_uuid(text: &str) -> bool {
    let text = text.trim_matches('"');
    text.len() == SHORT_UUID_CHARS && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

fn own_part(text: &str) -> &str {
    let text = text.trim_matches('"');
    text[..text.len() - UUID_CHARS].trim_end_matches('-')
}

fn is_zero(id: &str) -> bool {
    id == "00000000-0000-0000-0000-000000000000"
}

/// Where the value stands among those that were seen, from 1.
fn place(seen: &mut Vec<String>, value: &str) -> usize {
    let at = seen.iter().position(|known| known == value).unwrap_or_else(|| {
        seen.push(value.to_owned());
        seen.len() - 1
    });
    at + 1
}

/// A name that a case makes for each version (`name-v3`) is the same in all of them.
pub fn without_version(text: &str, version: i16) -> String {
    let mark = format!("-v{version}");
    let mut parts = text.split(mark.as_str());
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(if part.starts_with(|c: char| c.is_ascii_digit()) { &mark } else { "-vN" });
        out.push_str(part);
    }
    out
}

#[test]
fn what_differs_from_run_to_run_is_made_out() {
    let mut mapping = Mapping::new(9092);
    let id = "0186b2c4-0000-4000-8000-000000000001";
    mapping.learn_topic(id, "a");
    mapping.learn_topic("0186b2c4-0000-4000-8000-000000000002", "a");
    mapping.epoch = Some(3);
    for (field, value, becomes) in [
        ("topic_id", id, "id of a"),
        ("topic_id", "0186b2c4-0000-4000-8000-000000000002", "id of a'"),
        ("port", "9092", "its port"),
        ("session_id", "0", "0"),
        ("session_id", "88", "a session"),
        ("producer_id", "7", "producer 1"),
        ("producer_id", "3", "producer 2"),
        ("leader_epoch", "4", "first+1"),
        ("leader_epoch", "-1", "-1"),
        ("timestamp", "1700000000000", "now"),
        ("timestamp", "1700", "1700"),
        ("error_message", "\"till 1700000000000 on host:9092\"", "\"till TIME on host:PORT\""),
        ("name", "\"a-v4\"", "\"a-vN\""),
        ("name", "\"a-v41\"", "\"a-v41\""),
    ] {
        assert_eq!(mapping.value("", field, value, 4), becomes);
    }
}
