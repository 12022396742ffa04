//! Processor time and memory of a server and of all processes below it, from `/proc`.
//!
//! Tidegate's script workers are child processes: a figure of the parent alone would flatter it.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, Result, ensure};

/// What a process tree has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time in microseconds, of living processes and of the children that they have waited for. The
    /// kernel counts in ticks of 10 ms: windows must be long.
    pub(crate) cpu_us: u64,
    /// Resident memory in bytes, shared pages counted once for each process.
    pub(crate) rss_bytes: u64,
    /// How many processes there are.
    pub(crate) processes: usize,
}

/// What the tree below and with `root` has used.
///
/// # Errors
/// When the root is gone.
pub(crate) fn usage(root: u32) -> Result<Usage> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut ticks = HashMap::new();
    for entry in fs::read_dir("/proc").context("reading /proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may end while it is looked at: then it counts no more.
        let Some(stat) = fs::read_to_string(format!("/proc/{pid}/stat")).ok().as_deref().and_then(stat) else {
            continue;
        };
        children.entry(stat.parent).or_default().push(pid);
        ticks.insert(pid, stat.ticks);
    }
    ensure!(ticks.contains_key(&root), "the server (process {root}) has ended");

    let tick_us = 1_000_000 / rustix::param::clock_ticks_per_second();
    let mut total = Usage::default();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        total.cpu_us += ticks.get(&pid).copied().unwrap_or_default() * tick_us;
        total.rss_bytes += rss_bytes(pid).unwrap_or_default();
        total.processes += 1;
        open.extend(children.get(&pid).into_iter().flatten());
    }
    Ok(total)
}

/// The processor time of this process alone, in microseconds: the load generator's share.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn own_cpu_us() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/stat").context("reading /proc/self/stat")?;
    let own = stat(&text).context("reading /proc/self/stat")?;
    Ok(own.own_ticks * 1_000_000 / rustix::param::clock_ticks_per_second())
}

/// Resident bytes of one process.
fn rss_bytes(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

struct Stat {
    parent: u32,
    /// With the children that were waited for.
    ticks: u64,
    own_ticks: u64,
}

/// Reads `/proc/<pid>/stat` (proc_pid_stat(5)): the parent, and utime + stime + cutime + cstime.
fn stat(text: &str) -> Option<Stat> {
    // The name in parentheses may hold anything, also spaces and parentheses.
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let sum = |fields: &[&str]| fields.iter().map(|field| field.parse::<u64>().ok()).sum::<Option<u64>>();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        ticks: sum(fields.get(11..15)?)?,
        own_ticks: sum(fields.get(11..13)?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 1 0 5 6 7";
        let parsed = stat(text).expect("well formed");
        assert_eq!((parsed.parent, parsed.ticks, parsed.own_ticks), (7, 124, 120));
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = usage(std::process::id()).expect("this process lives");
        assert!(usage.rss_bytes > 100_000 && usage.processes >= 1);
    }
}
