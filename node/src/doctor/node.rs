//! The running node, asked over HTTP: is it ready, does its ledger balance, do its workers run, does its clock agree?

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::{Value, json};

use super::report::{Check, count, many};
use crate::{
    client::{ClientError, NodeClient},
    config::Config,
};

const NODE: &str = "node";
const LEDGER: &str = "ledger";
const WORKERS: &str = "handlers";
const CLOCK: &str = "clock";
const BRIDGES: &str = "bridges";

/// A node that does not answer within this has something that the operator should know.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A difference of the clocks that is worth a word, in milliseconds.
const CLOCKS_APART: i64 = 2_000;

/// Where the node of this configuration listens, as seen from this machine.
pub(super) fn url_of(config: &Config) -> String {
    let Some(bind) = config.http.bind.first() else { return crate::client::DEFAULT_NODE.to_owned() };
    let mut at = *bind;
    if at.ip().is_unspecified() {
        at.set_ip(if at.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    format!("http://{at}")
}

/// Asks the node at `url`, which the operator named or the configuration suggests. `pid` has the data directory.
pub(super) fn checks(url: &str, named: bool, pid: Option<u32>) -> Vec<Check> {
    let mut client = match NodeClient::new(url) {
        Ok(client) => client,
        Err(error) => return vec![unreachable(&error)],
    };
    client.timeout(TIMEOUT);
    match client.get("/readyz") {
        Ok(_) => {}
        Err(ClientError::Refused(refusal)) => {
            let advice = "the reason says what to do; nothing that was acknowledged is lost";
            let mut checks =
                vec![Check::fail(NODE, format!("{} is not ready: {}", client.url(), refusal.detail), advice)];
            checks.extend(inside(&mut client, pid).unwrap_or_default());
            return checks;
        }
        // It may well listen elsewhere: its flags are not known here.
        Err(error @ ClientError::NoNode { .. }) if !named => {
            let advice = "name the address of its HTTP listener with --node";
            return vec![Check::warn(NODE, format!("not asked: {error}"), advice)];
        }
        Err(error) => return vec![unreachable(&error)],
    }
    let mut checks = vec![Check::ok(NODE, format!("{} is ready", client.url()))];
    match inside(&mut client, pid) {
        Ok(more) => checks.extend(more),
        Err(error) => checks.push(unreachable(&error)),
    }
    checks
}

fn unreachable(error: &ClientError) -> Check {
    Check::fail(
        NODE,
        error.to_string(),
        "name the address of its HTTP listener with --node; if it hangs, its log says where",
    )
}

fn inside(client: &mut NodeClient, pid: Option<u32>) -> Result<Vec<Check>, ClientError> {
    let ledger: Value = client.get("/ledger")?.json()?;
    let before = now();
    let overview: Overview = client.get("/api/overview")?.json()?;
    let here = before + (now() - before) / 2;
    let mut checks = vec![judge_ledger(&ledger), judge_handlers(&overview), judge_clock(overview.node.time, here)];
    checks.extend(judge_bridges(&overview.bridges));
    if let Some(pid) = pid.filter(|pid| *pid != overview.node.pid) {
        let summary =
            format!("process {} answers at {}, and {pid} has the data directory", overview.node.pid, client.url());
        let advice = "name the address of the node that has it with --node, unless it runs in a container";
        checks.insert(0, Check::warn(NODE, summary, advice));
    }
    Ok(checks)
}

#[derive(Deserialize)]
struct Overview {
    node: Node,
    #[serde(default)]
    scripts: Vec<Script>,
    #[serde(default)]
    workers: Vec<Worker>,
    #[serde(default)]
    bridges: Vec<Bridge>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bridge {
    name: String,
    connected: bool,
    last_error: Option<Complaint>,
}

#[derive(Deserialize)]
struct Complaint {
    message: String,
}

#[derive(Deserialize)]
struct Node {
    pid: u32,
    /// The node's clock, in milliseconds since 1970; older nodes do not say.
    time: Option<i64>,
}

#[derive(Deserialize)]
struct Script {
    name: String,
    status: String,
}

#[derive(Deserialize)]
struct Worker {
    pid: u64,
    restarts: u64,
}

fn judge_ledger(ledger: &Value) -> Check {
    let number = |name: &str| match &ledger[name] {
        Value::Object(reasons) => reasons.values().filter_map(Value::as_u64).sum(),
        number => number.as_u64().unwrap_or(0),
    };
    let names = ["committed", "conflated", "rejected", "dropped", "parked"];
    let sum: u64 = names.iter().map(|name| number(name)).sum::<u64>() + number("inFlight");
    let difference = i128::from(number("received")) - i128::from(sum);
    let words: Vec<_> = names.iter().map(|name| format!("{} {name}", count(number(name)))).collect();
    let summary = format!(
        "difference {difference}: {} received since the start = {} + {} in flight",
        count(number("received")),
        words.join(" + "),
        count(number("inFlight"))
    );
    if difference == 0 && ledger["balanced"] == true {
        Check::ok(LEDGER, summary).with(ledger.clone())
    } else {
        Check::fail(LEDGER, summary, "this is a defect of the node: report it with its log").with(ledger.clone())
    }
}

fn judge_handlers(overview: &Overview) -> Check {
    let sick: Vec<_> = overview.scripts.iter().filter(|script| script.status != "closed").collect();
    let restarts: u64 = overview.workers.iter().map(|worker| worker.restarts).sum();
    let gone: Vec<_> = overview.workers.iter().filter(|worker| worker.pid == 0).collect();
    let details =
        json!({ "handlers": overview.scripts.len(), "workers": overview.workers.len(), "restarts": restarts });
    let summary = match (overview.scripts.len(), overview.workers.len()) {
        (0, _) => "none is loaded: readings are kept as they come".to_owned(),
        (handlers, workers) => format!(
            "{handlers} loaded, {}, {}",
            many(workers as u64, "worker", "workers"),
            many(restarts, "restart", "restarts")
        ),
    };
    if let Some(first) = sick.first() {
        let summary = format!(
            "{summary}; {} not run, such as {} ({})",
            many(sick.len() as u64, "does", "do"),
            first.name,
            first.status
        );
        let advice =
            "tidegate script check says what is wrong with a broken one; GET /parked what an open breaker's failed on";
        return Check::warn(WORKERS, summary, advice).with(details);
    }
    if !gone.is_empty() {
        let summary = format!("{summary}; {} down", many(gone.len() as u64, "worker is", "workers are"));
        return Check::warn(WORKERS, summary, "the node's log says why they die").with(details);
    }
    Check::ok(WORKERS, summary).with(details)
}

/// Nothing is said of a node without bridges.
fn judge_bridges(bridges: &[Bridge]) -> Option<Check> {
    if bridges.is_empty() {
        return None;
    }
    let away: Vec<_> = bridges.iter().filter(|bridge| !bridge.connected).collect();
    let details =
        json!({ "bridges": bridges.len(), "away": away.iter().map(|bridge| &bridge.name).collect::<Vec<_>>() });
    let mut summary = format!("{} of {} connected", bridges.len() - away.len(), bridges.len());
    let Some(first) = away.first() else { return Some(Check::ok(BRIDGES, summary).with(details)) };
    let why = first.last_error.as_ref().map_or("it has not connected yet", |error| &error.message);
    summary = format!("{summary}; {}: {why}", first.name);
    let advice = "the broker keeps what the node has not acknowledged; nothing is lost but time, unless it is full";
    Some(Check::warn(BRIDGES, summary, advice).with(details))
}

fn judge_clock(there: Option<i64>, here: i64) -> Check {
    let Some(there) = there else { return Check::ok(CLOCK, "the node does not tell its time") };
    let apart = there - here;
    let details = json!({ "differenceMs": apart });
    if apart.abs() < CLOCKS_APART {
        return Check::ok(CLOCK, format!("the node's agrees with this machine's ({apart} ms)")).with(details);
    }
    let direction = if apart > 0 { "ahead of" } else { "behind" };
    let summary = format!("the node's is {} ms {direction} this machine's", count(apart.unsigned_abs()));
    Check::warn(CLOCK, summary, "let both follow a time server. Devices' own times order their readings, not these")
        .with(details)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{super::report::Status, *};

    #[test]
    fn an_address_for_everybody_is_asked_on_this_machine() {
        let at = |bind: &str| {
            let mut config = Config::default();
            config.http.bind = vec![bind.parse().unwrap()];
            url_of(&config)
        };
        assert_eq!(at("0.0.0.0:9000"), "http://127.0.0.1:9000");
        assert_eq!(at("[::]:9000"), "http://[::1]:9000");
        assert_eq!(at("10.1.2.3:80"), "http://10.1.2.3:80");
    }

    #[test]
    fn a_reading_that_is_not_accounted_for_fails() {
        let mut ledger = json!({
            "received": 7, "committed": 3, "conflated": {"late": 1}, "rejected": {"bad-json": 2},
            "dropped": {}, "parked": {}, "inFlight": 1, "balanced": true,
        });
        let check = judge_ledger(&ledger);
        assert_eq!(check.status, Status::Ok, "{}", check.summary);
        assert!(check.summary.starts_with("difference 0: 7 received"), "{}", check.summary);
        ledger["committed"] = json!(2);
        let check = judge_ledger(&ledger);
        assert_eq!((check.status, check.summary.starts_with("difference 1:")), (Status::Fail, true));
    }

    #[test]
    fn handlers_that_do_not_run_and_clocks_apart_are_told() {
        let of = |status: &str| {
            let script = Script { name: "a.js".to_owned(), status: status.to_owned() };
            let workers = vec![Worker { pid: 1, restarts: 2 }];
            judge_handlers(&Overview {
                node: Node { pid: 7, time: None },
                scripts: vec![script],
                workers,
                bridges: Vec::new(),
            })
        };
        assert_eq!(of("closed").status, Status::Ok);
        assert_eq!(of("open").status, Status::Warn);
        assert_eq!(judge_clock(Some(10_500), 10_000).status, Status::Ok);
        assert_eq!(judge_clock(Some(15_000), 10_000).summary, "the node's is 5,000 ms ahead of this machine's");
        assert_eq!(judge_clock(Some(5_000), 10_000).status, Status::Warn);
    }
}
