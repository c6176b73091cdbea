//! What topics get from this broker's file where they say nothing themselves.

use crate::config::{Config, Durability};
use crate::machine::topic_config::Values;

/// The defaults for topics that this broker's file sets, by the broker's names of the configs.
#[must_use]
pub(super) fn file_values(config: &Config) -> Values {
    let default = Config::default();
    let (topics, usual) = (&config.topics, &default.topics);
    let unlimited = |value: Option<i64>| value.unwrap_or(-1).to_string();
    let durability = |config: &Config| match config.broker.durability {
        Durability::Fsync => "fsync",
        Durability::PageCache => "page-cache",
    };
    let mut values = Values::new();
    let mut set = |name: &str, value: String, usual: String| {
        if value != usual {
            values.insert(name.to_owned(), value);
        }
    };
    set("log.retention.ms", unlimited(topics.retention_ms), unlimited(usual.retention_ms));
    set("log.retention.bytes", unlimited(topics.retention_bytes), unlimited(usual.retention_bytes));
    set("log.segment.bytes", topics.segment_bytes.to_string(), usual.segment_bytes.to_string());
    set("ottla.durability", durability(config).to_owned(), durability(&default).to_owned());
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_file_changes_counts_as_set() {
        let mut config = Config::default();
        assert_eq!(file_values(&config), Values::new());
        config.topics.retention_ms = None;
        config.broker.durability = Durability::PageCache;
        let values = file_values(&config);
        assert_eq!(values.len(), 2);
        assert_eq!(values["log.retention.ms"], "-1");
        assert_eq!(values["ottla.durability"], "page-cache");
    }
}
