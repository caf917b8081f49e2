//! Functions as tasks: what can be called, and how a call goes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;

use keelboat_engine::{Failure, FailureClass};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::cell::Cell;
use super::context::Context;
use super::future::Future;
use super::value::{self, CodecError};

/// What a function returns: any value that can be encoded and read back.
///
/// ```
/// # use keelboat::flow::{Config, Flow};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// # use serde::{Deserialize, Serialize};
/// #[derive(Serialize, Deserialize)]
/// struct Position {
///     latitude: f64,
///     longitude: f64,
/// }
/// let harbour = flow.call(|| Position { latitude: 53.5, longitude: 10.0 }, ());
/// assert_eq!(harbour.field::<f64>("latitude").wait()?, 53.5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Value: Serialize + DeserializeOwned + Send + 'static {}
impl<T: Serialize + DeserializeOwned + Send + 'static> Value for T {}

/// Marks functions that return.
#[derive(Debug)]
pub struct Direct;
/// Marks functions that are `async`.
#[derive(Debug)]
pub struct Async;

/// What an error of a function has to be: anything that `?` takes, and texts.
pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a call left.
pub(crate) enum Left {
    /// The encoding of a value.
    Value(Vec<u8>),
    /// What this task leaves.
    Join(Arc<Cell>),
}

/// A call that was begun.
#[doc(hidden)]
pub struct Begun(pub(crate) Course);

impl std::fmt::Debug for Begun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Begun").finish_non_exhaustive()
    }
}

pub(crate) enum Course {
    Over(Result<Left, Failure>),
    Going(Pin<Box<dyn std::future::Future<Output = Result<Left, Failure>> + Send>>),
}

/// What a function is called with.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Call<'c> {
    /// Encoded.
    pub(crate) arguments: &'c [u8],
    /// For those that take one.
    pub(crate) context: Option<&'c Context>,
}

/// Something that can be called.
pub(crate) trait Body: Send + Sync {
    fn begin(&self, call: Call<'_>) -> Course;
}

/// A function of the parameters `P` with the value `R`, `async` or not. Up to six parameters, each of
/// a type that can be read from its encoding (`serde`). Before them may stand a [`Context`], which tells
/// it where to write files and what it saved.
///
/// Closures have to name the types of their parameters.
///
/// ```
/// # use keelboat::flow::{Config, Flow};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// fn repeat(text: String, times: usize) -> String {
///     text.repeat(times)
/// }
/// async fn later(text: String) -> String {
///     tokio::time::sleep(std::time::Duration::from_millis(1)).await;
///     text
/// }
/// let sentence = flow.call(later, (flow.call(repeat, ("go ", 3)),));
/// let words = flow.call(|text: String| text.split_whitespace().count(), (sentence,));
/// assert_eq!(words.wait()?, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Function<P, R, M>: Send + Sync + 'static {
    #[doc(hidden)]
    const TAKES_CONTEXT: bool;

    #[doc(hidden)]
    fn begin(&self, call: Call<'_>) -> Begun;
}

/// A function that returns a `Result`: an error is a failure of the task.
/// Anything that `?` takes is such an error, and so are texts. What the error says of its causes is told too.
///
/// ```
/// # use keelboat::flow::{Config, Flow};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// # use std::path::PathBuf;
/// type Problem = Box<dyn std::error::Error + Send + Sync>;
///
/// fn first_number(path: PathBuf) -> Result<u64, Problem> {
///     let text = std::fs::read_to_string(path)?;
///     Ok(text.split_whitespace().next().ok_or("it is empty")?.parse()?)
/// }
/// # std::fs::write(directory.path().join("numbers"), "12 13")?;
/// assert_eq!(flow.try_call(first_number, (flow.file("numbers"),)).wait()?, 12);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait TryFunction<P, R, M>: Send + Sync + 'static {
    #[doc(hidden)]
    const TAKES_CONTEXT: bool;

    #[doc(hidden)]
    fn begin(&self, call: Call<'_>) -> Begun;
}

/// A function that submits further tasks and returns the [`Future`] of one of them, whose value is
/// its own.
///
/// ```
/// # use keelboat::flow::{Config, Flow, Future};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// fn halve(x: u64) -> u64 {
///     x / 2
/// }
/// /// Halves until it is small.
/// fn shrink(flow: &Flow, x: u64) -> Future<u64> {
///     let own = flow.clone();
///     let next = move |x: u64| if x < 10 { own.call(halve, (x,)) } else { shrink(&own, x / 2) };
///     flow.join(next, (x,))
/// }
/// assert_eq!(shrink(&flow, 100).wait()?, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait JoinFunction<P, R, M>: Send + Sync + 'static {
    #[doc(hidden)]
    fn begin(&self, call: Call<'_>) -> Begun;
}

fn over(result: Result<Left, Failure>) -> Begun {
    Begun(Course::Over(result))
}

fn going(
    future: impl std::future::Future<Output = Result<Left, Failure>> + Send + 'static,
) -> Begun {
    Begun(Course::Going(Box::pin(future)))
}

fn value_of<R: Serialize>(value: &R) -> Result<Left, Failure> {
    value::encode(value).map(Left::Value).map_err(|error| {
        let cause = format!("its value cannot be encoded: {error}");
        Failure::new(FailureClass::Permanent, cause)
    })
}

fn result_of<R: Serialize>(result: Result<R, impl Into<BoxError>>) -> Result<Left, Failure> {
    match result {
        Ok(value) => value_of(&value),
        Err(error) => Err(failure_of(&*error.into())),
    }
}

/// An error with all that it says of its causes.
fn failure_of(error: &(dyn std::error::Error + 'static)) -> Failure {
    let mut cause = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let text = source.to_string();
        if !cause.contains(&text) {
            cause = format!("{cause}: {text}");
        }
        next = source.source();
    }
    Failure::new(FailureClass::Transient, cause).as_error()
}

fn joined<R>(future: &Future<R>) -> Result<Left, Failure> {
    if future.steps().is_empty() {
        return Ok(Left::Join(Arc::clone(future.cell())));
    }
    let cause = "it returns a part of the value of a task, in place of the whole";
    Err(Failure::new(FailureClass::Permanent, cause)
        .with_hint("return the future of a task; one that takes the part can be made of it"))
}

fn no_context() -> Failure {
    Failure::new(FailureClass::Permanent, "it takes a context, and is called without one")
}

pub(crate) fn misfit(error: &CodecError) -> Failure {
    let cause = format!("it cannot be called with these arguments: {error}");
    Failure::new(FailureClass::Permanent, cause)
}

/// Functions that are told nothing but their arguments, or also their context.
macro_rules! callable {
    ([$($context:ident: $C:ty)?] $takes:literal $direct:ty, $later:ty; $($p:ident $name:ident),*) => {
        impl<F, R, $($p),*> Function<($($p,)*), R, $direct> for F
        where
            F: Fn($($C,)? $($p),*) -> R + Send + Sync + 'static,
            R: Value,
            $($p: DeserializeOwned,)*
        {
            const TAKES_CONTEXT: bool = $takes;

            fn begin(&self, call: Call<'_>) -> Begun {
                callable!(@read call [$($context)?] $($p $name),*);
                over(value_of(&self($($context,)? $($name),*)))
            }
        }

        impl<F, T, R, $($p),*> Function<($($p,)*), R, $later> for F
        where
            F: Fn($($C,)? $($p),*) -> T + Send + Sync + 'static,
            T: std::future::Future<Output = R> + Send + 'static,
            R: Value,
            $($p: DeserializeOwned,)*
        {
            const TAKES_CONTEXT: bool = $takes;

            fn begin(&self, call: Call<'_>) -> Begun {
                callable!(@read call [$($context)?] $($p $name),*);
                let course = self($($context,)? $($name),*);
                going(async move { value_of(&course.await) })
            }
        }

        impl<F, R, E, $($p),*> TryFunction<($($p,)*), R, ($direct, E)> for F
        where
            F: Fn($($C,)? $($p),*) -> Result<R, E> + Send + Sync + 'static,
            R: Value,
            E: Into<BoxError>,
            $($p: DeserializeOwned,)*
        {
            const TAKES_CONTEXT: bool = $takes;

            fn begin(&self, call: Call<'_>) -> Begun {
                callable!(@read call [$($context)?] $($p $name),*);
                over(result_of(self($($context,)? $($name),*)))
            }
        }

        impl<F, T, R, E, $($p),*> TryFunction<($($p,)*), R, ($later, E)> for F
        where
            F: Fn($($C,)? $($p),*) -> T + Send + Sync + 'static,
            T: std::future::Future<Output = Result<R, E>> + Send + 'static,
            R: Value,
            E: Into<BoxError>,
            $($p: DeserializeOwned,)*
        {
            const TAKES_CONTEXT: bool = $takes;

            fn begin(&self, call: Call<'_>) -> Begun {
                callable!(@read call [$($context)?] $($p $name),*);
                let course = self($($context,)? $($name),*);
                going(async move { result_of(course.await) })
            }
        }
    };
    (@read $call:ident [] $($p:ident $name:ident),*) => {
        callable!(@arguments $call $($p $name),*);
    };
    (@read $call:ident [$context:ident] $($p:ident $name:ident),*) => {
        let Some($context) = $call.context.cloned() else { return over(Err(no_context())) };
        callable!(@arguments $call $($p $name),*);
    };
    (@arguments $call:ident) => {
        debug_assert!(!$call.arguments.is_empty(), "an empty list has a head");
    };
    (@arguments $call:ident $($p:ident $name:ident),+) => {
        let ($($name,)+) = match value::decode::<($($p,)+)>($call.arguments) {
            Ok(arguments) => arguments,
            Err(error) => return over(Err(misfit(&error))),
        };
    };
}

macro_rules! functions {
    ($($p:ident $name:ident),*) => {
        callable!([] false Direct, Async; $($p $name),*);
        callable!([context: Context] true (Context, Direct), (Context, Async); $($p $name),*);

        impl<F, R, $($p),*> JoinFunction<($($p,)*), R, Direct> for F
        where
            F: Fn($($p),*) -> Future<R> + Send + Sync + 'static,
            R: Value,
            $($p: DeserializeOwned,)*
        {
            fn begin(&self, call: Call<'_>) -> Begun {
                callable!(@read call [] $($p $name),*);
                over(joined(&self($($name),*)))
            }
        }

        impl<F, T, R, $($p),*> JoinFunction<($($p,)*), R, Async> for F
        where
            F: Fn($($p),*) -> T + Send + Sync + 'static,
            T: std::future::Future<Output = Future<R>> + Send + 'static,
            R: Value,
            $($p: DeserializeOwned,)*
        {
            fn begin(&self, call: Call<'_>) -> Begun {
                callable!(@read call [] $($p $name),*);
                let course = self($($name),*);
                going(async move { joined(&course.await) })
            }
        }
    };
}

functions!();
functions!(P1 p1);
functions!(P1 p1, P2 p2);
functions!(P1 p1, P2 p2, P3 p3);
functions!(P1 p1, P2 p2, P3 p3, P4 p4);
functions!(P1 p1, P2 p2, P3 p3, P4 p4, P5 p5);
functions!(P1 p1, P2 p2, P3 p3, P4 p4, P5 p5, P6 p6);

/// A closure as a body.
pub(crate) struct Bare<B>(pub(crate) B);

impl<B: Fn(Call<'_>) -> Begun + Send + Sync> Body for Bare<B> {
    fn begin(&self, call: Call<'_>) -> Course {
        // What a function leaves behind when it panics is its own; nothing of ours is touched.
        match catch_unwind(AssertUnwindSafe(|| (self.0)(call))) {
            Ok(Begun(course)) => course,
            Err(panic) => Course::Over(Err(panicked(&*panic))),
        }
    }
}

/// A panic as a failure of the task that it happened in.
pub(crate) fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let cause = format!("it panicked: {}", text.unwrap_or("with something that is no text"));
    Failure::new(FailureClass::Transient, cause)
}

/// How a function is called in logs, errors and memo keys; `None`: it has no name of its own, as
/// closures and pointers to functions.
pub(crate) fn name_of<F>() -> Option<&'static str> {
    let name = std::any::type_name::<F>();
    let is_nameless = name.contains("{{") || name.contains("fn(") || name.contains("dyn ");
    (!is_nameless).then_some(name)
}
