//! What a bucket's client is made of: the environment's variables, a profile of AWS, and the entry
//! of the credentials file, later ones before earlier ones.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::address::Cloud;
use super::connect::knows;
use super::profile;
use crate::credentials::{Credential, Credentials};
use crate::protocol::TransferError;

/// What gives access to buckets. Holds secrets.
pub(super) struct Settings {
    /// In place of the environment's.
    pub(super) variables: Option<BTreeMap<String, String>>,
    pub(super) credentials: Credentials,
}

/// Names and values for one bucket, the stronger ones later. Holds secrets, so it is never shown.
#[derive(PartialEq, Eq, Clone)]
pub(super) struct Access(Vec<(String, String)>);

impl Access {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The value of the first of these names that has one.
    pub(super) fn value(&self, names: &[&str]) -> Option<&str> {
        let value = |name: &&str| self.iter().filter(|(key, _)| key == name).last();
        names.iter().find_map(value).map(|(_, value)| value).filter(|value| !value.is_empty())
    }

    pub(super) fn has(&self, names: &[&str]) -> bool {
        self.value(names).is_some()
    }

    /// Whether this one is switched on, as `object_store` reads it.
    pub(super) fn is_on(&self, name: &str) -> bool {
        let value = self.value(&[name]).unwrap_or_default().to_ascii_lowercase();
        matches!(&*value, "1" | "true" | "on" | "yes" | "y")
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_owned(), value.into()));
    }
}

impl Settings {
    /// The entry for an address.
    pub(super) fn entry(&self, address: &str) -> Option<Arc<Credential>> {
        self.credentials.lookup(address)
    }

    /// What holds for a bucket now. Files are read again.
    pub(super) fn access(
        &self,
        cloud: Cloud,
        entry: Option<&Credential>,
    ) -> Result<Access, TransferError> {
        let mut access = self.base(cloud);
        if let Some(entry) = entry {
            overlay(&mut access, cloud, entry)?;
        }
        if cloud == Cloud::S3 {
            profile::complete(&mut access)?;
        }
        Ok(access)
    }

    fn base(&self, cloud: Cloud) -> Access {
        let is_ours = |name: &str| {
            name.split_once('_').is_some_and(|(prefix, _)| prefix == cloud.prefix())
                || cloud.other_variables().contains(&name)
        };
        let variables: BTreeMap<String, String> = match &self.variables {
            Some(variables) => variables.clone(),
            None => std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
                .filter_map(|(name, value)| Some((name, value.into_string().ok()?)))
                .collect(),
        };
        Access(variables.into_iter().filter(|(name, _)| is_ours(name)).collect())
    }
}

/// Puts an entry's settings above the others. One that brings credentials of its own is not mixed
/// with those of the environment.
fn overlay(access: &mut Access, cloud: Cloud, entry: &Credential) -> Result<(), TransferError> {
    let mut own: Vec<(String, String)> = Vec::new();
    for (name, value) in &entry.settings {
        let name = name.to_ascii_uppercase();
        if !knows(cloud, &name) && !profile::VARIABLES.contains(&&*name) {
            let shown = cloud.prefix();
            return Err(unusable(entry, &format!("{name} is not one of the {shown}_ variables")));
        }
        own.push((name, value.reveal().to_owned()));
    }
    let token = entry
        .bearer()
        .map_err(|error| TransferError::Refused { found: error.to_string(), hint: error.hint })?;
    if let Some(token) = token {
        let Some(name) = cloud.token_variable() else {
            return Err(unusable(entry, "S3 has no access tokens"));
        };
        own.push((name.to_owned(), token.reveal().to_owned()));
    }
    if own.iter().any(|(name, _)| cloud.gives_access(name)) {
        access.0.retain(|(name, _)| !cloud.gives_access(name));
    }
    access.0.extend(own);
    Ok(())
}

fn unusable(entry: &Credential, cause: &str) -> TransferError {
    TransferError::Refused {
        found: format!("the credentials for {} cannot be used: {cause}", entry.scope),
        hint: "correct this entry of the credentials file".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Secret;

    fn settings(variables: &[(&str, &str)], entries: Vec<Credential>) -> Settings {
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        Settings { variables: Some(variables.collect()), credentials: Credentials::new(entries) }
    }

    fn entry(scope: &str, settings: &[(&str, &str)]) -> Credential {
        let settings = settings.iter().map(|(name, value)| ((*name).into(), Secret::new(*value)));
        Credential { scope: scope.into(), settings: settings.collect(), ..Credential::default() }
    }

    #[test]
    fn credentials_of_an_entry_are_not_mixed_with_others() {
        let variables = [
            ("AWS_ACCESS_KEY_ID", "theirs"),
            ("AWS_SESSION_TOKEN", "theirs"),
            ("AWS_REGION", "eu-west-1"),
            ("GOOGLE_BEARER_TOKEN", "elsewhere"),
        ];
        let own = entry("s3://b", &[("aws_access_key_id", "mine")]);
        let settings = settings(&variables, vec![own]);
        let access =
            |address| settings.access(Cloud::S3, settings.entry(address).as_deref()).unwrap();
        let mine = access("s3://b/k");
        assert_eq!(mine.value(&["AWS_ACCESS_KEY_ID"]), Some("mine"));
        assert!(!mine.has(&["AWS_SESSION_TOKEN", "GOOGLE_BEARER_TOKEN"]));
        assert_eq!(mine.value(&["AWS_REGION"]), Some("eu-west-1"));
        assert_eq!(access("s3://c/k").value(&["AWS_SESSION_TOKEN"]), Some("theirs"));
    }

    #[test]
    fn tokens_come_from_files_that_are_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let entry = Credential {
            scope: "gs://b".into(),
            token_file: Some(path.clone()),
            ..Credential::default()
        };
        let settings = settings(&[], vec![entry]);
        let access = || settings.access(Cloud::Gs, settings.entry("gs://b/k").as_deref());
        let Err(error) = access() else { panic!("there is no token yet") };
        assert!(error.to_string().contains("token"), "{error}");
        for token in ["first", "second"] {
            std::fs::write(&path, format!("{token}\n")).unwrap();
            assert_eq!(access().unwrap().value(&["GOOGLE_BEARER_TOKEN"]), Some(token));
        }
    }

    #[test]
    fn an_entry_of_another_cloud_is_refused() {
        let settings = settings(&[], vec![entry("s3://b", &[("AZURE_CLIENT_ID", "secret")])]);
        let Err(error) = settings.access(Cloud::S3, settings.entry("s3://b/k").as_deref()) else {
            panic!("it is refused")
        };
        assert!(error.to_string().contains("AZURE_CLIENT_ID"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
