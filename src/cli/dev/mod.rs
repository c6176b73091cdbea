//! `ottla dev`: a cluster on this machine, for as long as the command runs.
//!
//! Its brokers are processes of this very program, so that one of them can be killed. None outlives the command, however that ends.

mod brokers;
mod plan;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use super::Exit;
use super::connect::print_text;
use brokers::{Brokers, Event};
use plan::{BROKERS_MAX, Plan};

/// How long brokers may take to stop before they are killed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// Run a cluster on this machine until Ctrl-C.
///
/// Starts brokers as processes of their own, waits until all are ready, says how to connect, and shows what they log. Broker 1 takes the ports
/// 9092 (Kafka), 9192 (other brokers) and 9644 (metrics and probes), each further broker the next ones. Keys of the configuration can be
/// set for all of them in the environment, like OTTLA_LOG_LEVEL=warn.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ottla dev\n  ottla dev -n 1\n  ottla dev -n 5 --data-dir ./cluster\n  \
OTTLA_BROKER_DURABILITY=page-cache ottla dev --port 19092\n\n\
A broker may be killed to see what happens: the others go on, and the command that starts it again is shown.\n\n\
Exit codes: 0 stopped, 1 the cluster did not come about or no broker is left, 2 wrong arguments.")]
pub struct Args {
    /// How many brokers.
    #[arg(short, long, value_name = "BROKERS", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=BROKERS_MAX))]
    number: u16,
    /// Broker 1's port for Kafka clients; 100 more is its port for other brokers, 552 more that for metrics.
    #[arg(long, value_name = "PORT", default_value_t = 9092, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Where the brokers store their data, one directory each. Without it: in a temporary directory, removed at the end.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Why there is no cluster, or no more.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// More ports than there are.
    #[error("--port {port}: {number} brokers need ports up to {last}, and there are 65535")]
    Ports {
        /// The first.
        port: u16,
        /// How many brokers.
        number: u16,
        /// The last port needed.
        last: u32,
    },
    /// Ports that others have.
    #[error("{}; stop what listens there, or take other ports with --port", .0.join("; "))]
    InUse(Vec<String>),
    /// The directory is that of a larger cluster, most of which might stay away.
    #[error("{} holds the data of {found} brokers: start them all with -n {found}", dir.display())]
    MoreBrokers {
        /// The directory.
        dir: PathBuf,
        /// How many there are.
        found: u16,
    },
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A broker did not get ready.
    #[error("broker-{broker} ended before the cluster was ready ({how})")]
    NotReady {
        /// Which.
        broker: u16,
        /// Its exit code or signal.
        how: String,
    },
    /// All have ended.
    #[error("no broker is left")]
    NoneLeft,
}

impl DevError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Ports { .. } | Self::MoreBrokers { .. } => Exit::Usage,
            Self::InUse(_) | Self::Io { .. } | Self::NotReady { .. } | Self::NoneLeft => Exit::Failed,
        }
    }
}

/// Runs `ottla dev`.
#[must_use]
pub fn run(args: &Args) -> Exit {
    // On this thread alone: the brokers die with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime.map_err(DevError::io("start the runtime")) {
        Ok(runtime) => runtime.block_on(dev(args)),
        Err(error) => Err(error),
    };
    match ended {
        Ok(()) => Exit::Done,
        Err(error) => {
            say(format_args!("ottla: {error}"));
            error.exit()
        }
    }
}

async fn dev(args: &Args) -> Result<(), DevError> {
    let mut stop = Stop::listen().map_err(DevError::io("listen for signals"))?;
    let plan = Plan::new(args.number, args.port)?;
    plan.check_ports()?;
    let data = plan::Data::open(args.data_dir.as_deref(), args.number)?;
    let mut brokers = Brokers::start(&plan, data)?;
    let ended = attend(&plan, &mut brokers, &mut stop).await;
    say(format_args!("ottla: stopping"));
    wind_up(&mut brokers, &mut stop).await;
    ended
}

/// Shows what happens until the brokers shall stop.
async fn attend(plan: &Plan, brokers: &mut Brokers, stop: &mut Stop) -> Result<(), DevError> {
    let started = Instant::now();
    let mut is_ready = false;
    loop {
        let event = tokio::select! {
            biased;
            () = stop.asked() => return Ok(()),
            event = brokers.event() => event,
        };
        match event {
            Event::Line { broker, line } => say(format_args!("broker-{broker} | {line}")),
            Event::Ready => {}
            Event::Ended { broker, how, .. } if !is_ready => return Err(DevError::NotReady { broker, how }),
            Event::Ended { broker, how, .. } => {
                say(format_args!("ottla: broker-{broker} ended ({how})"));
                if brokers.running() == 0 {
                    return Err(DevError::NoneLeft);
                }
                let again = plan.command(broker, brokers.data());
                say(format_args!("ottla: the other brokers go on; this starts broker-{broker} again:\n  {again}"));
            }
        }
        if !is_ready && brokers.are_ready() {
            is_ready = true;
            // Who does not read it may still use the cluster.
            let _ = print_text(&plan.welcome(brokers, started.elapsed()));
        }
    }
}

/// Stops all brokers: asks them to, and kills those that have not within their time, or all when asked to stop once more.
async fn wind_up(brokers: &mut Brokers, stop: &mut Stop) {
    brokers.terminate();
    let mut late = std::pin::pin!(sleep(STOP_PATIENCE));
    while brokers.running() > 0 {
        let event = tokio::select! {
            biased;
            () = stop.asked() => return brokers.kill(),
            event = brokers.event() => event,
            () = &mut late => {
                say(format_args!("ottla: not all brokers stopped within {} s: killing them", STOP_PATIENCE.as_secs()));
                return brokers.kill();
            }
        };
        match event {
            Event::Line { broker, line } => say(format_args!("broker-{broker} | {line}")),
            Event::Ended { broker, how, is_clean: false } => {
                say(format_args!("ottla: broker-{broker} ended ({how})"));
            }
            Event::Ended { .. } | Event::Ready => {}
        }
    }
}

/// A line on stderr. That nobody reads it is no reason to fail.
fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// The signals that ask the command to stop.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Stop {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            biased;
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
