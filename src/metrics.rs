//! What the broker counts, under names that stay: `ottla_<subsystem>_<what>_<unit>[_total]`.
//!
//! A leaf: whoever counts is handed an `Arc<Metrics>`. On the way of a request there are only atomics: the counters of each API are
//! looked up by its key in a table made at the start, never by label. Labels are API and error names, so their number is bounded; names of
//! groups and topics are labels only in what [`GroupFigures`] says, which is bounded where it is counted.

mod cluster;
mod groups;

pub use cluster::{ClusterFigures, Lag};
pub use groups::{GroupFigures, Standing};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::{Registry, Unit};

/// A number on the wire and the name it is shown by.
pub type Named = (i16, &'static str);

/// The label for a key or code that the tables do not have.
const UNKNOWN: &str = "unknown";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabels {
    api: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    api: &'static str,
    error: &'static str,
}

struct ApiMetrics {
    name: &'static str,
    requests: Counter,
    duration: Histogram,
}

/// What is counted for each API.
struct Apis {
    /// In the order of `slots`; one more is for keys that the table does not have.
    rows: Vec<ApiMetrics>,
    /// Ascending.
    slots: Vec<Named>,
    errors: Family<ErrorLabels, Counter>,
    /// Ascending.
    error_names: Vec<Named>,
}

impl Apis {
    fn register(kafka: &mut Registry, apis: &[Named], error_names: &[Named]) -> Self {
        let requests = Family::<ApiLabels, Counter>::default();
        let durations = Family::<ApiLabels, Histogram, fn() -> Histogram>::new_with_constructor(Histogram::of_seconds);
        let errors = Family::<ErrorLabels, Counter>::default();
        kafka.register("requests", "Requests read, by API", requests.clone());
        kafka.register("request_errors", "Errors in responses, by API and error code", errors.clone());
        let what = "From a request's last byte read to its response being ready, by API";
        kafka.register_with_unit("request_duration", what, Unit::Seconds, durations.clone());
        let resolve = |name: &'static str| {
            let labels = ApiLabels { api: name };
            let (requests, duration) = (requests.get_or_create_owned(&labels), durations.get_or_create_owned(&labels));
            ApiMetrics { name, requests, duration }
        };
        let (mut slots, mut error_names) = (apis.to_vec(), error_names.to_vec());
        slots.sort_unstable();
        error_names.sort_unstable();
        let rows = slots.iter().map(|(_, name)| *name).chain([UNKNOWN]).map(resolve).collect();
        Self { rows, slots, errors, error_names }
    }

    fn row(&self, key: i16) -> &ApiMetrics {
        // About twenty pairs, searched in halves: cheaper than a hash.
        &self.rows[find(&self.slots, key).unwrap_or(self.slots.len())]
    }
}

/// Everything that is counted.
pub struct Metrics {
    registry: Registry,
    apis: Apis,
    /// Connections of Kafka clients that are open.
    pub connections_open: Gauge,
    /// Connections closed at once because too many were open, or not accepted for want of descriptors.
    pub connections_refused: Counter,
    received_bytes: Counter,
    sent_bytes: Counter,
    produce_batches: Counter,
    produce_bytes: Counter,
    /// Batches that an idempotent producer sent again and that were answered with their first offset.
    pub produce_duplicate_batches: Counter,
    fetch_bytes: Counter,
    flush_duration: Histogram,
    flush_bytes: Histogram,
    /// How often the start of a partition's log moved: retention and DeleteRecords.
    pub log_start_moves: Counter,
    /// Writes refused because the disk had no room.
    pub storage_full: Counter,
    /// Ranges of a log found damaged.
    pub corrupt_ranges: Counter,
    /// Damaged ranges that are whole again, with what another replica held.
    pub mended_ranges: Counter,
    /// Bytes that the scrub has read.
    pub scrubbed_bytes: Counter,
    /// Entries that the scrub found damaged on the device and whole in memory, and that were written again.
    pub rewritten_entries: Counter,
    /// Partitions of this broker that are served.
    pub partitions_online: Gauge,
    /// Partitions of this broker that are not served: damaged, or without a leader.
    pub partitions_offline: Gauge,
    groups: Arc<groups::Groups>,
    cluster: Arc<cluster::Cluster>,
}

impl Metrics {
    /// All at zero. `apis` and `errors` name the API keys and error codes to be shown; others are counted as `unknown`.
    #[must_use]
    pub fn new(apis: &[Named], errors: &[Named]) -> Self {
        let mut registry = Registry::with_prefix("ottla");
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running binary", version);

        let kafka = registry.sub_registry_with_prefix("kafka");
        let apis = Apis::register(kafka, apis, errors);
        let connections_open = gauge(kafka, "connections", "Open connections");
        let connections_refused = counter(kafka, "connections_refused", "Connections closed at once for want of room");
        let received_bytes = bytes(kafka, "received", "Bytes read from clients");
        let sent_bytes = bytes(kafka, "sent", "Bytes written to clients");

        let produce = registry.sub_registry_with_prefix("produce");
        let produce_batches = counter(produce, "batches", "Record batches handed in by producers");
        let produce_bytes = bytes(produce, "records", "Bytes of record batches handed in by producers");
        let what = "Batches sent again by an idempotent producer and answered with their first offset";
        let produce_duplicate_batches = counter(produce, "duplicate_batches", what);
        let fetch = registry.sub_registry_with_prefix("fetch");
        let fetch_bytes = bytes(fetch, "records", "Bytes of record batches given to consumers");

        let log = registry.sub_registry_with_prefix("log");
        let (flush_duration, flush_bytes) = (Histogram::of_seconds(), Histogram::of_bytes());
        log.register_with_unit("flush_duration", "Syncs of a log to its device", Unit::Seconds, flush_duration.clone());
        log.register_with_unit("flush_size", "Bytes made durable by one flush", Unit::Bytes, flush_bytes.clone());
        let log_start_moves = counter(log, "start_moves", "Moves of a log's start by retention or DeleteRecords");
        let storage_full = counter(log, "storage_full", "Writes refused because the disk had no room");
        let corrupt_ranges = counter(log, "corrupt_ranges", "Damaged ranges found");
        let what = "Damaged ranges that are whole again, with what another replica held";
        let mended_ranges = counter(log, "mended_ranges", what);
        let scrubbed_bytes = bytes(log, "scrubbed", "Bytes read in the background to find damage");
        let what = "Entries damaged on the device and whole in memory, written again";
        let rewritten_entries = counter(log, "rewritten_entries", what);
        let partitions = registry.sub_registry_with_prefix("partitions");
        let partitions_online = gauge(partitions, "online", "Partitions of this broker that are served");
        let partitions_offline = gauge(partitions, "offline", "Partitions of this broker that are not served");
        let groups = Arc::new(groups::Groups::default());
        registry.register_collector(Box::new(Arc::clone(&groups)));
        let cluster = Arc::new(cluster::Cluster::default());
        registry.register_collector(Box::new(Arc::clone(&cluster)));

        Self {
            registry,
            apis,
            connections_open,
            connections_refused,
            received_bytes,
            sent_bytes,
            produce_batches,
            produce_bytes,
            produce_duplicate_batches,
            fetch_bytes,
            flush_duration,
            flush_bytes,
            log_start_moves,
            storage_full,
            corrupt_ranges,
            mended_ranges,
            scrubbed_bytes,
            rewritten_entries,
            partitions_online,
            partitions_offline,
            groups,
            cluster,
        }
    }

    /// Shows this of the groups from now on.
    pub fn show_groups(&self, figures: GroupFigures) {
        self.groups.show(figures);
    }

    /// Shows this of the cluster from now on.
    pub fn show_cluster(&self, figures: ClusterFigures) {
        self.cluster.show(figures);
    }

    /// A request of that API was read.
    pub fn request(&self, api_key: i16) {
        self.apis.row(api_key).requests.inc();
    }

    /// A request of that API was answered this long after it was read.
    pub fn answered(&self, api_key: i16, after: Duration) {
        self.apis.row(api_key).duration.observe_duration(after);
    }

    /// A response of that API carries an error code. `0` is none and not counted.
    pub fn error(&self, api_key: i16, code: i16) {
        if code != 0 {
            let names = &self.apis.error_names;
            let error = find(names, code).map_or(UNKNOWN, |at| names[at].1);
            self.apis.errors.get_or_create(&ErrorLabels { api: self.apis.row(api_key).name, error }).inc();
        }
    }

    /// So many bytes were read from a Kafka client.
    pub fn received(&self, bytes: usize) {
        self.received_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// So many bytes were written to a Kafka client.
    pub fn sent(&self, bytes: usize) {
        self.sent_bytes.inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// A producer handed in a batch of that size.
    pub fn produced(&self, bytes: u64) {
        self.produce_batches.inc();
        self.produce_bytes.inc_by(bytes);
    }

    /// A consumer was given batches of that size.
    pub fn fetched(&self, bytes: u64) {
        self.fetch_bytes.inc_by(bytes);
    }

    /// A flush took that long and made that many bytes durable.
    pub fn flushed(&self, took: Duration, bytes: u64) {
        self.flush_duration.observe_duration(took);
        self.flush_bytes.observe(bytes);
    }

    /// All of it in the OpenMetrics text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("writing into a string does not fail");
        out
    }
}

fn find(sorted: &[Named], key: i16) -> Option<usize> {
    sorted.binary_search_by_key(&key, |(key, _)| *key).ok()
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn bytes(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register_with_unit(name, help, Unit::Bytes, counter.clone());
    counter
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

/// A histogram of atomics with fixed bounds: the library's own takes a lock for each observation.
#[derive(Clone, Debug)]
struct Histogram(Arc<HistogramInner>);

#[derive(Debug)]
struct HistogramInner {
    /// Upper bounds, ascending, in the unit that is observed; one more bucket has none.
    bounds: &'static [u64],
    buckets: Vec<AtomicU64>,
    sum: AtomicU64,
    /// How many observed units one shown unit has.
    units: f64,
}

/// From 50 microseconds to 10 seconds.
const BOUNDS_NANOS: [u64; 17] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];
const NANOS_A_SECOND: f64 = 1e9;
/// From 1 KiB to 64 MiB.
const BOUNDS_BYTES: [u64; 9] = [1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26];

impl Histogram {
    fn new(bounds: &'static [u64], units: f64) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(HistogramInner { bounds, buckets, sum: AtomicU64::new(0), units }))
    }

    fn of_seconds() -> Self {
        Self::new(&BOUNDS_NANOS, NANOS_A_SECOND)
    }

    fn of_bytes() -> Self {
        Self::new(&BOUNDS_BYTES, 1.0)
    }

    fn observe(&self, value: u64) {
        let inner = &*self.0;
        inner.buckets[inner.bounds.partition_point(|bound| *bound < value)].fetch_add(1, Relaxed);
        inner.sum.fetch_add(value, Relaxed);
    }

    fn observe_duration(&self, duration: Duration) {
        self.observe(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder) -> std::fmt::Result {
        let inner = &*self.0;
        let shown = |value: u64| to_float(value) / inner.units;
        let bounds = inner.bounds.iter().map(|bound| shown(*bound)).chain([f64::INFINITY]);
        // Each bucket is read once, so that count and buckets agree whatever is observed meanwhile.
        let buckets: Vec<(f64, u64)> = bounds.zip(inner.buckets.iter().map(|bucket| bucket.load(Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(shown(inner.sum.load(Relaxed)), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[expect(clippy::cast_precision_loss, reason = "a metric's reader does not miss the 54th bit")]
fn to_float(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(&[(3, "Metadata"), (0, "Produce")], &[(0, "NONE"), (-1, "UNKNOWN_SERVER_ERROR")])
    }

    #[track_caller]
    fn assert_line(metrics: &Metrics, line: &str) {
        let text = metrics.encode();
        assert!(text.lines().any(|present| present == line), "{line} is not in\n{text}");
    }

    #[test]
    fn requests_are_counted_by_api_and_errors_by_name() {
        let metrics = metrics();
        metrics.request(0);
        metrics.request(0);
        metrics.request(999);
        metrics.error(3, -1);
        metrics.error(3, 0);
        metrics.error(3, 12_345);
        assert_line(&metrics, "ottla_kafka_requests_total{api=\"Produce\"} 2");
        assert_line(&metrics, "ottla_kafka_requests_total{api=\"Metadata\"} 0");
        assert_line(&metrics, "ottla_kafka_requests_total{api=\"unknown\"} 1");
        assert_line(&metrics, "ottla_kafka_request_errors_total{api=\"Metadata\",error=\"UNKNOWN_SERVER_ERROR\"} 1");
        assert_line(&metrics, "ottla_kafka_request_errors_total{api=\"Metadata\",error=\"unknown\"} 1");
        assert!(!metrics.encode().contains("NONE"));
    }

    #[test]
    fn latencies_fall_into_the_bucket_at_or_above_them() {
        let metrics = metrics();
        metrics.answered(0, Duration::from_millis(1));
        metrics.answered(0, Duration::from_micros(1_001));
        metrics.answered(0, Duration::from_secs(60));
        let bucket = |le: &str, n: u32| {
            assert_line(
                &metrics,
                &format!("ottla_kafka_request_duration_seconds_bucket{{le=\"{le}\",api=\"Produce\"}} {n}"),
            );
        };
        bucket("0.0005", 0);
        bucket("0.001", 1);
        bucket("0.0025", 2);
        bucket("10.0", 2);
        bucket("+Inf", 3);
        assert_line(&metrics, "ottla_kafka_request_duration_seconds_count{api=\"Produce\"} 3");
    }

    #[test]
    fn names_are_what_dashboards_rely_on() {
        let metrics = metrics();
        metrics.produce_duplicate_batches.inc();
        metrics.produced(61);
        metrics.fetched(5);
        metrics.received(70);
        metrics.sent(8);
        metrics.flushed(Duration::from_millis(2), 70_000);
        metrics.connections_open.inc();
        metrics.partitions_offline.set(4);
        for line in [
            "ottla_build_info{version=\"0.1.0\"} 1",
            "ottla_produce_duplicate_batches_total 1",
            "ottla_produce_batches_total 1",
            "ottla_produce_records_bytes_total 61",
            "ottla_fetch_records_bytes_total 5",
            "ottla_log_flush_duration_seconds_count 1",
            "ottla_log_flush_size_bytes_bucket{le=\"262144.0\"} 1",
            "ottla_kafka_connections 1",
            "ottla_kafka_connections_refused_total 0",
            "ottla_kafka_received_bytes_total 70",
            "ottla_kafka_sent_bytes_total 8",
            "ottla_log_start_moves_total 0",
            "ottla_log_storage_full_total 0",
            "ottla_log_corrupt_ranges_total 0",
            "ottla_partitions_online 0",
            "ottla_partitions_offline 4",
        ] {
            assert_line(&metrics, line);
        }
        assert!(!metrics.encode().contains("_total_total"));
    }

    #[test]
    fn each_metric_is_in_the_document() {
        let document = include_str!("../docs/metrics.md");
        let text = metrics().encode();
        let of_type = |line: &str| line.strip_prefix("# TYPE ").map(|rest| rest.replace(" counter", "_total "));
        let names: Vec<String> = text.lines().filter_map(of_type).collect();
        assert!(names.len() > 20, "{names:?}");
        for name in names.iter().map(|name| name.split(' ').next().expect("it is not empty")) {
            let name = if name == "ottla_build" { "ottla_build_info" } else { name };
            assert!(document.contains(&format!("`{name}`")), "{name}");
        }
    }
}
