//! Random secrets, and how they are compared and remembered: never as they are, never by a comparison that stops early.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest, hmac,
    rand::{SecureRandom as _, SystemRandom},
};

/// What a token begins with, so that people and scanners know it for a secret of a node.
const TOKEN_PREFIX: &str = "tg_";
/// Random bytes of a token.
const TOKEN_BYTES: usize = 24;
/// Shortest and longest token that may be brought along from elsewhere, in bytes.
pub(crate) const TOKEN_LENGTHS: std::ops::RangeInclusive<usize> = 16..=256;

/// Fills a buffer with random bytes of the system.
///
/// # Errors
/// The system has none.
pub(super) fn fill(buffer: &mut [u8]) -> Result<(), String> {
    SystemRandom::new().fill(buffer).map_err(|_| "the system gives no random bytes".to_owned())
}

/// A new secret: 192 random bits, in characters that go into a header, a user name or a shell without quotes.
///
/// # Errors
/// The system gives no random bytes.
pub(crate) fn token() -> Result<String, String> {
    let mut bytes = [0; TOKEN_BYTES];
    fill(&mut bytes)?;
    Ok(format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// How a secret with enough chance in it is stored and found again. (A password has too little: see [`super::password`].)
pub(crate) fn sha256(secret: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, secret).as_ref());
    hash
}

/// A key of this process, for remembering what was verified without remembering the secret.
pub(super) struct Key(hmac::Key);

impl Key {
    /// # Errors
    /// The system gives no random bytes.
    pub(super) fn new() -> Result<Self, String> {
        let mut bytes = [0; 32];
        fill(&mut bytes)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The keyed hash of several parts; where one ends and the next begins is part of it.
    pub(super) fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut signed = [0; 32];
        signed.copy_from_slice(context.sign().as_ref());
        signed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_keyed_hashes_tell_parts_apart() {
        let (one, other) = (token().unwrap(), token().unwrap());
        assert!(one.len() == 35 && one.starts_with("tg_") && one != other, "{one}");
        let key = Key::new().unwrap();
        assert_eq!(key.sign(&[b"ab", b"c"]), key.sign(&[b"ab", b"c"]));
        assert_ne!(key.sign(&[b"ab", b"c"]), key.sign(&[b"a", b"bc"]));
        assert_ne!(key.sign(&[b"ab", b"c"]), Key::new().unwrap().sign(&[b"ab", b"c"]));
    }
}
