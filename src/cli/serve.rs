//! `ottla serve`: runs a broker until it is told to stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::signal::unix::{SignalKind, signal};

use super::config::{LoadError, environment, load};
use super::{Exit, logging};
use crate::broker::{Broker, Env};
use crate::clock::SystemClock;
use crate::config::{Config, Flag};
use crate::flaws::Flaws;
use crate::log::mmap::{MmapDisk, MmapOptions};
use crate::net::TokioNetwork;

/// Run a broker.
#[derive(Debug, clap::Args)]
#[command(after_help = "Without a file: one node on 127.0.0.1:9092, data in ./ottla-data.\n\n\
Examples:\n  ottla serve\n  ottla serve --listen 127.0.0.1:0 --data-dir /tmp/ottla\n  ottla serve --config /etc/ottla.toml\n  \
OTTLA_BROKER_DURABILITY=page-cache ottla serve")]
pub struct Args {
    /// The configuration file; every key is in config/ottla.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything is stored (broker.data_dir).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where Kafka clients connect (kafka.listen); port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Die with the process of this id, which has started this one.
    #[arg(long, value_name = "PID", hide = true)]
    end_with: Option<i32>,
}

impl Args {
    /// The configuration: flags over the environment over the file.
    ///
    /// # Errors
    /// See [`load`].
    pub fn load(&self) -> Result<Config, LoadError> {
        let flags = [("--data-dir", "broker.data_dir", &self.data_dir), ("--listen", "kafka.listen", &self.listen)];
        let given = |(name, key, value): (_, _, &Option<String>)| Some(Flag { name, key, value: value.clone()? });
        load(self.config.as_deref(), environment(), flags.into_iter().filter_map(given).collect())
    }
}

/// Has the kernel kill this process when the one that started it ends, however that ends.
fn end_with(parent: i32) -> std::io::Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before the kernel knew.
    match getppid() {
        Some(now) if now.as_raw_nonzero().get() == parent => Ok(()),
        _ => Err(std::io::Error::other("it has not started this one, or has ended")),
    }
}

/// Descriptors kept for files and listeners when connections have taken the rest, or as many as a quarter of all.
const SPARE_DESCRIPTORS: u64 = 256;

/// Runs `ottla serve`.
#[must_use]
pub fn run(args: &Args) -> Exit {
    if let Some(parent) = args.end_with
        && let Err(error) = end_with(parent)
    {
        eprintln!("ottla: end with process {parent}: {error}");
        return Exit::Failed;
    }
    let config = match args.load() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return Exit::Usage;
        }
    };
    logging::init(&config.log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("ottla").build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "start the runtime");
            return Exit::Failed;
        }
    };
    let exit = runtime.block_on(serve(config));
    // Blocking work that is left (a name lookup) must not hold the exit up.
    runtime.shutdown_background();
    exit
}

async fn serve(mut config: Config) -> Exit {
    let started = Instant::now();
    config.limits.connections = fit_connections(config.limits.connections, raise_descriptor_limit());
    let disk = match MmapDisk::open(config.broker.data_dir.clone(), MmapOptions::default()) {
        Ok(disk) => Arc::new(disk),
        Err(error) => {
            tracing::error!(data_dir = %config.broker.data_dir.display(), %error, "open the data directory");
            return Exit::Failed;
        }
    };
    let env = Env {
        disk,
        network: Arc::new(TokioNetwork),
        clock: Arc::new(SystemClock),
        seed: rand::random(),
        boot_id: boot_id(),
        fatal: Arc::new(|fatal| {
            tracing::error!(
                reason = fatal.reason,
                "a sync failed: the broker stops without acknowledging anything more"
            );
            std::process::exit(Exit::DeviceFailed as i32);
        }),
        tamper: None,
        flaws: Flaws::NONE,
    };
    // Taken before the ready line: whoever reads it may stop the broker at once.
    let stop = match stop_signal() {
        Ok(stop) => stop,
        Err(error) => {
            tracing::error!(%error, "listen for signals");
            return Exit::Failed;
        }
    };
    let mut stop = std::pin::pin!(stop);
    let start = tokio::select! {
        biased;
        () = &mut stop => {
            tracing::info!("stopped before it was ready");
            return Exit::Done;
        }
        start = Broker::start(config, env) => start,
    };
    let broker = match start {
        Ok(broker) => broker,
        Err(error) => {
            tracing::error!(%error, "the broker does not start");
            return Exit::Failed;
        }
    };
    announce(&broker, started);
    let exit = tokio::select! {
        biased;
        () = &mut stop => {
            tracing::info!("stopping");
            Exit::Done
        }
        why = broker.expelled() => {
            tracing::error!(why, "the broker stops");
            Exit::Failed
        }
    };
    match broker.stop().await {
        Ok(()) => exit,
        Err(error) => {
            tracing::error!(%error, "the stop was not clean; the next start reads back what it must");
            Exit::Failed
        }
    }
}

/// The one line on stdout: clients can connect now.
fn announce(broker: &Broker, started: Instant) {
    let admin = broker.admin_address().map(|address| format!(" admin={address}")).unwrap_or_default();
    let kafka = broker.kafka_address();
    let cluster = broker.cluster_address().map(|address| format!(" cluster={address}")).unwrap_or_default();
    println!(
        "ottla {} ready kafka={kafka}{cluster}{admin} in_ms={}",
        env!("CARGO_PKG_VERSION"),
        started.elapsed().as_millis()
    );
}

fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Raises the soft limit of descriptors to the hard one; returns what there is.
fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "raise the limit of open files");
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// As many connections as configured, or as there are descriptors for: past that they are refused, not failed.
fn fit_connections(configured: u32, descriptors: u64) -> u32 {
    // A quarter of the descriptors belongs to log files.
    let quarter = descriptors / 4;
    let room = (descriptors - quarter - quarter.min(SPARE_DESCRIPTORS)).max(1);
    let fitting = u32::try_from(room).unwrap_or(u32::MAX).min(configured);
    if fitting < configured {
        tracing::warn!(configured, fitting, "limits.connections is more than the limit of open files allows");
    }
    fitting
}

/// The kernel's boot id. Without one, every start counts as after another boot: that is the safe side.
fn boot_id() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(id) => id.trim().to_owned(),
        Err(error) => {
            tracing::warn!(%error, "read the kernel's boot id");
            format!("unknown-{:016x}", rand::random::<u64>())
        }
    }
}
