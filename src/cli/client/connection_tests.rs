use std::future::Future;

use tokio::net::TcpListener;

use super::*;
use crate::protocol::frame::{decode_body, encode_response};
use crate::protocol::header::RequestHeader;
use crate::protocol::messages::api_versions::ApiVersion;
use crate::protocol::messages::{MetadataRequest, MetadataResponse};

const PATIENCE: Duration = Duration::from_secs(10);

/// The end of a connection that plays the broker.
struct Broker {
    stream: TcpStream,
}

impl Broker {
    async fn request(&mut self) -> (RequestHeader, Bytes) {
        // A request is framed as a response is.
        let frame = read_frame(&mut self.stream, None).await.unwrap().unwrap();
        RequestHeader::decode(frame).unwrap()
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Says that it speaks Metadata up to that version.
    async fn agree(&mut self, metadata: i16) {
        let (header, body) = self.request().await;
        assert_eq!((header.api, header.version), (ApiKey::ApiVersions, API_VERSIONS));
        decode_body::<ApiVersionsRequest>(body, header.version).unwrap();
        let key = |api: ApiKey, last| ApiVersion { api_key: api.key(), min_version: 0, max_version: last };
        let response =
            ApiVersionsResponse { api_keys: vec![key(ApiKey::Metadata, metadata)], ..ApiVersionsResponse::default() };
        let bytes = encode_response(header.version, header.correlation_id, &response).unwrap().concat();
        self.write(&bytes).await;
    }
}

async fn with_broker<C, B>(client: impl FnOnce(String) -> C, broker: impl FnOnce(Broker) -> B) -> C::Output
where
    C: Future,
    B: Future<Output = ()>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        broker(Broker { stream }).await;
    };
    tokio::join!(client(address), serve).0
}

fn metadata(id: i32, controller: i32) -> Vec<u8> {
    let response = MetadataResponse { controller_id: controller, ..MetadataResponse::default() };
    encode_response(2, id, &response).unwrap().concat()
}

#[tokio::test]
async fn requests_under_way_get_their_answers_in_order_however_they_are_cut() {
    let client = |address: String| async move {
        let mut connection = Connection::open(&address, PATIENCE).await.unwrap();
        assert_eq!(connection.version(ApiKey::Metadata).unwrap(), 2);
        for _ in 0..2 {
            connection.send(&MetadataRequest::default()).await.unwrap();
        }
        let mut got = Vec::new();
        for _ in 0..2 {
            got.push(connection.receive::<MetadataRequest>(PATIENCE).await.unwrap().controller_id);
        }
        assert!(connection.is_usable());
        got
    };
    let broker = |mut broker: Broker| async move {
        broker.agree(2).await;
        let (first, _) = broker.request().await;
        let (second, _) = broker.request().await;
        let answers = [metadata(first.correlation_id, 10), metadata(second.correlation_id, 11)].concat();
        for piece in answers.chunks(3) {
            broker.write(piece).await;
        }
    };
    assert_eq!(with_broker(client, broker).await, [10, 11]);
}

#[tokio::test]
async fn a_broker_that_is_older_is_asked_in_its_own_versions() {
    let client = |address: String| async move { Connection::open(&address, PATIENCE).await.unwrap() };
    let broker = |mut broker: Broker| async move {
        let (header, _) = broker.request().await;
        let key = ApiVersion { api_key: ApiKey::Metadata.key(), min_version: 0, max_version: 1 };
        let response = ApiVersionsResponse {
            error_code: ErrorCode::UNSUPPORTED_VERSION,
            api_keys: vec![key],
            ..ApiVersionsResponse::default()
        };
        let bytes = encode_response(0, header.correlation_id, &response).unwrap().concat();
        broker.write(&bytes).await;
    };
    let connection = with_broker(client, broker).await;
    assert_eq!(connection.version(ApiKey::Metadata).unwrap(), 1);
    let error = connection.version(ApiKey::Fetch).unwrap_err();
    assert!(error.to_string().ends_with("speaks no version of Fetch, this client speaks 4-18"), "{error}");
}

#[test]
fn a_version_that_has_no_names_for_topics_is_not_asked_in() {
    let of = |api: ApiKey, last| Versions(vec![(api.key(), 0, last)]).common(api);
    assert_eq!((of(ApiKey::Produce, 13), of(ApiKey::Produce, 11)), (Some(12), Some(11)));
    assert_eq!((of(ApiKey::OffsetCommit, 10), of(ApiKey::OffsetFetch, 10)), (Some(9), Some(9)));
    assert_eq!(of(ApiKey::Fetch, 99), Some(18));
}

#[tokio::test]
async fn an_answer_to_another_request_ends_the_connection() {
    let client = |address: String| async move {
        let mut connection = Connection::open(&address, PATIENCE).await.unwrap();
        let error = connection.call(&MetadataRequest::default(), PATIENCE).await.unwrap_err();
        assert!(!connection.is_usable());
        error
    };
    let broker = |mut broker: Broker| async move {
        broker.agree(2).await;
        broker.request().await;
        broker.write(&metadata(77, 0)).await;
    };
    let error = with_broker(client, broker).await;
    assert!(matches!(error, ClientError::OutOfOrder { expected: 1, got: 77, .. }), "{error}");
}

#[tokio::test]
async fn a_closed_connection_names_the_broker_and_what_was_asked() {
    let client = |address: String| async move {
        let mut connection = Connection::open(&address, PATIENCE).await.unwrap();
        connection.call(&MetadataRequest::default(), PATIENCE).await.unwrap_err()
    };
    let broker = |mut broker: Broker| async move {
        broker.agree(2).await;
        broker.request().await;
    };
    let error = with_broker(client, broker).await;
    assert!(error.may_pass() && error.is_unreachable());
    assert!(error.to_string().ends_with("closed the connection before it answered Metadata"), "{error}");
}

#[tokio::test]
async fn another_protocol_is_recognised_by_its_frame() {
    let client = |address: String| async move { Connection::open(&address, PATIENCE).await.unwrap_err() };
    let broker = |mut broker: Broker| async move {
        broker.request().await;
        broker.write(b"HTTP/1.1 400 Bad Request\r\n").await;
    };
    let error = with_broker(client, broker).await;
    assert!(error.to_string().contains("does not seem to speak the Kafka protocol"), "{error}");
}

#[test]
fn frames_are_taken_whole() {
    let mut buffer = BytesMut::from(&b"\0\0\0\x04abcd\0\0\0\x05"[..]);
    assert_eq!(take_frame(&mut buffer), Ok(Ok(Bytes::from_static(b"abcd"))));
    assert_eq!(take_frame(&mut buffer), Ok(Err(5)));
    assert_eq!(take_frame(&mut BytesMut::from(&b"\xff\xff\xff\xff"[..])), Err(frame::FrameError::Size(-1)));
}
