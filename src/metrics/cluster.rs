//! The cluster in `/metrics`, as this broker sees it: what is shown is handed in as a whole before each scrape.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// How far a broker is behind in partitions that this one leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Partitions in which it lacks something that their leader had a moment ago.
    pub partitions: u64,
    /// Entries of the log that it lacks of the partition of which it lacks most.
    pub entries_max: u64,
}

/// What is known of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterFigures {
    /// Brokers that belong to it.
    pub brokers: u64,
    /// Those of them that are heard, this one included.
    pub brokers_heard: u64,
    /// Whether this broker leads the cluster's metadata.
    pub is_controller: bool,
    /// Partitions that this broker leads and serves.
    pub led: u64,
    /// Of its partitions, those that nobody is known to lead.
    pub leaderless: u64,
    /// Of those that it leads, those with a replica that is away or behind.
    pub under_replicated: u64,
    /// Of those that it leads, those whose replicas are on their way.
    pub moving: u64,
    /// Other brokers that are behind.
    pub lag: BTreeMap<i32, Lag>,
    /// How often another broker was not heard for too long.
    pub suspicions: u64,
    /// How often this broker stood for election, in any partition.
    pub elections: u64,
}

/// What is shown of the cluster.
#[derive(Debug, Default)]
pub(super) struct Cluster(Mutex<ClusterFigures>);

impl Cluster {
    pub(super) fn show(&self, figures: ClusterFigures) {
        *self.0.lock().expect("no panic under the lock") = figures;
    }
}

type Single = (&'static str, &'static str, fn(&ClusterFigures) -> u64);
const GAUGES: [Single; 7] = [
    ("cluster_brokers", "Brokers that belong to the cluster", |it| it.brokers),
    ("cluster_brokers_heard", "Brokers that are heard, this one included", |it| it.brokers_heard),
    ("cluster_controller", "1 if this broker leads the cluster's metadata", |it| u64::from(it.is_controller)),
    ("partitions_led", "Partitions that this broker leads and serves", |it| it.led),
    ("partitions_leaderless", "Partitions of this broker that nobody is known to lead", |it| it.leaderless),
    ("partitions_under_replicated", "Partitions led here with a replica that is away or behind", |it| {
        it.under_replicated
    }),
    ("partitions_moving", "Partitions led here whose replicas are on their way", |it| it.moving),
];
const COUNTERS: [Single; 2] = [
    ("cluster_suspicions", "How often another broker was not heard for too long", |it| it.suspicions),
    ("cluster_elections", "How often this broker stood for election in a partition", |it| it.elections),
];
type Column = (&'static str, &'static str, fn(&Lag) -> u64);
const COLUMNS: [Column; 2] = [
    ("replication_behind_partitions", "Partitions led here in which a broker is behind", |it| it.partitions),
    (
        "replication_lag_max_entries",
        "Entries that a broker lacks of the partition led here of which it lacks most",
        |it| it.entries_max,
    ),
];

impl Collector for Cluster {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let figures = self.0.lock().expect("no panic under the lock");
        let gauge = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        for (name, help, of) in GAUGES {
            gauge(of(&figures)).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        for (name, help, of) in COUNTERS {
            let counter = ConstCounter::new(of(&figures));
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        for (name, help, of) in COLUMNS {
            let mut column = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (broker, lag) in &figures.lag {
                gauge(of(lag)).encode(column.encode_family(&[("broker", broker.to_string())])?)?;
            }
        }
        Ok(())
    }
}
