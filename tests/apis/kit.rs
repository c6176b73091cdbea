//! A broker in this process, and a connection to it.

use std::net::SocketAddr;
use std::sync::Arc;

use ottla::broker::{Broker, Env};
use ottla::clock::SystemClock;
use ottla::config::{Config, HostPort};
use ottla::log::disk::Disk;
use ottla::log::mem_disk::MemDisk;
use ottla::log::mmap::{MmapDisk, MmapOptions};
use ottla::net::TokioNetwork;
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

    fn start_on(disk: Arc<dyn Disk>, data: tempfile::TempDir, adjust: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.kafka.listen = HostPort::new("127.0.0.1", 0);
        config.admin.listen = None;
        adjust(&mut config);
        let env = Env {
            disk,
            network: Arc::new(TokioNetwork),
            clock: Arc::new(SystemClock),
            seed: 7,
            boot_id: "boot".to_owned(),
            fatal: Arc::new(|fatal| panic!("{}", fatal.reason)),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let broker = runtime.block_on(Broker::start(config, env)).unwrap();
        let address = broker.kafka_address();
        Self { runtime: Some(runtime), broker: Some(broker), address, _data: data }
    }

    /// What `/metrics` shows.
    pub fn metrics(&self) -> String {
        self.broker.as_ref().unwrap().context().metrics.encode()
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let (runtime, broker) = (self.runtime.take().unwrap(), self.broker.take().unwrap());
        let stopped = runtime.block_on(broker.stop());
        if !std::thread::panicking() {
            stopped.unwrap();
        }
    }
}
