//! Consumer groups in `/metrics`: how far behind they are, by group and topic.
//!
//! What is shown is handed in as a whole before each scrape. How many series that makes is for whoever counts to bound: names are labels here.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// How far a group has come in one topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Partitions for which it has committed an offset.
    pub partitions: u64,
    /// The sum of these offsets.
    pub committed: u64,
    /// Records that it has not read, of those that are still there.
    pub lag: u64,
    /// The same, of the partition that has the most.
    pub lag_max: u64,
}

/// What is known of the groups that this broker coordinates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupFigures {
    /// How many groups are in each state.
    pub states: BTreeMap<String, u64>,
    /// Members of all groups.
    pub members: u64,
    /// By group and topic.
    pub standings: BTreeMap<(String, String), Standing>,
    /// Pairs of a group and a topic that `standings` had no room for.
    pub left_out: u64,
}

/// What is shown of groups.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<GroupFigures>);

impl Groups {
    pub(super) fn show(&self, figures: GroupFigures) {
        *self.0.lock().expect("no panic under the lock") = figures;
    }
}

const RECORDS: &str = "records";

/// The metrics of each standing: name, help, unit, and what it shows.
type Column = (&'static str, &'static str, Option<&'static str>, fn(&Standing) -> u64);
const COLUMNS: [Column; 4] = [
    ("group_lag", "Records that a group has not read of a topic, of those still there", Some(RECORDS), |it| it.lag),
    ("group_lag_max", "The same, of the partition that has the most", Some(RECORDS), |it| it.lag_max),
    ("group_committed", "Sum of the offsets that a group has committed in a topic", Some(RECORDS), |it| it.committed),
    ("group_committed_partitions", "Partitions of a topic that a group has committed offsets of", None, |it| {
        it.partitions
    }),
];

impl Collector for Groups {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let figures = self.0.lock().expect("no panic under the lock");
        let gauge = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let mut groups = encoder.encode_descriptor("groups", "Groups, by state", None, MetricType::Gauge)?;
        for (state, count) in &figures.states {
            gauge(*count).encode(groups.encode_family(&[("state", state.as_str())])?)?;
        }
        let mut single =
            |name, help, value| gauge(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?);
        single("group_members", "Members of all groups", figures.members)?;
        let what =
            "Pairs of a group and a topic that are not shown, because there are too many or the name is too long";
        single("group_topics_left_out", what, figures.left_out)?;
        for (name, help, unit, of) in COLUMNS {
            let unit = unit.map(|unit| Unit::Other(unit.to_owned()));
            let mut column = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
            for ((group, topic), standing) in &figures.standings {
                let labels = [("group", group.as_str()), ("topic", topic.as_str())];
                gauge(of(standing)).encode(column.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
