//! A program at a pseudo terminal: types, and waits for what is shown.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    fs::OFlags,
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};

use super::eventually;

/// A running program and its terminal.
pub(crate) struct Terminal {
    child: Child,
    keys: File,
    shown: Arc<Mutex<String>>,
    /// What has been waited for already.
    seen: usize,
}

impl Terminal {
    /// Starts it.
    #[track_caller]
    pub(crate) fn start(mut command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pseudo terminal");
        grantpt(&master).expect("it is ours");
        unlockpt(&master).expect("it can be opened");
        let name = ptsname(&master, Vec::new()).expect("its name");
        let path = name.to_str().expect("a path").to_owned();
        let noctty = i32::try_from(OFlags::NOCTTY.bits()).expect("a small flag");
        let slave =
            || OpenOptions::new().read(true).write(true).custom_flags(noctty).open(&path).expect("its other end");
        let child = command.env("TERM", "xterm").stdin(slave()).stdout(slave()).stderr(slave()).spawn();
        let child = child.expect("the binary starts");
        let keys = File::from(master);
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut screen, text) = (keys.try_clone().expect("a copy"), Arc::clone(&shown));
        // It ends with the program: then the terminal has no other end any more.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = screen.read(&mut buffer) {
                let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Self { child, keys, shown, seen: 0 }
    }

    /// Types.
    #[track_caller]
    pub(crate) fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Waits until this is shown, after what was waited for before. Colours and the cursor's ways are left out.
    #[track_caller]
    pub(crate) fn shows(&mut self, words: &str) {
        let seen = self.seen;
        let at = eventually(&format!("{words:?} on the terminal"), || {
            let text = self.text();
            text.get(seen..).and_then(|text| text.find(words))
        });
        self.seen = seen + at + words.len();
    }

    /// All that was shown.
    pub(crate) fn text(&self) -> String {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut text, mut rest) = (String::new(), shown.as_str());
        while let Some((before, after)) = rest.split_once('\u{1b}') {
            text.push_str(before);
            rest = match after.strip_prefix('[') {
                Some(sequence) => {
                    sequence.split_once(|end: char| ('@'..='~').contains(&end)).map_or("", |(_, rest)| rest)
                }
                None => after.get(1..).unwrap_or_default(),
            };
        }
        text.push_str(rest);
        text
    }

    /// Ctrl-C as the terminal would send it while the program does not read keys.
    pub(crate) fn interrupt(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a pid");
        kill_process(pid, Signal::INT).expect("the child is not reaped yet, so its pid is its own");
    }

    /// Waits for the program to end.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> ExitStatus {
        eventually("the program to end", || self.child.try_wait().expect("a child of ours"))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- the terminal\n{}\n----", self.text());
        }
    }
}
