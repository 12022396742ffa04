//! How many connections the limit of file descriptors makes.

use rustix::process::{Resource, Rlimit, getrlimit};
use serde_json::json;

use super::report::{Check, count};
use crate::boot::RESERVED_FDS;

const NAME: &str = "file descriptors";
/// Connections below which a node is hardly what was meant.
const FEW: u64 = 2_000;

/// The limits of the running node, or else those that a node would get from here.
pub(super) fn check(pid: Option<u32>) -> Check {
    let of_node = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/limits")).ok());
    let (whose, limits) = match of_node.as_deref().and_then(parse) {
        Some(limits) => ("of the node", limits),
        None => {
            let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
            ("from here", (current, maximum))
        }
    };
    judge(whose, limits)
}

fn judge(whose: &str, (soft, hard): (Option<u64>, Option<u64>)) -> Check {
    let show = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), count);
    let connections = hard.map(|hard| hard.saturating_sub(RESERVED_FDS));
    let room = connections
        .map_or("no bound on MQTT connections".to_owned(), |n| format!("room for {} MQTT connections", count(n)));
    let summary = format!("soft {}, hard {} {whose}: {room}", show(soft), show(hard));
    let details = json!({ "soft": soft, "hard": hard, "mqttConnections": connections });
    let advice =
        "the node raises the soft limit by itself; raise the hard one (ulimit -Hn, LimitNOFILE= of the service)";
    match connections {
        Some(0) => Check::fail(NAME, summary, advice),
        Some(few) if few < FEW => Check::warn(NAME, summary, advice),
        _ => Check::ok(NAME, summary),
    }
    .with(details)
}

/// `Max open files  <soft>  <hard>  files` of `/proc/<pid>/limits`.
fn parse(limits: &str) -> Option<(Option<u64>, Option<u64>)> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut words = line.split_whitespace();
    let mut limit = || match words.next()? {
        "unlimited" => Some(None),
        number => Some(Some(number.parse().ok()?)),
    };
    Some((limit()?, limit()?))
}

#[cfg(test)]
mod tests {
    use super::{super::report::Status, *};

    #[test]
    fn few_descriptors_are_told() {
        assert_eq!(judge("", (Some(1_024), Some(1_024))).status, Status::Warn);
        assert_eq!(judge("", (Some(256), Some(256))).status, Status::Fail);
        let check = judge("from here", (Some(1_024), Some(20_000)));
        assert_eq!(check.status, Status::Ok);
        assert_eq!(check.summary, "soft 1,024, hard 20,000 from here: room for 19,488 MQTT connections");
        assert_eq!(judge("", (None, None)).status, Status::Ok);
    }

    #[test]
    fn the_limits_of_a_process_are_read() {
        let text = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 unlimited            files\n";
        assert_eq!(parse(text), Some((Some(1_024), None)));
        assert_eq!(parse("nonsense"), None);
    }
}
