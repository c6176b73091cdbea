//! A broker in this process, and a connection to it.

use std::net::SocketAddr;
use std::sync::Arc;

use ottla::broker::{Broker, BrokerError, Env};
use ottla::clock::SystemClock;
use ottla::config::{Config, Durability, HostPort};
use ottla::ids::{PartitionId, PartitionIndex, TopicId};
use ottla::log::disk::Disk;
use ottla::log::mem_disk::MemDisk;
use ottla::log::mmap::{MmapDisk, MmapOptions};
use ottla::net::TokioNetwork;
use ottla::raft::FatalHook;
use ottla::raft::flusher::Fatal;
use tokio::runtime::Runtime;

pub use crate::client::{Client, topic, versions};

/// A broker that runs until it is dropped.
pub struct Server {
    runtime: Option<Runtime>,
    broker: Option<Broker>,
    address: SocketAddr,
    _data: tempfile::TempDir,
}

impl Server {
    /// A broker that keeps records for ever: those of the tests are from 1970.
    pub fn start() -> Self {
        Self::start_with(|config| config.topics.retention_ms = None)
    }

    pub fn start_with(adjust: impl FnOnce(&mut Config)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let directory = data.path().join("data");
        let disk = MmapDisk::open(directory.clone(), MmapOptions::default()).unwrap();
        Self::start_on(Arc::new(disk), data, |config| {
            config.broker.data_dir = directory;
            adjust(config);
        })
    }

    /// A broker on a disk in memory, which the test may fill or fail.
    pub fn start_in_memory(disk: &MemDisk) -> Self {
        let data = tempfile::tempdir().unwrap();
        Self::start_on(Arc::new(disk.clone()), data, |config| config.topics.retention_ms = None)
    }

    /// One life of a broker on a disk in memory, under that boot of the kernel; none if the power goes while it starts.
    pub fn start_life(disk: &MemDisk, boot_id: &str) -> Option<Self> {
        Self::start_life_with(disk, boot_id, |_| {})
    }

    pub fn start_life_with(disk: &MemDisk, boot_id: &str, also: impl FnOnce(&mut Config)) -> Option<Self> {
        let data = tempfile::tempdir().unwrap();
        let adjust = |config: &mut Config| {
            config.topics.retention_ms = None;
            config.broker.durability = Durability::PageCache;
            also(config);
        };
        let off = disk.clone();
        let fatal = Arc::new(move |fatal: Fatal| assert!(off.is_cut(), "{}", fatal.reason));
        Self::try_start(Arc::new(disk.clone()), data, boot_id, fatal, adjust)
            .inspect_err(|error| assert!(disk.is_cut(), "{error}"))
            .ok()
    }

    /// Ends it without a clean stop.
    pub fn kill(mut self) {
        drop(self.broker.take());
        self.runtime.take().unwrap().shutdown_background();
    }

    /// The incarnation of a partition's only replica.
    pub fn incarnation(&self, topic: TopicId) -> u64 {
        let partition = PartitionId { topic, partition: PartitionIndex(0) };
        let controller = &self.broker.as_ref().unwrap().context().controller;
        controller.read(|controller| controller.replicas(partition).unwrap()[0].incarnation.0)
    }

    fn start_on(disk: Arc<dyn Disk>, data: tempfile::TempDir, adjust: impl FnOnce(&mut Config)) -> Self {
        Self::try_start(disk, data, "boot", Arc::new(|fatal: Fatal| panic!("{}", fatal.reason)), adjust).unwrap()
    }

    fn try_start(
        disk: Arc<dyn Disk>,
        data: tempfile::TempDir,
        boot_id: &str,
        fatal: FatalHook,
        adjust: impl FnOnce(&mut Config),
    ) -> Result<Self, BrokerError> {
        let mut config = Config::default();
        config.kafka.listen = HostPort::new("127.0.0.1", 0);
        config.admin.listen = None;
        adjust(&mut config);
        let env = Env {
            disk,
            network: Arc::new(TokioNetwork),
            clock: Arc::new(SystemClock),
            seed: 7,
            boot_id: boot_id.to_owned(),
            fatal,
            tamper: None,
            flaws: ottla::flaws::Flaws::NONE,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let broker = runtime.block_on(Broker::start(config, env))?;
        let address = broker.kafka_address();
        Ok(Self { runtime: Some(runtime), broker: Some(broker), address, _data: data })
    }

    /// What `/metrics` shows.
    pub fn metrics(&self) -> String {
        self.broker.as_ref().unwrap().context().metrics.encode()
    }

    /// Where the admin port is, if the test has asked for one.
    pub fn admin_address(&self) -> SocketAddr {
        self.broker.as_ref().unwrap().admin_address().expect("the test has configured an admin port")
    }

    /// Where clients find it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let (Some(runtime), Some(broker)) = (self.runtime.take(), self.broker.take()) else { return };
        let stopped = runtime.block_on(broker.stop());
        if !std::thread::panicking() {
            stopped.unwrap();
        }
    }
}
