//! Values as bytes: what functions are called with and what they return.
//!
//! The encoding is CBOR (RFC 8949) in its deterministic form: lengths are definite and as short as
//! can be, and the entries of maps are sorted by the bytes of their keys. So equal values have equal
//! digests, on every machine and in whatever order a hash map was walked.

use std::cell::Cell;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The deepest nesting of arrays and maps.
const DEPTH_MAX: usize = 128;

/// A value that cannot be encoded, or bytes that are no such value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CodecError(String);

impl CodecError {
    /// Bytes are not what they have to be.
    pub(crate) fn damaged() -> Self {
        Self("these bytes are no value".to_owned())
    }
}

/// The bytes of a value.
pub(crate) fn encode(value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).map_err(|error| CodecError(error.to_string()))?;
    sort_maps(&mut bytes)?;
    Ok(bytes)
}

/// What the decoder has for texts that it does not give away. Longer ones are no names of fields.
const SCRATCH_BYTES: usize = 4096;

thread_local! {
    /// Kept, since most values are much shorter than it takes to clear it.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The value that these bytes are.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let mut rest = bytes;
    let mut scratch = SCRATCH.take();
    scratch.resize(SCRATCH_BYTES, 0);
    let value = ciborium::de::from_reader_with_buffer(&mut rest, &mut scratch);
    SCRATCH.set(scratch);
    let value = value.map_err(|error| {
        let text = match error {
            ciborium::de::Error::Semantic(_, text) => text,
            other => other.to_string(),
        };
        CodecError(text)
    })?;
    if rest.is_empty() { Ok(value) } else { Err(CodecError("something follows it".to_owned())) }
}

/// The head of an array of so many items.
pub(crate) fn push_array_head(bytes: &mut Vec<u8>, items: usize) {
    push_head(bytes, ARRAY, items as u64);
}

/// The head of a map of so many entries.
pub(crate) fn push_map_head(bytes: &mut Vec<u8>, entries: usize) {
    push_head(bytes, MAP, entries as u64);
}

/// A step into a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// To the field of a struct, or the entry of a map with a text as its key.
    Field(Box<str>),
    /// To an item of a list or tuple, from 0.
    Index(usize),
}

/// The part of a value that these steps lead to.
pub(crate) fn part<'a>(bytes: &'a [u8], steps: &[Step]) -> Result<&'a [u8], CodecError> {
    let mut whole = bytes;
    for step in steps {
        let (head, rest) = read_head(whole)?;
        whole = match (step, head.major) {
            (Step::Index(index), ARRAY) => item(rest, head.argument, *index)?,
            (Step::Field(name), MAP) => entry(rest, head.argument, name)?,
            (Step::Index(index), _) => {
                return Err(CodecError(format!("it is no list that has an item {index}")));
            }
            (Step::Field(name), _) => {
                return Err(CodecError(format!("it has no fields, so none called {name:?}")));
            }
        };
    }
    Ok(whole)
}

fn item(mut rest: &[u8], items: u64, index: usize) -> Result<&[u8], CodecError> {
    if index as u64 >= items {
        return Err(CodecError(format!("it has {items} items, so none at {index}")));
    }
    for _ in 0..index {
        rest = skip(rest, DEPTH_MAX)?;
    }
    first(rest)
}

fn entry<'a>(mut rest: &'a [u8], entries: u64, name: &str) -> Result<&'a [u8], CodecError> {
    for _ in 0..entries {
        let (head, text) = read_head(rest)?;
        let value = skip(rest, DEPTH_MAX)?;
        let length = usize::try_from(head.argument).unwrap_or(usize::MAX);
        if head.major == TEXT && text.get(..length) == Some(name.as_bytes()) {
            return first(value);
        }
        rest = skip(value, DEPTH_MAX)?;
    }
    Err(CodecError(format!("it has no field {name:?}")))
}

/// The first of the items that these bytes begin with.
fn first(bytes: &[u8]) -> Result<&[u8], CodecError> {
    let rest = skip(bytes, DEPTH_MAX)?;
    Ok(bytes.get(..bytes.len() - rest.len()).unwrap_or_default())
}

const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

struct Head {
    major: u8,
    argument: u64,
}

/// RFC 8949, section 3. Indefinite lengths are not ours.
fn read_head(bytes: &[u8]) -> Result<(Head, &[u8]), CodecError> {
    let (first, rest) = bytes.split_first().ok_or_else(CodecError::damaged)?;
    let (major, short) = (first >> 5, first & 0x1f);
    let length = match short {
        0..24 => return Ok((Head { major, argument: u64::from(short) }, rest)),
        24..28 => 1usize << (short - 24),
        _ => return Err(CodecError::damaged()),
    };
    let (argument, rest) = rest.split_at_checked(length).ok_or_else(CodecError::damaged)?;
    let argument = argument.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    Ok((Head { major, argument }, rest))
}

fn push_head(bytes: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    let wide = argument.to_be_bytes();
    let (short, length) = match argument {
        0..24 => return bytes.push(major | wide[7]),
        24..0x100 => (24, 1),
        0x100..0x1_0000 => (25, 2),
        0x1_0000..0x1_0000_0000 => (26, 4),
        _ => (27, 8),
    };
    bytes.push(major | short);
    bytes.extend_from_slice(&wide[8 - length..]);
}

/// What follows the first item.
fn skip(bytes: &[u8], depth: usize) -> Result<&[u8], CodecError> {
    let depth = depth.checked_sub(1).ok_or_else(|| CodecError("it is nested too deep".into()))?;
    let (head, mut rest) = read_head(bytes)?;
    let items = match head.major {
        BYTES | TEXT => {
            let length = usize::try_from(head.argument).ok();
            return length.and_then(|length| rest.get(length..)).ok_or_else(CodecError::damaged);
        }
        ARRAY => head.argument,
        MAP => head.argument.checked_mul(2).ok_or_else(CodecError::damaged)?,
        TAG => 1,
        _ => 0,
    };
    for _ in 0..items {
        rest = skip(rest, depth)?;
    }
    Ok(rest)
}

/// Sorts the entries of all maps, and makes the lengths definite that the encoder left open.
fn sort_maps(bytes: &mut Vec<u8>) -> Result<(), CodecError> {
    let may_hold_one = bytes.iter().any(|byte| byte >> 5 == MAP || byte & 0x1f == 0x1f);
    if !may_hold_one {
        return Ok(());
    }
    let mut sorted = Vec::with_capacity(bytes.len());
    let rest = sort_into(bytes, &mut sorted, DEPTH_MAX)?;
    if !rest.is_empty() {
        return Err(CodecError::damaged());
    }
    *bytes = sorted;
    Ok(())
}

/// The byte that ends an item of indefinite length.
const BREAK: u8 = 0xff;

fn sort_into<'a>(
    bytes: &'a [u8],
    sorted: &mut Vec<u8>,
    depth: usize,
) -> Result<&'a [u8], CodecError> {
    let depth = depth.checked_sub(1).ok_or_else(|| CodecError("it is nested too deep".into()))?;
    let (first, after) = bytes.split_first().ok_or_else(CodecError::damaged)?;
    let (major, is_open) = (first >> 5, first & 0x1f == 0x1f);
    if !matches!(major, ARRAY | MAP | TAG) {
        let rest = skip(bytes, 2)?;
        sorted.extend_from_slice(bytes.get(..bytes.len() - rest.len()).unwrap_or_default());
        return Ok(rest);
    }
    let (count, mut rest) = if is_open {
        (None, after)
    } else {
        let (head, rest) = read_head(bytes)?;
        (Some(head.argument), rest)
    };
    if major == TAG {
        push_head(sorted, TAG, count.ok_or_else(CodecError::damaged)?);
        return sort_into(rest, sorted, depth);
    }
    let mut entries: Vec<(Vec<u8>, usize)> = Vec::new();
    let goes_on = |rest: &[u8], so_far: usize| match count {
        Some(count) => (so_far as u64) < count,
        None => rest.first() != Some(&BREAK),
    };
    while goes_on(rest, entries.len()) {
        let mut entry = Vec::new();
        rest = sort_into(rest, &mut entry, depth)?;
        let key = entry.len();
        if major == MAP {
            rest = sort_into(rest, &mut entry, depth)?;
        }
        entries.push((entry, key));
    }
    if count.is_none() {
        rest = rest.get(1..).unwrap_or_default();
    }
    if major == MAP {
        entries.sort_by(|(a, a_key), (b, b_key)| a.get(..*a_key).cmp(&b.get(..*b_key)));
    }
    push_head(sorted, major, entries.len() as u64);
    for (entry, _) in entries {
        sorted.extend_from_slice(&entry);
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        name: String,
        reads: Option<u64>,
        weights: Vec<f64>,
        #[serde(flatten)]
        rest: BTreeMap<String, i32>,
    }

    fn sample() -> Sample {
        let rest = [("z".to_owned(), 1), ("b".to_owned(), -2)].into();
        Sample { name: "s".to_owned(), reads: Some(1 << 40), weights: vec![0.5, 1e9], rest }
    }

    #[test]
    fn what_goes_in_comes_out() {
        let bytes = encode(&sample()).unwrap();
        assert_eq!(decode::<Sample>(&bytes).unwrap(), sample());
        assert_eq!(decode::<()>(&encode(&()).unwrap()), Ok(()));
        assert_eq!(decode::<(u8, String)>(&encode(&(1, "x")).unwrap()), Ok((1, "x".to_owned())));
        let nested = vec![vec![Some("a")], vec![None; 300]];
        let back: Vec<Vec<Option<String>>> = decode(&encode(&nested).unwrap()).unwrap();
        assert_eq!(back[1].len(), 300);
    }

    #[test]
    fn the_order_of_a_hash_map_is_not_seen() {
        let keys: Vec<String> = (0..100).map(|key| format!("key {key}")).collect();
        let forth: HashMap<&String, usize> = keys.iter().zip(0..).collect();
        let back: HashMap<&String, usize> = keys.iter().zip(0..100).rev().collect();
        let bytes = encode(&vec![&forth]).unwrap();
        assert_eq!(bytes, encode(&vec![&back]).unwrap());
        let again: Vec<HashMap<String, usize>> = decode(&bytes).unwrap();
        assert_eq!(again[0].len(), 100);
    }

    #[test]
    fn parts_are_found_and_told_when_not_there() {
        let bytes = encode(&(sample(), vec![1, 2, 3])).unwrap();
        let weights = [Step::Index(0), Step::Field("weights".into()), Step::Index(1)];
        assert_eq!(decode::<f64>(part(&bytes, &weights).unwrap()), Ok(1e9));
        assert_eq!(decode::<u8>(part(&bytes, &[Step::Index(1), Step::Index(2)]).unwrap()), Ok(3));
        for steps in [
            vec![Step::Index(2)],
            vec![Step::Field("x".into())],
            vec![Step::Index(0), Step::Field("x".into())],
            vec![Step::Index(0), Step::Field("name".into()), Step::Index(0)],
        ] {
            assert!(part(&bytes, &steps).is_err(), "{steps:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_value_are_an_error() {
        for bytes in [&[][..], &[0x81], &[0x62, b'a'], &[0x1c], &[0xff], &[0x01, 0x01]] {
            assert!(decode::<u8>(bytes).is_err(), "{bytes:?}");
            assert!(part(bytes, &[Step::Index(0)]).is_err(), "{bytes:?}");
        }
        let deep = [0x81; 10_000];
        assert!(part(&deep, &[Step::Index(0)]).is_err());
        assert!(decode::<u8>(&encode("text").unwrap()).is_err());
    }
}
