//! Topic filters as sets of topics: which topics one matches, which filters it covers, which it meets. Pure; no allocation.

/// Does the filter match the topic name? ([MQTT-4.7]; wildcards do not match a first level that begins with `$`.)
pub(super) fn matches(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    let mut first = true;
    loop {
        let spared = first && topic.clone().next().is_some_and(|level| level.starts_with('$'));
        match (filter.next(), topic.next()) {
            (Some("#"), _) => return !spared,
            (Some("+"), Some(_)) if !spared => {}
            (Some(level), Some(name)) if level == name => {}
            (None, None) => return true,
            _ => return false,
        }
        first = false;
    }
}

/// Does `rule` match every topic that `filter` matches?
pub(super) fn covers(rule: &str, filter: &str) -> bool {
    let (mut rule, mut filter) = (rule.split('/'), filter.split('/'));
    let mut first = true;
    loop {
        let spared = first && filter.clone().next().is_some_and(|level| level.starts_with('$'));
        match (rule.next(), filter.next()) {
            (Some("#"), _) => return !spared,
            (Some("+"), Some(level)) if level != "#" && !spared => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            (None, None) => return true,
            _ => return false,
        }
        first = false;
    }
}

/// Is there a topic that both filters match?
pub(super) fn meet(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('/'), other.split('/'));
    let mut first = true;
    loop {
        let (a, b) = (one.next(), other.next());
        let spared = first && [a, b].iter().flatten().any(|level| level.starts_with('$'));
        match (a, b) {
            (Some("#"), _) | (_, Some("#")) => return !spared,
            (Some("+"), Some(_)) | (Some(_), Some("+")) if !spared => {}
            (Some(a), Some(b)) if a == b => {}
            (None, None) => return true,
            _ => return false,
        }
        first = false;
    }
}

/// The filter inside a shared subscription, or the filter itself.
pub(super) fn unshared(filter: &str) -> &str {
    filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')).map_or(filter, |(_, filter)| filter)
}

/// Can the filter match more than one topic?
pub(super) fn is_wild(filter: &str) -> bool {
    filter.split('/').any(|level| matches!(level, "+" | "#"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics() {
        for (filter, topic, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/+", "a/b", true),
            ("a/+", "a", false),
            ("a/+", "a/", true),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/#", "ab", false),
            ("#", "a/b", true),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/#", "$SYSx", false),
            ("+", "", true),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }

    #[test]
    fn filters() {
        for (rule, filter, covered, met) in [
            ("devices/d1/#", "devices/d1/#", true, true),
            ("devices/d1/#", "devices/d1/+/x", true, true),
            ("devices/d1/#", "devices/d1", true, true),
            ("devices/d1/#", "devices/d2/#", false, false),
            ("devices/d1/#", "devices/d11/#", false, false),
            ("devices/d1/#", "devices/+/state", false, true),
            ("devices/d1/#", "#", false, true),
            ("devices/d1/#", "+/+/+", false, true),
            ("a/+/c", "a/b/c", true, true),
            ("a/+/c", "a/#", false, true),
            ("a/+", "a/#", false, true),
            ("a", "a/#", false, true),
            ("+", "#", false, true),
            ("#", "#", true, true),
            ("#", "+", true, true),
            ("#", "$SYS/#", false, false),
            ("+/a", "$SYS/a", false, false),
            ("$SYS/#", "$SYS/broker/#", true, true),
            ("a/b/c", "a/b", false, false),
        ] {
            assert_eq!(covers(rule, filter), covered, "{rule} covers {filter}");
            assert_eq!(meet(rule, filter), met, "{rule} meets {filter}");
            assert_eq!(meet(filter, rule), met, "{filter} meets {rule}");
        }
        assert_eq!(unshared("$share/group/devices/d2/#"), "devices/d2/#");
        assert_eq!(unshared("devices/$share/x"), "devices/$share/x");
        assert!(is_wild("a/+") && is_wild("#") && !is_wild("a/b"));
    }
}
