//! The rules for topic names and filters (section 4.7 and 4.8): what is valid, and what matches what.
//!
//! A topic or filter is checked once, when it enters; whatever is stored or compared later is known to be valid.

use tidegate_actors::limits;

/// Longest topic name or filter, in bytes ([MQTT-4.7.3-3]).
pub(crate) const TOPIC_BYTES: usize = 65_535;
/// What a shared subscription's filter begins with (section 4.8.2).
pub(crate) const SHARE: &str = "$share/";

/// Why a text is not a topic name or not a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TopicError {
    /// No characters at all.
    #[error("it is empty [MQTT-4.7.3-1]")]
    Empty,
    /// More than [`TOPIC_BYTES`].
    #[error("it is longer than {TOPIC_BYTES} bytes [MQTT-4.7.3-3]")]
    TooLong,
    /// U+0000.
    #[error("it contains U+0000 [MQTT-4.7.3-2]")]
    Nul,
    /// `+` or `#` in a name.
    #[error("a topic name may not contain '+' or '#'; those are for filters [MQTT-4.7.0-1]")]
    Wildcard,
    /// `+` beside other characters of its level.
    #[error("'+' must be alone between slashes, as in a/+/b [MQTT-4.7.1-2]")]
    PlusPlacement,
    /// `#` beside other characters of its level, or not at the end.
    #[error("'#' must be alone in the last level, as in a/b/# [MQTT-4.7.1-1]")]
    HashPlacement,
    /// `$share/` without a group or a filter.
    #[error("a shared subscription reads $share/group/filter, its group without '+' and '#' [MQTT-4.8.2-1]")]
    Share,
    /// More levels than we take.
    #[error("it has more than {} levels (limit mqtt_topic_levels)", limits::MQTT_TOPIC_LEVELS)]
    TooManyLevels,
}

/// A valid subscription's filter, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Filter<'a> {
    /// The group of a shared subscription.
    pub(crate) group: Option<&'a str>,
    /// The filter itself, without `$share/{group}/`: what [`matches()`] and the trie take.
    pub(crate) filter: &'a str,
}

/// Checks a topic name.
///
/// # Errors
/// [`TopicError`] says which rule was broken.
#[inline]
pub(crate) fn check_topic_name(name: &str) -> Result<(), TopicError> {
    // This runs for every message: the reason is looked for only when there is one, and a name with fewer bytes than the
    // levels that we take cannot have too many.
    let bytes = name.as_bytes();
    let levels = if bytes.len() < limits::MQTT_TOPIC_LEVELS { 1 } else { 1 + memchr::memchr_iter(b'/', bytes).count() };
    let fits = levels <= limits::MQTT_TOPIC_LEVELS && (1..=TOPIC_BYTES).contains(&bytes.len());
    if fits && memchr::memchr3(b'+', b'#', 0, bytes).is_none() { Ok(()) } else { Err(topic_name_error(name)) }
}

#[cold]
fn topic_name_error(name: &str) -> TopicError {
    match name {
        "" => TopicError::Empty,
        _ if name.len() > TOPIC_BYTES => TopicError::TooLong,
        _ if name.contains('\0') => TopicError::Nul,
        _ if name.contains(['+', '#']) => TopicError::Wildcard,
        _ => TopicError::TooManyLevels,
    }
}

/// Checks a subscription's filter, shared or not, and takes it apart.
///
/// # Errors
/// [`TopicError`] says which rule was broken.
pub(crate) fn check_filter(text: &str) -> Result<Filter<'_>, TopicError> {
    if text.len() > TOPIC_BYTES {
        return Err(TopicError::TooLong);
    }
    if text.contains('\0') {
        return Err(TopicError::Nul);
    }
    let (group, filter) = match text.strip_prefix(SHARE) {
        None => (None, text),
        Some(shared) => {
            let (group, filter) = shared.split_once('/').ok_or(TopicError::Share)?;
            if group.is_empty() || group.contains(['+', '#']) || filter.is_empty() {
                return Err(TopicError::Share);
            }
            (Some(group), filter)
        }
    };
    check_levels(filter)?;
    Ok(Filter { group, filter })
}

/// The group and the filter of a shared subscription that [`check_filter`] has seen.
pub(crate) fn split_share(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix(SHARE)?.split_once('/')
}

fn check_levels(filter: &str) -> Result<(), TopicError> {
    if filter.is_empty() {
        return Err(TopicError::Empty);
    }
    let mut levels = filter.split('/').enumerate().peekable();
    while let Some((index, level)) = levels.next() {
        if index == limits::MQTT_TOPIC_LEVELS {
            return Err(TopicError::TooManyLevels);
        }
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(TopicError::HashPlacement);
        }
        if level.contains('+') && level != "+" {
            return Err(TopicError::PlusPlacement);
        }
    }
    Ok(())
}

/// Whether a valid filter (without `$share/…`) matches a valid topic name. Wildcards do not match a first level that
/// begins with `$` ([MQTT-4.7.2-1]); `a/#` matches `a` as well.
pub(crate) fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        if wanted == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if wanted == "+" || wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names() {
        for good in ["a", "/", "//", "a/b", "/a", "a/", "$SYS/x", "Gerät 5/Ä", "\u{FFFE}", &"x".repeat(TOPIC_BYTES)] {
            assert_eq!(check_topic_name(good), Ok(()), "{good:.20}");
        }
        assert_eq!(check_topic_name(&"a/".repeat(127)), Ok(()), "128 levels");
        let cases = [
            ("", TopicError::Empty),
            ("a\0b", TopicError::Nul),
            ("a/+", TopicError::Wildcard),
            ("a#", TopicError::Wildcard),
            (&"a/".repeat(128), TopicError::TooManyLevels),
            (&"x".repeat(TOPIC_BYTES + 1), TopicError::TooLong),
        ];
        for (name, error) in cases {
            assert_eq!(check_topic_name(name), Err(error), "{name:.20}");
        }
    }

    #[test]
    fn filters() {
        let plain =
            ["#", "+", "/", "+/+", "/+", "a/#", "a/+/b", "+/a/#", "$SYS/#", "$share", "$shares/a", "a//b", "//#"];
        for good in plain {
            assert_eq!(check_filter(good), Ok(Filter { group: None, filter: good }));
        }
        for (text, group, filter) in
            [("$share/g/a", "g", "a"), ("$share/g/#", "g", "#"), ("$share/g//", "g", "/"), ("$share/g/+/x", "g", "+/x")]
        {
            assert_eq!(check_filter(text), Ok(Filter { group: Some(group), filter }));
        }
        let cases = [
            ("", TopicError::Empty),
            ("a\0", TopicError::Nul),
            ("a#", TopicError::HashPlacement),
            ("#/a", TopicError::HashPlacement),
            ("a/#/b", TopicError::HashPlacement),
            ("##", TopicError::HashPlacement),
            ("#/", TopicError::HashPlacement),
            ("a+", TopicError::PlusPlacement),
            ("a/b+/c", TopicError::PlusPlacement),
            ("++", TopicError::PlusPlacement),
            ("$share/", TopicError::Share),
            ("$share/g", TopicError::Share),
            ("$share/g/", TopicError::Share),
            ("$share//a", TopicError::Share),
            ("$share/+/a", TopicError::Share),
            ("$share/g#/a", TopicError::Share),
            ("$share/g/a#", TopicError::HashPlacement),
            (&"a/".repeat(128), TopicError::TooManyLevels),
            (&"x".repeat(TOPIC_BYTES + 1), TopicError::TooLong),
        ];
        for (filter, error) in cases {
            assert_eq!(check_filter(filter), Err(error), "{filter:.20}");
        }
    }

    /// The examples of section 4.7, and the corners.
    #[test]
    fn matching() {
        let cases = [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "a/b", true),
            ("#", "/", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/", true),
            ("$SYS/#", "$SYS", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("+/$x", "a/$x", true),
            ("a/#", "a/$x", true),
            ("ACCOUNTS", "Accounts", false),
            ("a", "/a", false),
            ("a/b", "a/b/", false),
            ("a/b/", "a/b", false),
            ("a/+/+", "a//", true),
            ("+/#", "a", true),
            ("+/+/#", "a", false),
        ];
        for (filter, topic, expected) in cases {
            assert_eq!(matches(filter, topic), expected, "{filter} on {topic}");
        }
    }
}
