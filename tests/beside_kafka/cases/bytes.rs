//! Requests that our own codec would not write: tags that nobody knows, bytes too many, text that is none. And several at a time.

use ottla::protocol::messages::{ApiVersionsRequest, DescribeClusterRequest, MetadataRequest, ProduceRequest};

use super::kit::{append, batch, create, produce};
use crate::run::Run;

/// The cases.
pub fn cases(run: &mut Run) {
    create(run, "bytes", 1, &[]);
    tags(run);
    text(run);
    ends(run);
    together(run);
}

/// A frame: key, version, correlation id 7, a client id of these bytes, then what follows.
pub fn frame(api: i16, version: i16, client_id: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&api.to_be_bytes());
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&7i32.to_be_bytes());
    bytes.extend_from_slice(&i16::try_from(client_id.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(client_id);
    bytes.extend_from_slice(rest);
    let size = i32::try_from(bytes.len() - 4).unwrap();
    bytes[..4].copy_from_slice(&size.to_be_bytes());
    bytes
}

const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;
const DESCRIBE_CLUSTER: i16 = 60;

fn tags(run: &mut Run) {
    run.case("tags");
    let cluster = |run: &mut Run, step: &str, rest: &[u8]| {
        run.as_bytes::<DescribeClusterRequest>(step, 0, &frame(DESCRIBE_CLUSTER, 0, b"me", rest));
    };
    // The header's tags, a boolean, the body's tags.
    cluster(run, "none", b"\0\0\0");
    cluster(run, "unknown in the header", b"\x01\x63\x02xx\0\0");
    cluster(run, "unknown in the body", b"\0\0\x02\x05\x01x\x63\0");
    cluster(run, "not in ascending order", b"\0\0\x02\x63\0\x05\x01x");
    cluster(run, "the same twice", b"\0\0\x02\x05\x01x\x05\x01y");
    cluster(run, "longer than the frame", b"\0\0\x01\x05\x7fx");
    cluster(run, "more than there are", b"\0\0\x05\x05\x01x");
    cluster(run, "their number takes five bytes", b"\0\0\x80\x80\x80\x80\0");
    cluster(run, "their number takes six bytes", b"\0\0\x80\x80\x80\x80\x80\0");
    // One topic by name: id, name, the topic's tags, three booleans, the body's tags.
    let named = b"\0\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x06bytes\x01\x09\x01x\0\0\0";
    run.as_bytes::<MetadataRequest>("unknown in a nested structure", 12, &frame(METADATA, 12, b"me", named));
}

fn text(run: &mut Run) {
    run.case("text");
    // One name in a list of one.
    run.as_bytes::<MetadataRequest>(
        "a name that is not UTF-8",
        1,
        &frame(METADATA, 1, b"", b"\0\0\0\x01\0\x02\xff\xfe"),
    );
    run.as_bytes::<MetadataRequest>("a client id that is not UTF-8", 1, &frame(METADATA, 1, b"\xff", b"\0\0\0\0"));
    run.as_bytes::<MetadataRequest>("a client id of 300 bytes", 1, &frame(METADATA, 1, &[b'x'; 300], b"\0\0\0\0"));
    run.as_bytes::<MetadataRequest>("a name of negative length", 1, &frame(METADATA, 1, b"", b"\0\0\0\x01\xff\xf0"));
    run.as_bytes::<MetadataRequest>("a name that is null", 1, &frame(METADATA, 1, b"", b"\0\0\0\x01\xff\xff"));
    run.as_bytes::<MetadataRequest>("a list of negative length", 1, &frame(METADATA, 1, b"", b"\xff\xff\xff\xf0"));
    run.as_bytes::<ApiVersionsRequest>("names that are null", 3, &frame(API_VERSIONS, 3, b"", b"\0\0\0\0"));
}

fn ends(run: &mut Run) {
    run.case("bytes behind the request");
    run.as_bytes::<MetadataRequest>("of a version without tags", 1, &frame(METADATA, 1, b"", b"\0\0\0\0trailing"));
    run.as_bytes::<DescribeClusterRequest>(
        "of a version with tags",
        0,
        &frame(DESCRIBE_CLUSTER, 0, b"", b"\0\0\0more"),
    );
    run.case("a boolean");
    run.as_bytes::<DescribeClusterRequest>(
        "of another value than 0 and 1",
        0,
        &frame(DESCRIBE_CLUSTER, 0, b"", b"\0\x02\0"),
    );
}

fn together(run: &mut Run) {
    run.case("several requests at a time");
    let appended = |value: &str| produce(-1, &[("bytes", 0, Some(batch(1, &[value])))]);
    run.together(9, &[("the first", appended("a")), ("the second", appended("b")), ("the third", appended("c"))]);
    let refused: ProduceRequest = produce(-1, &[("bytes", 9, Some(batch(1, &["a"])))]);
    run.together(11, &[("taken", appended("d")), ("refused", refused), ("taken behind it", appended("e"))]);
    append(run, "bytes", 0, batch(1, &["f"]));
}
