//! Environment variables: `TIDEGATE_MQTT__LIMITS__INFLIGHT` sets `mqtt.limits.inflight`. It is handed the variables and reads none.

use std::ffi::OsString;

use super::{
    Given, keys,
    source::{Problem, Source},
    suggest,
};

const PREFIX: &str = "TIDEGATE_";
/// The short variable of `log.level`; the long one wins.
const LOG: &str = "TIDEGATE_LOG";
const SEPARATOR: &str = "__";

/// The variable that sets `path`.
pub(crate) fn variable_of(path: &str) -> String {
    format!("{PREFIX}{}", path.to_uppercase().replace('.', SEPARATOR))
}

/// The values of the variables, sorted by name; what is wrong goes to `problems`.
///
/// Variables without a double underscore are not ours unless they are clearly a key's name with a single one: a
/// container platform sets `TIDEGATE_SERVICE_PORT` and the like for a service that is named tidegate.
pub(crate) fn read(variables: impl Iterator<Item = (OsString, OsString)>, problems: &mut Vec<Problem>) -> Vec<Given> {
    let mut variables: Vec<_> = variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect();
    variables.sort();
    let known: Vec<_> = keys::keys().map(|key| (variable_of(key.path), key)).collect();
    let mut found = Vec::new();
    for (name, value) in variables {
        let path = if name == LOG { variable_of("log.level") } else { name.clone() };
        if let Some((_, key)) = known.iter().find(|(variable, _)| *variable == path) {
            let source = Source::Variable(name);
            match value.into_string() {
                Ok(text) => found.push(Given::word(key, text, source)),
                Err(_) => problems.push(Problem::of_key(source, key.path, format!("{} is not UTF-8 text", key.path))),
            }
        } else if let Some(hint) = unknown(&name, known.iter().map(|(variable, _)| variable.as_str())) {
            problems.push(Problem::new(Source::Variable(name), format!("unknown variable{hint}")));
        }
    }
    found
}

/// The rest of an error for a variable that is ours but sets nothing; `None` if it is not ours.
fn unknown<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<String> {
    let squeezed = |text: &str| text.to_uppercase().replace('_', "");
    let same = known.clone().find(|variable| squeezed(variable) == squeezed(name));
    let nearest = match same {
        Some(same) => Some(same),
        None if name.contains(SEPARATOR) => suggest::nearest(name, known),
        None => return None,
    };
    Some(nearest.map_or_else(String::new, |variable| format!("; did you mean {variable}?")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(variables: &[(&str, &str)], values: &[&str], errors: &[&str]) {
        let mut problems = Vec::new();
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let given = read(variables, &mut problems);
        let given: Vec<_> =
            given.iter().map(|given| format!("{} {} {}", given.source, given.key.path, given.shown)).collect();
        assert_eq!(given, values);
        assert_eq!(problems.iter().map(ToString::to_string).collect::<Vec<_>>(), errors);
    }

    #[test]
    fn names() {
        check(&[("PATH", "/"), ("TIDEGATE", "1")], &[], &[]);
        check(
            &[("TIDEGATE_MQTT__LIMITS__INFLIGHT", "7")],
            &["TIDEGATE_MQTT__LIMITS__INFLIGHT mqtt.limits.inflight \"7\""],
            &[],
        );
        check(
            &[("TIDEGATE_HTTP__LIMITS__BODY_BYTES", "")],
            &["TIDEGATE_HTTP__LIMITS__BODY_BYTES http.limits.body_bytes \"\""],
            &[],
        );
        let unknown = "TIDEGATE_MQTT__BND: unknown variable; did you mean TIDEGATE_MQTT__BIND?";
        check(&[("TIDEGATE_MQTT__BND", "x")], &[], &[unknown]);
        check(&[("TIDEGATE_TLS__CERTIFICATE_CHAIN", "x")], &[], &["TIDEGATE_TLS__CERTIFICATE_CHAIN: unknown variable"]);
    }

    #[test]
    fn a_single_underscore_is_noticed_and_a_platforms_variables_are_not_ours() {
        let single = "TIDEGATE_MQTT_BIND: unknown variable; did you mean TIDEGATE_MQTT__BIND?";
        check(&[("TIDEGATE_MQTT_BIND", "x")], &[], &[single]);
        check(&[("TIDEGATE_SERVICE_PORT", "1"), ("TIDEGATE_PORT_1883_TCP_ADDR", "10.0.0.1")], &[], &[]);
    }

    #[test]
    fn the_long_variable_of_the_log_level_comes_last() {
        check(
            &[("TIDEGATE_LOG__LEVEL", "warn"), ("TIDEGATE_LOG", "debug")],
            &["TIDEGATE_LOG log.level \"debug\"", "TIDEGATE_LOG__LEVEL log.level \"warn\""],
            &[],
        );
    }

    #[cfg(unix)]
    #[test]
    fn not_unicode() {
        use std::os::unix::ffi::OsStringExt;
        let mut problems = Vec::new();
        read(std::iter::once(("TIDEGATE_DATA__DIR".into(), OsString::from_vec(vec![0xff]))), &mut problems);
        assert_eq!(problems[0].to_string(), "TIDEGATE_DATA__DIR: data.dir is not UTF-8 text");
    }
}
