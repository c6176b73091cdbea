//! What is wrong with a configuration, where it stands, and what was probably meant.

use std::fmt;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the file.
    File {
        /// The file's name, as the user gave it.
        name: String,
        /// From 1.
        line: usize,
    },
    /// An environment variable, by name.
    Env(String),
    /// A flag, by name.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands.
    pub origin: Origin,
    /// The key in full, `section.name`; empty for a line that is no TOML.
    pub key: String,
    /// What is wrong, as a sentence without its subject.
    pub what: String,
    /// What was probably meant, if something comes close.
    pub suggestion: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, " (did you mean `{suggestion}`?)"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong; never empty. Prints one problem a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            let newline = if n == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

/// The candidate that `given` was probably meant to be, if one is near: a third of its letters wrong at most.
pub(super) fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Names longer than this are no slip of the finger; it also bounds the work.
    const NAME_BYTES_MAX: usize = 64;
    if given.len() > NAME_BYTES_MAX {
        return None;
    }
    let near = |candidate: &&str| distance(given, candidate) <= candidate.len().div_ceil(3).min(3);
    candidates.into_iter().filter(near).min_by_key(|candidate| distance(given, candidate))
}

/// How many letters must be added, removed, changed or swapped with their neighbour to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                _ => {
                    let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                    let swap = if swapped { rows[i - 2][j - 2] + 1 } else { usize::MAX };
                    changed.min(swap).min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1)
                }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_has_a_suggestion_and_another_word_has_none() {
        let names = ["listen", "advertise"];
        assert_eq!(nearest("lisen", names), Some("listen"));
        assert_eq!(nearest("lsiten", names), Some("listen"));
        assert_eq!(nearest("Advertize", names), Some("advertise"));
        assert_eq!(nearest("compression", names), None);
        assert_eq!(nearest(&"l".repeat(1000), names), None);
    }
}
