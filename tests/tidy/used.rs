//! Nothing is offered that does nothing: keys of the configuration that nobody reads, metrics that nobody updates, and paths in the
//! documents that lead nowhere.

use std::collections::BTreeSet;
use std::path::Path;

use super::code::{Source, words};

/// Where configuration is only shown to clients: no reason for a key to be there.
const SHOWN_PLACES: &[&str] = &["config/", "server/configs.rs", "cli/config.rs"];
/// Keys that a method of the configuration reads: who calls it reads the key.
const READ_THROUGH: &[(&str, &str)] =
    &[("kafka.advertise", "kafka.advertised"), ("cluster.advertise", "cluster.advertised")];
const METRICS: &str = "metrics.rs";

/// Code that ships, of all sources outside some places, without blanks: chains of calls stand on one line.
fn shipped_outside(sources: &[Source], places: &[&str]) -> String {
    let others = sources.iter().filter(|source| !source.is_in(places));
    let code = others.map(|source| source.shipped.split_whitespace().collect::<Vec<_>>().join(" "));
    code.collect::<Vec<_>>().join("\n").replace(" .", ".")
}

/// Each key of the table in `config/mod.rs` is read somewhere as `section.name`.
pub fn unread_keys(sources: &[Source]) -> Vec<String> {
    let Some(table) = sources.iter().find(|source| source.path == "config/mod.rs") else {
        return vec!["src/config/mod.rs: there is no table of keys".to_owned()];
    };
    let readers = shipped_outside(sources, SHOWN_PLACES);
    let mut found = Vec::new();
    for (position, _) in table.text.match_indices("key(\"") {
        let mut quoted = table.text[position..].split('"').skip(1).step_by(2);
        let (Some(section), Some(name)) = (quoted.next(), quoted.next()) else { continue };
        let key = format!("{section}.{name}");
        let read = READ_THROUGH.iter().find(|(through, _)| *through == key).map_or(key.as_str(), |(_, method)| method);
        if words(&readers, read).is_empty() {
            found.push(table.at(position, &format!("nobody reads the key {key}")));
        }
    }
    found
}

#[test]
fn a_key_that_nobody_reads_is_found() {
    let table = "key(\"limits\", \"a\", |c, v| v.to(c.limits.a)),\n key(\"limits\", \"b\", |c, v| v.to(c.limits.b)),";
    let tree = |reader: &str| {
        [
            Source::new("config/mod.rs", table),
            Source::new("server/configs.rs", "fn f(c: &Config) { show(c.limits.b) }"),
            Source::new("broker.rs", reader),
        ]
    };
    assert!(unread_keys(&tree("fn f(c: &C) { g(c.limits\n    .a); g(limits.b) }")).is_empty());
    let found =
        unread_keys(&tree("fn f(c: &C) { g(c.limits.a); } // limits.b\n#[cfg(test)] mod t { fn g() { limits.b } }"));
    assert_eq!(found, ["src/config/mod.rs:2: nobody reads the key limits.b"]);
}

/// Each public field and method of `Metrics` is used somewhere as `metrics.name`.
pub fn unused_metrics(sources: &[Source]) -> Vec<String> {
    let Some(metrics) = sources.iter().find(|source| source.path == METRICS) else {
        return vec![format!("src/{METRICS}: there are no metrics")];
    };
    let users = shipped_outside(sources, &[METRICS]);
    let mut found = Vec::new();
    for position in words(&metrics.shipped, "pub") {
        let rest = metrics.shipped[position + "pub".len()..].trim_start();
        let (is_method, rest) = match rest.strip_prefix("fn ") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let behind = &rest[name.len()..];
        let counts = if is_method { behind.starts_with("(&self") } else { behind.starts_with(':') };
        if counts && words(&users, &format!("metrics.{name}")).is_empty() {
            found.push(metrics.at(position, &format!("nobody updates metrics.{name}")));
        }
    }
    found
}

#[test]
fn a_metric_that_nobody_updates_is_found() {
    let metrics = "pub struct Metrics { pub a: Counter,\n pub b: Counter }\nimpl Metrics {\n pub fn new(n: i32) {}\n pub fn c(&self) {} }";
    let tree = |user: &str| [Source::new("metrics.rs", metrics), Source::new("server/mod.rs", user)];
    assert!(unused_metrics(&tree("fn f() { x.metrics.a.inc(); metrics.b.inc(); self.metrics\n  .c(); }")).is_empty());
    let found = unused_metrics(&tree("fn f() { x.metrics.a.inc(); } // metrics.b"));
    assert_eq!(found, ["src/metrics.rs:2: nobody updates metrics.b", "src/metrics.rs:5: nobody updates metrics.c"]);
}

/// Paths in a document, in backquotes or as links, lead to a file or directory: from the top, from `src/`, or from where it stands. What
/// begins with a directory that is neither at the top nor in `src/` is no path of ours.
pub fn dead_paths(root: &Path, name: &str, text: &str) -> Vec<String> {
    let heads: BTreeSet<String> =
        [root.to_owned(), root.join("src")].iter().flat_map(|place| super::names_in(place)).collect();
    let home = Path::new(name).parent().map(|parent| root.join(parent)).unwrap_or_default();
    let mut found = Vec::new();
    for (number, line) in outside_fences(text) {
        let quoted = line.split('`').skip(1).step_by(2).flat_map(|span| span.split_whitespace().take(1));
        let quoted = quoted.filter(|path| path.split_once('/').is_some_and(|(head, _)| heads.contains(head)));
        let linked = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let linked = linked.filter(|path| !path.is_empty() && !path.contains(':'));
        for path in quoted.chain(linked) {
            let is_plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            let bare = path.trim_end_matches('/');
            let places =
                [home.join(bare), root.join(bare), root.join("src").join(bare), root.join(format!("src/{bare}.rs"))];
            if is_plain && !places.iter().any(|place| place.exists()) {
                found.push(format!("{name}:{number}: there is no {path}"));
            }
        }
    }
    found
}

/// The lines with their numbers, but for those between fences, which are commands and drawings.
fn outside_fences(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_fenced = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        !is_fenced && !is_fence
    })
}

#[test]
fn a_path_that_leads_nowhere_is_found() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let good = "`src/lib.rs`, `log/mod.rs`, `server/connection`, `tests/tidy.rs --all`, `topics/<id>/0`, `/metrics`, `a/b`, `src/`\n\
                ```\nsrc/gone.rs `src/gone.rs`\n```\n[a](architecture.md), [b](https://example.com/src), [c](#here), `server/*.rs`";
    assert!(dead_paths(root, "docs/x.md", good).is_empty(), "{:?}", dead_paths(root, "docs/x.md", good));
    let bad = "see `src/gone.rs`\nand [this](gone.md) in `server/gone`";
    let found = dead_paths(root, "docs/x.md", bad);
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(found[0], "docs/x.md:1: there is no src/gone.rs");
}
