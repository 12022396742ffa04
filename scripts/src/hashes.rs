//! Hashes and keys that scripts ask for by Node.js's names. Pure; cheap ones run in the worker itself, the others on the pool.

use hmac::{Hmac, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use tidegate_actors::limits;

/// A hash function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// Runs `$work` with `$hash` as the hash's type.
macro_rules! with_hash {
    ($algorithm:expr, $hash:ident => $work:expr) => {
        match $algorithm {
            Algorithm::Md5 => {
                type $hash = Md5;
                $work
            }
            Algorithm::Sha1 => {
                type $hash = Sha1;
                $work
            }
            Algorithm::Sha224 => {
                type $hash = Sha224;
                $work
            }
            Algorithm::Sha256 => {
                type $hash = Sha256;
                $work
            }
            Algorithm::Sha384 => {
                type $hash = Sha384;
                $work
            }
            Algorithm::Sha512 => {
                type $hash = Sha512;
                $work
            }
        }
    };
}

impl Algorithm {
    /// The names of all.
    pub(crate) const NAMES: [&'static str; 6] = ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"];

    /// The one of this name, in any case, with or without a dash.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().replace('-', "").as_str() {
            "md5" => Self::Md5,
            "sha1" => Self::Sha1,
            "sha224" => Self::Sha224,
            "sha256" => Self::Sha256,
            "sha384" => Self::Sha384,
            "sha512" => Self::Sha512,
            _ => return None,
        })
    }

    /// The hash of some bytes.
    pub(crate) fn digest(self, bytes: &[u8]) -> Vec<u8> {
        with_hash!(self, Hash => Hash::digest(bytes).to_vec())
    }

    /// Their keyed hash.
    pub(crate) fn hmac(self, key: &[u8], bytes: &[u8]) -> Vec<u8> {
        with_hash!(self, Hash => {
            // A key of any length is taken.
            let mut mac = <Hmac<Hash> as Mac>::new_from_slice(key).expect("HMAC takes every key");
            mac.update(bytes);
            mac.finalize().into_bytes().to_vec()
        })
    }

    fn bytes(self) -> usize {
        with_hash!(self, Hash => <Hash as Digest>::output_size())
    }
}

/// A key from a password (RFC 8018). `most`: rounds that are allowed, and the limit's name.
///
/// # Errors
/// Says which limit it is beyond.
pub(crate) fn pbkdf2(
    algorithm: Algorithm,
    password: &[u8],
    salt: &[u8],
    iterations: u32,
    length: usize,
    (most, limit): (u64, &str),
) -> Result<Vec<u8>, String> {
    check_length(length)?;
    let rounds = u64::from(iterations) * length.div_ceil(algorithm.bytes()) as u64;
    if rounds > most {
        return Err(format!(
            "pbkdf2 of {rounds} rounds (iterations times blocks of the key): {most} at most (limit {limit})"
        ));
    }
    let mut key = vec![0; length];
    with_hash!(algorithm, Hash => pbkdf2::pbkdf2_hmac::<Hash>(password, salt, iterations, &mut key));
    Ok(key)
}

/// A key from a password (RFC 7914).
///
/// # Errors
/// Says which limit it is beyond, or which parameter makes no sense.
pub(crate) fn scrypt(password: &[u8], salt: &[u8], length: usize, n: u64, r: u32, p: u32) -> Result<Vec<u8>, String> {
    check_length(length)?;
    if n < 2 || !n.is_power_of_two() || r == 0 || p == 0 {
        return Err("Invalid scrypt params: N must be a power of two, at least 2; r and p at least 1".to_owned());
    }
    let memory = n.saturating_mul(r.into()).saturating_mul(128);
    if memory > limits::SCRIPT_SCRYPT_BYTES {
        let most = limits::SCRIPT_SCRYPT_BYTES;
        return Err(format!(
            "Invalid scrypt params: {memory} bytes of memory, {most} at most (limit script_scrypt_bytes)"
        ));
    }
    if p > limits::SCRIPT_SCRYPT_P {
        let most = limits::SCRIPT_SCRYPT_P;
        return Err(format!("Invalid scrypt params: p is {p}, {most} at most (limit script_scrypt_p)"));
    }
    let log_n = u8::try_from(n.trailing_zeros()).unwrap_or(u8::MAX);
    let params = scrypt::Params::new(log_n, r, p, scrypt::Params::RECOMMENDED_LEN);
    let params = params.map_err(|error| format!("Invalid scrypt params: {error}"))?;
    let mut key = vec![0; length];
    if length > 0 {
        scrypt::scrypt(password, salt, &params, &mut key).map_err(|error| error.to_string())?;
    }
    Ok(key)
}

fn check_length(length: usize) -> Result<(), String> {
    let most = limits::SCRIPT_KEY_BYTES;
    if length > most {
        Err(format!("a key of {length} bytes: {most} at most (limit script_key_bytes)"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_vectors_of_the_standards() {
        assert_eq!(hex(&Algorithm::Md5.digest(b"abc")), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(hex(&Algorithm::Sha1.digest(b"abc")), "a9993e364706816aba3e25717850c26c9cd0d89d");
        // RFC 4231, case 2.
        let mac = Algorithm::Sha256.hmac(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hex(&mac), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        // RFC 6070.
        let key = pbkdf2(Algorithm::Sha1, b"password", b"salt", 4096, 20, (10_000, "x"));
        assert_eq!(hex(&key.expect("within the limits")), "4b007901b765489abead49d926f721d065a429c1");
        // RFC 7914.
        let key = scrypt(b"password", b"NaCl", 64, 1024, 8, 16).expect("within the limits");
        assert!(hex(&key).starts_with("fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"));
    }

    #[test]
    fn what_is_beyond_a_limit_is_refused_by_its_name() {
        let of = |iterations, length| pbkdf2(Algorithm::Sha256, b"", b"", iterations, length, (1_000, "the_limit"));
        assert!(of(1_000, 32).is_ok() && of(500, 64).is_ok());
        assert!(of(1_001, 32).is_err_and(|error| error.contains("limit the_limit")));
        assert!(of(501, 64).is_err_and(|error| error.contains("limit the_limit")));
        assert!(of(1, 2_000).is_err_and(|error| error.contains("limit script_key_bytes")));
        let of = |n, r, p| scrypt(b"", b"", 8, n, r, p);
        assert!(of(1 << 20, 8, 1).is_err_and(|error| error.contains("limit script_scrypt_bytes")));
        assert!(of(u64::MAX, u32::MAX, 1).is_err() && of(0, 8, 1).is_err() && of(3, 8, 1).is_err());
        assert!(of(16, 1, 17).is_err_and(|error| error.contains("limit script_scrypt_p")));
        assert!(of(1 << 63, u32::MAX, 1).is_err());
    }
}
