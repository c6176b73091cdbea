//! `ottla completion SHELL`: the completion script on stdout.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Exit};

/// Print a completion script for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  ottla completion bash > ~/.local/share/bash-completion/completions/ottla")]
pub struct Args {
    /// The shell.
    shell: Shell,
}

/// Writes the script.
pub fn run(args: &Args) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ottla", &mut script);
    match io::stdout().write_all(&script) {
        Ok(()) => Exit::Done,
        Err(_) => Exit::Failed, // whoever read stdout has gone
    }
}
