//! Page-cache topics over lives of the broker: what a power cut may take, and that the replica which forgot it is another one then.

use std::sync::Arc;

use ottla::broker::repair::{Wanted, repair};
use ottla::ids::{PartitionId, PartitionIndex, TopicId};
use ottla::log::directory;
use ottla::log::disk::{Disk, Open};
use ottla::log::mem_disk::MemDisk;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::create_topics::{CreatableTopic, CreatableTopicConfig};
use ottla::protocol::messages::{CreateTopicsRequest, FetchRequest};

use crate::kit::{Client, Server, topic};

const RECORDS: i64 = 40;

fn create_durable(client: &mut Client, name: &str) -> TopicId {
    let config = CreatableTopicConfig { name: "ottla.durability".into(), value: Some("fsync".into()) };
    let topics = vec![CreatableTopic { configs: vec![config], ..topic(name, 1) }];
    let response = client.ask(&CreateTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() });
    assert_eq!(response.topics[0].error_code, ErrorCode::NONE);
    response.topics[0].topic_id
}

/// Reads a topic from its start to its end, batch by batch; where it ends.
fn read_all(client: &mut Client, id: TopicId) -> i64 {
    let mut next = 0;
    loop {
        let request = FetchRequest { max_bytes: 1, ..super::fetch::request(17, "", id, 0, next) };
        let data = client.ask(&request).responses.remove(0).partitions.remove(0);
        assert_eq!(data.error_code, ErrorCode::NONE, "at {next}");
        let batch = data.records.unwrap().into_bytes();
        if batch.is_empty() {
            assert_eq!(data.high_watermark, next);
            return next;
        }
        assert_eq!(i64::from_be_bytes(*batch.first_chunk().unwrap()), next, "no offset is missing");
        next += 1;
    }
}

/// A disk with a page-cache topic and a durable one, each with acknowledged records, whose broker was not stopped.
fn written(seed: u64) -> (MemDisk, Server, [TopicId; 2]) {
    let disk = MemDisk::inline().seeded(seed);
    let server = Server::start_life(&disk, "first").unwrap();
    let mut client = server.connect();
    let ids = [client.create_topic("cached", 1), create_durable(&mut client, "durable")];
    for _ in 0..RECORDS {
        client.produce("cached", 0, 1, 1000);
        client.produce("durable", 0, 1, 1000);
    }
    (disk, server, ids)
}

#[test]
fn a_page_cache_replica_is_another_one_after_a_power_cut_and_keeps_what_survived() {
    let mut lost = 0;
    for seed in 0..6 {
        let (disk, server, [cached, durable]) = written(seed);
        let before = [cached, durable].map(|id| server.incarnation(id));
        disk.cut_power_now();
        server.kill();

        let disk = disk.after_power_cut();
        let server = Server::start_life(&disk, "second").unwrap();
        let mut client = server.connect();
        let after = [cached, durable].map(|id| server.incarnation(id));
        assert!(after[0] > before[0], "the page-cache replica was replaced");
        assert_eq!(after[1], before[1], "the durable one has forgotten nothing");
        assert_eq!(read_all(&mut client, durable), RECORDS);
        let end = read_all(&mut client, cached);
        assert!(end <= RECORDS);
        lost += RECORDS - end;
        assert_eq!(client.produce("cached", 0, 1, 1000), end, "it goes on where it ends");

        // The same boot of the kernel: a process that is killed loses nothing, and nothing is replaced again.
        drop(client);
        server.kill();
        let server = Server::start_life(&disk.crash_process(), "second").unwrap();
        assert_eq!(server.incarnation(cached), after[0]);
        assert_eq!(read_all(&mut server.connect(), cached), end + 1);
    }
    assert!(lost > 0, "some power cut took some record, or this test shows nothing");
}

#[test]
fn a_replica_is_replaced_although_the_power_goes_again_while_the_broker_starts() {
    let (written_to, server, [cached, durable]) = written(3);
    let before = server.incarnation(cached);
    written_to.cut_power_now();
    server.kill();
    // Later and later, until a start comes through.
    for op in (1..).step_by(3) {
        let disk = written_to.after_power_cut();
        disk.cut_power_at(op);
        if let Some(server) = Server::start_life(&disk, "second") {
            server.kill();
        }
        let was_cut = disk.is_cut();
        // Told the same boot again, so that it must be known from the first start that the page cache was lost.
        let server = Server::start_life(&disk.after_power_cut(), "second").unwrap();
        assert!(server.incarnation(cached) > before, "cut at operation {op}");
        let mut client = server.connect();
        assert_eq!(read_all(&mut client, durable), RECORDS);
        let end = read_all(&mut client, cached);
        assert_eq!(client.produce("cached", 0, 1, 10), end);
        drop(client);
        server.kill();
        if !was_cut {
            assert!(op > 30, "a start is more than {op} operations of the disk");
            break;
        }
    }
}

#[test]
fn a_power_cut_is_noticed_although_the_record_of_the_last_life_had_to_be_repaired() {
    let (disk, server, [cached, durable]) = written(3);
    let before = [cached, durable].map(|id| server.incarnation(id));
    disk.cut_power_now();
    server.kill();

    let disk = disk.after_power_cut();
    disk.flip_bit("life.toml", 0, 7).unwrap();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let report = repair(&shared, &Wanted { apply: true, ..Wanted::default() }).unwrap();
    assert_eq!(report.done.len(), 1, "{report:?}");
    let server = Server::start_life(&disk, "first").unwrap();
    let after = [cached, durable].map(|id| server.incarnation(id));
    assert!(after[0] > before[0], "whichever kernel runs now, what the last one held cannot be vouched for");
    assert_eq!(after[1], before[1]);
    assert_eq!(read_all(&mut server.connect(), durable), RECORDS);
}

/// How the record of a stopped broker's life says that it ended.
fn last_life(disk: &MemDisk) -> String {
    let mut bytes = [0; 200];
    let read = disk.open("life.toml", Open::ReadOnly).unwrap().read_at(0, &mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..read]).into_owned()
}

#[test]
fn a_life_that_never_opened_a_partition_does_not_vouch_for_what_the_killed_one_before_left_of_it() {
    let (disk, server, [cached, durable]) = written(5);
    server.kill();

    let disk = disk.crash_process();
    let (partition, aside) = (directory(PartitionId { topic: cached, partition: PartitionIndex(0) }), "aside");
    disk.rename(&partition, aside).unwrap();
    disk.open(&partition, Open::New).unwrap();
    let server = Server::start_life(&disk, "first").unwrap();
    assert_eq!(read_all(&mut server.connect(), durable), RECORDS);
    drop(server);
    assert!(last_life(&disk).contains("running"), "{}", last_life(&disk));

    let disk = disk.crash_process();
    disk.remove_file(&partition).unwrap();
    disk.rename(aside, &partition).unwrap();
    let server = Server::start_life(&disk, "first").unwrap();
    assert_eq!(read_all(&mut server.connect(), cached), RECORDS);
    drop(server);
    assert!(last_life(&disk).contains("clean"), "{}", last_life(&disk));
}
