//! The gate: the files as they were last read, and the one way from a credential to a principal.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use hashbrown::HashSet;
use tidegate_actors::{blocking::BlockingPool, ids::DeviceId, limits};
use tokio::sync::Semaphore;

use super::{
    access::Access,
    acl::Acl,
    audit::{Audit, Event},
    bans::Bans,
    directory::{Directory, Refused, Standing},
    jwt::Jwt,
    login::Sessions,
    password::{Hash, PASSWORD_BYTES},
    place::{self, BadFile},
    principal::{Principal, Proof, Role},
    secret,
    verified::Verified,
};
use crate::config::{self, Config};

/// Why the node cannot start with its users, rules or keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthError {
    /// A file.
    #[error(transparent)]
    File(#[from] BadFile),
    /// The system.
    #[error("cannot start authentication: {0}")]
    System(String),
}

/// A door of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    Mqtt,
    Http,
}

/// What somebody shows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Credential<'a> {
    Password {
        user: &'a str,
        password: &'a [u8],
    },
    /// A token of the users' file, or a signed one.
    Bearer(&'a str),
    /// The name in a certificate that the TLS layer has checked.
    Certificate(&'a str),
    Nothing,
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The credential is wrong: unknown, not right, disabled, over.
    Wrong,
    /// There is none.
    Missing,
    /// The address is banned for a while.
    Banned(Duration),
    /// Too many wait already.
    Busy,
}

/// The files as they were last read.
#[derive(Debug, Default)]
pub(super) struct Current {
    /// Must clients authenticate?
    on: bool,
    /// Is there a users' file?
    has_users: bool,
    pub(super) directory: Directory,
    acl: Acl,
    jwt: Option<Arc<Jwt>>,
}

impl Current {
    /// The signed token in a credential, where signed tokens are taken: as a token, or as the password of any user.
    fn signed<'a>(&self, credential: Credential<'a>) -> Option<(&Arc<Jwt>, &'a str)> {
        let text = match credential {
            Credential::Password { password, .. } => std::str::from_utf8(password).ok()?,
            Credential::Bearer(token) => token,
            Credential::Certificate(_) | Credential::Nothing => return None,
        };
        self.jwt.as_ref().filter(|_| Jwt::looks_like_one(text)).map(|jwt| (jwt, text))
    }
}

/// When a file was last seen to change, so that it need not be read to know.
pub(super) type Seen = Vec<Option<(SystemTime, u64, u64)>>;

/// Everything about identity that the loops share.
pub(crate) struct Auth {
    config: config::Auth,
    users_file: PathBuf,
    /// The files as they were before they were first read.
    pub(super) seen_at_start: Seen,
    current: RwLock<Arc<Current>>,
    verified: Verified,
    pub(crate) bans: Bans,
    pub(crate) audit: Audit,
    hashing: Semaphore,
    waiting: AtomicUsize,
    pub(super) sessions: Sessions,
    pub(crate) counters: Counters,
}

/// What the gate counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) publishes_denied: AtomicU64,
    pub(crate) subscriptions_denied: AtomicU64,
    pub(crate) deliveries_denied: AtomicU64,
    pub(crate) requests_denied: AtomicU64,
    pub(crate) revoked: AtomicU64,
    pub(crate) reloads_failed: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Auth {
    /// Reads the files.
    ///
    /// # Errors
    /// Any of them is missing although it is set, or wrong anywhere.
    pub(crate) fn open(config: &Config) -> Result<Arc<Self>, AuthError> {
        let system = |error: String| AuthError::System(error);
        let users_file = config.users_file();
        let seen_at_start = look(&users_file, &config.auth);
        let current = read(&config.auth, &users_file)?;
        // Half of the pool's threads hash; the other half is for devices' states.
        let hashing = (config.runtime.blocking_threads / 2).max(1);
        let (bytes, files) = (config.auth.audit_bytes, config.auth.audit_files);
        Ok(Arc::new(Self {
            users_file,
            seen_at_start,
            current: RwLock::new(Arc::new(current)),
            verified: Verified::new(config.auth.verified).map_err(system)?,
            bans: Bans::new(&config.auth.bans),
            audit: Audit::start(&config.data.dir, bytes, files).map_err(|error| system(error.to_string()))?,
            hashing: Semaphore::new(hashing),
            waiting: AtomicUsize::new(0),
            sessions: Sessions::default(),
            counters: Counters::default(),
            config: config.auth.clone(),
        }))
    }

    /// Must clients authenticate?
    pub(crate) fn is_on(&self) -> bool {
        self.current().on
    }

    /// Users and tokens.
    pub(crate) fn counts(&self) -> (usize, usize) {
        self.current().directory.counts()
    }

    pub(super) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    // ---- the files

    /// The files' times and sizes. Blocks.
    pub(super) fn seen(&self) -> Seen {
        look(&self.users_file, &self.config)
    }

    /// Reads the files again. Blocks. What cannot be read leaves everything as it was. A users' file that went away is no reason to
    /// let everybody in. Gives back the names that are nobody's any more.
    pub(super) fn reload(&self) -> Result<HashSet<Box<str>>, BadFile> {
        let fresh = read(&self.config, &self.users_file)?;
        if self.current().has_users && !fresh.has_users {
            return Err(BadFile::whole(&self.users_file, "is gone; the users stay as they were"));
        }
        let gone = self.current().directory.gone_in(&fresh.directory);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        Ok(gone)
    }

    // ---- credentials

    /// Who shows this credential.
    ///
    /// # Errors
    /// [`Denied`]; it has been counted and written down.
    pub(crate) async fn identify(
        &self,
        pool: &BlockingPool,
        door: Door,
        from: SocketAddr,
        credential: Credential<'_>,
        now: i64,
    ) -> Result<Principal, Denied> {
        let found = self.try_identify(pool, door, from.ip(), credential, now).await;
        let (result, principal, detail) = match &found {
            Ok(principal) => ("ok", principal.shown(), ""),
            Err(denied) => {
                let user = match credential {
                    Credential::Password { user, .. } => user,
                    Credential::Certificate(name) => name,
                    // What was meant for a token may be anything, above all a secret.
                    Credential::Bearer(_) => "(token)",
                    Credential::Nothing => "(anonymous)",
                };
                (if matches!(denied, Denied::Banned(_)) { "banned" } else { "denied" }, user, denied.words())
            }
        };
        Counters::add(if found.is_ok() { &self.counters.accepted } else { &self.counters.refused });
        // Requests are too many to write each down; their denials and effects are.
        if door == Door::Mqtt || found.is_err() {
            let address = from.to_string();
            self.audit.note_often(&Event { action: "login", result, principal, address: &address, detail }, now);
        }
        found
    }

    async fn try_identify(
        &self,
        pool: &BlockingPool,
        door: Door,
        from: IpAddr,
        credential: Credential<'_>,
        now: i64,
    ) -> Result<Principal, Denied> {
        if let Some(rest) = self.bans.of_address(from, Instant::now()) {
            return Err(Denied::Banned(rest));
        }
        let current = self.current();
        let found = match credential {
            _ if current.signed(credential).is_some() => self.check_signed(pool, &current, credential).await,
            Credential::Password { user, password } => self.check_password(pool, &current, user, password).await,
            Credential::Bearer(secret) => {
                current.directory.of_token(&secret::sha256(secret.as_bytes()), now).map_err(|_: Refused| Denied::Wrong)
            }
            Credential::Certificate(name) => of_certificate(&current.directory, name),
            Credential::Nothing if self.lets_anybody_in(door) => Ok(Principal::anonymous(self.config.anonymous_role)),
            Credential::Nothing => Err(Denied::Missing),
        };
        if found == Err(Denied::Wrong) && self.bans.wrong_password(from, Instant::now()) {
            let seconds = self.config.bans.wrong_passwords_ban.as_secs();
            tracing::warn!(address = %from, seconds, "banned an address for wrong credentials (limit auth.bans.wrong_passwords)");
            let address = from.to_string();
            let event =
                Event { action: "ban", result: "ok", principal: "", address: &address, detail: "wrong credentials" };
            self.audit.note(&event, now);
        }
        found
    }

    fn lets_anybody_in(&self, door: Door) -> bool {
        match self.config.allow_anonymous.as_str() {
            "all" => true,
            "mqtt" => door == Door::Mqtt,
            "http" => door == Door::Http,
            _ => false,
        }
    }

    async fn check_password(
        &self,
        pool: &BlockingPool,
        current: &Current,
        name: &str,
        password: &[u8],
    ) -> Result<Principal, Denied> {
        if password.len() > PASSWORD_BYTES {
            return Err(Denied::Wrong);
        }
        let user = current.directory.user(name).ok();
        let stamp = user.map_or(0, |user| user.stamp);
        let known_as = self.verified.name(name, password, stamp);
        if user.is_none() || !self.verified.knows(&known_as, Instant::now()) {
            let hash = user.and_then(|user| user.password.clone());
            let secret = password.to_vec();
            // A name that nobody has takes as long as a wrong password.
            let right = self.slowly(pool, move || match hash {
                Some(hash) => hash.verify(&secret),
                None => {
                    Hash::pretend(&secret);
                    false
                }
            });
            if !right.await? {
                return Err(Denied::Wrong);
            }
            self.verified.remember(known_as, Instant::now());
        }
        user.map(|user| Directory::principal(name, user, Proof::Password { stamp })).ok_or(Denied::Wrong)
    }

    /// Whose signed token it is.
    async fn check_signed(
        &self,
        pool: &BlockingPool,
        current: &Current,
        credential: Credential<'_>,
    ) -> Result<Principal, Denied> {
        let Some((jwt, token)) = current.signed(credential) else { return Err(Denied::Wrong) };
        let (jwt, token) = (Arc::clone(jwt), token.to_owned());
        let principal = self.slowly(pool, move || jwt.principal(&token)).await?;
        let principal = principal.map_err(|why| {
            tracing::debug!("refused a signed token: {why}");
            Denied::Wrong
        })?;
        if current.directory.is_disabled(&principal.name) { Err(Denied::Wrong) } else { Ok(principal) }
    }

    /// Runs a check on the pool, a few at a time, behind a bounded number that waits.
    async fn slowly<T: Send + 'static>(
        &self,
        pool: &BlockingPool,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Denied> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= limits::AUTH_WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Denied::Busy);
        }
        let _waits = Waits(&self.waiting);
        let Ok(_permit) = self.hashing.acquire().await else { return Err(Denied::Busy) };
        let Ok(running) = pool.try_run(job) else { return Err(Denied::Busy) };
        running.await.map_err(|panic| {
            tracing::error!(%panic, "a password could not be checked");
            Denied::Busy
        })
    }

    // ---- access

    /// What a principal may do on a connection with this client id.
    pub(crate) fn access(&self, principal: Arc<Principal>, client_id: &str) -> Access {
        let current = self.current();
        let user = (!principal.is_anonymous()).then_some(&*principal.name);
        let rules = current.acl.rules_of(user, client_id);
        Access::new(principal, client_id, &rules)
    }

    /// Whose this client id is, if it is the name or the device of a user.
    pub(super) fn owner_of(&self, client_id: &str) -> Option<String> {
        self.current().directory.owner_of(client_id).map(str::to_owned)
    }

    /// What has become of a principal since it was accepted.
    pub(crate) fn standing(&self, principal: &Principal, now: i64) -> Standing {
        let current = self.current();
        if principal.is_anonymous() {
            // Authentication was switched on meanwhile, or the one door or the other is closed to strangers now.
            return if self.config.allow_anonymous == "none" { Standing::Revoked } else { Standing::Same };
        }
        if principal.expires.is_some_and(|expires| expires <= now) {
            return Standing::Changed;
        }
        current.directory.standing(principal)
    }
}

struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Denied {
    /// For the log; a client is told less.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Wrong => "wrong credential",
            Self::Missing => "no credential",
            Self::Banned(_) => "the address is banned (limit auth.bans.wrong_passwords)",
            Self::Busy => "too many credentials wait to be verified (limit auth_waiting)",
        }
    }
}

/// A certificate that the TLS layer accepted names a user, or else a device.
fn of_certificate(directory: &Directory, name: &str) -> Result<Principal, Denied> {
    match directory.user(name) {
        Ok(user) => Ok(Directory::principal(name, user, Proof::Certificate)),
        Err(Refused::Unknown) => {
            let device = Some(DeviceId::new(name).map_err(|_| Denied::Wrong)?);
            let (name, proof) = (name.into(), Proof::Certificate);
            Ok(Principal { name, role: Role::Device, device, proof, expires: None, rules: None })
        }
        Err(_) => Err(Denied::Wrong),
    }
}

fn look(users_file: &PathBuf, config: &config::Auth) -> Seen {
    use std::os::unix::fs::MetadataExt as _;
    let look = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    };
    let files = [Some(users_file), config.acl_file.as_ref(), config.jwt_key_file.as_ref()];
    files.into_iter().map(|path| path.and_then(look)).collect()
}

/// Reads the files as a start would; the error says which setting names the one that is wrong.
///
/// # Errors
/// As [`Auth::open`].
pub(crate) fn check(config: &Config) -> Result<(), (&'static str, BadFile)> {
    read_each(&config.auth, &config.users_file()).map(drop)
}

fn read(config: &config::Auth, users_file: &Path) -> Result<Current, BadFile> {
    read_each(config, users_file).map_err(|(_, bad)| bad)
}

fn read_each(config: &config::Auth, users_file: &Path) -> Result<Current, (&'static str, BadFile)> {
    let directory = directory(config, users_file).map_err(|bad| ("auth.users_file", bad))?;
    let acl = config.acl_file.as_deref().map(rules).transpose().map_err(|bad| ("auth.acl_file", bad))?;
    let jwt = config.jwt_key_file.as_deref().map(|path| Jwt::read(config, path));
    let jwt = jwt.transpose().map_err(|bad| ("auth.jwt_key_file", bad))?.map(Arc::new);
    let on = directory.is_some() || acl.is_some() || jwt.is_some();
    let has_users = directory.is_some();
    Ok(Current { on, has_users, directory: directory.unwrap_or_default(), acl: acl.unwrap_or_default(), jwt })
}

fn directory(config: &config::Auth, users_file: &Path) -> Result<Option<Directory>, BadFile> {
    match Directory::read(users_file)? {
        None if config.users_file.is_some() => {
            Err(BadFile::whole(users_file, "is not there; make it with tidegate user add"))
        }
        directory => Ok(directory),
    }
}

fn rules(path: &Path) -> Result<Acl, BadFile> {
    let text = place::read(path, limits::AUTH_FILE_BYTES, "auth_file_bytes")?;
    Acl::parse(path, &text.ok_or_else(|| BadFile::whole(path, "is not there"))?)
}
