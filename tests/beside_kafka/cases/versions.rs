//! ApiVersions, and what is no request.

use ottla::protocol::messages::ApiVersionsRequest;

use super::bytes::frame;
use crate::run::Run;

/// The cases.
pub fn cases(run: &mut Run) {
    api_versions(run);
    closed(run);
}

fn named(name: &str, version: &str) -> ApiVersionsRequest {
    ApiVersionsRequest { client_software_name: name.into(), client_software_version: version.into() }
}

fn api_versions(run: &mut Run) {
    run.case("ApiVersions");
    run.step("a client that says its name", |_| named("beside-kafka", "1.0"));
    for (what, name, version) in [
        ("no name", "", "1"),
        ("no version", "a", ""),
        ("a name with a space", "a b", "1"),
        ("a name that begins with a dash", "-a", "1"),
        ("a version that ends with a dot", "a", "1."),
        ("a name with an underscore", "a_b", "1"),
        ("a name that is not ASCII", "ä", "1"),
    ] {
        run.step_in(what, 3..=4, |_| named(name, version));
    }
    // Key 18, correlation id 5, no client id, no tags, and a body that nobody understands.
    run.raw("a version from the future", 18, 99, b"\0\0\0\x0d\0\x12\0\x63\0\0\0\x05\xff\xff\0\xff\xff");
    run.raw("a version from the future, its header cut short", 18, 99, b"\0\0\0\x08\0\x12\0\x63\0\0\0\x05");
    run.raw("a negative version", 18, -1, b"\0\0\0\x0c\0\x12\xff\xff\0\0\0\x05\xff\xff\xff\xff");
}

fn closed(run: &mut Run) {
    run.case("no request");
    for version in 0..=2 {
        run.raw("Produce in a version that is only advertised", 0, version, &frame(0, version, b"", &[0; 12]));
    }
    for (what, key, version) in [
        ("Fetch below its first version", 1, 3),
        ("ListOffsets below its first version", 2, 0),
        ("Metadata above its last version", 3, 99),
        ("an API between brokers", 4, 0),
        ("an API of controllers", 52, 0),
        ("CreateTopics below its first version", 19, 1),
        ("an API that there is not", 999, 0),
        ("a negative API", -1, 0),
    ] {
        run.raw(what, key, version, &frame(key, version, b"", &[]));
    }
    run.raw("an empty frame", 3, 0, b"\0\0\0\0");
    run.raw("a frame of negative size", 3, 0, b"\xff\xff\xff\xff\0\x03");
    run.raw("a frame that is too large", 3, 0, b"\x7f\xff\xff\xff\0\x03\0\0");
    run.raw("a header cut short", 3, 0, b"\0\0\0\x06\0\x03\0\0\0\0");
    run.raw("a body cut short", 3, 1, &frame(3, 1, b"", b"\0\0\0\x01"));
    run.raw("a list longer than its frame", 3, 1, &frame(3, 1, b"", b"\x7f\xff\xff\xff"));
    run.raw(
        "null where none may be",
        19,
        2,
        &frame(19, 2, b"", b"\0\0\0\x01\xff\xff\0\0\0\x01\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    );
}
