//! The brokers' processes: started, listened to, stopped. None is left when their owner is dropped.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::DevError;
use super::plan::{Data, Plan};

/// Lines that wait to be shown; who logs more waits.
const EVENTS_MAX: usize = 256;
/// How the line begins that says a broker is ready.
const READY: &str = concat!("ottla ", env!("CARGO_PKG_VERSION"), " ready ");

/// What the brokers do.
pub(super) enum Event {
    /// One logs a line.
    Line {
        /// Which.
        broker: u16,
        /// The line.
        line: String,
    },
    /// One is ready.
    Ready,
    /// One has ended.
    Ended {
        /// Which.
        broker: u16,
        /// Its exit code or signal.
        how: String,
        /// Whether it stopped in order.
        is_clean: bool,
    },
}

/// What is read from a broker.
enum Heard {
    Logged(String),
    Said(String),
    Nothing,
}

struct Broker {
    pid: u32,
    is_ready: bool,
    /// None when it has ended.
    process: Option<Child>,
}

/// All of them. Their data outlives them: fields are dropped in this order.
pub(super) struct Brokers {
    all: Vec<Broker>,
    heard: mpsc::Receiver<(u16, Heard)>,
    readers: JoinSet<()>,
    data: Data,
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It may have ended by itself; there is nobody to tell.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Brokers {
    /// Starts the brokers of a plan.
    ///
    /// # Errors
    /// If a process cannot be started; none is left then.
    pub(super) fn start(plan: &Plan, data: Data) -> Result<Self, DevError> {
        let (tell, heard) = mpsc::channel(EVENTS_MAX);
        let mut brokers = Self { all: Vec::new(), heard, readers: JoinSet::new(), data };
        for id in plan.brokers() {
            let doing = || DevError::io(format!("start broker-{id}"));
            let program = std::env::current_exe().map_err(doing())?;
            let mut command = Command::new(program);
            command.args(["serve", "--end-with", &std::process::id().to_string()]);
            command.env("OTTLA_KAFKA_ADVERTISE", "").env("OTTLA_CLUSTER_ADVERTISE", "");
            command.envs(plan.environment(id, &brokers.data));
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            // A process group of its own: the terminal's Ctrl-C is for us alone, who stop all in order.
            let mut process = command.process_group(0).spawn().map_err(doing())?;
            let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
            brokers.all.push(Broker { pid: process.id(), is_ready: false, process: Some(process) });
            let (stdout, stderr) = stdout.zip(stderr).expect("both are pipes");
            let stdout = Receiver::from_owned_fd(stdout.into()).map_err(doing())?;
            let stderr = Receiver::from_owned_fd(stderr.into()).map_err(doing())?;
            brokers.readers.spawn(listen(id, stdout, stderr, tell.clone()));
        }
        Ok(brokers)
    }

    /// Where they store their data.
    pub(super) fn data(&self) -> &Data {
        &self.data
    }

    /// A broker's process id, also of one that has ended.
    pub(super) fn pid(&self, broker: u16) -> u32 {
        self.all[usize::from(broker) - 1].pid
    }

    /// How many are running.
    pub(super) fn running(&self) -> usize {
        self.all.iter().filter(|broker| broker.process.is_some()).count()
    }

    /// Whether all have become ready.
    pub(super) fn are_ready(&self) -> bool {
        self.all.iter().all(|broker| broker.is_ready)
    }

    /// What happens next; only while one is running. Dropped half way, it loses nothing.
    pub(super) async fn event(&mut self) -> Event {
        let (id, heard) = self.heard.recv().await.expect("each broker's end is told once, while it counts as running");
        let broker = &mut self.all[usize::from(id) - 1];
        match heard {
            Heard::Said(line) if line.starts_with(READY) => {
                broker.is_ready = true;
                Event::Ready
            }
            Heard::Said(line) | Heard::Logged(line) => Event::Line { broker: id, line },
            Heard::Nothing => {
                let process = broker.process.take();
                // Both its pipes are closed: it is ending, and this does not wait for long.
                let (how, is_clean) = match process.expect("a broker ends once").wait() {
                    Ok(status) => (status.to_string(), status.success()),
                    Err(error) => (error.to_string(), false),
                };
                Event::Ended { broker: id, how, is_clean }
            }
        }
    }

    /// Asks all to stop.
    pub(super) fn terminate(&self) {
        for process in self.all.iter().filter_map(|broker| broker.process.as_ref()) {
            // Not waited for yet, so the id is still its own; one that has just ended needs no signal.
            let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
            let _ = kill_process(pid.expect("process ids are positive"), Signal::TERM);
        }
    }

    /// Kills all that are left.
    pub(super) fn kill(&mut self) {
        self.all.clear();
    }
}

/// Passes on what a broker prints, until it prints no more.
async fn listen(id: u16, stdout: Receiver, stderr: Receiver, tell: mpsc::Sender<(u16, Heard)>) {
    tokio::join!(lines(id, stdout, Heard::Said, &tell), lines(id, stderr, Heard::Logged, &tell));
    // The only error: nobody listens any more.
    let _ = tell.send((id, Heard::Nothing)).await;
}

async fn lines(id: u16, from: impl AsyncRead + Unpin, heard: fn(String) -> Heard, tell: &mpsc::Sender<(u16, Heard)>) {
    let mut from = BufReader::new(from);
    loop {
        let mut line = Vec::new();
        match from.read_until(b'\n', &mut line).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        if tell.send((id, heard(line))).await.is_err() {
            return;
        }
    }
}
