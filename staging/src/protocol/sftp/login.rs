//! Who we are: keys of files and of the agent, and passwords.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, Error as KeyError, HashAlg, PrivateKey, PrivateKeyWithHashAlg};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::connection::{HostCheck, unreachable};
use crate::credentials::Secret;
use crate::protocol::TransferError;

/// For each answer of the agent; it may ask its user.
const AGENT_TIMEOUT: Duration = Duration::from_secs(20);

/// Keys of the agent that are tried: servers hang up after about six refusals.
const AGENT_KEYS_MAX: usize = 4;

/// The largest key file.
const KEY_BYTES_MAX: u64 = 1 << 20;

/// What is there to log in with.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub(super) user: String,
    /// The one key to use.
    pub(super) key_file: Option<PathBuf>,
    pub(super) passphrase: Option<Secret>,
    pub(super) password: Option<Secret>,
    /// The agent's socket.
    pub(super) agent: Option<PathBuf>,
    /// Keys to try when nothing else is said.
    pub(super) default_keys: Arc<[PathBuf]>,
}

type Connection = Handle<HostCheck>;

impl Login {
    /// Logs in: with the key and the password that were given for this server; when no key was, with
    /// what the agent and the usual files have.
    pub(super) async fn perform(&self, connection: &mut Connection) -> Result<(), TransferError> {
        let mut tried = Vec::new();
        if let Some(path) = &self.key_file {
            let key = self.load(path).await.map_err(|error| unusable(path, &error))?;
            if self.try_key(connection, key).await? {
                return Ok(());
            }
            tried.push(path.display().to_string());
        }
        if let Some(password) = &self.password {
            if self.try_password(connection, password).await? {
                return Ok(());
            }
            tried.push("the password".to_owned());
        }
        if self.key_file.is_none()
            && (self.try_agent(connection, &mut tried).await?
                || self.try_default_keys(connection, &mut tried).await?)
        {
            return Ok(());
        }
        Err(self.rejected(&tried))
    }

    async fn try_default_keys(
        &self,
        connection: &mut Connection,
        tried: &mut Vec<String>,
    ) -> Result<bool, TransferError> {
        for path in self.default_keys.iter() {
            match self.load(path).await {
                Ok(key) => {
                    tried.push(path.display().to_string());
                    if self.try_key(connection, key).await? {
                        return Ok(true);
                    }
                }
                Err(KeyError::IO(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => tried.push(format!("{} (cannot be used: {error})", path.display())),
            }
        }
        Ok(false)
    }

    async fn load(&self, path: &Path) -> Result<PrivateKey, KeyError> {
        let (path, passphrase) = (path.to_owned(), self.passphrase.clone());
        let loaded = tokio::task::spawn_blocking(move || {
            if std::fs::metadata(&path)?.len() > KEY_BYTES_MAX {
                return Err(KeyError::CouldNotReadKey);
            }
            let key = russh::keys::load_secret_key(&path, passphrase.as_ref().map(Secret::reveal))?;
            match key.algorithm() {
                // Signing with them here is not safe against timing (RUSTSEC-2023-0071).
                Algorithm::Rsa { .. } => Err(KeyError::UnsupportedKeyType {
                    key_type_string: "RSA".into(),
                    key_type_raw: Vec::new(),
                }),
                _ => Ok(key),
            }
        });
        loaded.await.unwrap_or(Err(KeyError::CouldNotReadKey))
    }

    async fn try_key(
        &self,
        connection: &mut Connection,
        key: PrivateKey,
    ) -> Result<bool, TransferError> {
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
        let answer = connection.authenticate_publickey(&self.user, key).await;
        accepted(connection, answer)
    }

    /// By the method for passwords, or by the one for dialogues when they ask one hidden question.
    async fn try_password(
        &self,
        connection: &mut Connection,
        password: &Secret,
    ) -> Result<bool, TransferError> {
        let answer = connection.authenticate_password(&self.user, password.reveal()).await;
        if accepted(connection, answer)? {
            return Ok(true);
        }
        let start = connection.authenticate_keyboard_interactive_start(&self.user, None).await;
        let mut answer = start.map_err(|error| unreachable(&error))?;
        // The question, and an empty one after it.
        for _ in 0..2 {
            let KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } = &answer else {
                break;
            };
            let replies = match prompts.as_slice() {
                [] => Vec::new(),
                [one] if !one.echo => vec![password.reveal().to_owned()],
                _ => return Ok(false),
            };
            let reply = connection.authenticate_keyboard_interactive_respond(replies).await;
            answer = reply.map_err(|error| unreachable(&error))?;
        }
        Ok(matches!(answer, KeyboardInteractiveAuthResponse::Success))
    }

    async fn try_agent(
        &self,
        connection: &mut Connection,
        tried: &mut Vec<String>,
    ) -> Result<bool, TransferError> {
        let Some(socket) = &self.agent else { return Ok(false) };
        let asked = timeout(AGENT_TIMEOUT, async {
            let mut agent = AgentClient::connect_uds(socket).await?;
            let identities = agent.request_identities().await?;
            Ok::<_, KeyError>((agent, identities))
        });
        let (mut agent, identities) = match asked.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tried.push(format!("the agent (it does not answer: {error})"));
                return Ok(false);
            }
            Err(_elapsed) => {
                tried.push("the agent (it does not answer)".into());
                return Ok(false);
            }
        };
        for identity in identities.into_iter().take(AGENT_KEYS_MAX) {
            tried.push(format!("the agent's key {:?}", identity.comment()));
            if self.try_identity(connection, &mut agent, identity).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn try_identity(
        &self,
        connection: &mut Connection,
        agent: &mut AgentClient<UnixStream>,
        identity: AgentIdentity,
    ) -> Result<bool, TransferError> {
        // RSA keys can be used here: it is the agent that signs.
        let is_rsa = matches!(identity.public_key().algorithm(), Algorithm::Rsa { .. });
        let hash = is_rsa.then_some(HashAlg::Sha512);
        let user = &self.user;
        let signed = timeout(AGENT_TIMEOUT, async {
            match identity {
                AgentIdentity::PublicKey { key, .. } => {
                    connection.authenticate_publickey_with(user, key, hash, agent).await
                }
                AgentIdentity::Certificate { certificate, .. } => {
                    connection.authenticate_certificate_with(user, certificate, hash, agent).await
                }
            }
        });
        match signed.await {
            Ok(Ok(answer)) => accepted(connection, Ok(answer)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the agent did not sign");
                Ok(false)
            }
            Err(_elapsed) => Err(TransferError::Unreachable {
                found: "the agent or the server did not answer at login".into(),
            }),
        }
    }

    fn rejected(&self, tried: &[String]) -> TransferError {
        let tried = if tried.is_empty() {
            "there was no key and no password to try".to_owned()
        } else {
            format!("tried: {}", tried.join(", "))
        };
        TransferError::Refused {
            found: format!("the server does not let in user {:?} ({tried})", self.user),
            hint: "put a key in the agent (`ssh-add`), or name `key_file` and `passphrase`, or \
                   `password`, for this server in the credentials; name the user as in \
                   sftp://user@host/path"
                .into(),
        }
    }
}

/// Whether the server lets us in.
fn accepted(
    connection: &Connection,
    answer: Result<AuthResult, russh::Error>,
) -> Result<bool, TransferError> {
    match answer {
        Ok(AuthResult::Success) => Ok(true),
        // A connection that ended is told like a refusal.
        Ok(AuthResult::Failure { .. }) if connection.is_closed() => {
            Err(TransferError::Unreachable {
                found: "the server ended the connection at login".into(),
            })
        }
        Ok(AuthResult::Failure { .. }) => Ok(false),
        Err(error) => Err(unreachable(&error)),
    }
}

fn unusable(path: &Path, error: &KeyError) -> TransferError {
    let hint = match error {
        KeyError::KeyIsEncrypted => {
            "it has a passphrase: name it as `passphrase` beside `key_file`"
        }
        KeyError::IO(_) => "check `key_file` in the credentials",
        KeyError::UnsupportedKeyType { .. } => {
            "use an ed25519 or ecdsa key, or put this one in the agent (`ssh-add`)"
        }
        _ => "check the passphrase; the key must be of OpenSSH's, PKCS#8's or PuTTY's format",
    };
    TransferError::Refused {
        found: format!("cannot use the key in {}: {error}", path.display()),
        hint: hint.into(),
    }
}
