//! Objects of buckets: `s3:`, `gs:` and `az:`, by the crate `object_store`.
//!
//! Settings and credentials come from the variables that each cloud has for them, from profiles of
//! AWS, and from the entries of the credentials file. Deliberately absent: retries inside of
//! `object_store` (the fetcher has its own), and versions of objects.

mod address;
mod answer;
mod connect;
mod listing;
mod profile;
mod settings;
mod store;
#[cfg(test)]
mod tests;
mod upload;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{
    BoxFuture, Entry, HttpConfig, ListRequest, OpenRequest, Opened, Proof, Protocol, PutRequest,
    TransferError, Writing,
};
use crate::credentials::Credentials;
use address::{Cloud, ObjectAddress};
use connect::Clients;
use settings::{Access, Settings};
use store::Store;

/// Objects of S3 and its kin, of Google Cloud Storage, and of Azure Blob Storage.
///
/// Nothing is made before the first object is wanted. Each bucket has one client for each entry of
/// the credentials, kept until its server refuses it and its files say something new.
pub struct BucketProtocol {
    settings: Settings,
    clients: Arc<Clients>,
    stores: Mutex<BTreeMap<StoreName, Arc<Store>>>,
}

/// Which client: cloud, bucket, and the scope of the entry that it has its credentials from.
type StoreName = (Cloud, String, Option<String>);

impl BucketProtocol {
    /// With the settings that the environment has: `AWS_…`, `GOOGLE_…`, `AZURE_…`.
    pub fn new(http: HttpConfig) -> Self {
        Self::with_settings(http, None)
    }

    /// With these variables in place of the environment's.
    pub fn with_variables(
        http: HttpConfig,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        Self::with_settings(http, Some(variables.into_iter().collect()))
    }

    fn with_settings(http: HttpConfig, variables: Option<BTreeMap<String, String>>) -> Self {
        let settings = Settings { variables, credentials: Credentials::default() };
        Self { settings, clients: Arc::new(Clients::new(http)), stores: Mutex::default() }
    }

    /// With these entries for the buckets and prefixes that they are about, in the place of what
    /// the variables say.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.settings.credentials = credentials;
        self
    }

    fn stores(&self) -> MutexGuard<'_, BTreeMap<StoreName, Arc<Store>>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, address: &str, object: &ObjectAddress) -> Result<Arc<Store>, TransferError> {
        let name = self.name(address, object);
        if let Some(store) = self.stores().get(&name) {
            return Ok(Arc::clone(store));
        }
        let access = self.settings.access(object.cloud, self.settings.entry(address).as_deref())?;
        self.connect(name, access, None)
    }

    fn name(&self, address: &str, object: &ObjectAddress) -> StoreName {
        let scope = self.settings.entry(address).map(|entry| entry.scope.clone());
        (object.cloud, object.bucket.clone(), scope)
    }

    fn connect(
        &self,
        name: StoreName,
        access: Access,
        region: Option<String>,
    ) -> Result<Arc<Store>, TransferError> {
        let (cloud, bucket, _) = &name;
        let objects = connect::connect(&self.clients, &access, *cloud, bucket)?;
        let store = Arc::new(Store::new(*cloud, objects, access).in_region(region));
        self.stores().insert(name, Arc::clone(&store));
        Ok(store)
    }

    /// A client in the place of one that was refused, if there is reason for another: credentials
    /// that have been renewed on disk, or a bucket that has said in which region it is.
    fn renewed(
        &self,
        address: &str,
        object: &ObjectAddress,
        refused: &Store,
    ) -> Result<Option<Arc<Store>>, TransferError> {
        let mut access =
            self.settings.access(object.cloud, self.settings.entry(address).as_deref())?;
        let region = refused.region();
        if let Some(region) = &region
            && access.value(&["AWS_REGION"]) != Some(region)
        {
            access.set("AWS_REGION", region);
        }
        if access == refused.access {
            return Ok(None);
        }
        self.connect(self.name(address, object), access, region).map(Some)
    }

    /// Does something with a bucket, and once more when it is refused and there is another client.
    async fn with_store<'a, T>(
        &self,
        address: &str,
        object: &'a ObjectAddress,
        act: impl Fn(Arc<Store>) -> BoxFuture<'a, Result<T, TransferError>> + Send + Sync,
    ) -> Result<T, TransferError> {
        let store = self.store(address, object)?;
        let result = act(Arc::clone(&store)).await;
        let Err(TransferError::Refused { .. }) = &result else { return result };
        match self.renewed(address, object, &store)? {
            Some(store) => act(store).await,
            None => result,
        }
    }
}

/// Whatever else is missing, writing makes it.
fn about_bucket(error: TransferError, object: &ObjectAddress) -> TransferError {
    match error {
        TransferError::Missing { found }
            if ["NoSuchBucket", "ContainerNotFound"].iter().any(|code| found.contains(code)) =>
        {
            let ObjectAddress { cloud, bucket, .. } = object;
            TransferError::Refused {
                found: format!("there is no bucket {bucket} ({found})"),
                hint: format!(
                    "make the bucket first, or correct its name; when it is elsewhere, check the \
                     {}_ variables for the endpoint",
                    cloud.prefix()
                ),
            }
        }
        error => error,
    }
}

impl fmt::Debug for BucketProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The settings hold secrets.
        f.debug_struct("BucketProtocol").finish_non_exhaustive()
    }
}

impl Protocol for BucketProtocol {
    fn schemes(&self) -> &[&'static str] {
        &["s3", "gs", "az"]
    }

    fn open<'a>(
        &'a self,
        request: &'a OpenRequest,
    ) -> BoxFuture<'a, Result<Opened, TransferError>> {
        Box::pin(async move {
            let object = &ObjectAddress::parse(&request.address)?;
            let opened = self.with_store(&request.address, object, |store| {
                Box::pin(async move { store.open(&object.key, request).await })
            });
            opened.await
        })
    }

    fn list<'a>(
        &'a self,
        request: &'a ListRequest,
    ) -> BoxFuture<'a, Result<Vec<Entry>, TransferError>> {
        Box::pin(async move {
            let directory = &ObjectAddress::parse_directory(&request.address)?;
            let listed = self.with_store(&request.address, directory, |store| {
                Box::pin(async move { store.list(&directory.key, request.depth).await })
            });
            listed.await
        })
    }

    fn writing(&self) -> Writing {
        Writing::Whole
    }

    fn put<'a>(&'a self, request: &'a PutRequest) -> BoxFuture<'a, Result<Proof, TransferError>> {
        Box::pin(async move {
            let object = &ObjectAddress::parse(&request.address)?;
            let put = self.with_store(&request.address, object, |store| {
                Box::pin(async move { store.put(&object.key, request).await })
            });
            put.await.map_err(|error| about_bucket(error, object))
        })
    }

    fn remove<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<(), TransferError>> {
        Box::pin(async move {
            let object = &ObjectAddress::parse_directory(address)?;
            if object.key.as_ref().is_empty() {
                return Err(TransferError::Refused {
                    found: "this is a whole bucket, which is not removed from here".into(),
                    hint: "name an object or a directory in it".into(),
                });
            }
            let removed = self.with_store(address, object, |store| {
                Box::pin(async move { store.remove(&object.key).await })
            });
            removed.await
        })
    }
}
