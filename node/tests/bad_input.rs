//! What a clumsy or hostile user sends, and what the node says: every refusal tells what was wrong, where, and what to do, and
//! the node goes on. `docs/errors.md` is the table of these cases.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{
    PATIENCE, node,
    raw::{Answer, RawNode as Node, SERVE, holds, run, send},
};

/// The refusal is a problem document with this status and these members.
#[track_caller]
fn problem(name: &str, answer: &Answer, status: u16, members: &Value) {
    assert_eq!(answer.status, status, "{name}: {answer:?}");
    assert!(answer.head.to_ascii_lowercase().contains("content-type: application/problem+json"), "{name}: {answer:?}");
    assert_members(name, &answer.json(), members);
}

/// Every member is there; texts need only contain what is expected.
#[track_caller]
fn assert_members(name: &str, found: &Value, members: &Value) {
    for (key, expected) in members.as_object().expect("an object") {
        let ok = match (&found[key], expected) {
            (Value::String(found), Value::String(expected)) => found.contains(expected.as_str()),
            (found, expected) => found == expected,
        };
        assert!(ok, "{name}: {key} should be {expected}: {found}");
    }
}

#[test]
fn bodies() {
    let node = Node::start(&[]);
    let deep = format!(r#"{{"deviceId":"d","x":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let open_objects = r#"{"a":"#.repeat(10_000);
    let large_reading = format!(r#"{{"deviceId":"d","x":"{}"}}"#, "x".repeat(300_000));
    let large_body = format!(r#"{{"deviceId":"d","x":"{}"}}"#, "x".repeat(1_100_000));
    let many = format!("[{}]", vec!["{}"; 10_001].join(","));
    let long_id = format!(r#"{{"deviceId":"{}"}}"#, "x".repeat(300));
    let open_arrays = "[".repeat(100_000);
    let cases: &[(&str, &[u8], u16, Value)] = &[
        (
            "a value is missing",
            br#"{"deviceId":"d","t":}"#,
            400,
            json!({"detail": "expected value", "line": 1, "column": 21, "offset": 20}),
        ),
        (
            "a value is missing two levels down, on line 2",
            b"{\"deviceId\":\"d\",\n \"a\":{\"b\":[1,2,}}",
            400,
            json!({"line": 2, "column": 16, "offset": 32}),
        ),
        ("cut off", br#"{"deviceId":"d""#, 400, json!({"detail": "EOF while parsing an object", "column": 15})),
        ("an unquoted name", br"{t:1}", 400, json!({"detail": "key must be a string", "offset": 1})),
        ("something behind", br#"{"deviceId":"d"} x"#, 400, json!({"detail": "trailing characters", "offset": 17})),
        ("not JSON at all", b"deviceId=d&t=1", 400, json!({"detail": "expected value", "offset": 0})),
        ("NaN", br#"{"deviceId":"d","t":NaN}"#, 400, json!({"detail": "not JSON", "offset": 20})),
        ("no body", b"", 400, json!({"detail": "the payload is empty; a reading is a JSON object"})),
        ("blanks only", b" \n", 400, json!({"detail": "the payload is empty"})),
        ("a number", b"21.5", 400, json!({"detail": r#"a JSON object like {"temperature":21.5}, this is a number"#})),
        ("null", b"null", 400, json!({"detail": "this is null"})),
        ("no readings", b"[]", 400, json!({"detail": "the array is empty; send at least one reading"})),
        ("an array without an end", open_arrays.as_bytes(), 400, json!({"detail": "EOF while parsing a list"})),
        (
            "no device id",
            br#"{"t":1}"#,
            400,
            json!({"field": "deviceId", "detail": "or post to /devices/{id}/metrics"}),
        ),
        (
            "the device id is a number",
            br#"{"deviceId":5}"#,
            400,
            json!({"field": "deviceId", "detail": "must be a string, this is 5", "offset": 12}),
        ),
        ("the device id is null", br#"{"deviceId":null}"#, 400, json!({"detail": "must be a string, this is null"})),
        ("the device id is empty", br#"{"deviceId":""}"#, 400, json!({"detail": "must not be empty"})),
        ("a slash in it", br#"{"deviceId":"a/b"}"#, 400, json!({"detail": "may not contain '/' (at byte 1)"})),
        ("too long an id", long_id.as_bytes(), 400, json!({"detail": "at most 256 bytes (limit device_id_bytes)"})),
        (
            "ts is a text",
            br#"{"deviceId":"d","ts":"now"}"#,
            400,
            json!({"field": "ts", "detail": r#"milliseconds since 1970-01-01 UTC, at most 253402300799999 (year 9999), this is "now""#, "offset": 21}),
        ),
        ("ts is negative", br#"{"deviceId":"d","ts":-1}"#, 400, json!({"field": "ts", "detail": "this is -1"})),
        ("ts is too large", br#"{"deviceId":"d","ts":1e30}"#, 400, json!({"field": "ts", "detail": "year 9999"})),
        ("ts is null", br#"{"deviceId":"d","ts":null}"#, 400, json!({"field": "ts", "detail": "this is null"})),
        (
            "10,000 arrays deep",
            deep.as_bytes(),
            400,
            json!({"detail": "nested deeper than 64 levels", "limit": "json_depth", "limitValue": 64, "offset": 83}),
        ),
        ("10,000 objects deep", open_objects.as_bytes(), 400, json!({"limit": "json_depth", "offset": 320})),
        (
            "no UTF-8",
            b"{\"deviceId\":\"d\",\"x\":\"\xff\"}",
            400,
            json!({"detail": "not UTF-8 (byte 21)", "offset": 21, "column": 22}),
        ),
        (
            "too large a reading",
            large_reading.as_bytes(),
            413,
            json!({"limit": "reading_bytes", "limitValue": 262_144, "detail": "300023 bytes, at most 262144"}),
        ),
        (
            "too large a body",
            large_body.as_bytes(),
            413,
            json!({"limit": "http_body_bytes", "limitValue": 1_048_576, "detail": "more than 1048576 bytes"}),
        ),
        (
            "too many readings",
            many.as_bytes(),
            413,
            json!({"limit": "readings_per_request", "limitValue": 10_000, "detail": "10001 readings at once"}),
        ),
    ];
    for (name, body, status, members) in cases {
        problem(name, &node.request("POST", "/metrics", "", body), *status, members);
        node.assert_alive(name);
    }
    let ledger = node.get("/ledger");
    assert_eq!(ledger["balanced"], true, "{ledger}");
    let rejected: u64 = ledger["rejected"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(rejected, cases.len() as u64, "each refusal is counted: {ledger}");
}

#[test]
fn items_of_a_batch() {
    let node = Node::start(&[]);
    let all_bad = node.post("/metrics", "[1,\"x\",null,[{}]]");
    assert_eq!(all_bad.status, 400, "{all_bad:?}");
    for (index, (kind, offset)) in
        [("a number", 1), ("a string", 3), ("null", 7), ("an array", 12)].into_iter().enumerate()
    {
        let problem = &all_bad.json()["items"][index]["problem"];
        assert_members("item", problem, &json!({"detail": format!("this is {kind}"), "offset": offset}));
    }
    let mixed = node.post("/metrics", r#"[{"deviceId":"d","t":1},{"t":1},7]"#).json();
    assert_eq!((&mixed["accepted"], &mixed["rejected"]), (&json!(1), &json!(2)), "{mixed}");
    assert_eq!(mixed["items"][2]["problem"]["column"], 33, "{mixed}");
    let lines = "{\"deviceId\":\"d\"}\n{bad\n";
    let lines = node.request("POST", "/metrics", "content-type: application/x-ndjson\r\n", lines.as_bytes()).json();
    assert_members("a line", &lines["items"][1]["problem"], &json!({"line": 2, "column": 2, "offset": 18}));
    let empty = node.request("POST", "/metrics", "content-type: application/x-ndjson\r\n", b"\n");
    problem("no lines", &empty, 400, &json!({"detail": "send one JSON object a line"}));
    node.assert_alive("batches");
}

#[test]
fn requests() {
    const READING: &[u8] = br#"{"deviceId":"d","t":1}"#;
    let node = Node::start(&[]);
    let long = format!("/devices/{}", "x".repeat(300));
    let levels = "allowed: received, committed, processed";
    type Case<'a> = (&'a str, &'a str, &'a str, &'a [u8], u16, Value);
    let cases: &[Case<'_>] = &[
        ("POST", "/metrics?ack=done", "", READING, 400, json!({"field": "ack", "detail": levels})),
        ("POST", "/metrics", "prefer: ack=done\r\n", READING, 400, json!({"field": "ack", "detail": levels})),
        (
            "POST",
            "/metrics?akc=committed",
            "",
            READING,
            400,
            json!({"detail": r#"unknown parameter "akc"; allowed: ack"#}),
        ),
        (
            "POST",
            "/metrics",
            "idempotency-key: short\r\n",
            READING,
            400,
            json!({"field": "Idempotency-Key", "detail": "has 5 characters; allowed: 8 to 255"}),
        ),
        (
            "POST",
            "/metrics",
            "content-encoding: gzip\r\n",
            READING,
            415,
            json!({"detail": "send the body uncompressed"}),
        ),
        ("POST", "/devices/a%2Fb/metrics", "", READING, 400, json!({"field": "id", "detail": "may not contain '/'"})),
        (
            "POST",
            "/devices/a%ffb/metrics",
            "",
            READING,
            400,
            json!({"field": "id", "detail": "not UTF-8 from its byte 1"}),
        ),
        ("POST", "/devices/a%zz/metrics", "", READING, 400, json!({"field": "id", "detail": "two hex digits"})),
        (
            "POST",
            "/devices/other/metrics",
            "",
            READING,
            400,
            json!({"field": "deviceId", "detail": "but the path names other"}),
        ),
        (
            "GET",
            "/devices?limit=0",
            "",
            b"",
            400,
            json!({"field": "limit", "detail": "limit = \"0\"; allowed: 1 to 1000", "limit": "page_devices"}),
        ),
        ("GET", "/devices?limit=ten", "", b"", 400, json!({"field": "limit", "detail": "\"ten\""})),
        (
            "GET",
            "/devices?cursor=x",
            "",
            b"",
            400,
            json!({"detail": "unknown parameter \"cursor\"; allowed: after, limit, prefix"}),
        ),
        (
            "GET",
            "/devices/nobody",
            "",
            b"",
            404,
            json!({"detail": "no reading of device \"nobody\" has been kept yet"}),
        ),
        ("GET", &long, "", b"", 400, json!({"detail": "at most 256 bytes (limit device_id_bytes), this one has 300"})),
        ("GET", "/parked?limit=x", "", b"", 400, json!({"field": "limit", "detail": "allowed: 1 to 1000"})),
        (
            "GET",
            "/parked?limt=1",
            "",
            b"",
            400,
            json!({"detail": "unknown parameter \"limt\"; allowed: before, deviceId, limit"}),
        ),
        (
            "GET",
            "/metricss",
            "",
            b"",
            404,
            json!({"detail": "nothing at /metricss; GET /openapi.json lists what there is"}),
        ),
        ("GET", "/assets/nothing.js", "", b"", 404, json!({"detail": "no asset \"nothing.js\""})),
        ("DELETE", "/metrics", "", b"", 405, json!({"detail": "DELETE is not allowed here; allowed: GET, POST"})),
        ("GET", "/devices/d/metrics", "", b"", 405, json!({"detail": "allowed: POST"})),
        ("POST", "/ledger", "", b"", 405, json!({"detail": "allowed: GET"})),
        ("GET", "/ws", "", b"", 426, json!({"detail": "connect with a WebSocket client, or use GET /stream"})),
        (
            "GET",
            "/ws?device=a",
            "",
            b"",
            400,
            json!({"detail": "unknown parameter \"device\"; allowed: deviceId, prefix, interval"}),
        ),
        ("GET", "/stream?deviceId=", "", b"", 400, json!({"field": "deviceId", "detail": "must not be empty"})),
        ("GET", "/stream?interval=soon", "", b"", 400, json!({"field": "interval", "detail": "0 to 60000 ms"})),
    ];
    for (method, path, headers, body, status, members) in cases {
        let name = format!("{method} {path:.60} {headers}");
        problem(&name, &node.request(method, path, headers, body), *status, members);
        node.assert_alive(&name);
    }
    let allow = node.request("DELETE", "/metrics", "", b"");
    assert!(allow.head.contains("allow: GET, POST"), "{allow:?}");
    // What is announced as too large is refused before it is sent, and a client that says no more does not hold the node up.
    let announced = b"POST /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 99999999999\r\n\r\n{";
    problem("announced", &node.http_raw(announced), 413, &json!({"limit": "http_body_bytes"}));
    node.assert_alive("an announced body");
}

#[test]
fn an_id_in_a_path_is_the_id_in_a_body() {
    let node = Node::start(&[]);
    for (id, path) in [("50%", "50%25"), ("a b", "a%20b"), ("Gerät", "Ger%C3%A4t"), ("%2F", "%252F")] {
        let answer = node.post(&format!("/devices/{path}/metrics?ack=processed"), r#"{"t":1}"#);
        assert_eq!((answer.status, &answer.json()["deviceId"]), (200, &json!(id)), "{answer:?}");
        assert_eq!(node.get(&format!("/devices/{path}"))["deviceId"], id);
        assert_eq!(node.post("/metrics?ack=processed", &json!({"deviceId": id, "t": 2}).to_string()).status, 200);
        assert_eq!(node.get(&format!("/devices/{path}"))["version"], 2, "one device, two ways");
    }
}

#[test]
fn what_is_no_http() {
    let node = Node::start(&[]);
    let huge_head = [b"GET / HTTP/1.1\r\nx: ", &b"a".repeat(200_000)[..], b"\r\n\r\n"].concat();
    let random = noise(64 * 1024);
    let cases: &[(&str, &[u8], u16)] = &[
        ("noise", b"\x00\x01\x02garbage\r\n\r\n", 400),
        ("a head of 200 KB", &huge_head, 431),
        ("a length that is none", b"POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: zz\r\n\r\n", 400),
        (
            "two lengths",
            b"POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "a chunk that is none",
            b"POST /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            400,
        ),
    ];
    for (name, bytes, status) in cases {
        let answer = node.http_raw(bytes);
        assert_eq!(answer.status, *status, "{name}: {answer:?}");
        node.assert_alive(name);
    }
    send(node.http, &random);
    node.assert_alive("64 KB of noise");
    for (bytes, words) in [
        (connect(4, "c"), "this is an MQTT CONNECT on the HTTP port; MQTT is at --mqtt-bind"),
        (client_hello(), "this is a TLS handshake, and this port speaks plain HTTP"),
    ] {
        assert_eq!(send(node.http, &bytes), b"", "{words}");
        assert!(holds(|| node.log().contains(words)), "{words}: {}", node.log());
        node.assert_alive(words);
    }
}

// ---- WebSocket

/// A WebSocket connection that has read its hello.
fn websocket(node: &Node) -> TcpStream {
    let mut stream = TcpStream::connect(node.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "GET /ws?deviceId=good HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    read_until(&mut stream, "\"hello\"");
    stream
}

/// Reads until `words` came.
#[track_caller]
fn read_until(stream: &mut TcpStream, words: &str) -> String {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    let start = Instant::now();
    loop {
        let text = String::from_utf8_lossy(&seen).into_owned();
        if text.contains(words) {
            return text;
        }
        // The node's own pings keep a read from timing out.
        assert!(start.elapsed() < PATIENCE, "{words:?} did not come: {text}");
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => seen.extend_from_slice(&buffer[..count]),
            ended => panic!("{words:?} did not come ({ended:?}): {text}"),
        }
    }
}

/// A masked frame (mask 0) of at most 65,535 bytes.
fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u8::try_from(payload.len()) {
        Ok(length @ ..=125) => frame.push(0x80 | length),
        _ => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

#[test]
fn watch_messages() {
    let node = Node::start(&[]);
    let bad = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 12\r\nsec-websocket-key: abc\r\n";
    let answer = node.request("GET", "/ws", bad, b"");
    assert_eq!(answer.status, 426, "{answer:?}");
    let mut stream = websocket(&node);
    for (message, words) in [
        ("nope", "not a watch message"),
        (r#"{"watch":{"devices":["a"]}}"#, "unknown field `devices`, expected one of `deviceIds`, `prefixes`, `fleet`"),
        (r#"{"watch":{"deviceIds":["a/b"]}}"#, "may not contain '/'"),
        (r#"{"watch":{"deviceIds":"a"}}"#, "expected a sequence"),
        (r#"{"watch":{"fleet":true},"interval":99999999}"#, "0 to 60000 ms"),
    ] {
        stream.write_all(&client_frame(0x81, message.as_bytes())).unwrap();
        let text = read_until(&mut stream, r#""type":"error""#);
        let plain = text.replace("\\\"", "\"");
        assert!(plain.contains(r#""type":"error""#) && plain.contains(words), "{message}: {plain}");
    }
    // After all that the viewer still sees what it asked for first.
    node.assert_alive("bad watch messages");
    read_until(&mut stream, r#""type":"state""#);

    // The head of a message of 8 EB, and what a client sends of it before it is told to stop.
    let huge =
        [&[0x81, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0], &[b'x'; 70_000][..]].concat();
    for (name, bytes, words) in [
        ("a binary message", client_frame(0x82, b"x"), "send text messages, unfragmented"),
        ("no mask", vec![0x81, 1, b'x'], "unmasked frame"),
        ("a reserved opcode", client_frame(0x83, b"x"), "Invalid opcode (3)"),
        ("a huge message", huge, "a message of more than 65536 bytes"),
    ] {
        let mut stream = websocket(&node);
        stream.write_all(&bytes).unwrap();
        read_until(&mut stream, words);
        node.assert_alive(name);
    }
}

/// Sends the same bytes again and again without reading an answer, until the node takes no more. Returns the bytes taken.
fn stuff(stream: &mut TcpStream, bytes: &[u8], most: usize) -> usize {
    stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let mut refused = 0;
    // Half a second without a byte taken is a node that waits.
    while sent < most && refused < 50 {
        match stream.write(&bytes[sent % bytes.len()..]) {
            Ok(count) => {
                sent += count;
                refused = 0;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => panic!("after {sent} bytes: {error}"),
        }
    }
    sent
}

#[test]
fn who_asks_without_reading_the_answers_is_not_read() {
    const MOST: usize = 64 * 1024 * 1024;
    let node = Node::start(&[]);
    let mut stream = websocket(&node);
    let sent = stuff(&mut stream, &client_frame(0x89, &[b'x'; 125]).repeat(100), MOST);
    assert!(sent < MOST, "the node took {sent} bytes of pings");
    node.assert_alive("pings");

    let mut stream = TcpStream::connect(node.mqtt).unwrap();
    stream.write_all(&connect(4, "pinger")).unwrap();
    let sent = stuff(&mut stream, &[0xC0, 0x00].repeat(8_000), MOST);
    assert!(sent < MOST, "the node took {sent} bytes of PINGREQ");
    node.assert_alive("PINGREQs");
    // Once it reads, it is answered: one PINGRESP for each whole PINGREQ.
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answers = vec![0; 4 + sent / 2 * 2];
    stream.read_exact(&mut answers).expect("every answer");
    assert_eq!(&answers[..6], [0x20, 2, 0, 0, 0xD0, 0]);
    assert_eq!(&answers[answers.len() - 2..], [0xD0, 0]);
}

// ---- MQTT

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut rest = body.len();
    loop {
        let more = rest > 0x7F;
        bytes.push((rest & 0x7F) as u8 | if more { 0x80 } else { 0 });
        rest >>= 7;
        if !more {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

fn binary(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn connect(level: u8, client: &str) -> Vec<u8> {
    connect_as(b"MQTT", level, client)
}

fn connect_as(name: &[u8], level: u8, client: &str) -> Vec<u8> {
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    packet(0x10, &[&binary(name), &[level, 2, 0, 60][..], properties, &binary(client.as_bytes())].concat())
}

/// An MQTT 5 PUBLISH with QoS 1.
fn publish(topic: &[u8], properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = [u8::try_from(properties.len()).unwrap()];
    packet(0x32, &[&binary(topic), &[0, 7][..], &length, properties, payload].concat())
}

/// Bytes that repeat in every run (a xorshift).
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        (state >> 8) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// The start of a TLS 1.2 ClientHello.
fn client_hello() -> Vec<u8> {
    [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[7; 506]].concat()
}

#[test]
fn what_is_no_mqtt() {
    let node = Node::start(&[]);
    let random = noise(64 * 1024);
    let cases: &[(&str, &[u8], &str)] = &[
        ("another protocol's name", &connect_as(b"MQTX", 4, "c"), "the protocol name is not MQTT"),
        ("level 9", &connect(9, "c"), "protocol level 9 is not served; MQTT 3.1.1 (4) and MQTT 5 (5) are"),
        ("MQTT 3.1", &connect_as(b"MQIsdp", 3, "c"), "protocol level 3 is not served"),
        ("TLS", &client_hello(), "this is a TLS handshake, and this port speaks plain MQTT; connect without TLS"),
        ("HTTP", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP and the dashboard are at --http-bind"),
        ("HTTP POST", b"POST /metrics HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP and the dashboard are at --http-bind"),
        ("64 KB of noise", &random, "[MQTT-2.1"),
        ("256 MB announced", b"\x10\xff\xff\xff\x7f", "at most 65536 bytes (limit mqtt.limits.pre_auth_packet_bytes)"),
        ("a length of five bytes", b"\x10\xff\xff\xff\xff\x7f", "the remaining length has more than four bytes"),
        ("a PUBLISH first", &packet(0x30, &binary(b"a")), "the first packet is PUBLISH; it must be CONNECT"),
        (
            "an empty id that wants a session",
            &packet(0x10, b"\x00\x04MQTT\x04\x00\x00\x3c\x00\x00"),
            "an empty client id needs a clean session",
        ),
    ];
    for (name, bytes, words) in cases {
        let before = node.log().matches(words).count();
        let answer = send(node.mqtt, bytes);
        let text = String::from_utf8_lossy(&answer);
        assert!(holds(|| node.log().matches(words).count() > before), "{name}: {text} {}", node.log());
        match *name {
            "level 9" | "HTTP" | "HTTP POST" => assert!(text.contains(words), "{name}: {text}"),
            "MQTT 3.1" => assert_eq!(answer, [0x20, 2, 0, 1], "{name}"),
            _ => {}
        }
        node.assert_alive(name);
    }
}

#[test]
fn bad_packets_of_a_connected_client() {
    let node = Node::start(&[]);
    let slashes = publish("/".repeat(65_400).as_bytes(), b"", b"{}");
    // The error comes right behind the CONNECT, and the client is told all the same.
    let cases: &[(&str, &[u8], u8, &str)] = &[
        (
            "a topic that is no UTF-8",
            &publish(b"devices/\xff/metrics", b"", b"{}"),
            0x81,
            "not UTF-8 from its byte 8 on",
        ),
        ("65,400 slashes", &slashes, 0x90, "more than 128 levels (limit mqtt_topic_levels)"),
        (
            "a wildcard",
            &publish(b"devices/+/metrics", b"", b"{}"),
            0x90,
            "may not contain '+' or '#'; those are for filters",
        ),
        ("no topic", &publish(b"", b"", b"{}"), 0x82, "an empty topic name needs a topic alias"),
        ("256 MB", b"\x30\xff\xff\xff\x7f", 0x95, "at most 1048576 are allowed (limit mqtt.limits.packet_bytes)"),
        ("a second CONNECT", &connect(5, "c"), 0x82, "a second CONNECT"),
        ("QoS 3", &packet(0x36, &binary(b"a")), 0x81, "may not have both QoS bits set"),
        (
            "a bad filter",
            &packet(0x82, &[&[0, 7, 0][..], &binary(b"a/#/b"), &[0]].concat()),
            0x8F,
            "'#' must be alone in the last level",
        ),
        ("a server's packet", b"\xd0\x00", 0x82, "PINGRESP"),
    ];
    for (name, bytes, reason, words) in cases {
        let answer = send(node.mqtt, &[&connect(5, "c"), *bytes].concat());
        let text = String::from_utf8_lossy(&answer);
        assert_eq!(answer.first(), Some(&0x20), "{name}: the CONNACK comes first: {answer:?}");
        let disconnect = usize::from(answer[1]) + 2;
        assert_eq!(answer.get(disconnect), Some(&0xE0), "{name}: then a DISCONNECT: {text}");
        assert_eq!(answer.get(disconnect + 2), Some(reason), "{name}: {text}");
        assert!(text.contains(words), "{name}: {text}");
        node.assert_alive(name);
    }
}

#[test]
fn bad_readings_of_a_device() {
    let node = Node::start(&[]);
    let ack = [&[0x26][..], &binary(b"ack"), &binary(b"done")].concat();
    let deep = format!(r#"{{"x":{}}}"#, "[".repeat(10_000));
    let cases: &[(&str, &[u8], u8, &str)] = &[
        (
            "bad JSON",
            &publish(b"devices/d/metrics", b"", b"{\"a\":}"),
            0x99,
            "not JSON: expected value at line 1, column 6",
        ),
        (
            "no device",
            &publish(b"devices//metrics", b"", b"{}"),
            0x90,
            "the topic's device: a device id must not be empty",
        ),
        (
            "another device",
            &publish(b"devices/d/metrics", b"", br#"{"deviceId":"e"}"#),
            0x99,
            r#"in the payload, but the topic names d"#,
        ),
        (
            "an unknown level",
            &publish(b"devices/d/metrics", &ack, b"{}"),
            0x99,
            "allowed: received, committed, processed",
        ),
        ("10,000 deep", &publish(b"devices/d/metrics", b"", deep.as_bytes()), 0x99, "nested deeper than 64 levels"),
        ("telemetry that is a text", &publish(b"v1/devices/me/telemetry", b"", b"\"x\""), 0x99, "this is a string"),
    ];
    for (name, bytes, reason, words) in cases {
        // The connection stays: a ping behind it is answered, and the device may go on.
        let mut stream = TcpStream::connect(node.mqtt).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&[&connect(5, "c"), *bytes, &[0xC0, 0]].concat()).unwrap();
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(&[0xD0, 0]) {
            stream.read_exact(&mut byte).unwrap_or_else(|error| panic!("{name}: {error} after {answer:?}"));
            answer.push(byte[0]);
        }
        let puback = answer.iter().skip(2 + usize::from(answer[1])).copied().collect::<Vec<_>>();
        assert_eq!((puback[0], &puback[2..5]), (0x40, &[0, 7, *reason][..]), "{name}: {puback:?}");
        let logged = holds(|| {
            node.log().lines().any(|line| line.contains(words) && line.contains("client=c") && line.contains("topic="))
        });
        assert!(logged, "{name}: {}", node.log());
        node.assert_alive(name);
    }
    let ledger = node.get("/ledger");
    assert_eq!(ledger["balanced"], true, "{ledger}");
}

// ---- starting

/// The command refuses to start with this code and these words on stderr.
#[track_caller]
fn refused(dir: &Path, arguments: &[&str], code: i32, words: &[&str]) {
    let output = run(dir, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    let last = said.lines().last().unwrap_or_default();
    for words in words {
        assert!(last.starts_with("error: ") && last.contains(words), "{arguments:?}: {words:?} in {said}");
    }
}

fn serve<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SERVE[..], more].concat()
}

#[test]
fn bad_configurations() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tidegate.toml");
    for (text, words) in [
        ("[mqtt]\nbnid = \"127.0.0.1:1\"\n", "tidegate.toml:2:1: unknown key mqtt.bnid; did you mean mqtt.bind?"),
        (
            "[scripts]\nworkers = \"two\"\n",
            "tidegate.toml:2:11: scripts.workers = \"two\" is a string; allowed: an integer from 1 to 256",
        ),
        ("[mqtt\n", "tidegate.toml:1:6: is not TOML"),
    ] {
        std::fs::write(&file, text).unwrap();
        refused(dir.path(), &SERVE, 78, &[words]);
    }
    std::fs::remove_file(&file).unwrap();
    let mut command = node::tidegate(dir.path());
    let output = command.args(SERVE).env("TIDEGATE_RUNTIME__LOOPS", "many").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78));
    assert!(said.contains("TIDEGATE_RUNTIME__LOOPS: runtime.loops = \"many\" is not an integer; allowed:"), "{said}");
    refused(dir.path(), &serve(&["--config", "none.toml"]), 78, &["none.toml: cannot be read: there is no such file"]);
}

#[test]
fn places_that_cannot_be_used() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    let dir = dir.path();
    refused(dir, &serve(&["--data-dir", "file"]), 1, &["data directory file", "it is not a directory", "--data-dir"]);
    let below = ["data directory file/below", "a part of its path is a file", "--data-dir"];
    refused(dir, &serve(&["--data-dir", "file/below"]), 1, &below);
    refused(dir, &serve(&["--handlers", "file"]), 1, &["file is not a directory", "--handlers"]);
}

#[test]
fn what_another_node_has() {
    let node = Node::start(&[]);
    let dir = tempfile::tempdir().unwrap();
    let data = node.house.data();
    let words = format!("is in use by process {}: stop that node, or give this one another --data-dir", node.pid());
    refused(dir.path(), &serve(&["--data-dir", data.to_str().unwrap()]), 1, &[&words]);
    let (mqtt, http) = (node.mqtt.to_string(), node.http.to_string());
    let words = "the port is in use by another program";
    refused(dir.path(), &["serve", "--mqtt-bind", &mqtt, "--http-bind", "127.0.0.1:0"], 1, &[words, "--mqtt-bind"]);
    refused(dir.path(), &["serve", "--http-bind", &http, "--mqtt-bind", "127.0.0.1:0"], 1, &[words, "--http-bind"]);
    node.assert_alive("three nodes that wanted what it has");
}

// ---- handlers that are not right

#[test]
fn handlers_that_do_not_load_leave_the_others_alone() {
    const GOOD: &str = "export function onMetric(m) { return { ...m, seen: true }; }";
    let big = format!("{GOOD}\n//{}", "x".repeat(300_000));
    let deep = format!("export function onMetric(m) {{\n  return {}1{};\n}}", "(".repeat(10_000), ")".repeat(10_000));
    let cases: &[(&str, &str, &str)] = &[
        (
            "10-syntax.js",
            "export function onMetric(m) {\n  return {a: };\n}\n",
            "10-syntax.js:2:14: unexpected token '}'",
        ),
        ("20-nothing.js", "export const match = {};", "20-nothing.js: it exports no function onMetric"),
        ("30-big.js", &big, "more than 262144 (limit script_source_bytes)"),
        ("40-deep.js", &deep, "brackets nested deeper than 64 (limit script_nesting)"),
        (
            "50-match.js",
            "export const match = { devcies: [] };\nexport function onMetric(m) {}",
            "unknown field `devcies`",
        ),
        ("60-throws.js", "throw new Error('at the top');", "60-throws.js:1:7: Error: at the top"),
        ("70-hangs.js", "while (true) {}", "70-hangs.js:1:1: while it loads: a loop went round more than"),
        (
            "80-import.js",
            "import x from './none.js';\nexport function onMetric(m) {}",
            "80-import.js:1:15: Error: Cannot find module '/handlers/none.js' imported from /handlers/80-import.js",
        ),
        ("90 - wéird;$(x)'\".js", GOOD, "90 - wéird;$(x)'\".js: ok"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let handlers = dir.path().join("handlers");
    std::fs::create_dir(&handlers).unwrap();
    for (name, source, _) in cases {
        std::fs::write(handlers.join(name), source).unwrap();
    }
    std::os::unix::fs::symlink("/nowhere", handlers.join("95-link.js")).unwrap();

    let output = run(dir.path(), &["script", "check", "handlers"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for (name, _, words) in cases {
        assert!(said.contains(words), "{name}: {words:?} in {said}");
    }
    assert!(said.contains("2 |   return {a: };\n  |              ^\n"), "the line and a caret: {said}");
    assert!(said.contains("95-link.js: the file cannot be read"), "{said}");

    let node = Node::start_in(dir);
    node.assert_alive("a start with broken handlers");
    let overview = node.get("/api/overview");
    for script in overview["scripts"].as_array().unwrap() {
        let good = script["name"].as_str().unwrap().starts_with("90");
        assert_eq!(script["status"], if good { "closed" } else { "broken" }, "{script}");
        assert_eq!(script["lastError"].is_null(), good, "{script}");
    }
    assert_eq!(node.post("/metrics?ack=processed", r#"{"deviceId":"d","t":1}"#).status, 200);
    assert_eq!(node.get("/devices/d")["state"]["seen"], true, "the good one runs");
}
