//! `globus://COLLECTION/path`: which collection, and which path on it.

use percent_encoding::percent_decode_str;

use crate::address::parse;
use crate::protocol::TransferError;

/// A place on a collection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The collection's id, lower case.
    pub(super) collection: String,
    /// From its root, without a slash at its end, unless it is the root.
    pub(super) path: String,
}

impl Place {
    /// # Errors
    /// [`TransferError::Refused`]: no id of a collection, or a path that nothing can have.
    pub(super) fn parse(address: &str) -> Result<Self, TransferError> {
        let url = parse(address).filter(|url| url.scheme() == "globus");
        let url = url.ok_or_else(|| refused("it is not a globus: address"))?;
        if !url.username().is_empty() || url.password().is_some() || url.port().is_some() {
            return Err(refused("there is a user or a port before the path"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(refused("there is a `?` or `#` in it: write %3F or %23"));
        }
        let collection = url.host_str().unwrap_or_default().to_ascii_lowercase();
        if !is_id(&collection) {
            return Err(refused("there is no id of a collection after globus://"));
        }
        let path = percent_decode_str(url.path()).decode_utf8();
        let path = path.map_err(|_not_utf8| refused("its path is not UTF-8"))?;
        if path.split('/').any(|part| part == ".." || part == ".") {
            return Err(refused("its path has a part `.` or `..`"));
        }
        if path.contains(char::is_control) {
            return Err(refused("its path has a control character"));
        }
        let path = format!("/{}", path.trim_matches('/'));
        Ok(Self { collection, path })
    }

    /// The directory that it is in; `None` for the root.
    pub(super) fn parent(&self) -> Option<Self> {
        let (above, name) = self.path.rsplit_once('/')?;
        if name.is_empty() {
            return None;
        }
        let path = if above.is_empty() { "/" } else { above };
        Some(Self { collection: self.collection.clone(), path: path.to_owned() })
    }
}

/// Whether a text is an id of a collection: thirty-two hexadecimal digits with dashes.
pub fn is_id(text: &str) -> bool {
    text.len() == 36
        && text.char_indices().all(|(at, c)| match at {
            8 | 13 | 18 | 23 => c == '-',
            _ => c.is_ascii_hexdigit(),
        })
}

fn refused(found: &str) -> TransferError {
    TransferError::Refused {
        found: found.to_owned(),
        hint: "write globus://COLLECTION/path, with the collection's id as app.globus.org shows it"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "aaaaaaaa-0000-4000-8000-00000000000b";

    #[test]
    fn collections_and_paths_are_read() {
        let path = |text: &str| Place::parse(&format!("globus://{ID}{text}")).unwrap().path;
        assert_eq!(path("/~/a%20b%3F/c/"), "/~/a b?/c");
        assert_eq!(path(""), "/");
        assert_eq!(path("/a/../../b"), "/b", "as in every URL");
        let upper = Place::parse(&format!("globus://{}/x", ID.to_uppercase())).unwrap();
        assert_eq!(upper.collection, ID);
        assert_eq!(upper.parent().unwrap().path, "/");
        assert_eq!(upper.parent().unwrap().parent(), None);
    }

    #[test]
    fn what_is_no_such_address_is_refused() {
        for rest in ["/a?b", "/a#b", ":1/a", "/a%0Ab", "/a%FF", "/a%2F..%2Fb"] {
            let address = format!("globus://{ID}{rest}");
            assert!(Place::parse(&address).is_err(), "{address}");
        }
        for address in ["globus://my-collection/a", "https://h/a", "globus:a", "/a"] {
            assert!(Place::parse(address).is_err(), "{address}");
        }
    }
}
