//! Profiles of the AWS command line: `~/.aws/credentials` and `~/.aws/config`.
//!
//! Read are static keys, a web identity, region and endpoint. Deliberately absent: programs, single
//! sign-on and roles that are had by way of another profile; the error says how to go around them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::settings::Access;
use crate::credentials::read_text;
use crate::protocol::TransferError;

/// Bytes of such a file that are read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The variables that are about profiles.
pub(super) const VARIABLES: &[&str] =
    &["AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"];

/// What makes a profile unnecessary for access.
const OWN_ACCESS: &[&str] =
    &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_WEB_IDENTITY_TOKEN_FILE"];

/// Settings of a profile and the variables that they stand for.
const KEYS: &[(&str, &str)] = &[
    ("aws_access_key_id", "AWS_ACCESS_KEY_ID"),
    ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY"),
    ("aws_session_token", "AWS_SESSION_TOKEN"),
];
const WEB_IDENTITY: &[(&str, &str)] = &[
    ("web_identity_token_file", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    ("role_arn", "AWS_ROLE_ARN"),
    ("role_session_name", "AWS_ROLE_SESSION_NAME"),
];

/// Ways to credentials that are not gone here.
const NOT_DONE: &[&str] =
    &["credential_process", "sso_session", "sso_start_url", "role_arn", "login_session"];

type Profile = BTreeMap<String, String>;

/// Adds what the profile says and the variables do not.
pub(super) fn complete(access: &mut Access) -> Result<(), TransferError> {
    let named = access.value(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]).map(str::to_owned);
    let needs_access = !access.has(OWN_ACCESS) && !access.is_on("AWS_SKIP_SIGNATURE");
    let name = named.as_deref().unwrap_or("default");
    let Some(profile) = load(access, name)? else {
        return match named {
            Some(name) if needs_access => Err(TransferError::Refused {
                found: format!("there is no profile {name:?} of AWS"),
                hint: "correct AWS_PROFILE, or add the profile to ~/.aws/config".into(),
            }),
            _ => Ok(()),
        };
    };
    if needs_access {
        add_access(access, &profile, name)?;
    }
    if let Some(region) = profile.get("region")
        && !access.has(&["AWS_REGION", "AWS_DEFAULT_REGION"])
    {
        access.set("AWS_REGION", region);
    }
    if let Some(endpoint) = profile.get("endpoint_url")
        && !access.has(&["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"])
    {
        access.set("AWS_ENDPOINT_URL", endpoint);
    }
    Ok(())
}

fn add_access(access: &mut Access, profile: &Profile, name: &str) -> Result<(), TransferError> {
    let has = |key: &str| profile.contains_key(key);
    let variables = if has("aws_access_key_id") && has("aws_secret_access_key") {
        KEYS
    } else if has("web_identity_token_file") && has("role_arn") {
        WEB_IDENTITY
    } else if let Some(way) = NOT_DONE.iter().find(|way| has(way)) {
        return Err(TransferError::Refused {
            found: format!("the profile {name:?} of AWS has its credentials by {way}"),
            hint: format!(
                "that is not done here: set the variables that `aws configure export-credentials \
                 --profile {name} --format env` prints"
            ),
        });
    } else {
        return Ok(());
    };
    for (key, variable) in variables {
        if let Some(value) = profile.get(*key) {
            access.set(variable, value);
        }
    }
    Ok(())
}

/// The profile, if there is one; the file with credentials wins over the other one.
fn load(access: &Access, name: &str) -> Result<Option<Profile>, TransferError> {
    let in_config = if name == "default" { name.to_owned() } else { format!("profile {name}") };
    let files = [
        ("AWS_CONFIG_FILE", "config", &*in_config),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", name),
    ];
    let mut found = None;
    for (variable, file, section) in files {
        let home = || Some(Path::new(access.value(&["HOME"])?).join(".aws").join(file));
        let Some(path) = access.value(&[variable]).map(PathBuf::from).or_else(home) else {
            continue;
        };
        let text = match read_text(&path, FILE_BYTES_MAX) {
            Ok(text) => text,
            Err(error) if is_absent(&error) => continue,
            Err(error) => {
                return Err(TransferError::Refused {
                    found: format!("cannot read {}: {error}", path.display()),
                    hint: format!("let yourself read it, or set {variable} to another file"),
                });
            }
        };
        if let Some(profile) = parse(&text, section) {
            found.get_or_insert_with(Profile::new).extend(profile);
        }
    }
    Ok(found)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// One section. Indented lines belong to the setting above them and are not needed.
fn parse(text: &str, section: &str) -> Option<Profile> {
    let mut profile = None;
    let mut is_inside = false;
    for line in text.lines() {
        let is_nested = line.starts_with(char::is_whitespace);
        let line = line.trim();
        if is_nested || line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            let name = header.split(']').next().unwrap_or_default();
            is_inside = name.split_whitespace().eq(section.split_whitespace());
            if is_inside {
                profile.get_or_insert_with(Profile::new);
            }
        } else if let (true, Some(profile), Some((key, value))) =
            (is_inside, &mut profile, line.split_once('='))
        {
            profile.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    profile
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Credentials;
    use crate::protocol::bucket::address::Cloud;
    use crate::protocol::bucket::settings::Settings;

    const CREDENTIALS: &str = "\
# keys
[default]
aws_access_key_id = AKIDDEFAULT
aws_secret_access_key=not/to=be+shown

[lab]
aws_access_key_id = AKIDLAB
aws_secret_access_key = not-to-be-shown
aws_session_token = temporary
";
    const CONFIG: &str = "\
[default]
region = eu-north-1
[profile lab]
region = eu-west-2
endpoint_url = https://s3.lab.example
s3 =
    addressing_style = path
[profile work]
sso_session = work
[profile tool]
credential_process = /bin/tool
";

    fn access(variables: &[(&str, &str)]) -> Result<Access, TransferError> {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        std::fs::write(home.path().join(".aws/credentials"), CREDENTIALS).unwrap();
        std::fs::write(home.path().join(".aws/config"), CONFIG).unwrap();
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let place = ("HOME".to_owned(), home.path().to_str().unwrap().to_owned());
        let settings = Settings {
            variables: Some(variables.chain([place]).collect()),
            credentials: Credentials::default(),
        };
        settings.access(Cloud::S3, None)
    }

    #[test]
    fn the_default_profile_is_used_unless_variables_say_otherwise() {
        let default = access(&[]).unwrap();
        assert_eq!(default.value(&["AWS_ACCESS_KEY_ID"]), Some("AKIDDEFAULT"));
        assert_eq!(default.value(&["AWS_SECRET_ACCESS_KEY"]), Some("not/to=be+shown"));
        assert_eq!(default.value(&["AWS_REGION"]), Some("eu-north-1"));
        let own = access(&[("AWS_ACCESS_KEY_ID", "mine"), ("AWS_REGION", "r")]).unwrap();
        assert_eq!(own.value(&["AWS_ACCESS_KEY_ID"]), Some("mine"));
        assert_eq!(own.value(&["AWS_REGION"]), Some("r"));
        assert!(!own.has(&["AWS_SECRET_ACCESS_KEY"]), "keys of two owners are not mixed");
        assert!(!access(&[("AWS_SKIP_SIGNATURE", "true")]).unwrap().has(&["AWS_ACCESS_KEY_ID"]));
    }

    #[test]
    fn a_named_profile_is_read_from_both_files() {
        let lab = access(&[("AWS_PROFILE", "lab")]).unwrap();
        assert_eq!(lab.value(&["AWS_ACCESS_KEY_ID"]), Some("AKIDLAB"));
        assert_eq!(lab.value(&["AWS_SESSION_TOKEN"]), Some("temporary"));
        assert_eq!(lab.value(&["AWS_REGION"]), Some("eu-west-2"));
        assert_eq!(lab.value(&["AWS_ENDPOINT_URL"]), Some("https://s3.lab.example"));
    }

    #[test]
    fn what_is_not_done_says_what_to_do() {
        for (name, way) in [("work", "sso_session"), ("tool", "credential_process")] {
            let Err(error) = access(&[("AWS_PROFILE", name)]) else { panic!("{name} is refused") };
            assert!(error.to_string().contains(way), "{error}");
            assert!(error.hint().contains("export-credentials"), "{}", error.hint());
        }
        let Err(error) = access(&[("AWS_PROFILE", "nobody")]) else { panic!("it is refused") };
        assert!(error.to_string().contains("\"nobody\""), "{error}");
    }
}
