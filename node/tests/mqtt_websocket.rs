//! MQTT over WebSocket: at `/mqtt` of the HTTP listener, on listeners of its own, and over TLS; by real clients, and frame by
//! frame.

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use serde_json::json;
use support::{
    House, Node, PATIENCE,
    authority::Authority,
    driver::{Client, LIBRARIES, Over},
    http,
    mqtt::{
        self, Connect,
        Version::{V3, V5},
    },
    raw,
};
use tungstenite::{
    Message, WebSocket,
    client::IntoClientRequest,
    http::HeaderValue,
    protocol::{
        CloseFrame,
        frame::{
            Frame,
            coding::{CloseCode, Data, OpCode},
        },
    },
};

fn every_door() -> (House, Authority) {
    let house =
        House::new().flags(&["--ws-bind", "127.0.0.1:0", "--wss-bind", "127.0.0.1:0", "--https-bind", "127.0.0.1:0"]);
    let authority = Authority::new(&house.path(""), "authority");
    let files = authority.node("node", 1);
    let house = house
        .variable("TIDEGATE_MQTT__TLS_CERT", &files.cert.to_string_lossy())
        .variable("TIDEGATE_MQTT__TLS_KEY", &files.key.to_string_lossy());
    (house, authority)
}

/// A WebSocket handshake with these headers beside its own.
fn handshake(at: SocketAddr, path: &str, headers: &[(&'static str, &str)]) -> Result<WebSocket<TcpStream>, u16> {
    let stream = TcpStream::connect(at).expect("the node accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    let mut request = format!("ws://{at}{path}").into_client_request().expect("a request");
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_str(value).expect("a header"));
    }
    match tungstenite::client(request, stream) {
        Ok((socket, response)) => {
            assert_eq!(response.headers()["sec-websocket-protocol"], "mqtt");
            Ok(socket)
        }
        Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
            Err(response.status().as_u16())
        }
        Err(error) => panic!("{error}"),
    }
}

const MQTT: (&str, &str) = ("sec-websocket-protocol", "mqtt");

#[track_caller]
fn open(node: &Node) -> WebSocket<TcpStream> {
    handshake(node.http, "/mqtt", &[MQTT]).expect("a WebSocket")
}

/// The bytes of the next binary frame.
#[track_caller]
fn binary(socket: &mut WebSocket<TcpStream>) -> Vec<u8> {
    match socket.read().expect("a frame") {
        Message::Binary(bytes) => bytes.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// The code of the Close frame that comes after whatever is still to come.
#[track_caller]
fn close_code(socket: &mut WebSocket<TcpStream>) -> u16 {
    loop {
        match socket.read().expect("a frame") {
            Message::Close(Some(frame)) => return frame.code.into(),
            Message::Close(None) => panic!("a Close frame without a code"),
            _ => {}
        }
    }
}

#[test]
fn clients_connect_over_every_door() {
    let (house, authority) = every_door();
    let node = house.start();
    let ca = authority.ca();
    for (door, transport, path) in [
        ("http", "ws", "/mqtt"),
        ("ws", "ws", "/mqtt"),
        ("ws", "ws", "/"),
        ("wss", "wss", "/mqtt"),
        ("https", "wss", "/mqtt"),
    ] {
        let over = Over { transport, path, ca: Some(&ca), own: None, login: None };
        for (library, version) in LIBRARIES {
            let name = |n: usize| format!("{door}-{}-{library:?}-{version:?}-{n}", path.len());
            let mut clients: Vec<_> =
                (0..3).map(|n| Client::connect_over(library, node.door(door), version, &name(n), None, over)).collect();
            let long = "y".repeat(200_000);
            for n in 0..clients.len() {
                assert_eq!(clients[n].subscribe(&format!("to/{}", name(n)), 1), 1);
                let from = (n + 1) % clients.len();
                assert_eq!(clients[from].publish(&format!("to/{}", name(n)), &long), 0);
                clients[n].expect_message(&format!("to/{}", name(n)), &long, 1);
                assert_eq!(clients[n].publish("v1/devices/me/telemetry", r#"{"t":3}"#), 0);
                assert_eq!(node.device_with(&name(n), "t", &json!(3))["connected"], true);
            }
            clients.into_iter().for_each(Client::leave);
        }
    }
    node.settled_ledger();
    assert_eq!(node.metric("tidegate_mqtt_connections_pre_auth"), 0.0);
}

#[test]
fn packets_and_frames_need_not_be_aligned() {
    let node = House::new().start();
    let mut socket = open(&node);
    // A CONNECT of one byte a frame.
    for byte in Connect::new(V5, "frames").bytes() {
        socket.send(Message::binary(vec![byte])).expect("it is written");
    }
    assert_eq!(binary(&mut socket)[0], 0x20, "a CONNACK");
    // Three packets and a half in one frame, the rest in the next: fragmented, and with a ping in between.
    let packets = [
        mqtt::subscribe(V5, 1, "frames/+", 0),
        mqtt::publish(V5, "frames/a", 1, 2, &[], b"one"),
        mqtt::publish(V5, "frames/b", 1, 3, &[], b"two"),
        mqtt::publish(V5, "frames/c", 1, 4, &[], &[b'3'; 70_000]),
    ]
    .concat();
    let (first, rest) = packets.split_at(packets.len() - 40_000);
    let (second, third) = rest.split_at(1_000);
    let data = |bytes: &[u8], kind, last| Message::Frame(Frame::message(bytes.to_vec(), OpCode::Data(kind), last));
    socket.send(data(first, Data::Binary, true)).expect("it is written");
    socket.send(data(second, Data::Binary, false)).expect("it is written");
    socket.send(Message::Ping(b"are you there".to_vec().into())).expect("it is written");
    socket.send(data(b"", Data::Continue, false)).expect("it is written");
    socket.send(data(third, Data::Continue, true)).expect("it is written");
    let (mut bytes, mut pong) = (Vec::new(), None);
    // SUBACK, three PUBACKs and three messages.
    while mqtt::packets(&bytes).len() < 7 || pong.is_none() {
        match socket.read().expect("a frame") {
            Message::Binary(more) => bytes.extend_from_slice(&more),
            Message::Pong(payload) => pong = Some(payload),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pong.as_deref(), Some(&b"are you there"[..]));
    let mut firsts: Vec<u8> = mqtt::packets(&bytes).iter().map(|packet| packet.first).collect();
    firsts.sort_unstable();
    assert_eq!(firsts, [0x30, 0x30, 0x30, 0x40, 0x40, 0x40, 0x90]);
    // Goodbye is answered with the client's own code.
    let goodbye = CloseFrame { code: CloseCode::Away, reason: "".into() };
    socket.close(Some(goodbye)).expect("it is written");
    assert_eq!(close_code(&mut socket), 1_001);
    node.assert_alive();
}

#[test]
fn an_mqtt_goodbye_closes_the_websocket() {
    let node = House::new().start();
    let mut socket = open(&node);
    socket.send(Message::binary(Connect::new(V3, "leaves").bytes())).expect("it is written");
    assert_eq!(binary(&mut socket), [0x20, 2, 0, 0]);
    socket.send(Message::binary(mqtt::packet(0xE0, &[]))).expect("it is written");
    assert_eq!(close_code(&mut socket), 1_000);
    // And a takeover: MQTT says why, then the WebSocket closes.
    let mut socket = open(&node);
    socket.send(Message::binary(Connect::new(V5, "twice").bytes())).expect("it is written");
    assert_eq!(binary(&mut socket)[0], 0x20);
    let _other = mqtt::Raw::connect(node.mqtt, V5, "twice");
    assert_eq!((binary(&mut socket)[0], close_code(&mut socket)), (0xE0, 1_000));
}

#[test]
fn frames_that_are_not_mqtt_are_refused_by_code() {
    let node = House::new().start();
    let before_the_connect = |frame: &[u8]| {
        let mut socket = open(&node);
        socket.get_mut().write_all(frame).expect("it is written");
        close_code(&mut socket)
    };
    for (frame, code) in [
        // Masked with zeros: a text frame, one that is not masked, one with an extension's bit, a lone continuation.
        (&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i'][..], 1_003),
        (&[0x82, 0x02, 0xC0, 0x00], 1_002),
        (&[0xC2, 0x82, 0, 0, 0, 0, 0xC0, 0x00], 1_002),
        (&[0x80, 0x82, 0, 0, 0, 0, 0xC0, 0x00], 1_002),
    ] {
        assert_eq!(before_the_connect(frame), code, "{frame:?}");
    }
    node.logged(&["refused a CONNECT", "a text frame"]);
    let mut socket = open(&node);
    socket.send(Message::binary(Connect::new(V5, "text").bytes())).expect("it is written");
    assert_eq!(binary(&mut socket)[0], 0x20);
    socket.send(Message::text("hello")).expect("it is written");
    let goodbye = binary(&mut socket);
    assert_eq!((goodbye[0], goodbye[2]), (0xE0, 0x82), "{goodbye:?}");
    assert_eq!(close_code(&mut socket), 1_003);
    node.logged(&["closed", "a text frame", "text"]);
    node.assert_alive();
}

#[test]
fn the_handshake_asks_for_the_subprotocol_and_looks_at_the_origin() {
    let house = House::new().variable("TIDEGATE_MQTT__WS_ORIGINS", "https://dashboards.example");
    let node = house.start();
    let own = format!("http://{}", node.http);
    let ask = |headers: &[(&'static str, &str)]| handshake(node.http, "/mqtt", headers).map(drop).err();
    for (headers, refused) in [
        (&[MQTT][..], None),
        (&[("sec-websocket-protocol", "mqttv3.1, mqtt")], None),
        (&[], Some(400)),
        (&[("sec-websocket-protocol", "mqttv3.1")], Some(400)),
        (&[MQTT, ("origin", own.as_str())], None),
        (&[MQTT, ("origin", "https://dashboards.example")], None),
        (&[MQTT, ("origin", "https://evil.example")], Some(403)),
        (&[MQTT, ("origin", "null")], Some(403)),
    ] {
        assert_eq!(ask(headers), refused, "{headers:?}");
    }
    // The CSRF check does not stand in the way of what is no WebSocket: it is told what this is.
    let response = node.get("/mqtt");
    assert_eq!(response.status, 426);
    assert!(response.text().contains("MQTT over WebSocket"), "{}", response.text());
}

#[test]
fn a_connection_that_has_served_http_becomes_mqtt() {
    let node = House::new().start();
    let mut stream = TcpStream::connect(node.http).expect("the node accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").expect("it is written");
    let mut buffer = [0; 4_096];
    let read = stream.read(&mut buffer).expect("an answer");
    assert!(buffer[..read].ends_with(b"ok"));
    let request = format!("ws://{}/mqtt", node.http).into_client_request().map(|mut request| {
        request.headers_mut().insert(MQTT.0, HeaderValue::from_static(MQTT.1));
        request
    });
    let (mut socket, _) = tungstenite::client(request.expect("a request"), stream).expect("a WebSocket");
    socket.send(Message::binary(Connect::new(V5, "late").bytes())).expect("it is written");
    assert_eq!(binary(&mut socket)[0], 0x20);
}

#[test]
fn doors_for_mqtt_alone_serve_nothing_else() {
    let house = House::new().flags(&["--ws-bind", "127.0.0.1:0"]);
    let node = house.start();
    let answer = http::request(node.door("ws"), "GET", "/metrics", &[], b"");
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("MQTT over WebSocket, at /mqtt"), "{}", answer.text());
    let stranger = raw::send(node.door("ws"), &Connect::new(V5, "plain").bytes());
    assert!(stranger.is_empty());
    node.logged(&["MQTT CONNECT on the HTTP port"]);
}
