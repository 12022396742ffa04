//! The built command against a node, and the node's memory meanwhile.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::process;
use crate::server::Server;

/// Time between two looks at the node's memory.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// What `state export --json` and `state import --json` answer, as far as it is of interest.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Answer {
    pub(crate) devices: u64,
    pub(crate) bytes: u64,
    pub(crate) imported: u64,
    pub(crate) seconds: f64,
}

/// Runs commands against `node`; `folder` takes what they say on stderr.
pub(crate) struct Watched<'a> {
    pub(crate) program: &'a Path,
    pub(crate) node: &'a Server,
    pub(crate) folder: &'a Path,
}

/// A command that succeeded.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) answer: Answer,
    /// The node's resident memory when it began, and its peak.
    pub(crate) rss_before: u64,
    pub(crate) rss_peak: u64,
}

impl Watched<'_> {
    /// Runs `args` with the node's address behind them.
    ///
    /// # Errors
    /// A command that fails, with what it said.
    pub(crate) fn run(&self, args: &[&str]) -> Result<Done> {
        let (stderr, node) = (self.folder.join("command-stderr"), self.node.http.context("it speaks no HTTP")?);
        let mut command = Command::new(self.program);
        command.args(args).args(["--node", &format!("http://{node}")]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&stderr)?);
        let rss_before = process::resident_bytes(self.node.pid())?;
        let mut child = command.spawn().with_context(|| format!("starting {}", self.program.display()))?;
        let mut rss_peak = rss_before;
        // The answer is one short line: it fits into the pipe.
        while child.try_wait()?.is_none() {
            rss_peak = rss_peak.max(process::resident_bytes(self.node.pid())?);
            thread::sleep(LOOK);
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = fs::read_to_string(&stderr).unwrap_or_default();
            bail!("tidegate {} ended with {}: {}", args.join(" "), output.status, said.trim_end());
        }
        let answer = serde_json::from_slice(&output.stdout).with_context(|| format!("the answer of {args:?}"))?;
        Ok(Done { answer, rss_before, rss_peak })
    }
}
