//! The nearest known name to one that is not known. Pure.

/// The candidate nearest to `given`, if it is near enough to be what was meant: at most a third of its letters differ,
/// or it ends in the same last part (`inflight` for `mqtt.limits.inflight`).
pub(crate) fn nearest<'a>(given: &str, candidates: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let near = candidates
        .clone()
        .map(|candidate| (distance(given, candidate), candidate))
        .filter(|(distance, candidate)| *distance * 3 <= candidate.chars().count())
        .min_by_key(|(distance, _)| *distance);
    let last = last_part(given);
    near.map(|(_, candidate)| candidate).or_else(|| candidates.into_iter().find(|known| last_part(known) == last))
}

fn last_part(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

/// Levenshtein's distance, in characters.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names() {
        let known = ["mqtt.bind", "http.bind", "mqtt.limits.inflight", "data.dir", "scripts.dir"];
        for (given, expected) in [
            ("mqtt.bnd", Some("mqtt.bind")),
            ("htp.bind", Some("http.bind")),
            ("mqtt.inflight", Some("mqtt.limits.inflight")),
            ("inflight", Some("mqtt.limits.inflight")),
            ("script.dir", Some("scripts.dir")),
            ("tls.certificate", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, known.iter().copied()), expected, "{given}");
        }
    }

    #[test]
    fn distances() {
        for (from, to, expected) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("ü", "u", 1)] {
            assert_eq!(distance(from, to), expected, "{from} {to}");
        }
    }
}
