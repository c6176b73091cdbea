//! Whether a cluster is well, from what one of its brokers says of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::protocol::messages::DescribeClusterResponse;

/// A partition as a broker describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Partition {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// The broker that leads it, or -1.
    pub(super) leader: i32,
    pub(super) replicas: Vec<i32>,
    pub(super) in_sync: Vec<i32>,
    pub(super) offline: Vec<i32>,
    /// How many offsets replicas that are not in sync lack of what their leader has, as far as it was asked.
    pub(super) lag: BTreeMap<i32, i64>,
}

/// Replicas of a partition on their way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// The brokers that get one.
    pub(super) adding: Vec<i32>,
    /// The brokers that lose theirs.
    pub(super) removing: Vec<i32>,
}

/// What is on the move in a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    pub(super) under_way: Vec<Move>,
    /// The brokers that give everything away.
    pub(super) drained: Vec<i32>,
}

/// A broker of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Broker {
    /// Where clients connect; none where nobody says it.
    address: Option<String>,
    rack: Option<String>,
    is_there: bool,
    is_drained: bool,
    leaders: usize,
    replicas: usize,
}

/// What there is, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Health {
    cluster_id: String,
    /// None if nobody is known to decide.
    controller: Option<i32>,
    brokers: BTreeMap<i32, Broker>,
    topics: usize,
    pub(super) partitions: usize,
    /// Nobody that is there leads them.
    pub(super) leaderless: Vec<Partition>,
    /// Somebody leads them, and a replica is away or behind.
    pub(super) under_replicated: Vec<Partition>,
    pub(super) moving: Vec<Move>,
}

impl Health {
    /// Looks at what a broker said.
    pub(super) fn of(cluster: &DescribeClusterResponse, mut all: Vec<Partition>, moves: Moves) -> Self {
        let mut brokers: BTreeMap<i32, Broker> = BTreeMap::new();
        for broker in &cluster.brokers {
            let (host, port) = (&*broker.host, broker.port);
            let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
            let rack = broker.rack.as_deref().map(ToOwned::to_owned);
            let (is_there, is_drained) = (!broker.is_fenced, moves.drained.contains(&broker.broker_id));
            let address = Some(address);
            brokers.insert(broker.broker_id, Broker { address, rack, is_there, is_drained, ..Broker::default() });
        }
        for partition in &all {
            for replica in &partition.replicas {
                // One that holds replicas and is not listed is away.
                brokers.entry(*replica).or_default().replicas += 1;
            }
            if let Some(leader) = brokers.get_mut(&partition.leader) {
                leader.leaders += 1;
            }
        }
        all.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        let topics: BTreeSet<&str> = all.iter().map(|partition| partition.topic.as_str()).collect();
        let (topics, partitions) = (topics.len(), all.len());
        let is_led = |partition: &Partition| brokers.get(&partition.leader).is_some_and(|leader| leader.is_there);
        let (led, leaderless): (Vec<_>, Vec<_>) = all.into_iter().partition(is_led);
        // One that is on its way does not lack yet.
        let is_added = |it: &Partition, broker: &i32| {
            let of = |moved: &&Move| moved.topic == it.topic && moved.partition == it.partition;
            moves.under_way.iter().find(of).is_some_and(|moved| moved.adding.contains(broker))
        };
        let lacks = |it: &Partition| it.missing().any(|broker| !is_added(it, &broker));
        Self {
            cluster_id: cluster.cluster_id.to_string(),
            controller: (cluster.controller_id >= 0).then_some(cluster.controller_id),
            brokers,
            topics,
            partitions,
            leaderless,
            under_replicated: led.into_iter().filter(lacks).collect(),
            moving: moves.under_way,
        }
    }

    /// How many replicas a broker holds.
    pub(super) fn replicas_on(&self, broker: i32) -> usize {
        self.brokers.get(&broker).map_or(0, |broker| broker.replicas)
    }

    /// Whether nothing is wrong.
    pub(super) fn is_healthy(&self) -> bool {
        self.problems().is_empty()
    }

    /// What is wrong, the worst first.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.controller.is_none() {
            problems.push("nobody decides for the cluster (no controller)".to_owned());
        }
        let mut count = |number: usize, one: &str, many: &str| match number {
            0 => {}
            1 => problems.push(format!("1 {one}")),
            _ => problems.push(format!("{number} {many}")),
        };
        count(self.leaderless.len(), "partition without a leader", "partitions without a leader");
        count(self.under_replicated.len(), "partition under-replicated", "partitions under-replicated");
        let away = self.brokers.values().filter(|broker| !broker.is_there).count();
        count(away, "broker is not there", "brokers are not there");
        problems
    }

    /// The lines above the table of brokers.
    pub(super) fn summary(&self) -> String {
        let problems = self.problems();
        let health =
            if problems.is_empty() { "healthy".to_owned() } else { format!("NOT HEALTHY: {}", problems.join("; ")) };
        let controller = self.controller.map_or_else(|| "none".to_owned(), |id| format!("broker {id}"));
        let Self { cluster_id, topics, partitions, .. } = self;
        format!(
            "Cluster     {cluster_id}\nController  {controller}\nTopics      {topics}\nPartitions  {partitions}\nHealth      {health}\n\n"
        )
    }

    /// The table of brokers.
    pub(super) fn broker_rows(&self) -> Vec<[String; 6]> {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let row = |(id, broker): (&i32, &Broker)| {
            let state = if broker.is_there { "up" } else { "not there" };
            let state = match (broker.is_drained, broker.replicas) {
                (false, _) => state.to_owned(),
                (true, 0) => format!("{state}, drained"),
                (true, _) => format!("{state}, draining"),
            };
            let (leaders, replicas) = (broker.leaders.to_string(), broker.replicas.to_string());
            [id.to_string(), or_none(&broker.address), or_none(&broker.rack), leaders, replicas, state]
        };
        self.brokers.iter().map(row).collect()
    }

    /// All of it for programs, with so many partitions of each list at most.
    pub(super) fn json(&self, limit: usize) -> Value {
        let broker = |(id, broker): (&i32, &Broker)| {
            json!({"broker": id, "address": broker.address, "rack": broker.rack, "is_up": broker.is_there,
                   "is_drained": broker.is_drained, "leaders": broker.leaders, "replicas": broker.replicas})
        };
        let list = |all: &[Partition]| all.iter().take(limit).map(Partition::json).collect::<Vec<_>>();
        json!({"cluster_id": self.cluster_id, "healthy": self.is_healthy(), "problems": self.problems(),
               "controller": self.controller, "brokers": self.brokers.iter().map(broker).collect::<Vec<_>>(),
               "topics": self.topics, "partitions": self.partitions,
               "leaderless_partitions": self.leaderless.len(), "leaderless": list(&self.leaderless),
               "under_replicated_partitions": self.under_replicated.len(),
               "under_replicated": list(&self.under_replicated),
               "moving_partitions": self.moving.len(),
               "moving": self.moving.iter().take(limit).map(Move::json).collect::<Vec<_>>()})
    }
}

impl Move {
    /// A row of a table of moves.
    pub(super) fn row(&self) -> [String; 4] {
        let list = |brokers: &[i32]| match brokers {
            [] => "-".to_owned(),
            _ => brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        };
        [self.topic.clone(), self.partition.to_string(), list(&self.adding), list(&self.removing)]
    }

    fn json(&self) -> Value {
        json!({"topic": self.topic, "partition": self.partition, "adding": self.adding, "removing": self.removing})
    }
}

impl Partition {
    /// The brokers whose replicas are away or behind.
    pub(super) fn missing(&self) -> impl Iterator<Item = i32> {
        let is_missing = |broker: &&i32| !self.in_sync.contains(broker) || self.offline.contains(broker);
        self.replicas.iter().filter(is_missing).copied()
    }

    /// A row of a table of partitions.
    pub(super) fn row(&self) -> [String; 6] {
        let list = |brokers: &[i32]| brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let leader = if self.leader < 0 { "-".to_owned() } else { self.leader.to_string() };
        let missing = self.missing().map(|broker| match self.lag.get(&broker) {
            _ if self.offline.contains(&broker) => format!("{broker} away"),
            Some(offsets) => format!("{broker} lacks {offsets}"),
            None => format!("{broker} behind"),
        });
        let missing = missing.collect::<Vec<_>>().join(", ");
        [self.topic.clone(), self.partition.to_string(), leader, list(&self.replicas), list(&self.in_sync), missing]
    }

    fn json(&self) -> Value {
        json!({"topic": self.topic, "partition": self.partition, "leader": self.leader, "replicas": self.replicas,
               "in_sync": self.in_sync, "offline": self.offline, "lag": self.lag})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::describe_cluster::DescribeClusterBroker;

    fn cluster(controller_id: i32, brokers: &[(i32, bool)]) -> DescribeClusterResponse {
        let broker = |(broker_id, is_fenced): &(i32, bool)| DescribeClusterBroker {
            broker_id: *broker_id,
            host: "::1".into(),
            port: 9091 + broker_id,
            rack: None,
            is_fenced: *is_fenced,
        };
        let brokers = brokers.iter().map(broker).collect();
        DescribeClusterResponse { cluster_id: "c".into(), controller_id, brokers, ..Default::default() }
    }

    fn partition(partition: i32, leader: i32, in_sync: &[i32]) -> Partition {
        let (replicas, in_sync) = (vec![1, 2, 3], in_sync.to_vec());
        let offline = replicas.iter().copied().filter(|replica| !in_sync.contains(replica)).collect();
        Partition { topic: "t".to_owned(), partition, leader, replicas, in_sync, offline, lag: BTreeMap::new() }
    }

    #[test]
    fn a_cluster_that_lacks_nothing_is_healthy() {
        let all = vec![partition(1, 1, &[3, 2, 1]), partition(0, 2, &[1, 2, 3])];
        let health = Health::of(&cluster(1, &[(1, false), (2, false), (3, false)]), all, Moves::default());
        assert!(health.is_healthy(), "{health:?}");
        assert!(health.summary().ends_with("Health      healthy\n\n"));
        let rows = health.broker_rows();
        assert_eq!(rows[1], ["2", "[::1]:9093", "-", "1", "2", "up"].map(ToOwned::to_owned));
        let json = health.json(20);
        assert_eq!((&json["healthy"], &json["partitions"], &json["topics"]), (&json!(true), &json!(2), &json!(1)));
        assert_eq!(
            json["brokers"][2],
            json!({"broker": 3, "address": "[::1]:9094", "rack": null, "is_up": true, "is_drained": false,
                   "leaders": 0, "replicas": 2})
        );
    }

    #[test]
    fn a_broker_that_holds_replicas_and_is_not_listed_is_not_there() {
        let all = vec![partition(0, 1, &[1, 2]), partition(1, 3, &[1, 2]), partition(2, -1, &[1, 2])];
        let health = Health::of(&cluster(2, &[(1, false), (2, false)]), all, Moves::default());
        assert_eq!(
            health.problems(),
            ["2 partitions without a leader", "1 partition under-replicated", "1 broker is not there"]
        );
        assert_eq!(health.broker_rows()[2], ["3", "-", "-", "1", "3", "not there"].map(ToOwned::to_owned));
        let leaderless: Vec<i32> = health.leaderless.iter().map(|it| it.partition).collect();
        assert_eq!(leaderless, [1, 2], "a leader that is not there does not lead");
        assert_eq!(health.leaderless[1].row(), ["t", "2", "-", "1,2,3", "1,2", "3 away"].map(ToOwned::to_owned));
        let json = health.json(1);
        assert_eq!((&json["leaderless_partitions"], json["leaderless"].as_array().map(Vec::len)), (&json!(2), Some(1)));
        assert_eq!(json["under_replicated"][0]["offline"], json!([3]));
        assert_eq!(json["healthy"], json!(false));
    }

    #[test]
    fn a_cluster_without_a_controller_or_with_a_fenced_broker_is_not_healthy() {
        let nobody = Health::of(&cluster(-1, &[(1, false)]), Vec::new(), Moves::default());
        assert_eq!(nobody.problems(), ["nobody decides for the cluster (no controller)"]);
        assert_eq!(nobody.json(1)["controller"], Value::Null);
        let fenced = Health::of(&cluster(1, &[(1, false), (2, true)]), Vec::new(), Moves::default());
        assert_eq!(fenced.problems(), ["1 broker is not there"]);
    }

    #[test]
    fn a_replica_that_is_behind_counts_though_its_broker_is_there() {
        let mut behind = Partition { offline: Vec::new(), ..partition(0, 1, &[1, 3]) };
        assert_eq!(behind.row()[5], "2 behind");
        behind.lag.insert(2, 1523);
        assert_eq!((behind.row()[5].as_str(), &behind.json()["lag"]), ("2 lacks 1523", &json!({"2": 1523})));
        let health = Health::of(&cluster(1, &[(1, false), (2, false), (3, false)]), vec![behind], Moves::default());
        assert_eq!(health.problems(), ["1 partition under-replicated"]);
    }

    #[test]
    fn replicas_on_the_move_are_shown_and_do_not_lack() {
        let moving = Partition { replicas: vec![1, 2, 3, 4], offline: Vec::new(), ..partition(0, 1, &[1, 2, 3]) };
        let under_way = vec![Move { topic: "t".to_owned(), partition: 0, adding: vec![4], removing: vec![3] }];
        let brokers = cluster(1, &[(1, false), (2, false), (3, true), (4, false)]);
        let moves = Moves { under_way, drained: vec![3, 4] };
        let health = Health::of(&brokers, vec![moving], moves);
        assert_eq!(health.problems(), ["1 broker is not there"]);
        assert_eq!(health.broker_rows()[2][5], "not there, draining");
        assert_eq!(health.moving[0].row(), ["t", "0", "4", "3"].map(ToOwned::to_owned));
        let json = health.json(20);
        assert_eq!(json["moving"], json!([{"topic": "t", "partition": 0, "adding": [4], "removing": [3]}]));
        assert_eq!((&json["moving_partitions"], health.replicas_on(3)), (&json!(1), 1));
        let empty = Health::of(&brokers, Vec::new(), Moves { drained: vec![3], ..Moves::default() });
        assert_eq!(empty.broker_rows()[2][5], "not there, drained");
    }
}
