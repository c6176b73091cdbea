//! DescribeQuorum, as far as its answer does not depend on how many controllers there are.

use ottla::protocol::messages::DescribeQuorumRequest;
use ottla::protocol::messages::describe_quorum::{DescribeQuorumRequestPartition, DescribeQuorumRequestTopic};

use crate::run::Run;

/// The cases.
pub fn cases(run: &mut Run) {
    run.case("DescribeQuorum");
    let of = |topics: &[(&str, &[i32])]| {
        let partition = |index: &i32| DescribeQuorumRequestPartition { partition_index: *index };
        let topic = |(name, partitions): &(&str, &[i32])| DescribeQuorumRequestTopic {
            topic_name: (*name).into(),
            partitions: partitions.iter().map(partition).collect(),
        };
        DescribeQuorumRequest { topics: topics.iter().map(topic).collect() }
    };
    run.step("nothing", |_| of(&[]));
    run.step("no such topic", |_| of(&[("quorum-none", &[0])]));
    run.step("no such partition", |_| of(&[("__cluster_metadata", &[1])]));
    run.step("more than there is", |_| of(&[("__cluster_metadata", &[0, 1])]));
    run.step("another topic beside it", |_| of(&[("__cluster_metadata", &[0]), ("quorum-none", &[0])]));
}
