//! Counting while a load runs, and what came of it.
//!
//! Workers count into atomics and look at the phase; one watcher prints a line each second, takes a sample at the end of
//! the warm-up and at the end, and gives up when nothing moves any more. Only what lies between the samples counts.

use std::io;
use std::process;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::process as proc;
use crate::cli::connect::{Connect, Failure, Format, print_json, print_text, seconds};

/// The phases behind the warm-up, which is 0.
const MEASURING: u8 = 1;
const STOPPING: u8 = 2;

/// Between two looks at the workers.
const LOOK: Duration = Duration::from_millis(10);
/// Times above this are counted as this.
const HISTOGRAM_MAX_NS: u64 = 600_000_000_000;

/// What all loads are asked for.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Timing {
    /// Measure for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "20", value_parser = seconds)]
    pub(super) seconds: Duration,
    /// Run for so many seconds before that.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = warmup)]
    pub(super) warmup: Duration,
    /// Report the CPU time and memory of these processes: the brokers.
    #[arg(long, value_name = "PID,...", value_delimiter = ',')]
    pub(super) broker_pid: Vec<u32>,
    /// No line each second on stderr.
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

fn warmup(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "0s") { Ok(Duration::ZERO) } else { seconds(text) }
}

/// What the workers count.
#[derive(Debug, Default)]
pub(super) struct Meter {
    phase: AtomicU8,
    records: AtomicU64,
    bytes: AtomicU64,
    answers: AtomicU64,
    stopped: OnceLock<Instant>,
}

impl Meter {
    fn stop(&self) {
        let _ = self.stopped.set(Instant::now());
        self.phase.store(STOPPING, Ordering::Relaxed);
    }

    /// When the workers were told to end, if they were.
    pub(super) fn stopped(&self) -> Option<Instant> {
        self.stopped.get().copied()
    }

    /// Counts an answer of the broker, the records and bytes of batches it stands for.
    pub(super) fn count(&self, records: u64, bytes: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the workers are to go on.
    pub(super) fn runs(&self) -> bool {
        self.phase.load(Ordering::Relaxed) != STOPPING
    }

    /// Whether what happens now counts.
    pub(super) fn measures(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == MEASURING
    }

    fn sample(&self, brokers: &[u32]) -> io::Result<Sample> {
        let mut broker_cpu = Duration::ZERO;
        for pid in brokers {
            broker_cpu += proc::cpu(*pid)?;
        }
        Ok(Sample {
            at: Instant::now(),
            records: self.records.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            answers: self.answers.load(Ordering::Relaxed),
            own_cpu: proc::cpu(process::id())?,
            broker_cpu,
        })
    }
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    records: u64,
    bytes: u64,
    answers: u64,
    own_cpu: Duration,
    broker_cpu: Duration,
}

/// Times of one worker, in nanoseconds.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, HISTOGRAM_MAX_NS, 3).expect("the bounds are constants that fit")
}

/// Counts a time.
pub(super) fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(HISTOGRAM_MAX_NS));
}

/// A worker: a thread that returns its times when the meter stops.
pub(super) type Worker = JoinHandle<Result<Histogram<u64>, Failure>>;

/// Watches the workers through warm-up and measurement.
///
/// # Errors
/// The first worker's error; or that nothing moved for as long as a broker may take to answer.
pub(super) fn watch(
    meter: &Arc<Meter>,
    workers: Vec<Worker>,
    timing: &Timing,
    connect: &Connect,
) -> Result<Measured, Failure> {
    let proc_error = |source| Failure::Io { what: "looking at a process in /proc", source };
    let begin = meter.sample(&timing.broker_pid).map_err(proc_error)?;
    let mut progress = Progress { last: begin, moved: begin, second: 0, timing, patience: connect.timeout };
    progress.until(meter, &workers, begin.at + timing.warmup, "warm-up")?;
    let from = meter.sample(&timing.broker_pid).map_err(proc_error)?;
    meter.phase.store(MEASURING, Ordering::Relaxed);
    progress.until(meter, &workers, from.at + timing.seconds, "measured")?;
    let to = meter.sample(&timing.broker_pid).map_err(proc_error)?;
    meter.stop();
    let mut times = histogram();
    for worker in workers {
        let own = worker.join().map_err(|_| Failure::Usage("a worker panicked".to_owned()))??;
        times.add(own).expect("all histograms have the same bounds");
    }
    let rss_anon = timing.broker_pid.iter().map(|pid| proc::rss_anon(*pid)).sum::<io::Result<u64>>();
    Ok(Measured { from, to, times, rss_anon: rss_anon.map_err(proc_error)?, brokers: timing.broker_pid.len() })
}

/// The line each second, and the patience with workers that stand still.
struct Progress<'a> {
    last: Sample,
    moved: Sample,
    second: u64,
    timing: &'a Timing,
    patience: Duration,
}

impl Progress<'_> {
    fn until(&mut self, meter: &Meter, workers: &[Worker], end: Instant, phase: &str) -> Result<(), Failure> {
        while Instant::now() < end {
            thread::sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
            // A worker only ends early when it failed; joining it says how.
            if workers.iter().any(JoinHandle::is_finished) {
                meter.stop();
                return Ok(());
            }
            if self.last.at.elapsed() >= Duration::from_secs(1) {
                self.line(meter, phase)?;
            }
        }
        Ok(())
    }

    fn line(&mut self, meter: &Meter, phase: &str) -> Result<(), Failure> {
        let now = meter.sample(&[]).map_err(|source| Failure::Io { what: "looking at /proc/self", source })?;
        self.second += 1;
        let rate = Rates::between(&self.last, &now);
        if !self.timing.quiet {
            eprintln!(
                "{:>4} s  {phase}  {:>9.1} MB/s  {:>10.0} records/s  {:>8.0} answers/s",
                self.second, rate.megabytes, rate.records, rate.answers
            );
        }
        self.last = now;
        if now.answers > self.moved.answers {
            self.moved = now;
        } else if now.at - self.moved.at > self.patience {
            let idle = self.patience.as_secs_f64();
            let problem = format!("no answer from any broker for {idle} s");
            return Err(Failure::Data { what: "bench".to_owned(), problem });
        }
        Ok(())
    }
}

/// What is counted in one second.
struct Rates {
    megabytes: f64,
    records: f64,
    answers: f64,
}

impl Rates {
    fn between(from: &Sample, to: &Sample) -> Self {
        let seconds = (to.at - from.at).as_secs_f64();
        let rate = |from: u64, to: u64| float(to - from) / seconds;
        Self {
            megabytes: rate(from.bytes, to.bytes) / 1e6,
            records: rate(from.records, to.records),
            answers: rate(from.answers, to.answers),
        }
    }
}

/// Counters as numbers that can be divided; they stay far below 2^53.
fn float(count: u64) -> f64 {
    count as f64
}

/// What came of a load.
#[derive(Debug)]
pub(super) struct Measured {
    from: Sample,
    to: Sample,
    times: Histogram<u64>,
    rss_anon: u64,
    brokers: usize,
}

impl Measured {
    /// Prints it, with what the load was.
    ///
    /// # Errors
    /// If standard output takes no more.
    pub(super) fn print(&self, load: &str, settings: &Value, format: Format) -> Result<(), Failure> {
        match format {
            Format::Json => print_json(&self.json(load, settings)),
            Format::Table => print_text(&self.text(load)),
        }
    }

    fn quantiles(&self) -> [(&'static str, f64); 5] {
        let at = |quantile| float(self.times.value_at_quantile(quantile)) / 1e6;
        let max = float(self.times.max()) / 1e6;
        [("p50", at(0.5)), ("p90", at(0.9)), ("p99", at(0.99)), ("p99.9", at(0.999)), ("max", max)]
    }

    fn json(&self, load: &str, settings: &Value) -> Value {
        let rates = Rates::between(&self.from, &self.to);
        let gigabytes = float(self.to.bytes - self.from.bytes) / 1e9;
        let per_gb = |cpu: Duration| if gigabytes > 0.0 { Some(round(cpu.as_secs_f64() / gigabytes)) } else { None };
        let answers = self.to.answers - self.from.answers;
        let per_1000 =
            |cpu: Duration| if answers > 0 { Some(round(cpu.as_secs_f64() / float(answers) * 1e3)) } else { None };
        let own = self.to.own_cpu - self.from.own_cpu;
        let broker = self.to.broker_cpu - self.from.broker_cpu;
        let seconds = (self.to.at - self.from.at).as_secs_f64();
        let mut result = json!({
            "load": load, "settings": settings, "seconds": round(seconds),
            "records": self.to.records - self.from.records, "bytes": self.to.bytes - self.from.bytes,
            "answers": answers,
            "mb_per_s": round(rates.megabytes), "records_per_s": round(rates.records), "answers_per_s": round(rates.answers),
            "own_cpu_s": round(own.as_secs_f64()), "own_cpu_s_per_gb": per_gb(own),
            "own_cpu_s_per_1000": per_1000(own), "own_cores": round(own.as_secs_f64() / seconds),
        });
        if !self.times.is_empty() {
            result["latency_ms"] =
                self.quantiles().iter().map(|(name, ms)| ((*name).to_owned(), json!(round(*ms)))).collect();
        }
        if self.brokers > 0 {
            result["broker_cpu_s"] = json!(round(broker.as_secs_f64()));
            result["broker_cpu_s_per_gb"] = json!(per_gb(broker));
            result["broker_cpu_s_per_1000"] = json!(per_1000(broker));
            result["broker_cores"] = json!(round(broker.as_secs_f64() / seconds));
            result["broker_rss_anon_mb"] = json!(round(float(self.rss_anon) / 1e6));
        }
        result
    }

    fn text(&self, load: &str) -> String {
        let json = self.json(load, &Value::Null);
        let number = |key: &str| json[key].as_f64().unwrap_or(f64::NAN);
        let (rate, time) = (number("answers_per_s"), number("seconds"));
        // Some loads carry no records.
        let has_bytes = self.to.bytes > self.from.bytes;
        let mut text = if has_bytes {
            let (bytes, records) = (number("mb_per_s"), number("records_per_s"));
            format!("{load}: {bytes:.1} MB/s, {records:.0} records/s, {rate:.0} answers/s, measured for {time:.1} s\n")
        } else {
            format!("{load}: {rate:.0} answers/s, measured for {time:.1} s\n")
        };
        if !self.times.is_empty() {
            let quantiles = self.quantiles().map(|(name, ms)| format!("{name} {ms:.2}")).join("  ");
            text.push_str(&format!("latency ms: {quantiles}\n"));
        }
        let mut cpu = |who: &str, prefix: &str| {
            let (per, what) = if has_bytes { ("gb", "GB") } else { ("1000", "1,000 answers") };
            let (cores, cost) = (number(&format!("{prefix}_cores")), number(&format!("{prefix}_cpu_s_per_{per}")));
            text.push_str(&format!("{who}: {cores:.2} cores, {cost:.3} CPU-s/{what}\n"));
        };
        cpu("generator", "own");
        if self.brokers > 0 {
            cpu("broker", "broker");
            text.push_str(&format!("broker memory: {:.0} MB anonymous\n", number("broker_rss_anon_mb")));
        }
        text
    }
}

/// To a thousandth: more digits say nothing.
fn round(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}
