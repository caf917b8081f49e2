//! Addresses of files that are elsewhere, in archives, or in the workflow file itself.
//!
//! Deliberately absent: asking anybody. All here is text.

use std::sync::Arc;

use super::paths::{Complaint, Project, SEGMENT_BYTES_MAX, complain};

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
        project.absolute(&of_path(&archive, project)?).into()
    };
    Ok(format!("{format}:{archive}!/{member}").into())
}

/// `zip` or `tar`, and what follows.
fn split_archive(text: &str) -> Option<(&str, &str)> {
    text.split_once(':').filter(|(scheme, _)| matches!(*scheme, "zip" | "tar"))
}

/// The path of an input that has no scheme.
pub(super) fn of_path(text: &Arc<str>, project: &Project) -> Result<Arc<str>, Complaint> {
    check_path(text).and_then(|()| project.input_path(text))
}

/// Whether a text without a scheme is meant as a path: not as an address whose colon or slashes are
/// missing.
fn check_path(text: &str) -> Result<(), Complaint> {
    let Some(meant) = meant_address(text) else { return Ok(()) };
    let meant = keelboat_staging::redact(&meant);
    // Values of parameters may be secrets.
    if text.contains(['@', '?', '#']) {
        return complain("a path looks like an address", format!("did you mean {meant}?"));
    }
    complain(
        format!("the path {text:?} looks like an address"),
        format!("did you mean {meant}? A file that is called so is written \"./{text}\""),
    )
}

/// The path of an output: addresses go into `to`.
pub(super) fn of_output(text: &Arc<str>, project: &Project) -> Result<Arc<str>, Complaint> {
    if scheme_of(text).is_none() {
        return check_path(text).and_then(|()| project.output_path(text));
    }
    complain(
        format!("an output is written to a path, not to {:?}", keelboat_staging::redact(text)),
        "write { path = \"out/NAME\", to = \"ADDRESS\" }: it appears at the path, and is sent to the \
         address then",
    )
}

/// The address that was meant by `sftp//host/x`, `sftp:/host/x`, `sftp:host/x` or `zip//a.zip!/b`.
fn meant_address(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric())?;
    let (scheme, rest) = text.split_at(end);
    let lower = scheme.to_ascii_lowercase();
    if matches!(lower.as_str(), "zip" | "tar") && rest.contains("!/") {
        let archive = rest.strip_prefix("//").or_else(|| rest.strip_prefix(':'))?;
        return Some(format!("{lower}:{archive}"));
    }
    if !SCHEMES.contains(&lower.as_str()) {
        return None;
    }
    // A directory may be called `http`; nobody writes two slashes behind its name.
    let place = rest.strip_prefix("//").or_else(|| rest.strip_prefix(':'))?;
    let place = place.trim_start_matches('/');
    let root = if lower == "file" { "/" } else { "" };
    (!place.is_empty()).then(|| format!("{lower}://{root}{place}"))
}

/// Whether a text is an address that an input may have.
fn check_url(text: &str) -> Result<(), Complaint> {
    const KNOWN: &str = "known schemes: file, http, https, ftp, ftps, sftp, s3, gs, az, globus, \
                         data, and zip: or tar: before one of them";
    let Some(scheme) = scheme_of(text) else {
        check_path(text)?;
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

/// Where an output is copied to, as it was written.
pub(super) fn of_destination(text: &Arc<str>, project: &Project) -> Result<Arc<str>, Complaint> {
    let checked = match scheme_of(text) {
        None => of_path(text, project).map(drop),
        Some(scheme) if DESTINATIONS.contains(&scheme.to_ascii_lowercase().as_str()) => {
            check_url(text)
        }
        Some(scheme) => complain(
            format!("outputs cannot be sent to `{scheme}:` addresses"),
            "write a path, or an http, https, ftp, ftps, sftp, s3, gs, az or globus address",
        ),
    };
    checked.map(|()| Arc::clone(text))
}

/// What a destination is, whichever way it is spelled: two outputs with one of these are sent to one
/// place. That of a path is as [`Project::input_path`] gives those of inputs and outputs. Never to
/// be shown.
pub(super) fn place_of(destination: &Arc<str>, project: &Project) -> Arc<str> {
    let Some(scheme) = scheme_of(destination) else {
        return project.input_path(destination).unwrap_or_else(|_| Arc::clone(destination));
    };
    let scheme = scheme.to_ascii_lowercase();
    let rest = destination.split_once(':').map_or("", |(_, rest)| rest);
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (base, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
    let (authority, path) = base.split_once('/').unwrap_or((base, ""));
    let path = percent_decoded(path.trim_end_matches('/'));
    if scheme == "file" && (authority.is_empty() || authority == "localhost") {
        let path: Arc<str> = format!("/{path}").into();
        return project.input_path(&path).unwrap_or(path);
    }
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let user = user.split(':').next().unwrap_or_default();
    format!("{scheme}://{user}@{}/{path}{query}", host.to_ascii_lowercase()).into()
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
        let project = Project::new(Path::new("/p"));
        for good in ["out/a", "s3://b/k", "sftp://h/a", "https://h/a", "globus://c/a", "file:///a"]
        {
            assert!(of_destination(&good.into(), &project).is_ok(), "{good}");
        }
        for bad in ["data:,x", "zip:a.zip!/b", "htp://h/a", "sftp//h/a", ".keelboat/a", "/", ""] {
            assert!(of_destination(&bad.into(), &project).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_without_a_colon_are_no_paths() {
        for (text, meant) in [
            ("sftp//h/x", "sftp://h/x"),
            ("HTTPS//h/x", "https://h/x"),
            ("https:/h/x", "https://h/x"),
            ("s3:bucket/key", "s3://bucket/key"),
            ("file//data/x", "file:///data/x"),
            ("globus//c/x", "globus://c/x"),
            ("zip//a.zip!/b", "zip:a.zip!/b"),
        ] {
            let complaint = check_path(text).expect_err(text);
            assert!(complaint.help.contains(&format!("did you mean {meant}?")), "{complaint:?}");
            assert_eq!(check_path(&format!("./{text}")), Ok(()), "{text}");
        }
        for path in ["sftp/x", "http", "data//x", "zip//a", "out//x", "a:b", "file", "sftp//"] {
            assert_eq!(check_path(path), Ok(()), "{path}");
        }
        let secret = check_path("sftp//ann:hunter2@h/x").expect_err("no path");
        assert!(!format!("{secret:?}").contains("hunter2"), "{secret:?}");
        assert!(of_output(&"s3://b/k".into(), &Project::new(Path::new("/p"))).is_err());
    }

    #[test]
    fn one_place_has_one_name_however_it_is_spelled() {
        let project = Project::new(Path::new("/p"));
        let place = |text: &str| place_of(&text.into(), &project).to_string();
        for (one, other) in [
            ("out/./a", "file:///p/out/a"),
            ("/else/a", "file://localhost/else//a"),
            ("SFTP://ann:pw@HOST/a%20b/", "sftp://ann@host/a b"),
            ("s3://b/k/", "s3://b/k"),
        ] {
            assert_eq!(place(one), place(other), "{one}");
        }
        for (one, other) in
            [("sftp://ann@h/~/a", "sftp://bob@h/~/a"), ("https://h/a?v=1", "https://h/a?v=2")]
        {
            assert_ne!(place(one), place(other), "{one}");
        }
    }
}
