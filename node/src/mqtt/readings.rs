//! A PUBLISH that carries readings: from its payload to the device's actor, and the runtime's answer back into a PUBACK or PUBREC.
//!
//! What it wishes stands in MQTT 5's user properties: `ack` (the level at which the PUBACK goes out) and `idempotency-key`.
//! Here it is also decided what each refusal and each outcome is called in a PUBACK; the order of PUBACKs is the [`Link`]'s.

use std::{borrow::Cow, num::NonZeroU16};

use smallvec::SmallVec;
use tidegate_actors::{
    idempotency::Idempotency,
    ids::DeviceId,
    ledger::RejectReason,
    reading::{AckLevel, Channel, Reading},
    submission::{Ack, Answer, Disposition, Submission},
};

use super::{
    connections::Link,
    packet::{Publish, QoS, Version},
    reason::ReasonCode,
};
use crate::{
    edge::EdgeLoop,
    ingest::{
        IdempotencyKey, IngestError, Parsed, RequestHash, ack_level, each_reading, key_reused, outcome,
        refused_at_limit,
    },
};

/// Hands the readings of a PUBLISH to their device: the one that its topic names, or else the one whose connection it is.
/// `origin` names the message if it has QoS 2 and its session is stored, else it is 0.
pub(super) fn take(
    edge: &EdgeLoop,
    link: &Link,
    publish: &Publish<'_>,
    devices: (Option<&str>, Option<&DeviceId>),
    channel: Channel,
    origin: u64,
) {
    let device = named(devices);
    let taken = device
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|device| try_take(edge, link, publish, device, (channel, origin)));
    if let Err((error, code)) = taken {
        edge.handle.reject(error.reason, device.ok().as_ref().map(DeviceId::as_str));
        log_refusal(link, publish.topic, &error);
        link.answer(publish.packet_id, code, &words(&error));
    }
}

/// A PUBLISH that is refused as a whole: why, and the PUBACK's code. MQTT 3.1.1 has no word for it: the reading is counted and
/// logged, and acknowledged, or the device would send the same bad bytes for ever.
type Refused = (IngestError, ReasonCode);

fn try_take(
    edge: &EdgeLoop,
    link: &Link,
    publish: &Publish<'_>,
    device: &DeviceId,
    (channel, origin): (Channel, u64),
) -> Result<(), Refused> {
    let level = level(edge, publish)?;
    let key = idempotency_key(publish)?;
    let received = edge.handle.services().clock.now();
    let mut readings = SmallVec::<[Reading; 1]>::new();
    let mut refused = Vec::new();
    let mut add = |parsed: Result<Parsed, IngestError>| match parsed
        .and_then(|parsed| reading_of(device.clone(), channel, received, parsed))
    {
        Ok(mut reading) => {
            let index = u32::try_from(readings.len()).unwrap_or(u32::MAX);
            let request = key.as_ref().map(|(_, request)| *request).or_else(|| exactly_once(origin));
            reading.idempotency = request.map(|request| Idempotency { request, index });
            readings.push(reading);
        }
        Err(error) => {
            edge.handle.reject(error.reason, Some(device.as_str()));
            refused.push(error);
        }
    };
    each_reading(publish.payload, None, channel == Channel::Telemetry, &mut add).map_err(coded)?;
    if let Some(first) = refused.first() {
        log_refusal(link, publish.topic, first);
        if let Some(packet_id) = publish.packet_id {
            let text = match refused.len() + readings.len() {
                1 => words(first),
                all => format!("{} of {all} readings refused, the first: {}", refused.len(), words(first)).into(),
            };
            link.remark(packet_id, &text);
        }
    }
    let Some(last) = readings.pop() else {
        let code = if refused.is_empty() { ReasonCode::SUCCESS } else { ReasonCode::PAYLOAD_FORMAT_INVALID };
        link.answer(publish.packet_id, code, "");
        return Ok(());
    };
    if let Some((key, request)) = &key
        && edge.shared.keys.remember(device.as_str(), key, *request).is_err()
    {
        let device = Some(device.as_str());
        readings.iter().for_each(|_| edge.handle.reject(RejectReason::IdempotencyKeyReused, device));
        return Err((key_reused("idempotency-key"), ReasonCode::IMPLEMENTATION_SPECIFIC_ERROR));
    }
    for reading in readings {
        edge.handle.submit(Submission { reading, level: AckLevel::Received, ack: None });
    }
    // Readings of one device are committed and folded in order, so the last one's answer speaks for all.
    let waits = publish.packet_id.filter(|_| level != AckLevel::Received);
    let ack = waits.map(|id| edge.ack_to_connection(link.key, id.get()));
    edge.handle.submit(Submission { reading: last, level, ack });
    if waits.is_none() && publish.packet_id.is_some() {
        link.answer(publish.packet_id, ReasonCode::SUCCESS, "");
    }
    Ok(())
}

fn named(devices: (Option<&str>, Option<&DeviceId>)) -> Result<DeviceId, Refused> {
    let bad = |detail: String| coded(IngestError::new(RejectReason::BadDeviceId, detail));
    match devices {
        (Some(named), Some(own)) if named == own.as_str() => Ok(own.clone()),
        (Some(named), _) => DeviceId::new(named).map_err(|error| bad(format!("the topic's device: {error}"))),
        (None, Some(own)) => Ok(own.clone()),
        (None, None) => Err(bad("\"me\" is the client id, and this client id cannot be a device id".to_owned())),
    }
}

/// The ack level of a PUBLISH: MQTT 5's user property `ack`, or the listener's default. With QoS 0 there is nothing to answer;
/// a property that names no level is refused all the same.
fn level(edge: &EdgeLoop, publish: &Publish<'_>) -> Result<AckLevel, Refused> {
    let wished = publish.user_property("ack").map(ack_level).transpose();
    let wished = wished.map_err(|detail| {
        let detail = format!("user property {detail}");
        coded(IngestError::new(RejectReason::BadShape, detail).field("ack"))
    })?;
    Ok(if publish.qos == QoS::AtMostOnce {
        AckLevel::Received
    } else {
        wished.unwrap_or(edge.shared.settings.mqtt_default_ack)
    })
}

/// The key of MQTT 5's user property `idempotency-key`, and the request that it makes of the payload.
fn idempotency_key(publish: &Publish<'_>) -> Result<Option<(IdempotencyKey, RequestHash)>, Refused> {
    let Some(sent) = publish.user_property("idempotency-key") else { return Ok(None) };
    match IdempotencyKey::parse(sent.as_bytes()) {
        Ok(key) => {
            let request = key.request(publish.payload);
            Ok(Some((key, request)))
        }
        Err(error) => {
            let detail = format!("user property idempotency-key: {error}");
            Err(coded(IngestError::new(RejectReason::BadShape, detail).field("idempotency-key")))
        }
    }
}

/// The request that a message with QoS 2 is, by its name: sent again after a crash, it is not a second reading.
fn exactly_once(origin: u64) -> Option<RequestHash> {
    let mut request = *b"mqttqos2\0\0\0\0\0\0\0\0";
    request[8..].copy_from_slice(&origin.to_be_bytes());
    (origin != 0).then_some(request)
}

fn reading_of(device: DeviceId, channel: Channel, received: i64, parsed: Parsed) -> Result<Reading, IngestError> {
    if let Some(id) = parsed.device_id.filter(|id| id != device.as_str()) {
        // As long as the reading may be; whoever wrote it knows it by its beginning.
        let id = &id[..id.floor_char_boundary(tidegate_actors::limits::DEVICE_ID_BYTES)];
        let detail = format!("deviceId {id:?} in the payload, but the topic names {device}");
        return Err(IngestError::new(RejectReason::BadDeviceId, detail).field("deviceId"));
    }
    Ok(Reading::new(device, channel, parsed.ts, received, parsed.fields))
}

/// The PUBACK's code of a refusal.
fn coded(error: IngestError) -> Refused {
    let code = match error.reason {
        RejectReason::BadDeviceId => ReasonCode::TOPIC_NAME_INVALID,
        RejectReason::TooLarge | RejectReason::TooDeep => ReasonCode::QUOTA_EXCEEDED,
        _ => ReasonCode::PAYLOAD_FORMAT_INVALID,
    };
    (error, code)
}

/// What a PUBACK says of a refusal: the sentence, and the limit where there is one.
fn words(error: &IngestError) -> Cow<'_, str> {
    match error.limit {
        Some((name, value)) => format!("{error} (limit {name}: {value})").into(),
        None => Cow::Borrowed(&error.detail),
    }
}

fn log_refusal(link: &Link, topic: &str, error: &IngestError) {
    let (reason, offset, limit) = (error.reason.name(), error.offset, error.limit.map(|(name, _)| name));
    tracing::warn!(client = %link.client_id, topic, reason, offset, limit, "refused a reading: {error}");
}

/// The runtime's answer to a QoS 1 PUBLISH. The node has the reading, whatever became of it: the code is a success, and the
/// words say what else there is to say.
pub(crate) fn on_ack(edge: &EdgeLoop, ack: &Ack) {
    let mut connections = edge.connections.borrow_mut();
    let Some(link) = connections.get(ack.to.key) else { return };
    let packet_id = u16::try_from(ack.to.item).ok().and_then(NonZeroU16::new);
    match ack.answer {
        Answer::Committed | Answer::Processed(Disposition::Kept) => link.answer(packet_id, ReasonCode::SUCCESS, ""),
        Answer::Processed(disposition) => link.answer(packet_id, ReasonCode::SUCCESS, &outcome(disposition)),
        Answer::Refused(reason) if link.peer.version == Version::V5 => {
            tracing::warn!(client = %link.client_id, reason = reason.name(), "refused a reading");
            link.answer(
                packet_id,
                ReasonCode::QUOTA_EXCEEDED,
                &words(&refused_at_limit(reason, edge.shared.settings.memory_limit)),
            );
        }
        // 3.1.1 cannot say "later": the connection is closed, and the client sends it again.
        Answer::Refused(reason) => {
            link.close(ReasonCode::QUOTA_EXCEEDED, format!("refused a reading: limit {}", reason.name()));
        }
    }
    connections.mark_dirty(&link);
}
