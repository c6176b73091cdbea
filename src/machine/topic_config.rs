//! Topic configs: which there are, what their values may be, and which value holds.
//!
//! Names, types, defaults and limits are Kafka 4.3's, so that every tool which sets one of them finds it; those that mean
//! nothing here are accepted and say so. Values are kept as the text that was set. A value holds in this order: the
//! topic's own, the broker's dynamic one, the cluster-wide dynamic one, the broker's from its file, the default.

mod table;

use std::collections::BTreeMap;

pub use table::DEFINITIONS;

/// Configs set, by name.
pub type Values = BTreeMap<String, String>;

/// The longest value that is stored, in bytes.
pub const VALUE_BYTES_MAX: usize = 32_767;

/// The type of a config's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// Text.
    String,
    /// A 32-bit number.
    Int,
    /// A 64-bit number.
    Long,
    /// A decimal number.
    Double,
    /// Text, with commas between its parts.
    List,
}

impl Kind {
    /// The number that Kafka gives the type in `DescribeConfigs`.
    #[must_use]
    pub const fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::String => "STRING",
            Self::Int => "INT",
            Self::Long => "LONG",
            Self::Double => "DOUBLE",
            Self::List => "LIST",
        }
    }
}

/// Which values of its type a config takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Valid {
    /// All.
    Any,
    /// Numbers from this one.
    AtLeast(i64),
    /// Numbers from the first to the second.
    Between(i64, i64),
    /// Decimals from 0 to 1.
    Ratio,
    /// -1, or 1 to 9.
    GzipLevel,
    /// One of these.
    OneOf(&'static [&'static str]),
    /// Any number of these.
    ListOf(&'static [&'static str]),
    /// `*`, or pairs partition:broker.
    Throttled,
}

/// One topic config.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Its name on a topic.
    pub name: &'static str,
    /// Its name on a broker, where it is the default for topics that do not set it.
    pub broker_name: Option<&'static str>,
    /// Whether the broker's config has the same default; else it has none and the topic's own counts.
    pub broker_default: bool,
    /// Its type.
    pub kind: Kind,
    /// Its default, as text.
    pub default: &'static str,
    /// What it takes.
    pub valid: Valid,
    /// What it does, for people.
    pub doc: &'static str,
}

/// Why a value is refused (Kafka: `INVALID_CONFIG`). Reads as Kafka's message does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// There is no such topic config.
    #[error("Unknown topic config name: {0}")]
    UnknownName(String),
    /// The text is no value of the type.
    #[error("Invalid value {value} for configuration {name}: Not a number of type {kind}")]
    NotANumber {
        /// The config.
        name: &'static str,
        /// What was given.
        value: String,
        /// The type's name.
        kind: &'static str,
    },
    /// A value outside the limits.
    #[error("Invalid value {value} for configuration {name}: {must}")]
    Value {
        /// The config.
        name: &'static str,
        /// What was given.
        value: String,
        /// What it must be.
        must: String,
    },
    /// An empty part of a list.
    #[error("Configuration '{0}' values must not be empty.")]
    EmptyPart(&'static str),
    /// Longer than what is stored.
    #[error(
        "The configuration value cannot be added because it exceeds the maximum value size of {VALUE_BYTES_MAX} bytes."
    )]
    TooLong,
    /// Tiered storage.
    #[error(
        "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."
    )]
    Tiered,
    /// Two values that exclude each other.
    #[error("conflict topic config setting min.compaction.lag.ms ({min}) > max.compaction.lag.ms ({max})")]
    CompactionLag {
        /// min.compaction.lag.ms.
        min: i64,
        /// max.compaction.lag.ms.
        max: i64,
    },
}

impl Definition {
    /// Checks a value by itself.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn check(&self, value: &str) -> Result<(), Invalid> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(Invalid::TooLong);
        }
        let value = value.trim();
        match self.kind {
            Kind::Boolean if value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false") => Ok(()),
            Kind::Boolean => Err(self.must(value, "Expected value to be either true or false")),
            Kind::Int => self.check_number(value, value.parse::<i32>().ok().map(i64::from)),
            Kind::Long => self.check_number(value, value.parse::<i64>().ok()),
            Kind::Double => self.check_ratio(value),
            Kind::String => match self.valid {
                Valid::OneOf(names) => self.check_one_of(value, names),
                _ => Ok(()),
            },
            Kind::List => self.check_list(value),
        }
    }

    /// Whether the value is a list, which can be added to and taken from.
    #[must_use]
    pub fn is_list(&self) -> bool {
        self.kind == Kind::List
    }

    fn must(&self, value: &str, must: impl Into<String>) -> Invalid {
        Invalid::Value { name: self.name, value: value.to_owned(), must: must.into() }
    }

    fn not_a_number(&self, value: &str) -> Invalid {
        Invalid::NotANumber { name: self.name, value: value.to_owned(), kind: self.kind.name() }
    }

    fn check_number(&self, value: &str, number: Option<i64>) -> Result<(), Invalid> {
        let number = number.ok_or_else(|| self.not_a_number(value))?;
        match self.valid {
            Valid::AtLeast(least) | Valid::Between(least, _) if number < least => {
                Err(self.must(value, format!("Value must be at least {least}")))
            }
            Valid::Between(_, most) if number > most => {
                Err(self.must(value, format!("Value must be no more than {most}")))
            }
            Valid::GzipLevel if number != -1 && !(1..=9).contains(&number) => {
                Err(self.must(value, "Value must be between 1 and 9 or equal to -1"))
            }
            _ => Ok(()),
        }
    }

    fn check_ratio(&self, value: &str) -> Result<(), Invalid> {
        let number: f64 = value.parse().map_err(|_| self.not_a_number(value))?;
        // Written so that NaN, which compares with nothing, is refused.
        if (0.0..=1.0).contains(&number) {
            return Ok(());
        }
        let must = if number > 1.0 { "Value must be no more than 1" } else { "Value must be at least 0" };
        Err(self.must(&format!("{number:?}"), must))
    }

    fn check_one_of(&self, value: &str, names: &[&str]) -> Result<(), Invalid> {
        if names.contains(&value) {
            return Ok(());
        }
        Err(self.must(value, format!("String must be one of: {}", names.join(", "))))
    }

    fn check_list(&self, value: &str) -> Result<(), Invalid> {
        match self.valid {
            Valid::Throttled if value.trim() != "*" && !parts(value).all(is_partition_and_broker) => {
                let must = format!(
                    "{} must be the literal '*' or a list of replicas in the following format: \
                     [partitionId]:[brokerId],[partitionId]:[brokerId],...",
                    self.name
                );
                Err(self.must(&format!("[{}]", parts(value).collect::<Vec<_>>().join(", ")), must))
            }
            Valid::ListOf(names) => parts(value).try_for_each(|part| match part {
                "" => Err(Invalid::EmptyPart(self.name)),
                part => self.check_one_of(part, names),
            }),
            _ => Ok(()),
        }
    }
}

/// The parts of a list; none of an empty one.
pub fn parts(list: &str) -> impl Iterator<Item = &str> {
    let list = list.trim();
    (!list.is_empty()).then(|| list.split(',').map(str::trim)).into_iter().flatten()
}

fn is_partition_and_broker(part: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    part.split_once(':').is_some_and(|(partition, broker)| number(partition) && number(broker))
}

/// The topic config of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Definition> {
    // The table is in order of names; a test holds it to that.
    DEFINITIONS.binary_search_by(|definition| definition.name.cmp(name)).ok().map(|at| &DEFINITIONS[at])
}

/// The topic config whose default the broker's config of that name is.
#[must_use]
pub fn find_by_broker_name(name: &str) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|definition| definition.broker_name == Some(name))
}

/// Checks all configs of a topic: each by itself, then those that must fit each other.
///
/// # Errors
/// The first thing that is wrong, by name.
pub fn check_topic(values: &Values) -> Result<(), Invalid> {
    for (name, value) in values {
        find(name).ok_or_else(|| Invalid::UnknownName(name.clone()))?.check(value)?;
    }
    let number = |name: &str| {
        let definition = find(name).expect("a name of the table");
        let value = values.get(name).map_or(definition.default, String::as_str);
        value.trim().parse::<i64>().expect("checked above")
    };
    let (min, max) = (number("min.compaction.lag.ms"), number("max.compaction.lag.ms"));
    if min > max {
        return Err(Invalid::CompactionLag { min, max });
    }
    if values.get("remote.storage.enable").is_some_and(|value| value.trim().eq_ignore_ascii_case("true")) {
        return Err(Invalid::Tiered);
    }
    Ok(())
}

/// Where a value comes from, with Kafka's numbers in `DescribeConfigs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Set on the topic.
    Topic,
    /// Set on the broker while it ran.
    DynamicBroker,
    /// Set for all brokers while they ran.
    DynamicDefaultBroker,
    /// In the broker's file.
    StaticBroker,
    /// Nobody set it.
    Default,
}

impl Source {
    /// Kafka's number.
    #[must_use]
    pub const fn code(self) -> i8 {
        match self {
            Self::Topic => 1,
            Self::DynamicBroker => 2,
            Self::DynamicDefaultBroker => 3,
            Self::StaticBroker => 4,
            Self::Default => 5,
        }
    }
}

/// What a broker says where a topic says nothing; all by the *broker's* names of the configs.
#[derive(Clone, Copy, Debug)]
pub struct BrokerValues<'a> {
    /// Set on this broker while it ran.
    pub dynamic: &'a Values,
    /// Set for all brokers while they ran.
    pub dynamic_default: &'a Values,
    /// In this broker's file.
    pub fixed: &'a Values,
}

/// A value, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// The config's name there: the topic's or the broker's.
    pub name: &'a str,
    /// The value's text.
    pub value: &'a str,
    /// Where it was set.
    pub source: Source,
}

/// All values of one config in the order in which they hold: the first does, the others are what Kafka calls its
/// synonyms. The last is the default where the broker's config has one of its own.
#[must_use]
pub fn synonyms<'a>(definition: &'static Definition, topic: &'a Values, broker: BrokerValues<'a>) -> Vec<Found<'a>> {
    let own = (definition.name, topic.get(definition.name), Source::Topic);
    let at_broker = definition.broker_name.into_iter().flat_map(|name| {
        [
            (name, broker.dynamic.get(name), Source::DynamicBroker),
            (name, broker.dynamic_default.get(name), Source::DynamicDefaultBroker),
            (name, broker.fixed.get(name), Source::StaticBroker),
        ]
    });
    let mut found: Vec<_> = std::iter::once(own)
        .chain(at_broker)
        .filter_map(|(name, value, source)| value.map(|value| Found { name, value, source }))
        .collect();
    if let (Some(name), true) = (definition.broker_name, definition.broker_default) {
        found.push(Found { name, value: definition.default, source: Source::Default });
    }
    found
}

/// The value that holds.
#[must_use]
pub fn effective<'a>(definition: &'static Definition, topic: &'a Values, broker: BrokerValues<'a>) -> Found<'a> {
    let default = Found { name: definition.name, value: definition.default, source: Source::Default };
    let first = synonyms(definition, topic, broker).into_iter().next();
    first.map_or(default, |first| Found { name: definition.name, ..first })
}

/// Whose time records carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// That of their arrival.
    LogAppendTime,
}

/// When a write counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once it is synced.
    #[default]
    Fsync,
    /// Once the operating system has it.
    PageCache,
}

/// The configs that the broker acts on, as values. Times in milliseconds, sizes in bytes; `None` is "without limit".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// `cleanup.policy` has `delete`.
    pub delete: bool,
    /// `cleanup.policy` has `compact`.
    pub compact: bool,
    /// `retention.ms`.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`.
    pub retention_bytes: Option<i64>,
    /// `segment.bytes`.
    pub segment_bytes: i64,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `max.message.bytes`.
    pub max_message_bytes: i64,
    /// `min.insync.replicas`.
    pub min_insync_replicas: i64,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `compression.type`: `None` keeps what the producer chose.
    pub compression: Option<crate::protocol::compression::Compression>,
    /// `ottla.durability`.
    pub durability: Durability,
    /// `flush.messages`.
    pub flush_messages: i64,
    /// `flush.ms`.
    pub flush_ms: i64,
}

impl TopicConfig {
    /// The values that hold. Text that is no value, which no checked config has, counts as not set.
    #[must_use]
    pub fn resolve(topic: &Values, broker: BrokerValues<'_>) -> Self {
        let text = |name: &str| {
            let definition = find(name).expect("a name of the table");
            let mut found = synonyms(definition, topic, broker).into_iter().map(|found| found.value);
            found.find(|value| definition.check(value).is_ok()).unwrap_or(definition.default).trim()
        };
        let number = |name: &str| text(name).parse::<i64>().expect("checked");
        let limit = |name: &str| Some(number(name)).filter(|limit| *limit >= 0);
        let policy = text("cleanup.policy");
        Self {
            delete: parts(policy).any(|part| part == "delete"),
            compact: parts(policy).any(|part| part == "compact"),
            retention_ms: limit("retention.ms"),
            retention_bytes: limit("retention.bytes"),
            segment_bytes: number("segment.bytes"),
            segment_ms: number("segment.ms"),
            max_message_bytes: number("max.message.bytes"),
            min_insync_replicas: number("min.insync.replicas"),
            timestamp_type: match text("message.timestamp.type") {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_max_ms: number("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: number("message.timestamp.after.max.ms"),
            compression: compression(text("compression.type")),
            durability: match text("ottla.durability") {
                "page-cache" => Durability::PageCache,
                _ => Durability::Fsync,
            },
            flush_messages: number("flush.messages"),
            flush_ms: number("flush.ms"),
        }
    }
}

fn compression(name: &str) -> Option<crate::protocol::compression::Compression> {
    use crate::protocol::compression::Compression;
    match name {
        "uncompressed" => Some(Compression::None),
        name => Compression::from_name(name),
    }
}

#[cfg(test)]
#[path = "topic_config_tests.rs"]
mod tests;
