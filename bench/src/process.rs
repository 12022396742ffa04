//! Processor time and memory of a server and of all processes below it, from `/proc`.
//!
//! Tidegate's script workers are child processes: a figure of the parent alone would flatter it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// What a process tree has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time in microseconds, of living processes and of the children that they have waited for, in
    /// whole ticks (10 ms).
    ticks_us: u64,
    /// The run time of all living threads in microseconds, exact, but without what ended threads have used.
    threads_us: u64,
    /// Resident memory in bytes, shared pages counted once for each process.
    pub(crate) rss_bytes: u64,
    /// How many processes there are.
    pub(crate) processes: usize,
}

impl Usage {
    /// The processor time since `before`, in microseconds: by the threads' exact clocks, unless these contradict the
    /// ticks, as they do when a thread or a process has ended in between.
    pub(crate) fn cpu_us_since(&self, before: &Self) -> u64 {
        let ticks_us = self.ticks_us.saturating_sub(before.ticks_us);
        let threads_us = self.threads_us.saturating_sub(before.threads_us);
        // User and system time are each rounded down to a tick, here and there.
        let tolerance_us = 4 * tick_us() * self.processes.max(before.processes) as u64;
        if threads_us.abs_diff(ticks_us) <= tolerance_us { threads_us } else { ticks_us }
    }
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

    let mut total = Usage::default();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        total.ticks_us += ticks.get(&pid).copied().unwrap_or_default() * tick_us();
        total.threads_us += threads_ns(pid) / 1_000;
        total.rss_bytes += rss_bytes(pid).unwrap_or_default();
        total.processes += 1;
        open.extend(children.get(&pid).into_iter().flatten());
    }
    Ok(total)
}

/// The run time so far of a process's living threads, in nanoseconds, by their names (the kernel keeps 15 bytes of each).
///
/// # Errors
/// When the process is gone.
pub(crate) fn threads(pid: u32) -> Result<BTreeMap<String, u64>> {
    let mut by_name = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} has ended"))? {
        let task = task?.path();
        // A thread may end while it is looked at: then it counts no more.
        let (Ok(name), Some(ns)) = (fs::read_to_string(task.join("comm")), run_ns(&task)) else { continue };
        *by_name.entry(name.trim_end().to_owned()).or_insert(0) += ns;
    }
    Ok(by_name)
}

/// The folder of a process's thread of that name in `/proc`.
pub(crate) fn thread_named(pid: u32, name: &str) -> Option<PathBuf> {
    let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten().map(|task| task.path());
    tasks.find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name))
}

/// Is a thread in a sleep that no signal ends (state `D`), as in `fdatasync`?
pub(crate) fn waits_for_disk(task: &Path) -> bool {
    let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('D'))
}

/// Resident bytes of a process alone, without holding it up: the kernel counts them along.
///
/// # Errors
/// When the process is gone.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).with_context(|| format!("process {pid} has ended"))?;
    let pages = statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    Ok(pages.context("reading statm")? * rustix::param::page_size() as u64)
}

/// The most resident bytes that a process ever had.
///
/// # Errors
/// When the process is gone.
pub(crate) fn peak_resident_bytes(pid: u32) -> Result<u64> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} has ended"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(kib.context("reading VmHWM")? * 1024)
}

/// Resident bytes of this process.
pub(crate) fn own_rss_bytes() -> u64 {
    rss_bytes(std::process::id()).unwrap_or_default()
}

/// The processor time of this process alone, in microseconds: the load generator's share.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn own_cpu_us() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/stat").context("reading /proc/self/stat")?;
    let own = stat(&text).context("reading /proc/self/stat")?;
    Ok(own.own_ticks * tick_us())
}

fn tick_us() -> u64 {
    1_000_000 / rustix::param::clock_ticks_per_second()
}

/// The run time of the living threads of one process, in nanoseconds.
fn threads_ns(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| run_ns(&task.path())).sum()
}

/// The run time of one thread: the first figure of its `schedstat`.
fn run_ns(task: &Path) -> Option<u64> {
    fs::read_to_string(task.join("schedstat")).ok()?.split_ascii_whitespace().next()?.parse().ok()
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
    fn the_exact_clock_is_believed_only_while_it_agrees_with_the_ticks() {
        let usage = |ticks_us, threads_us| Usage { ticks_us, threads_us, rss_bytes: 0, processes: 1 };
        let before = usage(1_000_000, 1_004_000);
        assert_eq!(usage(1_250_000, 1_251_500).cpu_us_since(&before), 247_500);
        // A thread that had used 0.5 s is gone.
        assert_eq!(usage(1_250_000, 751_500).cpu_us_since(&before), 250_000);
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = usage(std::process::id()).expect("this process lives");
        assert!(usage.rss_bytes > 100_000 && usage.processes >= 1);
        let peak = peak_resident_bytes(std::process::id()).expect("this process lives");
        assert!(peak > 100_000, "{peak}");
    }
}
