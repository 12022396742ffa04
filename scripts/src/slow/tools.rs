//! What each operation does, on a thread of the pool: its arguments are read, checked and worked on.

use std::net::{IpAddr, ToSocketAddrs as _};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use tidegate_actors::limits;

use super::{
    SlowConfig,
    error::{Done, INVALID, LIMIT, NOT_ALLOWED, Reply, SlowError},
    files::Files,
    hosts::Hosts,
    tasks::{TaskStatus, Tasks},
    web::{Request, Web},
};
use crate::{
    compress::{Zip, ZipError, zip},
    hashes::{self, Algorithm},
    operation::Operation,
    source::SourceSet,
};

/// Longest host name that is looked up.
const NAME_BYTES: usize = 253;

pub(super) struct Tools {
    files: Files,
    web: Web,
    allow: Hosts,
    tasks: Tasks,
}

/// Who asks for it.
pub(super) struct Caller<'a> {
    /// The handler's name.
    pub(super) script: &'a str,
    /// The files of its set.
    pub(super) sources: &'a SourceSet,
    /// Does it still wait?
    pub(super) is_wanted: &'a dyn Fn() -> bool,
}

#[derive(Deserialize)]
struct Pbkdf2 {
    digest: String,
    iterations: u32,
    length: usize,
}

#[derive(Deserialize)]
struct Scrypt {
    length: usize,
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Deserialize)]
struct Packing {
    kind: Zip,
    level: Option<u32>,
}

#[derive(Deserialize)]
struct Lookup {
    hostname: String,
    family: u8,
}

impl Tools {
    pub(super) fn new(config: SlowConfig, tasks: Tasks) -> Self {
        let allow = config.fetch_allow.clone();
        let files = Files::new(config.files_dir.clone(), config.fs_bytes, config.fs_files);
        Self { files, web: Web::new(config), allow, tasks }
    }

    /// How tasks fared.
    pub(super) fn tasks(&self) -> TaskStatus {
        self.tasks.status()
    }

    /// Does it. Blocks.
    pub(super) fn work(&self, operation: Operation, caller: &Caller<'_>, arguments: &str, bytes: Vec<Vec<u8>>) -> Done {
        let Caller { script, sources, is_wanted } = *caller;
        if operation == Operation::Task {
            return self.tasks.run(script, sources, arguments, &bytes, is_wanted);
        }
        let mut bytes = bytes.into_iter();
        let (first, second) = (bytes.next(), bytes.next());
        match operation {
            Operation::Pbkdf2 => {
                let Pbkdf2 { digest, iterations, length } = read(arguments)?;
                let algorithm = Algorithm::named(&digest).ok_or_else(|| invalid("there is no such digest"))?;
                let (password, salt) = (first.unwrap_or_default(), second.unwrap_or_default());
                let most = (limits::SCRIPT_PBKDF2_ROUNDS, "script_pbkdf2_rounds");
                let key = hashes::pbkdf2(algorithm, &password, &salt, iterations, length, most);
                key.map(Reply::bytes).map_err(|message| SlowError::new(LIMIT, message))
            }
            Operation::Scrypt => {
                let Scrypt { length, n, r, p } = read(arguments)?;
                let (password, salt) = (first.unwrap_or_default(), second.unwrap_or_default());
                let key = hashes::scrypt(&password, &salt, length, n, r, p);
                key.map(Reply::bytes).map_err(|message| SlowError::new("ERR_CRYPTO_INVALID_SCRYPT_PARAMS", message))
            }
            Operation::Zlib => {
                let Packing { kind, level } = read(arguments)?;
                pack(kind, level, &first.unwrap_or_default())
            }
            Operation::ReadFile => self.files.read(script, &read(arguments)?),
            Operation::WriteFile => self.files.write(script, &read(arguments)?, &first.unwrap_or_default()),
            Operation::Lookup => self.look_up(&read(arguments)?),
            Operation::Fetch => self.web.fetch(&read::<Request>(arguments)?, first),
            Operation::Task => Err(invalid("a task is none of these")),
        }
    }

    fn look_up(&self, lookup: &Lookup) -> Done {
        let Lookup { hostname, family } = lookup;
        if hostname.is_empty() || hostname.len() > NAME_BYTES {
            return Err(invalid("it is no host name"));
        }
        if !self.allow.allow_name(hostname) {
            let message = format!("{hostname} may not be looked up: it is not in the setting scripts.fetch_allow");
            return Err(SlowError::new(NOT_ALLOWED, message));
        }
        let not_found = || {
            let error = SlowError::new("ENOTFOUND", format!("getaddrinfo ENOTFOUND {hostname}"));
            error.with("errno", -3008).with("syscall", "getaddrinfo").with("hostname", hostname.as_str())
        };
        let found = (hostname.as_str(), 0).to_socket_addrs().map_err(|_| not_found())?;
        let mut addresses: Vec<(String, u8)> = Vec::new();
        for address in found.map(|address| address.ip()) {
            let of = if address.is_ipv4() { 4 } else { 6 };
            let text = match address {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => address.to_string(),
            };
            if (*family == 0 || *family == of) && !addresses.iter().any(|(known, _)| *known == text) {
                addresses.push((text, of));
            }
        }
        if addresses.is_empty() { Err(not_found()) } else { Ok(Reply::about(json!(addresses))) }
    }
}

fn pack(kind: Zip, level: Option<u32>, input: &[u8]) -> Done {
    if kind == Zip::BrotliCompress && input.len() > limits::SCRIPT_BROTLI_BYTES {
        let most = limits::SCRIPT_BROTLI_BYTES;
        let message = format!("{} bytes for brotli: {most} at most (limit script_brotli_bytes)", input.len());
        return Err(SlowError::new(LIMIT, message));
    }
    zip(kind, level, input, limits::SCRIPT_ZLIB_BYTES).map(Reply::bytes).map_err(|error| {
        let (code, message) = zip_error(&error, "script_zlib_bytes");
        SlowError::new(code, message)
    })
}

/// The code and the message of Node.js.
pub(crate) fn zip_error(error: &ZipError, limit: &str) -> (&'static str, String) {
    match error {
        ZipError::TooLarge(most) => {
            ("ERR_BUFFER_TOO_LARGE", format!("Cannot create a Buffer larger than {most} bytes (limit {limit})"))
        }
        ZipError::Cut => ("Z_BUF_ERROR", "unexpected end of file".to_owned()),
        ZipError::Bad(why) => ("Z_DATA_ERROR", why.clone()),
    }
}

fn read<T: DeserializeOwned>(arguments: &str) -> Result<T, SlowError> {
    serde_json::from_str(arguments).map_err(|error| invalid(&error.to_string()))
}

fn invalid(why: &str) -> SlowError {
    SlowError::new(INVALID, format!("the arguments make no sense: {why}"))
}
