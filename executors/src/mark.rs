//! The mark that every process of an attempt carries in its environment.
//!
//! Format: `KEELBOAT_PROCESS_OF=TOKEN:t3.1`. An engine that is itself part of a task inherits a
//! mark and appends its own after a space, so that whoever started the outer task still knows all
//! that is below it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use crate::wire::Key;

/// The environment variable that holds the mark.
pub const MARK_VARIABLE: &str = "KEELBOAT_PROCESS_OF";

/// What stands for the attempt in the mark of a warden itself.
pub(crate) const WARDEN: &[u8] = b"warden";

/// The longest token, in bytes.
pub(crate) const TOKEN_BYTES_MAX: usize = 128;

/// Whether a token can stand in a mark.
pub(crate) fn is_token(token: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !token.is_empty() && token.len() <= TOKEN_BYTES_MAX && token.bytes().all(allowed)
}

/// What comes before the attempt in the marks of an engine with this token, `inherited` being the
/// mark of the engine itself.
pub(crate) fn prefix(inherited: Option<&OsStr>, token: &str) -> Vec<u8> {
    let mut mark = Vec::new();
    if let Some(inherited) = inherited.filter(|mark| !mark.is_empty()) {
        mark.extend_from_slice(inherited.as_bytes());
        mark.push(b' ');
    }
    mark.extend_from_slice(token.as_bytes());
    mark.push(b':');
    mark
}

/// What follows `TOKEN:` in a mark, when it is one of this token.
pub(crate) fn bearer<'a>(mark: &'a [u8], token: &[u8]) -> Option<&'a [u8]> {
    mark.split(|&byte| byte == b' ')
        .find_map(|element| element.strip_prefix(token)?.strip_prefix(b":"))
}

/// The attempt in a mark of this token.
pub(crate) fn attempt(mark: &[u8], token: &[u8]) -> Option<Key> {
    let text = std::str::from_utf8(bearer(mark, token)?).ok()?;
    let (task, ordinal) = text.strip_prefix('t')?.split_once('.')?;
    Some(Key { task: task.parse().ok()?, ordinal: ordinal.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let mut mark = prefix(None, "run-1");
        mark.extend_from_slice(b"t7.2");
        assert_eq!(attempt(&mark, b"run-1"), Some(Key { task: 7, ordinal: 2 }));
        assert_eq!(attempt(&mark, b"run"), None);
        assert_eq!(attempt(&mark, b"run-11"), None);
    }

    #[test]
    fn nested_engines_keep_the_outer_mark() {
        let mut mark = prefix(Some(OsStr::new("outer:t1.1")), "inner");
        mark.extend_from_slice(b"t2.3");
        assert_eq!(attempt(&mark, b"outer"), Some(Key { task: 1, ordinal: 1 }));
        assert_eq!(attempt(&mark, b"inner"), Some(Key { task: 2, ordinal: 3 }));
    }

    #[test]
    fn tokens_that_would_break_a_mark_are_refused() {
        assert!(is_token("019a-2b.c_D"));
        for token in ["", "a b", "a:b", "a\0b", "é", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            assert!(!is_token(token), "{token:?}");
        }
    }
}
