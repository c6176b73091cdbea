//! `ottla group members`.

use bytes::Bytes;
use serde_json::{Value, json};

use super::described;
use crate::cli::connect::{Connect, Failure, Format, print_json, print_table};
use crate::protocol::consumer_protocol::{Assignment, TopicPartitions};
use crate::protocol::messages::describe_groups::{DescribedGroup, DescribedGroupMember};

/// Show who is in a group, and what each member reads.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  ottla group members billing\n  ottla group members billing --format json")]
pub struct Args {
    /// The group.
    group: String,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    connect: Connect,
}

/// The columns of [`member_rows`].
pub(super) const COLUMNS: [&str; 5] = ["MEMBER", "INSTANCE", "CLIENT", "HOST", "PARTITIONS"];

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.connect.client().await?;
    let group = described(&mut client, &args.group).await?;
    if args.format == Format::Json {
        let members: Vec<_> = group.members.iter().map(json).collect();
        return print_json(&json!({"group": args.group, "members": members}));
    }
    print_table(COLUMNS, &member_rows(&group))
}

/// One row a member.
pub(super) fn member_rows(group: &DescribedGroup) -> Vec<[String; 5]> {
    let row = |member: &DescribedGroupMember| {
        let instance = member.group_instance_id.as_deref().unwrap_or("-").to_owned();
        let share = match share(member.member_assignment.clone()) {
            Some(topics) if topics.is_empty() => "-".to_owned(),
            Some(topics) => topics.iter().map(shown).collect::<Vec<_>>().join(" "),
            None => format!("({} bytes)", member.member_assignment.len()),
        };
        [member.member_id.to_string(), instance, member.client_id.to_string(), member.client_host.to_string(), share]
    };
    group.members.iter().map(row).collect()
}

fn shown(topic: &TopicPartitions) -> String {
    let partitions: Vec<_> = topic.partitions.iter().map(ToString::to_string).collect();
    format!("{}[{}]", topic.topic, partitions.join(","))
}

/// A member for programs.
pub(super) fn json(member: &DescribedGroupMember) -> Value {
    let topic = |topic: &TopicPartitions| json!({"topic": *topic.topic, "partitions": topic.partitions});
    let share = share(member.member_assignment.clone());
    json!({"member": *member.member_id, "instance": member.group_instance_id.as_deref(), "client": *member.client_id,
           "host": *member.client_host, "assignment": share.map(|topics| topics.iter().map(topic).collect::<Vec<_>>())})
}

/// What a consumer's share names. `None` for what is no consumer's.
fn share(assignment: Bytes) -> Option<Vec<TopicPartitions>> {
    Assignment::decode(assignment).ok().map(|share| share.topics)
}
