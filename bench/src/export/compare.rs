//! Two NDJSON exports, line by line: everything but positions and the time of the export must be the same text.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::value::RawValue;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// Devices that were compared.
    pub(crate) devices: u64,
    /// Those with states of handlers, and those with something in the ledger.
    pub(crate) with_scripts: u64,
    pub(crate) with_ledger: u64,
    /// Lines that differ, and the first of them.
    pub(crate) different: u64,
    pub(crate) first: Option<String>,
}

/// A device's line. A member that is not known here is an error, so that a new one is not left out.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    device_id: &'a RawValue,
    #[serde(borrow)]
    state: &'a RawValue,
    #[serde(borrow)]
    device_time: &'a RawValue,
    #[serde(borrow)]
    received_time: &'a RawValue,
    #[serde(borrow)]
    newest_device_time: &'a RawValue,
    version: u64,
    #[serde(rename = "position")]
    _position: u64,
    #[serde(borrow)]
    scripts: &'a RawValue,
    #[serde(borrow)]
    ledger: &'a RawValue,
}

const NO_LEDGER: &str = r#"{"conflated":{},"dropped":{},"parked":{}}"#;

impl Line<'_> {
    /// All that must be the same, as it is written.
    fn texts(&self) -> [&str; 7] {
        let Self { device_id, state, device_time, received_time, newest_device_time, scripts, ledger, .. } = self;
        [device_id, state, device_time, received_time, newest_device_time, scripts, ledger].map(|raw| raw.get())
    }
}

/// Compares two files.
///
/// # Errors
/// A file that cannot be read or is no whole export.
pub(crate) fn files(first: &Path, second: &Path) -> Result<Compared> {
    let open = |path: &Path| File::open(path).with_context(|| format!("opening {}", path.display()));
    compare(BufReader::new(open(first)?), BufReader::new(open(second)?))
}

fn compare(first: impl BufRead, second: impl BufRead) -> Result<Compared> {
    let mut compared = Compared::default();
    let (mut left, mut right) = (first.lines(), second.lines());
    let mut next = || -> Result<Option<(String, String)>> {
        match (left.next().transpose()?, right.next().transpose()?) {
            (Some(left), Some(right)) => Ok(Some((left, right))),
            (None, None) => Ok(None),
            (left, _) => Ok(Some((left.unwrap_or_default(), String::new()))),
        }
    };
    let (head, _) = next()?.context("an empty export")?;
    ensure!(head.contains("tidegateExport"), "the first line is no head of an export: {head}");
    let mut ended = false;
    while let Some((left, right)) = next()? {
        if left == right && left.contains("tidegateExportEnd") {
            ended = true;
            continue;
        }
        let same = match (serde_json::from_str::<Line<'_>>(&left), serde_json::from_str::<Line<'_>>(&right)) {
            (Ok(left), Ok(right)) => {
                compared.devices += 1;
                compared.with_scripts += u64::from(left.scripts.get() != "{}");
                compared.with_ledger += u64::from(left.ledger.get() != NO_LEDGER);
                left.version == right.version && left.texts() == right.texts()
            }
            _ => false,
        };
        if !same {
            compared.different += 1;
            compared.first.get_or_insert_with(|| format!("{left}\n{right}"));
        }
    }
    ensure!(ended || compared.first.is_some(), "the exports have no end");
    Ok(compared)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"{"deviceId":"a","state":{"v":1},"deviceTime":null,"receivedTime":5,"newestDeviceTime":null,"version":2,"position":9,"scripts":{"h.js":{}},"ledger":{"conflated":{"late":1},"dropped":{},"parked":{}}}"#;

    fn check(first: &str, second: &str) -> Compared {
        let whole = |line: &str, time: u32| {
            format!("{{\"tidegateExport\":1,\"time\":{time}}}\n{line}\n{{\"devices\":1,\"tidegateExportEnd\":1}}\n")
        };
        compare(whole(first, 1).as_bytes(), whole(second, 2).as_bytes()).expect("whole exports")
    }

    #[test]
    fn positions_alone_may_differ() {
        let same = check(ONE, &ONE.replace(r#""position":9"#, r#""position":4711"#));
        assert_eq!((same.devices, same.with_scripts, same.with_ledger, same.different), (1, 1, 1, 0));
    }

    #[test]
    fn everything_else_must_be_the_same_text() {
        for (old, new) in [
            (r#""deviceId":"a""#, r#""deviceId":"b""#),
            (r#"{"v":1}"#, r#"{"v":1.0}"#),
            (r#""receivedTime":5"#, r#""receivedTime":6"#),
            (r#""newestDeviceTime":null"#, r#""newestDeviceTime":5"#),
            (r#""version":2"#, r#""version":3"#),
            (r#""h.js":{}"#, r#""h.js":{"n":1}"#),
            (r#""late":1"#, r#""late":2"#),
            (r#""version":2"#, r#""version":2,"new":1"#),
        ] {
            let other = ONE.replace(old, new);
            assert_ne!(other, ONE);
            assert_eq!(check(ONE, &other).different, 1, "{other}");
        }
    }

    #[test]
    fn a_device_more_is_a_difference_and_no_end_is_an_error() {
        assert!(check(ONE, &format!("{ONE}\n{ONE}")).different > 0);
        assert!(check(&format!("{ONE}\n{ONE}"), ONE).different > 0);
        let head = "{\"tidegateExport\":1}\n";
        assert!(compare(head.as_bytes(), head.as_bytes()).is_err());
    }
}
