//! `ottla consume`: reads partitions by offset, checks what it gets, prints it.

mod member;
mod template;

use std::collections::BTreeMap;
use std::io::{BufWriter, Stdout, Write};

use bytes::Bytes;
use tokio::time::{Duration, Instant, sleep};

use super::Exit;
use super::client::{Batches, Client, ClientError, ListOffsets, RETRY_PAUSE, by_leader};
use super::connect::{self, Connect, Failure};
use super::group::committed;
use super::position::Position;
use crate::protocol::batch::BatchHeader;
use crate::protocol::error_code::ErrorCode;
use crate::protocol::messages::fetch::{FetchPartition, FetchTopic, PartitionData};
use crate::protocol::messages::metadata::MetadataResponseTopic;
use crate::protocol::messages::{FetchRequest, FetchResponse};
use crate::protocol::record::read_records;
use crate::protocol::value::Records;
use member::{Member, Standing};
use template::{Printed, Template};

/// How long a broker holds a fetch that finds nothing.
const MAX_WAIT: Duration = Duration::from_millis(500);
/// What a broker returns at most, of all partitions and of one; a larger batch comes whole all the same.
const FETCH_BYTES: i32 = 16 << 20;
const PARTITION_BYTES: i32 = 1 << 20;
/// What the records of one batch may take when decompressed.
const BATCH_MAX_BYTES: usize = 256 << 20;

/// Read records of a topic.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Positions (--offset):\n  start, end              the first record, behind the last one\n  47                      that offset\n  \
+5, -5                  5 records behind the start, before the end\n  @1700000000000          the first record of that time (milliseconds) or later\n\n\
Format:\n  json                    one JSON object a line\n  \
%t topic  %p partition  %o offset  %e leader epoch  %d timestamp  %k key  %v value  %h headers  %H number of headers\n  \
%K %V lengths of key and value (-1: null)  %a attributes  %x producer id  %y producer epoch\n  \
%[ log start  %| last stable offset  %] high watermark  %% percent\n  \
%k{hex} %v{base64}      bytes as text        \\n \\r \\t \\0 \\\\ \\xHH\n\n\
Examples:\n  ottla consume orders\n  ottla consume orders:0,1 --offset -10 --exit-at-end\n  \
ottla consume orders --offset @1700000000000 --num 100 --format '%t %p %o %k %v\\n'\n  \
ottla consume orders --format json | jq .value\n  ottla consume orders --group billing --exit-at-end\n\n\
Exit codes: 0 done, 1 refused or damaged data, 2 wrong arguments, 3 no broker answered, 4 no such topic or partition."
)]
pub struct Args {
    /// The topic, and which of its partitions; left out, all.
    #[arg(value_name = "TOPIC[:PARTITION,...]")]
    topic: String,
    /// Read as a member of this group: its partitions, from where it has committed on; it commits what was printed.
    #[arg(short, long, value_name = "GROUP")]
    group: Option<String>,
    /// Where to begin; for a group, where it has not committed yet.
    #[arg(short, long, default_value = "start", allow_hyphen_values = true, value_name = "POSITION")]
    offset: Position,
    /// Stop after so many records.
    #[arg(short, long, value_name = "COUNT")]
    num: Option<u64>,
    /// Stop at the end of all partitions.
    #[arg(short, long, visible_alias = "exit")]
    exit_at_end: bool,
    /// How a record is printed: a template, or `json`.
    #[arg(short, long, default_value = r"%v\n")]
    format: Template,
    #[command(flatten)]
    connect: Connect,
}

/// Runs `ottla consume`.
pub fn run(args: &Args) -> Exit {
    connect::run(consume(args))
}

async fn consume(args: &Args) -> Result<(), Failure> {
    let (name, chosen) = split_topic(&args.topic)?;
    if args.num == Some(0) {
        return Ok(());
    }
    let mut client = args.connect.client().await?;
    let topic = client.topic(name, false).await?;
    let is_whole = chosen.is_empty();
    let partitions = match is_whole {
        true => topic.partitions.iter().map(|partition| partition.partition_index).collect(),
        false => chosen,
    };
    let left = args.num.unwrap_or(u64::MAX);
    let out = BufWriter::with_capacity(64 << 10, std::io::stdout());
    let mut reader = Reader { args, client, topic, name, cursors: BTreeMap::new(), left, out };
    let Some(group) = &args.group else {
        let offsets = args.offset.resolve(&mut reader.client, &reader.topic, &partitions).await?;
        reader.begin_at(offsets);
        return reader.run(None).await;
    };
    if !is_whole {
        return Err(Failure::Usage("a member of a group reads the partitions that the group gives it".to_owned()));
    }
    let mut member = Member::new(group, name, partitions);
    reader.take_share(&mut member).await?;
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {}
        outcome = reader.run(Some(&mut member)) => outcome?,
    }
    reader.out.flush().map_err(Failure::stdout)?;
    let read = reader.read_offsets();
    member.commit(&mut reader.client, &read).await?;
    Ok(member.leave(&mut reader.client).await?)
}

/// `topic:0,2` is partitions 0 and 2 of the topic.
fn split_topic(text: &str) -> Result<(&str, Vec<i32>), Failure> {
    let Some((name, partitions)) = text.split_once(':') else { return Ok((text, Vec::new())) };
    let bad = || Failure::Usage(format!("{text:?}: TOPIC:PARTITION,... is wanted"));
    let partition = |text: &str| text.parse().ok().filter(|partition| *partition >= 0).ok_or_else(bad);
    Ok((name, partitions.split(',').map(partition).collect::<Result<_, _>>()?))
}

/// How far one partition has been read.
#[derive(Debug)]
struct Cursor {
    next: i64,
    at_end: bool,
}

struct Reader<'a> {
    args: &'a Args,
    client: Client,
    topic: MetadataResponseTopic,
    name: &'a str,
    cursors: BTreeMap<i32, Cursor>,
    left: u64,
    out: BufWriter<Stdout>,
}

impl Reader<'_> {
    fn begin_at(&mut self, offsets: BTreeMap<i32, i64>) {
        self.cursors = offsets.into_iter().map(|(index, next)| (index, Cursor { next, at_end: false })).collect();
    }

    /// Joins the group, and begins where it has come to in the partitions that it gives.
    async fn take_share(&mut self, member: &mut Member) -> Result<(), Failure> {
        let group = self.args.group.as_deref().expect("a member has a group");
        let mine = member.join(&mut self.client).await?;
        let committed = committed(&mut self.client, group).await?;
        let mut offsets = self.args.offset.resolve(&mut self.client, &self.topic, &mine).await?;
        for (partition, offset) in &mut offsets {
            *offset = committed.get(&(self.name.to_owned(), *partition)).copied().unwrap_or(*offset);
        }
        self.begin_at(offsets);
        Ok(())
    }

    /// Up to where each partition was printed.
    fn read_offsets(&self) -> BTreeMap<i32, i64> {
        self.cursors.iter().map(|(index, cursor)| (*index, cursor.next)).collect()
    }

    async fn run(&mut self, mut member: Option<&mut Member>) -> Result<(), Failure> {
        let mut well_at = Instant::now();
        loop {
            if let Some(member) = member.as_deref_mut() {
                let read = self.read_offsets();
                if member.look_after(&mut self.client, &read).await? == Standing::JoinAgain {
                    self.take_share(member).await?;
                }
                if self.cursors.is_empty() && !self.args.exit_at_end {
                    // Nothing to read: others have it all.
                    sleep(MAX_WAIT).await;
                }
            }
            let trouble = self.round().await?;
            self.out.flush().map_err(Failure::stdout)?;
            let at_end = self.cursors.values().all(|cursor| cursor.at_end);
            if self.left == 0 || (self.args.exit_at_end && at_end && trouble.is_none()) {
                return Ok(());
            }
            let Some(trouble) = trouble else {
                well_at = Instant::now();
                continue;
            };
            if well_at.elapsed() >= self.client.timeout() {
                return Err(trouble.into());
            }
            sleep(RETRY_PAUSE).await;
            self.topic = self.client.topic(self.name, false).await?;
        }
    }

    /// One fetch from each leader. Returns what may pass.
    async fn round(&mut self) -> Result<Option<ClientError>, Failure> {
        let partitions: Vec<i32> = self.cursors.keys().copied().collect();
        let mut trouble = None;
        let mut asked = Vec::new();
        for (leader, partitions) in by_leader(&self.topic, &partitions)? {
            let request = self.request(&partitions);
            let sent = match self.client.broker(leader).await {
                Ok(connection) => connection.send(&request).await,
                Err(error) => Err(error),
            };
            match sent {
                Ok(()) => asked.push(leader),
                Err(error) if error.may_pass() => trouble = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        for leader in asked {
            let patience = self.client.timeout() + MAX_WAIT;
            let response = self.client.broker(leader).await?.receive::<FetchRequest>(patience).await;
            let accepted = match response {
                Ok(response) => self.accept(leader, response).await,
                Err(error) => Err(error.into()),
            };
            match accepted {
                Err(Failure::Client(error)) if error.may_pass() => trouble = Some(error),
                accepted => accepted?,
            }
        }
        Ok(trouble)
    }

    fn request(&self, partitions: &[i32]) -> FetchRequest {
        let partition = |index: &i32| FetchPartition {
            partition: *index,
            fetch_offset: self.cursors[index].next,
            partition_max_bytes: PARTITION_BYTES,
            ..FetchPartition::default()
        };
        FetchRequest {
            max_wait_ms: i32::try_from(MAX_WAIT.as_millis()).expect("half a second"),
            min_bytes: 1,
            max_bytes: FETCH_BYTES,
            topics: vec![FetchTopic {
                topic: self.name.into(),
                topic_id: self.topic.topic_id,
                partitions: partitions.iter().map(partition).collect(),
            }],
            ..FetchRequest::default()
        }
    }

    async fn accept(&mut self, leader: i32, response: FetchResponse) -> Result<(), Failure> {
        if response.error_code.is_error() {
            return Err(self.client.broker(leader).await?.refused("Fetch", response.error_code, None).into());
        }
        let mut trouble = Ok(());
        for mut data in response.responses.into_iter().flat_map(|topic| topic.partitions) {
            if data.error_code.is_error() {
                trouble = Err(self.refused(leader, &data).await?);
                continue;
            }
            let records = data.records.take().map(Records::into_bytes).unwrap_or_default();
            self.print(&data, records)?;
        }
        trouble
    }

    async fn refused(&mut self, leader: i32, data: &PartitionData) -> Result<Failure, Failure> {
        let index = data.partition_index;
        let offset = self.cursors.get(&index).map_or(-1, |cursor| cursor.next);
        let what = format!("Fetch of partition {index} of topic {} at offset {offset}", self.name);
        // The client's rule is to try again, which would last for ever.
        if data.error_code == ErrorCode::CORRUPT_MESSAGE {
            return Ok(Failure::Data { what, problem: "the broker's copy is damaged there".to_owned() });
        }
        let mut bounds = None;
        if data.error_code == ErrorCode::OFFSET_OUT_OF_RANGE {
            let start = self.client.list_offsets(&self.topic, &[index], ListOffsets::Start).await?[&index].offset;
            let end = self.client.list_offsets(&self.topic, &[index], ListOffsets::End).await?[&index].offset;
            bounds = Some(format!("the partition begins at offset {start} and ends before {end}"));
        }
        Ok(self.client.broker(leader).await?.refused(&what, data.error_code, bounds.as_deref()).into())
    }

    fn print(&mut self, data: &PartitionData, records: Bytes) -> Result<(), Failure> {
        let index = data.partition_index;
        let Some(cursor) = self.cursors.get(&index) else { return Ok(()) };
        let mut batches = Batches::new(records, cursor.next);
        for next in batches.by_ref() {
            let (header, batch) = next.map_err(|error| self.damaged(index, &error))?;
            if !header.is_control() {
                self.print_batch(data, &header, &batch)?;
            }
            if self.left == 0 {
                return Ok(());
            }
        }
        let cursor = self.cursors.get_mut(&index).expect("looked up above");
        cursor.next = batches.next_offset();
        cursor.at_end = cursor.next >= data.high_watermark;
        Ok(())
    }

    fn print_batch(&mut self, data: &PartitionData, header: &BatchHeader, batch: &Bytes) -> Result<(), Failure> {
        let index = data.partition_index;
        let wanted = self.cursors[&index].next;
        let records = read_records(batch, BATCH_MAX_BYTES).map_err(|error| self.damaged(index, &error))?;
        for record in records {
            let record = record.map_err(|error| self.damaged(index, &error))?;
            // The batch may begin before the offset that was asked for.
            if record.offset < wanted || self.left == 0 {
                continue;
            }
            let printed = Printed {
                topic: self.name,
                partition: index,
                batch: header,
                record: &record,
                log_start: data.log_start_offset,
                last_stable: data.last_stable_offset,
                high_watermark: data.high_watermark,
            };
            self.args.format.print(&mut self.out, &printed).map_err(Failure::stdout)?;
            self.left -= 1;
            self.cursors.get_mut(&index).expect("looked up above").next = record.offset + 1;
        }
        Ok(())
    }

    fn damaged(&self, partition: i32, problem: &impl ToString) -> Failure {
        Failure::Data { what: format!("partition {partition} of topic {}", self.name), problem: problem.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_stand_behind_the_topic() {
        assert_eq!(split_topic("a").unwrap(), ("a", vec![]));
        assert_eq!(split_topic("a:0,12").unwrap(), ("a", vec![0, 12]));
        assert!(split_topic("a:").is_err() && split_topic("a:x").is_err() && split_topic("a:-1").is_err());
    }
}
