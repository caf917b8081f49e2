//! Names of images that commands run in, as registries have them.

use std::sync::Arc;

use super::paths::{Complaint, complain};

const HELP: &str = "name it as a registry does, with its digest: \
                    container = \"docker.io/library/alpine@sha256:…\"";

/// The prefix that some tools want and others do not know.
const USUAL_SCHEME: &str = "docker://";

/// A name that a tool for containers can be given, in the form that counts for memo keys.
pub(super) fn check(text: &Arc<str>) -> Result<Arc<str>, Complaint> {
    let name = text.strip_prefix(USUAL_SCHEME).unwrap_or(text);
    let is_odd = |c: char| c.is_whitespace() || c.is_control();
    if name.is_empty() || name.starts_with('-') || name.contains(is_odd) {
        return complain(format!("{text:?} cannot be the name of an image"), HELP);
    }
    let is_file = name.starts_with(['/', '.', '~'])
        || name.rsplit_once('.').is_some_and(|(_, ending)| ending == "sif");
    if is_file && !name.contains("://") {
        return complain(format!("{text:?} is a file: images are taken from registries"), HELP);
    }
    match name.rsplit_once('@') {
        Some((_, digest)) if !is_digest(digest) => complain(
            format!("{digest:?} is no digest of an image"),
            "write what follows from `@` in `podman image ls --digests`: sha256: and 64 \
             hexadecimal digits",
        ),
        _ => Ok(if name.len() == text.len() { text.clone() } else { name.into() }),
    }
}

/// Whether a name means the same image for ever.
pub(crate) fn is_exact(image: &str) -> bool {
    image.rsplit_once('@').is_some_and(|(_, digest)| is_digest(digest))
}

fn is_digest(text: &str) -> bool {
    let digits = text.strip_prefix("sha256:").unwrap_or_default();
    digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_registries_are_taken_and_others_explained() {
        let exact = format!("docker.io/library/alpine@sha256:{}", "0f".repeat(32));
        for good in ["alpine", "alpine:3.20", "host:5000/a/b:1", "library://a/b:1", &exact] {
            assert_eq!(check(&good.into()).as_deref(), Ok(good), "{good}");
        }
        assert_eq!(check(&"docker://alpine".into()).as_deref(), Ok("alpine"));
        assert!(is_exact(&exact) && !is_exact("alpine:3.20"));
        for (bad, told) in [
            ("", "cannot be the name"),
            ("a b", "cannot be the name"),
            ("--privileged", "cannot be the name"),
            ("./tool.sif", "is a file"),
            ("images/tool.sif", "is a file"),
            ("alpine@sha256:abc", "is no digest"),
            ("alpine@3", "is no digest"),
        ] {
            let complaint = check(&bad.into()).unwrap_err();
            assert!(complaint.message.contains(told), "{bad}: {complaint:?}");
        }
    }
}
