//! Is the view what snapshot and journal come to, and does the ledger account for every reading? The audit's findings in words.

use serde_json::json;
use tidegate_actors::recovery::{
    DataDir,
    audit::{Arithmetic, Audit, AuditError, audit},
};

use super::report::{Check, count, many};

const VIEW: &str = "view";
const LEDGER: &str = "ledger";

/// Audits a directory that no node has: the view, and the ledger of its data.
pub(super) fn checks(data: &DataDir) -> Vec<Check> {
    let scratch = match tempfile::Builder::new().prefix("tidegate-doctor-").tempdir() {
        Ok(scratch) => scratch,
        Err(error) => {
            let summary = format!("not checked: no directory for temporary files ({error})");
            return vec![Check::warn(VIEW, summary, "name one with room for a copy of the view: TMPDIR=…")];
        }
    };
    match audit(data, scratch.path()) {
        Ok(audit) => vec![judge_view(&audit).with(json!(audit)), judge_ledger(&audit.ledger)],
        Err(error @ AuditError::Copy { .. }) => {
            let summary = format!("not checked: {error}");
            vec![Check::warn(VIEW, summary, "name a directory with room for a copy of the view: TMPDIR=…")]
        }
        Err(error @ (AuditError::Store(_) | AuditError::Behind { .. })) => {
            let advice = "nothing: the next start moves it away and rebuilds it from snapshot and journal, and says so";
            vec![Check::warn(VIEW, error.to_string(), advice)]
        }
        Err(error) => {
            vec![Check::fail(VIEW, format!("not checked: {error}"), "see the journal and the snapshots above")]
        }
    }
}

fn judge_view(audit: &Audit) -> Check {
    let from = match audit.snapshot {
        Some(position) => format!("the snapshot at {} with the journal", count(position.0)),
        None => "the journal".to_owned(),
    };
    if !audit.has_view {
        return Check::ok(VIEW, format!("none: the next start makes it from {from}"));
    }
    let ahead = match audit.ahead {
        0 => String::new(),
        ahead => format!(
            "; {} not compared: the last outcome was not in the journal yet",
            many(ahead, "device was", "devices were")
        ),
    };
    if audit.differing == 0 && audit.parked_differing == 0 && audit.kept_differing == 0 {
        return Check::ok(
            VIEW,
            format!("{} what {from} comes to{ahead}", many(audit.devices, "device is", "devices are")),
        );
    }
    let first =
        audit.differences.first().map_or(String::new(), |one| format!(", such as {}: {}", one.device, one.what));
    let summary = format!(
        "{} of {}, {} and {} of {} differ from what {from} comes to{first}{ahead}",
        count(audit.differing),
        many(audit.devices, "device", "devices"),
        many(audit.parked_differing, "parked reading", "parked readings"),
        count(audit.kept_differing),
        many(audit.kept, "kept pair", "kept pairs")
    );
    let advice =
        "keep a copy of the directory and report it; move state and state.folded away: the next start rebuilds them";
    Check::fail(VIEW, summary, advice)
}

fn judge_ledger(ledger: &Arithmetic) -> Check {
    let Arithmetic { before, readings, now, unfinished, difference } = *ledger;
    let sum = format!(
        "difference {difference}: {} counted before + {} in the journal since = {} kept + {} conflated + {} dropped + {} parked + {} unfinished",
        count(before),
        count(readings),
        count(now.committed),
        count(now.reasons.conflated.iter().sum()),
        count(now.reasons.dropped.iter().sum()),
        count(now.reasons.parked.iter().sum()),
        count(unfinished)
    );
    if difference == 0 {
        return Check::ok(LEDGER, sum).with(json!(ledger));
    }
    let advice = if difference > 0 {
        "readings of the journal are in no count: keep a copy of the directory and report it"
    } else {
        "readings were counted that the journal does not have: see the journal above for damage; if it has none, report it"
    };
    Check::fail(LEDGER, sum, advice).with(json!(ledger))
}

#[cfg(test)]
mod tests {
    use tidegate_actors::{ids::DeviceId, lifetime::Lifetime, recovery::audit::Difference};

    use super::{super::report::Status, *};

    #[test]
    fn the_ledger_is_shown_as_a_sum_with_its_difference() {
        let now = Lifetime { committed: 9, ..Lifetime::default() };
        let ledger = Arithmetic { before: 4, readings: 6, now, unfinished: 1, difference: 0 };
        let check = judge_ledger(&ledger);
        assert_eq!(check.status, Status::Ok);
        assert_eq!(
            check.summary,
            "difference 0: 4 counted before + 6 in the journal since = 9 kept + 0 conflated + 0 dropped + 0 parked + 1 unfinished"
        );
        assert_eq!(judge_ledger(&Arithmetic { difference: 1, ..ledger }).status, Status::Fail);
        assert_eq!(judge_ledger(&Arithmetic { difference: -1, ..ledger }).status, Status::Fail);
    }

    #[test]
    fn a_view_that_differs_names_a_device() {
        let device = DeviceId::new("d7").unwrap();
        let difference = Difference { device, what: "version: 3 in the view, 4 by the journal".to_owned() };
        let differences = vec![difference];
        let audit = Audit { has_view: true, devices: 10, differing: 1, differences, ..Audit::default() };
        let check = judge_view(&audit);
        assert_eq!(check.status, Status::Fail);
        assert!(check.summary.contains("such as d7: version: 3 in the view"), "{}", check.summary);
        assert_eq!(judge_view(&Audit { has_view: true, devices: 10, ..Audit::default() }).status, Status::Ok);
        assert_eq!(judge_view(&Audit::default()).status, Status::Ok);
    }
}
