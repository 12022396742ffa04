//! The configuration: `tidegate.toml` < environment < flags, in two stages: as typed ([`Given`]) → checked ([`Config`]).
//!
//! `keys` declares every key once, `bridges` the tables that may be given many times (`rows` fills them); `file` and `environment` find values with their place; `rule` checks one value, this
//! file the whole; `show` and `reference` tell people. Nothing outside this module reads a file or a variable for settings.

mod bind;
mod bridges;
pub(crate) mod command;
mod environment;
mod file;
mod keys;
mod machine;
mod reference;
pub(crate) mod rows;
mod rule;
mod show;
mod source;
mod suggest;
mod tls;
pub(crate) mod value;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
};

pub(crate) use bridges::{Bridge, Subscription, Version};
pub(crate) use keys::{Auth, AuthBans, Data, Http, Log, LogFormat, Mqtt, Runtime, Scripts, Security, Viewers};
pub(crate) use source::Problems;
use source::{Problem, Source};

/// A checked configuration: every value is within its bounds and fits the others.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Config {
    /// The MQTT listener.
    pub(crate) mqtt: Mqtt,
    /// The HTTP listener.
    pub(crate) http: Http,
    /// Live viewers.
    pub(crate) viewers: Viewers,
    /// What is kept on disk.
    pub(crate) data: Data,
    /// Threads and memory.
    pub(crate) runtime: Runtime,
    /// Operators' handlers.
    pub(crate) scripts: Scripts,
    /// Log lines.
    pub(crate) log: Log,
    /// Identity and authorization.
    pub(crate) auth: Auth,
    /// Who may connect.
    pub(crate) security: Security,
    /// The brokers that this node subscribes to.
    pub(crate) bridges: Vec<Bridge>,
}

impl Config {
    /// The users' file: the one that is set, or the one in the data directory.
    pub(crate) fn users_file(&self) -> PathBuf {
        self.auth.users_file.clone().unwrap_or_else(|| self.data.dir.join("users.jsonl"))
    }

    /// Must clients authenticate? (As the node would find it if it started now.)
    pub(crate) fn authenticates(&self) -> bool {
        let auth = &self.auth;
        auth.users_file.is_some()
            || auth.acl_file.is_some()
            || auth.jwt_key_file.is_some()
            || self.users_file().exists()
    }

    /// Must the clients of the listeners of this key say who they are?
    fn asks_who_comes(&self, key: &str) -> bool {
        let is_mqtt = key.starts_with("mqtt.");
        let mqtt = &self.mqtt;
        let by_certificate = mqtt.tls_client_ca.is_some() && mqtt.tls_require_client_cert;
        if matches!(key, "mqtt.tls_bind" | "mqtt.wss_bind") && by_certificate {
            return true;
        }
        let anonymous = match self.auth.allow_anonymous.as_str() {
            "all" => true,
            "mqtt" => is_mqtt,
            "http" => !is_mqtt,
            _ => false,
        };
        self.authenticates() && !anonymous
    }
}

/// A value as it was given, for a key that exists.
pub(crate) struct Given {
    /// The key.
    key: &'static keys::Key,
    /// The value as typed.
    raw: value::Raw,
    /// The value as errors repeat it.
    shown: String,
    /// Where it was given.
    source: Source,
}

impl Given {
    /// A word of a variable or a flag.
    fn word(key: &'static keys::Key, text: String, source: Source) -> Self {
        Self { key, shown: file::shorten(&format!("{text:?}")), raw: value::Raw::Word(text), source }
    }
}

/// The flags that were given on the command line: dotted key → word. The key must have a flag.
pub(crate) type Flags = Vec<(&'static str, String)>;

/// A configuration and where its values came from.
pub(crate) struct Loaded {
    /// The checked configuration.
    pub(crate) config: Config,
    /// The source of every key that does not have its default.
    origins: BTreeMap<&'static str, Source>,
    /// The places of the values in lists of tables.
    places: rows::Places,
}

impl Loaded {
    /// How many keys have another source than the default.
    pub(crate) fn values_set(&self) -> usize {
        self.origins.len() + self.places.keys().filter(|path| path.contains("].") && !path.ends_with(']')).count()
    }

    fn origin(&self, path: &str) -> Source {
        self.origins.get(path).cloned().unwrap_or(Source::Default)
    }
}

/// Reads and checks everything: the file (`path`, or `tidegate.toml` if present), then `variables`, then `flags`.
///
/// A value that a later source overrides is checked all the same: a broken file should not wait for the day when a flag
/// goes away.
///
/// # Errors
/// All problems at once, in the order of the sources.
pub(crate) fn load(
    path: Option<&Path>,
    variables: impl Iterator<Item = (OsString, OsString)>,
    flags: &[(&'static str, String)],
) -> Result<Loaded, Problems> {
    let mut problems = Vec::new();
    let (mut given, mut lists) = (Vec::new(), Vec::new());
    match file::open(path) {
        Ok(Some((path, text))) => {
            let said = file::read(&path, &text, &mut problems);
            given.extend(said.values);
            lists = said.lists;
        }
        Ok(None) => {}
        Err(problem) => problems.push(problem),
    }
    given.extend(environment::read(variables, &mut problems));
    given.extend(flags.iter().filter_map(|(path, word)| of_flag(path, word)));

    let mut loaded = Loaded { config: Config::default(), origins: BTreeMap::new(), places: rows::Places::new() };
    // There is one list so far, and it may stand in the file once.
    for (_, rows) in lists {
        loaded.config.bridges = bridges::read(rows, &mut loaded.places, &mut problems);
    }
    for Given { key, raw, shown, source } in given {
        let set = key
            .rule
            .check(&raw)
            .and_then(|value| (key.set)(&mut loaded.config, value).ok_or_else(|| "is out of range".to_owned()));
        match set {
            Ok(()) => {
                loaded.origins.insert(key.path, source);
            }
            Err(wrong) => {
                let message = format!("{} = {shown} {wrong}; allowed: {}", key.path, key.rule.allowed());
                problems.push(Problem::of_key(source, key.path, message));
            }
        }
    }
    if problems.is_empty() {
        problems.extend(bridges::finish(&mut loaded.config.bridges, &loaded.places));
    }
    // Whether the values fit each other is worth saying only once each of them is what was meant.
    if problems.is_empty() {
        problems.extend(misfits(&loaded));
    }
    problems.sort_by(|one, other| one.source.cmp(&other.source));
    if problems.is_empty() { Ok(loaded) } else { Err(Problems(problems)) }
}

fn of_flag(path: &str, word: &str) -> Option<Given> {
    let key = keys::find(path)?;
    Some(Given::word(key, word.to_owned(), Source::Flag(key.flag?)))
}

/// Every key that has a flag: key, flag, and the default in words.
#[cfg(test)]
pub(crate) fn flags_of_keys() -> impl Iterator<Item = (&'static str, &'static str, String)> {
    let defaults = Config::default();
    keys::keys().filter_map(move |key| {
        let shown = key.rule.show(&(key.get)(&defaults)).replace(['[', ']', '"'], "");
        Some((key.path, key.flag?, key.derived.map_or(shown, str::to_owned)))
    })
}

/// Values that are fine each by itself but not together.
fn misfits(loaded: &Loaded) -> Vec<Problem> {
    let config = &loaded.config;
    let problem = |key: &str, message: String| Problem::of_key(loaded.origin(key), key, message);
    let mut problems = Vec::new();

    let binds = [
        ("mqtt.bind", &config.mqtt.bind),
        ("mqtt.tls_bind", &config.mqtt.tls_bind),
        ("mqtt.ws_bind", &config.mqtt.ws_bind),
        ("mqtt.wss_bind", &config.mqtt.wss_bind),
        ("http.bind", &config.http.bind),
        ("http.tls_bind", &config.http.tls_bind),
    ];
    if !config.security.insecure_allow_anonymous {
        let on = config.authenticates();
        for (key, binds) in binds {
            let open = !config.asks_who_comes(key);
            let reachable = binds.iter().find(|bind| open && !bind::is_local(bind));
            problems.extend(reachable.map(|bind| problem(key, open_bind(key, bind, on))));
        }
    }
    for (index, (key, own)) in binds.iter().enumerate() {
        for (other, taken) in &binds[..index] {
            let all: Vec<_> = taken.iter().chain(*own).copied().collect();
            if let Some(shared) = bind::first_shared(&all) {
                let message = format!("{key} = {shared} is taken by {other}; allowed: an address of its own");
                problems.push(problem(key, message));
            }
        }
    }
    if binds[..4].iter().all(|(_, binds)| binds.is_empty()) {
        problems.push(problem("mqtt.bind", "mqtt.bind = [] leaves no MQTT listener; allowed: an address here or in mqtt.tls_bind, mqtt.ws_bind, mqtt.wss_bind".to_owned()));
    }
    if binds[4..].iter().all(|(_, binds)| binds.is_empty()) {
        problems.push(problem(
            "http.bind",
            "http.bind = [] leaves no HTTP listener; allowed: an address here or in http.tls_bind".to_owned(),
        ));
    }
    problems.extend(tls::misfits(config).into_iter().map(|(key, message)| problem(key, message)));
    let mqtt = &config.mqtt.limits;
    if mqtt.pre_auth_packet_bytes > mqtt.packet_bytes {
        problems.push(above(loaded, "mqtt.limits.pre_auth_packet_bytes", "mqtt.limits.packet_bytes"));
    }
    problems
}

fn open_bind(key: &str, bind: &SocketAddr, authenticates: bool) -> String {
    let users = if authenticates { "auth.allow_anonymous without this listener" } else { "users (tidegate user add)" };
    format!(
        "{key} = {bind} can be reached from other machines, and nobody would have to authenticate; \
         allowed: {users}, a loopback address such as 127.0.0.1:{}, or --insecure-allow-anonymous \
         (security.insecure_allow_anonymous = true) if that is what you want",
        bind.port()
    )
}

/// The problem that `low` is above `high`. It is told of the one that somebody set, `low` first.
fn above(loaded: &Loaded, low: &str, high: &str) -> Problem {
    let shown = |path: &str| keys::find(path).map_or_else(String::new, |key| key.rule.show(&(key.get)(&loaded.config)));
    let (told, other, relation, allowed) = if loaded.origin(low) == Source::Default {
        (high, low, "below", "at least")
    } else {
        (low, high, "above", "at most")
    };
    let (value, bound) = (shown(told), shown(other));
    let message = format!(
        "{told} = {value} is {relation} {other} = {bound} ({}); allowed: {allowed} {bound}",
        loaded.origin(other)
    );
    Problem::of_key(loaded.origin(told), told, message)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn load_text(text: &str, variables: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Loaded, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let flags: Flags = flags.iter().map(|(key, word)| (*key, (*word).to_owned())).collect();
        load(Some(file.path()), variables, &flags)
            .map_err(|problems| problems.to_string().replace(&*file.path().to_string_lossy(), "t.toml"))
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(load_text(text, &[], &[]).err().as_deref(), Some(expected), "{text}");
    }

    #[test]
    fn values() {
        refused(
            "[mqtt.limits]\ninflight = 0\n",
            "error: t.toml:2:12: mqtt.limits.inflight = 0 is out of range; allowed: an integer from 1 to 65535",
        );
        refused(
            "runtime.loops = \"two\"",
            "error: t.toml:1:17: runtime.loops = \"two\" is a string; allowed: an integer from 1 to 256",
        );
        refused(
            "http.default_ack = \"done\"",
            "error: t.toml:1:20: http.default_ack = \"done\" is not known; allowed: received, committed, processed",
        );
        refused(
            "mqtt.default_ack = \"received\"",
            "error: t.toml:1:20: mqtt.default_ack = \"received\" is not known; allowed: committed, processed",
        );
        refused(
            "[data]\nsegment_bytes = \"64MB\"",
            "error: t.toml:2:17: data.segment_bytes = \"64MB\" is not a size; allowed: 1MiB to 4GiB, as bytes or with a unit: B, KiB, MiB, GiB, TiB",
        );
        refused(
            "[data]\ncommit_max_delay_ms = 1.5",
            "error: t.toml:2:23: data.commit_max_delay_ms = 1.5 is a float; allowed: milliseconds, an integer from 0 to 1000",
        );
        refused("[log.format]\njson = true", "error: t.toml:1:1: log.format = {…} is a table; allowed: json, pretty");
        refused(
            "[mqtt]\nbind = \"127.0.0.1\"",
            "error: t.toml:2:8: mqtt.bind = \"127.0.0.1\" has no port; allowed: an address and a port, such as 127.0.0.1:1883 or [::1]:1883, or a list of at most 16; [] for none",
        );
        refused(
            "data.dir = []\nruntime.loops = 999999999999999999999999999999999999999999\n",
            "error: t.toml:1:12: data.dir = [] is a list; allowed: a path; a relative one starts at the working directory\n\
             error: t.toml:2:17: runtime.loops = 999999999999999999999999999999999999999999 is out of range; allowed: an integer from 1 to 256",
        );
    }

    #[test]
    fn values_that_do_not_fit_each_other() {
        refused(
            "[mqtt]\nbind = [\"127.0.0.1:1883\", \"0.0.0.0:1883\"]",
            "error: t.toml:2:8: mqtt.bind = 0.0.0.0:1883 can be reached from other machines, and nobody would have to \
             authenticate; allowed: users (tidegate user add), a loopback address such as 127.0.0.1:1883, or \
             --insecure-allow-anonymous (security.insecure_allow_anonymous = true) if that is what you want",
        );
        refused(
            "[http]\nbind = \"127.0.0.1:1883\"",
            "error: t.toml:2:8: http.bind = 127.0.0.1:1883 is taken by mqtt.bind; allowed: an address of its own",
        );
        refused(
            "mqtt.limits.pre_auth_packet_bytes = 4096\nmqtt.limits.packet_bytes = 2048",
            "error: t.toml:1:37: mqtt.limits.pre_auth_packet_bytes = \"4KiB\" is above mqtt.limits.packet_bytes = \"2KiB\" (t.toml:2:28); allowed: at most \"2KiB\"",
        );
        let open = load_text("[security]\ninsecure_allow_anonymous = true\n[mqtt]\nbind=\"0.0.0.0:1\"", &[], &[]);
        assert!(open.is_ok());
    }

    #[test]
    fn flags_win_over_variables_over_the_file_over_defaults() {
        let file = "runtime.loops = 2";
        let variable = ("TIDEGATE_RUNTIME__LOOPS", "3");
        for (text, variables, flags, expected, source) in [
            ("", &[][..], &[][..], Config::default().runtime.loops, "default"),
            (file, &[], &[], 2, "t.toml:1:17"),
            (file, &[variable], &[], 3, "TIDEGATE_RUNTIME__LOOPS"),
            (file, &[variable], &[("runtime.loops", "4")], 4, "--loops"),
        ] {
            let loaded = load_text(text, variables, flags).unwrap();
            assert_eq!(loaded.config.runtime.loops, expected);
            let origin = loaded.origin("runtime.loops");
            let place = if let Source::File { line, column, .. } = &origin {
                format!("t.toml:{line}:{column}")
            } else {
                origin.to_string()
            };
            assert_eq!(place, source);
        }
    }

    #[test]
    fn every_problem_is_told_at_once_and_overridden_values_are_checked_too() {
        let problems = load_text(
            "runtime.loops = 0\nnonsense = 1",
            &[("TIDEGATE_RUNTIME__LOOPS", "x")],
            &[("runtime.loops", "4")],
        );
        assert_eq!(
            problems.err().unwrap(),
            "error: t.toml:1:17: runtime.loops = 0 is out of range; allowed: an integer from 1 to 256\n\
             error: t.toml:2:1: unknown key nonsense\n\
             error: TIDEGATE_RUNTIME__LOOPS: runtime.loops = \"x\" is not an integer; allowed: an integer from 1 to 256"
        );
    }

    #[test]
    fn files_that_cannot_be_used() {
        #[track_caller]
        fn check(path: &Path, expected: &str) {
            let problems = load(Some(path), std::iter::empty(), &[]).err().unwrap().to_string();
            assert_eq!(problems, format!("error: {}: {expected}", path.display()));
        }
        let dir = tempfile::tempdir().unwrap();
        check(dir.path(), "cannot be read: it is a directory");
        check(&dir.path().join("missing.toml"), "cannot be read: there is no such file");
        let binary = dir.path().join("binary.toml");
        std::fs::write(&binary, [b'a', 0xff]).unwrap();
        check(&binary, "is not UTF-8 text (at byte 1)");
        let large = dir.path().join("large.toml");
        std::fs::write(&large, vec![b'\n'; 1024 * 1024 + 1]).unwrap();
        check(&large, "is larger than 1048576 bytes, the limit of a configuration file");
    }
}
