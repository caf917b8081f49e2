//! The three clients against answers that real servers give, and the mapping of what comes.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use keelboat_engine::{Content, Digest, FailureClass, Kind};
use reqwest::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::answer::{Answer, Refusal, Seen};
use super::store::quoted;
use super::*;
use crate::protocol::{Condition, Metadata, Sent, Validators};

const S3: &[(&str, &str)] =
    &[("AWS_ACCESS_KEY_ID", "AKIDTEST"), ("AWS_SECRET_ACCESS_KEY", "not-to-be-shown")];

/// A server that gives these answers, each to one connection. Its address, and what it was asked.
async fn serve(answers: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let (address, server, asked) = serve_some(answers).await;
    let all = tokio::spawn(async move {
        server.await.expect("all are asked for");
        std::mem::take(&mut *asked.lock().unwrap())
    });
    (address, all)
}

/// The same, when it may be asked less often; what it was asked by now.
async fn serve_some(answers: Vec<String>) -> (String, JoinHandle<()>, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heads = Arc::clone(&asked);
    let server = tokio::spawn(async move {
        for answer in answers {
            let (mut client, _) = listener.accept().await.expect("a client");
            // One that is given up may end anywhere.
            let Some(head) = read_request(&mut client).await else { continue };
            heads.lock().unwrap().push(head);
            client.write_all(answer.as_bytes()).await.expect("answered");
            client.shutdown().await.expect("closed");
        }
    });
    (address, server, asked)
}

/// The head of a request whose body has come as a whole, in lower case.
async fn read_request(client: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(client.read_u8().await.ok()?);
    }
    let head = String::from_utf8(request).expect("text").to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |length| length.parse().expect("a length"));
    client.read_exact(&mut vec![0; length]).await.ok()?;
    Some(head)
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
    let store = |address| protocol.store(address, &ObjectAddress::parse(address).unwrap()).unwrap();
    assert!(Arc::ptr_eq(&store("s3://b/k"), &store("s3://b/other")));
    assert!(!Arc::ptr_eq(&store("s3://b/k"), &store("s3://c/k")));
}

const CHECKSUM: &str = "x-amz-checksum-sha256";

/// Puts a file of so many bytes; what the server is to answer depends on the checksum of them.
async fn put(bytes: u64, answers: Vec<String>) -> (Result<Proof, TransferError>, Vec<String>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(bytes).unwrap();
    let digest = Digest::of(&vec![0; usize::try_from(bytes).unwrap()]);
    let (endpoint, _server, asked) = serve_some(answers).await;
    let request = PutRequest {
        address: "s3://b/k".into(),
        source: file.path().to_owned(),
        content: Content { digest, bytes, kind: Kind::File },
        resume: false,
        sent: Sent::default(),
    };
    let put = s3_at(&endpoint).put(&request).await;
    assert!(put.is_err() || request.sent.get() == bytes, "{} were sent", request.sent.get());
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    (put, asked)
}

fn checksum_of(bytes: usize) -> String {
    let digest = Digest::of(&vec![0; bytes]);
    format!("{CHECKSUM}: {}", BASE64_STANDARD.encode(digest.as_bytes()))
}

fn checked(etag: &str) -> Proof {
    Proof::Checked(Validators { etag: Some(etag.into()), ..Validators::default() })
}

#[tokio::test]
async fn only_a_checksum_that_the_server_repeats_proves() {
    let right = checksum_of(1000);
    for (headers, expected) in [
        (vec!["ETag: \"a\"", &*right], checked("\"a\"")),
        (vec!["ETag: \"a\""], Proof::Unchecked),
        (vec!["ETag: \"a\"", "x-amz-checksum-sha256: b3RoZXI="], Proof::Unchecked),
    ] {
        let (put, asked) = put(1000, vec![answer("200 OK", &headers, "")]).await;
        assert_eq!(put, Ok(expected));
        assert!(asked[0].contains(&right.to_ascii_lowercase()), "{}", asked[0]);
    }
    let bad = answer("400 Bad Request", &[], "<Error><Code>BadDigest</Code></Error>");
    let (put, _) = put(1000, vec![bad]).await;
    assert!(put.expect_err("it is refused").to_string().contains("BadDigest"));
}

#[tokio::test]
async fn parts_are_proven_each_and_given_up_together() {
    let begun = answer(
        "200 OK",
        &[],
        "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>",
    );
    let (tag, checksum) = ("ETag: \"p\"", checksum_of(8 << 20));
    let part = answer("200 OK", &[tag, &checksum], "");
    let completed = answer(
        "200 OK",
        &[],
        "<CompleteMultipartUploadResult><ETag>w</ETag></CompleteMultipartUploadResult>",
    );
    let bytes = 24 << 20;
    let answers = [&begun, &part, &part, &part, &completed].map(Clone::clone).to_vec();
    let (proof, _) = put(bytes, answers).await;
    assert_eq!(proof, Ok(checked("\"w\"")));

    let silent = answer("200 OK", &[tag], "");
    let answers = [&begun, &part, &silent, &part, &completed].map(Clone::clone).to_vec();
    let (proof, _) = put(bytes, answers).await;
    assert_eq!(proof, Ok(Proof::Unchecked));

    let aborted = answer("204 No Content", &[], "");
    let slow = answer("503 Slow Down", &[], "<Code>SlowDown</Code>");
    let answers = [&begun, &slow, &slow, &slow, &aborted].map(Clone::clone).to_vec();
    let (error, asked) = put(bytes, answers).await;
    assert!(matches!(error, Err(TransferError::Busy { .. })), "{error:?}");
    assert!(asked.iter().any(|head| head.starts_with("delete /b/k?uploadid=u ")), "{asked:?}");
}

#[tokio::test]
async fn a_region_that_amazon_names_is_gone_to() {
    let store = |variables: &[(&str, &str)]| {
        let object = ObjectAddress::parse("s3://b/k").unwrap();
        let protocol = protocol(variables);
        let store = protocol.store("s3://b/k", &object).unwrap();
        let seen = Seen::default();
        seen.note(Answer::Status(Refusal {
            status: StatusCode::MOVED_PERMANENTLY,
            code: None,
            region: Some("eu-west-1".into()),
            retry_after: None,
        }));
        let source = "elsewhere".into();
        store.explain(&seen, &object_store::Error::Generic { store: "S3", source });
        let renewed = protocol.renewed("s3://b/k", &object, &store).unwrap()?;
        let again = protocol.renewed("s3://b/k", &object, &renewed).unwrap();
        assert!(again.is_none(), "it is gone to once");
        renewed.access.value(&["AWS_REGION"]).map(str::to_owned)
    };
    assert_eq!(store(S3), Some("eu-west-1".into()));
    assert_eq!(store(&[S3, &[("AWS_REGION", "eu-west-1")]].concat()), None);
    let own = [S3, &[("AWS_ENDPOINT_URL", "https://s3.example.org")]].concat();
    assert_eq!(store(&own), None, "only Amazon has regions");
}

#[test]
fn entity_tags_get_the_quotes_that_they_lack() {
    assert_eq!(quoted("\"a\""), "\"a\"");
    assert_eq!(quoted("a"), "\"a\"");
    assert_eq!(quoted("W/\"a\""), "W/\"a\"");
}
