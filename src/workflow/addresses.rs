//! Addresses of files that are elsewhere, in archives, or in the workflow file itself.
//!
//! Deliberately absent: asking anybody. All here is text.

use std::sync::Arc;

use super::paths::{Complaint, Project, SEGMENT_BYTES_MAX, check_text, complain};

/// Schemes of addresses that inputs may have.
const SCHEMES: [&str; 10] =
    ["file", "http", "https", "ftp", "ftps", "sftp", "s3", "gs", "az", "globus"];

/// Schemes of addresses that outputs can be sent to.
const DESTINATIONS: [&str; 10] =
    ["file", "http", "https", "ftp", "ftps", "sftp", "s3", "gs", "az", "globus"];

/// The longest text that a `data:` address may hold.
const DATA_BYTES_MAX: usize = 1 << 20;

/// The scheme of an address; `None`: it is a path.
pub(super) fn scheme_of(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(':')?;
    let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    let needs_no_host = matches!(scheme, "file" | "data" | "zip" | "tar");
    (valid && (rest.starts_with("//") || needs_no_host)).then_some(scheme)
}

/// The address of a text that stands in the workflow file.
pub(super) fn of_text(text: &str) -> Result<Arc<str>, Complaint> {
    if text.len() > DATA_BYTES_MAX {
        return complain(
            format!("the text has {} bytes", text.len()),
            "texts of up to 1 MiB may stand in the workflow file: put this one into a file",
        );
    }
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    let escaped: String = text.bytes().map(escape).collect();
    Ok(format!("data:,{escaped}").into())
}

/// The address of an input as everybody can use it: archives of the project by their whole path.
pub(super) fn of_input(text: &Arc<str>, project: &Project) -> Result<Arc<str>, Complaint> {
    let Some((format, rest)) = split_archive(text) else {
        return check_url(text).map(|()| Arc::clone(text));
    };
    let (archive, member) = rest.rsplit_once("!/").unwrap_or((rest, ""));
    if archive.is_empty() || !rest.contains("!/") {
        return complain(
            format!("{:?} names no member of an archive", keelboat_staging::redact(text)),
            "write zip:ADDRESS!/PATH or tar:ADDRESS!/PATH; `!/` alone is all of it",
        );
    }
    let archive: Arc<str> = archive.into();
    let archive = if scheme_of(&archive).is_some() {
        of_input(&archive, project)?
    } else {
        project.absolute(&project.input_path(&archive)?).into()
    };
    Ok(format!("{format}:{archive}!/{member}").into())
}

/// `zip` or `tar`, and what follows.
fn split_archive(text: &str) -> Option<(&str, &str)> {
    text.split_once(':').filter(|(scheme, _)| matches!(*scheme, "zip" | "tar"))
}

/// Whether a text is an address that an input may have.
fn check_url(text: &str) -> Result<(), Complaint> {
    const KNOWN: &str = "known schemes: file, http, https, ftp, ftps, sftp, s3, gs, az, globus, \
                         data, and zip: or tar: before one of them";
    let Some(scheme) = scheme_of(text) else {
        return complain(
            format!("{text:?} is not an address"),
            "an address begins with https:// or the like",
        );
    };
    if scheme == "data" {
        return check_data(text);
    }
    if !SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()) {
        return complain(format!("there is no scheme `{scheme}`"), KNOWN);
    }
    // Values of parameters may be secrets.
    let redacted = keelboat_staging::redact(text);
    let shown = if text.contains(['@', '?', '#']) { redacted.as_str() } else { text };
    if text.chars().any(|c| c.is_control() || c == ' ') {
        return complain(
            format!("the address {shown:?} has a space or control character"),
            "write %20 in place of a space",
        );
    }
    let rest = text.split_once("://").map_or("/", |(_, rest)| rest);
    if rest.is_empty() || (scheme != "file" && rest.starts_with(['/', '?', '#'])) {
        return complain(format!("the address {shown:?} names no host"), "write https://HOST/PATH");
    }
    if redacted.ends_with("(not a URL)") {
        return complain(
            format!("the address {shown:?} cannot be read"),
            "write %23, %2F, %3A and %40 in place of #, /, : and @ in a name or password",
        );
    }
    Ok(())
}

fn check_data(text: &str) -> Result<(), Complaint> {
    if !text.contains(',') {
        return complain(
            "a data: address has no comma",
            "write data:,TEXT or data:;base64,DATA; or { text = \"...\" }",
        );
    }
    if text.len() > DATA_BYTES_MAX || text.chars().any(char::is_control) {
        return complain(
            "a data: address has control characters, or more than 1 MiB",
            "write %0A for the end of a line, or { text = \"...\" }; put long texts into a file",
        );
    }
    Ok(())
}

/// The address that an output is copied to.
pub(super) fn check_destination(text: &str) -> Result<(), Complaint> {
    let Some(scheme) = scheme_of(text) else { return check_text(text, "destination") };
    if DESTINATIONS.contains(&scheme.to_ascii_lowercase().as_str()) {
        return check_url(text);
    }
    complain(
        format!("outputs cannot be sent to `{scheme}:` addresses"),
        "write a path, or an http, https, ftp, ftps, sftp, s3, gs, az or globus address",
    )
}

/// Where an input from an address appears: under the last segment of its path.
pub(super) fn scratch_of_url(url: &str, label: &Arc<str>) -> Arc<str> {
    if url.starts_with("data:") {
        return label.clone();
    }
    let path = match split_archive(url).and_then(|(_, rest)| rest.rsplit_once("!/")) {
        Some((archive, "")) => archive.split(['?', '#']).next().unwrap_or(""),
        Some((_, member)) => member,
        None => {
            let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
            let path = rest.split(['?', '#']).next().unwrap_or("");
            path.split_once('/').map_or("", |(_, path)| path)
        }
    };
    let last = path.rsplit('/').find(|segment| !segment.is_empty()).unwrap_or("");
    let name: String = percent_decoded(last)
        .chars()
        .map(|c| if c == '/' || c.is_control() { '_' } else { c })
        .collect();
    if name.is_empty() || name == "." || name == ".." || name.len() > SEGMENT_BYTES_MAX {
        return label.clone();
    }
    name.into()
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let code = digits
            .filter(|pair| byte == b'%' && pair.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn addresses_have_schemes_and_hosts() {
        assert_eq!(scheme_of("https://h/x"), Some("https"));
        assert_eq!(scheme_of("file:/x"), Some("file"));
        assert_eq!(scheme_of("a:b"), None);
        assert_eq!(scheme_of("out/a://b"), None);
        assert_eq!(check_url("ftp://h/x"), Ok(()));
        assert_eq!(check_url("file:///x"), Ok(()));
        for object in ["s3://bucket/a/k", "gs://bucket/k", "az://container/a%20b"] {
            assert_eq!(check_url(object), Ok(()), "{object}");
        }
        for bad in ["htp://h/x", "https:///x", "https://", "https://h/a b", "x"] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_that_cannot_be_read_keeps_its_secret() {
        for text in ["https://me:hunter2#x@host/data", "https://host/a b?sig=hunter2"] {
            let complaint = check_url(text).expect_err("no address");
            let told = format!("{complaint:?}");
            assert!(!told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn scratch_names_come_from_the_end_of_an_address() {
        let url = |url: &str| scratch_of_url(url, &"label".into()).to_string();
        assert_eq!(url("https://h/a/b.fq?x=/../y#z"), "b.fq");
        assert_eq!(url("https://h/a%20b"), "a b");
        assert_eq!(url("https://h/..%2f..%2fetc%00"), ".._.._etc_");
        assert_eq!(url("https://h/%2e%2e"), "label");
        assert_eq!(url("https://h"), "label");
        assert_eq!(url("https://h/a/"), "a");
        assert_eq!(url("file:///a/b%ff"), "b%ff");
        assert_eq!(url("data:,a/b"), "label");
        assert_eq!(url("zip:https://h/a.zip?x!/c/d%20e.txt"), "d e.txt");
        assert_eq!(url("tar:https://h/a.tgz?x=/y!/"), "a.tgz");
    }

    #[test]
    fn archives_and_texts_have_addresses() {
        let project = Project::new(Path::new("/p"));
        let of = |text: &str| {
            let made = of_input(&text.into(), &project);
            made.map(|address| address.to_string()).map_err(|complaint| complaint.message)
        };
        assert_eq!(of("zip:data/a.zip!/b c").as_deref(), Ok("zip:/p/data/a.zip!/b c"));
        assert_eq!(of("zip:/x/a.zip!/").as_deref(), Ok("zip:/x/a.zip!/"));
        let remote = "tar:https://h/a.tgz!/b";
        assert_eq!(of(remote).as_deref(), Ok(remote));
        for bad in ["zip:a.zip", "zip:!/a", "zip:htp://h/a!/b", "data:x", "data:,a\nb"] {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert_eq!(of_text("a b\n").as_deref(), Ok("data:,a%20b%0A"));
        assert!(of_text(&"x".repeat((1 << 20) + 1)).is_err());
    }

    #[test]
    fn outputs_go_to_what_can_be_written() {
        for good in ["out/a", "s3://b/k", "sftp://h/a", "https://h/a", "globus://c/a", "file:///a"]
        {
            assert_eq!(check_destination(good), Ok(()), "{good}");
        }
        for bad in ["data:,x", "zip:a.zip!/b", "htp://h/a"] {
            assert!(check_destination(bad).is_err(), "{bad}");
        }
    }
}
