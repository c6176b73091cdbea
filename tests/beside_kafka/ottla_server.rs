//! An Ottla in this process.

use std::net::SocketAddr;
use std::sync::Arc;

use ottla::broker::{Broker, Env};
use ottla::clock::SystemClock;
use ottla::config::{Config, HostPort};
use ottla::log::mmap::{MmapDisk, MmapOptions};
use ottla::net::TokioNetwork;
use tokio::runtime::Runtime;

/// A broker that runs until it is dropped.
pub struct Server {
    runtime: Option<Runtime>,
    broker: Option<Broker>,
    address: SocketAddr,
    _data: tempfile::TempDir,
}

impl Server {
    /// Starts it on a free port.
    pub fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.broker.data_dir = data.path().join("data");
        config.kafka.listen = HostPort::new("127.0.0.1", 0);
        config.admin.listen = None;
        // As the Kafka that was recorded: nobody waits for members that no case has.
        config.groups.initial_rebalance_delay_ms = 0;
        let disk = MmapDisk::open(config.broker.data_dir.clone(), MmapOptions::default()).unwrap();
        let env = Env {
            disk: Arc::new(disk),
            network: Arc::new(TokioNetwork),
            clock: Arc::new(SystemClock),
            seed: 7,
            boot_id: "boot".to_owned(),
            fatal: Arc::new(|fatal| panic!("{}", fatal.reason)),
            tamper: None,
            flaws: ottla::flaws::Flaws::NONE,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let broker = runtime.block_on(Broker::start(config, env)).unwrap();
        let address = broker.kafka_address();
        Self { runtime: Some(runtime), broker: Some(broker), address, _data: data }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let (runtime, broker) = (self.runtime.take().unwrap(), self.broker.take().unwrap());
        // Its data is thrown away: how it stops is other tests' to judge.
        let _ = runtime.block_on(broker.stop());
    }
}
