//! The faults: each must be able to do its worst, and never more than that.

use std::collections::BTreeSet;
use std::io::{ErrorKind, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::MemDisk;
use crate::log::disk::{Disk, DiskFile, Job, Lane, Open};

const SEEDS: u64 = 300;

fn put(file: &dyn DiskFile, pos: u64, bytes: &[u8]) {
    file.write_at(pos, &[IoSlice::new(bytes)]).unwrap();
}

fn new(disk: &MemDisk, path: &str) -> Arc<dyn DiskFile> {
    disk.open(path, Open::New).unwrap()
}

fn content(disk: &MemDisk, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(path, Open::ReadOnly).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    Some(bytes)
}

/// A synced file of 8 sectors of ones, with a durable name.
fn with_synced_file(seed: u64) -> (MemDisk, Arc<dyn DiskFile>) {
    let disk = MemDisk::inline().seeded(seed);
    let file = new(&disk, "a");
    put(&*file, 0, &[1; 4096]);
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    (disk, file)
}

/// Everything that is seen over many seeds.
fn outcomes<T: Ord>(run: impl Fn(u64) -> T) -> BTreeSet<T> {
    (0..SEEDS).map(run).collect()
}

#[test]
fn synced_bytes_and_names_survive_every_power_cut() {
    for seed in 0..SEEDS {
        let (disk, _file) = with_synced_file(seed);
        new(&disk, "noise");
        assert_eq!(content(&disk.after_power_cut(), "a").unwrap(), [1; 4096]);
    }
}

#[test]
fn any_subset_of_unsynced_sectors_survives_and_no_sector_is_mixed() {
    let seen = outcomes(|seed| {
        let (disk, file) = with_synced_file(seed);
        put(&*file, 512, &[2; 1536]);
        let bytes = content(&disk.after_power_cut(), "a").unwrap();
        assert_eq!(bytes.len(), 4096);
        let sectors: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
        assert!(bytes.chunks(512).zip(&sectors).all(|(sector, first)| sector.iter().all(|byte| byte == first)));
        assert_eq!((sectors[0], &sectors[4..]), (1, &[1; 4][..]), "what was not written does not change");
        sectors[1..4].to_vec()
    });
    assert_eq!(seen.len(), 8, "{seen:?}");
}

#[test]
fn an_older_unsynced_version_of_a_sector_may_be_what_survives() {
    let seen = outcomes(|seed| {
        let (disk, file) = with_synced_file(seed);
        put(&*file, 0, &[2; 512]);
        put(&*file, 0, &[3; 512]);
        content(&disk.after_power_cut(), "a").unwrap()[0]
    });
    assert_eq!(seen, BTreeSet::from([1, 2, 3]));
}

#[test]
fn an_unsynced_length_survives_or_not_and_missing_sectors_are_zeros() {
    let seen = outcomes(|seed| {
        let (disk, file) = with_synced_file(seed);
        put(&*file, 4096, &[2; 1000]);
        let bytes = content(&disk.after_power_cut(), "a").unwrap();
        assert!((4096..=5096).contains(&bytes.len()));
        assert!(bytes[4096..].iter().all(|&byte| byte == 0 || byte == 2));
        (bytes.len() == 4096, bytes.len() == 5096, bytes.len() > 4096 && bytes[4096] == 0)
    });
    for expected in [(true, false, false), (false, true, false), (false, true, true), (false, false, false)] {
        assert!(seen.contains(&expected), "{expected:?} in {seen:?}");
    }
}

#[test]
fn an_unsynced_cut_may_come_back() {
    let seen = outcomes(|seed| {
        let (disk, file) = with_synced_file(seed);
        file.set_len(100).unwrap();
        let bytes = content(&disk.after_power_cut(), "a").unwrap();
        assert_eq!(bytes[..100], [1; 100]);
        bytes.len()
    });
    assert!(seen.contains(&100) && seen.contains(&4096), "{seen:?}");
}

#[test]
fn an_unsynced_name_may_vanish_or_stay() {
    let seen = outcomes(|seed| {
        let (disk, _) = with_synced_file(seed);
        let file = new(&disk, "b");
        put(&*file, 0, b"bytes");
        file.sync().unwrap();
        content(&disk.after_power_cut(), "b")
    });
    assert_eq!(seen, BTreeSet::from([None, Some(b"bytes".to_vec())]));
}

#[test]
fn an_unsynced_removal_may_come_back() {
    let seen = outcomes(|seed| {
        let (disk, _file) = with_synced_file(seed);
        disk.remove_file("a").unwrap();
        content(&disk.after_power_cut(), "a").map(|bytes| bytes == [1; 4096])
    });
    assert_eq!(seen, BTreeSet::from([None, Some(true)]));
}

#[test]
fn a_directory_without_a_durable_name_takes_its_files_along() {
    let seen = outcomes(|seed| {
        let disk = MemDisk::inline().seeded(seed);
        disk.create_dir_all("d").unwrap();
        new(&disk, "d/a").sync().unwrap();
        disk.sync_dir("d").unwrap();
        let disk = disk.after_power_cut();
        (disk.list("d").is_ok(), content(&disk, "d/a").is_some())
    });
    assert_eq!(seen, BTreeSet::from([(false, false), (true, true)]));
}

#[test]
fn a_renamed_file_is_at_its_old_or_its_new_name() {
    let seen = outcomes(|seed| {
        let (disk, _) = with_synced_file(seed);
        disk.create_dir_all("d").unwrap();
        disk.sync_dir("").unwrap();
        disk.rename("a", "d/b").unwrap();
        if seed % 2 == 0 {
            disk.sync_dir(if seed % 4 == 0 { "" } else { "d" }).unwrap();
        }
        let disk = disk.after_power_cut();
        (content(&disk, "a").is_some(), content(&disk, "d/b").is_some())
    });
    assert_eq!(seen, BTreeSet::from([(true, false), (false, true)]));
}

#[test]
fn a_replacing_rename_leaves_the_old_or_the_new_file_and_both_syncs_settle_it() {
    let run = |seed, settle: bool| {
        let (disk, _) = with_synced_file(seed);
        let file = new(&disk, "a.new");
        put(&*file, 0, b"new");
        file.sync().unwrap();
        disk.rename("a.new", "a").unwrap();
        if settle {
            disk.sync_dir("").unwrap();
        }
        let disk = disk.after_power_cut();
        (content(&disk, "a").unwrap() == b"new", content(&disk, "a.new").is_some())
    };
    assert_eq!(outcomes(|seed| run(seed, true)), BTreeSet::from([(true, false)]));
    assert_eq!(outcomes(|seed| run(seed, false)), BTreeSet::from([(false, false), (false, true), (true, false)]));
}

#[test]
fn unsynced_names_survive_in_any_order() {
    let seen = outcomes(|seed| {
        let disk = MemDisk::inline().seeded(seed);
        for name in ["a", "b", "c"] {
            new(&disk, name);
        }
        disk.after_power_cut().list("").unwrap().into_iter().map(|entry| entry.name).collect::<String>()
    });
    assert_eq!(seen.len(), 8, "{seen:?}");
}

#[test]
fn a_kill_keeps_everything_and_makes_nothing_durable() {
    let seen = outcomes(|seed| {
        let (disk, file) = with_synced_file(seed);
        put(&*file, 0, &[2; 512]);
        new(&disk, "b");
        let next = disk.crash_process();
        assert_eq!(content(&next, "a").unwrap()[0], 2);
        assert!(content(&next, "b").is_some());
        assert!(disk.is_cut() && !next.is_cut());
        assert!(file.sync().is_err() && disk.sync_dir("").is_err(), "the dead process can do nothing more");
        let last = next.after_power_cut();
        (content(&last, "a").unwrap()[0], content(&last, "b").is_some())
    });
    assert_eq!(seen, BTreeSet::from([(1, false), (1, true), (2, false), (2, true)]));
}

#[test]
fn syncing_after_a_kill_makes_the_old_process_bytes_durable() {
    for seed in 0..SEEDS {
        let (disk, file) = with_synced_file(seed);
        put(&*file, 0, &[2; 512]);
        let next = disk.crash_process();
        next.open("a", Open::Existing).unwrap().sync().unwrap();
        assert_eq!(content(&next.after_power_cut(), "a").unwrap()[0], 2);
    }
}

#[test]
fn a_noop_sync_loses_bytes_and_a_noop_directory_sync_loses_names() {
    let seen = outcomes(|seed| {
        let disk = MemDisk::inline().seeded(seed);
        disk.set_sync_is_noop(true);
        let file = new(&disk, "a");
        put(&*file, 0, b"abc");
        file.sync().unwrap();
        disk.sync_dir("").unwrap();
        content(&disk.after_power_cut(), "a").unwrap() == b"abc"
    });
    assert_eq!(seen, BTreeSet::from([false, true]));
    let seen = outcomes(|seed| {
        let disk = MemDisk::inline().seeded(seed);
        disk.set_dir_sync_is_noop(true);
        new(&disk, "a");
        disk.sync_dir("").unwrap();
        content(&disk.after_power_cut(), "a").is_some()
    });
    assert_eq!(seen, BTreeSet::from([false, true]));
}

#[test]
fn a_failed_sync_is_forgotten_and_the_bytes_go_with_the_cache() {
    let seen = outcomes(|seed| {
        let (disk, file) = with_synced_file(seed);
        disk.fail_sync_at(disk.counters().syncs);
        put(&*file, 0, &[2; 512]);
        assert!(file.sync().is_err());
        file.sync().expect("the kernel reports an error once");
        assert_eq!(content(&disk, "a").unwrap()[0], 2, "the page cache still shows it");
        let restarted = disk.crash_process();
        assert_eq!(content(&restarted, "a").unwrap()[0], 2);
        let file = restarted.open("a", Open::Existing).unwrap();
        file.sync().expect("a new process is told nothing");
        file.evict().unwrap();
        let evicted = content(&restarted, "a").unwrap()[0];
        assert_eq!(content(&restarted.after_power_cut(), "a").unwrap()[0], evicted);
        evicted
    });
    assert_eq!(seen, BTreeSet::from([1, 2]));
}

#[test]
fn a_failed_directory_sync_is_forgotten() {
    let seen = outcomes(|seed| {
        let (disk, _) = with_synced_file(seed);
        new(&disk, "b");
        disk.fail_sync_at(disk.counters().syncs);
        assert!(disk.sync_dir("").is_err());
        disk.sync_dir("").unwrap();
        content(&disk.after_power_cut(), "b").is_some()
    });
    assert_eq!(seen, BTreeSet::from([false, true]));
}

#[test]
fn power_fails_at_the_named_operation_and_stays_off() {
    let script = |disk: &MemDisk| {
        let file = disk.open("a", Open::New)?;
        file.write_at(0, &[IoSlice::new(&[1; 2000])])?;
        file.allocate(0, 9000)?;
        file.sync()?;
        disk.sync_dir("")?;
        disk.rename("a", "b")?;
        file.set_len(10)?;
        disk.remove_file("b")
    };
    let whole = MemDisk::inline();
    script(&whole).unwrap();
    assert_eq!(whole.ops(), 8);
    for op in 0..whole.ops() {
        let disk = MemDisk::inline().seeded(op);
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&calls);
        disk.on_cut(move || {
            seen.fetch_add(1, Ordering::SeqCst);
        });
        disk.cut_power_at(op);
        script(&disk).unwrap_err();
        assert!(disk.is_cut());
        assert_eq!(disk.ops(), op + 1);
        assert!(disk.list("").is_err() && disk.space().is_err() && disk.create_dir_all("x").is_err());
        disk.cut_power_now();
        assert_eq!(calls.load(Ordering::SeqCst), 1, "the hook runs once");
        let next = disk.after_power_cut();
        assert!(!next.is_cut() && next.ops() == 0);
    }
}

#[test]
fn the_write_at_the_cut_is_torn_anywhere() {
    let seen = outcomes(|seed| {
        let (disk, file) = with_synced_file(seed);
        disk.cut_power_at(disk.ops());
        assert!(file.write_at(256, &[IoSlice::new(&[2; 1024])]).is_err());
        let bytes = content(&disk.after_power_cut(), "a").unwrap();
        assert_eq!((bytes[255], bytes[1280]), (1, 1), "sectors keep what was not written");
        (bytes[256], bytes[512], bytes[1024])
    });
    assert_eq!(seen.len(), 8, "{seen:?}");
}

#[test]
fn a_cut_disk_can_be_examined_more_than_once() {
    let (disk, file) = with_synced_file(1);
    put(&*file, 0, &[2; 512]);
    let seen = outcomes(|_| content(&disk.after_power_cut(), "a").unwrap()[0]);
    assert_eq!(seen, BTreeSet::from([1, 2]));
}

#[test]
fn a_full_disk_says_so_and_allocated_space_is_kept() {
    let disk = MemDisk::inline();
    disk.set_capacity(Some(64 << 10));
    let (a, b) = (new(&disk, "a"), new(&disk, "b"));
    a.allocate(0, 32 << 10).unwrap();
    assert_eq!(disk.space().unwrap().free_bytes, 32 << 10);
    assert_eq!(b.allocate(0, (32 << 10) + 1).unwrap_err().kind(), ErrorKind::StorageFull);
    let error = b.write_at(0, &[IoSlice::new(&vec![1; 40 << 10])]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(b.len().unwrap() <= 32 << 10);
    assert_eq!(disk.space().unwrap().free_bytes, 0);
    put(&*a, 0, &vec![1; 32 << 10]);
    assert_eq!(a.write_at(32 << 10, &[IoSlice::new(b"x")]).unwrap_err().kind(), ErrorKind::StorageFull);
    a.set_len(4096).unwrap();
    assert_eq!(disk.space().unwrap().free_bytes, 28 << 10, "cutting frees space");
    disk.remove_file("b").unwrap();
    assert_eq!(disk.space().unwrap().free_bytes, 28 << 10, "an open file keeps its space");
    drop(b);
    assert_eq!(disk.space().unwrap().free_bytes, 60 << 10);
}

#[test]
fn a_flipped_bit_is_durable() {
    let (disk, _) = with_synced_file(0);
    disk.flip_bit("a", 700, 3).unwrap();
    assert!(disk.flip_bit("a", 4096, 0).is_err());
    let bytes = content(&disk.after_power_cut(), "a").unwrap();
    assert_eq!((bytes[699], bytes[700], bytes[701]), (1, 9, 1));
}

#[test]
fn cold_pages_get_warm_when_they_are_read() {
    let (disk, file) = with_synced_file(0);
    put(&*file, 4096, &[2; 4096]);
    assert!(file.resident(0, 8192).unwrap());
    disk.set_cold("a").unwrap();
    assert!(!file.resident(0, 1).unwrap() && !file.resident(8191, 1).unwrap());
    file.read_at(10, &mut [0; 10]).unwrap();
    assert!(file.resident(0, 4096).unwrap() && !file.resident(0, 4097).unwrap());
    disk.set_cold("a").unwrap();
    put(&*file, 4100, b"x");
    file.evict().unwrap();
    assert!(!file.resident(0, 4096).unwrap());
    assert!(file.resident(4096, 4096).unwrap(), "unsynced pages cannot be dropped");
    let restarted = disk.after_power_cut();
    assert!(!restarted.open("a", Open::ReadOnly).unwrap().resident(0, 1).unwrap());
}

#[test]
fn queued_jobs_wait_and_die_with_the_process() {
    let disk = MemDisk::queued();
    let ran = Arc::new(AtomicUsize::new(0));
    for _ in 0..3 {
        let ran = Arc::clone(&ran);
        disk.offload(
            Lane::Flush,
            Box::new(move || {
                ran.fetch_add(1, Ordering::SeqCst);
            }),
        );
    }
    assert_eq!((disk.waiting_jobs(), ran.load(Ordering::SeqCst)), (3, 0));
    assert!(disk.run_next());
    assert_eq!(ran.load(Ordering::SeqCst), 1);
    let next = disk.crash_process();
    assert_eq!((disk.run_all(), next.run_all(), ran.load(Ordering::SeqCst)), (0, 0, 1));
}

#[test]
fn deferred_jobs_of_a_killed_process_do_nothing() {
    let kept: Arc<Mutex<Vec<Job>>> = Arc::default();
    let jobs = Arc::clone(&kept);
    let disk = MemDisk::with_defer(Arc::new(move |_, job| jobs.lock().unwrap().push(job)));
    let ran = Arc::new(AtomicUsize::new(0));
    let offload = |disk: &MemDisk| {
        let ran = Arc::clone(&ran);
        disk.offload(
            Lane::Read,
            Box::new(move || {
                ran.fetch_add(1, Ordering::SeqCst);
            }),
        );
    };
    offload(&disk);
    let next = disk.crash_process();
    offload(&next);
    let jobs: Vec<Job> = kept.lock().unwrap().drain(..).collect();
    assert_eq!(jobs.len(), 2);
    for job in jobs {
        job();
    }
    assert_eq!(ran.load(Ordering::SeqCst), 1);
}

#[test]
fn locks_end_with_their_process() {
    let disk = MemDisk::inline();
    let _guard = disk.lock("LOCK").unwrap();
    let next = disk.crash_process();
    let _held = next.lock("LOCK").unwrap();
    assert_eq!(next.lock("LOCK").unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn the_same_seed_gives_the_same_hash_and_anything_else_another() {
    let run = |seed: u64, bytes: &[u8]| {
        let (disk, file) = with_synced_file(seed);
        put(&*file, 100, bytes);
        put(&*file, 200, bytes);
        let next = disk.after_power_cut();
        let found = content(&next, "a").unwrap();
        put(&*new(&next, "copy"), 0, &found);
        next.trace_hash()
    };
    let hashes = outcomes(|seed| {
        assert_eq!(run(seed, b"abc"), run(seed, b"abc"));
        assert_ne!(run(seed, b"abc"), run(seed, b"abd"));
        run(seed, b"abc")
    });
    assert!(hashes.len() > 1, "the outcome of the cut is part of it");
}

#[test]
fn views_past_the_end_are_a_bug_of_the_caller() {
    let (_disk, file) = with_synced_file(0);
    let view = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| file.view(4000, 97)));
    assert!(view.is_err());
}
