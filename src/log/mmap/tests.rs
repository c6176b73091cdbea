//! What only the real disk does: descriptors, maps, threads and the kernel's page cache.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, IoSlice};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;

use tempfile::TempDir;

use super::{MmapDisk, MmapOptions, explain};
use crate::log::disk::{Disk, DiskFile, Lane, Open};

fn disk(options: MmapOptions) -> (TempDir, MmapDisk) {
    let dir = tempfile::tempdir().unwrap();
    let disk = MmapDisk::open(dir.path().to_owned(), options).unwrap();
    (dir, disk)
}

fn put(file: &dyn DiskFile, pos: u64, bytes: &[u8]) {
    file.write_at(pos, &[IoSlice::new(bytes)]).unwrap();
}

fn get(file: &dyn DiskFile, pos: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0; len];
    let n = file.read_at(pos, &mut buf).unwrap();
    buf.truncate(n);
    buf
}

/// How many descriptors of this process are open on files in `dir`.
fn descriptors(dir: &Path) -> usize {
    let dir = dir.canonicalize().unwrap();
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    links.filter(|link| link.starts_with(&dir)).count()
}

/// How many maps of files in `dir` this process has.
fn maps(dir: &Path) -> usize {
    let dir = dir.canonicalize().unwrap();
    let all = fs::read_to_string("/proc/self/maps").unwrap();
    all.lines().filter(|line| line.contains(dir.to_str().unwrap())).count()
}

fn files(disk: &MmapDisk, n: usize) -> Vec<Arc<dyn DiskFile>> {
    (0..n)
        .map(|i| {
            let file = disk.open(&format!("f{i}"), Open::New).unwrap();
            put(&*file, 0, format!("file {i}").as_bytes());
            file
        })
        .collect()
}

#[test]
fn descriptors_of_clean_files_are_closed_and_opened_again_on_use() {
    let (dir, disk) = disk(MmapOptions { open_files: 4, ..MmapOptions::default() });
    let files = files(&disk, 30);
    assert_eq!(descriptors(dir.path()), 30, "unsynced files stay open");
    for file in &files {
        file.sync().unwrap();
    }
    for _ in 0..3 {
        for (i, file) in files.iter().enumerate() {
            assert_eq!(get(&**file, 0, 99), format!("file {i}").as_bytes());
        }
    }
    disk.open("one more", Open::New).unwrap();
    disk.open("f0", Open::ReadOnly).unwrap();
    assert!(descriptors(dir.path()) <= 6, "{}", descriptors(dir.path()));
    for file in &files {
        put(&**file, 5, b"X");
    }
    assert!(files.iter().all(|file| get(&**file, 0, 6) == b"file X"));
    drop(files);
    assert_eq!(descriptors(dir.path()), 0);
}

#[test]
fn maps_are_dropped_when_too_many_and_their_views_live_on() {
    let (dir, disk) = disk(MmapOptions { maps: 3, map_step_bytes: 4096, ..MmapOptions::default() });
    let files = files(&disk, 20);
    let views: Vec<_> = files.iter().map(|file| file.view(0, 6).unwrap()).collect();
    assert_eq!(maps(dir.path()), 20);
    for (i, view) in views.into_iter().enumerate() {
        assert_eq!(view, format!("file {i}").as_bytes()[..6]);
    }
    assert!(maps(dir.path()) <= 4, "{}", maps(dir.path()));
    assert!(files.iter().all(|file| file.view(0, 4).unwrap() == b"file"[..]));
    drop(files);
    assert_eq!(maps(dir.path()), 0);
}

#[test]
fn views_are_slices_of_one_map() {
    let (dir, disk) = disk(MmapOptions::default());
    let file = files(&disk, 1).remove(0);
    let (one, two) = (file.view(0, 4).unwrap(), disk.open("f0", Open::ReadOnly).unwrap().view(2, 4).unwrap());
    assert_eq!(one.as_ptr() as usize + 2, two.as_ptr() as usize);
    put(&*file, 1 << 20, &[1; 1 << 20]);
    drop(file.view(1 << 20, 1 << 20).unwrap());
    assert_eq!(maps(dir.path()), 1, "the file grows into its map");
}

#[test]
fn a_file_closed_behind_its_handle_is_found_at_its_new_name_and_never_confused() {
    let (dir, disk) = disk(MmapOptions { open_files: 0, ..MmapOptions::default() });
    disk.create_dir_all("d").unwrap();
    let files = files(&disk, 3);
    for file in &files {
        file.sync().unwrap();
    }
    disk.rename("f0", "d/moved").unwrap();
    disk.rename("d", "e").unwrap();
    disk.remove_file("f1").unwrap();
    put(&*disk.open("f1", Open::New).unwrap(), 0, b"another");
    disk.rename("f1", "f2").unwrap();
    for _ in 0..3 {
        drop(disk.open("f2", Open::ReadOnly).unwrap());
    }
    assert_eq!(descriptors(dir.path()), 0, "all handles have lost their descriptors");
    assert_eq!(get(&*files[0], 0, 9), b"file 0");
    for removed in &files[1..] {
        assert_eq!(removed.len().unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(get(&*disk.open("f2", Open::Existing).unwrap(), 0, 9), b"another");
}

#[test]
fn allocated_space_is_taken_at_once_and_given_back_by_set_len() {
    let (dir, disk) = disk(MmapOptions::default());
    let file = files(&disk, 1).remove(0);
    let occupied = || fs::metadata(dir.path().join("f0")).unwrap().blocks() * 512;
    file.allocate(0, 4 << 20).unwrap();
    assert!(occupied() >= 4 << 20);
    file.set_len(6).unwrap();
    assert!(occupied() <= 64 << 10, "{}", occupied());
}

#[test]
fn evicted_pages_are_cold_until_they_are_read() {
    let (dir, disk) = disk(MmapOptions::default());
    // In tmpfs there is nothing but memory.
    let in_memory = rustix::fs::statfs(dir.path()).unwrap().f_type == 0x0102_1994;
    let file = disk.open("a", Open::New).unwrap();
    put(&*file, 0, &vec![7; 3 << 20]);
    let view = file.view(0, 3 << 20).unwrap();
    assert_eq!(view.iter().filter(|&&byte| byte == 7).count(), 3 << 20);
    assert!(file.resident(0, 3 << 20).unwrap());
    file.sync().unwrap();
    file.evict().unwrap();
    assert_eq!(file.resident(0, 3 << 20).unwrap(), in_memory);
    assert_eq!(file.resident((3 << 20) - 1, 1).unwrap(), in_memory);
    get(&*file, 0, 3 << 20);
    assert!(file.resident(0, 3 << 20).unwrap());
}

#[test]
fn a_second_broker_is_kept_out_of_the_directory() {
    let (dir, disk) = disk(MmapOptions::default());
    let other = MmapDisk::open(dir.path().to_owned(), MmapOptions::default()).unwrap();
    let guard = disk.lock("LOCK").unwrap();
    assert_eq!(other.lock("LOCK").unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(guard);
    other.lock("LOCK").unwrap();
}

#[test]
fn a_missing_data_directory_is_created_with_its_parents() {
    let dir = tempfile::tempdir().unwrap();
    let disk = MmapDisk::open(dir.path().join("a/b/c"), MmapOptions::default()).unwrap();
    assert!(dir.path().join("a/b/c").is_dir());
    assert!(disk.list("").unwrap().is_empty());
    fs::write(dir.path().join("file"), "x").unwrap();
    assert!(MmapDisk::open(dir.path().join("file"), MmapOptions::default()).is_err());
}

#[test]
fn names_that_are_not_unicode_are_not_listed() {
    use std::os::unix::ffi::OsStrExt;
    let (dir, disk) = disk(MmapOptions::default());
    fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"\xFF\xFE")), "x").unwrap();
    files(&disk, 1);
    assert_eq!(disk.list("").unwrap().len(), 1);
}

#[test]
fn after_a_failed_sync_every_sync_fails() {
    let (_dir, disk) = disk(MmapOptions::default());
    let file = files(&disk, 1).remove(0);
    file.sync().unwrap();
    assert!(disk.shared.sync(|| Err(std::io::Error::from_raw_os_error(5))).is_err());
    assert!(file.sync().is_err());
    assert!(disk.sync_dir("").is_err());
}

#[test]
fn a_full_quota_is_a_full_disk() {
    const EDQUOT: i32 = 122;
    assert_eq!(explain(std::io::Error::from_raw_os_error(EDQUOT)).kind(), ErrorKind::StorageFull);
    assert_eq!(explain(rustix::io::Errno::NOSPC).kind(), ErrorKind::StorageFull);
}

#[test]
fn jobs_of_a_lane_run_in_parallel_on_named_threads_up_to_the_limit() {
    let (_dir, disk) = disk(MmapOptions { flush_threads: 3, ..MmapOptions::default() });
    let (done, all) = mpsc::channel();
    for _ in 0..50 {
        let together = Arc::new(Barrier::new(3));
        for _ in 0..3 {
            let (done, together) = (done.clone(), Arc::clone(&together));
            let job = move || {
                together.wait();
                done.send(thread::current().name().expect("a name").to_owned()).unwrap();
            };
            disk.offload(Lane::Flush, Box::new(job));
        }
        for _ in 0..3 {
            assert!(all.recv().unwrap().starts_with("flush-"));
        }
    }
    let ids = Arc::new(Mutex::new(BTreeSet::new()));
    for _ in 0..500 {
        let ids = Arc::clone(&ids);
        let job = move || {
            ids.lock().unwrap().insert(format!("{:?}", thread::current().id()));
        };
        disk.offload(Lane::Flush, Box::new(job));
    }
    drop(disk);
    assert!((1..=3).contains(&ids.lock().unwrap().len()));
}

#[test]
fn a_job_that_panics_costs_its_lane_nothing() {
    let (_dir, disk) = disk(MmapOptions { background_threads: 1, ..MmapOptions::default() });
    let (done, all) = mpsc::channel();
    disk.offload(Lane::Background, Box::new(|| std::panic::resume_unwind(Box::new("on purpose"))));
    disk.offload(Lane::Background, Box::new(move || done.send(()).unwrap()));
    all.recv().unwrap();
}

#[test]
fn dropping_the_disk_waits_for_its_jobs() {
    let (_dir, disk) = disk(MmapOptions { flush_threads: 2, ..MmapOptions::default() });
    let ran = Arc::new(AtomicUsize::new(0));
    for _ in 0..200 {
        let ran = Arc::clone(&ran);
        let job = move || {
            thread::yield_now();
            ran.fetch_add(1, Ordering::SeqCst);
        };
        disk.offload(Lane::Flush, Box::new(job));
    }
    drop(disk);
    assert_eq!(ran.load(Ordering::SeqCst), 200);
}

#[test]
fn a_job_may_be_the_last_owner_of_its_disk() {
    let (_dir, disk) = disk(MmapOptions::default());
    let disk = Arc::new(disk);
    let (done, all) = mpsc::channel();
    let (start, started) = mpsc::channel::<()>();
    let own = Arc::clone(&disk);
    let job = move || {
        started.recv().unwrap();
        drop(own);
        done.send(()).unwrap();
    };
    disk.offload(Lane::Read, Box::new(job));
    drop(disk);
    start.send(()).unwrap();
    all.recv().unwrap();
}

#[test]
fn writers_readers_syncs_and_tiny_caches_do_not_disturb_each_other() {
    let (_dir, disk) = disk(MmapOptions { open_files: 1, maps: 1, map_step_bytes: 4096, ..MmapOptions::default() });
    let files = files(&disk, 4);
    thread::scope(|scope| {
        for (i, file) in files.iter().enumerate() {
            let fill = u8::try_from(i).unwrap();
            scope.spawn(move || {
                for n in 1..200_u64 {
                    put(&**file, n * 1000, &[fill; 1000]);
                    assert_eq!(get(&**file, n * 1000, 1000), [fill; 1000]);
                    assert_eq!(file.view(1000, 1000).unwrap(), [fill; 1000][..]);
                    if n % 50 == 0 {
                        file.sync().unwrap();
                    }
                }
            });
        }
        for i in 0..4 {
            let (disk, path) = (&disk, format!("f{i}"));
            scope.spawn(move || {
                for _ in 0..200 {
                    let file = disk.open(&path, Open::ReadOnly).unwrap();
                    assert!(file.len().unwrap() >= 6);
                    assert_eq!(file.view(0, 5).unwrap(), &b"file "[..]);
                }
            });
        }
    });
    assert!(files.iter().all(|file| file.len().unwrap() == 200_000));
}
