//! Each form, and what is wrong in each, by line, column and field.

use serde_json::{Value, json};

use super::*;

type Good = (String, Option<i64>, Value);

/// What a file becomes: `(device, time, state)` of the good records, `line:column reason` of the others.
fn check(from: From, name: &str, text: &str) -> (Vec<Good>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, text).unwrap();
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for item in source(from, &[path]).unwrap().items {
        let item = item.unwrap();
        match item.state {
            Ok(state) => {
                assert_eq!((state.version, state.newest_device_time), (1, state.device_time));
                assert!(state.device_time.is_none_or(|time| time == state.received) && state.received > 0);
                let value = serde_json::from_slice(&state.state).unwrap();
                good.push((state.device.as_str().to_owned(), state.device_time, value));
            }
            Err(reason) => bad.push(format!("{}:{} {reason}", item.place.line, item.place.column)),
        }
    }
    (good, bad)
}

fn one(device: &str, time: Option<i64>, state: Value) -> Good {
    (device.to_owned(), time, state)
}

#[test]
fn the_node_services_map_and_array() {
    let map = r#"{
  "d1": {"deviceId":"d1","temperature":21.5,"timestamp":1700000000000},
  "d2": {"ts":"2023-11-14T22:13:20Z","on":true, "nested":{"a":[1,null]}},
  "d3": {"deviceId":"other"},
  "a/b": {}, "d4": {"timestamp":"soon"}, "d5": 7,
  "d6": {}
}"#;
    let (good, bad) = check(From::NodeJson, "latest.json", map);
    assert_eq!(
        good,
        [
            one("d1", Some(1_700_000_000_000), json!({"temperature":21.5,"timestamp":1_700_000_000_000_i64})),
            one("d2", Some(1_700_000_000_000), json!({"on":true,"nested":{"a":[1,null]}})),
            one("d6", None, json!({})),
        ]
    );
    assert_eq!(bad.len(), 4, "{bad:?}");
    assert!(bad[0].starts_with("4:9 deviceId: it is \"other\""), "{bad:?}");
    assert!(
        bad[1].starts_with("5:10 deviceId: ") && bad[2].starts_with("5:20 timestamp: \"soon\" is no time"),
        "{bad:?}"
    );
    assert!(bad[3].ends_with("must be a JSON object"), "{bad:?}");

    let (good, bad) = check(From::NodeJson, "latest.json", "[{\"deviceId\":\"d1\",\"a\":1},\n {\"a\":2}]");
    assert_eq!(good, [one("d1", None, json!({"a":1}))]);
    assert_eq!(bad, ["2:2 deviceId: it is missing"]);
    let (good, bad) = check(From::NodeJson, "latest.json", "{\"d1\": {\"a\":1},\n \"d2\": {");
    assert!(good.is_empty() && bad[0].starts_with("2:8 the file is not JSON"), "{bad:?}");
}

#[test]
fn thingsboards_latest_telemetry_of_one_device_and_of_many() {
    let device = r#"{"temperature":[{"ts":1700000000000,"value":"21.5"}],"on":[{"ts":1700000005000,"value":"true"}],
        "serial":[{"ts":1,"value":"007"}],"config":[{"ts":2,"value":"{\"a\":[1]}"}],"name":[{"ts":3,"value":"pump"}],
        "strict":[{"ts":4,"value":12}],"never":[{"ts":1700000009000,"value":null}],
        "twice":[{"ts":5,"value":"1"},{"ts":7,"value":"3"},{"ts":6,"value":"2"}]}"#;
    let state =
        json!({"temperature":21.5,"on":true,"serial":"007","config":{"a":[1]},"name":"pump","strict":12,"twice":3});
    let (good, bad) = check(From::ThingsboardJson, "pump-1.json", device);
    assert_eq!((good, bad), (vec![one("pump-1", Some(1_700_000_005_000), state.clone())], vec![]));

    let many =
        format!("{{\"p1\": {device},\n\"p2\": {{\"t\":[{{\"ts\":\"x\",\"value\":\"1\"}}]}},\n \"p3\": {{\"t\": 5}}}}");
    let (good, bad) = check(From::ThingsboardJson, "all.json", &many);
    assert_eq!(good, [one("p1", Some(1_700_000_005_000), state)]);
    assert!(
        bad[0].starts_with("5:7 t: \"x\" is no time") && bad[1].starts_with("6:8 t: it must be an array"),
        "{bad:?}"
    );
}

#[test]
fn thingsboards_csv_wide_and_long_with_each_separator() {
    let wide = "Entity name,Timestamp,temperature,note\n\
                p1,1700000000000,21.5,\"a \"\"quoted\"\", long\nnote\"\n\
                p2,2023-11-14 22:13:20,true,\n\
                p1,1700000001000,22,\n";
    let (good, bad) = check(From::ThingsboardCsv, "wide.csv", wide);
    assert_eq!(
        good,
        [
            one("p1", Some(1_700_000_001_000), json!({"temperature":22,"note":"a \"quoted\", long\nnote"})),
            one("p2", Some(1_700_000_000_000), json!({"temperature":true})),
        ]
    );
    assert!(bad.is_empty(), "{bad:?}");
    for separator in [';', '\t'] {
        let long = "\u{feff}device_name|KEY|value|ts\r\np1|t|1|5\r\np1|t|0|4\r\np1|u|\"x|y\"|3\r\n"
            .replace('|', &separator.to_string());
        let (good, bad) = check(From::ThingsboardCsv, "long.csv", &long);
        assert_eq!((good, bad), (vec![one("p1", Some(5), json!({"t":1,"u":format!("x{separator}y")}))], vec![]));
    }
}

#[test]
fn a_bad_row_of_a_csv_is_named_and_the_rest_goes_on() {
    let text = "device,ts,t\np1,soon,1\np2,5,2\np/3,5,3\np4,5\n\"p5,5,4\np6,5,\"6\" x\np7,7,7\n";
    let (good, bad) = check(From::ThingsboardCsv, "bad.csv", text);
    let devices: Vec<_> = good.iter().map(|(device, ..)| device.as_str()).collect();
    assert_eq!(devices, ["p2", "p7"], "{bad:?}");
    let starts = ["2:4 ts: \"soon\" is no time", "4:1 device: ", "5:1 the row has 2 cells, the header 3"];
    for (bad, start) in bad.iter().zip(starts) {
        assert!(bad.starts_with(start), "{bad}");
    }
    assert!(bad[3].starts_with("6:1 ") && bad[4].starts_with("7:1 column 3: something follows"), "{bad:?}");
    for (text, expected) in
        [("", "the file is empty"), ("a,b\n1,2\n", "no column names the device"), ("device,\n", "column 2 has no name")]
    {
        let (good, bad) = check(From::ThingsboardCsv, "none.csv", text);
        assert!(good.is_empty() && bad[0].contains(expected), "{bad:?}");
    }
}

#[test]
fn plain_readings_one_a_line() {
    let text = "{\"deviceId\":\"d1\",\"ts\":7,\"a\":1}\n\n{\"a\":1}\n{\"deviceId\":\"d2\",\"ts\":\"x\"}\nnope\n[{\"deviceId\":\"d3\"}]\n{\"deviceId\":\"d1\",\"ts\":8,\"a\":2}\n";
    let (good, bad) = check(From::Ndjson, "readings.ndjson", text);
    assert_eq!(good, [one("d1", Some(7), json!({"a":1})), one("d1", Some(8), json!({"a":2}))]);
    let starts = ["3:1 deviceId: it is missing", "4:23 ts must be", "5:2 not JSON", "6:1 an array"];
    assert_eq!(bad.len(), starts.len(), "{bad:?}");
    for (bad, start) in bad.iter().zip(starts) {
        assert!(bad.starts_with(start), "{bad}");
    }
}
