//! `tidegate journal inspect` on the journal of a running node, of a killed one, and of a damaged one: it shows what is there
//! and changes nothing.

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use support::{House, Node, eventually, node::tidegate};

/// Keeps, drops, or throws, as the reading says.
const HANDLER: &str = r#"
export function onMetric(metric, ctx) {
  if (metric.n === 2) return null;
  if (metric.n === 3) throw new Error("three");
  ctx.state.seen = metric.n;
  return { ...metric, kept: true };
}
"#;

struct Answer {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn inspect(path: &Path, arguments: &[&str]) -> Answer {
    let output = tidegate(Path::new("/")).args(["journal", "inspect"]).arg(path).args(arguments).output();
    let output = output.expect("the binary starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Answer { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The lines of `--json`.
#[track_caller]
fn objects(path: &Path, arguments: &[&str]) -> Vec<Value> {
    let answer = inspect(path, &[arguments, &["--json"]].concat());
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""), "{}", answer.stdout);
    answer.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// Four readings with handlers, then one of another device, and their outcomes.
fn work(node: &Node) {
    for n in 1..=4 {
        let body =
            format!("{{\"deviceId\":\"pump-1\",\"ts\":1700000000{n:03},\"n\":{n},\"exact\":12345678901234567890.5}}");
        // The one that throws is parked, which is an answer as well.
        node.post("/metrics?ack=processed", &body);
    }
    assert_eq!(node.post("/metrics?ack=processed", r#"{"deviceId":"pump-2","n":5}"#).status, 200);
}

/// Every file below a directory, and its bytes.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else if path.is_file() {
            // The admin socket of a node that was killed is still there.
            let bytes = fs::read(&path).expect("a file");
            all.insert(path, bytes);
        }
    }
    all
}

fn only_segment(data: &Path) -> PathBuf {
    let mut segments =
        fs::read_dir(data.join("journal")).expect("a journal").map(|entry| entry.expect("an entry").path());
    segments.find(|path| path.extension().is_some_and(|extension| extension == "tgj")).expect("a segment")
}

#[test]
fn the_journal_of_a_running_node_is_shown() {
    let house = House::new().handler("10-keep.js", HANDLER);
    let node = house.start();
    work(&node);
    // Outcomes are durable a moment after their answer.
    let all = eventually("all five outcomes", || {
        Some(objects(&house.data(), &[])).filter(|all| of_kind(all, "outcome").len() == 5)
    });
    let readings = of_kind(&all, "reading");
    assert_eq!(readings.len(), 5);
    let first = readings[0];
    assert_eq!((&first["position"], &first["deviceId"], &first["routed"]), (&json!(1), &json!("pump-1"), &json!(true)));
    assert_eq!(
        (&first["deviceTime"], &first["topic"]),
        (&json!(1_700_000_000_001_i64), &json!("devices/pump-1/metrics"))
    );
    assert!(first["receivedTime"].is_i64() && first["bytes"].is_u64() && first["offset"] == 32, "{first}");
    let verdicts: Vec<_> = of_kind(&all, "outcome").iter().map(|outcome| outcome["verdict"].clone()).collect();
    assert_eq!(verdicts, ["keep", "dropped", "parked", "keep", "keep"]);
    let parked = of_kind(&all, "outcome")[2];
    assert_eq!((&parked["reason"], &parked["script"]), (&json!("threw"), &json!("10-keep.js")));
    assert!(parked["message"].as_str().is_some_and(|message| message.contains("three")), "{parked}");
    let journal = &all[all.len() - 1];
    assert_eq!((&journal["kind"], &journal["records"]), (&json!("journal"), &json!(10)));
    assert_eq!((&journal["kinds"], &journal["damagedPlaces"]), (&json!({"reading": 5, "outcome": 5}), &json!(0)));
    let line = inspect(&house.data(), &["--json"]).stdout;
    assert!(line.contains("\"exact\":12345678901234567890.5"), "numbers stay as they were sent: {line}");

    let other = objects(&house.data(), &["--device", "pump-2"]);
    assert_eq!((of_kind(&other, "reading").len(), of_kind(&other, "outcome").len()), (1, 1));
    let two = objects(&house.data(), &["--from", "2", "--to", "3"]);
    let positions: Vec<_> = two.iter().filter_map(|object| object["position"].as_u64()).collect();
    assert_eq!(positions, [2, 3]);
    node.assert_alive();
}

#[test]
fn the_journal_of_a_killed_node_is_shown_and_left_alone() {
    let house = House::new();
    let mut node = house.start();
    work(&node);
    node.kill9();
    let before = contents(&house.data());
    let (data, journal, segment) = (house.data(), house.data().join("journal"), only_segment(&house.data()));
    let text = inspect(&data, &[]).stdout;
    for path in [&journal, &segment] {
        assert_eq!(inspect(path, &[]).stdout, text, "a directory or a segment, it is the same");
    }
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("1  reading  pump-1  received="), "{text}");
    assert!(lines[0].contains("device-time=2023-11-14T22:13:20.001Z  {\"n\":1,"), "{text}");
    assert!(
        lines[5].starts_with("SEGMENT 00000000000000000001.tgj  5 records (5 reading), positions 1 to 5"),
        "{text}"
    );
    assert!(lines[6].starts_with("JOURNAL 1 segments, 5 records (5 reading), positions 1 to 5"), "{text}");
    assert_eq!(inspect(&data, &["--summary"]).stdout, lines[5..].join("\n") + "\n");

    // A byte in the second record, and garbage where the third begins.
    let mut bytes = before[&segment].clone();
    let records = objects(&data, &[]);
    let place = |at: usize| {
        let offset = records[at]["offset"].as_u64().expect("an offset") as usize;
        (offset, records[at]["bytes"].as_u64().expect("a length") as usize)
    };
    let (second, third) = (place(1), place(2));
    bytes[second.0 + 25] ^= 1;
    bytes[third.0..third.0 + 8].fill(0xFF);
    fs::write(&segment, &bytes).expect("the segment is damaged");
    let damaged = objects(&data, &[]);
    let positions: Vec<_> = damaged.iter().filter_map(|object| object["position"].as_u64()).collect();
    assert_eq!(positions, [1, 4, 5]);
    let places = of_kind(&damaged, "damage");
    assert_eq!(places.len(), 1, "{places:?}");
    assert_eq!((&places[0]["offset"], &places[0]["bytes"]), (&json!(second.0), &json!(second.1 + third.1)));
    let journal = &damaged[damaged.len() - 1];
    assert_eq!(journal["missing"], json!([{"first": 2, "last": 3}]), "{journal}");
    let text = inspect(&data, &[]).stdout;
    assert!(text.contains(&format!("DAMAGE  00000000000000000001.tgj at {}, ", second.0)), "{text}");
    assert!(text.contains("missing: 2 to 3"), "{text}");

    // A cut in the last record.
    let (offset, length) = place(4);
    fs::write(&segment, &before[&segment][..offset + length - 3]).expect("the segment is cut");
    let cut = objects(&data, &[]);
    assert_eq!(of_kind(&cut, "segment")[0]["tail"]["offset"], json!(offset));
    fs::write(&segment, &before[&segment]).expect("the segment is mended");
    assert!(contents(&data) == before, "an inspection changes nothing");
}

#[test]
fn what_is_no_journal_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let gone = inspect(&dir.path().join("gone"), &[]);
    assert_eq!((gone.code, gone.stdout.as_str()), (Some(1), ""));
    assert!(gone.stderr.starts_with("error: cannot open ") && gone.stderr.contains("gone"), "{}", gone.stderr);
    let empty = inspect(dir.path(), &[]);
    assert_eq!(empty.code, Some(1));
    assert!(empty.stderr.contains("there is no journal segment (*.tgj) here"), "{}", empty.stderr);
    let file = dir.path().join("x.txt");
    fs::write(&file, "mine").expect("a file");
    let other = inspect(&file, &[]);
    assert!(other.stderr.contains("a segment is named by its first position"), "{}", other.stderr);
}
