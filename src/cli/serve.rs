//! `ottla serve`: runs a broker until it is told to stop.

use std::path::PathBuf;

use super::config::{LoadError, environment, load};
use crate::config::{Config, Flag};

/// Run a broker.
#[derive(Debug, clap::Args)]
#[command(after_help = "Without a file: one node on 127.0.0.1:9092, data in ./ottla-data.\n\n\
Examples:\n  ottla serve\n  ottla serve --listen 127.0.0.1:0 --data-dir /tmp/ottla\n  ottla serve --config /etc/ottla.toml\n  \
OTTLA_BROKER_DURABILITY=page-cache ottla serve")]
pub struct Args {
    /// The configuration file; every key is in config/ottla.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything is stored (broker.data_dir).
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where Kafka clients connect (kafka.listen); port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
}

impl Args {
    /// The configuration: flags over the environment over the file.
    ///
    /// # Errors
    /// See [`load`].
    pub fn load(&self) -> Result<Config, LoadError> {
        let flags = [("--data-dir", "broker.data_dir", &self.data_dir), ("--listen", "kafka.listen", &self.listen)];
        let given = |(name, key, value): (_, _, &Option<String>)| Some(Flag { name, key, value: value.clone()? });
        load(self.config.as_deref(), environment(), flags.into_iter().filter_map(given).collect())
    }
}
