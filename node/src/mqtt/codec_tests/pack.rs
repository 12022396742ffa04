//! A fuzzer's corpus as one file, because thousands of files of a few bytes each are a burden to everyone who copies them:
//! each entry is its length (u32, little endian) and its bytes, in order, none twice. The fuzz crate includes this file.

#![allow(unreachable_pub, reason = "the fuzz crate exports it")]

/// Packs entries.
pub fn pack(entries: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut packed = Vec::new();
    for entry in entries.into_iter().collect::<std::collections::BTreeSet<_>>() {
        packed.extend_from_slice(&(entry.len() as u32).to_le_bytes());
        packed.extend(entry);
    }
    packed
}

/// The entries of a pack; `None` if it is not one.
pub fn unpack(mut packed: &[u8]) -> Option<Vec<&[u8]>> {
    let mut entries = Vec::new();
    while !packed.is_empty() {
        let (length, rest) = packed.split_first_chunk()?;
        let (entry, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        entries.push(entry);
        packed = rest;
    }
    Some(entries)
}
