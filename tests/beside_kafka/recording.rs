//! What a broker answered, and its form on disk.
//!
//! A file is a list of steps. A step is headed `-- case: step | API versions`; below it stands each field that was answered, as
//! `versions  path = value`, where `*` is all the step's versions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ottla::protocol::api::ApiKey;

/// The fields of one answer, by path.
pub type Fields = BTreeMap<String, String>;

/// A case's step: the same request in several versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The case, and what the step does in it.
    pub name: String,
    /// The API's key.
    pub api: i16,
    /// The answer in each version.
    pub answers: BTreeMap<i16, Fields>,
}

/// All steps of a group of cases, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recording {
    /// The steps.
    pub steps: Vec<Step>,
}

impl Recording {
    /// Adds an answer to the step of that name, which is new or was added to before.
    ///
    /// # Panics
    /// If the step has an answer of that version.
    pub fn add(&mut self, name: &str, api: i16, version: i16, fields: Fields) {
        let at = self.steps.iter().position(|step| step.name == name && step.api == api).unwrap_or_else(|| {
            self.steps.push(Step { name: name.to_owned(), api, answers: BTreeMap::new() });
            self.steps.len() - 1
        });
        let before = self.steps[at].answers.insert(version, fields);
        assert!(before.is_none(), "the step {name:?} asks twice in version {version}");
    }

    /// Every (API, version) that was asked.
    pub fn versions(&self) -> BTreeSet<(i16, i16)> {
        self.steps.iter().flat_map(|step| step.answers.keys().map(|version| (step.api, *version))).collect()
    }

    /// Reads what [`Recording`]'s `Display` writes.
    pub fn parse(text: &str) -> Self {
        let mut recording = Self::default();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(head) = line.strip_prefix("-- ") {
                let (name, what) = head.rsplit_once(" | ").expect("a step says what it asks");
                let (api, versions) = what.rsplit_once(' ').expect("a step says in which versions");
                let answers = parse_versions(versions).map(|version| (version, Fields::new())).collect();
                recording.steps.push(Step { name: name.to_owned(), api: parse_api(api), answers });
                continue;
            }
            let (versions, field) = line.split_once("  ").expect("a field's versions stand before it");
            let (path, value) = field.split_once(" = ").expect("a field has a value");
            let step = recording.steps.last_mut().expect("a field belongs to a step");
            let holds: BTreeSet<i16> = match versions {
                "*" => step.answers.keys().copied().collect(),
                listed => parse_versions(listed).collect(),
            };
            for version in holds {
                step.answers.get_mut(&version).expect("a version of the step").insert(path.into(), value.into());
            }
        }
        recording
    }
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# What Apache Kafka 4.3.1 answers; main.rs says how this is written.")?;
        for step in &self.steps {
            let all: BTreeSet<i16> = step.answers.keys().copied().collect();
            writeln!(f, "\n-- {} | {} {}", step.name, api_name(step.api), show_versions(&all))?;
            let mut lines: BTreeMap<(&str, &str), BTreeSet<i16>> = BTreeMap::new();
            for (version, fields) in &step.answers {
                for (path, value) in fields {
                    lines.entry((path, value)).or_default().insert(*version);
                }
            }
            for ((path, value), versions) in lines {
                let versions = if versions == all { "*".to_owned() } else { show_versions(&versions) };
                writeln!(f, "{versions}  {path} = {value}")?;
            }
        }
        Ok(())
    }
}

/// The API's name, or its key if it is none of ours.
pub fn api_name(key: i16) -> String {
    ApiKey::from_key(key).map_or(key.to_string(), |api| api.to_string())
}

fn parse_api(name: &str) -> i16 {
    let ours = ApiKey::ALL.iter().find(|api| api.to_string() == name);
    ours.map_or_else(|| name.parse().expect("an API's name or key"), |api| api.key())
}

fn show_versions(versions: &BTreeSet<i16>) -> String {
    let mut ranges: Vec<(i16, i16)> = Vec::new();
    for version in versions {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *version => *last = *version,
            _ => ranges.push((*version, *version)),
        }
    }
    let show = |(first, last): &(i16, i16)| if first == last { first.to_string() } else { format!("{first}..{last}") };
    ranges.iter().map(show).collect::<Vec<_>>().join(",")
}

fn parse_versions(text: &str) -> impl Iterator<Item = i16> {
    text.split(',').flat_map(|range| {
        let (first, last) = range.split_once("..").unwrap_or((range, range));
        let number = |text: &str| text.parse::<i16>().expect("a version is a number");
        number(first)..=number(last)
    })
}

#[test]
fn a_recording_reads_back() {
    let fields = |value: &str| Fields::from([("a[b].c".to_owned(), value.to_owned()), ("d".into(), "1".into())]);
    let mut recording = Recording::default();
    for (version, value) in [(0, "\"x = y\""), (1, "null"), (2, "null"), (-1, "null")] {
        recording.add("case: step", 3, version, fields(value));
    }
    recording.add("case: closed", 99, 0, Fields::new());
    let text = recording.to_string();
    assert!(text.contains("-- case: step | Metadata -1..2\n0  a[b].c = \"x = y\"\n-1,1..2  a[b].c = null\n*  d = 1\n"));
    assert_eq!(Recording::parse(&text), recording);
}
