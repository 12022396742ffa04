//! One message to the viewers, encoded once: as JSON, with the header of the WebSocket frame in front.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{clock::Millis, ids::DeviceId, state::DeviceState};

/// An encoded message about one device. Cheap to clone: the bytes are shared.
#[derive(Debug, Clone)]
pub struct Update {
    /// The device.
    pub device: DeviceId,
    /// The state's version; 0 for an event, which is never conflated into a state.
    pub version: u64,
    frame: Bytes,
    header: u8,
}

impl Update {
    /// A message of any JSON text about a device.
    #[must_use]
    pub fn new(device: DeviceId, version: u64, json: &[u8]) -> Self {
        let mut frame = BytesMut::with_capacity(json.len() + 10);
        put_header(&mut frame, json.len());
        let header = u8::try_from(frame.len()).unwrap_or(10);
        frame.put_slice(json);
        Self { device, version, frame: frame.freeze(), header }
    }

    /// The whole unmasked WebSocket text frame (RFC 6455 section 5.2): the same bytes for every viewer.
    #[must_use]
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The JSON text alone.
    #[must_use]
    pub fn json(&self) -> Bytes {
        self.frame.slice(usize::from(self.header)..)
    }

    /// Is it an event of a handler, not a state?
    #[must_use]
    pub fn is_event(&self) -> bool {
        self.version == 0
    }
}

/// FIN and opcode text, then the length in its shortest form, no mask.
fn put_header(frame: &mut BytesMut, length: usize) {
    frame.put_u8(0x81);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => frame.put_u8(short),
        (_, Ok(middle)) => {
            frame.put_u8(126);
            frame.put_u16(middle);
        }
        _ => {
            frame.put_u8(127);
            frame.put_u64(length as u64);
        }
    }
}

/// The Device object of the HTTP interface, with or without `"type":"state"` in front.
fn put_device(out: &mut Vec<u8>, state: &DeviceState, connected: bool, typed: bool) {
    use std::io::Write as _;
    out.extend_from_slice(if typed { b"{\"type\":\"state\",\"deviceId\":" } else { b"{\"deviceId\":" });
    put_json_string(out, state.device.as_str());
    out.extend_from_slice(b",\"state\":");
    out.extend_from_slice(&state.state);
    out.extend_from_slice(b",\"deviceTime\":");
    // Writing into a Vec cannot fail.
    let _ = match state.device_time {
        Some(time) => write!(out, "{time}"),
        None => write!(out, "null"),
    };
    let _ =
        write!(out, ",\"receivedTime\":{},\"version\":{},\"connected\":{connected}}}", state.received, state.version);
}

/// A JSON string literal (RFC 8259 section 7).
pub(crate) fn put_json_string(out: &mut Vec<u8>, text: &str) {
    // A str always serializes and a Vec always takes it.
    let _ = serde_json::to_writer(out, text);
}

/// The state message to viewers: `{"type":"state", …Device}`.
#[must_use]
pub fn encode_state(state: &DeviceState, connected: bool) -> Update {
    let mut json = Vec::with_capacity(state.state.len() + 160);
    put_device(&mut json, state, connected, true);
    Update::new(state.device.clone(), state.version, &json)
}

impl DeviceState {
    /// Appends the Device object: `{"deviceId","state","deviceTime","receivedTime","version","connected"}`.
    pub fn put_json(&self, out: &mut Vec<u8>, connected: bool) {
        put_device(out, self, connected, false);
    }
}

/// The event message to viewers: `{"type":"event","deviceId","name","payload","time"}`.
#[must_use]
pub fn encode_event(device: &DeviceId, name: &str, payload: &[u8], time: Millis) -> Update {
    use std::io::Write as _;
    let mut json = Vec::with_capacity(payload.len() + 96);
    json.extend_from_slice(b"{\"type\":\"event\",\"deviceId\":");
    put_json_string(&mut json, device.as_str());
    json.extend_from_slice(b",\"name\":");
    put_json_string(&mut json, name);
    json.extend_from_slice(b",\"payload\":");
    json.extend_from_slice(payload);
    let _ = write!(json, ",\"time\":{time}}}");
    Update::new(device.clone(), 0, &json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Position;

    #[test]
    fn a_state_is_one_frame_and_one_json_value() {
        let device = DeviceId::new("a \"quoted\" pump").unwrap();
        let state = DeviceState {
            state: Bytes::from_static(b"{\"t\":1}"),
            device_time: None,
            received: 5,
            version: 3,
            position: Position(9),
            ..DeviceState::empty(device, 5)
        };
        let update = encode_state(&state, true);
        let json: serde_json::Value = serde_json::from_slice(&update.json()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"type":"state","deviceId":"a \"quoted\" pump","state":{"t":1},"deviceTime":null,
                "receivedTime":5,"version":3,"connected":true})
        );
        assert_eq!(update.frame()[0], 0x81);
    }

    #[test]
    fn frame_headers_take_the_shortest_form() {
        let device = DeviceId::new("d").unwrap();
        for (length, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let update = Update::new(device.clone(), 1, &vec![b'x'; length]);
            assert_eq!(update.frame().len(), length + header, "for {length}");
            assert_eq!(update.json().len(), length);
        }
    }
}
