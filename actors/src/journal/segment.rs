//! A segment file: its name, its head, and the list of those that are kept.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Bytes before the first frame.
pub(crate) const HEAD: usize = 32;
/// The format that this build writes and reads.
pub(crate) const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"TGJRNL\r\n";
const EXTENSION: &str = "tgj";

/// A segment in the journal's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The position that its first record has, or would have.
    pub(crate) first: u64,
    /// The file.
    pub(crate) path: PathBuf,
    /// Bytes of head and records.
    pub(crate) bytes: u64,
}

impl Segment {
    /// When it was written last, or closed.
    pub(crate) fn modified(&self) -> io::Result<SystemTime> {
        fs::metadata(&self.path)?.modified()
    }
}

/// What the head of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    /// It is whole.
    Valid { first: u64 },
    /// It is whole, and of a format that this build does not know.
    Newer { format: u32 },
    /// It is damaged.
    Damaged,
}

/// The head of a segment whose first record is at `first`: magic, format, first position, zero, CRC-32C of all that.
pub(crate) fn head(first: u64) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    head[12..20].copy_from_slice(&first.to_le_bytes());
    let crc = crc32c::crc32c(&head[..28]);
    head[28..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Reads a head.
pub(crate) fn parse_head(bytes: &[u8]) -> Head {
    let Some(head) = bytes.get(..HEAD) else { return Head::Damaged };
    let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    if head[..8] != MAGIC || word(28) != crc32c::crc32c(&head[..28]) {
        return Head::Damaged;
    }
    match word(8) {
        FORMAT => Head::Valid { first: u64::from_le_bytes(head[12..20].try_into().expect("eight bytes")) },
        format => Head::Newer { format },
    }
}

/// The path of a segment.
pub(crate) fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.{EXTENSION}"))
}

/// The segments of a directory, in order; none if it does not exist.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<Segment>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut segments = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Some(first) = first_of(&entry.path()) {
            segments.push(Segment { first, path: entry.path(), bytes: entry.metadata()?.len() });
        }
    }
    segments.sort_unstable_by_key(|segment| segment.first);
    Ok(segments)
}

/// The first position of a segment, by its name; `None`: it is no segment.
pub(crate) fn first_of(path: &Path) -> Option<u64> {
    (path.extension()? == EXTENSION).then(|| path.file_stem()?.to_str()?.parse().ok())?
}
