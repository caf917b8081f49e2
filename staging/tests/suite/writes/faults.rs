//! Writings that go wrong.

use keelboat_engine::{Content, Digest, FailureClass, Kind};
use keelboat_staging::{Delivered, Writing};

use super::{Sender, Target, assert_nothing_beside, is_asked, look};
use crate::common::faulty::PutFault;
use crate::common::noise;

pub(super) async fn faults(target: &dyn Target) {
    refused(target).await;
    changed(target).await;
    if is_asked(target) {
        cut(target).await;
        damaged(target).await;
    }
}

async fn refused(target: &dyn Target) {
    let sender = Sender::new(target, vec![]);
    let error = sender.send(target.refused(), b"x").await.expect_err("it is not allowed");
    let failure = error.failure();
    assert_eq!(failure.class, FailureClass::Permanent, "{error}");
    assert!(failure.hint.is_some_and(|hint| !hint.is_empty()), "what to do: {error}");
    assert!(sender.faulty.puts() <= 1, "another try changes nothing");
}

/// What is not what it is said to be any more does not get there.
async fn changed(target: &dyn Target) {
    let (old, new) = (noise(14, 300_000), noise(15, 900_000));
    let sender = Sender::new(target, vec![]);
    sender.send(target.address("out/changed"), &old).await.expect("sent");
    let content = Content { digest: Digest::of(&new), bytes: 900_000, kind: Kind::File };
    let damages: [fn(&mut Vec<u8>); 3] =
        [|bytes| bytes[899_999] ^= 1, |bytes| bytes.truncate(400_000), |bytes| bytes.push(0)];
    for damage in damages {
        let mut other = new.clone();
        damage(&mut other);
        let sent = sender.send_as(target.address("out/changed"), &other, content).await;
        let error = sent.expect_err("it changed");
        let said = error.to_string();
        assert!(["changed while", "does not hold"].iter().any(|why| said.contains(why)), "{said}");
        let found = look(target, "out/changed").await;
        assert!(found == Some(old.clone()), "the old one stays: {error}");
        let fresh = sender.send_as(target.address("out/never"), &other, content).await;
        fresh.expect_err("it changed");
        assert_eq!(look(target, "out/never").await, None);
    }
}

/// Given up in the middle, three times: it goes on or begins again, and arrives.
async fn cut(target: &dyn Target) {
    let bytes = noise(16, 6_000_000);
    let cuts = [1_000_000, 3_000_000, 6_000_000].map(PutFault::Cut).to_vec();
    let sender = Sender::new(target, cuts);
    let sent = sender.send(target.address("cut/file"), &bytes).await;
    assert_eq!(sent, Ok(Delivered::Copied));
    assert!(look(target, "cut/file").await == Some(bytes));
    assert_eq!(sender.faulty.puts(), 4);
    assert_nothing_beside(target, "cut/file");
}

/// Wrong bytes at the other end are found by reading back, and sent again; not for ever.
async fn damaged(target: &dyn Target) {
    let (old, new) = (noise(17, 300_000), noise(18, 300_000));
    let sender = Sender::new(target, vec![PutFault::Damage]);
    let sent = sender.send(target.address("damaged/file"), &old).await;
    assert_eq!(sent, Ok(Delivered::Copied));
    assert_eq!(sender.faulty.puts(), 2);
    assert!(look(target, "damaged/file").await == Some(old.clone()));
    let sender = Sender::new(target, vec![PutFault::Damage; 10]);
    let error = sender.send(target.address("damaged/file"), &new).await.expect_err("damaged");
    assert!(error.to_string().contains("read back"), "{error}");
    if target.protocol().writing() == Writing::Renamed {
        assert!(look(target, "damaged/file").await == Some(old), "the old one stays");
    }
}
