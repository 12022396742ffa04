//! JSON → JavaScript → JSON against serde_json's own values.

use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_actors::limits;

use super::{
    engine::{Engine, Sources},
    memory::Memory,
};

/// A context as the worker has it.
struct Rig(Engine);

impl Rig {
    fn new() -> Self {
        let file = ("a.js".to_owned(), "export function onMetric() {}".to_owned());
        let tree = std::rc::Rc::new(crate::modules::Tree::new([file].into_iter().collect()));
        let sources = Sources { scripts: vec![("a.js".to_owned(), true)], tree };
        let heap = limits::SCRIPT_HEAP_BYTES;
        let mut engine = Engine::new(sources, std::rc::Rc::new(Memory::new(heap)), heap, limits::SCRIPT_ASYNC_WALL);
        assert!(matches!(engine.load(|_| {}).as_slice(), [crate::frame::Loaded::Ready(_)]));
        Self(engine)
    }

    fn through(&mut self, json: &str) -> Result<String, String> {
        self.0.round_trip(json.as_bytes())
    }
}

/// Any JSON value, numbers of all kinds.
fn values() -> impl Strategy<Value = Value> {
    let finite = any::<f64>().prop_filter("JSON has no others", |number| number.is_finite());
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        (-9_007_199_254_740_992_i64..=9_007_199_254_740_992).prop_map(Value::from),
        finite.prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[a-zé\\u{1f600}\"\\\\\n]{0,12}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        "[a-f]{1,2}",
        any::<String>(),
        "[0-9]{1,3}",
        Just("__proto__".to_owned()),
        Just("toJSON".to_owned())
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(key.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// JavaScript's numbers are doubles: so are these.
fn as_doubles(value: Value) -> Value {
    match value {
        Value::Number(number) => {
            let double = number.as_f64().expect("a double");
            // JSON.stringify writes -0 as 0.
            json!(if double == 0.0 { 0.0 } else { double })
        }
        Value::Array(items) => items.into_iter().map(as_doubles).collect(),
        Value::Object(fields) => {
            Value::Object(fields.into_iter().map(|(key, value)| (key, as_doubles(value))).collect())
        }
        other => other,
    }
}

#[test]
fn json_comes_back_as_it_went_in() {
    let mut rig = Rig::new();
    let mut runner = proptest::test_runner::TestRunner::default();
    let rig = std::cell::RefCell::new(&mut rig);
    runner
        .run(&values(), |value| {
            let text = value.to_string();
            let back = rig.borrow_mut().through(&text).map_err(TestCaseError::fail)?;
            let back: Value =
                serde_json::from_str(&back).map_err(|error| TestCaseError::fail(format!("{error}: {back}")))?;
            prop_assert_eq!(as_doubles(back), as_doubles(value));
            Ok(())
        })
        .expect("every value");
}

#[test]
fn texts_of_note() {
    let mut rig = Rig::new();
    for (text, expected) in [
        ("-0", "0"),
        ("1.0", "1"),
        ("1e2", "100"),
        ("1e21", "1e+21"),
        ("5e-324", "5e-324"),
        ("9007199254740993", "9007199254740992"),
        ("18446744073709551615", "18446744073709552000"),
        ("123456789012345678901234567890", "1.2345678901234568e+29"),
        (r#""\u0041\ud83d\ude00\u0000\b""#, "\"A\u{1f600}\\u0000\\u0008\""),
        (" [ 1 , { } , [ ] ] ", "[1,{},[]]"),
        (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
        (r#"{"b":1,"2":1,"a":1,"1":1}"#, r#"{"1":1,"2":1,"b":1,"a":1}"#),
    ] {
        let back = rig.through(text).expect(text);
        // The same number, however its exponent is written.
        assert_eq!(back.replace("e+", "e"), expected.replace("e+", "e"), "{text}");
    }
    for (text, words) in [
        ("1e400", "number out of range"),
        ("-1e400", "number out of range"),
        (r#""\ud800""#, "hex escape"),
        (r#""\udc00 alone""#, "surrogate"),
        (r#"{"a":1}x"#, "trailing"),
        ("{", "EOF"),
        ("", "EOF"),
        ("nux", "expected"),
        ("\"\u{0}\"", "control character"),
    ] {
        let error = rig.through(text).expect_err(text);
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn nesting_is_bounded() {
    let mut rig = Rig::new();
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let deepest = nested(limits::JSON_DEPTH);
    assert_eq!(rig.through(&deepest), Ok(deepest));
    for depth in [limits::JSON_DEPTH + 1, 100_000] {
        let error = rig.through(&nested(depth)).expect_err("too deep");
        assert!(error.contains("limit json_depth"), "{error}");
    }
}

#[test]
fn the_metric_has_its_device_and_time_first() {
    let mut rig = Rig::new();
    let text = rig.0.metric_text(br#"{"t":1}"#, 7).expect("a metric");
    assert_eq!(text, r#"{"deviceId":"","ts":7,"t":1}"#);
}

#[test]
fn a_context_that_is_dropped_is_freed() {
    let text = "export const match = { devices: ['*'] }; export function onMetric(m) { const f = () => f(); f(); }";
    let sources = Sources {
        scripts: vec![("a.js".to_owned(), true)],
        tree: std::rc::Rc::new(crate::modules::Tree::new([("a.js".to_owned(), text.to_owned())].into_iter().collect())),
    };
    let heap = limits::SCRIPT_HEAP_BYTES;
    let mut engine = Engine::new(sources, std::rc::Rc::new(Memory::new(heap)), heap, limits::SCRIPT_ASYNC_WALL);
    engine.load(|_| {});
    let mut rounds = |rounds: usize| {
        for _ in 0..rounds {
            engine.prepare(0).expect("it loads again");
            let metric = engine.metric(0, b"{}", 1).expect("a metric");
            assert!(engine.call(0, 0, metric).is_err() && engine.is_lost(0));
        }
        super::memory::resident_bytes()
    };
    let settled = rounds(20);
    let grown = rounds(100).saturating_sub(settled);
    // A context has about 270 KB.
    assert!(grown < 8 * 1024 * 1024, "{grown} bytes more after 100 contexts");
}
