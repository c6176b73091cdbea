//! `ottla group members`.

use serde_json::{Value, json};

use super::described::{Kind, Member, Share, described};
use crate::cli::connect::{Connect, Failure, Format, print_json, print_table};

/// Show who is in a group, what each member reads, and what it is to read when the group has settled.
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

/// The columns of the table, and one more where partitions are on their way from one member to another.
const COLUMNS: [&str; 6] = ["MEMBER", "INSTANCE", "CLIENT", "HOST", "EPOCH", "PARTITIONS"];
const MOVING_COLUMNS: [&str; 7] = ["MEMBER", "INSTANCE", "CLIENT", "HOST", "EPOCH", "PARTITIONS", "TARGET"];

pub(super) async fn run(args: &Args) -> Result<(), Failure> {
    let mut client = args.connect.client().await?;
    let group = described(&mut client, &args.group).await?;
    if args.format == Format::Json {
        let members: Vec<_> = group.members.iter().map(json).collect();
        return print_json(&json!({"group": args.group, "type": group.kind.name(), "members": members}));
    }
    print(&group.members)
}

/// Prints one row a member.
pub(super) fn print(members: &[Member]) -> Result<(), Failure> {
    if members.iter().all(|member| member.moving_to().is_none()) {
        return print_table(COLUMNS, &members.iter().map(row).collect::<Vec<_>>());
    }
    let moving = |member: &Member| {
        let [id, instance, client, host, epoch, partitions] = row(member);
        [id, instance, client, host, epoch, partitions, shown(&member.target)]
    };
    print_table(MOVING_COLUMNS, &members.iter().map(moving).collect::<Vec<_>>())
}

fn row(member: &Member) -> [String; 6] {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        member.id.clone(),
        or_none(member.instance.clone()),
        member.client.clone(),
        member.host.clone(),
        or_none(member.epoch.map(|epoch| epoch.to_string())),
        shown(&member.share),
    ]
}

fn shown(share: &Share) -> String {
    let topic = |(name, partitions): &(String, Vec<i32>)| {
        let partitions: Vec<_> = partitions.iter().map(ToString::to_string).collect();
        format!("{name}[{}]", partitions.join(","))
    };
    match share {
        Share::Partitions(topics) if topics.is_empty() => "-".to_owned(),
        Share::Partitions(topics) => topics.iter().map(topic).collect::<Vec<_>>().join(" "),
        Share::Other(bytes) => format!("({bytes} bytes)"),
    }
}

/// A member for programs.
pub(super) fn json(member: &Member) -> Value {
    json!({"member": member.id, "instance": member.instance, "client": member.client, "host": member.host,
           "type": member.kind.map(Kind::name), "epoch": member.epoch,
           "assignment": share_json(&member.share), "target_assignment": share_json(&member.target)})
}

/// The topics with their partitions; null for what is no consumer's.
fn share_json(share: &Share) -> Value {
    let topic = |(topic, partitions): &(String, Vec<i32>)| json!({"topic": topic, "partitions": partitions});
    match share {
        Share::Partitions(topics) => topics.iter().map(topic).collect(),
        Share::Other(_) => Value::Null,
    }
}
