//! The real binary with its log, hostile peers, and an honest client that works beside them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ottla::ids::TopicId;
use ottla::protocol::messages::FetchRequest;
use ottla::protocol::messages::fetch::{FetchPartition, FetchTopic};

use crate::client::{Client, batch, produce};

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long the honest client may wait for one answer, whatever others do: its requests are served, not merely survived. Far above
/// what a loaded machine takes, far below the time that a hostile frame may take.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// What the broker has said on stderr so far.
#[derive(Default)]
struct Said {
    lines: Mutex<Vec<String>>,
    more: Condvar,
}

impl Said {
    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        // A test that fails under the lock has the lines shown all the same.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_words(&self) -> String {
        let lines = self.lines();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

/// A broker in a process of its own.
pub struct Broker {
    process: Child,
    pub address: SocketAddr,
    said: Arc<Said>,
    _data: tempfile::TempDir,
}

impl Broker {
    /// Starts one with these keys set in its environment, like `LIMITS_CONNECTIONS`.
    pub fn start(keys: &[(&str, &str)]) -> Self {
        Self::launch(Command::new(env!("CARGO_BIN_EXE_ottla")), keys)
    }

    /// Starts one that may have so many files open, and may not ask for more.
    pub fn start_with_descriptors(descriptors: u32, keys: &[(&str, &str)]) -> Self {
        let mut command = Command::new("sh");
        let binary = env!("CARGO_BIN_EXE_ottla");
        command.args(["-c", "ulimit -n \"$1\" && shift && exec \"$@\"", "sh", &descriptors.to_string(), binary]);
        Self::launch(command, keys)
    }

    fn launch(mut command: Command, keys: &[(&str, &str)]) -> Self {
        let data = tempfile::tempdir().unwrap();
        command.arg("serve").arg("--data-dir").arg(data.path().join("data")).args(["--listen", "127.0.0.1:0"]);
        command.env("OTTLA_ADMIN_LISTEN", "").env("OTTLA_TOPICS_RETENTION_MS", "-1");
        command.env("OTTLA_LOG_LEVEL", "info,ottla::server=debug,openraft=error");
        command.envs(keys.iter().map(|(key, value)| (format!("OTTLA_{key}"), *value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let (said, heard) = (Arc::<Said>::default(), BufReader::new(process.stderr.take().unwrap()));
        let listening = Arc::clone(&said);
        std::thread::spawn(move || {
            for line in heard.lines().map_while(Result::ok) {
                listening.lines().push(line);
                listening.more.notify_all();
            }
        });
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let ready = lines.next().and_then(Result::ok).unwrap_or_else(|| panic!("{}", said.last_words()));
        let address = ready.split(' ').find_map(|field| field.strip_prefix("kafka=")).unwrap().parse().unwrap();
        Self { process, address, said, _data: data }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    pub fn peer(&self) -> Peer {
        Peer::connect(self.address)
    }

    /// Waits until the broker has said a line that holds all of these.
    pub fn wait_for_line(&self, parts: &[&str]) {
        let until = Instant::now() + PATIENCE;
        let mut lines = self.said.lines();
        while !lines.iter().any(|line| parts.iter().all(|part| line.contains(part))) {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the log has no line with {parts:?}");
            lines = self.said.more.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// What it has said that holds `part`.
    pub fn lines_with(&self, part: &str) -> Vec<String> {
        self.said.lines().iter().filter(|line| line.contains(part)).cloned().collect()
    }

    /// Memory that it holds and could not give back by dropping caches: all but mapped files.
    pub fn anonymous_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
    }

    /// An honest client that works from now on.
    pub fn beside(&self) -> Beside {
        Beside::start(self.address)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("the broker's last words:\n{}", self.said.last_words());
        }
    }
}

/// A bare connection.
pub struct Peer {
    pub stream: TcpStream,
}

impl Peer {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    /// How the broker's log names it.
    pub fn name(&self) -> String {
        self.stream.local_addr().unwrap().to_string()
    }

    /// Sends bytes, as many as are taken: the broker may have closed meanwhile.
    pub fn send(&mut self, bytes: &[u8]) -> &mut Self {
        let _ = self.stream.write_all(bytes);
        self
    }

    /// Sends no more, and goes on reading.
    pub fn half_close(&mut self) -> &mut Self {
        let _ = self.stream.shutdown(Shutdown::Write);
        self
    }

    /// What comes until the broker closes the connection. One that it resets is closed too.
    pub fn read_to_close(&mut self) -> Vec<u8> {
        let mut got = Vec::new();
        match self.stream.read_to_end(&mut got) {
            Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("not closed: {error}"),
            _ => got,
        }
    }
}

/// The honest client's topic.
const TOPIC: &str = "honest";

/// Produces to and reads from its topic, one record at a time, until it is told to stop.
pub struct Beside {
    stop: Arc<AtomicBool>,
    turns: Arc<(Mutex<i64>, Condvar)>,
    thread: Option<JoinHandle<Client>>,
    topic: TopicId,
}

impl Beside {
    fn start(address: SocketAddr) -> Self {
        let mut client = Client::connect(address);
        let topic = client.create_topic(TOPIC, 1);
        let (stop, turns) = (Arc::<AtomicBool>::default(), Arc::<(Mutex<i64>, Condvar)>::default());
        let (stopping, turned) = (Arc::clone(&stop), Arc::clone(&turns));
        let thread = std::thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                let turn = *turned.0.lock().unwrap();
                let began = Instant::now();
                assert_eq!(client.produce(TOPIC, 0, 1, 100), turn, "every record acknowledged so far is there");
                assert_eq!(first_offset(&mut client, topic, turn), Some(turn));
                assert!(began.elapsed() < ANSWER_MAX, "the honest client had to wait {:?}", began.elapsed());
                *turned.0.lock().unwrap() += 1;
                turned.1.notify_all();
            }
            client
        });
        Self { stop, turns, thread: Some(thread), topic }
    }

    /// Waits until it has written and read so many more records, begun from now on.
    pub fn must_go_on(&self, records: i64) {
        let mut turn = self.turns.0.lock().unwrap();
        // The one under way may have begun before.
        let wanted = *turn + 1 + records;
        let until = Instant::now() + PATIENCE;
        while *turn < wanted {
            assert!(!self.thread.as_ref().unwrap().is_finished(), "the honest client has failed");
            assert!(Instant::now() < until, "the honest client goes on");
            turn = self.turns.1.wait_timeout(turn, Duration::from_millis(100)).unwrap().0;
        }
    }

    /// Ends its work; everything that was acknowledged is there.
    pub fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let mut client = self.thread.take().unwrap().join().unwrap();
        let records = *self.turns.0.lock().unwrap();
        for offset in 0..records {
            assert_eq!(
                first_offset(&mut client, self.topic, offset),
                Some(offset),
                "lost-write: {offset} of {records}"
            );
        }
    }
}

/// The offset of the first record read from there on.
fn first_offset(client: &mut Client, topic_id: TopicId, offset: i64) -> Option<i64> {
    let partition = FetchPartition { fetch_offset: offset, partition_max_bytes: 1, ..Default::default() };
    let topic = FetchTopic { topic_id, partitions: vec![partition], ..Default::default() };
    let request = FetchRequest { max_bytes: 1, session_epoch: -1, topics: vec![topic], ..Default::default() };
    let response = client.ask(&request);
    let records = response.responses[0].partitions[0].records.clone()?.into_bytes();
    records.first_chunk().map(|base| i64::from_be_bytes(*base))
}

/// A whole frame: size, API key, version, correlation id 1, no client id, and a body. Flexible headers' tags belong to the body.
pub fn frame(key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut frame = announced(i32::try_from(body.len() + 10).unwrap(), key, version);
    frame.extend_from_slice(body);
    frame
}

/// The front of a frame that says it is so long.
pub fn announced(size: i32, key: i16, version: i16) -> Vec<u8> {
    let mut front = size.to_be_bytes().to_vec();
    front.extend_from_slice(&key.to_be_bytes());
    front.extend_from_slice(&version.to_be_bytes());
    front.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff]);
    front
}

/// A good Produce request of one record, as it goes over the wire.
pub fn produce_frame(topic: &str, acks: i16) -> Vec<u8> {
    let request = produce(topic, 0, acks, batch(1000, 1, 100));
    ottla::protocol::frame::encode_request(11, 1, None, &request).unwrap().concat()
}
