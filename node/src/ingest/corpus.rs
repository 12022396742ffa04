//! The corpus of the fuzz target `payload`, through the same function, on any toolchain. Its seeds are the payloads of the
//! table below; what the fuzzer found beyond them was added and kept small.

// By its path: the benchmarks compile this folder without the codec.
#[path = "../mqtt/codec_tests/pack.rs"]
#[allow(clippy::duplicate_mod, reason = "the codec's tests have it as a module of their own")]
mod pack;

use std::{collections::BTreeSet, fs, path::PathBuf};

use super::invariants::check_payload;
use pack::{pack, unpack};

const PAYLOADS: &[&str] = &[
    "",
    " ",
    "{}",
    "21.5",
    "ON",
    "null",
    "\"text\"",
    "[]",
    "[1]",
    r#"{"t":21.50}"#,
    r#" {"t": [1, 2]} "#,
    r#"{"deviceId":"d1","t":1}"#,
    r#"{"t":1,"deviceId":"d1"}"#,
    r#"{"a":1, "deviceId":"d1" , "b":{"ts":3},"ts":5, "c":","}"#,
    r#"{"deviceId":"d\u0031","ts":1e3}"#,
    r#"{"\u0074s":1,"deviceI\u0064":"x"}"#,
    r#"{"ts":7,"values":{"k":1}}"#,
    r#"{"ts":7,"values":{"k":1},"more":true}"#,
    r#"{"values":5,"values":{"k":1}}"#,
    r#"[{"k":1},{"ts":8,"values":{"k":2}}]"#,
    r#"[{"k":1}, 5, {"ts":"x"}]"#,
    "{\"a\":1}\n\n  \r\n{\"b\":2}",
    r#"{"t":NaN}"#,
    r#"{"t":1e999}"#,
    r#"{"t":"\ud800"}"#,
    r#"{"t":1} x"#,
    r#"{"t":}"#,
    r#"{"t":1"#,
    "[{]",
    r#"{"deviceId":5}"#,
    r#"{"ts":-1}"#,
    r#"{"ts":253402300799999}"#,
    r#"{"ts":253402300800000}"#,
    r#"{"ts":1700000000000.5}"#,
];

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/payload.pack")
}

/// Each payload as a reading and as telemetry, and some that would be long to write: the deepest one, one too deep, one that is
/// the deepest only as a value, one that is no UTF-8, and long ones whose refusal must not be.
fn seeds() -> BTreeSet<Vec<u8>> {
    let nested =
        |levels: usize| format!("{{\"a\":{}1{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1)).into_bytes();
    let payloads = PAYLOADS.iter().map(|text| text.as_bytes().to_vec());
    let value = format!("{}1{}", "[".repeat(64), "]".repeat(64)).into_bytes();
    let long = "x".repeat(2_000);
    let long =
        ["{\"deviceId\":[\"_\"]}", "{\"ts\":\"_\"}", "\"_\" x", "{\"_\":}", "_"].map(|text| text.replace('_', &long));
    let payloads = payloads.chain([nested(64), nested(65), value, b"{\"a\":\"\xff\"}".to_vec()]);
    let payloads = payloads.chain(long.map(String::into_bytes));
    payloads.flat_map(|payload| [0, 1].map(|first| [&[first], &payload[..]].concat())).collect()
}

#[test]
fn the_payloads_of_the_corpus_hold() {
    let packed = fs::read(file()).unwrap_or_default();
    let corpus: BTreeSet<Vec<u8>> = unpack(&packed).expect("a pack").into_iter().map(<[u8]>::to_vec).collect();
    let seeds = seeds();
    corpus.union(&seeds).for_each(|entry| check_payload(entry));
    println!("{} entries held", corpus.len());
    if !seeds.is_subset(&corpus) && std::env::var_os("TIDEGATE_ADD_SEEDS").is_some() {
        fs::write(file(), pack(corpus.union(&seeds).cloned())).unwrap();
    }
    assert!(
        seeds.is_subset(&corpus),
        "the corpus lacks payloads of the table: run this once with TIDEGATE_ADD_SEEDS=1, commit fuzz/corpus"
    );
}
