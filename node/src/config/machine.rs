//! What the machine offers: cores and memory. Read once, for defaults; it never fails, since a default must exist.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Memory that is assumed where the machine does not tell.
const ASSUMED_BYTES: u64 = 1 << 30;

/// The cores that this process may use, cgroup quotas and affinity included; at most `most`.
pub(crate) fn cores(most: usize) -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(most)
}

/// 80 % of the memory that this process may use, in whole MiB: the rest is for script workers and the kernel's buffers.
pub(crate) fn memory_share() -> u64 {
    (available(|path| fs::read_to_string(path).ok()) / 10 * 8) >> 20 << 20
}

/// The smaller of the machine's memory and the limit of this process's cgroup, in bytes.
fn available(read: impl Fn(&Path) -> Option<String>) -> u64 {
    let machine = read(Path::new("/proc/meminfo")).and_then(|text| total_of(&text));
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().flat_map(limit_files).filter_map(|file| read(&file)?.trim().parse().ok());
    limits.chain(machine).min().unwrap_or(ASSUMED_BYTES)
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The files that may limit the memory of a line of `/proc/self/cgroup` (`id:controllers:path`): a limit of any parent
/// binds too, and in a container the path may start above what is mounted.
fn limit_files(line: &str) -> Vec<PathBuf> {
    let mut parts = line.splitn(3, ':');
    let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
        return Vec::new();
    };
    let (root, file) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        names if names.split(',').any(|name| name == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return Vec::new(),
    };
    let group = Path::new(path.trim_start_matches('/'));
    group.ancestors().map(|group| Path::new(root).join(group).join(file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(files: &[(&str, &str)], expected: u64) {
        let read =
            |path: &Path| files.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| (*text).to_owned());
        assert_eq!(available(read), expected, "{files:?}");
    }

    #[test]
    fn the_smallest_limit_counts() {
        let meminfo = ("/proc/meminfo", "MemTotal:        8 kB\nMemFree: 1 kB\n");
        check(&[], ASSUMED_BYTES);
        check(&[meminfo], 8192);
        let v2 = ("/proc/self/cgroup", "0::/a/b\n");
        check(&[meminfo, v2], 8192);
        check(&[meminfo, v2, ("/sys/fs/cgroup/a/b/memory.max", "max\n")], 8192);
        check(
            &[meminfo, v2, ("/sys/fs/cgroup/a/b/memory.max", "4096\n"), ("/sys/fs/cgroup/memory.max", "5000\n")],
            4096,
        );
        check(
            &[meminfo, v2, ("/sys/fs/cgroup/a/memory.max", "100\n"), ("/sys/fs/cgroup/a/b/memory.max", "max\n")],
            100,
        );
        let v1 = ("/proc/self/cgroup", "9:cpu:/x\n4:memory,hugetlb:/x\n0::/\n");
        check(&[meminfo, v1, ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "7000\n")], 7000);
        check(&[meminfo, v1, ("/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9223372036854771712\n")], 8192);
        check(&[meminfo, ("/proc/self/cgroup", "nonsense\n4\n")], 8192);
    }
}
