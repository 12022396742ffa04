//! The corpus of the fuzz targets, through the same functions, on any toolchain. The seeds are made from the table of
//! conformance cases, which are the specifications'; what the fuzzers found beyond them was added and kept small.

use std::{collections::BTreeMap, fs, path::PathBuf};

use super::{
    MAX, conformance,
    pack::{pack, unpack},
    targets::{SUBJECTS, Subject, run},
};
use crate::mqtt::{
    frame::{Framing, frame, kind},
    packet::Version,
};

fn file(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(format!("{target}.pack"))
}

/// What each target starts from. A packet's target gets every case's packet, also those of the other version; a stream gets
/// whole packets, one of them or all, after the byte that says how it is cut.
fn seeds() -> BTreeMap<&'static str, Vec<Vec<u8>>> {
    let cases = conformance::cases();
    let mut seeds = BTreeMap::new();
    for (target, version, subject) in SUBJECTS {
        let of_version = |of: Option<Version>| of.is_none_or(|of| of == version);
        let entries: Vec<Vec<u8>> = match subject {
            Subject::Packet => {
                cases.iter().filter_map(|case| one_packet(&case.bytes)).filter(|data| data.len() < 2_048).collect()
            }
            Subject::Stream => {
                let ours = cases.iter().filter(|case| of_version(case.version) && case.bytes.len() < 2_048);
                let taken = ours.clone().filter(|case| {
                    matches!(case.expected, conformance::Expected::Packet(_) | conformance::Expected::Taken)
                });
                let all: Vec<u8> = taken.flat_map(|case| case.bytes.clone()).collect();
                let one_by_one = ours.map(|case| [&[2], &case.bytes[..]].concat());
                one_by_one.chain([[&[6], &all[..all.len().min(4_000)]].concat()]).collect()
            }
        };
        seeds.insert(target, entries);
    }
    seeds
}

/// What the target takes for this packet: without its length, and a CONNECT without the protocol's name and level.
fn one_packet(bytes: &[u8]) -> Option<Vec<u8>> {
    let Ok(Framing::Complete(frame)) = frame(bytes, MAX) else { return None };
    let body = bytes.get(frame.body())?;
    let body = if frame.kind() == kind::CONNECT { body.get(7..)? } else { body };
    Some([&[frame.first], body].concat())
}

#[test]
fn the_corpus_holds_and_has_every_case_of_the_table() {
    let (mut entries, mut missing) = (0, Vec::new());
    for (target, seeds) in seeds() {
        let packed = fs::read(file(target)).unwrap_or_default();
        let corpus = unpack(&packed).unwrap_or_else(|| panic!("{} is no pack", file(target).display()));
        for entry in &corpus {
            run(target, entry);
        }
        entries += corpus.len();
        if seeds.iter().any(|seed| !corpus.contains(&&seed[..])) {
            missing.push(target);
            if std::env::var_os("TIDEGATE_ADD_SEEDS").is_some() {
                fs::create_dir_all(file(target).parent().unwrap()).unwrap();
                let all = seeds.into_iter().chain(corpus.into_iter().map(<[u8]>::to_vec));
                fs::write(file(target), pack(all)).unwrap();
            }
        }
    }
    println!("{entries} entries held");
    assert!(
        missing.is_empty(),
        "the corpus of {missing:?} lacks cases of the table: run this once with TIDEGATE_ADD_SEEDS=1, commit fuzz/corpus"
    );
}

/// The corpus is what it is worth only if a wrong codec does not get through.
#[test]
fn a_target_fails_on_what_must_not_be() {
    let packed = pack([b"b".to_vec(), b"".to_vec(), b"b".to_vec(), b"a".to_vec()]);
    assert_eq!(unpack(&packed), Some(vec![&b""[..], b"a", b"b"]), "in order, none twice");
    assert_eq!(unpack(&packed[1..]), None);
    assert!(std::panic::catch_unwind(|| run("no_such_target", b"")).is_err());
}
