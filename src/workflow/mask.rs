//! Texts as they may be shown: without the secrets of addresses in them.

use std::sync::Arc;

/// The same text, byte by byte in the same places, with stars for user information and the values of
/// queries in addresses. What is not known to be one stays: a text that is none may look like it.
pub(super) fn secrets(text: &Arc<str>) -> Arc<str> {
    let mut masked = text.as_bytes().to_vec();
    let mut start = 0;
    while let Some(length) = masked.get(start..).map(word_length) {
        let word = &mut masked[start..start + length];
        if let Some(authority) = authority_of(word) {
            mask_address(&mut word[authority..]);
        }
        start += length + 1;
    }
    String::from_utf8(masked).map_or_else(|_| Arc::clone(text), Arc::from)
}

/// Bytes before the next one that ends an address. What stands in a template ends none.
fn word_length(text: &[u8]) -> usize {
    let mut in_template = false;
    let end = text.iter().enumerate().position(|(at, byte)| {
        let pair = text.get(at..at + 2);
        in_template = (in_template || pair == Some(b"{{")) && pair != Some(b"}}");
        *byte == b'\n' || !in_template && ends_address(*byte)
    });
    end.unwrap_or(text.len())
}

/// Quotes, white space and what else stands around addresses.
fn ends_address(byte: u8) -> bool {
    byte.is_ascii_whitespace() || b"\"'`<>".contains(&byte)
}

/// Where the authority begins in what is an address, or was meant to be one: `https:/host`, `sftp//host`.
fn authority_of(word: &[u8]) -> Option<usize> {
    let slashes = word.windows(2).position(|pair| pair == b":/" || pair == b"//")?;
    let rest = &word[slashes..];
    Some(slashes + rest.iter().position(|byte| !b":/".contains(byte))?)
}

/// What follows `://`.
fn mask_address(address: &mut [u8]) {
    let authority = address.iter().position(|byte| b"/?#".contains(byte));
    let authority = authority.unwrap_or(address.len());
    if let Some(user) = address[..authority].iter().rposition(|byte| *byte == b'@') {
        address[..user].fill(b'*');
    }
    let Some(query) = address.iter().position(|byte| *byte == b'?') else { return };
    for pair in address[query + 1..].split_mut(|byte| *byte == b'&') {
        // A query without `=` may itself be a token.
        let value = pair.iter().position(|byte| *byte == b'=').map_or(0, |equals| equals + 1);
        pair[value..].fill(b'*');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_secrets() {
        for (text, shown) in [
            ("i = 'https://host/a?b'", "i = 'https://host/a?*'"),
            ("\"https://ann:pw@host/a?x=1&y=2\", z", "\"https://******@host/a?x=*&y=*\", z"),
            ("sftp://pä@host", "sftp://***@host"),
            (
                "https://host/{{ x | f('a') }}?y={{ z }}'",
                "https://host/{{ x | f('a') }}?y=*******'",
            ),
            ("https://host/a@b c?y=z", "https://host/a@b c?y=z"),
            ("no address: a@b?c=d", "no address: a@b?c=d"),
            ("http:/ann:pw@host?x", "http:/******@host?*"),
            ("sftp//ann@host and https://ann@host", "sftp//***@host and https://***@host"),
            ("out//a ://", "out//a ://"),
        ] {
            assert_eq!(&*secrets(&text.into()), shown);
        }
    }
}
