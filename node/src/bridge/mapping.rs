//! From a foreign topic to a device: filters with named levels, and templates that are filled from them. Pure.
//!
//! `factory/{site}/{device}/telemetry` subscribes to `factory/+/+/telemetry`; `{site}-{device}` makes a device id of a topic
//! that matches. A template may also name a level by its number from 1 (`{2}`) or the last one (`{last}`).

use std::fmt;

use crate::mqtt::topic;

/// A subscription's filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// As typed.
    text: String,
    /// As the broker gets it: `+` in place of names.
    subscribed: String,
    levels: Vec<Level>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Literal(String),
    Any(Option<String>),
    Rest,
}

/// A text with holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Named(String),
    /// From 1.
    Numbered(usize),
    Last,
}

impl Pattern {
    /// Reads a filter, `$share/group/…` included. The error follows the value.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (group, filter) = match text.strip_prefix("$share/").map(|shared| shared.split_once('/')) {
            Some(Some((group, filter))) => (Some(group), filter),
            Some(None) => return Err(wrong(&topic::TopicError::Share)),
            None => (None, text),
        };
        let mut levels: Vec<Level> = Vec::new();
        for level in filter.split('/') {
            let level = match level {
                "+" => Level::Any(None),
                "#" => Level::Rest,
                _ => match level.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                    Some(name) => {
                        check_name(name)?;
                        let twice = levels.iter().any(|seen| matches!(seen, Level::Any(Some(other)) if other == name));
                        if twice {
                            return Err(format!("names two levels {{{name}}}"));
                        }
                        Level::Any(Some(name.to_owned()))
                    }
                    None if level.contains(['{', '}']) => {
                        return Err(format!(
                            "has the level {level:?}; a name in braces is a whole level, as in a/{{name}}/b"
                        ));
                    }
                    None => Level::Literal(level.to_owned()),
                },
            };
            levels.push(level);
        }
        let plain = levels.iter().map(Level::subscribed).collect::<Vec<_>>().join("/");
        let subscribed = group.map_or_else(|| plain.clone(), |group| format!("$share/{group}/{plain}"));
        topic::check_filter(&subscribed).map_err(|error| wrong(&error))?;
        Ok(Self { text: text.to_owned(), subscribed, levels })
    }

    /// What the broker is asked for.
    pub(crate) fn subscribed(&self) -> &str {
        &self.subscribed
    }

    /// Does the topic, taken apart, match? As section 4.7 has it: `a/#` matches `a`, and wildcards no first level with `$`.
    pub(crate) fn matches(&self, topic: &[&str]) -> bool {
        if topic.first().is_some_and(|first| first.starts_with('$'))
            && !matches!(self.levels.first(), Some(Level::Literal(_)))
        {
            return false;
        }
        let mut levels = topic.iter();
        for level in &self.levels {
            match (level, levels.next()) {
                (Level::Rest, _) => return true,
                (Level::Any(_), Some(_)) => {}
                (Level::Literal(literal), Some(level)) if literal == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }

    fn index_of(&self, name: &str) -> Option<usize> {
        self.levels.iter().position(|level| matches!(level, Level::Any(Some(own)) if own == name))
    }
}

impl Level {
    fn subscribed(&self) -> &str {
        match self {
            Self::Literal(text) => text,
            Self::Any(_) => "+",
            Self::Rest => "#",
        }
    }
}

impl Template {
    /// Reads a template. The error follows the value.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            if !rest[open..].starts_with('{') {
                return Err("has a '}' without its '{'".to_owned());
            }
            if open > 0 {
                pieces.push(Piece::Literal(rest[..open].to_owned()));
            }
            let (name, after) = rest[open + 1..].split_once('}').ok_or("has a '{' without its '}'")?;
            pieces.push(match name.parse::<usize>() {
                Ok(0) => return Err("has {0}; the first level is {1}".to_owned()),
                Ok(number) => Piece::Numbered(number),
                Err(_) if name == "last" => Piece::Last,
                Err(_) => {
                    check_name(name)?;
                    Piece::Named(name.to_owned())
                }
            });
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        if pieces.is_empty() {
            return Err("is empty".to_owned());
        }
        Ok(Self { text: text.to_owned(), pieces })
    }

    /// Whether topics of `pattern` have what this template asks for. The error follows the value.
    pub(crate) fn check(&self, pattern: &Pattern) -> Result<(), String> {
        let open_ended = pattern.levels.contains(&Level::Rest);
        for piece in &self.pieces {
            match piece {
                Piece::Named(name) if pattern.index_of(name).is_none() => {
                    return Err(format!("has {{{name}}}, and no level of the filter {pattern} is named so"));
                }
                Piece::Numbered(number) if *number > pattern.levels.len() && !open_ended => {
                    return Err(format!(
                        "has {{{number}}}, and the filter {pattern} has {} levels",
                        pattern.levels.len()
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The text for a topic that matches `pattern`; `None`: the topic has too few levels.
    pub(crate) fn fill(&self, pattern: &Pattern, topic: &[&str]) -> Option<String> {
        let mut text = String::new();
        for piece in &self.pieces {
            text.push_str(match piece {
                Piece::Literal(literal) => literal,
                Piece::Named(name) => topic.get(pattern.index_of(name)?)?,
                Piece::Numbered(number) => topic.get(number - 1)?,
                Piece::Last => topic.last()?,
            });
        }
        Some(text)
    }
}

fn wrong(error: &topic::TopicError) -> String {
    format!("is not a filter: {error}")
}

fn check_name(name: &str) -> Result<(), String> {
    let is_word = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_word || name.is_empty() || name == "last" || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("has {{{name}}}; a name is letters, digits and '_', no digit first, and not \"last\""));
    }
    Ok(())
}

impl fmt::Display for Pattern {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The device of a topic: `Err(true)` does not match, `Err(false)` has too few levels.
    fn map(filter: &str, device: &str, topic: &str) -> Result<String, bool> {
        let (pattern, template) = (Pattern::parse(filter).unwrap(), Template::parse(device).unwrap());
        template.check(&pattern).unwrap();
        let levels: Vec<_> = topic.split('/').collect();
        if !pattern.matches(&levels) {
            return Err(true);
        }
        template.fill(&pattern, &levels).ok_or(false)
    }

    #[test]
    fn topics_become_devices() {
        for (filter, device, topic, expected) in [
            ("factory/{site}/{device}/telemetry", "{site}-{device}", "factory/a/p1/telemetry", Ok("a-p1")),
            ("factory/{site}/{device}/telemetry", "{device}", "factory/a/p1/state", Err(true)),
            ("factory/{site}/{device}/telemetry", "{device}", "factory/a/telemetry", Err(true)),
            ("factory/{site}/{device}/telemetry", "{device}", "factory/a/p1/telemetry/x", Err(true)),
            ("$share/g/plant/{d}/#", "{d}", "plant/p1", Ok("p1")),
            ("plant/{d}/#", "{d}.{last}", "plant/p1/a/b", Ok("p1.b")),
            ("zigbee2mqtt/#", "{2}", "zigbee2mqtt/lamp", Ok("lamp")),
            ("zigbee2mqtt/#", "{2}", "zigbee2mqtt", Err(false)),
            ("+/{d}", "{1}:{d}", "x/", Ok("x:")),
            ("#", "{last}", "$SYS/broker/uptime", Err(true)),
            ("$SYS/#", "{last}", "$SYS/broker/uptime", Ok("uptime")),
            ("a/b", "fixed", "a/b", Ok("fixed")),
        ] {
            assert_eq!(map(filter, device, topic), expected.map(str::to_owned), "{filter} {device} {topic}");
        }
    }

    #[test]
    fn what_the_broker_is_asked_for() {
        for (filter, subscribed) in [
            ("factory/{site}/{device}/t", "factory/+/+/t"),
            ("$share/tide/a/{b}/#", "$share/tide/a/+/#"),
            ("a/b", "a/b"),
        ] {
            assert_eq!(Pattern::parse(filter).unwrap().subscribed(), subscribed);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (filter, words) in [
            ("", "empty"),
            ("a/#/b", "last level"),
            ("a/b+", "alone between slashes"),
            ("a/x{b}", "whole level"),
            ("a/{}", "a name is letters"),
            ("a/{last}", "not \"last\""),
            ("a/{1}", "no digit first"),
            ("{a}/{a}", "two levels {a}"),
            ("$share/g", "$share/group/filter"),
            ("$share//a", "$share/group/filter"),
        ] {
            let error = Pattern::parse(filter).unwrap_err();
            assert!(error.contains(words), "{filter}: {error}");
        }
        for (template, words) in [
            ("", "empty"),
            ("a{b", "without its '}'"),
            ("a}b", "without its '{'"),
            ("{0}", "first level is {1}"),
            ("{a-b}", "a name is"),
        ] {
            let error = Template::parse(template).unwrap_err();
            assert!(error.contains(words), "{template}: {error}");
        }
        let pattern = Pattern::parse("a/{b}").unwrap();
        for (template, words) in [("{c}", "no level of the filter a/{b} is named so"), ("{3}", "has 2 levels")] {
            let error = Template::parse(template).unwrap().check(&pattern).unwrap_err();
            assert!(error.contains(words), "{template}: {error}");
        }
    }
}
