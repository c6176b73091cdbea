//! Who this data directory is, and how its last life ended.
//!
//! `identity.toml` is written once, when the directory is founded. `life.toml` is replaced at each start and stop: it says under
//! which boot of the kernel the broker ran, and whether it stopped cleanly. A directory with `topics/` or a journal but without an identity
//! is never founded anew: something was lost, and starting over would lose the rest.

use std::io::{self, IoSlice};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{BASE64_URL, BrokerId, Incarnation};
use crate::log::disk::{Disk, Open};
use crate::machine::controller::brokers::FOUNDER;

/// The newest format of a data directory that this binary reads and writes.
pub const FORMAT_VERSION: u32 = 1;
/// Larger identity files are not ours.
const FILE_BYTES_MAX: usize = 64 << 10;
const IDENTITY: &str = "identity.toml";
const ANNOUNCED: &str = "arriving.toml";
const LIFE: &str = "life.toml";
const LOCK: &str = "LOCK";

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another process uses it.
    #[error("the data directory is in use by another process (its LOCK file is held)")]
    InUse,
    /// It is of a newer version.
    #[error(
        "the data directory has format {found}; this binary knows formats up to {FORMAT_VERSION}: use a newer ottla"
    )]
    TooNew {
        /// The directory's format.
        found: u32,
    },
    /// It belongs to another broker.
    #[error("the data directory belongs to broker {found}, but broker.id is {configured}")]
    OtherBroker {
        /// The directory's broker.
        found: BrokerId,
        /// The configured one.
        configured: BrokerId,
    },
    /// It belongs to another cluster.
    #[error("the data directory belongs to cluster {found:?}, but cluster.name is {configured:?}")]
    OtherCluster {
        /// The directory's cluster name.
        found: String,
        /// The configured one.
        configured: String,
    },
    /// Data without an identity.
    #[error(
        "the data directory holds {what} but no {IDENTITY}: it is damaged and is not founded anew; run `ottla repair`"
    )]
    Lost {
        /// What was found.
        what: &'static str,
    },
    /// A file that cannot be read.
    #[error("{file} in the data directory is damaged: {reason}; run `ottla repair`")]
    Damaged {
        /// The file.
        file: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The operating system's error.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: io::Error,
    },
}

/// A data directory's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The format of everything in the directory.
    pub format_version: u32,
    /// The cluster's id: 22 characters, as Kafka prints it.
    pub cluster_id: String,
    /// The cluster's configured name.
    pub cluster_name: String,
    /// The broker's id.
    pub broker_id: i32,
    /// The directory's own id: a copied or replaced disk is noticed by it.
    pub directory_id: String,
    /// The incarnation of this broker's replica of the controller's group. 1 is that of whoever founded the cluster.
    #[serde(default = "founder")]
    pub controller_incarnation: u64,
}

const fn founder() -> u64 {
    FOUNDER.0
}

impl Identity {
    /// The directory's id as bytes: the low 128 bits of its text.
    #[must_use]
    pub fn directory(&self) -> [u8; 16] {
        directory(&self.directory_id)
    }
}

/// A directory's id as bytes: the low 128 bits of its text.
#[must_use]
pub fn directory(id: &str) -> [u8; 16] {
    let mut bits = 0u128;
    for character in id.bytes() {
        let letter = BASE64_URL.iter().position(|it| *it == character);
        bits = (bits << 6) | u128::from(letter.map_or(0, |at| u8::try_from(at).expect("64 letters")));
    }
    bits.to_be_bytes()
}

/// What a data directory that is not there yet is founded as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    /// The cluster's id.
    pub cluster_id: String,
    /// The directory's own.
    pub directory_id: String,
    /// The incarnation of this broker's replica of the controller's group.
    pub controller: Incarnation,
}

/// How a life of the broker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LifeState {
    /// It runs, or ended without a clean stop.
    Running,
    /// It stopped cleanly: everything is synced and described.
    Clean,
    /// A sync failed: what the page cache shows may not be on the device.
    Failed,
}

/// The broker's last life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// How it stands.
    pub state: LifeState,
    /// The kernel's boot id under which it ran: after another boot, unsynced writes are gone.
    pub boot_id: String,
}

/// What a directory will be called that has no place in a cluster yet.
#[derive(Debug, Serialize, Deserialize)]
struct Announced {
    directory_id: String,
}

/// An opened data directory.
pub struct Home {
    disk: Arc<dyn Disk>,
    /// Who it is.
    pub identity: Identity,
    /// How the last life ended; `None` if the directory was just founded.
    pub last_life: Option<Life>,
    _lock: Box<dyn std::any::Any + Send + Sync>,
}

fn io_error(doing: &'static str) -> impl Fn(io::Error) -> IdentityError {
    move |source| IdentityError::Io { doing, source }
}

/// A data directory that a repair works on: locked, with what is wrong with its own files.
pub struct Inspected {
    /// Files that cannot be read or are missing, and what to do about each.
    pub problems: Vec<String>,
    /// The record of the last life cannot be read. [`replace_life`] helps: the next start then reads back what it must.
    pub life_is_damaged: bool,
    _lock: Box<dyn std::any::Any + Send + Sync>,
}

/// Locks a data directory and looks at its identity; founds nothing.
///
/// # Errors
/// [`IdentityError::InUse`] while a broker runs on it; of the disk; if it is of a newer version.
pub fn inspect(disk: &Arc<dyn Disk>) -> Result<Inspected, IdentityError> {
    let lock = lock(disk)?;
    let mut problems = Vec::new();
    match read::<Identity>(disk, IDENTITY) {
        Ok(Some(identity)) if identity.format_version > FORMAT_VERSION => {
            return Err(IdentityError::TooNew { found: identity.format_version });
        }
        Ok(Some(_)) => {}
        Ok(None) => problems
            .push(format!("{IDENTITY} is missing: put back a copy of it; nothing else says which broker this is")),
        Err(IdentityError::Damaged { reason, .. }) => {
            problems.push(format!(
                "{IDENTITY} is damaged ({reason}): put back a copy of it; nothing else says which broker this is"
            ));
        }
        Err(error) => return Err(error),
    }
    let life_is_damaged = match read::<Life>(disk, LIFE) {
        Ok(_) => false,
        Err(IdentityError::Damaged { .. }) => true,
        Err(error) => return Err(error),
    };
    Ok(Inspected { problems, life_is_damaged, _lock: lock })
}

/// Keeps a copy of a damaged record of the last life, and writes in its place one that promises nothing: not a clean stop, and no kernel
/// whose page cache could still be there. Answers where the copy is.
///
/// # Errors
/// Of the disk.
pub fn replace_life(disk: &Arc<dyn Disk>) -> Result<String, IdentityError> {
    let to = format!("{LIFE}.damaged");
    let copy = || -> io::Result<()> {
        let damaged = disk.open(LIFE, Open::ReadOnly)?;
        let mut bytes = vec![0; FILE_BYTES_MAX];
        let read = damaged.read_at(0, &mut bytes)?;
        write_bytes(disk, &to, &bytes[..read])
    };
    copy().map_err(io_error("keep the damaged record of the last life"))?;
    // There is always one: without any, the next start would take the directory for one that never ran.
    write(disk, LIFE, &Life { state: LifeState::Running, boot_id: String::new() })?;
    Ok(to)
}

fn lock(disk: &Arc<dyn Disk>) -> Result<Box<dyn std::any::Any + Send + Sync>, IdentityError> {
    disk.lock(LOCK).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => IdentityError::InUse,
        _ => IdentityError::Io { doing: "lock the data directory", source },
    })
}

impl Home {
    /// Locks the directory and reads its identity, founding it as `founding` if it is empty.
    ///
    /// # Errors
    /// See [`IdentityError`]: each says what is wrong and what to do.
    pub fn open(
        disk: Arc<dyn Disk>,
        broker: BrokerId,
        cluster_name: &str,
        founding: Founding,
    ) -> Result<Self, IdentityError> {
        let lock = lock(&disk)?;
        let (identity, last_life) = match read::<Identity>(&disk, IDENTITY)? {
            Some(identity) => (identity, read::<Life>(&disk, LIFE)?),
            None => (found(&disk, broker, cluster_name, founding)?, None),
        };
        if identity.format_version > FORMAT_VERSION {
            return Err(IdentityError::TooNew { found: identity.format_version });
        }
        let found = BrokerId(identity.broker_id);
        if found != broker {
            return Err(IdentityError::OtherBroker { found, configured: broker });
        }
        if identity.cluster_name != cluster_name {
            let (found, configured) = (identity.cluster_name, cluster_name.to_owned());
            return Err(IdentityError::OtherCluster { found, configured });
        }
        Ok(Self { disk, identity, last_life, _lock: lock })
    }

    /// Whether the last life ended cleanly: nothing has to be read back then.
    #[must_use]
    pub fn was_clean(&self) -> bool {
        self.last_life.as_ref().is_some_and(|life| life.state == LifeState::Clean)
    }

    /// Whether unsynced writes of the last life may be gone: the kernel has booted since a stop that was not clean, or a sync failed.
    #[must_use]
    pub fn lost_page_cache(&self, boot_id: &str) -> bool {
        self.last_life.as_ref().is_some_and(|life| match life.state {
            LifeState::Clean => false,
            LifeState::Running => life.boot_id != boot_id,
            LifeState::Failed => true,
        })
    }

    /// Records durably how this life stands.
    ///
    /// # Errors
    /// The operating system's.
    pub fn record(&self, state: LifeState, boot_id: &str) -> Result<(), IdentityError> {
        write(&self.disk, LIFE, &Life { state, boot_id: boot_id.to_owned() })
    }
}

fn found(
    disk: &Arc<dyn Disk>,
    broker: BrokerId,
    cluster_name: &str,
    founding: Founding,
) -> Result<Identity, IdentityError> {
    check_empty(disk)?;
    let identity = Identity {
        format_version: FORMAT_VERSION,
        cluster_id: founding.cluster_id,
        cluster_name: cluster_name.to_owned(),
        broker_id: broker.0,
        directory_id: founding.directory_id,
        controller_incarnation: founding.controller.0,
    };
    write(disk, IDENTITY, &identity)?;
    // Nobody reads it beside an identity.
    drop(disk.remove_file(ANNOUNCED));
    Ok(identity)
}

/// The identity of a data directory, if it has been founded; founds nothing.
///
/// # Errors
/// Of the disk; if it is damaged, or holds data and no identity.
pub fn stored(disk: &Arc<dyn Disk>) -> Result<Option<Identity>, IdentityError> {
    let identity = read::<Identity>(disk, IDENTITY)?;
    if identity.is_none() {
        check_empty(disk)?;
    }
    Ok(identity)
}

/// The id of a directory that is not founded yet: `drawn`, or what an earlier life has drawn for it. It is durable before anybody is told: whoever asked for a
/// place in a cluster and starts again, with a request still under way, asks as the same.
///
/// # Errors
/// Of the disk; if the file is damaged.
pub fn announce(disk: &Arc<dyn Disk>, drawn: &str) -> Result<String, IdentityError> {
    if let Some(earlier) = read::<Announced>(disk, ANNOUNCED)? {
        return Ok(earlier.directory_id);
    }
    write(disk, ANNOUNCED, &Announced { directory_id: drawn.to_owned() })?;
    Ok(drawn.to_owned())
}

/// Puts another identity in the place of the one that a data directory has.
///
/// # Errors
/// Of the disk.
pub fn replace(disk: &Arc<dyn Disk>, identity: &Identity) -> Result<(), IdentityError> {
    write(disk, IDENTITY, identity)
}

/// Data without an identity is not founded anew.
fn check_empty(disk: &Arc<dyn Disk>) -> Result<(), IdentityError> {
    let names = disk.list("").map_err(io_error("list the data directory"))?;
    for (name, what) in [("topics", "topics"), (crate::log::journal::JOURNAL, "a journal")] {
        if names.iter().any(|entry| entry.name == name) {
            return Err(IdentityError::Lost { what });
        }
    }
    Ok(())
}

fn read<T: for<'a> Deserialize<'a>>(disk: &Arc<dyn Disk>, file: &'static str) -> Result<Option<T>, IdentityError> {
    let damaged = |reason: String| IdentityError::Damaged { file, reason };
    let handle = match disk.open(file, Open::ReadOnly) {
        Ok(handle) => handle,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(IdentityError::Io { doing: "open the data directory's identity", source }),
    };
    let mut bytes = vec![0; FILE_BYTES_MAX];
    let length = handle.read_at(0, &mut bytes).map_err(io_error("read the data directory's identity"))?;
    bytes.truncate(length);
    let text = String::from_utf8(bytes).map_err(|error| damaged(error.to_string()))?;
    toml::from_str(&text).map(Some).map_err(|error| damaged(error.message().to_owned()))
}

/// Replaces a file as a whole: a power cut leaves the old one or the new one.
fn write<T: Serialize>(disk: &Arc<dyn Disk>, file: &'static str, value: &T) -> Result<(), IdentityError> {
    let text = toml::to_string(value).expect("plain structs have a TOML form");
    write_bytes(disk, file, text.as_bytes()).map_err(io_error("write the data directory's identity"))
}

/// Puts a file in place as a whole, durably.
fn write_bytes(disk: &Arc<dyn Disk>, file: &str, bytes: &[u8]) -> io::Result<()> {
    let new = format!("{file}.new");
    match disk.remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let handle = disk.open(&new, Open::New)?;
    handle.write_at(0, &[IoSlice::new(bytes)])?;
    handle.sync()?;
    disk.rename(&new, file)?;
    disk.sync_dir("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Incarnation;
    use crate::log::mem_disk::MemDisk;

    #[test]
    fn who_starts_again_before_it_has_a_place_asks_for_it_as_the_same() {
        let memory = MemDisk::inline();
        let disk: Arc<dyn Disk> = Arc::new(memory.clone());
        assert_eq!(announce(&disk, "first").unwrap(), "first");
        memory.cut_power_now();
        let disk: Arc<dyn Disk> = Arc::new(memory.after_power_cut());
        let directory_id = announce(&disk, "second").unwrap();
        assert_eq!(directory_id, "first", "durable before it is told");
        let founding = Founding { cluster_id: "c".to_owned(), directory_id, controller: Incarnation(7) };
        let home = Home::open(Arc::clone(&disk), BrokerId(1), "", founding).unwrap();
        assert_eq!(home.identity.directory_id, "first");
        let names = disk.list("").unwrap();
        assert!(names.iter().all(|entry| entry.name != ANNOUNCED), "it has a name now");
    }
}
