//! What `zlib` packs and unpacks, never more than it may give: a small input can unpack to gigabytes.

use std::io::{self, Read};

use flate2::{
    Compression,
    read::{DeflateDecoder, DeflateEncoder, GzEncoder, MultiGzDecoder, ZlibDecoder, ZlibEncoder},
};
use serde::Deserialize;

/// Bytes of the brotli coder's buffer.
const BROTLI_BUFFER: usize = 64 * 1024;

/// One of `zlib`'s functions, by its name there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Zip {
    Gzip,
    Gunzip,
    Deflate,
    Inflate,
    DeflateRaw,
    InflateRaw,
    Unzip,
    BrotliCompress,
    BrotliDecompress,
}

/// What it failed of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ZipError {
    /// It would give more than this many bytes.
    TooLarge(usize),
    /// The input ends before its end.
    Cut,
    /// The input is none of its kind.
    Bad(String),
}

/// Packs or unpacks. `level`: 0 to 9 (brotli: 0 to 11), or else the default.
///
/// # Errors
/// [`ZipError`].
pub(crate) fn zip(kind: Zip, level: Option<u32>, input: &[u8], most: usize) -> Result<Vec<u8>, ZipError> {
    check_header(kind, input)?;
    let packing = level.map_or_else(Compression::default, |level| Compression::new(level.min(9)));
    match kind {
        Zip::Gzip => read(GzEncoder::new(input, packing), most),
        Zip::Deflate => read(ZlibEncoder::new(input, packing), most),
        Zip::DeflateRaw => read(DeflateEncoder::new(input, packing), most),
        Zip::BrotliCompress => {
            read(brotli::CompressorReader::new(input, BROTLI_BUFFER, level.map_or(11, |level| level.min(11)), 22), most)
        }
        Zip::Gunzip => read(MultiGzDecoder::new(input), most),
        Zip::Unzip if input.starts_with(&[0x1f, 0x8b]) => read(MultiGzDecoder::new(input), most),
        Zip::Inflate | Zip::Unzip => read(ZlibDecoder::new(input), most),
        Zip::InflateRaw => read(DeflateDecoder::new(input), most),
        Zip::BrotliDecompress => read(brotli::Decompressor::new(input, BROTLI_BUFFER), most),
    }
}

/// An input of another kind is told from one that is cut.
fn check_header(kind: Zip, input: &[u8]) -> Result<(), ZipError> {
    let is_gzip = input.iter().zip([0x1f, 0x8b]).all(|(byte, wanted)| *byte == wanted);
    let is_zlib = match input {
        // RFC 1950, section 2.2.
        [method, flags, ..] => method & 15 == 8 && (u16::from(*method) << 8 | u16::from(*flags)) % 31 == 0,
        [method] => method & 15 == 8,
        [] => true,
    };
    let is_well = match kind {
        Zip::Gunzip => is_gzip,
        Zip::Inflate => is_zlib,
        Zip::Unzip => is_gzip || is_zlib,
        _ => true,
    };
    if is_well { Ok(()) } else { Err(ZipError::Bad("incorrect header check".to_owned())) }
}

fn read(coder: impl Read, most: usize) -> Result<Vec<u8>, ZipError> {
    let mut output = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX);
    coder.take(limit.saturating_add(1)).read_to_end(&mut output).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ZipError::Cut,
        _ => ZipError::Bad(error.to_string()),
    })?;
    if output.len() > most { Err(ZipError::TooLarge(most)) } else { Ok(output) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIRS: [(Zip, Zip); 6] = [
        (Zip::Gzip, Zip::Gunzip),
        (Zip::Gzip, Zip::Unzip),
        (Zip::Deflate, Zip::Inflate),
        (Zip::Deflate, Zip::Unzip),
        (Zip::DeflateRaw, Zip::InflateRaw),
        (Zip::BrotliCompress, Zip::BrotliDecompress),
    ];

    #[test]
    fn what_was_packed_comes_back_and_never_more_than_may_be() {
        for text in [Vec::new(), b"hello".to_vec(), vec![7; 100_000]] {
            for (pack, unpack) in PAIRS {
                let packed = zip(pack, None, &text, 1 << 20).expect("it packs");
                assert_eq!(zip(unpack, None, &packed, text.len()).as_ref(), Ok(&text), "{pack:?}");
                if !text.is_empty() {
                    let most = text.len() - 1;
                    assert_eq!(zip(unpack, None, &packed, most), Err(ZipError::TooLarge(most)), "{pack:?}");
                    assert!(zip(unpack, None, &packed[..packed.len() - 3], 1 << 20).is_err(), "{pack:?}");
                }
            }
        }
    }

    #[test]
    fn rubbish_is_refused() {
        for kind in [Zip::Gunzip, Zip::Inflate, Zip::InflateRaw, Zip::Unzip, Zip::BrotliDecompress] {
            assert!(matches!(zip(kind, None, &[0xff; 64], 1 << 20), Err(ZipError::Bad(_))), "{kind:?}");
        }
    }
}
