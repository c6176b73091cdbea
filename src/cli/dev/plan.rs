//! What a cluster on this machine is made of: its brokers' ports, directories and environment, and what its user is told of it.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::DevError;
use super::brokers::Brokers;

/// The ports of as many brokers do not overlap.
pub(super) const BROKERS_MAX: i64 = 100;
/// From a broker's port for Kafka clients to that for other brokers.
const CLUSTER_PORT: u16 = 100;
/// From a broker's port for Kafka clients to that for metrics and probes.
const ADMIN_PORT: u16 = 552;

/// The brokers 1 to `number`, their ports beginning at `port`.
pub(super) struct Plan {
    number: u16,
    port: u16,
}

impl Plan {
    /// Plans so many brokers.
    ///
    /// # Errors
    /// If there are not enough ports behind the first.
    pub(super) fn new(number: u16, port: u16) -> Result<Self, DevError> {
        let last = u32::from(port) + u32::from(ADMIN_PORT) + u32::from(number) - 1;
        match u16::try_from(last) {
            Ok(_) => Ok(Self { number, port }),
            Err(_) => Err(DevError::Ports { port, number, last }),
        }
    }

    /// The brokers' ids.
    pub(super) fn brokers(&self) -> impl Iterator<Item = u16> + use<> {
        1..=self.number
    }

    /// A broker's ports, each with what it is for.
    fn ports(&self, broker: u16) -> [(u16, &'static str); 3] {
        let kafka = self.port + broker - 1;
        [(kafka, "Kafka clients"), (kafka + CLUSTER_PORT, "other brokers"), (kafka + ADMIN_PORT, "metrics")]
    }

    fn address(port: u16) -> String {
        format!("127.0.0.1:{port}")
    }

    /// Checks that nobody has the ports. Somebody may still take one before its broker does, which then says so.
    ///
    /// # Errors
    /// Every port that cannot be had.
    pub(super) fn check_ports(&self) -> Result<(), DevError> {
        let mut taken = Vec::new();
        for broker in self.brokers() {
            for (port, what) in self.ports(broker) {
                if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                    let why = match error.kind() {
                        io::ErrorKind::AddrInUse => "is in use".to_owned(),
                        _ => format!("cannot be had: {error}"),
                    };
                    taken.push(format!("port {port} (broker-{broker}, for {what}) {why}"));
                }
            }
        }
        if taken.is_empty() { Ok(()) } else { Err(DevError::InUse(taken)) }
    }

    /// What makes a process the broker of that id.
    pub(super) fn environment(&self, broker: u16, data: &Data) -> Vec<(&'static str, String)> {
        let [kafka, cluster, admin] = self.ports(broker).map(|(port, _)| Self::address(port));
        let seeds: Vec<String> = self.brokers().map(|seed| Self::address(self.ports(seed)[1].0)).collect();
        vec![
            ("OTTLA_BROKER_ID", broker.to_string()),
            ("OTTLA_BROKER_DATA_DIR", data.of(broker).display().to_string()),
            ("OTTLA_KAFKA_LISTEN", kafka),
            ("OTTLA_CLUSTER_LISTEN", cluster),
            ("OTTLA_CLUSTER_SEEDS", seeds.join(",")),
            ("OTTLA_ADMIN_LISTEN", admin),
        ]
    }

    /// The command that starts a broker by hand.
    pub(super) fn command(&self, broker: u16, data: &Data) -> String {
        let set = |(name, value): (&str, String)| format!("{name}='{}' ", value.replace('\'', "'\\''"));
        let environment: String = self.environment(broker, data).into_iter().map(set).collect();
        format!("{environment}ottla serve")
    }

    /// Where Kafka clients connect.
    fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self.brokers().map(|broker| Self::address(self.ports(broker)[0].0)).collect();
        addresses.join(",")
    }

    /// What the user is told when all brokers are ready.
    pub(super) fn welcome(&self, brokers: &Brokers, after: Duration) -> String {
        let bootstrap = self.bootstrap();
        let count = if self.number == 1 { "1 broker is".to_owned() } else { format!("{} brokers are", self.number) };
        let mut text = format!("\n{count} ready after {:.1} s: {bootstrap}\n\n", after.as_secs_f64());
        for broker in self.brokers() {
            let [kafka, cluster, admin] = self.ports(broker).map(|(port, _)| Self::address(port));
            let pid = brokers.pid(broker);
            text +=
                &format!("  broker-{broker}  pid {pid}  kafka {kafka}  cluster {cluster}  http://{admin}/metrics\n");
        }
        let (data, kept) =
            (brokers.data().path.display(), if brokers.data().is_temporary { "removed" } else { "kept" });
        text += &format!("  data in {data}, {kept} at the end\n\n");
        text += &format!(
            "  export OTTLA_BROKERS={bootstrap}\n  ottla topic create orders --partitions 3\n  ottla cluster status\n  \
             echo hello | kcat -P -b {bootstrap} -t orders\n  kcat -C -b {bootstrap} -t orders -o beginning -e\n\n"
        );
        if self.number > 1 {
            let pid = brokers.pid(self.number);
            text += &format!("To see the others take over from broker-{}: kill -9 {pid}. ", self.number);
        }
        text + "Ctrl-C stops everything.\n\n"
    }
}

/// Where the brokers store what they store. If it is temporary, it is removed with this value.
pub(super) struct Data {
    path: PathBuf,
    is_temporary: bool,
}

impl Data {
    /// The given directory, or a temporary one.
    ///
    /// # Errors
    /// If it cannot be made, or holds the data of more brokers.
    pub(super) fn open(given: Option<&Path>, number: u16) -> Result<Self, DevError> {
        let (path, is_temporary) = match given {
            Some(path) => (path.to_owned(), false),
            None => (std::env::temp_dir().join(format!("ottla-dev-{:08x}", rand::random::<u32>())), true),
        };
        let made = fs::DirBuilder::new().recursive(!is_temporary).mode(0o700).create(&path);
        made.map_err(DevError::io(format!("create {}", path.display())))?;
        let data = Self { path, is_temporary };
        let more = (number + 1..=u16::try_from(BROKERS_MAX).unwrap_or(u16::MAX)).rev().find(|id| data.of(*id).exists());
        match more {
            Some(found) => Err(DevError::MoreBrokers { dir: data.path.clone(), found }),
            None => Ok(data),
        }
    }

    /// A broker's own directory.
    pub(super) fn of(&self, broker: u16) -> PathBuf {
        self.path.join(format!("broker-{broker}"))
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if !self.is_temporary {
            return;
        }
        if let Err(error) = fs::remove_dir_all(&self.path) {
            super::say(format_args!("ottla: could not remove {}: {error}", self.path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_brokers_have_the_usual_ports_and_the_same_seeds() {
        let plan = Plan::new(3, 9092).unwrap();
        let data = Data { path: "/data".into(), is_temporary: false };
        let expected = [
            ("OTTLA_BROKER_ID", "2"),
            ("OTTLA_BROKER_DATA_DIR", "/data/broker-2"),
            ("OTTLA_KAFKA_LISTEN", "127.0.0.1:9093"),
            ("OTTLA_CLUSTER_LISTEN", "127.0.0.1:9193"),
            ("OTTLA_CLUSTER_SEEDS", "127.0.0.1:9192,127.0.0.1:9193,127.0.0.1:9194"),
            ("OTTLA_ADMIN_LISTEN", "127.0.0.1:9645"),
        ];
        assert_eq!(plan.environment(2, &data), expected.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(plan.bootstrap(), "127.0.0.1:9092,127.0.0.1:9093,127.0.0.1:9094");
        let seeds = |broker| plan.environment(broker, &data).swap_remove(4);
        assert_eq!(seeds(1), seeds(3));
    }

    #[test]
    fn as_many_brokers_as_are_allowed_have_different_ports_and_no_more_than_there_are() {
        let number = u16::try_from(BROKERS_MAX).unwrap();
        let plan = Plan::new(number, 1).unwrap();
        let ports: std::collections::BTreeSet<u16> =
            plan.brokers().flat_map(|broker| plan.ports(broker)).map(|(port, _)| port).collect();
        assert_eq!(ports.len(), 300);
        assert!(Plan::new(1, u16::MAX - ADMIN_PORT).is_ok());
        assert!(matches!(Plan::new(2, u16::MAX - ADMIN_PORT), Err(DevError::Ports { last: 65536, .. })));
    }

    #[test]
    fn a_port_that_somebody_has_is_named_with_what_it_is_for() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = Plan { number: 1, port }.check_ports().unwrap_err().to_string();
        assert!(error.starts_with(&format!("port {port} (broker-1, for Kafka clients) is in use")), "{error}");
        assert!(error.contains("--port"), "{error}");
    }

    #[test]
    fn a_directory_of_more_brokers_is_refused_and_a_temporary_one_goes_with_its_owner() {
        let parent = tempfile::tempdir().unwrap();
        let given = parent.path().join("cluster");
        drop(Data::open(Some(&given), 3).unwrap());
        fs::create_dir(given.join("broker-3")).unwrap();
        assert!(Data::open(Some(&given), 3).is_ok());
        assert!(matches!(Data::open(Some(&given), 2), Err(DevError::MoreBrokers { found: 3, .. })));
        let data = Data::open(None, 1).unwrap();
        let path = data.path.clone();
        fs::create_dir(data.of(1)).unwrap();
        drop(data);
        assert!(!path.exists());
    }

    #[test]
    fn the_command_that_starts_a_broker_survives_a_shell() {
        let plan = Plan::new(1, 9092).unwrap();
        let data = Data { path: "/it's here".into(), is_temporary: false };
        let command = plan.command(1, &data);
        assert!(command.contains(r"OTTLA_BROKER_DATA_DIR='/it'\''s here/broker-1' "), "{command}");
        assert!(command.ends_with("ottla serve"), "{command}");
    }
}
