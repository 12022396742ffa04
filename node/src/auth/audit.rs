//! The audit log: who came, who was refused, who changed what. JSON lines in `audit.log` of the data directory.
//!
//! Its thread owns the file; a line is handed to it or counted as dropped, so nobody waits for the disk. Logins and denials are
//! limited in rate, and what was left out is said.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::json;
use tidegate_actors::limits;

use crate::utc;

/// The file's name in the data directory.
pub(crate) const FILE: &str = "audit.log";
/// How long a disk that does not take the lines is not complained about again.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// What happened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event<'a> {
    /// `login`, `connect`, `publish`, `subscribe`, `http`, `user.add`, `revoke`…
    pub(crate) action: &'a str,
    /// `ok`, `denied`, `banned`…
    pub(crate) result: &'a str,
    pub(crate) principal: &'a str,
    /// Where it came from, or empty.
    pub(crate) address: &'a str,
    /// A client id, a topic, a path, a reason.
    pub(crate) detail: &'a str,
}

impl Event<'_> {
    fn line(&self, now: i64) -> String {
        let Self { action, result, principal, address, detail } = self;
        let time = utc::utc(now);
        // Names and topics of clients are unbounded neither in number nor in length.
        let detail = &detail[..detail.floor_char_boundary(detail.len().min(limits::AUDIT_DETAIL_BYTES))];
        format!(
            "{}\n",
            json!({ "time": time, "action": action, "result": result, "principal": principal, "address": address, "detail": detail })
        )
    }
}

/// The way to the log.
pub(crate) struct Audit {
    queue: Mutex<Option<flume::Sender<String>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    rate: Mutex<Rate>,
    dropped: Arc<AtomicU64>,
}

impl Audit {
    /// Starts the thread that writes. The file is made with the first line.
    pub(super) fn start(dir: &Path, bytes: u64, files: usize) -> io::Result<Self> {
        let (queue, lines) = flume::bounded::<String>(limits::AUDIT_QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let mut log = Log { path: dir.join(FILE), bytes, files, open: None, lost: Arc::clone(&lost), told: None };
        let write = move || {
            for mut text in &lines {
                // What has gathered meanwhile goes in the same write.
                lines.try_iter().take(limits::AUDIT_QUEUE).for_each(|line| text.push_str(&line));
                log.write(&text);
            }
        };
        let thread = std::thread::Builder::new().name("audit".to_owned()).spawn(write)?;
        Ok(Self {
            queue: Mutex::new(Some(queue)),
            thread: Mutex::new(Some(thread)),
            rate: Mutex::new(Rate::new(Instant::now())),
            dropped: lost,
        })
    }

    /// Writes a line.
    pub(crate) fn note(&self, event: &Event<'_>, now: i64) {
        self.send(event.line(now));
    }

    /// Writes a line of which there may be very many.
    pub(crate) fn note_often(&self, event: &Event<'_>, now: i64) {
        let taken = self.rate.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now());
        let Some(left_out) = taken else { return };
        if left_out > 0 {
            let detail = format!("{left_out} lines of logins and denials (limit audit_rate)");
            self.note(&Event { action: "left-out", result: "", principal: "", address: "", detail: &detail }, now);
        }
        self.note(event, now);
    }

    /// Lines that the log lacks, because the disk did not keep up.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Writes what waits, and ends.
    pub(crate) fn stop(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }

    fn send(&self, line: String) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.as_ref().is_none_or(|queue| queue.try_send(line).is_err()) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes one line from a command, beside a node that may run.
pub(crate) fn note_from_command(dir: &Path, event: &Event<'_>, now: i64) -> io::Result<()> {
    open(&dir.join(FILE))?.write_all(event.line(now).as_bytes())
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// A bucket of lines: so many at once, so many a second.
struct Rate {
    tokens: f64,
    at: Instant,
    left_out: u64,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self { tokens: f64::from(limits::AUDIT_BURST), at: now, left_out: 0 }
    }

    /// `None`: leave it out; else how many were left out before it.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let gained = now.saturating_duration_since(self.at).as_secs_f64() * f64::from(limits::AUDIT_RATE);
        self.tokens = (self.tokens + gained).min(f64::from(limits::AUDIT_BURST));
        self.at = now;
        if self.tokens < 1.0 {
            self.left_out += 1;
            return None;
        }
        self.tokens -= 1.0;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// The file, and its older brothers `audit.log.1` (the youngest) and on.
struct Log {
    path: PathBuf,
    bytes: u64,
    files: usize,
    open: Option<(File, u64)>,
    /// Lines that could not be written.
    lost: Arc<AtomicU64>,
    /// When that was last said.
    told: Option<Instant>,
}

impl Log {
    fn write(&mut self, text: &str) {
        let written = self.try_write(text);
        if let Err(error) = written {
            self.lost.fetch_add(text.lines().count() as u64, Ordering::Relaxed);
            self.open = None;
            // A full disk would fill the log with this.
            if self.told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
                tracing::error!(%error, path = %self.path.display(), "cannot write the audit log; the lines that it lacks are counted");
                self.told = Some(Instant::now());
            }
        }
    }

    fn try_write(&mut self, text: &str) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|(_, size)| *size + text.len() as u64 > self.bytes) {
            self.open = None;
            self.rotate()?;
        }
        if self.open.is_none() {
            let file = open(&self.path)?;
            let size = file.metadata()?.len();
            self.open = Some((file, size));
        }
        if let Some((file, size)) = &mut self.open {
            file.write_all(text.as_bytes())?;
            *size += text.len() as u64;
        }
        Ok(())
    }

    fn rotate(&self) -> io::Result<()> {
        let name = |number: usize| PathBuf::from(format!("{}.{number}", self.path.display()));
        let exists = |result: io::Result<()>| match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        for number in (1..self.files.saturating_sub(1)).rev() {
            exists(std::fs::rename(name(number), name(number + 1)))?;
        }
        if self.files > 1 {
            exists(std::fs::rename(&self.path, name(1)))
        } else {
            exists(std::fs::remove_file(&self.path))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_json_and_files_are_bounded_in_size_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::start(dir.path(), 4_000, 3).unwrap();
        let long = "é".repeat(10_000);
        for n in 0..200 {
            let name = format!("d{n}");
            let event =
                Event { action: "login", result: "denied", principal: &name, address: "192.0.2.1:5", detail: "\"\n" };
            audit.note(&event, 1_795_530_511_790);
            while audit.queue.lock().unwrap().as_ref().unwrap().len() > 10 {
                std::thread::yield_now();
            }
        }
        audit.note(&Event { action: "x", result: "", principal: "", address: "", detail: &long }, 0);
        audit.stop();
        assert_eq!(audit.dropped(), 0);
        let names = [FILE.to_owned(), format!("{FILE}.1"), format!("{FILE}.2")];
        for name in &names {
            let text = std::fs::read_to_string(dir.path().join(name)).unwrap();
            assert!(text.len() <= 4_000 && !text.is_empty(), "{name}: {}", text.len());
            for line in text.lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                assert!(line["time"].as_str().is_some() && line["detail"].as_str().unwrap().len() <= 600, "{line}");
            }
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
        audit.note(&Event { action: "x", result: "", principal: "", address: "", detail: "" }, 0);
        assert_eq!(audit.dropped(), 1);
    }

    #[test]
    fn a_flood_is_thinned_and_says_so() {
        let now = Instant::now();
        let mut rate = Rate::new(now);
        let taken = (0..10 * limits::AUDIT_BURST).filter(|_| rate.take(now).is_some()).count();
        assert_eq!(taken, limits::AUDIT_BURST as usize);
        assert_eq!(rate.take(now + Duration::from_secs(1)), Some(u64::from(9 * limits::AUDIT_BURST)));
    }
}
