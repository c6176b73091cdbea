//! The classic group protocol: members one after the other, and together.

use bytes::Bytes;
use ottla::protocol::error_code::ErrorCode;
use ottla::protocol::messages::join_group::JoinGroupRequestProtocol;
use ottla::protocol::messages::leave_group::MemberIdentity;
use ottla::protocol::messages::sync_group::SyncGroupRequestAssignment;
use ottla::protocol::messages::*;
use ottla::protocol::value::Text;

use super::kit::create;
use crate::run::Run;

const SESSION_MS: i32 = 30_000;
const REBALANCE_MS: i32 = 60_000;
/// The version in which most of what is not about versions is asked.
pub(super) const JOIN: i16 = 9;
/// The last version in which a member is taken in without having to come again.
const JOIN_AT_ONCE: i16 = 3;
pub(super) const SYNC: i16 = 5;
pub(super) const DESCRIBE: i16 = 6;

/// The cases.
pub fn cases(run: &mut Run) {
    alone(run);
    join_errors(run);
    two_members(run);
    static_members(run);
    members_errors(run);
    groups_errors(run);
}

pub(super) fn join(group: &str, member: &Text) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        member_id: member.clone(),
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range", &["grouped"])],
        ..Default::default()
    }
}

/// What a consumer says of itself: a version, its topics, and nothing more.
fn protocol(name: &str, topics: &[&str]) -> JoinGroupRequestProtocol {
    let mut metadata = vec![0, 0];
    metadata.extend(u32::try_from(topics.len()).unwrap().to_be_bytes());
    for topic in topics {
        metadata.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
        metadata.extend(topic.as_bytes());
    }
    metadata.extend([0xff; 4]);
    JoinGroupRequestProtocol { name: name.into(), metadata: metadata.into() }
}

pub(super) fn sync(group: &str, joined: &JoinGroupResponse, shares: &[(&Text, &'static str)]) -> SyncGroupRequest {
    let share = |(member, share): &(&Text, &'static str)| SyncGroupRequestAssignment {
        member_id: (*member).clone(),
        assignment: Bytes::from_static(share.as_bytes()),
    };
    SyncGroupRequest {
        group_id: group.into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: shares.iter().map(share).collect(),
        ..Default::default()
    }
}

fn heartbeat(group: &str, member: &Text, generation_id: i32) -> HeartbeatRequest {
    HeartbeatRequest { group_id: group.into(), generation_id, member_id: member.clone(), ..Default::default() }
}

fn leave(version: i16, group: &str, member: &Text) -> LeaveGroupRequest {
    if version < 3 {
        return LeaveGroupRequest { group_id: group.into(), member_id: member.clone(), ..Default::default() };
    }
    let members = vec![MemberIdentity { member_id: member.clone(), ..Default::default() }];
    LeaveGroupRequest { group_id: group.into(), members, ..Default::default() }
}

pub(super) fn describe(groups: &[&str]) -> DescribeGroupsRequest {
    DescribeGroupsRequest { groups: groups.iter().map(|group| (*group).into()).collect(), ..Default::default() }
}

/// Joins in whatever way the version has, and gives the answer of a member.
pub(super) fn join_in(run: &mut Run, step: &str, version: i16, group: &str) -> JoinGroupResponse {
    let first = run.one(step, version, &join(group, &Text::default())).expect("an answer");
    match first.error_code {
        ErrorCode::MEMBER_ID_REQUIRED => {
            let request = join(group, &first.member_id);
            run.one(&format!("{step}, with the id"), version, &request).expect("an answer")
        }
        _ => first,
    }
}

/// Asks in the version of a member's join, or in the last one there is.
fn as_in<R: ottla::protocol::wire::Request + 'static>(run: &mut Run, version: i16, step: &str, last: i16, request: &R)
where
    R::Response: 'static,
{
    let name = if version > last { format!("{step}, joined in version {version}") } else { step.to_owned() };
    run.one(&name, version.min(last), request);
}

/// One member, from its first request to its last, in every version.
fn alone(run: &mut Run) {
    run.case("a member alone");
    create(run, "grouped", 3, &[]);
    run.step("ListGroups, before there are any", |_| ListGroupsRequest::default());
    for version in 0..=9 {
        let group = format!("alone-v{version}");
        let joined = join_in(run, "joins", version, &group);
        let (member, generation) = (&joined.member_id, joined.generation_id);
        as_in(run, version, "is described before it has its share", DESCRIBE, &describe(&[&group]));
        as_in(run, version, "asks for its share", 5, &sync(&group, &joined, &[(member, "all")]));
        as_in(run, version, "asks again", 5, &sync(&group, &joined, &[]));
        as_in(run, version, "is alive", 4, &heartbeat(&group, member, generation));
        as_in(run, version, "is described", DESCRIBE, &describe(&[&group]));
        run.one("joins again", version, &join(&group, member));
        as_in(run, version, "leaves", 5, &leave(version.min(5), &group, member));
        as_in(run, version, "leaves again", 5, &leave(version.min(5), &group, member));
        as_in(run, version, "the group it left", DESCRIBE, &describe(&[&group]));
    }
    for version in 0..=2 {
        let group = format!("alone-v{version}");
        run.one("DeleteGroups", version, &DeleteGroupsRequest { groups_names: vec![group.as_str().into()] });
        run.one(&format!("the group is gone, deleted in version {version}"), DESCRIBE, &describe(&[&group]));
    }
}

trait WithStates {
    fn clone_with_states(&self, states: &[&str]) -> Self;
}

impl WithStates for ListGroupsRequest {
    fn clone_with_states(&self, states: &[&str]) -> Self {
        Self { states_filter: states.iter().map(|state| (*state).into()).collect(), ..self.clone() }
    }
}

fn join_errors(run: &mut Run) {
    run.case("JoinGroup, errors");
    run.step("an empty group id", |_| join("", &Text::default()));
    run.step("a session that is too short", |_| JoinGroupRequest {
        session_timeout_ms: 5_999,
        ..join("e", &Text::default())
    });
    run.step("a session that is too long", |_| JoinGroupRequest {
        session_timeout_ms: 1_800_001,
        ..join("e", &Text::default())
    });
    run.step("a member that nobody knows", |_| join("e", &"nobody".into()));
    run.step("no protocols", |_| JoinGroupRequest { protocols: Vec::new(), ..join("e", &Text::default()) });
    run.step("no protocol type", |_| JoinGroupRequest {
        protocol_type: Text::default(),
        ..join("e", &Text::default())
    });
    let joined = join_in(run, "one joins", JOIN_AT_ONCE, "errors");
    run.one("it asks for its share", SYNC, &sync("errors", &joined, &[(&joined.member_id, "all")]));
    run.step_in("another protocol", 0..=3, |_| JoinGroupRequest {
        protocols: vec![protocol("sticky", &["grouped"])],
        ..join("errors", &Text::default())
    });
    run.step_in("another protocol type", 0..=3, |_| JoinGroupRequest {
        protocol_type: "connect".into(),
        ..join("errors", &Text::default())
    });
    run.step("a member that nobody knows, of a group that is there", |_| join("errors", &"nobody".into()));
    run.one(
        "an instance that nobody knows",
        JOIN,
        &JoinGroupRequest { group_instance_id: Some("i".into()), ..join("errors", &joined.member_id) },
    );
}

/// A second member joins, and leaves again.
fn two_members(run: &mut Run) {
    run.case("two members");
    let group = "two";
    let first = join_in(run, "the first joins", JOIN, group);
    run.one("the first asks for its share", SYNC, &sync(group, &first, &[(&first.member_id, "all")]));
    let second = run.one("the second is given an id", JOIN, &join(group, &Text::default())).unwrap();
    run.one("the first is alive while somebody may come", 4, &heartbeat(group, &first.member_id, first.generation_id));
    run.parked("the second joins", JOIN, &join(group, &second.member_id), |run| {
        run.one("the first hears of it", 4, &heartbeat(group, &first.member_id, first.generation_id));
        run.one("the first cannot ask for its share", SYNC, &sync(group, &first, &[]));
        run.one("the group meanwhile", DESCRIBE, &describe(&[group]));
        let again = run.one("the first joins again", JOIN, &join(group, &first.member_id)).unwrap();
        assert_eq!(again.error_code, ErrorCode::NONE);
    });
    let generation = first.generation_id + 1;
    let joined = |member: &Text| JoinGroupResponse {
        generation_id: generation,
        member_id: member.clone(),
        ..Default::default()
    };
    run.one("the first has joined and joins again", JOIN, &join(group, &second.member_id));
    run.one("the group before the shares", DESCRIBE, &describe(&[group]));
    run.parked("the second asks for its share", SYNC, &sync(group, &joined(&second.member_id), &[]), |run| {
        let shares = [(&first.member_id, "half"), (&second.member_id, "the other")];
        run.one("the leader hands out", SYNC, &sync(group, &joined(&first.member_id), &shares));
    });
    run.one("the group with both", DESCRIBE, &describe(&[group]));
    run.one("the generation before", 4, &heartbeat(group, &first.member_id, first.generation_id));
    run.one("a generation to come", 4, &heartbeat(group, &first.member_id, generation + 1));
    run.one("the second joins again as it was", JOIN, &join(group, &second.member_id));
    run.one("the second leaves", 5, &leave(5, group, &second.member_id));
    run.one("the first hears of that", 4, &heartbeat(group, &first.member_id, generation));
    let alone = run.one("the first joins the next", JOIN, &join(group, &first.member_id)).unwrap();
    run.one("the first asks for all", SYNC, &sync(group, &alone, &[(&first.member_id, "all")]));
    run.one("the first leaves", 5, &leave(5, group, &first.member_id));
    run.one("nobody is left", DESCRIBE, &describe(&[group]));
}

fn of_instance(request: JoinGroupRequest, instance: &str) -> JoinGroupRequest {
    JoinGroupRequest { group_instance_id: Some(instance.into()), ..request }
}

fn static_members(run: &mut Run) {
    run.case("static members");
    for version in 5..=9 {
        let group = format!("static-v{version}");
        let group = group.as_str();
        let request = of_instance(join(group, &Text::default()), "i");
        let first = run.one("joins", version, &request).unwrap();
        as_in(run, version, "asks for its share", 4, &sync_before_5(group, &first, &[(&first.member_id, "all")]));
        let back = run.one("comes back", version, &request).unwrap();
        as_in(run, version, "the group it came back to", DESCRIBE, &describe(&[group]));
        let with_instance = |member: &Text| HeartbeatRequest {
            group_instance_id: Some("i".into()),
            ..heartbeat(group, member, first.generation_id)
        };
        as_in(run, version, "its old id", 4, &with_instance(&first.member_id));
        as_in(run, version, "its new id", 4, &with_instance(&back.member_id));
        run.one("its old id, joining", version, &of_instance(join(group, &first.member_id), "i"));
        let mut again = sync_before_5(group, &back, &[]);
        again.group_instance_id = Some("i".into());
        as_in(run, version, "asks for its share again", 4, &again);
        let members = vec![MemberIdentity { group_instance_id: Some("i".into()), ..Default::default() }];
        let removal = LeaveGroupRequest { group_id: group.into(), members, ..Default::default() };
        as_in(run, version, "is removed by an operator", 4, &removal);
        as_in(run, version, "is removed once more", 4, &removal);
        as_in(run, version, "the group without it", DESCRIBE, &describe(&[group]));
    }
}

/// For versions of SyncGroup that do not say which protocol the member takes for chosen.
fn sync_before_5(group: &str, joined: &JoinGroupResponse, shares: &[(&Text, &'static str)]) -> SyncGroupRequest {
    SyncGroupRequest { protocol_type: None, protocol_name: None, ..sync(group, joined, shares) }
}

fn members_errors(run: &mut Run) {
    run.case("requests of members, errors");
    let nobody: Text = "nobody".into();
    let of_nobody = JoinGroupResponse { generation_id: 1, member_id: nobody.clone(), ..Default::default() };
    for group in ["errors", "no-such-group", ""] {
        let name = |step: &str| format!("{step}, group {group:?}");
        run.step(&name("SyncGroup of nobody"), |version| {
            let mut request = sync(group, &of_nobody, &[]);
            if version < 5 {
                (request.protocol_type, request.protocol_name) = (None, None);
            }
            request
        });
        run.step(&name("Heartbeat of nobody"), |_| heartbeat(group, &nobody, 1));
        run.step(&name("LeaveGroup of nobody"), |version| leave(version, group, &nobody));
        run.step(&name("DescribeGroups"), |_| describe(&[group]));
    }
    let joined = join_in(run, "one joins", JOIN_AT_ONCE, "wrong");
    run.one(
        "another protocol name",
        SYNC,
        &SyncGroupRequest { protocol_name: Some("sticky".into()), ..sync("wrong", &joined, &[]) },
    );
    run.one(
        "another protocol type",
        SYNC,
        &SyncGroupRequest { protocol_type: Some("connect".into()), ..sync("wrong", &joined, &[]) },
    );
    let mut late = sync("wrong", &joined, &[]);
    late.generation_id += 1;
    run.one("another generation", SYNC, &late);
    run.one(
        "an instance that nobody knows",
        SYNC,
        &SyncGroupRequest { group_instance_id: Some("i".into()), ..sync("wrong", &joined, &[]) },
    );
    run.one("shares for nobody", SYNC, &sync("wrong", &joined, &[(&nobody, "all")]));
    run.one(
        "an instance that nobody knows, alive",
        4,
        &HeartbeatRequest {
            group_instance_id: Some("i".into()),
            ..heartbeat("wrong", &joined.member_id, joined.generation_id)
        },
    );
    let several = |ids: &[&Text]| LeaveGroupRequest {
        group_id: "wrong".into(),
        members: ids.iter().map(|id| MemberIdentity { member_id: (*id).clone(), ..Default::default() }).collect(),
        ..Default::default()
    };
    run.step_in("one of two is nobody", 3..=5, |_| several(&[&nobody, &nobody]));
    run.step_in("nobody at all", 3..=5, |_| several(&[]));
    run.one("one of two leaves", 5, &several(&[&joined.member_id, &nobody]));
}

fn groups_errors(run: &mut Run) {
    run.case("groups, errors");
    let delete = |groups: &[&str]| DeleteGroupsRequest { groups_names: groups.iter().map(|it| (*it).into()).collect() };
    run.step("DeleteGroups, none", |_| delete(&[]));
    run.step("DeleteGroups, not there", |_| delete(&["no-such-group"]));
    run.step("DeleteGroups, empty", |_| delete(&[""]));
    run.step("DeleteGroups, with members", |_| delete(&["errors"]));
    run.step("DescribeGroups, none", |_| describe(&[]));
    run.step_from("DescribeGroups, with what may be done", 3, |_| DescribeGroupsRequest {
        include_authorized_operations: true,
        ..describe(&["no-such-group"])
    });
    run.step_in("ListGroups, by state", 4..=5, |_| ListGroupsRequest::default().clone_with_states(&["stable"]));
    run.step_in("ListGroups, by type", [5], |_| ListGroupsRequest {
        types_filter: vec!["CLASSIC".into()],
        ..ListGroupsRequest::default().clone_with_states(&["Stable"])
    });
    run.step_in("ListGroups, of another type", [5], |_| ListGroupsRequest {
        types_filter: vec!["consumer".into()],
        ..Default::default()
    });
}
