//! `ottla repair` on a broker's data: what it finds, what it takes out, and what clients see before and after.

use std::sync::Arc;

use ottla::broker::repair::{RepairError, Report, Wanted, repair};
use ottla::ids::TopicId;
use ottla::log::disk::{Disk, Open};
use ottla::log::mem_disk::MemDisk;
use ottla::protocol::error_code::ErrorCode;

use crate::fetch::{only, request};
use crate::kit::{Client, Server};

const RECORDS: i64 = 40;
const BYTES: usize = 3000;

/// A broker's data with one topic, after a clean stop.
fn stored() -> (MemDisk, TopicId) {
    let disk = MemDisk::inline();
    let server = Server::start_in_memory(&disk);
    let mut client = server.connect();
    let id = client.create_topic("t", 1);
    (0..RECORDS).for_each(|offset| assert_eq!(client.produce("t", 0, 1, BYTES), offset));
    drop(client);
    drop(server);
    (disk.crash_process(), id)
}

fn run(disk: &MemDisk, wanted: &Wanted) -> Result<Report, RepairError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    repair(&disk, wanted)
}

fn apply() -> Wanted {
    Wanted { apply: true, ..Wanted::default() }
}

fn log_of(disk: &MemDisk, topic: TopicId) -> String {
    let dir = format!("topics/{topic}/0");
    let name = disk.list(&dir).unwrap().into_iter().find(|entry| entry.name.ends_with(".log")).unwrap().name;
    format!("{dir}/{name}")
}

fn fetch(client: &mut Client, id: TopicId, offset: i64) -> Result<Option<i64>, ErrorCode> {
    let response = client.ask(&request(17, "t", id, 0, offset));
    let data = only(&response);
    if data.error_code.is_error() {
        return Err(data.error_code);
    }
    let batch = data.records.clone().map(|records| records.into_bytes()).unwrap_or_default();
    Ok(batch.get(..8).map(|base| i64::from_be_bytes(base.try_into().unwrap())))
}

#[test]
fn damage_is_found_and_taken_out_and_consumers_pass_over_it() {
    let (disk, id) = stored();
    let whole = run(&disk, &apply()).unwrap();
    assert!(whole.damaged.is_empty() && whole.problems.is_empty() && !whole.untouched, "{whole:?}");
    assert_eq!(whole.logs, 2, "the topic's and the controller's");
    let path = log_of(&disk, id);
    disk.flip_bit(&path, 20 * 3100, 3).unwrap();
    let server = Server::start_in_memory(&disk);
    let mut client = server.connect();
    let codes: Vec<_> = (0..RECORDS).map(|offset| fetch(&mut client, id, offset)).collect();
    let lost = codes.iter().position(|code| *code == Err(ErrorCode::CORRUPT_MESSAGE)).unwrap();
    assert!(matches!(run(&disk, &apply()), Err(RepairError::Identity(_))), "a broker runs on it");
    drop(client);
    drop(server);

    let disk = disk.crash_process();
    let looked = run(&disk, &Wanted::default()).unwrap();
    assert!(looked.untouched && !looked.damaged[0].repaired);
    let (hole, kept) = &looked.damaged[0].holes[0];
    let offset = i64::try_from(lost).unwrap();
    assert_eq!((hole.damage.offsets.start.0, hole.damage.offsets.end.0), (offset, offset + 1));
    assert_eq!((looked.damaged[0].topic.as_deref(), &hole.damage.path, kept), (Some("t"), &path, &None));
    let elsewhere = Wanted { topic: Some("u".into()), ..apply() };
    assert!(matches!(run(&disk, &elsewhere), Err(RepairError::NotFound(_))));
    let only_this = Wanted { topic: Some("t".into()), partition: Some(0), apply: true };
    let repaired = run(&disk, &only_this).unwrap();
    assert!(repaired.damaged[0].repaired && !repaired.untouched && repaired.problems.is_empty());
    let kept = repaired.damaged[0].holes[0].1.clone().unwrap();
    let kept = disk.open(&kept, Open::ReadOnly).unwrap().len().unwrap();
    assert_eq!(kept, hole.damage.position.end - hole.damage.position.start);
    assert!(run(&disk, &Wanted::default()).unwrap().damaged.is_empty());

    let server = Server::start_in_memory(&disk);
    let mut client = server.connect();
    for at in 0..RECORDS {
        assert_eq!(fetch(&mut client, id, at), Ok(Some(if at == offset { at + 1 } else { at })));
    }
    assert_eq!(client.produce("t", 0, 1, BYTES), RECORDS, "no lost offset is used again");
}

#[test]
fn a_log_that_lost_its_end_is_offline_until_it_is_repaired_and_then_goes_on_behind_what_is_lost() {
    let (disk, id) = stored();
    let path = log_of(&disk, id);
    let file = disk.open(&path, Open::Existing).unwrap();
    file.set_len(file.len().unwrap() - 10_000).unwrap();
    file.sync().unwrap();
    let server = Server::start_in_memory(&disk);
    let mut client = server.connect();
    assert_eq!(fetch(&mut client, id, 0), Err(ErrorCode::KAFKA_STORAGE_ERROR));
    assert_eq!(client.try_produce("t", 0, 1, BYTES), Err(ErrorCode::KAFKA_STORAGE_ERROR));
    drop(client);
    drop(server);
    let disk = disk.crash_process();
    let report = run(&disk, &apply()).unwrap();
    let lost = report.damaged[0].holes[0].0.damage.offsets.clone();
    assert!(report.damaged[0].repaired && lost.end.0 == RECORDS && lost.start.0 < RECORDS, "{report:?}");
    let server = Server::start_in_memory(&disk);
    let mut client = server.connect();
    for offset in 0..RECORDS {
        let expected = (offset < lost.start.0).then_some(offset);
        assert_eq!(fetch(&mut client, id, offset), Ok(expected));
    }
    assert_eq!(client.produce("t", 0, 1, BYTES), RECORDS, "no lost offset is used again");
    assert_eq!(fetch(&mut client, id, lost.start.0), Ok(Some(RECORDS)));
}

#[test]
fn the_controllers_log_is_not_cut_open_behind_its_checkpoint() {
    let disk = MemDisk::inline();
    let server = Server::start_in_memory(&disk);
    let mut client = server.connect();
    client.create_topic("t", 1);
    // Killed: what made the topic is in the log alone.
    let disk = disk.crash_process();
    std::mem::forget(server);
    let path = log_of(&disk, TopicId::CONTROLLER);
    disk.flip_bit(&path, 40, 1).unwrap();
    let before = disk.ops();
    let report = run(&disk, &apply()).unwrap();
    assert!(report.damaged.len() == 1 && !report.damaged[0].repaired, "{report:?}");
    assert!(report.problems.len() == 1 && report.problems[0].contains("cluster's own log"), "{:?}", report.problems);
    assert!(!report.untouched, "--apply would not help");
    assert_eq!(disk.ops(), before, "nothing was changed");
}

#[test]
fn a_damaged_record_of_the_last_life_is_put_aside() {
    let (disk, id) = stored();
    disk.flip_bit("life.toml", 0, 7).unwrap();
    assert_eq!(run(&disk, &Wanted::default()).unwrap().problems.len(), 1);
    let report = run(&disk, &apply()).unwrap();
    assert_eq!((report.problems.len(), report.done.len()), (0, 1));
    let server = Server::start_in_memory(&disk);
    assert_eq!(fetch(&mut server.connect(), id, 3), Ok(Some(3)));
}

#[test]
fn what_cannot_be_rebuilt_is_said_with_what_to_do() {
    let (disk, _) = stored();
    disk.flip_bit("identity.toml", 0, 7).unwrap();
    let report = run(&disk, &apply()).unwrap();
    assert!(report.problems[0].contains("identity.toml is damaged"), "{:?}", report.problems);
    disk.remove_file("raft.journal").unwrap();
    let error = run(&disk, &apply()).unwrap_err().to_string();
    assert!(error.contains("raft.journal is missing: put back a copy"), "{error}");
}
