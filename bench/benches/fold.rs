//! How a reading becomes a state, and a state the message that every viewer gets.

use std::hint::black_box;

use tidegate_actors::{
    fanout::encode_state,
    fold::{Folded, fold},
    ids::Position,
    script::Verdict,
    state::DeviceState,
};

mod setup;

fn main() {
    let mut criterion = setup::criterion();
    let before = state();
    let reading = setup::reading(1, 1);
    let kept = Verdict::Keep(setup::payload(1, 2));
    let script_state = before.script_state.clone();
    let cases = [
        ("unchanged", Some(&before), Verdict::Unchanged, vec![]),
        ("kept-with-script-state", Some(&before), kept, script_state),
        ("first", None, Verdict::Unchanged, vec![]),
    ];
    let mut group = criterion.benchmark_group("fold");
    for (name, before, verdict, script_state) in &cases {
        let once = || fold(black_box(*before), Position(2), black_box(&reading), verdict, script_state);
        assert!(matches!(once(), Folded::Committed(_)), "{name} makes a new state");
        group.bench_function(*name, |bencher| bencher.iter(once));
    }
    group.finish();
    criterion.bench_function("encode_state", |bencher| bencher.iter(|| encode_state(black_box(&before), true)));
    criterion.final_summary();
}

/// A state as the realistic handler leaves it.
fn state() -> DeviceState {
    let recent: Vec<_> = (0..16).map(|n| format!("{}.{n:02}", 60 + n)).collect();
    let script_state = format!("{{\"recent\":[{}]}}", recent.join(","));
    DeviceState {
        device: setup::device(1),
        state: setup::payload(1, 0),
        device_time: None,
        received: 1_700_000_000_000,
        version: 41,
        position: Position(1),
        script_state: vec![("handler.js".into(), script_state.into())],
        ..DeviceState::empty(setup::device(1), 0)
    }
}
