//! Every packet that a client may send, written and read back: both versions, any values.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{Outcome, Packet, ReasonCode, Version, client, outcome, text};
use crate::mqtt::packet::{
    Ack, Auth, Connect, Disconnect, Publish, QoS, RetainHandling, Subscribe, SubscribeFilter, Unsubscribe, Will,
};

fn version() -> impl Strategy<Value = Version> {
    select(vec![Version::V3, Version::V5])
}

fn id() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_filter_map("0", NonZeroU16::new)
}

fn qos() -> impl Strategy<Value = QoS> {
    select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

/// Any text that MQTT has: all but U+0000.
fn any_text() -> impl Strategy<Value = String> {
    "[^\\x00]{0,40}"
}

fn binary() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn topic() -> impl Strategy<Value = String> {
    prop_oneof![9 => "[^\\x00+#]{1,40}", 1 => "[a/]{1,255}"]
        .prop_filter("too many levels", |topic| topic.split('/').count() <= 128)
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![4 => "[^\\x00+#/]{0,8}", 1 => Just("+".to_owned())];
    let share = option::weighted(0.2, "[^\\x00+#/]{1,8}");
    (share, vec(level, 1..12), any::<bool>()).prop_filter_map("it is empty", |(group, levels, hash)| {
        let plain = levels.join("/") + if hash { "/#" } else { "" };
        match group {
            _ if plain.is_empty() => None,
            // What looks like a shared subscription must be one.
            None if plain.starts_with("$share/") => None,
            None => Some(plain),
            Some(group) => Some(format!("$share/{group}/{plain}")),
        }
    })
}

/// Properties of a message, as on the wire: some of all that a client may give it.
fn message_properties(with_alias: bool) -> impl Strategy<Value = Vec<u8>> {
    let string = |id: u8, value: &[u8]| [&[id], &(value.len() as u16).to_be_bytes()[..], value].concat();
    let parts = (
        option::of(any::<bool>()),
        option::of(any::<u32>()),
        option::of(any_text()),
        option::of(topic()),
        option::of(binary()),
        option::of(id()),
        vec((any_text(), any_text()), 0..5),
    );
    parts.prop_map(move |(is_text, expiry, content, response, correlation, alias, users)| {
        let mut all = Vec::new();
        all.extend(is_text.map(|is_text| vec![0x01, u8::from(is_text)]));
        all.extend(expiry.map(|seconds| [&[0x02], &seconds.to_be_bytes()[..]].concat()));
        all.extend(content.map(|content| string(0x03, content.as_bytes())));
        all.extend(response.map(|response| string(0x08, response.as_bytes())));
        all.extend(correlation.map(|data| string(0x09, &data)));
        if with_alias {
            all.extend(alias.map(|alias| [&[0x23], &alias.get().to_be_bytes()[..]].concat()));
        }
        all.extend(users.iter().map(|(name, value)| [string(0x26, name.as_bytes()), text(value)].concat()));
        all.concat()
    })
}

fn will() -> impl Strategy<Value = Will> {
    (topic(), binary(), qos(), any::<bool>(), any::<u32>(), message_properties(false)).prop_map(
        |(topic, payload, qos, retain, delay, properties)| Will { topic, payload, qos, retain, delay, properties },
    )
}

fn connect() -> impl Strategy<Value = Packet<'static>> {
    let of_both = (version(), any_text(), any::<bool>(), any::<u16>());
    let identity = (option::of(any_text()), option::of(binary()), option::of(will()));
    let limits = (any::<u32>(), id(), option::of(1..=u32::MAX), any::<u16>(), any::<bool>(), any::<bool>());
    let rest = (option::of((any_text(), option::of(binary()))), vec((any_text(), any_text()), 0..5));
    (of_both, identity, limits, rest).prop_map(|(of_both, identity, limits, (auth, user_properties))| {
        let (version, client_id, clean_start, keep_alive) = of_both;
        let (username, password, will) = identity;
        let (session_expiry, receive_maximum, packet, topic_alias_maximum, problem, response) = limits;
        let (auth_method, auth_data) = auth.map_or((None, None), |(method, data)| (Some(method), data));
        let mut connect = Connect {
            version,
            client_id,
            clean_start,
            keep_alive,
            username,
            password,
            will,
            session_expiry,
            receive_maximum,
            maximum_packet_size: packet.and_then(NonZeroU32::new),
            topic_alias_maximum,
            request_problem_info: problem,
            request_response_info: response,
            auth_method,
            auth_data,
            user_properties,
        };
        if version == Version::V3 {
            as_3_1_1(&mut connect);
        }
        Packet::Connect(Box::new(connect))
    })
}

/// Takes away what a CONNECT of 3.1.1 cannot say.
fn as_3_1_1(connect: &mut Connect) {
    connect.session_expiry = if connect.clean_start { 0 } else { u32::MAX };
    if connect.client_id.is_empty() && !connect.clean_start {
        connect.client_id.push('c');
    }
    if connect.username.is_none() {
        connect.password = None;
    }
    if let Some(will) = &mut connect.will {
        (will.delay, will.properties) = (0, Vec::new());
    }
    *connect = Connect {
        receive_maximum: NonZeroU16::MAX,
        maximum_packet_size: None,
        topic_alias_maximum: 0,
        request_problem_info: true,
        request_response_info: false,
        auth_method: None,
        auth_data: None,
        user_properties: Vec::new(),
        ..connect.clone()
    };
}

fn subscribe() -> impl Strategy<Value = (Version, Packet<'static>)> {
    let handling = select(vec![RetainHandling::Always, RetainHandling::IfNew, RetainHandling::Never]);
    let one = (filter(), qos(), any::<bool>(), any::<bool>(), handling).prop_map(
        |(filter, qos, no_local, retain_as_published, retain_handling)| {
            let no_local = no_local && !filter.starts_with("$share/");
            SubscribeFilter { filter, qos, no_local, retain_as_published, retain_handling }
        },
    );
    (version(), id(), option::of(1..=268_435_455_u32), vec(one, 1..20)).prop_map(
        |(version, packet_id, subscription_id, mut filters)| {
            if version == Version::V3 {
                for one in &mut filters {
                    (one.no_local, one.retain_as_published) = (false, false);
                    one.retain_handling = RetainHandling::Always;
                }
            }
            let subscription_id = subscription_id.filter(|_| version == Version::V5).and_then(NonZeroU32::new);
            (version, Packet::Subscribe(Subscribe { packet_id, subscription_id, filters }))
        },
    )
}

fn small() -> impl Strategy<Value = (Version, Packet<'static>)> {
    let to_publish = select(vec![0x00_u8, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]);
    let to_release = select(vec![0x00_u8, 0x92]);
    let ends = select(vec![0x00_u8, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99]);
    let parts = (to_publish, to_release, ends, option::of(any::<u32>()), vec(filter(), 1..20));
    let auth = (select(vec![0x18_u8, 0x19]), any_text(), option::of(binary()));
    (version(), 0..8_u8, id(), parts, auth).prop_map(|(version, which, packet_id, parts, auth)| {
        let (to_publish, to_release, ends, session_expiry, filters) = parts;
        let v5 = version == Version::V5;
        let reason = |code| ReasonCode(if v5 { code } else { 0 });
        let packet = match which {
            0 => Packet::Puback(Ack { packet_id, reason: reason(to_publish) }),
            1 => Packet::Pubrec(Ack { packet_id, reason: reason(to_publish) }),
            2 => Packet::Pubrel(Ack { packet_id, reason: reason(to_release) }),
            3 => Packet::Pubcomp(Ack { packet_id, reason: reason(to_release) }),
            4 => Packet::Unsubscribe(Unsubscribe { packet_id, filters }),
            5 => Packet::Disconnect(Disconnect { reason: reason(ends), session_expiry: session_expiry.filter(|_| v5) }),
            6 if v5 => Packet::Auth(Auth { reason: ReasonCode(auth.0), method: auth.1, data: auth.2 }),
            _ => Packet::Pingreq,
        };
        (version, packet)
    })
}

#[track_caller]
fn comes_back(version: Version, packet: &Packet<'_>) {
    let asked = if matches!(packet, Packet::Connect(_)) { None } else { Some(version) };
    let bytes = client::write(packet, version);
    assert_eq!(outcome(asked, &bytes), Outcome::Packet(packet.clone()), "{version:?} {bytes:02X?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn connects_come_back(connect in connect()) {
        comes_back(Version::V5, &connect);
    }

    #[test]
    fn publishes_come_back(
        version in version(), dup in any::<bool>(), qos in qos(), retain in any::<bool>(), topic in topic(),
        packet_id in id(), properties in message_properties(true), payload in vec(any::<u8>(), 0..2_000),
    ) {
        let message = Publish {
            dup: dup && qos != QoS::AtMostOnce, qos, retain, topic: &topic,
            packet_id: (qos != QoS::AtMostOnce).then_some(packet_id),
            properties: if version == Version::V5 { &properties } else { &[] }, payload: &payload,
        };
        comes_back(version, &Packet::Publish(message));
    }

    #[test]
    fn subscribes_come_back((version, packet) in subscribe()) {
        comes_back(version, &packet);
    }

    #[test]
    fn acknowledgements_and_the_rest_come_back((version, packet) in small()) {
        comes_back(version, &packet);
    }
}
