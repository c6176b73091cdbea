//! Logs: to stderr, for people or for machines. Stdout belongs to what a command was asked for.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Sets up the process's logs. Call once, before anything is logged; a second call changes nothing.
pub fn init(log: &Log) {
    // A level is Ottla's own; the Raft library speaks of each step at that level, and warns of each message to a broker that is not there, which is
    // said once here. It is heard from an error up unless it is named.
    let filter = EnvFilter::new(format!("openraft=error,{}", log.level));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let set = match log.format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    // The only error is that logs are set up already.
    drop(set);
}
