//! Waiting for several futures.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use serde::de::DeserializeOwned;

use super::error::TaskError;
use super::future::{Future, block};

/// Waits until all of them have a value, or one has failed.
///
/// ```
/// # use keelboat::flow::{Config, Flow, all};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let squares = (1..=3).map(|x: u64| flow.call(|x: u64| x * x, (x,)));
/// assert_eq!(all(squares).await?, [1, 4, 9]);
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The first failure, in the order of the list.
pub async fn all<T: DeserializeOwned>(
    futures: impl IntoIterator<Item = Future<T>>,
) -> Result<Vec<T>, TaskError> {
    let futures: Vec<Future<T>> = futures.into_iter().collect();
    let mut values = Vec::with_capacity(futures.len());
    for future in futures {
        values.push(future.await?);
    }
    Ok(values)
}

/// Waits until one of them has a value, or all have failed; `None`: there are none.
///
/// ```
/// # use keelboat::flow::{Config, Flow, any};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let never = flow.call(async || std::future::pending::<u64>().await, ());
/// let now = flow.call(|| 1, ());
/// let first = any([never.clone(), now]).await.expect("there are two");
/// assert_eq!(first?, 1);
/// never.cancel();
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The failure of the last one.
pub async fn any<T: DeserializeOwned>(
    futures: impl IntoIterator<Item = Future<T>>,
) -> Option<Result<T, TaskError>> {
    let mut completed = as_completed(futures);
    let mut last = None;
    while let Some((_, result)) = completed.next().await {
        let is_there = result.is_ok();
        last = Some(result);
        if is_there {
            break;
        }
    }
    last
}

/// Hands them out as they come to their ends.
///
/// ```
/// # use keelboat::flow::{Config, Flow, as_completed};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// let squares = (1..=3).map(|x: u64| flow.call(|x: u64| x * x, (x,)));
/// let mut completed = as_completed(squares);
/// let mut sum = 0;
/// while let Some((at, square)) = completed.wait_next() {
///     println!("the one at {at} is there");
///     sum += square?;
/// }
/// assert_eq!(sum, 14);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn as_completed<T>(futures: impl IntoIterator<Item = Future<T>>) -> Completed<T> {
    let futures: Vec<Option<Future<T>>> = futures.into_iter().map(Some).collect();
    let line = Arc::new(Mutex::new(Line::default()));
    for (at, future) in futures.iter().enumerate() {
        let Some(future) = future else { continue };
        let line = Arc::clone(&line);
        future.cell().when_over(move |_| {
            let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
            line.ended.push_back(at);
            let waker = line.waker.take();
            drop(line);
            if let Some(waker) = waker {
                waker.wake();
            }
        });
    }
    let left = futures.len();
    Completed { futures, line, left }
}

#[derive(Debug, Default)]
struct Line {
    ended: std::collections::VecDeque<usize>,
    waker: Option<Waker>,
}

/// Futures in the order in which they end; see [`as_completed`].
///
/// ```
/// # use keelboat::flow::{Config, Flow, as_completed};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let never = flow.call(async || std::future::pending::<&str>().await.to_owned(), ());
/// let now = flow.call(|| "now".to_owned(), ());
/// let mut completed = as_completed([never.clone(), now]);
/// let (at, first) = completed.next().await.expect("one of two");
/// assert_eq!((at, first?.as_str()), (1, "now"));
/// never.cancel();
/// assert!(completed.next().await.expect("the other").1.is_err());
/// assert!(completed.next().await.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Completed<T> {
    futures: Vec<Option<Future<T>>>,
    line: Arc<Mutex<Line>>,
    left: usize,
}

impl<T: DeserializeOwned> Completed<T> {
    /// The next one that ended: its place in the list, and its value. `None`: there are no more.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow, as_completed};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// let mut completed = as_completed([flow.call(|| 1, ()), flow.call(|| 2, ())]);
    /// let mut sum = 0;
    /// while let Some((_, value)) = completed.next().await {
    ///     sum += value?;
    /// }
    /// assert_eq!(sum, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn next(&mut self) -> Option<(usize, Result<T, TaskError>)> {
        Next(self).await
    }

    /// As [`next`](Self::next), for blocking code.
    ///
    /// ```
    /// # use keelboat::flow::{Config, Flow, as_completed};
    /// # let directory = tempfile::tempdir()?;
    /// # let flow = Flow::open(Config::new(directory.path()))?;
    /// let mut completed = as_completed([flow.call(|| 1, ())]);
    /// assert_eq!(completed.wait_next().map(|(at, _)| at), Some(0));
    /// assert!(completed.wait_next().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_next(&mut self) -> Option<(usize, Result<T, TaskError>)> {
        block(None, |waker| match self.poll(waker) {
            Poll::Ready(found) => Some(found),
            Poll::Pending => None,
        })
        .flatten()
    }

    fn poll(&mut self, waker: &Waker) -> Poll<Option<(usize, Result<T, TaskError>)>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = line.ended.pop_front() else {
            line.waker = Some(waker.clone());
            drop(line);
            return self.cannot_wait();
        };
        drop(line);
        self.left -= 1;
        let future = self.futures.get_mut(at).and_then(Option::take);
        let result = future.and_then(|future| future.try_get());
        Poll::Ready(result.map(|result| (at, result)))
    }

    /// The error of a function that waits for tasks of its own flow.
    fn cannot_wait(&mut self) -> Poll<Option<(usize, Result<T, TaskError>)>> {
        let mut waiting = self.futures.iter().flatten();
        let error = waiting.find_map(|future| future.handle().cannot_wait(&future.task()));
        error.map_or(Poll::Pending, |error| {
            self.left = 0;
            Poll::Ready(Some((0, Err(error))))
        })
    }
}

struct Next<'a, T>(&'a mut Completed<T>);

impl<T: DeserializeOwned> std::future::Future for Next<'_, T> {
    type Output = Option<(usize, Result<T, TaskError>)>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context.waker())
    }
}
