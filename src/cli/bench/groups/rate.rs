//! `ottla bench groups commit|heartbeat|join`: as many as the coordinators take.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::json;

use super::member::{self, Member, committed};
use super::{Share, check_offsets, shares};
use crate::cli::bench::meter::{Meter, Timing, histogram, record, watch};
use crate::cli::bench::produce::seed;
use crate::cli::bench::setup::{Topic, runtime, start, threads};
use crate::cli::client::Connection;
use crate::cli::connect::{Connect, Failure};
use crate::protocol::error_code::ErrorCode;
use crate::protocol::wire::Request;

/// Long enough for members that show themselves once in a round of all groups; Kafka's brokers allow no longer ones.
const SESSION: Duration = Duration::from_secs(300);

/// Members that enter at the same time.
const ENTERING: usize = 256;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    Commit,
    Heartbeat,
    Join,
}

impl Load {
    fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Heartbeat => "heartbeat",
            Self::Join => "join",
        }
    }
}

/// The load.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    topic: Topic,
    /// Groups, of one member each.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    groups: u32,
    /// Connections; each works for its share of the groups in turn.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: u32,
    /// Requests under way on each connection, of different groups. Not for joins.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    in_flight: u32,
    /// Offsets in each commit.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    offsets: u32,
    /// Threads of the generator.
    #[arg(long)]
    threads: Option<usize>,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    connect: Connect,
}

/// One connection's work.
struct Job {
    share: Share,
    members: Vec<Member>,
    load: Load,
    in_flight: usize,
    offsets: i64,
    patience: Duration,
    meter: Arc<Meter>,
}

pub(super) fn run(load: Load, args: &Args) -> Result<(), Failure> {
    check_offsets(args.offsets, &args.topic)?;
    // Groups that nobody has used: what others have left is not measured.
    let prefix = format!("bench-{:x}", seed());
    let shares = runtime()?.block_on(async {
        let mut client = args.connect.client().await?;
        let topic = member::Topic::of(&args.topic.ready(&mut client).await?);
        let mut entered = Vec::new();
        for share in shares(&mut client, &prefix, args.groups, args.connections).await? {
            let members: Vec<Member> =
                share.groups.iter().map(|(_, group)| Member::new(group, &topic, SESSION)).collect();
            entered.push((share, members));
        }
        // Before anything is timed: a broker lets the first member of a group wait for others.
        if load != Load::Join {
            enter(&mut entered, args.connect.timeout).await?;
        }
        Ok::<_, Failure>(entered)
    })?;
    let meter = Arc::new(Meter::default());
    let job = |(share, members)| Job {
        share,
        members,
        load,
        in_flight: args.in_flight as usize,
        offsets: args.offsets.into(),
        patience: args.connect.timeout,
        meter: Arc::clone(&meter),
    };
    let jobs: Vec<Job> = shares.into_iter().map(job).collect();
    let (connections, threads) = (jobs.len(), threads(args.threads, jobs.len()));
    let workers = start(threads, jobs, drive)?;
    let measured = watch(&meter, workers, &args.timing, &args.connect)?;
    let settings = json!({
        "groups": args.groups, "connections": connections, "in_flight": args.in_flight, "offsets": args.offsets,
        "threads": threads,
    });
    measured.print(load.name(), &settings, args.timing.format)
}

/// Has all members enter their groups, many at the same time and each on a connection of its own: a membership is not a connection's.
async fn enter(shares: &mut [(Share, Vec<Member>)], patience: Duration) -> Result<(), Failure> {
    let mut all: Vec<(String, &mut Member)> = Vec::new();
    for (share, members) in shares {
        all.extend(members.iter_mut().map(|member| (share.broker.clone(), member)));
    }
    for some in all.chunks_mut(ENTERING) {
        let entering = some.iter_mut().map(|(broker, member)| async move {
            let mut connection = Connection::open(broker, patience).await?;
            member.enter(&mut connection, patience).await
        });
        futures::future::try_join_all(entering).await?;
    }
    Ok(())
}

async fn drive(mut job: Job) -> Result<Histogram<u64>, Failure> {
    let mut connection = Connection::open(&job.share.broker, job.patience).await?;
    let mut members = std::mem::take(&mut job.members);
    if job.load == Load::Join {
        return joins(&job, &mut connection, members).await;
    }
    let mut at = 0;
    let mut next = || {
        at += 1;
        (&members[(at - 1) % members.len()], i64::try_from(at).unwrap_or(0))
    };
    let times = if job.load == Load::Commit {
        let request = || {
            let (member, turn) = next();
            member.commit((0..job.offsets).map(|partition| turn + partition))
        };
        pipelined(&job, &mut connection, request, committed).await?
    } else {
        pipelined(&job, &mut connection, || next().0.heartbeat(), |response| response.error_code).await?
    };
    for member in &mut members {
        member.leave(&mut connection, job.patience).await?;
    }
    Ok(times)
}

/// Keeps so many requests under way.
async fn pipelined<R: Request>(
    job: &Job,
    connection: &mut Connection,
    mut request: impl FnMut() -> R,
    code: impl Fn(&R::Response) -> ErrorCode,
) -> Result<Histogram<u64>, Failure> {
    let (mut times, mut sent) = (histogram(), VecDeque::with_capacity(job.in_flight));
    loop {
        let goes_on = job.meter.runs();
        if goes_on {
            sent.push_back(Instant::now());
            connection.send(&request()).await?;
        }
        if goes_on && sent.len() < job.in_flight {
            continue;
        }
        // What is under way at the end is waited for, so that the next load starts on an idle broker.
        let Some(began) = sent.pop_front() else { return Ok(times) };
        let response = connection.receive::<R>(job.patience).await?;
        let code = code(&response);
        if code.is_error() {
            return Err(connection.refused(&format!("{:?}", R::API), code, None).into());
        }
        if job.meter.measures() {
            record(&mut times, began.elapsed());
        }
        job.meter.count(0, 0);
    }
}

async fn joins(job: &Job, connection: &mut Connection, mut members: Vec<Member>) -> Result<Histogram<u64>, Failure> {
    let mut times = histogram();
    for at in (0..members.len()).cycle() {
        if !job.meter.runs() {
            break;
        }
        let member = &mut members[at];
        let began = Instant::now();
        member.enter(connection, job.patience).await?;
        if job.meter.measures() {
            record(&mut times, began.elapsed());
        }
        member.leave(connection, job.patience).await?;
        job.meter.count(0, 0);
    }
    Ok(times)
}
