//! The configuration: a TOML file, over it the environment, over it the command line's flags.
//!
//! One table, `KEYS`, says for each key where it is stored and what it may be; file, environment and flags are all read through
//! it. Reading reports every problem at once, each with where it stands and, for a misspelt name, what was probably meant.
//!
//! A leaf: it opens no file, reads no environment and knows no other module but [`crate::ids`]. `config/ottla.toml` holds every
//! key with its default (a test compares them).

mod problem;
mod read;
mod value;

pub use problem::{Origin, Problem, Problems};
pub use read::{Flag, Sources};
pub use value::HostPort;

use std::path::PathBuf;

use crate::ids::BrokerId;
use value::Given;

/// Everything that an operator can set. See `config/ottla.toml` for each key's meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// This broker.
    pub broker: Broker,
    /// The listener for Kafka clients.
    pub kafka: Kafka,
    /// The cluster that this broker belongs to.
    pub cluster: Cluster,
    /// What a topic gets unless its own configs say otherwise.
    pub topics: Topics,
    /// Consumer groups.
    pub groups: Groups,
    /// What clients may take from this broker.
    pub limits: Limits,
    /// What the broker says on stderr.
    pub log: Log,
    /// The listener for `/metrics`, `/healthz` and `/readyz`.
    pub admin: Admin,
}

/// `[broker]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// The broker's id, unique in the cluster.
    pub id: BrokerId,
    /// Where everything is stored. A relative path starts at the working directory.
    pub data_dir: PathBuf,
    /// The rack or zone that the broker stands in, if any; clients see it.
    pub rack: Option<String>,
    /// When an acknowledged record is safe, for topics that do not say it themselves.
    pub durability: Durability,
}

/// When a write counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once it is synced to the device.
    Fsync,
    /// Once it is in the page cache: a power cut may take what was acknowledged.
    PageCache,
}

impl Durability {
    /// Every value with the word that configs use for it.
    pub const WORDS: &'static [(&'static str, Self)] = &[("fsync", Self::Fsync), ("page-cache", Self::PageCache)];
}

/// `[kafka]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// Where to listen; port 0 takes a free one.
    pub listen: HostPort,
    /// The address that clients are told to connect to, if it is not the one listened on. Port 0 stands for the port listened on.
    pub advertise: Option<HostPort>,
}

impl Kafka {
    /// What clients are told, now that the listener has its port.
    #[must_use]
    pub fn advertised(&self, bound_port: u16) -> HostPort {
        advertised(&self.listen, self.advertise.as_ref(), bound_port)
    }
}

/// `[cluster]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The cluster's name, for people; the cluster's id is drawn when it is founded.
    pub name: String,
    /// Where to listen for the other brokers, if there are seeds; port 0 takes a free one.
    pub listen: HostPort,
    /// The address that the other brokers are told, if it is not the one listened on. Port 0 stands for the port listened on.
    pub advertise: Option<HostPort>,
    /// Cluster addresses of brokers to begin with, this one's among them or not. Empty: a single broker.
    pub seeds: Vec<HostPort>,
    /// Whether replicas are moved to brokers that hold less than others, a new one for instance.
    pub balance: bool,
    /// How many bytes a second this broker sends to new replicas, over all of them; 0: as many as it can.
    pub move_bytes_per_second: u64,
}

impl Cluster {
    /// What the other brokers are told, now that the listener has its port.
    #[must_use]
    pub fn advertised(&self, bound_port: u16) -> HostPort {
        advertised(&self.listen, self.advertise.as_ref(), bound_port)
    }
}

fn advertised(listen: &HostPort, advertise: Option<&HostPort>, bound_port: u16) -> HostPort {
    let address = advertise.unwrap_or(listen);
    HostPort { host: address.host.clone(), port: if address.port == 0 { bound_port } else { address.port } }
}

/// `[topics]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Whether asking for the metadata of a topic that does not exist creates it.
    pub auto_create: bool,
    /// Partitions of a topic created without a number.
    pub partitions: i32,
    /// Replicas of a partition created without a number; `None` is the lower of 3 and the number of brokers.
    pub replication_factor: Option<i16>,
    /// How long records are kept, in milliseconds; `None` is for ever. Kafka's `retention.ms`.
    pub retention_ms: Option<i64>,
    /// How many bytes of a partition are kept; `None` is all. Kafka's `retention.bytes`.
    pub retention_bytes: Option<i64>,
    /// The size at which a new segment is begun. Kafka's `segment.bytes`.
    pub segment_bytes: i32,
}

/// `[groups]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// How long the first members of an empty group wait for others, in milliseconds. Kafka's `group.initial.rebalance.delay.ms`.
    pub initial_rebalance_delay_ms: u32,
    /// The shortest session that a member may ask for, in milliseconds. Kafka's `group.min.session.timeout.ms`.
    pub session_timeout_min_ms: i32,
    /// The longest. Kafka's `group.max.session.timeout.ms`.
    pub session_timeout_max_ms: i32,
    /// How long a member of the consumer protocol may be silent, in milliseconds. Kafka's `group.consumer.session.timeout.ms`.
    pub consumer_session_timeout_ms: u32,
    /// How often it shall show itself. Kafka's `group.consumer.heartbeat.interval.ms`.
    pub consumer_heartbeat_interval_ms: i32,
    /// The most members of a group. Kafka's `group.max.size`.
    pub members: u32,
    /// How long the offsets of a group without members are kept, in minutes. Kafka's `offsets.retention.minutes`.
    pub offsets_retention_minutes: u32,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Client connections open at a time; one more is closed at once.
    pub connections: u32,
    /// The longest request frame.
    pub request_bytes: u32,
    /// Memory for requests that were read and not yet answered, over all connections. Above it one request more is read at a time.
    pub in_flight_bytes: u64,
    /// Records in one fetch response, whatever the client asks for (but never less than one batch).
    pub fetch_bytes: u32,
    /// Incremental fetch sessions kept (KIP-227).
    pub fetch_sessions: u32,
    /// After how many seconds a connection that sends nothing, or takes no reply, is closed.
    pub idle_seconds: u32,
    /// Within how many seconds a request must have arrived whole, from its first byte on.
    pub frame_seconds: u32,
    /// After how many seconds without a write an idempotent producer is forgotten.
    pub producer_idle_seconds: u32,
    /// Bytes of logs read in the background each second to find damage; 0: none.
    pub scrub_bytes_per_second: u32,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// What is said: a level, or `target=level` pairs with commas.
    pub level: String,
    /// In which form.
    pub format: LogFormat,
}

/// The form of a line on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// Every value with the word that the file uses for it.
    pub const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where to listen; `None` does not.
    pub listen: Option<HostPort>,
}

impl Default for Broker {
    fn default() -> Self {
        Self { id: BrokerId(1), data_dir: "./ottla-data".into(), rack: None, durability: Durability::Fsync }
    }
}

impl Default for Kafka {
    fn default() -> Self {
        Self { listen: HostPort::new("127.0.0.1", 9092), advertise: None }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            name: "ottla".into(),
            listen: HostPort::new("127.0.0.1", 9192),
            advertise: None,
            seeds: Vec::new(),
            balance: true,
            move_bytes_per_second: 50 << 20,
        }
    }
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            auto_create: true,
            partitions: 1,
            replication_factor: None,
            retention_ms: Some(7 * 24 * 3_600_000),
            retention_bytes: None,
            segment_bytes: 1 << 30,
        }
    }
}

impl Default for Groups {
    fn default() -> Self {
        Self {
            initial_rebalance_delay_ms: 3_000,
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            consumer_session_timeout_ms: 45_000,
            consumer_heartbeat_interval_ms: 5_000,
            members: 10_000,
            offsets_retention_minutes: 7 * 24 * 60,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            request_bytes: 100 << 20,
            in_flight_bytes: 256 << 20,
            fetch_bytes: 55 << 20,
            fetch_sessions: 1_000,
            idle_seconds: 600,
            frame_seconds: 30,
            producer_idle_seconds: 24 * 3_600,
            scrub_bytes_per_second: 1 << 20,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: Some(HostPort::new("127.0.0.1", 9644)) }
    }
}

/// One key: `section.name`, and how its value is read and stored. An error says what the value must be.
struct Key {
    section: &'static str,
    name: &'static str,
    set: fn(&mut Config, &Given<'_>) -> Result<(), String>,
}

const fn key(section: &'static str, name: &'static str, set: fn(&mut Config, &Given<'_>) -> Result<(), String>) -> Key {
    Key { section, name, set }
}

/// The key that has no default once there are to be other brokers.
const BROKER_ID: &str = "broker.id";

/// More keys than this and nobody knows them all.
const KEYS_MAX: usize = 40;
const _: () = assert!(KEYS.len() <= KEYS_MAX);

/// A frame's length is a signed integer of four bytes.
const FRAME_BYTES_MAX: u32 = i32::MAX.unsigned_abs();
/// The smallest request limit that lets a client's default batch (1 MiB) through, with room for its frame.
const REQUEST_BYTES_MIN: u32 = (1 << 20) + (64 << 10);
/// Segments below this would be all rolls and descriptors. Kafka's own minimum for `segment.bytes`.
const SEGMENT_BYTES_MIN: i32 = 1 << 20;

const KEYS: &[Key] = &[
    key("broker", "id", |c, v| v.number(0, i32::MAX).map(|id| c.broker.id = BrokerId(id))),
    key("broker", "data_dir", |c, v| v.text().map(|dir| c.broker.data_dir = dir.into())),
    key("broker", "rack", |c, v| v.text_or_empty().map(|rack| c.broker.rack = rack)),
    key("broker", "durability", |c, v| v.word(Durability::WORDS).map(|word| c.broker.durability = word)),
    key("kafka", "listen", |c, v| v.address().map(|address| c.kafka.listen = address)),
    key("kafka", "advertise", |c, v| v.address_or_empty().map(|address| c.kafka.advertise = address)),
    key("cluster", "name", |c, v| v.text().map(|name| c.cluster.name = name)),
    key("cluster", "listen", |c, v| v.address().map(|address| c.cluster.listen = address)),
    key("cluster", "advertise", |c, v| v.address_or_empty().map(|address| c.cluster.advertise = address)),
    key("cluster", "seeds", |c, v| v.addresses().map(|seeds| c.cluster.seeds = seeds)),
    key("cluster", "balance", |c, v| v.boolean().map(|yes| c.cluster.balance = yes)),
    key("cluster", "move_bytes_per_second", |c, v| v.number(0, 1 << 50).map(|n| c.cluster.move_bytes_per_second = n)),
    key("topics", "auto_create", |c, v| v.boolean().map(|yes| c.topics.auto_create = yes)),
    key("topics", "partitions", |c, v| v.number(1, 10_000).map(|n| c.topics.partitions = n)),
    key("topics", "replication_factor", |c, v| {
        v.number(0, i16::MAX).map(|n| c.topics.replication_factor = (n > 0).then_some(n))
    }),
    key("topics", "retention_ms", |c, v| v.number(-1, i64::MAX).map(|n| c.topics.retention_ms = (n >= 0).then_some(n))),
    key("topics", "retention_bytes", |c, v| {
        v.number(-1, i64::MAX).map(|n| c.topics.retention_bytes = (n >= 0).then_some(n))
    }),
    key("topics", "segment_bytes", |c, v| v.number(SEGMENT_BYTES_MIN, i32::MAX).map(|n| c.topics.segment_bytes = n)),
    key("groups", "initial_rebalance_delay_ms", |c, v| {
        v.number(0, 600_000).map(|n| c.groups.initial_rebalance_delay_ms = n)
    }),
    key("groups", "session_timeout_min_ms", |c, v| v.number(1, i32::MAX).map(|n| c.groups.session_timeout_min_ms = n)),
    key("groups", "session_timeout_max_ms", |c, v| v.number(1, i32::MAX).map(|n| c.groups.session_timeout_max_ms = n)),
    key("groups", "consumer_session_timeout_ms", |c, v| {
        v.number(1, 1_800_000).map(|n| c.groups.consumer_session_timeout_ms = n)
    }),
    key("groups", "consumer_heartbeat_interval_ms", |c, v| {
        v.number(1, 600_000).map(|n| c.groups.consumer_heartbeat_interval_ms = n)
    }),
    key("groups", "members", |c, v| v.number(1, 1_000_000).map(|n| c.groups.members = n)),
    key("groups", "offsets_retention_minutes", |c, v| {
        v.number(1, 52_560_000).map(|n| c.groups.offsets_retention_minutes = n)
    }),
    key("limits", "connections", |c, v| v.number(1, 1_000_000).map(|n| c.limits.connections = n)),
    key("limits", "request_bytes", |c, v| {
        v.number(REQUEST_BYTES_MIN, FRAME_BYTES_MAX).map(|n| c.limits.request_bytes = n)
    }),
    key("limits", "in_flight_bytes", |c, v| v.number(1 << 20, 1 << 50).map(|n| c.limits.in_flight_bytes = n)),
    key("limits", "fetch_bytes", |c, v| v.number(1 << 10, FRAME_BYTES_MAX / 2).map(|n| c.limits.fetch_bytes = n)),
    key("limits", "fetch_sessions", |c, v| v.number(0, 1_000_000).map(|n| c.limits.fetch_sessions = n)),
    key("limits", "idle_seconds", |c, v| v.number(1, 31_536_000).map(|n| c.limits.idle_seconds = n)),
    key("limits", "frame_seconds", |c, v| v.number(1, 3_600).map(|n| c.limits.frame_seconds = n)),
    key("limits", "producer_idle_seconds", |c, v| v.number(1, 31_536_000).map(|n| c.limits.producer_idle_seconds = n)),
    key("limits", "scrub_bytes_per_second", |c, v| v.number(0, 1 << 30).map(|n| c.limits.scrub_bytes_per_second = n)),
    key("log", "level", |c, v| v.levels().map(|level| c.log.level = level)),
    key("log", "format", |c, v| v.word(LogFormat::WORDS).map(|word| c.log.format = word)),
    key("admin", "listen", |c, v| v.address_or_empty().map(|address| c.admin.listen = address)),
];

impl Config {
    /// Reads a configuration: defaults, then the file, then the environment, then the flags, then checks it as a whole.
    ///
    /// # Errors
    /// Every problem found, in the order file, environment, flags, and then what does not fit together.
    pub fn load(sources: &Sources<'_>) -> Result<Self, Problems> {
        let mut config = Self::default();
        let (origins, mut problems) = read::read(sources, &mut config);
        if problems.is_empty() {
            if !config.cluster.seeds.is_empty() && !origins.contains_key(BROKER_ID) {
                let what = "must be set, and be another one on each broker, since cluster.seeds is set".to_owned();
                problems.push(Problem { origin: Origin::Default, key: BROKER_ID.into(), what, suggestion: None });
            }
            problems.extend(config.validate().into_iter().map(|(key, what)| {
                let origin = origins.get(key).cloned().unwrap_or(Origin::Default);
                Problem { origin, key: key.into(), what, suggestion: None }
            }));
        }
        if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
    }

    /// What is wrong with values that are each fine by themselves: the key to blame and a sentence.
    fn validate(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if self.kafka.listen.is_unspecified() && self.kafka.advertise.is_none() {
            found.push((
                "kafka.listen",
                format!(
                    "{} listens on every interface, so clients cannot be told where to connect; set kafka.advertise to the \
                     address that they reach this broker by, like advertise = \"broker-1.example.com:{}\"",
                    self.kafka.listen, self.kafka.listen.port
                ),
            ));
        }
        if self.kafka.advertise.as_ref().is_some_and(HostPort::is_unspecified) {
            found.push(("kafka.advertise", "clients cannot connect to an unspecified address".into()));
        }
        if !self.cluster.seeds.is_empty() && self.cluster.listen.is_unspecified() && self.cluster.advertise.is_none() {
            found.push((
                "cluster.listen",
                format!(
                    "{} listens on every interface, so the other brokers cannot be told where this one is; set cluster.advertise to the \
                     address that they reach it by, like advertise = \"broker-1.example.com:{}\"",
                    self.cluster.listen, self.cluster.listen.port
                ),
            ));
        }
        let pointless = self.cluster.advertise.iter().map(|it| ("cluster.advertise", it));
        for (key, address) in pointless.chain(self.cluster.seeds.iter().map(|it| ("cluster.seeds", it))) {
            if address.is_unspecified() {
                found.push((key, format!("other brokers cannot connect to {address}")));
            }
        }
        if let Some(seed) = self.cluster.seeds.iter().find(|seed| seed.port == 0) {
            found.push(("cluster.seeds", format!("{seed} has no port")));
        }
        found.extend(self.shared_addresses());
        if self.groups.session_timeout_max_ms < self.groups.session_timeout_min_ms {
            found.push((
                "groups.session_timeout_max_ms",
                format!(
                    "{} is less than groups.session_timeout_min_ms, {}: nobody could join a group",
                    self.groups.session_timeout_max_ms, self.groups.session_timeout_min_ms
                ),
            ));
        }
        let heartbeat_ms = i64::from(self.groups.consumer_heartbeat_interval_ms);
        if heartbeat_ms >= i64::from(self.groups.consumer_session_timeout_ms) {
            found.push((
                "groups.consumer_heartbeat_interval_ms",
                format!(
                    "{heartbeat_ms} is not less than groups.consumer_session_timeout_ms, {}: members would be taken for dead",
                    self.groups.consumer_session_timeout_ms
                ),
            ));
        }
        if self.limits.in_flight_bytes < u64::from(self.limits.request_bytes) {
            found.push((
                "limits.in_flight_bytes",
                format!(
                    "{} is less than limits.request_bytes, {}: the longest request could never be read",
                    self.limits.in_flight_bytes, self.limits.request_bytes
                ),
            ));
        }
        found
    }

    /// Listeners whose address another one has.
    fn shared_addresses(&self) -> Vec<(&'static str, String)> {
        let cluster = (!self.cluster.seeds.is_empty()).then_some(&self.cluster.listen);
        let all = [
            ("kafka.listen", Some(&self.kafka.listen)),
            ("cluster.listen", cluster),
            ("admin.listen", self.admin.listen.as_ref()),
        ];
        let fixed = all.map(|(key, address)| (key, address.filter(|address| address.port != 0)));
        let mut found = Vec::new();
        for (at, (key, address)) in fixed.iter().enumerate() {
            let Some(address) = address else { continue };
            if let Some((other, _)) = fixed[..at].iter().find(|(_, taken)| *taken == Some(*address)) {
                found.push((*key, format!("{address} is {other}'s address already")));
            }
        }
        found
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
