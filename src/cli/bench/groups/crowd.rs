//! `ottla bench groups crowd`: many members come into one group, stay, and vanish; and what other groups feel of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::member::{self, Member, passes};
use crate::cli::bench::meter::{histogram, record};
use crate::cli::bench::process as proc;
use crate::cli::bench::setup::{Topic, runtime};
use crate::cli::client::{Client, Connection};
use crate::cli::connect::{Connect, Failure, Format, print_json, print_text, seconds};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::DescribeGroupsRequest;
use crate::protocol::value::Text;

/// Connections opened at the same time.
const OPENING: usize = 128;
/// Between two heartbeats of a member of the crowd: a client's default.
const HEARTBEAT: Duration = Duration::from_secs(3);
/// Between two heartbeats of the members that are watched.
const WATCHED_HEARTBEAT: Duration = Duration::from_millis(5);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// The state of a group without members.
const EMPTY: &str = "Empty";

/// Have many members join one group, and vanish; time the heartbeats of other groups meanwhile.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    topic: Topic,
    /// Members, each on a connection of its own.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    members: u32,
    /// How long they stay once each has a share.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    stay: Duration,
    /// For how long a member may be silent.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    session: Duration,
    /// Give up when they have not all got a share after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    patience: Duration,
    /// Report the memory of this process: the broker.
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connect: Connect,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    // Java's strings "Aa" and "BB" have the same hash: one coordinator has both groups, however many there are. The third is another's.
    let name = |tail: &str| format!("bench-{:x}-{tail}", crate::cli::bench::produce::seed());
    let base = name("");
    let group = |tail: &str| format!("{base}{tail}");
    let (topic, broker) = runtime()?.block_on(async {
        let mut client = args.connect.client().await?;
        let topic = member::Topic::of(&args.topic.ready(&mut client).await?);
        let broker = coordinator(&mut client, &group("Aa")).await?;
        Ok::<_, Failure>((topic, broker))
    })?;
    let watched = [("same_coordinator", group("BB")), ("other_coordinator", group("Ab"))];
    let member = |group: &str| Member::new(group, &topic, args.session);
    let watchers = watched.map(|(what, group)| (what, Watcher::start(&broker, member(&group), args.patience)));
    let told = runtime()?.block_on(crowd(args, &broker, &member(&group("Aa")), &watchers));
    let mut times = serde_json::Map::new();
    for (what, watcher) in watchers {
        times.insert(what.to_owned(), watcher.finish()?);
    }
    let mut told = told?;
    told["heartbeat_ms"] = Value::Object(times);
    match args.format {
        Format::Json => print_json(&told),
        Format::Table => print_text(&format!("{told:#}\n")),
    }
}

async fn coordinator(client: &mut Client, group: &str) -> Result<String, Failure> {
    let id = client.coordinator(group).await?;
    Ok(client.brokers().get(&id).cloned().unwrap_or_default())
}

/// What all members of the crowd share.
#[derive(Debug, Default)]
struct Crowd {
    /// How many have their share of each generation.
    settled: Mutex<BTreeMap<i32, u32>>,
    /// JoinGroups that were answered.
    joins: std::sync::atomic::AtomicU64,
    stop: AtomicBool,
}

impl Crowd {
    /// How many have a share of the newest generation.
    fn settled(&self) -> u32 {
        self.settled.lock().expect("no panic under the lock").last_key_value().map_or(0, |(_, count)| *count)
    }

    fn generations(&self) -> usize {
        self.settled.lock().expect("no panic under the lock").len()
    }
}

type Watchers = [(&'static str, Watcher); 2];

async fn crowd(args: &Args, broker: &str, member: &Member, watchers: &Watchers) -> Result<Value, Failure> {
    let memory = || args.broker_pid.map(|pid| proc::rss_anon(pid).map(|bytes| bytes / 1_000_000));
    let memory =
        || memory().transpose().map_err(|source| Failure::Io { what: "looking at a process in /proc", source });
    let cpu = || args.broker_pid.map(|pid| proc::cpu(pid).map(|cpu| cpu.as_secs_f64()));
    let cpu = || cpu().transpose().map_err(|source| Failure::Io { what: "looking at a process in /proc", source });
    let phase = |name: &'static str| watchers.iter().for_each(|(_, watcher)| watcher.phase(name));
    phase("before");
    sleep(Duration::from_secs(5)).await;
    let before = memory()?;
    phase("connecting");
    let connections = connect(args, broker).await?;
    let connected = memory()?;
    phase("joining");
    let (began, cpu_before) = (Instant::now(), cpu()?);
    let crowd = Arc::new(Crowd::default());
    let mut tasks = JoinSet::new();
    for connection in connections {
        tasks.spawn(stay(connection, member.clone(), Arc::clone(&crowd), args.patience));
    }
    while crowd.settled() < args.members {
        if began.elapsed() > args.patience {
            let problem = format!("{} of {} members have a share", crowd.settled(), args.members);
            return Err(Failure::Data { what: format!("group {}", member.group), problem });
        }
        if let Some(ended) = tasks.try_join_next() {
            ended.map_err(|error| Failure::Usage(format!("a member's task ended: {error}")))??;
        }
        sleep(LOOK).await;
    }
    let join_seconds = began.elapsed().as_secs_f64();
    let (joined, cpu_joined) = (memory()?, cpu()?);
    phase("staying");
    sleep(args.stay).await;
    let (stayed, cpu_stayed) = (memory()?, cpu()?);
    phase("vanishing");
    crowd.stop.store(true, Ordering::Relaxed);
    // Dropped where they stand: no LeaveGroup.
    tasks.shutdown().await;
    let began = Instant::now();
    until_empty(args, broker, &member.group).await?;
    let vanish_seconds = began.elapsed().as_secs_f64();
    let cpu_vanished = cpu()?;
    phase("after");
    sleep(Duration::from_secs(5)).await;
    let between = |from: Option<f64>, to: Option<f64>| from.zip(to).map(|(from, to)| to - from);
    Ok(json!({
        "members": args.members, "join_seconds": join_seconds, "joins": crowd.joins.load(Ordering::Relaxed),
        "generations": crowd.generations(), "empty_after_seconds": vanish_seconds,
        "broker_rss_anon_mb": {
            "before": before, "connected": connected, "joined": joined, "stayed": stayed, "after": memory()?,
        },
        "broker_cpu_s": {
            "joining": between(cpu_before, cpu_joined), "staying": between(cpu_joined, cpu_stayed),
            "vanishing": between(cpu_stayed, cpu_vanished),
        },
    }))
}

async fn connect(args: &Args, broker: &str) -> Result<Vec<Connection>, Failure> {
    let mut connections = Vec::with_capacity(args.members as usize);
    while connections.len() < args.members as usize {
        let count = OPENING.min(args.members as usize - connections.len());
        let opened = futures::future::join_all((0..count).map(|_| Connection::open(broker, args.connect.timeout)));
        for connection in opened.await {
            connections.push(connection?);
        }
    }
    Ok(connections)
}

/// One member of the crowd, for as long as it lasts.
async fn stay(
    mut connection: Connection,
    mut member: Member,
    crowd: Arc<Crowd>,
    patience: Duration,
) -> Result<(), Failure> {
    while !crowd.stop.load(Ordering::Relaxed) {
        let joined = member.join(&mut connection, patience).await?;
        crowd.joins.fetch_add(1, Ordering::Relaxed);
        let mut code = joined.error_code;
        if !code.is_error() {
            code = member.sync(&mut connection, &joined, patience).await?;
        }
        if !code.is_error() {
            *crowd.settled.lock().expect("no panic under the lock").entry(member.generation).or_default() += 1;
            code = beat(&mut connection, &member, &crowd, patience).await?;
        }
        if code.is_error() && !passes(code) {
            return Err(member.refused("a request", code).into());
        }
    }
    Ok(())
}

/// Sends heartbeats until one says that something has changed.
async fn beat(
    connection: &mut Connection,
    member: &Member,
    crowd: &Crowd,
    patience: Duration,
) -> Result<ErrorCode, Failure> {
    while !crowd.stop.load(Ordering::Relaxed) {
        sleep(HEARTBEAT).await;
        let code = connection.call(&member.heartbeat(), patience).await?.error_code;
        if code.is_error() {
            return Ok(code);
        }
    }
    Ok(ErrorCode::NONE)
}

async fn until_empty(args: &Args, broker: &str, group: &str) -> Result<(), Failure> {
    let mut connection = Connection::open(broker, args.connect.timeout).await?;
    let until = Instant::now() + args.session + args.patience;
    loop {
        let request = DescribeGroupsRequest { groups: vec![Text::from(group)], ..DescribeGroupsRequest::default() };
        let response = connection.call(&request, args.connect.timeout).await?;
        let state = response.groups.first().map(|group| group.group_state.to_string()).unwrap_or_default();
        if state == EMPTY {
            return Ok(());
        }
        if Instant::now() > until {
            return Err(Failure::Data { what: format!("group {group}"), problem: format!("it is still {state}") });
        }
        sleep(LOOK).await;
    }
}

/// Heartbeat times of a phase, by the phase's name.
type Times = BTreeMap<&'static str, Histogram<u64>>;

/// A member of another group, whose heartbeats are timed from when each was due.
struct Watcher {
    phase: Arc<Mutex<&'static str>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Times, Failure>>,
}

impl Watcher {
    fn start(broker: &str, member: Member, patience: Duration) -> Self {
        let (phase, stop) = (Arc::new(Mutex::new("before")), Arc::new(AtomicBool::new(false)));
        let (now, ends) = (Arc::clone(&phase), Arc::clone(&stop));
        let broker = broker.to_owned();
        let thread = thread::spawn(move || runtime()?.block_on(watch(&broker, member, patience, &now, &ends)));
        Self { phase, stop, thread }
    }

    fn phase(&self, name: &'static str) {
        *self.phase.lock().expect("no panic under the lock") = name;
    }

    fn finish(self) -> Result<Value, Failure> {
        self.stop.store(true, Ordering::Relaxed);
        let times = self.thread.join().map_err(|_| Failure::Usage("a watcher panicked".to_owned()))??;
        let ms = |nanos: u64| (Duration::from_nanos(nanos).as_secs_f64() * 1e6).round() / 1e3;
        let shown = |(phase, times): (_, Histogram<u64>)| {
            let of = |quantile| ms(times.value_at_quantile(quantile));
            (phase, json!({"p50": of(0.5), "p99": of(0.99), "max": ms(times.max())}))
        };
        Ok(times
            .into_iter()
            .map(shown)
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .map(|(a, b)| (a.to_owned(), b))
            .collect())
    }
}

async fn watch(
    broker: &str,
    mut member: Member,
    patience: Duration,
    phase: &Mutex<&'static str>,
    stop: &AtomicBool,
) -> Result<Times, Failure> {
    let mut connection = Connection::open(broker, patience).await?;
    member.enter(&mut connection, patience).await?;
    let (mut times, mut due) = (Times::new(), Instant::now());
    while !stop.load(Ordering::Relaxed) {
        sleep_until(due).await;
        let code = connection.call(&member.heartbeat(), patience).await?.error_code;
        if code.is_error() {
            return Err(member.refused("Heartbeat", code).into());
        }
        let phase = *phase.lock().expect("no panic under the lock");
        record(times.entry(phase).or_insert_with(histogram), due.elapsed());
        due += WATCHED_HEARTBEAT;
    }
    member.leave(&mut connection, patience).await?;
    Ok(times)
}
