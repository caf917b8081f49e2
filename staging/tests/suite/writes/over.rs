//! What is at the address already: never replaced unless that is allowed, and the same everywhere.

use keelboat_engine::Kind;
use keelboat_staging::{
    DeliverError, Delivered, Delivery, Depth, Fault, Forgetful, ListRequest, Over, TransferError,
    digest_path,
};

use super::{Sender, Target, assert_nothing_beside, look};

pub(super) async fn over(target: &dyn Target) {
    files(target).await;
    directories(target).await;
}

fn assert_occupied(sent: &Result<Delivered, DeliverError>, told: &str) {
    let Err(error) = sent else { panic!("it was replaced: {sent:?}") };
    assert!(matches!(error.error, TransferError::Occupied { .. }), "{error}");
    assert_eq!(error.fault(), Fault::Asked);
    assert!(error.to_string().contains(told), "{error}");
    assert!(error.failure().hint.is_some_and(|hint| hint.contains("--force")), "{error}");
}

async fn files(target: &dyn Target) {
    let sender = Sender::new(target, vec![]);
    let send = async |bytes: &[u8], over| {
        let source = sender.dir.path().join("file");
        std::fs::write(&source, bytes).expect("a file");
        deliver(&sender, source, Kind::File, target.address("over/file"), over).await
    };
    assert_eq!(send(b"first", Over::Nothing).await, Ok(Delivered::Copied));
    assert_eq!(send(b"first", Over::Nothing).await, Ok(Delivered::AlreadyThere));
    // Of the same length, and of another.
    for other in [&b"other"[..], b"longer than it"] {
        assert_occupied(&send(other, Over::Nothing).await, "a file of other content");
        assert_eq!(look(target, "over/file").await.as_deref(), Some(&b"first"[..]));
    }
    assert_eq!(send(b"other", Over::All).await, Ok(Delivered::Copied));
    assert_eq!(look(target, "over/file").await.as_deref(), Some(&b"other"[..]));
}

async fn directories(target: &dyn Target) {
    let sender = Sender::new(target, vec![]);
    let source = sender.dir.path().join("tree");
    for name in ["a", "deep/b"] {
        let path = source.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, name).expect("a file");
    }
    let send = async |over| {
        let address = target.address("over/tree");
        deliver(&sender, source.clone(), Kind::Directory, address, over).await
    };
    assert_eq!(send(Over::Nothing).await, Ok(Delivered::Copied));
    assert_eq!(send(Over::Nothing).await, Ok(Delivered::AlreadyThere));
    // One has other content now.
    std::fs::write(source.join("a"), "A").expect("a file");
    assert_occupied(&send(Over::Nothing).await, "a directory of other content");
    assert_eq!(look(target, "over/tree/a").await.as_deref(), Some(&b"a"[..]));
    assert_eq!(send(Over::All).await, Ok(Delivered::Copied));
    assert_eq!(look(target, "over/tree/a").await.as_deref(), Some(&b"A"[..]));

    let address = target.address("over/tree").into();
    if target.protocol().list(&ListRequest { address, depth: Depth::One }).await.is_err() {
        println!("skipped: strangers in a directory: it is not listed there");
        return;
    }
    sender.send(target.address("over/tree/thesis"), b"precious").await.expect("sent");
    std::fs::write(source.join("a"), "another").expect("a file");
    assert_occupied(&send(Over::Nothing).await, "a directory of other content");
    assert_eq!(look(target, "over/tree/thesis").await.as_deref(), Some(&b"precious"[..]));
    assert_eq!(look(target, "over/tree/a").await.as_deref(), Some(&b"A"[..]), "nothing is sent");
    assert_eq!(send(Over::All).await, Ok(Delivered::Copied));
    assert_eq!(look(target, "over/tree/thesis").await, None);
    assert_eq!(look(target, "over/tree/deep/b").await.as_deref(), Some(&b"deep/b"[..]));

    sender.send(target.address("over/plain"), b"precious").await.expect("sent");
    let send = async |over| {
        let address = target.address("over/plain");
        deliver(&sender, source.clone(), Kind::Directory, address, over).await
    };
    assert_occupied(&send(Over::Nothing).await, "a file of");
    assert_eq!(look(target, "over/plain").await.as_deref(), Some(&b"precious"[..]));
    assert_eq!(send(Over::All).await, Ok(Delivered::Copied));
    assert_eq!(look(target, "over/plain/a").await.as_deref(), Some(&b"another"[..]));
    for name in ["over/tree", "over/plain"] {
        assert_nothing_beside(target, name);
    }
}

async fn deliver(
    sender: &Sender,
    source: std::path::PathBuf,
    kind: Kind,
    address: String,
    over: Over,
) -> Result<Delivered, DeliverError> {
    let content = digest_path(&source, kind, &Forgetful, true).expect("a digest");
    let address = address.into();
    let delivery = Delivery { source, content, address, over, progress: None };
    sender.stager.deliver(delivery, Forgetful).await
}
