//! `ottla produce`: a record for each line of standard input.

mod lines;
mod partitioner;
mod sender;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Exit;
use super::connect::{self, Connect, Failure, Format, print_json, print_table, setting};
use crate::protocol::compression::Compression;
use crate::protocol::record::NewRecord;
use lines::Lines;
use partitioner::Partitioner;
use sender::{Batch, Sender};

/// What is read from standard input at once, and how many such pieces may wait.
const CHUNK_BYTES: usize = 64 << 10;
const CHUNKS_WAITING: usize = 8;
/// Without input for so long, what has come is sent.
const LINGER: Duration = Duration::from_millis(5);

/// Write records to a topic, one for each line of standard input.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  echo hello | ottla produce greetings\n  \
ottla produce orders --key-separator : --compression zstd < orders.txt\n  \
echo | ottla produce orders --key 4711 --tombstone\n  \
ottla produce orders --header source=import --partition 3 < orders.txt\n\n\
Records without a key go to one partition after another, a batch each; those with a key go where the Java client sends them.\n\
Exit codes: 0 all acknowledged, 1 refused, 2 wrong arguments, 3 no broker answered, 4 no such topic or partition.")]
pub struct Args {
    /// The topic.
    topic: String,
    /// Write to this partition only.
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// What stands between key and value in a line; a line without it has no key.
    #[arg(short = 'K', long, value_name = "SEPARATOR", conflicts_with = "key")]
    key_separator: Option<String>,
    /// The key of every record.
    #[arg(short, long)]
    key: Option<String>,
    /// A header of every record; may be repeated.
    #[arg(short = 'H', long, value_name = "NAME=VALUE", value_parser = setting)]
    header: Vec<(String, String)>,
    /// An empty value is a tombstone: null.
    #[arg(short = 'Z', long)]
    tombstone: bool,
    /// How batches are compressed: none, gzip, snappy, lz4 or zstd.
    #[arg(short = 'z', long, default_value = "none", value_parser = codec)]
    compression: Compression,
    /// Who must have a record before it counts: all, 1 (the leader) or 0 (nobody; nothing is known then).
    #[arg(short = 'X', long, default_value = "all", value_parser = acks)]
    acks: i16,
    /// Without a producer id: a repeated request may write twice.
    #[arg(long)]
    no_idempotence: bool,
    /// How many bytes of records, before compression, make a batch.
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 10, value_parser = clap::value_parser!(u32).range(1..=64 << 20))]
    batch_bytes: u32,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connect: Connect,
}

/// Runs `ottla produce`.
pub fn run(args: &Args) -> Exit {
    connect::run(produce(args))
}

async fn produce(args: &Args) -> Result<(), Failure> {
    if args.key_separator.as_deref() == Some("") {
        return Err(Failure::Usage("--key-separator must not be empty".to_owned()));
    }
    let mut client = args.connect.client().await?;
    let topic = client.topic(&args.topic, true).await?;
    let partitioner = Partitioner::new(&topic, args.partition)?;
    let mut sender = Sender::new(client, topic, args.acks);
    if args.acks == -1 && !args.no_idempotence {
        sender.become_idempotent().await?;
    }
    let mut load = Load { args, partitioner, sender, batches: BTreeMap::new() };
    let result = load.read_all(read_stdin()).await;
    let report = report(args, &load.sender);
    result.and(report)
}

/// Lines on their way into batches.
struct Load<'a> {
    args: &'a Args,
    partitioner: Partitioner,
    sender: Sender,
    batches: BTreeMap<i32, Batch>,
}

impl Load<'_> {
    async fn read_all(&mut self, mut input: mpsc::Receiver<io::Result<Bytes>>) -> Result<(), Failure> {
        let mut lines = Lines::default();
        loop {
            let chunk = match timeout(LINGER, input.recv()).await {
                Ok(Some(chunk)) => chunk.map_err(|source| Failure::Io { what: "standard input", source })?,
                Ok(None) => break,
                Err(_) => {
                    self.flush().await?;
                    match input.recv().await {
                        Some(chunk) => chunk.map_err(|source| Failure::Io { what: "standard input", source })?,
                        None => break,
                    }
                }
            };
            lines.push(&chunk)?;
            while let Some(line) = lines.next_line() {
                self.add(&line).await?;
            }
        }
        if let Some(line) = lines.rest() {
            self.add(&line).await?;
        }
        self.flush().await
    }

    async fn add(&mut self, line: &Bytes) -> Result<(), Failure> {
        let args = self.args;
        let (key, value) = match &args.key_separator {
            Some(separator) => split(line, separator.as_bytes()),
            None => (args.key.as_deref().map(str::as_bytes), &line[..]),
        };
        let value = Some(value).filter(|value| !(args.tombstone && value.is_empty()));
        let headers: Vec<_> = args.header.iter().map(|(name, v)| (name.as_str(), Some(v.as_bytes()))).collect();
        let record = NewRecord { timestamp: now_ms(), key, value, headers: &headers };
        let partition = self.partitioner.partition(key);
        let batch = self.batches.entry(partition).or_insert_with(|| self.sender.batch(partition, args.compression));
        batch.push(&record);
        match batch.size_bytes() >= args.batch_bytes as usize {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        if self.batches.is_empty() {
            return Ok(());
        }
        self.partitioner.turn();
        Ok(self.sender.send(std::mem::take(&mut self.batches)).await?)
    }
}

fn report(args: &Args, sender: &Sender) -> Result<(), Failure> {
    let records: i64 = sender.written().values().map(|written| written.records).sum();
    let rows = sender.written().iter();
    if args.format == Format::Json {
        let partitions: Vec<_> = rows
            .map(|(partition, written)| {
                json!({"partition": partition, "records": written.records, "first_offset": written.first_offset,
                       "last_offset": written.last_offset})
            })
            .collect();
        return print_json(&json!({"topic": args.topic, "records": records, "partitions": partitions}));
    }
    let offset = |offset: Option<i64>| offset.map_or("-".to_owned(), |offset| offset.to_string());
    let rows: Vec<_> = rows
        .map(|(partition, written)| {
            let (first, last) = (offset(written.first_offset), offset(written.last_offset));
            [partition.to_string(), written.records.to_string(), first, last]
        })
        .collect();
    print_table(["PARTITION", "RECORDS", "FIRST-OFFSET", "LAST-OFFSET"], &rows)
}

/// Key and value of a line.
fn split<'a>(line: &'a [u8], separator: &[u8]) -> (Option<&'a [u8]>, &'a [u8]) {
    let at = line.windows(separator.len()).position(|window| window == separator);
    at.map_or((None, line), |at| (Some(&line[..at]), &line[at + separator.len()..]))
}

/// Reads standard input on a thread of its own, which ends with the process: a read from a terminal cannot be given up.
fn read_stdin() -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let chunk = match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => Ok(Bytes::copy_from_slice(&buffer[..read])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = chunk.is_err();
            if sender.blocking_send(chunk).is_err() || failed {
                return;
            }
        }
    });
    receiver
}

/// Milliseconds since the epoch.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Reads a codec's name.
pub(super) fn codec(text: &str) -> Result<Compression, String> {
    Compression::from_name(text).ok_or_else(|| "one of none, gzip, snappy, lz4, zstd is wanted".to_owned())
}

/// Reads the number of acknowledgements.
pub(super) fn acks(text: &str) -> Result<i16, String> {
    match text {
        "all" | "-1" => Ok(-1),
        "1" => Ok(1),
        "0" => Ok(0),
        _ => Err("one of all, 1, 0 is wanted".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_at_the_first_separator() {
        assert_eq!(split(b"k::v::w", b"::"), (Some(&b"k"[..]), &b"v::w"[..]));
        assert_eq!(split(b"no key", b":"), (None, &b"no key"[..]));
        assert_eq!(split(b":", b":"), (Some(&b""[..]), &b""[..]));
        assert_eq!(split(b"", b"::"), (None, &b""[..]));
    }
}
