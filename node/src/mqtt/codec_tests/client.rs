//! What a client writes: the packets of `packet`, as bytes. The node only reads them; this is the other half, for round trips.
//!
//! The fuzz targets include this file, so it uses nothing but the wire format.

use super::super::{
    packet::{Ack, Auth, Connect, Disconnect, Packet, Publish, RetainHandling, Subscribe, Unsubscribe, Version, Will},
    reason::ReasonCode,
    wire::{put_binary, put_varint},
};

/// The packet's bytes. What MQTT 3.1.1 cannot say is left out for it.
pub(crate) fn write(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let (first, body) = match packet {
        Packet::Connect(connect) => (0x10, connect_body(connect)),
        Packet::Publish(message) => (publish_first(message), publish_body(message, version)),
        Packet::Puback(ack) => (0x40, ack_body(ack, version)),
        Packet::Pubrec(ack) => (0x50, ack_body(ack, version)),
        Packet::Pubrel(ack) => (0x62, ack_body(ack, version)),
        Packet::Pubcomp(ack) => (0x70, ack_body(ack, version)),
        Packet::Subscribe(subscribe) => (0x82, subscribe_body(subscribe, version)),
        Packet::Unsubscribe(unsubscribe) => (0xA2, unsubscribe_body(unsubscribe, version)),
        Packet::Pingreq => (0xC0, Vec::new()),
        Packet::Disconnect(disconnect) => (0xE0, disconnect_body(disconnect, version)),
        Packet::Auth(auth) => (0xF0, auth_body(auth)),
    };
    let mut bytes = vec![first];
    put_varint(&mut bytes, body.len());
    bytes.extend(body);
    bytes
}

fn connect_body(connect: &Connect) -> Vec<u8> {
    let level = if connect.version == Version::V5 { 5 } else { 4 };
    let mut flags = u8::from(connect.clean_start) << 1;
    if let Some(will) = &connect.will {
        flags |= 0x04 | (will.qos as u8) << 3 | u8::from(will.retain) << 5;
    }
    flags |= u8::from(connect.password.is_some()) << 6 | u8::from(connect.username.is_some()) << 7;
    let mut body = b"\0\x04MQTT".to_vec();
    body.extend_from_slice(&[level, flags]);
    body.extend_from_slice(&connect.keep_alive.to_be_bytes());
    if connect.version == Version::V5 {
        put_counted(&mut body, &connect_properties(connect));
    }
    put_binary(&mut body, connect.client_id.as_bytes());
    if let Some(will) = &connect.will {
        put_will(&mut body, will, connect.version);
    }
    if let Some(name) = &connect.username {
        put_binary(&mut body, name.as_bytes());
    }
    if let Some(password) = &connect.password {
        put_binary(&mut body, password);
    }
    body
}

/// Every property that is not its default.
fn connect_properties(connect: &Connect) -> Vec<u8> {
    let mut out = Vec::new();
    if connect.session_expiry > 0 {
        put_number(&mut out, 0x11, &connect.session_expiry.to_be_bytes());
    }
    if connect.receive_maximum.get() < u16::MAX {
        put_number(&mut out, 0x21, &connect.receive_maximum.get().to_be_bytes());
    }
    if let Some(size) = connect.maximum_packet_size {
        put_number(&mut out, 0x27, &size.get().to_be_bytes());
    }
    if connect.topic_alias_maximum > 0 {
        put_number(&mut out, 0x22, &connect.topic_alias_maximum.to_be_bytes());
    }
    if connect.request_response_info {
        put_number(&mut out, 0x19, &[1]);
    }
    if !connect.request_problem_info {
        put_number(&mut out, 0x17, &[0]);
    }
    if let Some(method) = &connect.auth_method {
        put_text(&mut out, 0x15, method.as_bytes());
    }
    if let Some(data) = &connect.auth_data {
        put_text(&mut out, 0x16, data);
    }
    for (name, value) in &connect.user_properties {
        put_text(&mut out, 0x26, name.as_bytes());
        put_binary(&mut out, value.as_bytes());
    }
    out
}

fn put_will(body: &mut Vec<u8>, will: &Will, version: Version) {
    if version == Version::V5 {
        let mut properties = Vec::new();
        if will.delay > 0 {
            put_number(&mut properties, 0x18, &will.delay.to_be_bytes());
        }
        properties.extend_from_slice(&will.properties);
        put_counted(body, &properties);
    }
    put_binary(body, will.topic.as_bytes());
    put_binary(body, &will.payload);
}

fn publish_first(message: &Publish<'_>) -> u8 {
    0x30 | u8::from(message.dup) << 3 | (message.qos as u8) << 1 | u8::from(message.retain)
}

fn publish_body(message: &Publish<'_>, version: Version) -> Vec<u8> {
    let mut body = Vec::new();
    put_binary(&mut body, message.topic.as_bytes());
    if let Some(packet_id) = message.packet_id {
        body.extend_from_slice(&packet_id.get().to_be_bytes());
    }
    if version == Version::V5 {
        put_counted(&mut body, message.properties);
    }
    body.extend_from_slice(message.payload);
    body
}

fn ack_body(ack: &Ack, version: Version) -> Vec<u8> {
    let mut body = ack.packet_id.get().to_be_bytes().to_vec();
    if version == Version::V5 && ack.reason != ReasonCode::SUCCESS {
        body.push(ack.reason.0);
    }
    body
}

fn subscribe_body(subscribe: &Subscribe, version: Version) -> Vec<u8> {
    let mut body = subscribe.packet_id.get().to_be_bytes().to_vec();
    if version == Version::V5 {
        let mut properties = Vec::new();
        if let Some(id) = subscribe.subscription_id {
            properties.push(0x0B);
            put_varint(&mut properties, id.get() as usize);
        }
        put_counted(&mut body, &properties);
    }
    for one in &subscribe.filters {
        put_binary(&mut body, one.filter.as_bytes());
        let handling = match one.retain_handling {
            RetainHandling::Always => 0,
            RetainHandling::IfNew => 1,
            RetainHandling::Never => 2,
        };
        let flags = u8::from(one.no_local) << 2 | u8::from(one.retain_as_published) << 3;
        body.push(one.qos as u8 | flags | handling << 4);
    }
    body
}

fn unsubscribe_body(unsubscribe: &Unsubscribe, version: Version) -> Vec<u8> {
    let mut body = unsubscribe.packet_id.get().to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    for filter in &unsubscribe.filters {
        put_binary(&mut body, filter.as_bytes());
    }
    body
}

fn disconnect_body(disconnect: &Disconnect, version: Version) -> Vec<u8> {
    let mut body = Vec::new();
    if version == Version::V5 && *disconnect != (Disconnect { reason: ReasonCode::SUCCESS, session_expiry: None }) {
        body.push(disconnect.reason.0);
        if let Some(seconds) = disconnect.session_expiry {
            let mut properties = Vec::new();
            put_number(&mut properties, 0x11, &seconds.to_be_bytes());
            put_counted(&mut body, &properties);
        }
    }
    body
}

fn auth_body(auth: &Auth) -> Vec<u8> {
    let mut properties = Vec::new();
    put_text(&mut properties, 0x15, auth.method.as_bytes());
    if let Some(data) = &auth.data {
        put_text(&mut properties, 0x16, data);
    }
    let mut body = vec![auth.reason.0];
    put_counted(&mut body, &properties);
    body
}

fn put_counted(out: &mut Vec<u8>, properties: &[u8]) {
    put_varint(out, properties.len());
    out.extend_from_slice(properties);
}

fn put_number(out: &mut Vec<u8>, id: u8, value: &[u8]) {
    out.push(id);
    out.extend_from_slice(value);
}

fn put_text(out: &mut Vec<u8>, id: u8, text: &[u8]) {
    out.push(id);
    put_binary(out, text);
}
