//! Connecting to one of the addresses of a host: not all of them are reachable from everywhere, and
//! those that are not often say nothing. So the next one is tried soon beside those before it, and
//! the first that connects is taken ("Happy Eyeballs", RFC 8305).
//!
//! Deliberately absent: a deadline, which whoever connects has for all of it. HTTP has a client with
//! the same habit.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;

/// How long an address is tried before the next one is, too (RFC 8305, section 8).
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to the first of these addresses that answers.
///
/// # Errors
/// None of them can be connected to: what the last one said.
pub(super) async fn connect_any(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut waiting = by_turns(addresses).into_iter();
    let mut under_way = FuturesUnordered::new();
    let mut said = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    loop {
        match waiting.next() {
            Some(address) => under_way.push(TcpStream::connect(address)),
            None if under_way.is_empty() => return Err(said),
            None => {}
        }
        tokio::select! {
            Some(ended) = under_way.next() => match ended {
                Ok(connected) => return Ok(connected),
                Err(error) => said = error,
            },
            () = tokio::time::sleep(HEAD_START), if !waiting.as_slice().is_empty() => {}
        }
    }
}

/// The two families by turns (RFC 8305, section 4): one of them may not be routed at all.
fn by_turns(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.iter().copied().partition(|address| address.is_ipv6() == is_v6);
    let mut all = Vec::with_capacity(addresses.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    while all.len() < addresses.len() {
        all.extend(first.next().into_iter().chain(second.next()));
    }
    all
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::net::{TcpListener, TcpSocket};
    use tokio::time::timeout;

    use super::*;

    /// A port where connections neither come about nor are refused, with those that wait there.
    async fn black_hole() -> (TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(connected) = timeout(HEAD_START, TcpStream::connect(address)).await {
            waiting.push(connected.unwrap());
            assert!(waiting.len() < 100, "it takes all connections");
        }
        (listener, waiting)
    }

    async fn listening() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    #[tokio::test]
    async fn an_address_that_says_nothing_does_not_hide_the_others() {
        let (hole, _waiting) = black_hole().await;
        let hole = hole.local_addr().unwrap();
        let (_listener, open) = listening().await;
        let (closed, nobody) = listening().await;
        drop(closed);
        for addresses in [&[hole, open][..], &[hole, nobody, hole, open], &[nobody, hole, open]] {
            let begun = Instant::now();
            let connected = timeout(Duration::from_secs(10), connect_any(addresses)).await;
            assert_eq!(connected.unwrap().unwrap().peer_addr().unwrap(), open, "{addresses:?}");
            assert!(begun.elapsed() >= HEAD_START, "{addresses:?}: one after the other");
        }
    }

    #[tokio::test]
    async fn a_refusal_is_told_when_nobody_else_is_left() {
        let (closed, nobody) = listening().await;
        drop(closed);
        let error = connect_any(&[nobody, nobody]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(connect_any(&[]).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn families_take_turns() {
        let of = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let given = of(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]);
        assert_eq!(by_turns(&given), of(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]));
        let given = of(&["1.1.1.1:1", "[::1]:1", "[::2]:1"]);
        assert_eq!(by_turns(&given), given);
        assert_eq!(by_turns(&[]), []);
    }
}
