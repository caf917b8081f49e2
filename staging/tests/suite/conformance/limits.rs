//! Two at once, giving up, no space, and being slow on purpose.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keelboat_engine::FailureClass;
use keelboat_staging::{FetchRequest, QueueLimits, Stager, StagingConfig, address_digest};

use super::Place;
use crate::common::flaky::{Fault, Flaky};
use crate::common::small_disk::SmallDisk;
use crate::common::{assert_arrived, config, noise, room, until};

pub(super) async fn limits(place: &dyn Place) {
    together(place).await;
    given_up(place).await;
    no_space(place).await;
    slowly(place).await;
}

/// A stager of this place, and what counts its openings.
fn stager(place: &dyn Place, config: StagingConfig, faults: Vec<Fault>) -> (Stager, Arc<Flaky>) {
    let counted = Arc::new(Flaky::new(place.protocol(), faults));
    (Stager::with_protocols(config, vec![counted.clone()], vec![]), counted)
}

/// Two tasks that want one file at one time: one transfer, and a file for each of them.
async fn together(place: &dyn Place) {
    let bytes = noise(5, 100_000);
    let address = place.put("together", &bytes);
    let dir = room();
    let (stager, counted) = stager(place, config(dir.path()), vec![]);
    let request = FetchRequest::new(address);
    let (one, other) = tokio::join!(stager.fetch(request.clone()), stager.fetch(request));
    assert_ne!(one, other, "each has a file of its own");
    for fetched in [one, other] {
        assert_arrived(fetched, &bytes);
    }
    assert_eq!(counted.count().in_all, 1);
}

/// Whoever is given up lets go of the connection at once; what came is built on.
async fn given_up(place: &dyn Place) {
    let bytes = noise(6, 200_000);
    let address = place.put("given up", &bytes);
    let dir = room();
    let patient = StagingConfig { stall_timeout: Duration::from_mins(2), ..config(dir.path()) };
    let (stager, counted) = stager(place, patient, vec![Fault::Stall(120_000)]);
    let partial = dir.path().join(address_digest(&address).to_hex()).with_extension("data");
    let here = || partial.metadata().map_or(0, |found| found.len());
    tokio::select! {
        ended = stager.fetch(FetchRequest::new(&*address)) => panic!("it ended: {ended:?}"),
        () = until(|| here() == 120_000) => {}
    }
    until(|| counted.count().open == 0).await;
    assert_eq!(counted.count().in_all, 1, "nothing goes on");
    let fetched = stager.fetch(FetchRequest::new(address)).await;
    assert_eq!(assert_arrived(fetched, &bytes), 80_000);
    assert_eq!(counted.count().in_all, 2);
}

/// A full disk ends the transfer with what to do; when there is room, it comes.
async fn no_space(place: &dyn Place) {
    let bytes = noise(7, 3 << 20);
    let address = place.put("too large", &bytes);
    let dir = room();
    let Some(_disk) = SmallDisk::mount(dir.path().join("small"), 4) else { return };
    let small = dir.path().join("small");
    let (stager, counted) = stager(place, config(&small.join("partial")), vec![]);
    std::fs::write(small.join("ballast"), noise(8, 2 << 20)).expect("half of the room");
    let error = stager.fetch(FetchRequest::new(&*address)).await.expect_err("there is no room");
    assert_eq!(error.failure.class, FailureClass::OutOfResources, "{error}");
    assert!(error.failure.hint.is_some_and(|hint| hint.contains("space")), "what to do");
    assert_eq!(counted.count().in_all, 1, "another try finds no more room");
    std::fs::remove_file(small.join("ballast")).expect("removed");
    let transferred = assert_arrived(stager.fetch(FetchRequest::new(address)).await, &bytes);
    assert!(transferred <= 3 << 20, "{transferred} bytes");
}

/// One connection, and no more bytes in a second than are allowed.
async fn slowly(place: &dyn Place) {
    let bytes = noise(9, 400_000);
    let dir = room();
    let limits =
        QueueLimits { total_max: 1, bytes_per_second: Some(2_000_000), ..QueueLimits::default() };
    let limited = StagingConfig { limits, ..config(dir.path()) };
    let (stager, counted) = stager(place, limited, vec![]);
    let addresses = [0, 1, 2, 3].map(|number| place.put(&format!("slow {number}"), &bytes));
    let begun = Instant::now();
    let [a, b, c, d] = addresses.map(|address| stager.fetch(FetchRequest::new(address)));
    let (a, b, c, d) = tokio::join!(a, b, c, d);
    // 1.6 MB at 2 MB/s, less a quarter of a second's worth at once and the last file on credit.
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    for fetched in [a, b, c, d] {
        assert_arrived(fetched, &bytes);
    }
    assert_eq!(counted.count().at_once, 1);
}
