//! What a function can be called with: values, futures, files, and collections of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use keelboat_engine::{Digest, Digester, InputSpec, Kind, Source, Uncounted};
use serde::Serialize;

use super::cell::Cell;
use super::file::File;
use super::future::{FileFuture, Future};
use super::handle::Handle;
use super::value::{self, CodecError, Step};

/// Something that can stand for a parameter of type `P`.
///
/// * any value that is `Serialize`, for a parameter of its own type;
/// * a [`Future<P>`](Future): the call runs when it is there;
/// * a [`File`] or [`FileFuture`], for a `PathBuf`: the call runs when the file is here;
/// * a `Vec`, array, `Option`, `HashMap` or `BTreeMap` of futures or files, to any depth;
/// * a `&str`, for a `String`.
///
/// `M` tells these apart; it is found by the compiler and never written.
///
/// ```
/// # use keelboat::flow::{Config, Flow, Future};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// # use std::collections::BTreeMap;
/// fn total(prices: BTreeMap<String, u64>, discount: Option<u64>) -> u64 {
///     prices.values().sum::<u64>() - discount.unwrap_or_default()
/// }
/// fn price(item: String) -> u64 {
///     item.len() as u64
/// }
/// let priced = ["rope", "anchor"].map(|item| (item.to_owned(), flow.call(price, (item,))));
/// let prices: BTreeMap<String, Future<u64>> = priced.into();
/// let total = flow.call(total, (prices, Some(3)));
/// assert_eq!(total.wait()?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Argument<P, M> {
    #[doc(hidden)]
    fn lower(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf>;
}

/// Why an argument cannot be encoded.
#[doc(hidden)]
pub type CodecErrorOf = Box<dyn std::error::Error + Send + Sync>;

/// A part of an encoded list of arguments.
#[derive(Debug, Clone)]
pub(crate) enum Segment {
    Bytes(Vec<u8>),
    /// The value of a task, or a part of it.
    Value {
        taken: usize,
        steps: Arc<[Step]>,
    },
    /// The path of an input.
    Path {
        input: usize,
    },
}

/// An input of a function.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(crate) source: Source,
    pub(crate) sha256: Option<Digest>,
    pub(crate) kind: Kind,
    /// The task that makes it.
    pub(crate) maker: Option<Arc<Cell>>,
}

/// Collects what a call is made of.
#[doc(hidden)]
#[derive(Debug)]
pub struct Lowering {
    /// The flow that it is for.
    handle: Handle,
    pub(crate) segments: Vec<Segment>,
    pub(crate) takes: Vec<Arc<Cell>>,
    pub(crate) inputs: Vec<Input>,
    /// Positions of arguments that make no difference.
    ignored: Arc<[usize]>,
    /// The one of them that is being lowered, and where its segments begin.
    open: Option<(usize, usize)>,
    /// Those that were.
    skipped: Vec<Skipped>,
    /// The next bytes are not of the same argument.
    is_cut: bool,
}

/// The segments of an argument that makes no difference.
#[derive(Debug, Clone)]
struct Skipped {
    position: usize,
    segments: Range<usize>,
}

impl Lowering {
    pub(crate) fn new(handle: Handle) -> Self {
        Self {
            handle,
            segments: Vec::new(),
            takes: Vec::new(),
            inputs: Vec::new(),
            ignored: Arc::default(),
            open: None,
            skipped: Vec::new(),
            is_cut: false,
        }
    }

    /// The same for arguments of which those at these positions make no difference.
    pub(crate) fn ignoring(self, ignored: Arc<[usize]>) -> Self {
        Self { ignored, ..self }
    }

    /// An argument begins.
    fn begin(&mut self, position: usize) {
        self.end();
        if self.ignored.contains(&position) {
            self.open = Some((position, self.segments.len()));
            self.is_cut = true;
        }
    }

    /// All arguments so far are at their end.
    fn end(&mut self) {
        if let Some((position, from)) = self.open.take() {
            let segments = from..self.segments.len();
            self.skipped.push(Skipped { position, segments });
            self.is_cut = true;
        }
    }

    /// What is of arguments that make no difference, and of no other ones; `inputs` are those that its
    /// files become.
    pub(crate) fn uncounted(&self, inputs: &[InputSpec]) -> Uncounted {
        let is_skipped =
            |at: &usize| self.skipped.iter().any(|skipped| skipped.segments.contains(at));
        let (skipped, counted): (Vec<usize>, Vec<usize>) =
            (0..self.segments.len()).partition(is_skipped);
        let of = |places: &[usize]| uses(places.iter().map(|at| &self.segments[*at]));
        let (skipped, counted) = (of(&skipped), of(&counted));
        uncounted(&skipped, &counted, inputs)
    }

    fn bytes(&mut self) -> &mut Vec<u8> {
        let is_cut = std::mem::take(&mut self.is_cut);
        if is_cut || !matches!(self.segments.last(), Some(Segment::Bytes(_))) {
            self.segments.push(Segment::Bytes(Vec::new()));
        }
        match self.segments.last_mut() {
            Some(Segment::Bytes(bytes)) => bytes,
            _ => unreachable!("it was pushed above"),
        }
    }

    pub(crate) fn value(&mut self, value: &impl Serialize) -> Result<(), CodecErrorOf> {
        let encoded = value::encode(value)?;
        self.bytes().extend_from_slice(&encoded);
        Ok(())
    }

    /// No larger than what is in it: very many calls may be waiting.
    pub(crate) fn into_parts(mut self) -> (Box<[Segment]>, Vec<Arc<Cell>>, Vec<Input>) {
        for segment in &mut self.segments {
            if let Segment::Bytes(bytes) = segment {
                bytes.shrink_to_fit();
            }
        }
        self.takes.shrink_to_fit();
        (self.segments.into(), self.takes, self.inputs)
    }

    pub(crate) fn list(&mut self, items: usize) {
        value::push_array_head(self.bytes(), items);
    }

    fn take<T>(&mut self, future: &Future<T>) -> Result<(), CodecErrorOf> {
        future.handle().has_to_be(&self.handle, &future.task())?;
        let same = |known: &Arc<Cell>| Arc::ptr_eq(known, future.cell());
        // Looked up among few: a list of very many futures takes each of them once.
        let recent = self.takes.len().saturating_sub(RECENT);
        let known = self.takes.iter().skip(recent).position(same).map(|at| at + recent);
        let taken = known.unwrap_or_else(|| {
            self.takes.push(Arc::clone(future.cell()));
            self.takes.len() - 1
        });
        self.segments.push(Segment::Value { taken, steps: Arc::clone(future.steps()) });
        Ok(())
    }

    fn file(&mut self, input: Input) {
        self.segments.push(Segment::Path { input: self.inputs.len() });
        self.inputs.push(input);
    }

    /// The digest of all that is known beforehand.
    pub(crate) fn digest(&self) -> Digest {
        if self.skipped.is_empty() {
            return digest_of(&self.segments);
        }
        let mut digester = Digester::new();
        let mut from = 0;
        for Skipped { position, segments } in &self.skipped {
            digester.update(digest_of(&self.segments[from..segments.start]).as_bytes());
            digester.update(&(*position as u64).to_le_bytes());
            from = segments.end;
        }
        digester.update(digest_of(&self.segments[from..]).as_bytes());
        digester.finish()
    }
}

/// The tasks and the files that segments are made of.
pub(crate) fn uses<'s>(segments: impl Iterator<Item = &'s Segment>) -> Uses {
    let mut uses = Uses::default();
    for segment in segments {
        match segment {
            Segment::Bytes(_) => {}
            Segment::Value { taken, .. } => drop(uses.takes.insert(*taken)),
            Segment::Path { input } => drop(uses.inputs.insert(*input)),
        }
    }
    uses
}

/// Positions among the tasks and the files of a lowering.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    takes: BTreeSet<usize>,
    inputs: BTreeSet<usize>,
}

/// What only those use that make no difference.
pub(crate) fn uncounted(skipped: &Uses, counted: &Uses, inputs: &[InputSpec]) -> Uncounted {
    let files = skipped.inputs.difference(&counted.inputs);
    let files = files.filter_map(|at| inputs.get(*at));
    Uncounted {
        takes: skipped.takes.difference(&counted.takes).copied().collect(),
        inputs: files.map(|input| Arc::clone(&input.scratch_path)).collect(),
        ..Uncounted::default()
    }
}

/// The digest of an encoding as far as it is known.
pub(crate) fn digest_of(segments: &[Segment]) -> Digest {
    let mut digester = Digester::new();
    let mut add = |kind: &[u8; 1], bytes: &[u8]| {
        digester.update(kind);
        digester.update(&(bytes.len() as u64).to_le_bytes());
        digester.update(bytes);
    };
    for segment in segments {
        match segment {
            Segment::Bytes(bytes) => add(b"b", bytes),
            Segment::Path { input } => add(b"p", &(*input as u64).to_le_bytes()),
            Segment::Value { taken, steps } => {
                add(b"v", &(*taken as u64).to_le_bytes());
                steps.iter().for_each(|step| match step {
                    Step::Field(name) => add(b"f", name.as_bytes()),
                    Step::Index(index) => add(b"i", &(*index as u64).to_le_bytes()),
                });
            }
        }
    }
    digester.finish()
}

/// Futures that are looked at for one that is taken already.
const RECENT: usize = 8;

/// The bytes of a list of arguments, when all values and paths are known.
pub(crate) fn assemble(
    segments: &[Segment],
    values: &[Arc<[u8]>],
    paths: &[PathBuf],
) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    for segment in segments {
        match segment {
            Segment::Bytes(known) => bytes.extend_from_slice(known),
            Segment::Value { taken, steps } => {
                let value = values.get(*taken).ok_or_else(CodecError::damaged)?;
                bytes.extend_from_slice(value::part(value, steps)?);
            }
            Segment::Path { input } => {
                let path = paths.get(*input).ok_or_else(CodecError::damaged)?;
                bytes.extend_from_slice(&value::encode(path)?);
            }
        }
    }
    Ok(bytes)
}

/// Marks arguments that are values.
#[derive(Debug)]
pub struct Plain;
/// Marks texts for a `String`.
#[derive(Debug)]
pub struct Text;
/// Marks arguments that are not there when the call is made.
#[derive(Debug)]
pub struct Awaited;

/// Something that is not there when the call is made, for a parameter of type `P`: a future, a file,
/// or a collection of them.
///
/// ```
/// # use keelboat::flow::{Config, Flow, Future, LateArgument};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// fn longest(words: Vec<String>) -> Option<String> {
///     words.into_iter().max_by_key(String::len)
/// }
/// /// Takes a list of futures, or the future of a list.
/// fn find(flow: &Flow, words: impl LateArgument<Vec<String>>) -> Future<Option<String>> {
///     flow.call(longest, (words,))
/// }
/// let words = ["ebb", "flood"].map(|word| flow.call(|word: String| word, (word,)));
/// assert_eq!(find(&flow, words).wait()?.as_deref(), Some("flood"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait LateArgument<P> {
    #[doc(hidden)]
    fn lower_late(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf>;
}

impl<T: Serialize> Argument<T, Plain> for T {
    fn lower(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf> {
        lowering.value(&self)
    }
}

impl Argument<String, Text> for &str {
    fn lower(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf> {
        lowering.value(&self)
    }
}

impl<P, A: LateArgument<P>> Argument<P, Awaited> for A {
    fn lower(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf> {
        self.lower_late(lowering)
    }
}

/// Something that the text of a command can be given by [`CommandTask::arg`](super::CommandTask::arg):
/// any value that is `Serialize`, and whatever is a [`LateArgument`].
///
/// `M` tells these apart; it is found by the compiler and never written.
///
/// ```no_run
/// # use keelboat::flow::{CommandArgument, CommandRun, Config, Flow};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// /// Takes a number, or the future of one.
/// fn wait<M>(flow: &Flow, seconds: impl CommandArgument<M>) -> CommandRun {
///     flow.command("sleep {{ seconds }}").arg("seconds", seconds).submit()
/// }
/// wait(&flow, 3).done().wait()?;
/// wait(&flow, flow.call(|| 3, ())).done().wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait CommandArgument<M> {
    #[doc(hidden)]
    fn lower_for_text(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf>;
}

impl<T: Serialize> CommandArgument<Plain> for T {
    fn lower_for_text(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf> {
        lowering.value(&self)
    }
}

impl<P, A: LateArgument<P>> CommandArgument<(Awaited, P)> for A {
    fn lower_for_text(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf> {
        self.lower_late(lowering)
    }
}

impl<T> LateArgument<T> for Future<T> {
    fn lower_late(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf> {
        (&self).lower_late(lowering)
    }
}

impl<T> LateArgument<T> for &Future<T> {
    fn lower_late(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf> {
        lowering.take(self)
    }
}

impl LateArgument<PathBuf> for FileFuture {
    fn lower_late(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf> {
        (&self).lower_late(lowering)
    }
}

impl LateArgument<PathBuf> for &FileFuture {
    fn lower_late(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf> {
        lowering.file(self.as_input(&lowering.handle)?);
        Ok(())
    }
}

impl LateArgument<PathBuf> for File {
    fn lower_late(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf> {
        (&self).lower_late(lowering)
    }
}

impl LateArgument<PathBuf> for &File {
    fn lower_late(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf> {
        lowering.file(self.as_input()?);
        Ok(())
    }
}

fn lower_all<P, A: LateArgument<P>>(
    items: impl ExactSizeIterator<Item = A>,
    lowering: &mut Lowering,
) -> Result<(), CodecErrorOf> {
    lowering.list(items.len());
    for item in items {
        item.lower_late(lowering)?;
    }
    Ok(())
}

impl<P, T: LateArgument<P>> LateArgument<Vec<P>> for Vec<T> {
    fn lower_late(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf> {
        lower_all(self.into_iter(), lowering)
    }
}

impl<P, A: LateArgument<P>, const N: usize> LateArgument<Vec<P>> for [A; N] {
    fn lower_late(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf> {
        lower_all(self.into_iter(), lowering)
    }
}

impl<P, A: LateArgument<P>> LateArgument<Option<P>> for Option<A> {
    fn lower_late(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf> {
        match self {
            Some(item) => item.lower_late(lowering),
            None => lowering.value(&None::<()>),
        }
    }
}

fn lower_entries<K: Serialize, P, A: LateArgument<P>>(
    entries: impl IntoIterator<Item = (K, A)>,
    lowering: &mut Lowering,
) -> Result<(), CodecErrorOf> {
    let mut sorted = BTreeMap::new();
    for (key, item) in entries {
        sorted.insert(value::encode(&key)?, item);
    }
    value::push_map_head(lowering.bytes(), sorted.len());
    for (key, item) in sorted {
        lowering.bytes().extend_from_slice(&key);
        item.lower_late(lowering)?;
    }
    Ok(())
}

impl<K: Serialize, P, V: LateArgument<P>> LateArgument<BTreeMap<K, P>> for BTreeMap<K, V> {
    fn lower_late(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf> {
        lower_entries(self, lowering)
    }
}

impl<K: Serialize, P, V: LateArgument<P>, S> LateArgument<HashMap<K, P>> for HashMap<K, V, S> {
    fn lower_late(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf> {
        lower_entries(self, lowering)
    }
}

/// The arguments of one call, for the parameters `P`.
/// A tuple with one [`Argument`] for each of them; `()` for none, `(x,)` for one.
///
/// ```
/// # use keelboat::flow::{Config, Flow};
/// # let directory = tempfile::tempdir()?;
/// # let flow = Flow::open(Config::new(directory.path()))?;
/// assert_eq!(flow.call(|| 1, ()).wait()?, 1);
/// assert_eq!(flow.call(|x: u8| x, (2,)).wait()?, 2);
/// assert_eq!(flow.call(|x: u8, y: String| (x, y), (3, "y")).wait()?, (3, "y".to_owned()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Arguments<P, M> {
    #[doc(hidden)]
    fn lower(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf>;
}

macro_rules! arguments {
    ($count:literal $($a:ident $p:ident $m:ident $at:tt),*) => {
        impl<$($a, $p, $m),*> Arguments<($($p,)*), ($($m,)*)> for ($($a,)*)
        where
            $($a: Argument<$p, $m>,)*
        {
            fn lower(self, lowering: &mut Lowering) -> Result<(), CodecErrorOf> {
                lowering.list($count);
                $(
                    lowering.begin($at);
                    self.$at.lower(lowering)?;
                )*
                lowering.end();
                Ok(())
            }
        }
    };
}

arguments!(0);
arguments!(1 A1 P1 M1 0);
arguments!(2 A1 P1 M1 0, A2 P2 M2 1);
arguments!(3 A1 P1 M1 0, A2 P2 M2 1, A3 P3 M3 2);
arguments!(4 A1 P1 M1 0, A2 P2 M2 1, A3 P3 M3 2, A4 P4 M4 3);
arguments!(5 A1 P1 M1 0, A2 P2 M2 1, A3 P3 M3 2, A4 P4 M4 3, A5 P5 M5 4);
arguments!(6 A1 P1 M1 0, A2 P2 M2 1, A3 P3 M3 2, A4 P4 M4 3, A5 P5 M5 4, A6 P6 M6 5);
