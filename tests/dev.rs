//! `ottla dev` as a developer uses it: the real binary, its brokers, what is left when it ends.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(120);
/// From a broker's port for Kafka clients to its two others.
const OTHER_PORTS: [u16; 2] = [100, 552];

/// The command, running and ready.
struct Dev {
    process: Child,
    port: u16,
    /// Of the brokers.
    pids: Vec<i32>,
    home: tempfile::TempDir,
}

impl Dev {
    /// Starts so many brokers on ports that nobody has, and waits until they are ready.
    fn start(number: u16, arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("tmp")).unwrap();
        Self::start_in(home, number, arguments)
    }

    fn start_in(home: tempfile::TempDir, number: u16, arguments: &[&str]) -> Self {
        // Somebody may take a port between our look and the broker's: then with others.
        for port in free_ports(number).take(10) {
            let mut process = command(&home, number, port, arguments).spawn().unwrap();
            let said = lines(process.stdout.take().unwrap());
            let mut pids = Vec::new();
            while let Ok(line) = said.recv_timeout(PATIENCE) {
                let mut words = line.split_whitespace();
                if words.next().is_some_and(|word| word.starts_with("broker-")) && words.next() == Some("pid") {
                    pids.push(words.next().unwrap().parse().unwrap());
                }
                if line.ends_with("Ctrl-C stops everything.") {
                    assert_eq!(pids.len(), usize::from(number));
                    return Self { process, port, pids, home };
                }
            }
            process.kill().unwrap();
            process.wait().unwrap();
            let logged = fs::read_to_string(home.path().join("stderr")).unwrap();
            assert!(logged.contains("in use"), "the cluster is not ready:\n{logged}");
        }
        panic!("somebody always takes our ports");
    }

    fn logged(&self) -> String {
        fs::read_to_string(self.home.path().join("stderr")).unwrap()
    }

    fn address(&self, broker: u16) -> String {
        format!("127.0.0.1:{}", self.port + broker - 1)
    }

    /// Runs a command that asks that broker first.
    fn ottla(&self, broker: u16, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
        command.args(arguments).env("OTTLA_BROKERS", self.address(broker));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        process.wait_with_output().unwrap()
    }

    /// What it prints; it must succeed.
    fn said(&self, broker: u16, arguments: &[&str], input: &str) -> String {
        let output = self.ottla(broker, arguments, input);
        assert!(output.status.success(), "{arguments:?} at broker {broker}: {output:?}\n{}", self.logged());
        String::from_utf8(output.stdout).unwrap()
    }

    /// The records of a topic as that broker's clients find them, sorted.
    fn read(&self, broker: u16, topic: &str) -> Vec<String> {
        let text = self.said(broker, &["consume", topic, "--offset", "start", "--exit-at-end"], "");
        let mut records: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
        records.sort();
        records
    }

    /// Waits until that broker says of the cluster what is expected. How the command ends goes with it.
    fn status(&self, broker: u16, is_expected: impl Fn(&Value) -> bool) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        loop {
            let output = self.ottla(broker, &["cluster", "status", "--format", "json"], "");
            let status = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
            if is_expected(&status) {
                return output.status.code();
            }
            assert!(Instant::now() < until, "{output:?}\n{}", self.logged());
        }
    }

    /// Sends the command a signal and waits for its end.
    fn end(&mut self, signal: Signal) -> ExitStatus {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        self.process.wait().unwrap()
    }

    /// Waits until none of the brokers is left.
    fn expect_no_broker(&self) {
        let until = Instant::now() + PATIENCE;
        while let Some(pid) = self.pids.iter().find(|pid| is_running(**pid)) {
            assert!(Instant::now() < until, "process {pid} is left:\n{}", self.logged());
        }
    }

    /// What it has left in the directory for temporary files.
    fn left_behind(&self) -> Vec<PathBuf> {
        fs::read_dir(self.home.path().join("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // A test that failed half way leaves nothing either: the brokers end with the command.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(home: &tempfile::TempDir, number: u16, port: u16, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    command.args(["dev", "-n", &number.to_string(), "--port", &port.to_string()]).args(arguments);
    command.env("TMPDIR", home.path().join("tmp")).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(File::create(home.path().join("stderr")).unwrap());
    command
}

/// First ports of which so many brokers' ports are free; below those that the system gives to whoever asks for any.
fn free_ports(number: u16) -> impl Iterator<Item = u16> {
    // Tests that run at the same time begin at different ones: both would find the same free.
    static LOOKS: AtomicU16 = AtomicU16::new(0);
    let look = LOOKS.fetch_add(1, Ordering::Relaxed) % 16;
    let first = (u16::try_from(std::process::id() % 20_000).unwrap() + 1_250 * look) % 20_000;
    let candidates = (0..20_000).step_by(11).map(move |step| 10_000 + (first + step) % 20_000);
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    candidates.filter(move |port| {
        (0..number)
            .map(|broker| port + broker)
            .all(|port| is_free(port) && OTHER_PORTS.iter().all(|other| is_free(port + other)))
    })
}

/// The lines of a stream, as they come.
fn lines(stream: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    told
}

/// Whether a process does anything still: one that nobody has waited for does not.
fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn three_brokers_share_topics_outlive_one_of_them_and_end_with_ctrl_c() {
    let mut dev = Dev::start(3, &[]);
    for broker in 1..=3 {
        let topic = &format!("by-{broker}");
        dev.said(broker, &["topic", "create", topic, "--partitions", "3", "--replication-factor", "3"], "");
        dev.said(broker, &["produce", topic], "one\nthree\ntwo\n");
        (1..=3).for_each(|reader| assert_eq!(dev.read(reader, topic), ["one", "three", "two"], "read at {reader}"));
    }
    let all_is_well = |status: &Value| status["healthy"] == true && status["partitions"] == 9;
    (1..=3).for_each(|broker| assert_eq!(dev.status(broker, all_is_well), Some(0)));

    kill_process(Pid::from_raw(dev.pids[2]).unwrap(), Signal::KILL).unwrap();
    let is_down = |status: &Value| status["brokers"][2]["is_up"] == false;
    let is_taken_over = |status: &Value| is_down(status) && status["leaderless_partitions"] == 0;
    for broker in 1..=2 {
        assert_eq!(dev.status(broker, is_taken_over), Some(1));
        dev.said(broker, &["produce", "by-3"], &format!("without-3-by-{broker}\n"));
    }
    let expected = ["one", "three", "two", "without-3-by-1", "without-3-by-2"];
    (1..=2).for_each(|reader| assert_eq!(dev.read(reader, "by-3"), expected));
    let logged = dev.logged();
    assert!(logged.contains("broker-3 ended (signal: 9 (SIGKILL))"), "{logged}");
    assert!(logged.contains("OTTLA_BROKER_ID='3'"), "how to start it again is said: {logged}");
    assert!(logged.lines().any(|line| line.starts_with("broker-1 | ")), "{logged}");

    let ended = dev.end(Signal::INT);
    assert_eq!(ended.code(), Some(0), "{}", dev.logged());
    // It has waited for them.
    assert!(dev.pids.iter().all(|pid| !is_running(*pid)), "{:?}", dev.pids);
    assert_eq!(dev.left_behind(), Vec::<PathBuf>::new());
}

#[test]
fn one_broker_is_enough_and_a_data_directory_is_kept() {
    let data = tempfile::tempdir().unwrap();
    let arguments = ["--data-dir", data.path().to_str().unwrap()];
    let mut dev = Dev::start(1, &arguments);
    dev.said(1, &["produce", "kept"], "here\n");
    let watched = dev.said(1, &["cluster", "status", "--watch", "--exit-when-healthy", "--format", "json"], "");
    let last: Value = serde_json::from_str(watched.lines().last().unwrap()).unwrap();
    assert_eq!((&last["healthy"], &last["brokers"][0]["leaders"]), (&Value::Bool(true), &Value::from(1)), "{watched}");
    assert_eq!(dev.end(Signal::TERM).code(), Some(0), "{}", dev.logged());
    let dev = Dev::start(1, &arguments);
    assert_eq!(dev.read(1, "kept"), ["here"]);
    assert_eq!(dev.left_behind(), Vec::<PathBuf>::new());
}

#[test]
fn brokers_end_with_a_command_that_is_killed() {
    let mut dev = Dev::start(2, &[]);
    assert!(dev.pids.iter().all(|pid| is_running(*pid)));
    assert_eq!(dev.end(Signal::KILL).code(), None);
    dev.expect_no_broker();
}

#[test]
fn a_port_in_use_is_named_before_anything_is_started() {
    let home = tempfile::tempdir().unwrap();
    fs::create_dir(home.path().join("tmp")).unwrap();
    let port = free_ports(2).next().unwrap();
    let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port + 101)).unwrap();
    let status = command(&home, 2, port, &[]).stdout(Stdio::null()).status().unwrap();
    let logged = fs::read_to_string(home.path().join("stderr")).unwrap();
    assert_eq!(status.code(), Some(1), "{logged}");
    assert!(logged.contains(&format!("port {} (broker-2, for other brokers) is in use", port + 101)), "{logged}");
    assert!(!logged.contains("broker-1 | "), "{logged}");
}
