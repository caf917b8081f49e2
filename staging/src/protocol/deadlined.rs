//! Deadlines around a transfer: no wait on the other side is endless.

use std::time::Duration;

use keelboat_engine::Kind;
use tokio::time::{Instant, timeout};
use tokio_util::bytes::Bytes;

use super::{
    BoxFuture, ByteStream, Entry, ListRequest, OpenRequest, Opened, Proof, Protocol, PutRequest,
    Renamed, TransferError, Writing,
};

/// How many answers a whole listing may take the time of.
const LISTING_ANSWERS: u32 = 10;

/// Gives up when the first byte, or any later one, is late, and when they come too slowly: a byte
/// now and then would hold a connection for ever.
#[derive(Debug)]
pub struct Deadlined<P> {
    inner: P,
    open_timeout: Duration,
    pace: Pace,
}

/// How slow it may be.
#[derive(Debug, Clone, Copy)]
struct Pace {
    stall_timeout: Duration,
    rate_min: u64,
}

impl Pace {
    /// Whether so many bytes are too few for a time of at least the timeout.
    fn is_too_slow(self, bytes: u64, waited: Duration) -> bool {
        u128::from(bytes) * 1000 < u128::from(self.rate_min) * waited.as_millis()
    }
}

impl<P> Deadlined<P> {
    /// `open_timeout` is for the answer with its metadata, `stall_timeout` for each piece after it;
    /// for so long fewer bytes than `rate_min` in a second may come, or go. Only time for which the
    /// other side is waited for counts.
    pub const fn new(
        inner: P,
        open_timeout: Duration,
        stall_timeout: Duration,
        rate_min: u64,
    ) -> Self {
        Self { inner, open_timeout, pace: Pace { stall_timeout, rate_min } }
    }

    async fn answer<T>(
        &self,
        answer: impl Future<Output = Result<T, TransferError>>,
    ) -> Result<T, TransferError> {
        timeout(self.open_timeout, answer).await.unwrap_or_else(|_elapsed| {
            Err(TransferError::Stalled {
                waited: self.open_timeout,
                phase: "before the answer began".into(),
            })
        })
    }
}

impl<P: Protocol> Protocol for Deadlined<P> {
    fn schemes(&self) -> &[&'static str] {
        self.inner.schemes()
    }

    fn open<'a>(
        &'a self,
        request: &'a OpenRequest,
    ) -> BoxFuture<'a, Result<Opened, TransferError>> {
        Box::pin(async move {
            Ok(match self.answer(self.inner.open(request)).await? {
                Opened::Unchanged => Opened::Unchanged,
                Opened::Body { metadata, offset, stream } => {
                    let stream = Box::new(DeadlinedStream {
                        stream,
                        pace: self.pace,
                        position: offset,
                        waited: Duration::ZERO,
                        came: 0,
                    });
                    Opened::Body { metadata, offset, stream }
                }
            })
        })
    }

    /// A long listing takes many answers; each of them is waited for by the protocol's own client,
    /// and all of them not longer than a few answers may take.
    fn list<'a>(
        &'a self,
        request: &'a ListRequest,
    ) -> BoxFuture<'a, Result<Vec<Entry>, TransferError>> {
        let waited = self.open_timeout * LISTING_ANSWERS;
        Box::pin(async move {
            timeout(waited, self.inner.list(request)).await.unwrap_or_else(|_elapsed| {
                let phase = "while a directory was listed".into();
                Err(TransferError::Stalled { waited, phase })
            })
        })
    }

    fn kind<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<Option<Kind>, TransferError>> {
        Box::pin(self.answer(self.inner.kind(address)))
    }

    fn writing(&self) -> Writing {
        self.inner.writing()
    }

    /// As long as bytes are taken, or held back here, it may go on; after the last one the server has as long to
    /// answer as before the first.
    fn put<'a>(&'a self, request: &'a PutRequest) -> BoxFuture<'a, Result<Proof, TransferError>> {
        Box::pin(async move {
            let mut put = self.inner.put(request);
            let mut signs = request.sent.signs();
            loop {
                let sent = request.sent.get();
                let is_moving = sent > 0 && request.sent.position() < request.content.bytes;
                let patience = if is_moving { self.pace.stall_timeout } else { self.open_timeout };
                let holds = request.sent.holds();
                if let Ok(result) = timeout(patience, &mut put).await {
                    return result;
                }
                let now = request.sent.signs();
                if now == signs && !request.sent.is_held() {
                    let phase = format!("after byte {} was sent", request.sent.get());
                    return Err(TransferError::Stalled { waited: patience, phase });
                }
                let all = request.sent.get();
                let bytes = all.saturating_sub(sent);
                let is_ours = request.sent.is_held() || request.sent.holds() != holds;
                let is_moving =
                    is_moving && request.sent.position() < request.content.bytes && !is_ours;
                if is_moving && self.pace.is_too_slow(bytes, patience) {
                    return Err(TransferError::Slow { bytes, waited: patience });
                }
                signs = now;
            }
        })
    }

    fn make_directory<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        Box::pin(self.answer(self.inner.make_directory(address)))
    }

    fn rename<'a>(
        &'a self,
        from: &'a str,
        to: &'a str,
    ) -> BoxFuture<'a, Result<Renamed, TransferError>> {
        Box::pin(self.answer(self.inner.rename(from, to)))
    }

    fn remove<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        Box::pin(self.answer(self.inner.remove(address)))
    }
}

struct DeadlinedStream {
    stream: Box<dyn ByteStream>,
    pace: Pace,
    position: u64,
    /// How long the other side was waited for since its pace was looked at, and what came then.
    waited: Duration,
    came: u64,
}

impl DeadlinedStream {
    /// More came after a wait: was it worth it?
    fn check_pace(&mut self, bytes: u64, waited: Duration) -> Result<(), TransferError> {
        self.came += bytes;
        self.waited += waited;
        if self.waited < self.pace.stall_timeout {
            return Ok(());
        }
        let (bytes, waited) = (std::mem::take(&mut self.came), std::mem::take(&mut self.waited));
        if self.pace.is_too_slow(bytes, waited) {
            return Err(TransferError::Slow { bytes, waited });
        }
        Ok(())
    }
}

impl ByteStream for DeadlinedStream {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransferError>> {
        Box::pin(async move {
            let (begun, patience) = (Instant::now(), self.pace.stall_timeout);
            let Ok(piece) = timeout(patience, self.stream.next()).await else {
                return Err(TransferError::Stalled {
                    waited: patience,
                    phase: format!("after byte {}", self.position),
                });
            };
            if let Ok(Some(bytes)) = &piece {
                self.position += bytes.len() as u64;
                self.check_pace(bytes.len() as u64, begun.elapsed())?;
            }
            piece
        })
    }
}

#[cfg(test)]
mod tests {
    use keelboat_engine::{Content, Digest};

    use super::*;
    use crate::protocol::{Condition, Metadata, Sent};
    use crate::{Gate, Turn};

    /// Gives, or takes, so many bytes each time, and waits between.
    #[derive(Debug, Clone, Copy)]
    struct Drops {
        bytes: usize,
        pause: Duration,
        left: u32,
    }

    impl ByteStream for Drops {
        fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, TransferError>> {
            Box::pin(async move {
                tokio::time::sleep(self.pause).await;
                let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
                self.left = left;
                Ok(Some(Bytes::from(vec![0; self.bytes])))
            })
        }
    }

    impl Protocol for Drops {
        fn schemes(&self) -> &[&'static str] {
            &["drops"]
        }

        fn open<'a>(&'a self, _: &'a OpenRequest) -> BoxFuture<'a, Result<Opened, TransferError>> {
            let (metadata, stream) = (Metadata::default(), Box::new(*self));
            Box::pin(async { Ok(Opened::Body { metadata, offset: 0, stream }) })
        }

        fn put<'a>(
            &'a self,
            request: &'a PutRequest,
        ) -> BoxFuture<'a, Result<Proof, TransferError>> {
            Box::pin(self.take(&request.sent))
        }
    }

    impl Drops {
        async fn take(&self, sent: &Sent) -> Result<Proof, TransferError> {
            for _ in 0..self.left {
                tokio::time::sleep(self.pause).await;
                sent.add(self.bytes as u64);
                if let Some(hold) = sent.hold(self.bytes as u64) {
                    hold.await;
                }
            }
            Ok(Proof::Unchecked)
        }
    }

    fn deadlined(drops: Drops) -> Deadlined<Drops> {
        let patience = Duration::from_millis(200);
        Deadlined::new(drops, patience, patience, 10_000)
    }

    /// Reads all, and rests after each piece.
    async fn read(drops: Drops, rest: Duration) -> Result<usize, TransferError> {
        let request = OpenRequest {
            address: "drops://h/a".into(),
            offset: 0,
            end: None,
            condition: Condition::Always,
            turn: Turn::default(),
        };
        let Opened::Body { mut stream, .. } = deadlined(drops).open(&request).await? else {
            panic!("it has a body");
        };
        let mut all = 0;
        while let Some(piece) = stream.next().await? {
            all += piece.len();
            tokio::time::sleep(rest).await;
        }
        Ok(all)
    }

    #[tokio::test]
    async fn a_trickle_is_given_up_and_a_brook_is_not() {
        let pause = Duration::from_millis(10);
        let trickle = Drops { bytes: 1, pause, left: 1000 };
        let error = read(trickle, Duration::ZERO).await.unwrap_err();
        let TransferError::Slow { bytes, waited } = error else { panic!("{error}") };
        assert!(bytes <= 20 && waited >= Duration::from_millis(200), "{bytes} in {waited:?}");
        let brook = Drops { bytes: 5_000, pause, left: 60 };
        assert_eq!(read(brook, Duration::ZERO).await, Ok(300_000));
    }

    #[tokio::test]
    async fn who_reads_slowly_is_not_the_other_side() {
        let quick = Drops { bytes: 1, pause: Duration::ZERO, left: 40 };
        assert_eq!(read(quick, Duration::from_millis(10)).await, Ok(40));
    }

    async fn send(drops: Drops, sent: Sent) -> Result<Proof, TransferError> {
        let content = Content { digest: Digest::of(b""), bytes: 1_000_000, kind: Kind::File };
        let request = PutRequest {
            address: "drops://h/a".into(),
            source: "/dev/null".into(),
            content,
            resume: false,
            sent,
        };
        deadlined(drops).put(&request).await
    }

    #[tokio::test]
    async fn who_takes_a_trickle_is_given_up_unless_it_is_held_back_here() {
        let trickle = Drops { bytes: 1, pause: Duration::from_millis(10), left: 100 };
        let error = send(trickle, Sent::default()).await.unwrap_err();
        assert!(matches!(error, TransferError::Slow { .. }), "{error}");
        let limits = keelboat_engine::queue::QueueLimits {
            bytes_per_second: Some(100),
            ..Default::default()
        };
        let gate = Gate::new(limits, Duration::from_mins(1));
        let permit = gate.enter(&"drops://h/a".into(), &Turn::default(), None).await.unwrap();
        let sent = Sent::default().paced(permit.pace());
        // Beyond what may come at once.
        let held = Drops { bytes: 5, pause: Duration::ZERO, left: 30 };
        assert_eq!(send(held, sent).await, Ok(Proof::Unchecked));
    }
}
