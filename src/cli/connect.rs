//! What all subcommands that talk to a broker share: where it is, how long to wait, how to fail, how to print.

use std::future::Future;
use std::io::{self, Write};
use std::time::Duration;

use clap::ValueEnum;

use super::Exit;
use super::client::{Client, ClientError};
use crate::protocol::error_code::ErrorCode;

/// How long a broker may take to answer, unless the arguments say otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// The port of a broker that was named without one.
const DEFAULT_PORT: u16 = 9092;

/// Where the brokers are.
#[derive(Clone, Debug, clap::Args)]
pub struct Connect {
    /// Brokers to ask first; the others are learnt from them. A port left out is 9092.
    #[arg(
        short,
        long,
        env = "OTTLA_BROKERS",
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        default_value = "127.0.0.1:9092",
        alias = "bootstrap-server",
        value_parser = address
    )]
    pub brokers: Vec<String>,
    /// Give up when a broker has not answered for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub timeout: Duration,
}

impl Connect {
    /// A client of the cluster.
    ///
    /// # Errors
    /// If none of the brokers answers.
    pub async fn client(&self) -> Result<Client, ClientError> {
        Client::connect(&self.brokers, self.timeout).await
    }
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: the keys do not change.
    Json,
}

/// Why a subcommand did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The cluster refused, or was not reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Input could not be read or output not be written.
    #[error("{what}: {source}")]
    Io {
        /// What was read or written.
        what: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// What was read from a broker cannot be believed.
    #[error("{what}: {problem}")]
    Data {
        /// Where it was read.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no such group.
    #[error("there is no group {0}")]
    NoGroup(String),
    /// The arguments do not fit each other, or what they are applied to.
    #[error("{0}")]
    Usage(String),
    /// The cluster is not as it should be, which has been shown.
    #[error("the cluster is not healthy")]
    Unhealthy,
    /// Some of several things failed, each of which has been named.
    #[error("{failed} of {of} failed")]
    Some {
        /// How many failed.
        failed: usize,
        /// How many there were.
        of: usize,
    },
}

impl Failure {
    /// The exit code for it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            // Who reads our output has seen enough.
            Self::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Client(error) if error.is_unreachable() => Exit::Unreachable,
            Self::Client(ClientError::NoPartition { .. }) | Self::NoGroup(_) => Exit::NotFound,
            Self::Client(error) if error.code() == Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) => Exit::NotFound,
            Self::Usage(_) => Exit::Usage,
            Self::Client(_) | Self::Io { .. } | Self::Data { .. } | Self::Unhealthy | Self::Some { .. } => Exit::Failed,
        }
    }

    /// Wraps an error of standard output.
    #[must_use]
    pub fn stdout(source: io::Error) -> Self {
        Self::Io { what: "standard output", source }
    }
}

/// Runs a subcommand to its end and says on stderr why it failed, if it did.
pub fn run(command: impl Future<Output = Result<(), Failure>>) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(command),
        Err(source) => Err(Failure::Io { what: "starting", source }),
    };
    end(result)
}

/// The exit code of a result, after its error was said on stderr.
pub fn end(result: Result<(), Failure>) -> Exit {
    let Err(failure) = result else { return Exit::Done };
    let exit = failure.exit();
    if exit != Exit::Done {
        eprintln!("ottla: {failure}");
    }
    exit
}

/// Prints text as it is.
///
/// # Errors
/// If standard output takes no more.
pub fn print_text(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::stdout)
}

/// Prints a JSON value, indented.
///
/// # Errors
/// If standard output takes no more.
pub fn print_json(value: &serde_json::Value) -> Result<(), Failure> {
    print_text(&format!("{value:#}\n"))
}

/// Prints rows under their column names, each column as wide as its widest cell.
///
/// # Errors
/// If standard output takes no more.
pub fn print_table<const N: usize>(columns: [&str; N], rows: &[[String; N]]) -> Result<(), Failure> {
    print_text(&table(columns, rows))
}

fn table<const N: usize>(columns: [&str; N], rows: &[[String; N]]) -> String {
    let header = columns.map(ToOwned::to_owned);
    let width = |at: usize| std::iter::once(&header).chain(rows).map(|row| row[at].chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let pad = width(at) - cell.chars().count();
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', pad + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Reads `host:port`, `host`, `[::1]:port` or `[::1]`.
fn address(text: &str) -> Result<String, String> {
    let has_port = text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    let bare_v6 = text.parse::<std::net::Ipv6Addr>().is_ok();
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err("a broker is named host:port".to_owned());
    }
    match (bare_v6, has_port) {
        (true, _) => Ok(format!("[{text}]:{DEFAULT_PORT}")),
        (false, true) => Ok(text.to_owned()),
        (false, false) if text.contains(':') && !text.ends_with(']') => Err("the port must be a number".to_owned()),
        (false, false) => Ok(format!("{text}:{DEFAULT_PORT}")),
    }
}

/// Reads a number of seconds, fractions too.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.trim_end_matches('s').parse().map_err(|_| "a number of seconds is wanted".to_owned())?;
    match Duration::try_from_secs_f64(number) {
        Ok(duration) if !duration.is_zero() && duration <= Duration::from_secs(86_400) => Ok(duration),
        _ => Err("more than 0 and at most 86400 seconds are wanted".to_owned()),
    }
}

/// Reads a setting, `KEY=VALUE`.
pub fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("KEY=VALUE is wanted".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_port_gets_the_usual_one() {
        assert_eq!(address("kafka-1").unwrap(), "kafka-1:9092");
        assert_eq!(address("127.0.0.1:19092").unwrap(), "127.0.0.1:19092");
        assert_eq!(address("::1").unwrap(), "[::1]:9092");
        assert_eq!(address("[::1]").unwrap(), "[::1]:9092");
        assert_eq!(address("[::1]:1").unwrap(), "[::1]:1");
        assert!(address("host:port").is_err());
        assert!(address("").is_err());
    }

    #[test]
    fn a_table_is_as_wide_as_its_cells_and_no_wider() {
        let rows = [["a".to_owned(), "1".to_owned()], ["längst".to_owned(), String::new()]];
        assert_eq!(table(["NAME", "N"], &rows), "NAME    N\na       1\nlängst\n");
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let closed = Failure::stdout(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(closed.exit(), Exit::Done);
        assert_eq!(Failure::Usage(String::new()).exit(), Exit::Usage);
    }

    #[test]
    fn seconds_are_bounded() {
        assert_eq!(seconds("0.5").unwrap(), Duration::from_millis(500));
        assert_eq!(seconds("3s").unwrap(), Duration::from_secs(3));
        assert!(seconds("0").is_err() && seconds("-1").is_err() && seconds("1e9").is_err() && seconds("x").is_err());
    }
}
