//! The certificates of the TLS listeners: read, checked, and read again when their files change. Connections that are open keep
//! what they shook hands with; a file that is no good keeps the former ones in use and is told in the log and in the metrics.

use std::{
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    CertificateError, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

/// Largest file of certificates, keys or revocations.
const FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Time before the end of a certificate at which the log begins to warn, once a day.
const WARN_BEFORE: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Time between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The files of a listener, and what its clients must show.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// The section of the configuration that names them.
    pub(crate) section: &'static str,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) client_ca: Option<PathBuf>,
    pub(crate) crl: Option<PathBuf>,
    pub(crate) require_client_cert: bool,
}

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{section}.{key} = {}: {wrong}", path.display())]
pub(crate) struct BadFile {
    section: &'static str,
    key: &'static str,
    path: PathBuf,
    wrong: String,
}

impl BadFile {
    /// The key of the configuration that names the file.
    pub(crate) fn key(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }
}

/// The certificates in use.
pub(crate) struct Certificates {
    files: Files,
    used: RwLock<Used>,
    /// Counts the times that others came into use.
    generation: AtomicU64,
    /// What the files were when they were last read.
    seen: Mutex<Vec<Stamp>>,
    /// The end of the node's own certificate, in seconds since 1970.
    expires: AtomicI64,
    warned: AtomicI64,
    reloads: AtomicU64,
    failures: AtomicU64,
}

/// What handshakes are made with, and what clients' certificates are verified by.
struct Used {
    config: Arc<ServerConfig>,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// Tells whether a file was written or replaced. `None`: it could not be looked at.
type Stamp = Option<(u64, i64, i64, u64)>;

/// What the files hold, checked.
struct Loaded {
    used: Used,
    expires: i64,
}

impl Certificates {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// The first file that cannot be used, and what is wrong with it.
    pub(crate) fn load(files: Files) -> Result<Self, BadFile> {
        let seen = files.stamps();
        let Loaded { used, expires } = files.read()?;
        let certificates = Self {
            files,
            used: RwLock::new(used),
            generation: AtomicU64::new(0),
            seen: Mutex::new(seen),
            expires: AtomicI64::new(expires),
            warned: AtomicI64::new(0),
            reloads: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        };
        certificates.warn_of_the_end();
        Ok(certificates)
    }

    /// What the next handshake is made with.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.used.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// Changes when other certificates come into use.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Is a client's certificate, which was good in its handshake, revoked by now? That its CA is no longer in use, or that it has
    /// ended meanwhile, closes no session.
    pub(super) fn revokes(&self, chain: &[CertificateDer<'_>]) -> bool {
        let verifier = Arc::clone(&self.used.read().unwrap_or_else(PoisonError::into_inner).verifier);
        let Some((own, others)) = chain.split_first() else { return false };
        let verified = verifier.verify_client_cert(own, others, UnixTime::now());
        matches!(verified, Err(rustls::Error::InvalidCertificate(CertificateError::Revoked)))
    }

    /// Seconds until the node's certificate ends; negative: since then.
    pub(crate) fn expires_in(&self) -> i64 {
        self.expires.load(Ordering::Relaxed) - now()
    }

    /// How often the files were read again with success, and without.
    pub(crate) fn reloads(&self) -> (u64, u64) {
        (self.reloads.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }

    /// Reads the files again if they have changed, or in any case. Returns whether others are in use now.
    pub(crate) fn look(&self, in_any_case: bool) -> bool {
        let stamps = self.files.stamps();
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == stamps && !in_any_case {
                drop(seen);
                self.warn_of_the_end();
                return false;
            }
            *seen = stamps;
        }
        match self.files.read() {
            Ok(Loaded { used, expires }) => {
                *self.used.write().unwrap_or_else(PoisonError::into_inner) = used;
                self.generation.fetch_add(1, Ordering::Release);
                self.expires.store(expires, Ordering::Relaxed);
                self.warned.store(0, Ordering::Relaxed);
                self.reloads.fetch_add(1, Ordering::Relaxed);
                tracing::info!(section = self.files.section, cert = %self.files.cert.display(), "TLS files read again: in use for new connections");
                self.warn_of_the_end();
                true
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!("TLS files have changed and cannot be used: {error}; the former ones stay in use");
                false
            }
        }
    }

    /// Once a day, in the last thirty.
    fn warn_of_the_end(&self) {
        const DAY: i64 = 24 * 3_600;
        let left = self.expires_in();
        if left > i64::try_from(WARN_BEFORE.as_secs()).unwrap_or(i64::MAX)
            || now() - self.warned.load(Ordering::Relaxed) < DAY
        {
            return;
        }
        self.warned.store(now(), Ordering::Relaxed);
        let (section, cert) = (self.files.section, self.files.cert.display());
        if left < 0 {
            tracing::error!(
                "{section}.tls_cert = {cert}: this node's certificate has expired {} days ago; clients refuse it",
                -left / DAY
            );
        } else {
            tracing::warn!("{section}.tls_cert = {cert}: this node's certificate expires in {} days", left / DAY);
        }
    }
}

/// Looks at the files for ever; at once when `hangup` comes (SIGHUP). `renewed` runs when other certificates are in use.
pub(crate) async fn watch<F: Future<Output = ()>>(
    all: Vec<Arc<Certificates>>,
    mut hangup: tokio::signal::unix::Signal,
    renewed: impl Fn() -> F,
) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    loop {
        let in_any_case = tokio::select! {
            _ = tick.tick() => false,
            _ = hangup.recv() => true,
        };
        // Each of them is looked at, whatever the others say.
        let changed = all.iter().filter(|certificates| certificates.look(in_any_case)).count();
        if changed > 0 {
            renewed().await;
        }
    }
}

impl Files {
    fn all(&self) -> impl Iterator<Item = &Path> {
        let optional = self.client_ca.iter().chain(&self.crl);
        [&self.cert, &self.key].into_iter().chain(optional).map(PathBuf::as_path)
    }

    fn stamps(&self) -> Vec<Stamp> {
        let stamp = |path| fs::metadata(path).ok().map(|of| (of.len(), of.mtime(), of.mtime_nsec(), of.ino()));
        self.all().map(stamp).collect()
    }

    fn read(&self) -> Result<Loaded, BadFile> {
        let provider = Arc::new(ring::default_provider());
        let chain: Vec<CertificateDer<'static>> =
            self.items("tls_cert", &self.cert, "certificate", "BEGIN CERTIFICATE")?;
        let expires = self.check_chain(&chain)?;
        let key = self.key(chain, &provider)?;
        let verifier = match &self.client_ca {
            Some(client_ca) => self.verifier(client_ca, &provider)?,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let asks_clients = self.client_ca.is_some();
        let bad = |error: rustls::Error| self.bad("tls_cert", &self.cert, error.to_string());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(bad)?
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        if asks_clients {
            // A resumed session is not verified again, and would outlive a certificate's end and its revocation.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        } else {
            config.ticketer = ring::Ticketer::new().map_err(bad)?;
            config.send_tls13_tickets = 1;
        }
        Ok(Loaded { used: Used { config: Arc::new(config), verifier }, expires })
    }

    /// Is each of them a certificate? Returns when the first ends.
    fn check_chain(&self, chain: &[CertificateDer<'static>]) -> Result<i64, BadFile> {
        let mut expires = None;
        for (index, der) in chain.iter().enumerate() {
            let (_, certificate) = X509Certificate::from_der(der).map_err(|error| {
                self.bad("tls_cert", &self.cert, format!("certificate {} in it cannot be read: {error}", index + 1))
            })?;
            expires.get_or_insert(certificate.validity().not_after.timestamp());
        }
        Ok(expires.unwrap_or(i64::MAX))
    }

    fn key(&self, chain: Vec<CertificateDer<'static>>, provider: &CryptoProvider) -> Result<CertifiedKey, BadFile> {
        let bytes = self.bytes("tls_key", &self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
            let wrong = if bytes.windows(9).any(|word| word == b"ENCRYPTED") {
                "the key is encrypted; write it without a passphrase (openssl pkey -in … -out …) and keep the file to the node's user".to_owned()
            } else {
                format!("holds no private key in PEM form (BEGIN PRIVATE KEY): {error}")
            };
            self.bad("tls_key", &self.key, wrong)
        })?;
        CertifiedKey::from_der(chain, key, provider).map_err(|error| {
            let wrong = match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("the key does not belong to the certificate in {}", self.cert.display())
                }
                other => format!("cannot be used: {other}"),
            };
            self.bad("tls_key", &self.key, wrong)
        })
    }

    fn verifier(
        &self,
        client_ca: &Path,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, BadFile> {
        let mut roots = RootCertStore::empty();
        let authorities: Vec<CertificateDer<'static>> =
            self.items("tls_client_ca", client_ca, "certificate", "BEGIN CERTIFICATE")?;
        for (index, authority) in authorities.into_iter().enumerate() {
            roots.add(authority).map_err(|error| {
                self.bad("tls_client_ca", client_ca, format!("certificate {} in it cannot be used: {error}", index + 1))
            })?;
        }
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        if let Some(crl) = &self.crl {
            let lists: Vec<CertificateRevocationListDer<'static>> =
                self.items("tls_crl", crl, "revocation list", "BEGIN X509 CRL")?;
            self.check_lists(crl, &lists)?;
            // As mosquitto does: the client's own certificate is looked up, and its issuer must have a list.
            builder = builder.with_crls(lists).only_check_end_entity_revocation();
        }
        if !self.require_client_cert {
            builder = builder.allow_unauthenticated();
        }
        builder.build().map_err(|error| {
            let (key, path) = self.crl.as_ref().map_or(("tls_client_ca", client_ca), |crl| ("tls_crl", crl.as_path()));
            self.bad(key, path, format!("cannot be used: {error}"))
        })
    }

    /// A list that should have been replaced by now is used, and told: refusing every client would be worse.
    fn check_lists(&self, path: &Path, lists: &[CertificateRevocationListDer<'static>]) -> Result<(), BadFile> {
        for (index, der) in lists.iter().enumerate() {
            let (_, list) = CertificateRevocationList::from_der(der).map_err(|error| {
                self.bad("tls_crl", path, format!("revocation list {} in it cannot be read: {error}", index + 1))
            })?;
            if list.next_update().is_some_and(|next| next.timestamp() < now()) {
                tracing::warn!(
                    "{}.tls_crl = {}: revocation list {} should have been replaced by now (nextUpdate); it is used all the same",
                    self.section,
                    path.display(),
                    index + 1
                );
            }
        }
        Ok(())
    }

    /// Every item of a kind in a PEM file; there must be one.
    fn items<T: PemObject>(&self, key: &'static str, path: &Path, what: &str, mark: &str) -> Result<Vec<T>, BadFile> {
        let bytes = self.bytes(key, path)?;
        let items: Result<Vec<T>, _> = T::pem_slice_iter(&bytes).collect();
        let items = items.map_err(|error| self.bad(key, path, format!("is no sound PEM file: {error}")))?;
        if items.is_empty() {
            return Err(self.bad(key, path, format!("holds no {what} in PEM form ({mark})")));
        }
        Ok(items)
    }

    fn bytes(&self, key: &'static str, path: &Path) -> Result<Vec<u8>, BadFile> {
        let explain = |error: std::io::Error| {
            let wrong = match error.kind() {
                std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
                std::io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
                std::io::ErrorKind::IsADirectory => "is a directory".to_owned(),
                _ => error.to_string(),
            };
            self.bad(key, path, wrong)
        };
        let mut bytes = Vec::new();
        let file = fs::File::open(path).map_err(explain)?;
        file.take(FILE_BYTES + 1).read_to_end(&mut bytes).map_err(explain)?;
        if bytes.len() as u64 > FILE_BYTES {
            return Err(self.bad(key, path, format!("is larger than {FILE_BYTES} bytes")));
        }
        Ok(bytes)
    }

    fn bad(&self, key: &'static str, path: &Path, wrong: String) -> BadFile {
        BadFile { section: self.section, key, path: path.to_owned(), wrong }
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
