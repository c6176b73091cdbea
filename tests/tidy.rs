//! The house rules as a test: reads every file of `src/` once and names each line that breaks one.
//!
//! Std only, no parser: comments, strings and characters are blanked first, then the rules look for words. A rule is a function
//! from one [`Source`] to sentences; below each stands a bad sample that it must catch. Lists of exceptions are ratchets: an
//! entry holds the exact present size, so a thing may shrink (and its entry with it) but never grow.

#[path = "tidy/code.rs"]
mod code;
#[path = "tidy/used.rs"]
mod used;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use code::{Source, functions, path_heads, words};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Files longer than [`FILE_LINES_MAX`], with their exact length.
const LONG_FILES: &[(&str, usize)] = &[];
/// Functions longer than [`FUNCTION_LINES_MAX`]: file, name, exact length.
const LONG_FUNCTIONS: &[(&str, &str, usize)] = &[];

/// The rooms of `src/`, and which other rooms each may name. `main.rs` and `lib.rs` may name all.
const ROOMS: &[(&str, &[&str])] = &[
    ("ids", &[]),
    ("config", &["ids"]),
    ("metrics", &["ids"]),
    ("clock", &["ids"]),
    ("flaws", &[]),
    ("admin", &["metrics", "net"]),
    ("protocol", &["ids"]),
    ("log", &["ids", "protocol"]),
    ("machine", &["ids", "protocol", "log"]),
    ("net", &["ids"]),
    ("raft", &["ids", "metrics", "clock", "flaws", "protocol", "log", "machine", "net"]),
    ("cluster", &["ids", "protocol", "machine", "net", "raft"]),
    ("replica", &["ids", "metrics", "clock", "flaws", "protocol", "log", "machine", "net", "raft", "cluster"]),
    ("server", &["ids", "config", "metrics", "clock", "protocol", "log", "machine", "net", "raft", "replica"]),
    (
        "broker",
        &[
            "ids", "config", "metrics", "clock", "admin", "flaws", "protocol", "log", "machine", "net", "raft",
            "cluster", "replica", "server",
        ],
    ),
    (
        "cli",
        &[
            "ids", "config", "metrics", "clock", "admin", "flaws", "protocol", "log", "machine", "net", "raft",
            "replica", "server", "broker",
        ],
    ),
];

/// Rooms that know no runtime, no clock, no randomness and no threads.
const PURE: &[&str] = &["ids", "protocol", "log", "machine"];
/// What a pure room must not name, and what to do instead.
const IMPURE_WORDS: &[(&str, &str)] = &[
    ("tokio", "pure rooms are synchronous; the shell waits"),
    ("openraft", "only src/raft/ names openraft"),
    ("rand", "draws come in as arguments"),
    ("getrandom", "draws come in as arguments"),
    ("new_v4", "ids come in as arguments"),
    ("RandomState", "hashing is seeded at random: use a BTreeMap"),
];
/// The same, but tests may.
const IMPURE_WORDS_OUTSIDE_TESTS: &[(&str, &str)] = &[
    ("SystemTime::now", "time comes in as an argument"),
    ("Instant::now", "time comes in as an argument"),
    ("std::thread", "only log/mmap.rs has threads"),
    ("thread::spawn", "only log/mmap.rs has threads"),
];
/// The one file with `unsafe` and threads (and its children, should it grow some).
const UNSAFE_PLACES: &[&str] = &["log/mmap.rs", "log/mmap/"];
/// Right of the bar time is the runtime's, so that a simulation can own it; these may ask the system.
const CLOCK_PLACES: &[&str] = &["main.rs", "cli/", "clock.rs"];
/// Where a task may be spawned outside a `JoinSet`: file and why it cannot be lost.
const SPAWN_PLACES: &[(&str, &str)] = &[
    ("broker.rs", "the listener's handle is kept and awaited by Broker::stop"),
    ("broker/cluster.rs", "the port for other brokers is kept, and aborted with it"),
    ("raft/cluster_kit.rs", "tests: aborted with the broker that they play"),
    ("raft/node/mod.rs", "one call into a group's core, which ends with the core"),
    ("raft/transport/link.rs", "carries a stream, and is aborted with it"),
    ("raft/transport/service.rs", "ends with the peer's stream or the answer of the group's core"),
    (
        "replica/controller.rs",
        "one proposal, which must hold the order of changes whoever waits; ends with the group's core",
    ),
];

/// The repository's top level: nothing else but dot-files and what `.gitignore` names.
const TOP_LEVEL_ALWAYS: &[&str] =
    &["Cargo.toml", "Cargo.lock", "src", "tests", "config", "docs", "README.md", "LICENSE"];
const TOP_LEVEL_MAYBE: &[&str] = &["proto", "benches"];

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = read_sources(&root.join("src"));
    assert!(sources.iter().any(|source| source.path == "lib.rs"), "src/lib.rs is read");
    let mut found = Vec::new();
    for source in &sources {
        found.extend(arrows(source));
        found.extend(impure_words(source));
        found.extend(openraft_outside_its_room(source));
        found.extend(unsafe_outside_its_file(source));
        found.extend(system_clock(source));
        found.extend(unbiased_select(source));
        found.extend(leftovers(source));
        found.extend(planted_flaws(source));
        found.extend(detached_tasks(source, SPAWN_PLACES));
        found.extend(test_names(source));
    }
    found.extend(file_lengths(&sources, LONG_FILES));
    found.extend(function_lengths(&sources, LONG_FUNCTIONS));
    found.extend(dead_files(&sources));
    found.extend(used::unread_keys(&sources));
    found.extend(used::unused_metrics(&sources));
    for document in documents(root) {
        let text = fs::read_to_string(root.join(&document)).expect("documents are UTF-8");
        found.extend(used::dead_paths(root, &document, &text));
    }
    let gitignore = fs::read_to_string(root.join(".gitignore")).expect(".gitignore is readable");
    found.extend(top_level(&names_in(root), &gitignore));
    assert!(found.is_empty(), "{} untidy:\n{}", found.len(), found.join("\n"));
}

// ---- rules ----------------------------------------------------------------------------------------------------------

/// Dependencies point one way, as [`ROOMS`] says.
fn arrows(source: &Source) -> Vec<String> {
    if matches!(source.path.as_str(), "main.rs" | "lib.rs") {
        return Vec::new();
    }
    let Some((room, allowed)) = ROOMS.iter().find(|(room, _)| *room == source.room()) else {
        return vec![source.at(0, &format!("`{}` is no room of src/: see ROOMS in tests/tidy.rs", source.room()))];
    };
    let mut found = Vec::new();
    for position in words(&source.code, "crate::") {
        for target in path_heads(&source.code[position + "crate::".len()..]) {
            // Macros and items of lib.rs itself are not rooms.
            let is_room = ROOMS.iter().any(|(name, _)| *name == target);
            if is_room && target != *room && !allowed.contains(&target.as_str()) {
                found.push(source.at(position, &format!("the arrow {room} -> {target} points the wrong way")));
            }
        }
    }
    found
}

#[test]
fn an_arrow_that_points_back_is_found() {
    let found = arrows(&Source::new("log/segment.rs", "use crate::protocol::batch;\nuse crate::raft::log_store;\n"));
    assert_eq!(found, ["src/log/segment.rs:2: the arrow log -> raft points the wrong way"]);
    let grouped = "use crate::{ids::Offset, protocol::{batch, record}, server::{self, error}};";
    assert_eq!(arrows(&Source::new("machine/mod.rs", grouped)).len(), 1);
    assert_eq!(arrows(&Source::new("protocol/frame.rs", "fn f() -> crate::log::Log { }")).len(), 1);
    assert_eq!(arrows(&Source::new("helpers.rs", "")).len(), 1, "a room that design does not have");
    let good = "// use crate::server::x;\nuse crate::log::Log; pub(crate) fn f() { let s = \"crate::broker::\"; }";
    assert!(arrows(&Source::new("replica/mod.rs", good)).is_empty());
}

/// Left of the bar: no runtime, no clock, no randomness, no threads.
fn impure_words(source: &Source) -> Vec<String> {
    if !source.is_pure() {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (word, instead) in IMPURE_WORDS {
        for position in words(&source.code, word) {
            found.push(source.at(position, &format!("`{word}` in a pure room: {instead}")));
        }
    }
    for (word, instead) in IMPURE_WORDS_OUTSIDE_TESTS {
        for position in words(&source.shipped, word) {
            if !source.is_in(UNSAFE_PLACES) {
                found.push(source.at(position, &format!("`{word}` in a pure room: {instead}")));
            }
        }
    }
    found
}

#[test]
fn a_pure_room_with_a_runtime_a_clock_a_draw_or_a_thread_is_found() {
    for bad in [
        "use tokio::sync::Mutex;",
        "let t = std::time::Instant::now();",
        "let t = SystemTime::now();",
        "let x = rand::random();",
        "use std::thread;",
        "use openraft::LogId;",
        "let id = Uuid::new_v4();",
    ] {
        assert_eq!(impure_words(&Source::new("machine/controller.rs", bad)).len(), 1, "{bad}");
        assert!(impure_words(&Source::new("server/mod.rs", bad)).is_empty(), "{bad}");
    }
    let test = "fn f() {}\n#[cfg(test)]\nmod tests { fn g() { std::thread::yield_now(); } }";
    assert!(impure_words(&Source::new("log/journal.rs", test)).is_empty(), "tests may");
    assert!(impure_words(&Source::new("log/mmap.rs", "use std::thread;")).is_empty());
    assert!(impure_words(&Source::new("log/index.rs", "let brand = operand;")).is_empty(), "whole words only");
}

/// Only `raft/` names openraft.
fn openraft_outside_its_room(source: &Source) -> Vec<String> {
    if source.room() == "raft" || source.is_pure() {
        return Vec::new(); // pure rooms: `impure_words`
    }
    let all = ["openraft", "openraft_rt", "openraft_rt_tokio"];
    let positions = all.iter().flat_map(|word| words(&source.code, word));
    positions.map(|position| source.at(position, "only src/raft/ names openraft")).collect()
}

#[test]
fn openraft_outside_its_room_is_found() {
    assert_eq!(openraft_outside_its_room(&Source::new("replica/mod.rs", "use openraft::Raft;")).len(), 1);
    assert!(openraft_outside_its_room(&Source::new("raft/types.rs", "use openraft::Raft;")).is_empty());
    assert!(openraft_outside_its_room(&Source::new("replica/mod.rs", "/// What openraft calls a vote.")).is_empty());
}

/// `unsafe` has one address.
fn unsafe_outside_its_file(source: &Source) -> Vec<String> {
    let positions = if source.is_in(UNSAFE_PLACES) { Vec::new() } else { words(&source.code, "unsafe") };
    positions.into_iter().map(|position| source.at(position, "`unsafe` stands in log/mmap.rs only")).collect()
}

#[test]
fn unsafe_outside_its_file_is_found() {
    let bad = "fn f(p: *const u8) -> u8 { unsafe { *p } }";
    assert_eq!(unsafe_outside_its_file(&Source::new("log/segment.rs", bad)).len(), 1);
    assert!(unsafe_outside_its_file(&Source::new("log/mmap.rs", bad)).is_empty());
    assert!(unsafe_outside_its_file(&Source::new("lib.rs", "#![deny(unsafe_code)] // unsafe")).is_empty());
}

/// Right of the bar, time is the runtime's: a simulation owns it.
fn system_clock(source: &Source) -> Vec<String> {
    if source.is_pure() || source.is_in(CLOCK_PLACES) {
        return Vec::new();
    }
    let all = ["SystemTime::now", "std::time::Instant"];
    let positions = all.iter().flat_map(|word| words(&source.shipped, word));
    positions.map(|position| source.at(position, "ask the runtime's clock (tokio::time) or Env's")).collect()
}

#[test]
fn the_system_clock_in_the_shell_is_found() {
    for bad in ["use std::time::Instant;", "let t = std::time::SystemTime::now();"] {
        assert_eq!(system_clock(&Source::new("server/connection.rs", bad)).len(), 1, "{bad}");
        assert!(system_clock(&Source::new("cli/bench.rs", bad)).is_empty(), "{bad}");
    }
    assert!(system_clock(&Source::new("raft/flusher.rs", "use tokio::time::Instant;")).is_empty());
}

/// What a simulation plants to test its checks is in no broker that ships.
fn planted_flaws(source: &Source) -> Vec<String> {
    let positions = if source.path == "flaws.rs" { Vec::new() } else { words(&source.shipped, "Flaws::plant") };
    positions.into_iter().map(|position| source.at(position, "only a simulation plants flaws")).collect()
}

#[test]
fn a_planted_flaw_is_found() {
    let bad = "let env = Env { flaws: Flaws::plant(Flaw::AckBeforeSync), ..env };";
    assert_eq!(planted_flaws(&Source::new("cli/serve.rs", bad)).len(), 1);
    assert!(planted_flaws(&Source::new("cli/serve.rs", "flaws: Flaws::NONE")).is_empty());
    let test = "fn f() {}\n#[cfg(test)]\nmod tests { fn g() { Flaws::plant(Flaw::AckBeforeSync); } }";
    assert!(planted_flaws(&Source::new("raft/node/mod.rs", test)).is_empty(), "tests may");
}

/// A `select!` that polls at random would make a simulation's trace differ from its seed.
fn unbiased_select(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for position in words(&source.code, "select!") {
        let body = source.code[position + "select!".len()..].trim_start();
        let first = body.get(1..).unwrap_or_default().trim_start();
        if !first.starts_with("biased;") {
            found.push(source.at(position, "`select!` without `biased;`"));
        }
    }
    found
}

#[test]
fn a_select_that_is_not_biased_is_found() {
    let bad = "tokio::select! {\n  a = x => {}\n}";
    assert_eq!(unbiased_select(&Source::new("server/mod.rs", bad)).len(), 1);
    let good = "tokio::select! {\n  // why\n  biased;\n  a = x => {}\n}";
    assert!(unbiased_select(&Source::new("server/mod.rs", good)).is_empty());
}

/// Unfinished work does not land.
fn leftovers(source: &Source) -> Vec<String> {
    let in_code = ["todo!", "unimplemented!", "dbg!"].iter().flat_map(|word| words(&source.code, word));
    let anywhere = ["FIXME", "XXX", "TODO"].iter().flat_map(|word| words(&source.text, word));
    in_code.chain(anywhere).map(|position| source.at(position, "unfinished work")).collect()
}

#[test]
fn unfinished_work_is_found() {
    for bad in ["fn f() { todo!() }", "unimplemented!();", "dbg!(x);", "// FIXME: later", "/// XXX"] {
        assert_eq!(leftovers(&Source::new("log/mod.rs", bad)).len(), 1, "{bad}");
    }
    assert!(leftovers(&Source::new("log/mod.rs", "// the word todo! in a comment is fine")).is_empty());
}

/// Tasks belong to a `JoinSet`, so that nothing outlives its owner and no panic is lost.
fn detached_tasks(source: &Source, places: &[(&str, &str)]) -> Vec<String> {
    if places.iter().any(|(place, _)| source.path == *place) {
        return Vec::new();
    }
    let all = ["tokio::spawn", "task::spawn", "task::spawn_local"];
    let positions = all.iter().flat_map(|word| words(&source.shipped, word));
    positions
        .map(|position| source.at(position, "a detached task: use a JoinSet, or name it in SPAWN_PLACES"))
        .collect()
}

#[test]
fn a_detached_task_is_found() {
    for bad in ["tokio::spawn(async {});", "task::spawn(f());"] {
        assert_eq!(detached_tasks(&Source::new("server/mod.rs", bad), &[]).len(), 1, "{bad}");
        assert!(detached_tasks(&Source::new("server/mod.rs", bad), &[("server/mod.rs", "joined")]).is_empty());
    }
    assert!(detached_tasks(&Source::new("server/mod.rs", "tasks.spawn(f());"), &[]).is_empty());
}

/// Test names are sentences.
fn test_names(source: &Source) -> Vec<String> {
    let positions = source.code.match_indices("fn test_").map(|(position, _)| position);
    positions.map(|position| source.at(position, "a test's name is a sentence, without `test_`")).collect()
}

#[test]
fn a_test_named_test_is_found() {
    assert_eq!(test_names(&Source::new("ids.rs", "#[test]\nfn test_ids() {}")).len(), 1);
}

/// Files are at most [`FILE_LINES_MAX`] lines long, exceptions exactly as long as listed.
fn file_lengths(sources: &[Source], exceptions: &[(&str, usize)]) -> Vec<String> {
    let present = sources.iter().map(|source| (source.path.clone(), source.text.lines().count()));
    let listed = exceptions.iter().map(|(path, lines)| ((*path).to_owned(), *lines)).collect();
    ratchet("LONG_FILES", FILE_LINES_MAX, present.collect(), &listed)
}

#[test]
fn a_file_that_is_too_long_or_a_stale_exception_is_found() {
    let long = Source::new("log/a.rs", &"\n".repeat(FILE_LINES_MAX + 1));
    let sources = [long, Source::new("log/b.rs", "")];
    assert!(file_lengths(&sources, &[])[0].contains("601 lines"));
    assert!(file_lengths(&sources, &[("log/a.rs", 601)]).is_empty());
    assert!(file_lengths(&sources, &[("log/a.rs", 605)])[0].contains("shrunk"));
    assert_eq!(file_lengths(&sources, &[("log/a.rs", 601), ("log/b.rs", 700)]).len(), 1);
    assert_eq!(file_lengths(&sources, &[("log/a.rs", 601), ("log/gone.rs", 700)]).len(), 1);
}

/// Functions are at most [`FUNCTION_LINES_MAX`] lines long, exceptions exactly as long as listed.
fn function_lengths(sources: &[Source], exceptions: &[(&str, &str, usize)]) -> Vec<String> {
    let mut present = BTreeMap::new();
    for source in sources {
        for (name, lines) in functions(&source.code) {
            let longest = present.entry(format!("{}: fn {name}", source.path)).or_insert(0);
            *longest = lines.max(*longest);
        }
    }
    let listed = exceptions.iter().map(|(path, name, lines)| (format!("{path}: fn {name}"), *lines)).collect();
    ratchet("LONG_FUNCTIONS", FUNCTION_LINES_MAX, present, &listed)
}

#[test]
fn a_function_that_is_too_long_is_found() {
    let body = "    let s = \"}\"; // }\n".repeat(FUNCTION_LINES_MAX - 1);
    let sample =
        format!("trait T {{ fn declared(&self, n: [u8; 3]); }}\nimpl T for X {{\n  fn long() {{\n{body}  }}\n}}");
    let sources = [Source::new("log/a.rs", &sample)];
    let found = function_lengths(&sources, &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("log/a.rs: fn long: 71 lines"), "{found:?}");
    assert!(function_lengths(&sources, &[("log/a.rs", "long", 71)]).is_empty());
    assert_eq!(function_lengths(&sources, &[("log/a.rs", "long", 80)]).len(), 1);
}

/// A file that no `mod` line names is not compiled.
fn dead_files(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| !matches!(source.path.as_str(), "main.rs" | "lib.rs")) {
        let file = Path::new(&source.path);
        let directory = file.parent().expect("a relative file has a parent");
        let stem = file.file_stem().and_then(|stem| stem.to_str()).expect("names are UTF-8");
        let (module, home) = match stem {
            "mod" => (directory.file_name().and_then(|name| name.to_str()).unwrap_or_default(), directory.parent()),
            stem => (stem, Some(directory)),
        };
        let home = home.unwrap_or(Path::new(""));
        let named = sources.iter().any(|other| {
            let other_file = Path::new(&other.path);
            let near = other_file.parent() == Some(home) || other_file.with_extension("") == home;
            near && (!words(&other.code, &format!("mod {module};")).is_empty()
                || other.text.contains(&format!("path = \"{stem}.rs\"")))
        });
        if !named {
            found.push(format!("src/{}: no `mod {module};` names this file", source.path));
        }
    }
    found
}

#[test]
fn a_file_outside_the_module_tree_is_found() {
    let tree = |parent: &str| {
        [
            Source::new("lib.rs", "pub mod log;"),
            Source::new("log/mod.rs", parent),
            Source::new("log/entry.rs", "#[cfg(test)] #[path = \"entry_tests.rs\"] mod tests;"),
            Source::new("log/entry_tests.rs", ""),
        ]
    };
    assert!(dead_files(&tree("mod entry;")).is_empty());
    assert_eq!(dead_files(&tree("")), ["src/log/entry.rs: no `mod entry;` names this file"]);
}

/// The top level is as `docs/architecture.md` says.
fn top_level(names: &[String], gitignore: &str) -> Vec<String> {
    let ignored = |name: &str| gitignore.lines().any(|line| line.trim_matches('/') == name);
    let known = |name: &str| TOP_LEVEL_ALWAYS.contains(&name) || TOP_LEVEL_MAYBE.contains(&name);
    let mut found = Vec::new();
    for name in names.iter().filter(|name| !name.starts_with('.') && !known(name) && !ignored(name)) {
        found.push(format!("{name}: has no place at the top level"));
    }
    for name in TOP_LEVEL_ALWAYS.iter().filter(|name| !names.iter().any(|present| present == *name)) {
        found.push(format!("{name}: missing at the top level"));
    }
    found
}

#[test]
fn a_stray_or_missing_top_level_entry_is_found() {
    let mut names: Vec<String> = TOP_LEVEL_ALWAYS.iter().map(|name| (*name).to_owned()).collect();
    names.extend([".git".to_owned(), "target".to_owned()]);
    assert!(top_level(&names, "/target\n").is_empty());
    names.push("build.rs".to_owned());
    assert_eq!(top_level(&names, "/target\n"), ["build.rs: has no place at the top level"]);
    assert_eq!(top_level(&names[1..], "/target\n").len(), 2);
}

// ---- reading --------------------------------------------------------------------------------------------------------

fn read_sources(src: &Path) -> Vec<Source> {
    let mut files = Vec::new();
    walk(src, "rs", &mut files);
    files.sort();
    let read = |file: &PathBuf| {
        let text = fs::read_to_string(file).expect("sources are UTF-8");
        let path = file.strip_prefix(src).expect("walked from src").to_str().expect("names are UTF-8");
        Source::new(&path.replace('\\', "/"), &text)
    };
    files.iter().map(read).collect()
}

/// README and what is in `docs/`, from the top.
fn documents(root: &Path) -> Vec<String> {
    let mut files = vec![root.join("README.md")];
    walk(&root.join("docs"), "md", &mut files);
    let name = |file: &PathBuf| file.strip_prefix(root).expect("walked from the top").to_string_lossy().into_owned();
    files.iter().map(name).collect()
}

fn walk(directory: &Path, extension: &str, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of the repository is readable") {
        let path = entry.expect("an entry of the repository is readable").path();
        if path.is_dir() {
            walk(&path, extension, files);
        } else if path.extension().is_some_and(|present| present == extension) {
            files.push(path);
        }
    }
}

fn names_in(root: &Path) -> Vec<String> {
    let entries = fs::read_dir(root).expect("the repository is readable");
    entries.map(|entry| entry.expect("an entry is readable").file_name().to_string_lossy().into_owned()).collect()
}

/// Compares sizes with their limit and the list of exceptions.
fn ratchet(
    list: &str,
    limit: usize,
    present: BTreeMap<String, usize>,
    listed: &BTreeMap<String, usize>,
) -> Vec<String> {
    let mut found = Vec::new();
    for (what, lines) in &present {
        match listed.get(what) {
            None if *lines > limit => found.push(format!("src/{what}: {lines} lines, at most {limit}: split it")),
            Some(before) if lines > before => found.push(format!("src/{what}: {lines} lines, has grown from {before}")),
            Some(_) if *lines <= limit => found.push(format!("src/{what}: needs no entry in {list} any more")),
            Some(before) if lines < before => found.push(format!("src/{what}: has shrunk: write {lines} into {list}")),
            _ => {}
        }
    }
    found.extend(listed.keys().filter(|what| !present.contains_key(*what)).map(|what| format!("{list}: no {what}")));
    found
}
