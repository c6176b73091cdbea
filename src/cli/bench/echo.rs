//! `ottla bench echo`: the same open loop as `ottla bench latency` against a server that does nothing but answer.
//!
//! What it measures is the machine's own share of a broker's times: sockets, wake-ups, scheduling.

use std::net::SocketAddr;
use std::process;
use std::sync::Arc;

use bytes::BytesMut;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::frame::{ProduceFrames, Shape};
use super::latency::{Lane, Pace, Schedule, blocking, start};
use super::meter::{Meter, Timing, watch};
use super::noise::Noise;
use super::produce::seed;
use super::setup::runtime;
use crate::cli::client::{ClientError, newest, read_frame};
use crate::cli::connect::{Connect, DEFAULT_TIMEOUT, Failure, print_text};
use crate::protocol::api::ApiKey;

/// The bytes of an answer, as large as one to a produce.
const ANSWER_BYTES: usize = 64;

/// Time answers of a server that does nothing: the machine's own share of `ottla bench latency`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Without --serve or --connect, a server process is started for the run.\n\n\
Examples:\n  ottla bench echo --rate 5000\n  ottla bench echo --serve 0.0.0.0:7000\n  ottla bench echo --connect other-host:7000")]
pub struct Args {
    /// Only be the server, here; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", conflicts_with = "connect_to")]
    serve: Option<SocketAddr>,
    /// Use the server there.
    #[arg(long = "connect", value_name = "HOST:PORT")]
    connect_to: Option<String>,
    #[command(flatten)]
    pace: Pace,
    #[command(flatten)]
    timing: Timing,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    if let Some(address) = args.serve {
        return runtime()?.block_on(serve(address));
    }
    let server = match &args.connect_to {
        Some(address) => Server { address: address.clone(), process: None },
        None => Server::spawn()?,
    };
    let lanes = runtime()?.block_on(open(args, &server.address))?;
    let meter = Arc::new(Meter::default());
    let schedule = Schedule::new(args.pace.rate, lanes.len());
    let workers = start(lanes, schedule, &meter, |_, _, _, _| Ok(()), true)?;
    let mut timing = args.timing.clone();
    timing.broker_pid.extend(server.process.as_ref().map(process::Child::id));
    let connect = Connect { brokers: Vec::new(), timeout: DEFAULT_TIMEOUT };
    let measured = watch(&meter, workers, &timing, &connect)?;
    let settings = json!({
        "rate": args.pace.rate, "connections": args.pace.connections, "record_size": args.pace.record_size,
    });
    measured.print("echo", &settings, args.timing.format)
}

/// The server of a run, ended with it.
struct Server {
    address: String,
    process: Option<process::Child>,
}

impl Server {
    /// This program again, as the server: its CPU is then its own.
    fn spawn() -> Result<Self, Failure> {
        let io = |source| Failure::Io { what: "starting the server", source };
        let program = std::env::current_exe().map_err(io)?;
        let mut command = process::Command::new(program);
        command.args(["bench", "echo", "--serve", "127.0.0.1:0"]).stdout(process::Stdio::piped());
        let mut server = Self { address: String::new(), process: Some(command.spawn().map_err(io)?) };
        let stdout = server.process.as_mut().and_then(|process| process.stdout.take());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout.expect("it was piped")), &mut line)
            .map_err(io)?;
        server.address = line.trim().to_owned();
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It may have ended already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

async fn open(args: &Args, server: &str) -> Result<Vec<Lane>, Failure> {
    let connect = |source| ClientError::Connect { broker: server.to_owned(), source };
    let shape = Shape {
        topic: "ottla-bench",
        version: newest(ApiKey::Produce),
        acks: -1,
        timeout_ms: 0,
        record_bytes: args.pace.record_size as usize,
        batch_bytes: 0,
        producer: None,
    };
    let mut lanes = Vec::new();
    for at in 0..args.pace.connections {
        let stream = TcpStream::connect(server).await.map_err(connect)?;
        stream.set_nodelay(true).map_err(connect)?;
        let frames = ProduceFrames::new(&shape, &[0], Noise::new(seed() ^ u64::from(at)))
            .map_err(|source| ClientError::Encode { broker: server.to_owned(), source })?;
        lanes.push(Lane { stream: blocking(stream)?, broker: server.to_owned(), frames, version: shape.version });
    }
    Ok(lanes)
}

async fn serve(address: SocketAddr) -> Result<(), Failure> {
    let io = |source| Failure::Io { what: "listening", source };
    let listener = TcpListener::bind(address).await.map_err(io)?;
    print_text(&format!("{}\n", listener.local_addr().map_err(io)?))?;
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.map_err(io)?;
        connections.spawn(answer(stream));
        while connections.try_join_next().is_some() {}
    }
}

/// Answers every frame with one of a fixed size that begins with the request's correlation id.
async fn answer(mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut reply = BytesMut::zeroed(4 + ANSWER_BYTES);
    reply[..4].copy_from_slice(&u32::try_from(ANSWER_BYTES).expect("a small number").to_be_bytes());
    let mut spare = None;
    // A client that leaves, or sends what is no frame, is left.
    while let Ok(Some(frame)) = read_frame(&mut stream, spare.take()).await {
        if let Some(id) = frame.get(4..8) {
            reply[4..8].copy_from_slice(id);
        }
        spare = Some(frame);
        if stream.write_all(&reply).await.is_err() {
            return;
        }
    }
}
