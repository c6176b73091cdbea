//! The first write after a rest: beside the client's own round trip two between brokers, of which the first shows that the leader still leads, and one sync.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ottla::protocol::compression::Compression;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::ProduceRequest;
use ottla::protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use ottla::protocol::record::{BatchBuilder, NewRecord};
use tokio::time::Instant;

use super::clients::{Stage, pause};
use super::evidence::Evidence;
use super::room::Room;
use super::story::{Act, Scene};
use crate::history::Shared;

const ONE_WAY: Duration = Duration::from_millis(30);
const SYNC: Duration = Duration::from_millis(20);
/// The simulation's own steps, of a millisecond each, on the way. Less than a sync, and than another way.
const STEPS: Duration = Duration::from_millis(14);
const RESTS_MS: [u64; 10] = [0, 500, 1_000, 2_000, 3_000, 5_000, 10_000, 15_000, 20_000, 40_000];
const VERSION: i16 = 8;

/// After how long a rest in milliseconds a write took how long.
type Took = Arc<Mutex<Vec<(u64, Duration)>>>;

/// Writes one record and waits until it is acknowledged: how long that took.
async fn write(stage: &Stage, led: &mut super::clients::Led) -> Duration {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(&NewRecord { timestamp: 1_700_000_000_000, key: None, value: Some(b"first"), headers: &[] });
    let data = PartitionProduceData { index: 0, records: Some(builder.build().into()) };
    let topic = TopicProduceData { name: stage.topic.into(), partition_data: vec![data], ..Default::default() };
    let request = ProduceRequest { acks: -1, timeout_ms: 5_000, topic_data: vec![topic], ..Default::default() };
    let began = Instant::now();
    let response = led.client.call(VERSION, &request).await.expect("the leader answers");
    let took = began.elapsed();
    assert_eq!(response.responses[0].partition_responses[0].error_code, ErrorCode::NONE);
    took
}

async fn drive(stage: Stage, seed: u64, took: Took) {
    let mut turn = seed ^ 0x1d1e;
    stage.create_topic(&mut turn).await;
    let mut led = stage.leader(&mut turn, 0).await;
    stage.room.begin();
    while stage.room.scenes_over() == 0 {
        pause().await;
    }
    // It rested until now.
    write(&stage, &mut led).await;
    // Each rest follows another one, in an order that the seed draws.
    let mut rests = RESTS_MS;
    rests.rotate_left(usize::try_from(crate::draw(&mut turn, RESTS_MS.len() as u64)).expect("few"));
    for rest_ms in rests {
        tokio::time::sleep(Duration::from_millis(rest_ms)).await;
        let written = write(&stage, &mut led).await;
        took.lock().unwrap_or_else(PoisonError::into_inner).push((rest_ms, written));
    }
}

fn play(seed: u64) -> Vec<(u64, Duration)> {
    super::listen();
    let room = Room::new(seed, |_| {}, None);
    let stage = Stage {
        history: Shared::default(),
        evidence: Evidence::default(),
        room: room.clone(),
        topic: super::clients::TOPIC,
        partitions: 1,
        patience: Duration::from_secs(5),
        configs: &[],
        may_lose: false,
    };
    let sync_ms = u64::try_from(SYNC.as_millis()).expect("short");
    let slow = (0..super::BROKERS).map(|broker| (Duration::ZERO, Act::SlowDisk(broker, sync_ms)));
    let far = (Duration::ZERO, Act::Far(u64::try_from(ONE_WAY.as_millis()).expect("short")));
    let acts = slow.chain([far]).collect();
    let story = [Scene::new(acts, Duration::from_secs(2), Duration::ZERO).goes_on()];
    let took = Arc::default();
    let rests = Duration::from_millis(RESTS_MS.iter().sum());
    let driven = drive(stage, seed, Arc::clone(&took));
    let (ended, struck) = room.simulate(seed, &story, rests + Duration::from_secs(60), driven);
    assert!(!ended.stuck && struck.missed.is_empty(), "seed {seed}: {:?}", struck.missed);
    std::mem::take(&mut *took.lock().unwrap_or_else(PoisonError::into_inner))
}

#[test]
fn the_first_write_after_a_rest_takes_two_round_trips_between_brokers_and_one_sync() {
    for seed in crate::seeds(2) {
        let took = crate::sealed::run(seed, || play(seed));
        println!("seed {seed}: {took:?}");
        assert_eq!(took.len(), RESTS_MS.len(), "seed {seed}: not all was written");
        for (rest_ms, took) in took {
            // While a majority has answered lately a write needs no proof; after a second without a write it does.
            let round_trips = if rest_ms < 1_000 { 2 } else { 3 };
            let expected = 2 * ONE_WAY * round_trips + SYNC;
            assert!(took <= expected + STEPS, "seed {seed}: {took:?} after {rest_ms} ms of rest");
            assert!(took >= expected, "seed {seed}: {took:?}: the ways are not as long as they should be");
        }
    }
}
