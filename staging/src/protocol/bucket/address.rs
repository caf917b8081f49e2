//! `scheme://bucket/key`: which cloud, which bucket, which object.

use object_store::path::Path;

use crate::protocol::TransferError;

/// Whose buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cloud {
    /// S3 and its kin.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage.
    Az,
}

impl Cloud {
    fn of(scheme: &str) -> Option<Self> {
        match scheme.to_ascii_lowercase().as_str() {
            "s3" => Some(Self::S3),
            "gs" => Some(Self::Gs),
            "az" => Some(Self::Az),
            _ => None,
        }
    }

    /// How its variables begin.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::S3 => "AWS",
            Self::Gs => "GOOGLE",
            Self::Az => "AZURE",
        }
    }

    /// The variables without that beginning which matter to it.
    pub(super) fn other_variables(self) -> &'static [&'static str] {
        match self {
            // Where the files with profiles are.
            Self::S3 => &["HOME"],
            Self::Gs => &["SERVICE_ACCOUNT"],
            Self::Az => &["IDENTITY_ENDPOINT"],
        }
    }

    /// The variable that holds an access token.
    pub(super) fn token_variable(self) -> Option<&'static str> {
        match self {
            Self::S3 => None,
            Self::Gs => Some("GOOGLE_BEARER_TOKEN"),
            Self::Az => Some("AZURE_STORAGE_TOKEN"),
        }
    }

    /// Whether a variable says who asks, and so belongs to others of its owner.
    pub(super) fn gives_access(self, variable: &str) -> bool {
        const ABOUT: [&[&str]; 3] = [
            &["KEY", "TOKEN", "PROFILE", "ROLE", "CONTAINER_CREDENTIALS", "SKIP_SIGNATURE"],
            &["SERVICE_ACCOUNT", "CREDENTIALS", "TOKEN", "SKIP_SIGNATURE"],
            &["KEY", "TOKEN", "CLIENT_", "SECRET", "TENANT", "AUTHORITY", "SKIP_SIGNATURE"],
        ];
        let [aws, google, azure] = ABOUT;
        let words = match self {
            Self::S3 => aws,
            Self::Gs => google,
            Self::Az => azure,
        };
        words.iter().any(|word| variable.contains(word))
    }

    /// Which variables give access.
    pub(super) fn credentials_hint(self) -> String {
        let hint = match self {
            Self::S3 => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN with \
                 temporary ones), or AWS_SKIP_SIGNATURE=true for a public bucket"
            }
            Self::Gs => {
                "set GOOGLE_APPLICATION_CREDENTIALS to the path of a file with credentials, or \
                 GOOGLE_SKIP_SIGNATURE=true for a public bucket"
            }
            Self::Az => {
                "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or \
                 AZURE_SKIP_SIGNATURE=true for a public container"
            }
        };
        hint.to_owned()
    }
}

/// What an address names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ObjectAddress {
    pub(super) cloud: Cloud,
    pub(super) bucket: String,
    pub(super) key: Path,
}

impl ObjectAddress {
    /// Reads an address, in which the key is percent-encoded as in any URL.
    ///
    /// It is taken apart as text: a URL parser would fold `..`, which a key may hold.
    pub(super) fn parse(address: &str) -> Result<Self, TransferError> {
        let parts = address.split_once("://").and_then(|(scheme, rest)| {
            let (bucket, key) = rest.split_once('/')?;
            Some((Cloud::of(scheme)?, bucket, key))
        });
        let (cloud, bucket, key) = parts.ok_or_else(|| refused("it names no object"))?;
        check_bucket(bucket)?;
        if key.is_empty() {
            return Err(refused("it names no object"));
        }
        Ok(Self { cloud, bucket: bucket.to_owned(), key: parse_key(key)? })
    }

    /// Reads the address of a directory, with or without a slash at its end; the key of a whole
    /// bucket is empty.
    pub(super) fn parse_directory(address: &str) -> Result<Self, TransferError> {
        let parts = address.split_once("://").and_then(|(scheme, rest)| {
            let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
            Some((Cloud::of(scheme)?, bucket, key))
        });
        let (cloud, bucket, key) = parts.ok_or_else(|| refused("it names no bucket"))?;
        check_bucket(bucket)?;
        let key = key.strip_suffix('/').filter(|key| !key.is_empty()).unwrap_or(key);
        Ok(Self { cloud, bucket: bucket.to_owned(), key: parse_key(key)? })
    }
}

fn check_bucket(bucket: &str) -> Result<(), TransferError> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.$".contains(c);
    if bucket.is_empty() || !bucket.chars().all(is_name) {
        return Err(refused("this is not the name of a bucket"));
    }
    Ok(())
}

fn parse_key(key: &str) -> Result<Path, TransferError> {
    if key.contains(['?', '#']) {
        return Err(refused("it has a query or a fragment"));
    }
    // `object_store` would drop these slashes and read another object.
    let slashes = key.to_ascii_lowercase().replace("%2f", "/");
    if slashes.starts_with('/') || slashes.ends_with('/') {
        return Err(refused("its key begins or ends with a slash"));
    }
    Path::from_url_path(key).map_err(|error| {
        tracing::debug!(%error, "a key that cannot be read");
        refused("keys with empty segments, `.`, `..` or control characters cannot be read")
    })
}

fn refused(found: &str) -> TransferError {
    TransferError::Refused {
        found: found.to_owned(),
        hint: "write s3://bucket/key, gs://bucket/key or az://container/key, with %3F for ?, %23 \
               for # and %25 for %"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_decoded_and_nothing_else() {
        let parse = |address| {
            let object = ObjectAddress::parse(address).expect("an address");
            (object.cloud, object.bucket, object.key.to_string())
        };
        let expected = |cloud, bucket: &str, key: &str| (cloud, bucket.into(), key.into());
        assert_eq!(parse("s3://b/k"), expected(Cloud::S3, "b", "k"));
        assert_eq!(parse("GS://b-1.x/a/b.gz"), expected(Cloud::Gs, "b-1.x", "a/b.gz"));
        assert_eq!(parse("az://$web/a%20b%25%3F"), expected(Cloud::Az, "$web", "a b%?"));
        assert_eq!(parse("s3://b/na%C3%AFve+x~"), expected(Cloud::S3, "b", "naïve+x~"));
    }

    #[test]
    fn directories_have_slashes_or_not() {
        let parse = |address| {
            let directory = ObjectAddress::parse_directory(address).expect("an address");
            (directory.bucket, directory.key.to_string())
        };
        for (address, key) in
            [("s3://b", ""), ("s3://b/", ""), ("s3://b/d", "d"), ("s3://b/d/e%20f/", "d/e f")]
        {
            assert_eq!(parse(address), ("b".into(), key.into()), "{address}");
        }
        for bad in ["s3://", "s3://b//", "s3://b/d//", "s3://b/../", "s3://b?x", "ftp://b/"] {
            assert!(ObjectAddress::parse_directory(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_would_be_read_as_another_object_is_refused() {
        for bad in [
            "s3://b",
            "s3://b/",
            "s3:///k",
            "s3://b//k",
            "s3://b/k/",
            "s3://b/a//k",
            "s3://b/../k",
            "s3://b/%2e",
            "s3://b/a%0Ab",
            "s3://b/%FF",
            "s3://b/k?versionId=1",
            "s3://b/k#f",
            "s3://u:p@b/k",
            "s3://b:80/k",
            "s3://b%2F/k",
            "s3://b/%2Fk",
            "s3://b/k%2F",
            "ftp://b/k",
            "k",
        ] {
            assert!(ObjectAddress::parse(bad).is_err(), "{bad}");
        }
    }
}
