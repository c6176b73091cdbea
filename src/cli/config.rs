//! `ottla config check FILE`, and how every command reads its configuration.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::Exit;
use crate::config::{Config, Flag, Problems, Sources};

/// Work on configuration files.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Name everything that is wrong with a file, as `file:line: key: what`. Exits with 2 if something is.
    #[command(after_help = "Example:\n  ottla config check config/ottla.toml")]
    Check {
        /// The file.
        file: PathBuf,
    },
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// What it says is wrong.
    #[error(transparent)]
    Wrong(#[from] Problems),
}

/// Reads a configuration from the file, if there is one, the environment and the flags.
///
/// # Errors
/// The file cannot be read, or something in it, the environment or the flags is wrong.
pub fn load(file: Option<&Path>, env: Vec<(String, String)>, flags: Vec<Flag>) -> Result<Config, LoadError> {
    let text = file.map(read).transpose()?;
    let name = file.map(|file| file.display().to_string()).unwrap_or_default();
    let file = text.as_deref().map(|text| (name.as_str(), text));
    Ok(Config::load(&Sources { file, env, flags })?)
}

/// The environment's variables; those that are not UTF-8 cannot set a key.
#[must_use]
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn read(file: &Path) -> Result<String, LoadError> {
    fs::read_to_string(file).map_err(|source| LoadError::Read { file: file.into(), source })
}

/// Runs `ottla config ...`.
pub fn run(args: &Args) -> Exit {
    let Command::Check { file } = &args.command;
    // The file alone: what the environment says here need not hold where the file will be used.
    match load(Some(file), Vec::new(), Vec::new()) {
        Ok(_) => {
            println!("{}: ok", file.display());
            Exit::Done
        }
        Err(error) => {
            eprintln!("{error}");
            Exit::Usage
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_carry_the_name_of_the_file_that_was_given() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("mine.toml");
        fs::write(&file, "[kafka]\nlisten = 1\n").expect("the file is written");
        let error = load(Some(&file), Vec::new(), Vec::new()).expect_err("1 is no address").to_string();
        assert!(error.starts_with(&format!("{}:2: kafka.listen: ", file.display())), "{error}");
        let error = load(Some(directory.path()), Vec::new(), Vec::new()).expect_err("a directory is no file");
        assert!(matches!(error, LoadError::Read { .. }));
    }
}
