//! Packages of real size from npm (`packages/package-lock.json`), installed beside handlers: what they compute is what it is in Node.js.

mod common;

use std::{fs, io, path::Path, process::Command, time::Instant};

use common::{Rig, kept};
use serde_json::Value;
use tidegate_actors::script::ScriptEngine as _;

/// What both engines compute. Its names lead to CommonJS, to ES modules, and to packages with both.
const WORK: &str = r#"
import _ from "lodash";
import fp from "lodash/fp.js";
import { DateTime, Duration, Settings } from "luxon";
import { customRandom, nanoid } from "nanoid";
import { addMonths, differenceInCalendarDays, formatISO, getISOWeek } from "date-fns";

Settings.defaultLocale = "en-US";
Settings.defaultZone = "utc";

export function work(m) {
  const rows = m.rows.map((value, at) => ({ at, value, kind: value % 3 === 0 ? "fizz" : "plain" }));
  const time = DateTime.fromISO("2024-02-29T12:30:00.250Z").plus({ years: 1, minutes: m.rows[0] });
  let seed = m.rows.length;
  const steady = customRandom("abcdef", 12, (size) => Uint8Array.from({ length: size }, () => (seed = (seed * 31 + 7) % 256)));
  return {
    lodash: _.VERSION,
    groups: _.mapValues(_.groupBy(rows, "kind"), (group) => _.sumBy(group, "value")),
    chunks: _.chunk(_.sortBy(m.rows), 3),
    merged: _.merge({ a: { b: [1, 2] } }, { a: { b: [3], c: m.rows.at(-1) } }),
    words: _.kebabCase("Some WordsAnd_more 9lives"),
    same: _.isEqual(_.cloneDeep(rows), rows),
    piped: fp.flow(fp.filter((value) => value > 4), fp.map((value) => value * 2), fp.uniq)(m.rows),
    iso: time.toISO(),
    format: time.toFormat("yyyy-LL-dd HH:mm:ss.SSS ooo"),
    week: [time.weekNumber, time.weekday, time.daysInMonth, time.ordinal],
    duration: Duration.fromMillis(m.rows[0] * 61_001).shiftTo("hours", "minutes", "seconds").toObject(),
    difference: time.diff(DateTime.fromISO("2024-01-01", { zone: "utc" }), ["days", "hours"]).toObject(),
    ids: [steady(), nanoid().length],
    dates: [
      formatISO(addMonths(new Date(Date.UTC(2024, 0, 31, 12)), 1), { representation: "date" }),
      differenceInCalendarDays(new Date(Date.UTC(2024, 11, 24, 12)), new Date(Date.UTC(2024, 0, 1, 12))),
      getISOWeek(new Date(Date.UTC(2021, 0, 3, 12))),
    ],
  };
}
"#;
const HANDLER: &str = "import { work } from './work.js'; export function onMetric(m) { return work(m); }";

/// Copies what was installed: what leads out of the handlers' directory is not read.
fn install(packages: &[&str], to: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/packages/node_modules");
    for package in packages {
        copy(&from.join(package), &to.join("node_modules").join(package)).unwrap_or_else(|error| {
            panic!("{package}: {error}; `npm ci` in scripts/tests/packages installs it (test.sh does)")
        });
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &copied)?;
        } else {
            fs::copy(&path, &copied)?;
        }
    }
    Ok(())
}

fn in_node(dir: &Path, reading: &str) -> Value {
    let run = "import('./work.js').then(({ work }) => console.log(JSON.stringify(work(JSON.parse(process.argv[1])))))";
    let output = Command::new("node")
        .args(["-e", run, reading])
        .current_dir(dir)
        .env("TZ", "UTC")
        .output()
        .expect("Node.js is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn packages_of_real_size_compute_what_they_do_in_node() {
    let mut rig = Rig::with(
        &[
            ("10-plugin/package.json", r#"{"type":"module","main":"index.js"}"#),
            ("10-plugin/index.js", HANDLER),
            ("10-plugin/work.js", WORK),
        ],
        |config| install(&["lodash", "luxon", "nanoid", "date-fns"], &config.handlers_dir.join("10-plugin")),
    );
    let scripts = rig.pool.scripts();
    assert_eq!(scripts[0].last_error, None, "it loads");
    for reading in [r#"{"rows":[3,1,9,4,7,7,12]}"#, r#"{"rows":[1000,-5,0.5]}"#] {
        let outcome = rig.one(reading);
        assert_eq!(kept(&outcome), in_node(&rig.dir.path().join("10-plugin"), reading), "{reading}");
    }
}

#[test]
fn a_package_in_one_large_file_is_required_by_common_js() {
    let source = "const _ = require('lodash'), { DateTime } = require('luxon');
        exports.onMetric = (m) => ({ version: _.VERSION, top: _.max(m.rows), year: DateTime.utc(2024, { locale: 'en-US' }).year });";
    let started = Instant::now();
    let plain = Rig::new(&[("10-a.cjs", "exports.onMetric = () => {};")]);
    let without = started.elapsed();
    drop(plain);
    let mut started = Instant::now();
    let mut rig = Rig::with(&[("10-a.cjs", source)], |config| {
        install(&["lodash", "luxon"], &config.handlers_dir);
        started = Instant::now();
    });
    println!("started with lodash and luxon in {:?}, without in {without:?}", started.elapsed());
    let lodash =
        include_str!("packages/package.json").lines().find_map(|line| line.trim().strip_prefix("\"lodash\": \""));
    let lodash = lodash.and_then(|rest| rest.split('"').next()).expect("its version");
    let expected = serde_json::json!({ "version": lodash, "top": 9, "year": 2024 });
    assert_eq!(kept(&rig.one(r#"{"rows":[3,9,1]}"#)), expected);
}
