//! The idempotency key of a request: what tells a retry from a second request with the same readings.
//!
//! HTTP sends it in the header `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header), MQTT 5 in the user property
//! `idempotency-key`. A key and the bytes that came with it name a request; the device's fold drops the readings of a request
//! that it has seen. Here is only the key.

use sha2::{Digest as _, Sha256};
use tidegate_actors::{ledger::RejectReason, limits};

use super::IngestError;

/// Shortest key, in characters: shorter ones are counters or words, which two clients may both choose.
const SHORTEST: usize = 8;

/// A checked key: 8 to 255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdempotencyKey(Box<str>);

/// Names a request: what its key and its body hash to.
pub(crate) type RequestHash = [u8; 16];

/// Why a text is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadKey {
    /// Its length.
    #[error(
        "the idempotency key has {0} characters; allowed: {SHORTEST} to {longest}",
        longest = limits::IDEMPOTENCY_KEY_BYTES
    )]
    Length(usize),
    /// A character, and which.
    #[error("the idempotency key has a character that is not visible ASCII at byte {0}; a UUID would do")]
    Character(usize),
    /// A quoted key that does not end where its quotes do (RFC 8941 section 3.3.3).
    #[error("the idempotency key begins with a quote and does not end with one; send \"…\" or no quotes at all")]
    Quotes,
}

impl IdempotencyKey {
    /// Checks a key as it was sent: in quotes, as the draft wants it (a string of RFC 8941), or without.
    ///
    /// # Errors
    /// [`BadKey`].
    pub(crate) fn parse(sent: &[u8]) -> Result<Self, BadKey> {
        let sent = sent.trim_ascii();
        let key = match sent.strip_prefix(b"\"") {
            Some(quoted) => unquote(quoted)?,
            None => sent.to_vec(),
        };
        if let Some(at) = key.iter().position(|byte| !byte.is_ascii_graphic()) {
            return Err(BadKey::Character(at));
        }
        if !(SHORTEST..=limits::IDEMPOTENCY_KEY_BYTES).contains(&key.len()) {
            return Err(BadKey::Length(key.len()));
        }
        // It is ASCII.
        Ok(Self(String::from_utf8_lossy(&key).into()))
    }

    /// The request of this key with this body: the first half of SHA-256(key ‖ 0 ‖ body).
    pub(crate) fn request(&self, body: &[u8]) -> RequestHash {
        half_hash(&[self.0.as_bytes(), &[0], body])
    }

    /// The key where it is valid: a device's, or the whole node's (`""`).
    pub(crate) fn within(&self, scope: &str) -> RequestHash {
        half_hash(&[scope.as_bytes(), &[0], self.0.as_bytes()])
    }
}

/// The refusal of readings whose key came with another body before; `field` is where the key stood.
pub(crate) fn key_reused(field: &'static str) -> IngestError {
    let detail = "this key came with another body before; a retry has the same body, byte by byte, and another request has a \
                  key of its own";
    IngestError::new(RejectReason::IdempotencyKeyReused, detail).field(field)
}

fn half_hash(parts: &[&[u8]]) -> RequestHash {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    let mut half = RequestHash::default();
    half.copy_from_slice(&hash.finalize()[..16]);
    half
}

/// The text of a string of RFC 8941 whose first quote is gone.
fn unquote(quoted: &[u8]) -> Result<Vec<u8>, BadKey> {
    let mut text = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    loop {
        match bytes.next() {
            Some(b'"') if bytes.as_slice().is_empty() => return Ok(text),
            Some(b'"') | None => return Err(BadKey::Quotes),
            Some(b'\\') => match bytes.next() {
                Some(escaped @ (b'"' | b'\\')) => text.push(*escaped),
                _ => return Err(BadKey::Quotes),
            },
            Some(byte) => text.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_with_quotes_and_without() {
        let check = |sent: &str, expected: Result<&str, BadKey>| {
            let parsed = IdempotencyKey::parse(sent.as_bytes()).map(|key| key.0.into_string());
            assert_eq!(parsed, expected.map(str::to_owned), "{sent:?}");
        };
        check("8e03978e-40d5-43e8", Ok("8e03978e-40d5-43e8"));
        check(" \"8e03978e-40d5-43e8\" ", Ok("8e03978e-40d5-43e8"));
        check(r#""quote\"and\\slash""#, Ok(r#"quote"and\slash"#));
        check("12345678", Ok("12345678"));
        check("1234567", Err(BadKey::Length(7)));
        check("\"1234567\"", Err(BadKey::Length(7)));
        check("", Err(BadKey::Length(0)));
        check(&"k".repeat(255), Ok(&"k".repeat(255)));
        check(&"k".repeat(256), Err(BadKey::Length(256)));
        check("with a space", Err(BadKey::Character(4)));
        check("Schlüssel-1", Err(BadKey::Character(4)));
        check("\"open-ended", Err(BadKey::Quotes));
        check("\"12345678\";a=1", Err(BadKey::Quotes));
        check(r#""1234\5678""#, Err(BadKey::Quotes));
    }

    #[test]
    fn a_request_is_its_key_and_its_body() {
        let key = |text: &str| IdempotencyKey::parse(text.as_bytes()).unwrap();
        let request = key("key-00000001").request(b"{}");
        assert_eq!(request, key("\"key-00000001\"").request(b"{}"));
        assert_ne!(request, key("key-00000001").request(b"{} "));
        assert_ne!(request, key("key-00000002").request(b"{}"));
        // What moves from the body into the key makes another request.
        assert_ne!(key("key-00000001").request(b"1{}"), key("key-000000011").request(b"{}"));
        assert_ne!(key("key-00000001").within(""), key("key-00000001").within("d1"));
        // Stored in the journal: it must stay what it is.
        assert_eq!(format!("{:032x}", u128::from_be_bytes(request)), "9146b0e59abbf94adc4873c12cf49e24");
    }
}
