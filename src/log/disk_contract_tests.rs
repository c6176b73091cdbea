//! What [`Disk`]'s documentation promises, checked on every implementation.

use std::any::Any;
use std::io::{ErrorKind, IoSlice};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use super::disk::{DirEntry, Disk, DiskFile, Lane, Open};
use super::mem_disk::MemDisk;
use super::mmap::{MmapDisk, MmapOptions};

/// A disk under test, and what it takes to let its jobs run.
struct Subject {
    disk: Arc<dyn Disk>,
    run_jobs: Box<dyn Fn()>,
    _keep: Box<dyn Any>,
}

fn mem() -> Subject {
    let disk = MemDisk::queued();
    let jobs = disk.clone();
    Subject {
        disk: Arc::new(disk),
        run_jobs: Box::new(move || {
            jobs.run_all();
        }),
        _keep: Box::new(()),
    }
}

fn real(options: MmapOptions) -> Subject {
    let dir = tempfile::tempdir().unwrap();
    let disk = MmapDisk::open(dir.path().join("data"), options).unwrap();
    Subject { disk: Arc::new(disk), run_jobs: Box::new(|| {}), _keep: Box::new(dir) }
}

fn mmap() -> Subject {
    real(MmapOptions::default())
}

/// Every descriptor and map is closed as soon as another is wanted, and every map is as short as can be.
fn tiny_mmap() -> Subject {
    real(MmapOptions { open_files: 0, maps: 0, map_step_bytes: 1, flush_threads: 1, ..MmapOptions::default() })
}

/// One test for each promise and implementation.
macro_rules! contract {
    ($($promise:ident)*) => {
        mod mem_disk {
            $(#[test] fn $promise() { super::$promise(&super::mem()); })*
        }
        mod mmap_disk {
            $(#[test] fn $promise() { super::$promise(&super::mmap()); })*
        }
        mod mmap_disk_with_tiny_caches {
            $(#[test] fn $promise() { super::$promise(&super::tiny_mmap()); })*
        }
    };
}

contract! {
    a_new_file_is_empty_and_must_not_exist
    an_existing_file_must_exist
    written_bytes_are_readable_at_once_through_any_handle
    many_buffers_are_written_one_behind_the_other
    a_gap_reads_as_zeros
    reading_stops_at_the_end_of_the_file
    a_read_only_handle_refuses_changes
    allocating_leaves_the_length_alone
    set_len_cuts_and_extends_with_zeros
    views_show_what_was_written_and_grow_with_the_file
    views_outlive_their_file
    views_of_one_file_share_memory_or_are_equal
    fresh_bytes_are_resident_and_eviction_keeps_them_readable
    unsynced_bytes_survive_eviction
    sync_and_sync_dir_succeed_on_a_healthy_disk
    directories_are_created_with_their_parents_and_listed_in_order
    listing_what_is_not_a_directory_fails
    renaming_replaces_a_file_and_handles_follow
    renaming_a_directory_moves_what_is_in_it
    removing_needs_the_right_kind
    a_removed_name_can_be_created_again
    removing_a_directory_takes_all_below_it
    space_is_plausible
    a_lock_is_held_once_and_freed_on_drop
    every_offloaded_job_runs_once
    a_job_may_use_the_disk_and_offload_more
    paths_that_leave_the_directory_are_refused
    absurd_positions_are_errors
}

fn put(file: &dyn DiskFile, pos: u64, bytes: &[u8]) {
    file.write_at(pos, &[IoSlice::new(bytes)]).unwrap();
}

fn get(file: &dyn DiskFile, pos: u64, len: usize) -> Vec<u8> {
    let mut buf = vec![0xEE; len];
    let n = file.read_at(pos, &mut buf).unwrap();
    buf.truncate(n);
    buf
}

fn new(on: &Subject, path: &str) -> Arc<dyn DiskFile> {
    on.disk.open(path, Open::New).unwrap()
}

fn open(on: &Subject, path: &str) -> Arc<dyn DiskFile> {
    on.disk.open(path, Open::Existing).unwrap()
}

fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    result.err().expect("an error was expected").kind()
}

fn names(on: &Subject, dir: &str) -> Vec<String> {
    on.disk.list(dir).unwrap().into_iter().map(|entry| entry.name).collect()
}

fn a_new_file_is_empty_and_must_not_exist(on: &Subject) {
    let file = new(on, "a");
    assert_eq!(file.len().unwrap(), 0);
    assert!(file.is_empty().unwrap());
    assert_eq!(kind(on.disk.open("a", Open::New)), ErrorKind::AlreadyExists);
}

fn an_existing_file_must_exist(on: &Subject) {
    on.disk.create_dir_all("d").unwrap();
    for how in [Open::Existing, Open::ReadOnly] {
        assert_eq!(kind(on.disk.open("a", how)), ErrorKind::NotFound);
        assert_eq!(kind(on.disk.open("nowhere/a", how)), ErrorKind::NotFound);
        assert_eq!(kind(on.disk.open("d", how)), ErrorKind::IsADirectory);
    }
    assert_eq!(kind(on.disk.open("nowhere/a", Open::New)), ErrorKind::NotFound);
}

fn written_bytes_are_readable_at_once_through_any_handle(on: &Subject) {
    let (one, two) = (new(on, "a"), open(on, "a"));
    let three = on.disk.open("a", Open::ReadOnly).unwrap();
    put(&*one, 0, b"hello world");
    put(&*two, 6, b"there");
    for file in [one, two, three] {
        assert_eq!(get(&*file, 0, 100), b"hello there");
        assert_eq!(file.view(6, 5).unwrap(), &b"there"[..]);
        assert_eq!(file.len().unwrap(), 11);
    }
}

fn many_buffers_are_written_one_behind_the_other(on: &Subject) {
    let file = new(on, "a");
    let parts: Vec<Vec<u8>> = (0..3000_u32).map(|i| i.to_le_bytes()[..1 + i as usize % 4].to_vec()).collect();
    let slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    file.write_at(5, &slices).unwrap();
    let whole = parts.concat();
    assert_eq!(file.len().unwrap(), 5 + whole.len() as u64);
    assert_eq!(get(&*file, 5, whole.len()), whole);
    file.write_at(0, &[]).unwrap();
    file.write_at(1 << 20, &[IoSlice::new(b""), IoSlice::new(b"")]).unwrap();
    assert_eq!(file.len().unwrap(), 5 + whole.len() as u64, "writing nothing changes nothing");
}

fn a_gap_reads_as_zeros(on: &Subject) {
    let file = new(on, "a");
    put(&*file, 10_000, b"x");
    assert_eq!(get(&*file, 0, 10_000), vec![0; 10_000]);
    assert_eq!(get(&*file, 10_000, 1), b"x");
}

fn reading_stops_at_the_end_of_the_file(on: &Subject) {
    let file = new(on, "a");
    put(&*file, 0, &[7; 1000]);
    assert_eq!(get(&*file, 990, 100), [7; 10]);
    assert_eq!(get(&*file, 1000, 100), b"");
    assert_eq!(get(&*file, 1 << 40, 100), b"");
    assert_eq!(get(&*file, 3, 0), b"");
}

fn a_read_only_handle_refuses_changes(on: &Subject) {
    put(&*new(on, "a"), 0, b"abc");
    let file = on.disk.open("a", Open::ReadOnly).unwrap();
    assert_eq!(kind(file.write_at(0, &[IoSlice::new(b"x")])), ErrorKind::PermissionDenied);
    assert_eq!(kind(file.set_len(0)), ErrorKind::PermissionDenied);
    assert_eq!(kind(file.allocate(0, 100)), ErrorKind::PermissionDenied);
    assert_eq!(get(&*file, 0, 9), b"abc");
    put(&*open(on, "a"), 0, b"xyz");
    assert_eq!(get(&*file, 0, 9), b"xyz", "another handle of the same file still writes");
}

fn allocating_leaves_the_length_alone(on: &Subject) {
    let file = new(on, "a");
    put(&*file, 0, b"abc");
    file.allocate(0, 1 << 20).unwrap();
    file.allocate(1 << 20, 1 << 16).unwrap();
    assert_eq!(file.len().unwrap(), 3);
    assert_eq!(get(&*file, 0, 10), b"abc");
    put(&*file, 100_000, b"z");
    assert_eq!(get(&*file, 3, 200_000)[..99_997], vec![0; 99_997]);
}

fn set_len_cuts_and_extends_with_zeros(on: &Subject) {
    let file = new(on, "a");
    put(&*file, 0, &[9; 5000]);
    file.set_len(700).unwrap();
    assert_eq!(file.len().unwrap(), 700);
    assert_eq!(get(&*file, 0, 9000), [9; 700]);
    file.set_len(6000).unwrap();
    assert_eq!(file.len().unwrap(), 6000);
    assert_eq!(get(&*file, 0, 700), [9; 700]);
    assert_eq!(get(&*file, 700, 9000), [0; 5300], "what was cut does not come back");
    file.set_len(0).unwrap();
    assert!(file.is_empty().unwrap());
}

fn views_show_what_was_written_and_grow_with_the_file(on: &Subject) {
    let file = new(on, "a");
    let piece: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let mut views = Vec::new();
    for i in 0..20_u64 {
        put(&*file, i * 100_000, &piece);
        views.push(file.view(i * 100_000 + 1, 99_999).unwrap());
    }
    put(&*file, 300 << 20, b"far away");
    assert_eq!(file.view(300 << 20, 8).unwrap(), &b"far away"[..]);
    for view in views {
        assert_eq!(view, piece[1..]);
    }
    assert_eq!(file.view(0, 0).unwrap(), &b""[..]);
}

fn views_outlive_their_file(on: &Subject) {
    let file = new(on, "a");
    put(&*file, 0, b"kept");
    let view = file.view(0, 4).unwrap();
    on.disk.remove_file("a").unwrap();
    drop(file);
    assert_eq!(view, &b"kept"[..]);
    let file = new(on, "b");
    put(&*file, 0, b"other");
    drop(file);
    on.disk.rename("b", "a").unwrap();
    assert_eq!(view, &b"kept"[..]);
}

fn views_of_one_file_share_memory_or_are_equal(on: &Subject) {
    let file = new(on, "a");
    put(&*file, 0, &[5; 8192]);
    let (one, two) = (file.view(100, 50).unwrap(), open(on, "a").view(100, 50).unwrap());
    assert_eq!(one, two);
}

fn fresh_bytes_are_resident_and_eviction_keeps_them_readable(on: &Subject) {
    let file = new(on, "a");
    put(&*file, 0, &[3; 100_000]);
    assert!(file.resident(0, 100_000).unwrap());
    assert!(file.resident(50, 0).unwrap());
    file.sync().unwrap();
    file.evict().unwrap();
    assert_eq!(get(&*file, 0, 100_000), [3; 100_000]);
    assert!(file.resident(0, 100_000).unwrap(), "reading makes warm");
}

fn unsynced_bytes_survive_eviction(on: &Subject) {
    let file = new(on, "a");
    put(&*file, 0, &[3; 10_000]);
    file.evict().unwrap();
    assert_eq!(get(&*file, 0, 10_000), [3; 10_000]);
}

fn sync_and_sync_dir_succeed_on_a_healthy_disk(on: &Subject) {
    on.disk.create_dir_all("d/e").unwrap();
    let file = new(on, "d/e/a");
    file.sync().unwrap();
    put(&*file, 0, b"abc");
    file.sync().unwrap();
    on.disk.open("d/e/a", Open::ReadOnly).unwrap().sync().unwrap();
    for dir in ["d/e", "d", ""] {
        on.disk.sync_dir(dir).unwrap();
    }
    assert_eq!(kind(on.disk.sync_dir("nowhere")), ErrorKind::NotFound);
}

fn directories_are_created_with_their_parents_and_listed_in_order(on: &Subject) {
    on.disk.create_dir_all("x/y/z").unwrap();
    on.disk.create_dir_all("x/y/z").unwrap();
    on.disk.create_dir_all("x/y").unwrap();
    on.disk.create_dir_all("").unwrap();
    for name in ["x/b", "x/a", "x/zz", "x/Z"] {
        new(on, name);
    }
    let entry = |name: &str, is_dir| DirEntry { name: name.to_owned(), is_dir };
    let expected = [entry("Z", false), entry("a", false), entry("b", false), entry("y", true), entry("zz", false)];
    assert_eq!(on.disk.list("x").unwrap(), expected);
    assert_eq!(on.disk.list("").unwrap(), [entry("x", true)]);
    assert_eq!(on.disk.list("x/y/z").unwrap(), []);
}

fn listing_what_is_not_a_directory_fails(on: &Subject) {
    new(on, "a");
    assert_eq!(kind(on.disk.list("a")), ErrorKind::NotADirectory);
    assert_eq!(kind(on.disk.list("b")), ErrorKind::NotFound);
    assert!(on.disk.create_dir_all("a").is_err());
    assert!(on.disk.create_dir_all("a/b").is_err());
}

fn renaming_replaces_a_file_and_handles_follow(on: &Subject) {
    on.disk.create_dir_all("d").unwrap();
    let (a, b) = (new(on, "a"), new(on, "d/b"));
    put(&*a, 0, b"from a");
    put(&*b, 0, b"from b");
    on.disk.rename("a", "d/b").unwrap();
    assert_eq!(names(on, ""), ["d"]);
    assert_eq!(names(on, "d"), ["b"]);
    assert_eq!(get(&*a, 0, 9), b"from a");
    put(&*a, 5, b"A");
    assert_eq!(get(&*open(on, "d/b"), 0, 9), b"from A");
    assert_eq!(kind(on.disk.rename("a", "c")), ErrorKind::NotFound);
    assert!(on.disk.rename("d/b", "nowhere/b").is_err());
}

fn renaming_a_directory_moves_what_is_in_it(on: &Subject) {
    on.disk.create_dir_all("old/sub").unwrap();
    let file = new(on, "old/sub/a");
    put(&*file, 0, b"abc");
    on.disk.rename("old", "new").unwrap();
    assert_eq!(names(on, ""), ["new"]);
    put(&*file, 3, b"def");
    assert_eq!(get(&*open(on, "new/sub/a"), 0, 9), b"abcdef");
    assert_eq!(kind(on.disk.open("old/sub/a", Open::Existing)), ErrorKind::NotFound);
}

fn removing_needs_the_right_kind(on: &Subject) {
    on.disk.create_dir_all("d").unwrap();
    new(on, "a");
    let inside = new(on, "d/x");
    put(&*inside, 0, b"abc");
    inside.sync().unwrap();
    assert_eq!(kind(on.disk.remove_file("b")), ErrorKind::NotFound);
    assert_eq!(kind(on.disk.remove_file("d")), ErrorKind::IsADirectory);
    drop([open(on, "a"), new(on, "e")]);
    on.disk.remove_file("e").unwrap();
    assert_eq!(get(&*inside, 0, 9), b"abc", "a removal that failed takes nothing from an open file");
    assert_eq!(kind(on.disk.remove_dir_all("b")), ErrorKind::NotFound);
    assert_eq!(kind(on.disk.remove_dir_all("a")), ErrorKind::NotADirectory);
    assert_eq!(names(on, ""), ["a", "d"]);
}

fn a_removed_name_can_be_created_again(on: &Subject) {
    let old = new(on, "a");
    put(&*old, 0, b"old");
    on.disk.remove_file("a").unwrap();
    assert_eq!(kind(on.disk.open("a", Open::Existing)), ErrorKind::NotFound);
    let file = new(on, "a");
    assert!(file.is_empty().unwrap(), "the old bytes belong to the old file");
    put(&*file, 0, b"new");
    drop(old);
    assert_eq!(get(&*open(on, "a"), 0, 9), b"new");
}

fn removing_a_directory_takes_all_below_it(on: &Subject) {
    on.disk.create_dir_all("d/e/f").unwrap();
    on.disk.create_dir_all("dd").unwrap();
    for name in ["d/a", "d/e/b", "d/e/f/c", "dd/x"] {
        put(&*new(on, name), 0, name.as_bytes());
    }
    let file = open(on, "d/e/b");
    let view = file.view(0, 5).unwrap();
    on.disk.remove_dir_all("d").unwrap();
    assert_eq!(names(on, ""), ["dd"]);
    assert_eq!(view, &b"d/e/b"[..]);
    on.disk.create_dir_all("d").unwrap();
    assert_eq!(names(on, "d"), Vec::<String>::new());
    assert_eq!(get(&*open(on, "dd/x"), 0, 9), b"dd/x");
}

fn space_is_plausible(on: &Subject) {
    let space = on.disk.space().unwrap();
    assert!(space.total_bytes > 0);
    assert!(space.free_bytes <= space.total_bytes);
}

fn a_lock_is_held_once_and_freed_on_drop(on: &Subject) {
    let guard = on.disk.lock("LOCK").unwrap();
    assert_eq!(kind(on.disk.lock("LOCK")), ErrorKind::WouldBlock);
    let other = on.disk.lock("OTHER").unwrap();
    drop(guard);
    drop(on.disk.lock("LOCK").unwrap());
    drop(other);
    assert_eq!(names(on, ""), ["LOCK", "OTHER"]);
}

fn every_offloaded_job_runs_once(on: &Subject) {
    let ran = Arc::new(AtomicUsize::new(0));
    let (done, all) = mpsc::channel();
    for i in 0..300 {
        let lane = [Lane::Flush, Lane::Read, Lane::Background][i % 3];
        let (ran, done) = (Arc::clone(&ran), done.clone());
        let job = move || {
            ran.fetch_add(1, Ordering::SeqCst);
            done.send(()).unwrap();
        };
        on.disk.offload(lane, Box::new(job));
    }
    drop(done);
    (on.run_jobs)();
    assert_eq!(all.iter().count(), 300);
    assert_eq!(ran.load(Ordering::SeqCst), 300);
}

fn a_job_may_use_the_disk_and_offload_more(on: &Subject) {
    let (done, all) = mpsc::channel();
    let disk = Arc::clone(&on.disk);
    on.disk.offload(
        Lane::Flush,
        Box::new(move || {
            let file = disk.open("a", Open::New).unwrap();
            put(&*file, 0, b"from a job");
            let next = move || {
                file.sync().unwrap();
                done.send(()).unwrap();
            };
            disk.offload(Lane::Background, Box::new(next));
        }),
    );
    (on.run_jobs)();
    all.recv().unwrap();
    assert_eq!(get(&*open(on, "a"), 0, 99), b"from a job");
}

fn paths_that_leave_the_directory_are_refused(on: &Subject) {
    for path in ["/a", "../a", "d/../a", "./a", "a//b", "a/", "nul\0", "..", "."] {
        assert_eq!(kind(on.disk.open(path, Open::New)), ErrorKind::InvalidInput, "{path:?}");
        assert_eq!(kind(on.disk.create_dir_all(path)), ErrorKind::InvalidInput, "{path:?}");
        assert_eq!(kind(on.disk.list(path)), ErrorKind::InvalidInput, "{path:?}");
        assert_eq!(kind(on.disk.rename(path, "b")), ErrorKind::InvalidInput, "{path:?}");
        assert_eq!(kind(on.disk.rename("b", path)), ErrorKind::InvalidInput, "{path:?}");
        assert_eq!(kind(on.disk.remove_file(path)), ErrorKind::InvalidInput, "{path:?}");
        assert_eq!(kind(on.disk.remove_dir_all(path)), ErrorKind::InvalidInput, "{path:?}");
        assert_eq!(kind(on.disk.sync_dir(path)), ErrorKind::InvalidInput, "{path:?}");
        assert_eq!(kind(on.disk.lock(path)), ErrorKind::InvalidInput, "{path:?}");
    }
    assert_eq!(kind(on.disk.remove_dir_all("")), ErrorKind::InvalidInput);
    assert_eq!(kind(on.disk.open("", Open::New)), ErrorKind::InvalidInput);
    assert_eq!(names(on, ""), Vec::<String>::new());
}

fn absurd_positions_are_errors(on: &Subject) {
    let file = new(on, "a");
    assert_eq!(kind(file.write_at(u64::MAX - 1, &[IoSlice::new(b"abc")])), ErrorKind::InvalidInput);
    assert_eq!(kind(file.write_at(i64::MAX as u64, &[IoSlice::new(b"abc")])), ErrorKind::InvalidInput);
    assert_eq!(kind(file.set_len(u64::MAX)), ErrorKind::InvalidInput);
    assert_eq!(kind(file.allocate(u64::MAX, 2)), ErrorKind::InvalidInput);
    assert_eq!(kind(file.view(u64::MAX, 2)), ErrorKind::InvalidInput);
    assert_eq!(kind(file.resident(u64::MAX, 2)), ErrorKind::InvalidInput);
    assert_eq!(get(&*file, u64::MAX, 2), b"");
    assert!(file.is_empty().unwrap());
}
