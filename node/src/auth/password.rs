//! Passwords: argon2id for those that are set here, mosquitto's two forms for those that are imported. Slow on purpose: never
//! on a loop.

use std::num::NonZeroU32;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use ring::{digest, pbkdf2};
use subtle::ConstantTimeEq as _;

/// Memory of one hash in KiB, and passes over it (OWASP's recommendation of 2024 for argon2id).
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
/// What a file may ask for; more would be an attack on the node by its own file.
const MOST_MEMORY_KIB: u32 = 1024 * 1024;
const MOST_PASSES: u32 = 64;
const MOST_ITERATIONS: u32 = 10_000_000;
/// Longest password, in bytes.
pub(crate) const PASSWORD_BYTES: usize = 1_024;

/// A stored password that was checked to be of a known form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hash {
    /// `$argon2id$v=19$m=…,t=…,p=…$salt$hash`.
    Argon2id { memory_kib: u32, passes: u32, lanes: u32, salt: Vec<u8>, hash: Vec<u8> },
    /// mosquitto's `$7$iterations$salt$hash`: PBKDF2 with HMAC-SHA-512.
    Pbkdf2 { iterations: NonZeroU32, salt: Vec<u8>, hash: Vec<u8> },
    /// mosquitto's `$6$salt$hash`: one SHA-512 over password and salt. Weak.
    Sha512 { salt: Vec<u8>, hash: Vec<u8> },
}

impl Hash {
    /// Reads a stored password.
    ///
    /// # Errors
    /// In words that follow "the password".
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('$').collect();
        match parts.as_slice() {
            ["", "argon2id", "v=19", costs, salt, hash] => argon2id(costs, salt, hash),
            ["", "7", iterations, salt, hash] => {
                let iterations = iterations.parse().ok().filter(|count: &NonZeroU32| count.get() <= MOST_ITERATIONS);
                let iterations = iterations.ok_or_else(|| format!("needs 1 to {MOST_ITERATIONS} iterations"))?;
                Ok(Self::Pbkdf2 { iterations, salt: decode(salt)?, hash: decode_of(hash, 64)? })
            }
            ["", "6", salt, hash] => Ok(Self::Sha512 { salt: decode(salt)?, hash: decode_of(hash, 64)? }),
            ["", kind, ..] => Err(format!("is of the kind {kind:.16?}, which is not known; known: argon2id, 7, 6")),
            _ => Err("is not hashed".to_owned()),
        }
    }

    /// Hashes a new password with a salt of its own.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub(crate) fn make(password: &[u8]) -> Result<String, String> {
        let mut salt = [0; 16];
        super::secret::fill(&mut salt)?;
        let mut hash = [0; 32];
        run_argon2id(MEMORY_KIB, PASSES, 1, &salt, password, &mut hash)?;
        let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash));
        Ok(format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p=1${salt}${hash}"))
    }

    /// Is this the password? Takes tens of milliseconds; the time does not tell how much of it is right.
    pub(crate) fn verify(&self, password: &[u8]) -> bool {
        match self {
            Self::Argon2id { memory_kib, passes, lanes, salt, hash } => {
                let mut found = vec![0; hash.len()];
                run_argon2id(*memory_kib, *passes, *lanes, salt, password, &mut found).is_ok() && equal(&found, hash)
            }
            Self::Pbkdf2 { iterations, salt, hash } => {
                pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA512, *iterations, salt, password, hash).is_ok()
            }
            Self::Sha512 { salt, hash } => {
                let mut context = digest::Context::new(&digest::SHA512);
                context.update(password);
                context.update(salt);
                equal(context.finish().as_ref(), hash)
            }
        }
    }

    /// Does as much work as a new password's check, for a name that nobody has: the time does not tell who exists.
    pub(crate) fn pretend(password: &[u8]) {
        let mut hash = [0; 32];
        // Nothing comes of it either way.
        let _ = run_argon2id(MEMORY_KIB, PASSES, 1, &[0; 16], password, &mut hash);
    }
}

fn argon2id(costs: &str, salt: &str, hash: &str) -> Result<Hash, String> {
    let cost = |name: &str, most: u32| {
        let word = costs.split(',').find_map(|cost| cost.strip_prefix(name));
        let cost = word.and_then(|word| word.parse().ok()).filter(|cost| (1..=most).contains(cost));
        cost.ok_or_else(|| format!("needs {name} from 1 to {most}"))
    };
    let (memory_kib, passes, lanes) = (cost("m=", MOST_MEMORY_KIB)?, cost("t=", MOST_PASSES)?, cost("p=", 16)?);
    Params::new(memory_kib, passes, lanes, None).map_err(|error| format!("has costs that do not fit: {error}"))?;
    let (salt, hash) = (decode(salt)?, decode(hash)?);
    if !(8..=64).contains(&salt.len()) || !(16..=64).contains(&hash.len()) {
        return Err("needs a salt of 8 to 64 bytes and a hash of 16 to 64 bytes".to_owned());
    }
    Ok(Hash::Argon2id { memory_kib, passes, lanes, salt, hash })
}

fn run_argon2id(
    memory: u32,
    passes: u32,
    lanes: u32,
    salt: &[u8],
    password: &[u8],
    out: &mut [u8],
) -> Result<(), String> {
    let params = Params::new(memory, passes, lanes, Some(out.len())).map_err(|error| error.to_string())?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into(password, salt, out).map_err(|error| error.to_string())
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    let decoded = STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text));
    decoded.map_err(|_| "holds something that is not base64".to_owned())
}

fn decode_of(text: &str, bytes: usize) -> Result<Vec<u8>, String> {
    let decoded = decode(text)?;
    if decoded.len() == bytes {
        Ok(decoded)
    } else {
        Err(format!("has a hash of {} bytes, not {bytes}", decoded.len()))
    }
}

/// Compares in a time that depends on the length only.
fn equal(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_password_verifies_and_no_other_does() {
        let text = Hash::make(b"correct horse").unwrap();
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        let hash = Hash::parse(&text).unwrap();
        assert!(hash.verify(b"correct horse"));
        assert!(!hash.verify(b"correct hors") && !hash.verify(b""));
        assert_ne!(Hash::make(b"correct horse").unwrap(), text, "a salt of its own");
    }

    #[test]
    fn mosquittos_forms_verify() {
        // Both by mosquitto_passwd 2.0.21 (-H sha512-pbkdf2, -H sha512) for the password "secret1".
        for (text, weak) in MOSQUITTO {
            let hash = Hash::parse(text).unwrap();
            assert_eq!(matches!(hash, Hash::Sha512 { .. }), weak, "{text}");
            assert!(hash.verify(b"secret1") && !hash.verify(b"secret2"), "{text}");
        }
    }

    #[test]
    fn what_is_no_stored_password_is_refused() {
        for (text, words) in [
            ("secret", "is not hashed"),
            ("$5$a$b", "is of the kind \"5\""),
            ("$7$0$AAAA$AAAA", "needs 1 to"),
            ("$6$AAAA$AAAA", "has a hash of 3 bytes, not 64"),
            ("$argon2id$v=19$m=4294967295,t=2,p=1$AAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAA", "needs m= from 1"),
            ("$argon2id$v=19$m=1024,t=2,p=1$AA$AAAAAAAAAAAAAAAAAAAAAAAA", "needs a salt of 8"),
            ("$argon2i$v=19$m=1024,t=2,p=1$AA$AA", "is of the kind \"argon2i\""),
        ] {
            let error = Hash::parse(text).unwrap_err();
            assert!(error.starts_with(words), "{text}: {error}");
        }
    }

    const MOSQUITTO: [(&str, bool); 2] = [
        (
            "$7$101$+UM0H7W2slLz1jTc$wI/CNlQmALBsTneWoIBt270rnSfd6dVoXyBm5pEMlMDM1p9IQNaHjkcTq0bzmlvYzWm8fgk1u5MlllcT8+N1eA==",
            false,
        ),
        (
            "$6$4xkuq6aTaouGYmh6$YE2RjNqk6fyOLgRiBHeqndkJdQVslvOXMk6ZUTQKl3I8soS6fokVpiuv2BCPB2O2IjSOTDHNQKvsV0Q0gKfC7w==",
            true,
        ),
    ];
}
