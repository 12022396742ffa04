//! Who and what there is, by number: client ids, topics and payloads.

/// Retained topics that one filter matches.
pub(crate) const GROUP: usize = 1_000;

/// What a retained message takes of the node's limit, at most: its topic, its payload, and 48 bytes.
pub(crate) const RETAINED_BYTES: usize = 128;

/// The client id of a session.
pub(crate) fn client(number: usize) -> String {
    format!("stored-{number:07}")
}

/// What a session has subscribed to, and the topic of what waits in it.
pub(crate) fn inbox(number: usize) -> String {
    format!("stored/{number:07}/in")
}

/// What waits in a session.
pub(crate) fn queued(number: usize) -> String {
    payload("queued", number)
}

/// The topic of a retained message.
pub(crate) fn retained_topic(number: usize) -> String {
    format!("retained/{:04}/{:03}", number / GROUP, number % GROUP)
}

/// The filter that matches [`GROUP`] of them.
pub(crate) fn group_filter(group: usize) -> String {
    format!("retained/{group:04}/+")
}

/// The number of the retained message of a topic, if it is the topic of one.
pub(crate) fn retained_number(topic: &[u8]) -> Option<usize> {
    let rest = std::str::from_utf8(topic).ok()?.strip_prefix("retained/")?;
    let (group, item) = rest.split_once('/')?;
    let number = group.parse::<usize>().ok()?.checked_mul(GROUP)? + item.parse::<usize>().ok()?;
    (retained_topic(number).as_bytes() == topic).then_some(number)
}

/// A retained message.
pub(crate) fn retained(number: usize) -> String {
    payload("retained", number)
}

/// The number, and a mark that no other number has: a payload in the wrong place is seen.
fn payload(kind: &str, number: usize) -> String {
    format!(r#"{{"{kind}":{number},"mark":"{:016x}"}}"#, mark(number as u64))
}

/// The step of `SplitMix64`.
fn mark(number: u64) -> u64 {
    let mut mark = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mark = (mark ^ (mark >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mark = (mark ^ (mark >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mark ^ (mark >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_has_its_number_back() {
        for number in [0, 1, 999, 1_000, 999_999, 12_345_678] {
            assert_eq!(retained_number(retained_topic(number).as_bytes()), Some(number));
        }
        for other in
            ["retained/0001", "retained/1/001", "retained/0001/1000", "stored/0000001/in", "retained/0001/001/x"]
        {
            assert_eq!(retained_number(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_filter_matches_the_topics_of_its_group() {
        let filter = group_filter(17);
        let prefix = filter.strip_suffix('+').expect("a wildcard");
        let in_group = |number: usize| retained_topic(number).starts_with(prefix);
        assert!((17_000..18_000).all(in_group));
        assert!(!in_group(16_999) && !in_group(18_000));
    }

    #[test]
    fn payloads_differ_and_are_small() {
        assert_ne!(queued(1), retained(1));
        assert_ne!(retained(1)[14..], retained(2)[14..]);
        assert!(retained_topic(99_999_999).len() + retained(99_999_999).len() + 48 <= RETAINED_BYTES);
    }
}
