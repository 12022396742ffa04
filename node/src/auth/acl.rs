//! Access rules in the syntax of mosquitto's `acl_file`: which topics a user may read and write.
//!
//! `topic [read|write|readwrite|deny] filter` stands below a `user name` line, or before the first one and then means clients
//! that did not authenticate; `pattern …` means everybody, with `%u` for the user and `%c` for the client id. A `deny`
//! wins over everything. The rules add to what the role grants ([`super::access`]).

use std::{path::Path, sync::Arc};

use hashbrown::HashMap;

use super::{filter, place::BadFile};

/// What is done with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// The client publishes it.
    Write,
    /// The client gets it.
    Read,
}

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allow { read: bool, write: bool },
    Deny,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    filter: Box<str>,
    verdict: Verdict,
}

impl Rule {
    fn allows(&self, action: Action) -> bool {
        match self.verdict {
            Verdict::Allow { read, write } => {
                if action == Action::Read {
                    read
                } else {
                    write
                }
            }
            Verdict::Deny => false,
        }
    }

    fn denies(&self) -> bool {
        self.verdict == Verdict::Deny
    }
}

/// The rules of one connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rules(Vec<Rule>);

impl Rules {
    /// Rules that allow reading and writing these filters.
    ///
    /// # Errors
    /// One of them is no filter.
    pub(super) fn allowing(read: &[String], write: &[String]) -> Result<Self, String> {
        for filter in read.iter().chain(write) {
            check(filter).map_err(|message| format!("the filter {filter:.64?}: {message}"))?;
        }
        let rule = |filter: &String, read| Rule {
            filter: filter.as_str().into(),
            verdict: Verdict::Allow { read, write: !read },
        };
        let read = read.iter().map(|filter| rule(filter, true));
        Ok(Self(read.chain(write.iter().map(|filter| rule(filter, false))).collect()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These rules and those.
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.0.extend_from_slice(&other.0);
        self
    }

    /// What the rules say of a topic; `None`: nothing.
    pub(super) fn decide(&self, action: Action, topic: &str) -> Option<bool> {
        let mut allowed = None;
        for rule in self.0.iter().filter(|rule| filter::matches(&rule.filter, topic)) {
            if rule.denies() {
                return Some(false);
            }
            if rule.allows(action) {
                allowed = Some(true);
            }
        }
        allowed
    }

    /// May everything that the filter matches be read?
    pub(super) fn covers(&self, wanted: &str) -> bool {
        self.0.iter().any(|rule| rule.allows(Action::Read) && filter::covers(&rule.filter, wanted))
    }

    /// May something that the filter matches be read?
    pub(super) fn meets(&self, wanted: &str) -> bool {
        self.0.iter().any(|rule| rule.allows(Action::Read) && filter::meet(&rule.filter, wanted))
    }

    /// Is something, or everything, that the filter matches denied?
    pub(super) fn denial(&self, wanted: &str) -> Denial {
        let mut denial = Denial::None;
        for rule in self.0.iter().filter(|rule| rule.denies()) {
            if filter::covers(&rule.filter, wanted) {
                return Denial::Whole;
            }
            if filter::meet(&rule.filter, wanted) {
                denial = Denial::Part;
            }
        }
        denial
    }
}

/// How much of a filter is denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denial {
    None,
    Part,
    Whole,
}

/// An `acl_file`.
#[derive(Debug, Default)]
pub(crate) struct Acl {
    anonymous: Rules,
    users: HashMap<Box<str>, Rules>,
    patterns: Rules,
}

impl Acl {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// [`BadFile`] with the line and column of the first thing that is wrong.
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, BadFile> {
        let mut acl = Self::default();
        let mut user: Option<Box<str>> = None;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_end();
            let bad = |part: &str, message: String| BadFile::within(path, number + 1, line, part, message);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let rest = rest.trim_start_matches(' ');
            match word {
                "user" if rest.is_empty() => return Err(bad(line, "user is not followed by a name".to_owned())),
                "user" => {
                    acl.users.entry_ref(rest).or_default();
                    user = Some(rest.into());
                }
                "topic" => {
                    let rule = rule(rest).map_err(|(part, message)| bad(part, message))?;
                    let rules = match &user {
                        Some(name) => acl.users.entry_ref(&**name).or_default(),
                        None => &mut acl.anonymous,
                    };
                    rules.0.push(rule);
                }
                "pattern" => acl.patterns.0.push(rule(rest).map_err(|(part, message)| bad(part, message))?),
                _ => {
                    let message = format!("{word:?} is not known; a line begins with user, topic, pattern or #");
                    return Err(bad(word, message));
                }
            }
        }
        Ok(acl)
    }

    /// The rules of a client. `user`: `None` for one that did not authenticate.
    pub(super) fn rules_of(&self, user: Option<&str>, client_id: &str) -> Rules {
        let own = match user {
            Some(name) => self.users.get(name).cloned().unwrap_or_default(),
            None => self.anonymous.clone(),
        };
        let patterns = self.patterns.0.iter().filter_map(|rule| {
            let filter = substitute(&rule.filter, user, client_id)?;
            Some(Rule { filter, verdict: rule.verdict })
        });
        Rules(own.0.into_iter().chain(patterns).collect())
    }
}

/// What follows `topic` and `pattern`; the error names the part of the text that is wrong.
fn rule(text: &str) -> Result<Rule, (&str, String)> {
    const BOTH: Verdict = Verdict::Allow { read: true, write: true };
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (verdict, filter) = match (word, rest.trim_start_matches(' ')) {
        (_, "") => (BOTH, word),
        ("read", filter) => (Verdict::Allow { read: true, write: false }, filter),
        ("write", filter) => (Verdict::Allow { read: false, write: true }, filter),
        ("readwrite", filter) => (BOTH, filter),
        ("deny", filter) => (Verdict::Deny, filter),
        _ => {
            let message =
                format!("{word:?} is no access; allowed: read, write, readwrite, deny (or none, for readwrite)");
            return Err((word, message));
        }
    };
    if filter.is_empty() {
        return Err((text, "there is no topic".to_owned()));
    }
    check(filter).map_err(|message| (filter, message))?;
    Ok(Rule { filter: filter.into(), verdict })
}

/// Is this a topic filter ([MQTT-4.7.1])?
fn check(filter: &str) -> Result<(), String> {
    if filter.is_empty() {
        return Err("there is no topic".to_owned());
    }
    let levels = filter.split('/').count();
    for (index, level) in filter.split('/').enumerate() {
        let alone = level.len() == 1;
        if level.contains('#') && (!alone || index + 1 < levels) {
            return Err("# stands for all levels that follow: alone, and last".to_owned());
        }
        if level.contains('+') && !alone {
            return Err("+ stands for one whole level: alone in it".to_owned());
        }
    }
    Ok(())
}

/// The pattern with the client's names. `None` where it names something that the client does not have, or has with a wildcard
/// or a level in it: then it would mean more than its writer meant.
fn substitute(pattern: &str, user: Option<&str>, client_id: &str) -> Option<Box<str>> {
    let fits = |name: &str| !name.is_empty() && !name.contains(['+', '#', '/']);
    let mut out = pattern.to_owned();
    if pattern.contains("%u") {
        out = out.replace("%u", user.filter(|user| fits(user))?);
    }
    if pattern.contains("%c") {
        // Only what the pattern itself says is replaced, never what a name brings along.
        let parts: Vec<_> = pattern.split("%c").collect();
        let user = user.unwrap_or_default();
        let parts: Vec<_> = parts.iter().map(|part| part.replace("%u", user)).collect();
        out = parts.join(Some(client_id).filter(|id| fits(id))?);
    }
    Some(out.into())
}

/// The rules, shared, or none.
pub(super) fn shared(rules: Rules) -> Option<Arc<Rules>> {
    (!rules.is_empty()).then(|| Arc::new(rules))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
# general
topic read public/#
user alice
topic readwrite plant/#
topic deny plant/secret/#
topic write only out

user bob smith
topic name with spaces
pattern read users/%u/#
pattern write clients/%c/%u
pattern deny forbidden/%c
";

    fn parse(text: &str) -> Result<Acl, String> {
        Acl::parse(Path::new("acl"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn rules_are_read_as_mosquitto_reads_them() {
        // A topic with a space needs its access; without one, the first word would be it.
        assert!(parse("user bob\ntopic name with spaces").is_err());
        let acl = parse(&FILE.replace("topic name with", "topic readwrite name with").replace("only out", "only/out"))
            .unwrap();
        let alice = acl.rules_of(Some("alice"), "c1");
        for (action, topic, expected) in [
            (Action::Read, "plant/1", Some(true)),
            (Action::Write, "plant/1", Some(true)),
            (Action::Write, "plant/secret/1", Some(false)),
            (Action::Read, "only/out", None),
            (Action::Write, "only/out", Some(true)),
            (Action::Read, "users/alice/x", Some(true)),
            (Action::Write, "users/alice/x", None),
            (Action::Read, "users/bob/x", None),
            (Action::Write, "clients/c1/alice", Some(true)),
            (Action::Read, "forbidden/c1", Some(false)),
            (Action::Read, "public/a", None),
        ] {
            assert_eq!(alice.decide(action, topic), expected, "{action:?} {topic}");
        }
        let nobody = acl.rules_of(None, "c1");
        assert_eq!(nobody.decide(Action::Read, "public/a"), Some(true));
        assert_eq!(nobody.decide(Action::Read, "users//a"), None);
        assert_eq!(acl.rules_of(Some("bob smith"), "c").decide(Action::Write, "name with spaces"), Some(true));
        assert!(alice.covers("plant/+/x") && !alice.covers("#") && alice.meets("#") && !alice.meets("other/#"));
        assert_eq!(alice.denial("plant/#"), Denial::Part);
        assert_eq!(alice.denial("plant/secret/+"), Denial::Whole);
        assert_eq!(alice.denial("other"), Denial::None);
    }

    #[test]
    fn a_name_with_a_wildcard_fills_in_no_pattern() {
        let acl = parse("pattern read %c/%u/x").unwrap();
        for (user, client, expected) in
            [("u", "c", Some(true)), ("#", "c", None), ("u", "+", None), ("u", "a/b", None), ("", "c", None)]
        {
            assert_eq!(acl.rules_of(Some(user), client).decide(Action::Read, "c/u/x"), expected, "{user} {client}");
        }
        // A client id that spells a placeholder is a client id.
        assert_eq!(acl.rules_of(Some("u"), "%u").decide(Action::Read, "%u/u/x"), Some(true));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, expected) in [
            ("topics a", "acl:1:1: \"topics\" is not known; a line begins with user, topic, pattern or #"),
            ("\nuser", "acl:2:1: user is not followed by a name"),
            (
                "topic raed a/b",
                "acl:1:7: \"raed\" is no access; allowed: read, write, readwrite, deny (or none, for readwrite)",
            ),
            ("topic read a/#/b", "acl:1:12: # stands for all levels that follow: alone, and last"),
            ("user x\ntopic read a+/b", "acl:2:12: + stands for one whole level: alone in it"),
            ("topic", "acl:1:1: there is no topic"),
        ] {
            assert_eq!(parse(text).err().as_deref(), Some(expected), "{text}");
        }
    }
}
