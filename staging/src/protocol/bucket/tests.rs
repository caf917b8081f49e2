//! The three clients against answers that real servers give, and the mapping of what comes.

use std::sync::Arc;
use std::time::Duration;

use keelboat_engine::FailureClass;
use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

const S3: &[(&str, &str)] =
    &[("AWS_ACCESS_KEY_ID", "AKIDTEST"), ("AWS_SECRET_ACCESS_KEY", "not-to-be-shown")];

/// A server that gives these answers, each to one connection. Its address, and what it was asked.
async fn serve(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut client, _) = listener.accept().await.expect("a client");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(client.read_u8().await.expect("a request"));
            }
            asked.push(String::from_utf8(request).expect("text").to_ascii_lowercase());
            client.write_all(answer.as_bytes()).await.expect("answered");
            client.shutdown().await.expect("closed");
        }
        asked
    });
    (address, asked)
}

fn answer(status: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers.iter().flat_map(|header| [header, "\r\n"]).collect();
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

fn protocol(variables: &[(&str, &str)]) -> BucketProtocol {
    let variables = variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    BucketProtocol::with_variables(HttpConfig::default(), variables)
}

fn s3_at(endpoint: &str) -> BucketProtocol {
    let server = [("AWS_ENDPOINT_URL", endpoint), ("AWS_ALLOW_HTTP", "true")];
    protocol(&[S3, &server].concat())
}

fn request(address: &str, offset: u64, condition: Condition) -> OpenRequest {
    OpenRequest {
        address: address.into(),
        offset,
        end: None,
        condition,
        turn: crate::gate::Turn::default(),
    }
}

fn known(etag: &str) -> Validators {
    Validators { etag: Some(etag.into()), ..Validators::default() }
}

/// The metadata, the offset and the bytes of an object that is expected to come.
async fn read(opened: Result<Opened, TransferError>) -> (Metadata, u64, Vec<u8>) {
    let Ok(Opened::Body { metadata, offset, mut stream }) = opened else {
        unreachable!("an object was expected to come: {opened:?}")
    };
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await.expect("a piece") {
        bytes.extend_from_slice(&piece);
    }
    (metadata, offset, bytes)
}

async fn refusal(answer: String, offset: u64) -> TransferError {
    let (endpoint, asked) = serve(vec![answer]).await;
    let opened = s3_at(&endpoint).open(&request("s3://b/k", offset, Condition::Always)).await;
    asked.await.expect("asked");
    opened.expect_err("it is refused")
}

#[tokio::test]
async fn refusals_have_classes_and_hints() {
    let denied = "<Error><Code>AccessDenied</Code><Key>not-to-be-shown</Key></Error>";
    let error = refusal(answer("403 Forbidden", &[], denied), 0).await;
    assert_eq!(error.class(), FailureClass::Permanent);
    assert_eq!(error.to_string(), "access was refused (status 403 Forbidden, AccessDenied)");
    assert!(error.hint().contains("AWS_ACCESS_KEY_ID"), "{}", error.hint());

    let missing = answer("404 Not Found", &[], "<Error><Code>NoSuchKey</Code></Error>");
    let found = "status 404 Not Found, NoSuchKey".to_owned();
    assert_eq!(refusal(missing, 0).await, TransferError::Missing { found });

    let elsewhere = answer("301 Moved Permanently", &["x-amz-bucket-region: eu-west-1"], "");
    let error = refusal(elsewhere, 0).await;
    assert_eq!(error.class(), FailureClass::Permanent);
    assert!(error.hint().contains("AWS_REGION=eu-west-1"), "{}", error.hint());

    let pretended = answer("400 Bad Request", &[], "<Code>see http://evil/ </Code>");
    let error = refusal(pretended, 0).await;
    assert_eq!(error.to_string(), "the server answered with status 400 Bad Request");
    assert!(error.hint().contains("AWS_"), "{}", error.hint());
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    let busy = answer("503 Slow Down", &["Retry-After: 7"], "<Code>SlowDown</Code>");
    let error = refusal(busy, 0).await;
    let TransferError::Busy { retry_after, .. } = error else { unreachable!("{error}") };
    assert_eq!(retry_after, Some(Duration::from_secs(7)));

    let late = answer("400 Bad Request", &[], "<Code>RequestTimeout</Code>");
    assert!(matches!(refusal(late, 0).await, TransferError::Busy { .. }));

    let shorter = answer("416 Range Not Satisfiable", &[], "<Code>InvalidRange</Code>");
    assert!(refusal(shorter, 5).await.spoils_partial());

    let whole = answer("200 OK", &["ETag: \"a\""], "whole");
    assert!(refusal(whole, 2).await.spoils_partial(), "a range was asked for");

    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        format!("http://{}", listener.local_addr().expect("an address"))
    };
    let opened = s3_at(&nobody).open(&request("s3://b/k", 0, Condition::Always)).await;
    assert!(matches!(opened, Err(TransferError::Unreachable { .. })), "{opened:?}");
}

#[tokio::test]
async fn an_object_that_changed_comes_from_its_beginning() {
    let changed = answer("412 Precondition Failed", &[], "<Code>PreconditionFailed</Code>");
    let whole = answer("200 OK", &["ETag: \"new\""], "new bytes");
    let (endpoint, asked) = serve(vec![changed, whole]).await;
    let condition = Condition::IfSame { known: known("\"old\""), length: Some(5) };
    let opened = s3_at(&endpoint).open(&request("s3://b/k", 3, condition)).await;
    let (metadata, offset, bytes) = read(opened).await;
    assert_eq!((offset, &*bytes), (0, &b"new bytes"[..]));
    assert_eq!(metadata.validators.etag.as_deref(), Some("\"new\""));
    let asked = asked.await.expect("asked");
    assert!(asked[0].contains("if-match: \"old\"\r\n") && asked[0].contains("range: bytes=3-\r\n"));
    assert!(!asked[1].contains("if-match:") && !asked[1].contains("range:"), "{}", asked[1]);
}

#[tokio::test]
async fn an_object_that_is_known_does_not_come() {
    let (endpoint, asked) = serve(vec![answer("304 Not Modified", &["ETag: \"a\""], "")]).await;
    let condition = Condition::IfChanged(known("\"a\""));
    let opened = s3_at(&endpoint).open(&request("s3://b/k", 0, condition)).await;
    assert!(matches!(opened, Ok(Opened::Unchanged)), "{opened:?}");
    assert!(asked.await.expect("asked")[0].contains("if-none-match: \"a\"\r\n"));
}

#[tokio::test]
async fn every_cloud_is_read_from_an_offset() {
    let rest = answer(
        "206 Partial Content",
        &[
            "ETag: \"a\"",
            "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
            "Content-Range: bytes 2-4/5",
            "Content-Type: Text/CSV; charset=utf-8",
        ],
        "cde",
    );
    for (address, endpoint, variables) in [
        ("s3://b/a%20k", "AWS_ENDPOINT_URL", &[S3, &[("AWS_ALLOW_HTTP", "true")]].concat()[..]),
        ("gs://b/a%20k", "GOOGLE_BASE_URL", &[("GOOGLE_SKIP_SIGNATURE", "true")][..]),
        (
            "az://b/a%20k",
            "AZURE_STORAGE_ENDPOINT",
            &[
                ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
                ("AZURE_SKIP_SIGNATURE", "true"),
                ("AZURE_ALLOW_HTTP", "true"),
            ],
        ),
    ] {
        let (server, asked) = serve(vec![rest.clone()]).await;
        let protocol = protocol(&[variables, &[(endpoint, &server)]].concat());
        let condition = Condition::IfSame { known: known("\"a\""), length: Some(5) };
        let opened = protocol.open(&request(address, 2, condition)).await;
        let (metadata, offset, bytes) = read(opened).await;
        assert_eq!((offset, &*bytes), (2, &b"cde"[..]), "{address}");
        assert_eq!(metadata.length, Some(5));
        assert_eq!(metadata.media_type.as_deref(), Some("text/csv"));
        let Validators { etag, last_modified, .. } = metadata.validators;
        assert_eq!(etag.as_deref(), Some("\"a\""));
        assert_eq!(last_modified.as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        let asked = asked.await.expect("asked").concat();
        assert!(asked.starts_with("get ") && asked.contains("/b/a%20k http/1.1"), "{asked}");
        assert!(asked.contains("if-match: \"a\"\r\n"), "{asked}");
    }
}

#[tokio::test]
async fn a_cut_says_where() {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: \"a\"\r\n\r\nhalf!".to_owned();
    let (endpoint, _asked) = serve(vec![half]).await;
    let opened = s3_at(&endpoint).open(&request("s3://b/k", 0, Condition::Always)).await;
    let Ok(Opened::Body { mut stream, .. }) = opened else { unreachable!("{opened:?}") };
    assert_eq!(stream.next().await.unwrap().as_deref(), Some(&b"half!"[..]));
    let cut = TransferError::Cut { received: 5, expected: Some(10) };
    assert_eq!(stream.next().await, Err(cut));
}

#[tokio::test]
async fn plain_http_is_for_those_who_ask_for_it() {
    let protocol = protocol(&[S3, &[("AWS_ENDPOINT_URL", "http://127.0.0.1:9")]].concat());
    let error = protocol.open(&request("s3://b/k", 0, Condition::Always)).await.unwrap_err();
    assert!(error.hint().contains("AWS_ALLOW_HTTP"), "{}", error.hint());
    assert_eq!(error.class(), FailureClass::Permanent);
}

#[tokio::test]
async fn missing_credentials_are_named() {
    // The machine's metadata service, which has none for this machine.
    let (metadata, _asked) = serve(vec![answer("404 Not Found", &[], "")]).await;
    let protocol = protocol(&[("AWS_METADATA_ENDPOINT", &metadata)]);
    let error = protocol.open(&request("s3://b/k", 0, Condition::Always)).await.unwrap_err();
    assert_eq!(error.to_string(), "no usable credentials were found");
    assert!(error.hint().contains("AWS_ACCESS_KEY_ID"), "{}", error.hint());

    let nameless = BucketProtocol::with_variables(HttpConfig::default(), []);
    let error = nameless.open(&request("az://b/k", 0, Condition::Always)).await.unwrap_err();
    assert!(error.hint().contains("AZURE_STORAGE_ACCOUNT_NAME"), "{}", error.hint());
    assert_eq!(error.class(), FailureClass::Permanent);
}

#[tokio::test]
async fn a_store_is_made_once_for_each_bucket() {
    let protocol = s3_at("http://127.0.0.1:9");
    assert!(protocol.stores.lock().unwrap().is_empty(), "nothing is made beforehand");
    let store = |address| protocol.store(&ObjectAddress::parse(address).unwrap()).unwrap();
    assert!(Arc::ptr_eq(&store("s3://b/k"), &store("s3://b/other")));
    assert!(!Arc::ptr_eq(&store("s3://b/k"), &store("s3://c/k")));
}

#[tokio::test]
async fn what_a_store_says_is_passed_on() {
    let memory = InMemory::new();
    memory.put(&Path::from("k"), PutPayload::from_static(b"hello")).await.unwrap();
    let store = Store::new(Cloud::S3, Arc::new(memory));
    let open = |offset| request("s3://b/k", offset, Condition::Always);
    let key = Path::from("k");
    let (metadata, offset, bytes) = read(store.open(&key, &open(0)).await).await;
    assert_eq!((offset, &*bytes, metadata.length), (0, &b"hello"[..], Some(5)));
    assert!(metadata.accepts_ranges && !metadata.validators.last_modified_is_strong);
    let (again, offset, bytes) = read(store.open(&key, &open(3)).await).await;
    assert_eq!((offset, &*bytes, again.length), (3, &b"lo"[..], Some(5)));
    assert!(!metadata.validators.differ(&again.validators));
}

#[test]
fn entity_tags_get_the_quotes_that_they_lack() {
    assert_eq!(quoted("\"a\""), "\"a\"");
    assert_eq!(quoted("a"), "\"a\"");
    assert_eq!(quoted("W/\"a\""), "W/\"a\"");
}
