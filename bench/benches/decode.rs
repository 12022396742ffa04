//! What the edge does to bytes: MQTT packets found and decoded, JSON payloads checked and taken apart.
//!
//! The codec and the ingest are private parts of the node's binary. They are functions of bytes and need nothing else of the
//! node, so they are compiled here from the same files.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use tidegate_actors::limits;

#[path = "../../node/src/ingest/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the node uses the whole, and its tests run there")]
mod ingest;
/// The wire format alone, without connections and sessions.
#[path = "../../node/src/mqtt"]
#[allow(dead_code, unused_imports, reason = "the node uses the whole, and its tests run there")]
mod mqtt {
    pub(crate) mod codec;
    pub(crate) mod connect;
    pub(crate) mod control;
    pub(crate) mod frame;
    pub(crate) mod packet;
    pub(crate) mod properties;
    pub(crate) mod publish;
    pub(crate) mod reason;
    pub(crate) mod topic;
    pub(crate) mod wire;
}
mod setup;

use mqtt::{codec, frame::Framing, packet::Version};

/// Packets of one read buffer.
const PACKETS: usize = 64;
/// Readings of one array body.
const ELEMENTS: usize = 64;

fn main() {
    let mut criterion = setup::criterion();
    packets(&mut criterion);
    payloads(&mut criterion);
    criterion.final_summary();
}

/// A read buffer full of packets, as the connection works through it.
fn packets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode/mqtt");
    let v3 = (0..PACKETS).flat_map(|variant| publish(variant, None, &[])).collect::<Vec<_>>();
    let qos1 = (0..PACKETS).flat_map(|variant| publish(variant, Some(7), &[])).collect::<Vec<_>>();
    // A content type and a message expiry: the properties that clients do send.
    let properties = [0x03, 0, 4, b'j', b's', b'o', b'n', 0x02, 0, 0, 0, 60];
    let v5 = (0..PACKETS).flat_map(|variant| publish_v5(variant, &properties)).collect::<Vec<_>>();
    let pings = [0xC0, 0].repeat(PACKETS);
    let cases = [
        ("publish-qos0", Version::V3, v3),
        ("publish-qos1", Version::V3, qos1),
        ("publish-v5-properties", Version::V5, v5),
        ("pingreq", Version::V3, pings),
    ];
    group.throughput(Throughput::Elements(PACKETS as u64));
    for (name, version, bytes) in cases {
        assert_eq!(decode_all(version, &bytes), PACKETS, "every packet of {name} is decoded");
        group.bench_function(name, |bencher| bencher.iter(|| decode_all(version, black_box(&bytes))));
    }
    group.finish();
}

/// How many packets there are.
fn decode_all(version: Version, mut bytes: &[u8]) -> usize {
    let mut packets = 0;
    while let Framing::Complete(frame) = mqtt::frame::frame(bytes, limits::MQTT_PACKET_BYTES).expect("a frame") {
        black_box(codec::decode(Some(version), &frame, bytes).expect("a packet"));
        bytes = &bytes[frame.total..];
        packets += 1;
    }
    packets
}

/// A PUBLISH of MQTT 3.1.1; with a packet id it has QoS 1.
fn publish(variant: usize, packet_id: Option<u16>, properties: &[u8]) -> Vec<u8> {
    let topic = format!("devices/{}/metrics", setup::device(variant));
    let mut body = u16::try_from(topic.len()).expect("a short topic").to_be_bytes().to_vec();
    body.extend_from_slice(topic.as_bytes());
    body.extend(packet_id.into_iter().flat_map(u16::to_be_bytes));
    body.extend_from_slice(properties);
    body.extend_from_slice(&setup::payload(variant, variant));
    let mut packet = vec![if packet_id.is_some() { 0x32 } else { 0x30 }];
    mqtt::wire::put_varint(&mut packet, body.len());
    packet.extend(body);
    packet
}

/// A PUBLISH of MQTT 5 with fewer than 128 bytes of properties.
fn publish_v5(variant: usize, properties: &[u8]) -> Vec<u8> {
    let length = u8::try_from(properties.len()).expect("few properties");
    let with_length = [&[length], properties].concat();
    publish(variant, None, &with_length)
}

/// From payload bytes to readings.
fn payloads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode/json");
    let plain = setup::payload(1, 1);
    let enveloped = bytes::Bytes::from(setup::http_body("sensor-00001", 1, 1));
    let array = (0..ELEMENTS).map(|n| setup::http_body("sensor-00001", n, n)).collect::<Vec<_>>().join(",");
    let array = bytes::Bytes::from(format!("[{array}]"));
    for (name, body, readings) in [("mqtt-payload", plain, 1), ("http-body", enveloped, 1), ("http-array", array, 64)] {
        group.throughput(Throughput::Elements(readings));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut found = 0;
                ingest::each_reading(black_box(&body), Some(&body), false, |reading| {
                    black_box(reading.expect("a reading"));
                    found += 1;
                })
                .expect("a body");
                assert_eq!(found, readings);
            });
        });
    }
    group.finish();
}
