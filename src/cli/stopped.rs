//! The data directory of a broker that does not run, for commands that work on it themselves.

use std::path::Path;
use std::sync::Arc;

use super::Exit;
use super::config::{environment, load};
use crate::config::Flag;
use crate::log::disk::Disk;
use crate::log::mmap::{MmapDisk, MmapOptions};

/// Opens the data directory that the command line, or else the configuration, names. A directory that is none is not made one.
///
/// # Errors
/// What the command ends with; people have been told why.
pub fn open(config: Option<&Path>, data_dir: Option<&str>) -> Result<Arc<dyn Disk>, Exit> {
    let flag = |value: &str| Flag { name: "--data-dir", key: "broker.data_dir", value: value.to_owned() };
    let config = load(config, environment(), data_dir.map(flag).into_iter().collect()).map_err(|error| {
        eprintln!("{error}");
        Exit::Usage
    })?;
    let directory = config.broker.data_dir;
    if !directory.join("topics").is_dir() {
        // To open it would create it.
        eprintln!("ottla: {} is no data directory: it has no topics/", directory.display());
        return Err(Exit::Failed);
    }
    let disk = MmapDisk::open(directory.clone(), MmapOptions::default()).map_err(|error| {
        eprintln!("ottla: open {}: {error}", directory.display());
        Exit::Failed
    })?;
    Ok(Arc::new(disk))
}
