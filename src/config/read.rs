//! Reads the sources of a configuration through the table of keys: first the file, then the environment, then the flags.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::problem::nearest;
use super::value::Given;
use super::{Config, KEYS, Key, Origin, Problem};

/// Environment variables of this form set keys: `OTTLA_<SECTION>_<KEY>`.
const ENV_PREFIX: &str = "OTTLA_";

/// One flag that was given.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As the user typed it, like `--listen`.
    pub name: &'static str,
    /// The key that it sets, like `kafka.listen`.
    pub key: &'static str,
    /// Its value.
    pub value: String,
}

/// What a configuration is made of, weakest first.
#[derive(Clone, Debug, Default)]
pub struct Sources<'a> {
    /// The file's name, for messages, and its text.
    pub file: Option<(&'a str, &'a str)>,
    /// The whole environment: what does not begin with `OTTLA_<SECTION>_` is passed over.
    pub env: Vec<(String, String)>,
    /// The flags that were given.
    pub flags: Vec<Flag>,
}

/// Who set which key.
pub(super) type Origins = BTreeMap<String, Origin>;

struct Reader<'a> {
    config: &'a mut Config,
    origins: Origins,
    problems: Vec<Problem>,
}

/// Sets in `config` what the sources say. Returns who set what, and what is wrong.
pub(super) fn read(sources: &Sources<'_>, config: &mut Config) -> (Origins, Vec<Problem>) {
    let mut reader = Reader { config, origins: Origins::new(), problems: Vec::new() };
    if let Some((name, text)) = sources.file {
        reader.file(name, text);
    }
    for (name, value) in &sources.env {
        reader.env(name, value);
    }
    for flag in &sources.flags {
        let key = KEYS.iter().find(|key| full(key) == flag.key).expect("a flag names a key of the table");
        reader.set(key, &Given::Text(&flag.value), Origin::Flag(flag.name));
    }
    (reader.origins, reader.problems)
}

fn full(key: &Key) -> String {
    format!("{}.{}", key.section, key.name)
}

fn env_name(key: &Key) -> String {
    format!("{ENV_PREFIX}{}_{}", key.section, key.name).to_uppercase()
}

fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| key.section == name)
}

impl Reader<'_> {
    fn set(&mut self, key: &Key, value: &Given<'_>, origin: Origin) {
        match (key.set)(self.config, value) {
            Ok(()) => {
                self.origins.insert(full(key), origin);
            }
            Err(what) => self.problem(origin, full(key), what, None),
        }
    }

    fn problem(&mut self, origin: Origin, key: impl Into<String>, what: impl Into<String>, near: Option<String>) {
        self.problems.push(Problem { origin, key: key.into(), what: what.into(), suggestion: near });
    }

    fn file(&mut self, name: &str, text: &str) {
        let line_of = |position: usize| text.get(..position).map_or(1, |before| before.matches('\n').count() + 1);
        let origin = |position: usize| Origin::File { name: name.into(), line: line_of(position) };
        let (table, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            self.problem(origin(error.span().map_or(0, |span| span.start)), "", error.message(), None);
        }
        if !errors.is_empty() {
            return; // what was read around a broken line says nothing reliable
        }
        for (section, entries) in table.get_ref() {
            let (section, at) = (section.get_ref(), section.span().start);
            let entries = match entries.get_ref() {
                DeValue::Table(entries) if is_section(section) => entries,
                DeValue::Table(_) => {
                    let near = nearest(section, KEYS.iter().map(|key| key.section));
                    self.problem(origin(at), &**section, "unknown section", near.map(|near| format!("[{near}]")));
                    continue;
                }
                _ if is_section(section) => {
                    self.problem(origin(at), &**section, format!("is a section: write [{section}]"), None);
                    continue;
                }
                _ => {
                    let near = elsewhere(section);
                    self.problem(origin(at), &**section, "unknown key outside of any section", near);
                    continue;
                }
            };
            for (name, value) in entries {
                let (name, at) = (name.get_ref(), name.span().start);
                match KEYS.iter().find(|key| key.section == section && key.name == name) {
                    Some(key) => self.set(key, &Given::Toml(value.get_ref()), origin(at)),
                    None => {
                        let here = KEYS.iter().filter(|key| key.section == section).map(|key| key.name);
                        let near = nearest(name, here).map(Into::into).or_else(|| elsewhere(name));
                        self.problem(origin(at), format!("{section}.{name}"), "unknown key", near);
                    }
                }
            }
        }
        // The map is sorted by name; people read from the top.
        self.problems.sort_by_key(|problem| match &problem.origin {
            Origin::File { line, .. } => *line,
            _ => usize::MAX,
        });
    }

    fn env(&mut self, name: &str, value: &str) {
        if let Some(key) = KEYS.iter().find(|key| env_name(key) == name) {
            return self.set(key, &Given::Text(value), Origin::Env(name.into()));
        }
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else { return };
        // Other programs may have variables beginning like ours; a name in one of our sections is a mistake.
        let section = rest.split('_').next().unwrap_or_default().to_lowercase();
        if is_section(&section) {
            let names: Vec<String> = KEYS.iter().map(env_name).collect();
            let near = nearest(name, names.iter().map(String::as_str)).map(Into::into);
            self.problem(Origin::Env(name.into()), "", "sets no key", near);
        }
    }
}

/// The full name of the key with this name in whatever section.
fn elsewhere(name: &str) -> Option<String> {
    KEYS.iter().find(|key| key.name == name || full(key) == name).map(full)
}
