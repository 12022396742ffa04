//! The document against a model: RFC 7396's own pseudo code, and the laws of the difference.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tidegate_actors::limits;

use super::{
    document::{Document, same},
    request::Update,
};

fn update(state: &Value) -> Update {
    Update::parse(json!({ "state": state }).to_string().as_bytes()).unwrap()
}

/// Section 2 of RFC 7396, word for word.
fn model_merge(target: Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut target = if let Value::Object(target) = target { target } else { Map::new() };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            let merged = model_merge(target.remove(name).unwrap_or(Value::Null), value);
            target.insert(name.clone(), merged);
        }
    }
    Value::Object(target)
}

/// The times have the shape of the values: a leaf where a value is, the same keys and indices elsewhere.
fn assert_shape(values: &Value, times: &Value) {
    match values {
        Value::Object(values) => {
            let times = times.as_object().unwrap_or_else(|| panic!("{times} beside an object"));
            assert_eq!(values.keys().collect::<Vec<_>>(), times.keys().collect::<Vec<_>>());
            values.iter().for_each(|(key, value)| assert_shape(value, &times[key]));
        }
        Value::Array(values) => {
            let times = times.as_array().unwrap_or_else(|| panic!("{times} beside an array"));
            assert_eq!(values.len(), times.len());
            values.iter().zip(times).for_each(|(value, times)| assert_shape(value, times));
        }
        _ => assert!(times["timestamp"].is_i64() && times.as_object().is_some_and(|t| t.len() == 1), "{times}"),
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0_i64..4).prop_map(Value::from),
        Just(json!(1.0)),
        "[ab]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[abc]", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn section() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[abc]", value(), 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect()))
}

proptest! {
    #[test]
    fn updates_are_merge_patches_and_the_delta_leads_there(
        updates in prop::collection::vec((any::<bool>(), section()), 1..8)
    ) {
        let (mut document, mut model) = (Document::default(), json!({ "desired": {}, "reported": {} }));
        for (number, (desired, patch)) in (1_u64..).zip(&updates) {
            let name = if *desired { "desired" } else { "reported" };
            document = document.updated(&update(&json!({ name: patch })), 100).unwrap();
            model = model_merge(model, &json!({ name: patch }));
            prop_assert_eq!(document.version, number);
        }
        prop_assert_eq!(Value::from(document.desired.values.clone()), model["desired"].clone());
        prop_assert_eq!(Value::from(document.reported.values.clone()), model["reported"].clone());
        for section in [&document.desired, &document.reported] {
            assert_shape(&section.values.clone().into(), &section.times.clone().into());
        }
        let delta = document.delta();
        assert_shape(&delta.values.clone().into(), &delta.times.into());
        // A device that does what the delta says is as it is to be.
        let reported = json!({ "reported": delta.values });
        let done = document.updated(&update(&reported), 101).unwrap();
        // A null within an array is a value, one beside a key removes it: such a delta cannot be merged.
        if !reported.to_string().contains("null") {
            prop_assert!(done.delta().values.is_empty(), "{:?}", done);
        }
        // And one that is as it is to be has no delta.
        prop_assert_eq!(delta.values.is_empty(), covers(&document.reported.values, &document.desired.values));
    }
}

/// Does the device report everything that it is to be?
fn covers(reported: &Map<String, Value>, desired: &Map<String, Value>) -> bool {
    desired.iter().all(|(key, wanted)| match (wanted, reported.get(key)) {
        (Value::Object(wanted), Some(Value::Object(is))) => covers(is, wanted),
        (wanted, Some(is)) => same(wanted, is),
        (_, None) => false,
    })
}

#[test]
fn a_shadow_goes_through_its_life() {
    let none = Document::default();
    assert!(!none.exists());
    let first = none.updated(&update(&json!({ "desired": { "led": "on", "level": { "a": 1 } } })), 10).unwrap();
    assert_eq!(
        Value::from(first.json()),
        json!({
            "state": { "desired": { "led": "on", "level": { "a": 1 } }, "delta": { "led": "on", "level": { "a": 1 } } },
            "metadata": { "desired": { "led": { "timestamp": 10 }, "level": { "a": { "timestamp": 10 } } } },
            "version": 1,
        })
    );
    let second = first.updated(&update(&json!({ "reported": { "led": "on", "level": { "a": 2 } } })), 20).unwrap();
    let delta = second.delta();
    assert_eq!(Value::from(delta.values), json!({ "level": { "a": 1 } }));
    assert_eq!(Value::from(delta.times), json!({ "level": { "a": { "timestamp": 10 } } }), "when it was desired");
    let third = second.updated(&update(&json!({ "desired": null })), 30).unwrap();
    assert_eq!(third.stored_json()["state"], json!({ "reported": { "led": "on", "level": { "a": 2 } } }));
    let gone = third.deleted(40);
    assert!(!gone.exists());
    let again = gone.updated(&update(&json!({ "desired": {} })), 50).unwrap();
    assert_eq!((again.exists(), again.version), (true, 4), "versions go on");
}

#[test]
fn an_update_for_another_version_changes_nothing() {
    let document = Document::default().updated(&update(&json!({ "desired": { "a": 1 } })), 1).unwrap();
    let at = |version: u64| {
        let body = json!({ "state": { "desired": { "a": 2 } }, "version": version }).to_string();
        document.updated(&Update::parse(body.as_bytes()).unwrap(), 2)
    };
    assert_eq!(at(0).unwrap_err().code, 409);
    assert_eq!(at(2).unwrap_err().code, 409);
    assert_eq!(at(1).unwrap().version, 2);
}

#[test]
fn depth_and_size_have_limits() {
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({ "k": inner }));
    let none = Document::default();
    assert!(none.updated(&update(&json!({ "desired": nested(limits::SHADOW_DEPTH) })), 1).is_ok());
    let deep = none.updated(&update(&json!({ "desired": nested(limits::SHADOW_DEPTH + 1) })), 1).unwrap_err();
    assert_eq!((deep.code, deep.limit), (400, Some(("shadow_depth", 8))));
    // `{"k":"…"}` and `{}` are ten bytes around the text.
    let text = |bytes: usize| json!({ "reported": { "k": "x".repeat(bytes) } });
    let full = none.updated(&update(&text(limits::SHADOW_BYTES - 10)), 1).unwrap();
    assert_eq!(none.updated(&update(&text(limits::SHADOW_BYTES - 9)), 1).unwrap_err().code, 413);
    let over = full.updated(&update(&json!({ "desired": { "a": 1 } })), 2).unwrap_err();
    assert_eq!((over.code, over.limit), (413, Some(("shadow_bytes", 8_192))));
}
