//! `[[bridge]]`: the brokers that this node subscribes to, each with its subscriptions. Reads password files; judges what
//! belongs together. What a filter or a template is, `crate::bridge` knows.

use std::{fs, io::Read as _, path::PathBuf, time::Duration};

use serde_json::Value as Json;
use tidegate_actors::limits;

use super::{
    rows::{self, Places, RawRow, row},
    rule::Rule,
    source::{Problem, Source},
    value::{Field, Secret, Value, optional_fields},
};
use crate::bridge::{BrokerUrl, Pattern, Template};

/// Most bridges of a node, and most subscriptions of one.
const MOST: usize = 64;
/// Largest password file, in bytes.
const PASSWORD_FILE_BYTES: u64 = 65_536;

/// The protocol that a bridge speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V3,
    V5,
}

impl Version {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V3 => "3.1.1",
            Self::V5 => "5",
        }
    }
}

row! {
    /// A broker whose messages become readings: see [bridge.md](bridge.md). It is acknowledged only once the journal has them.
    Bridge["bridge"] => {
        nested "subscription" subscriptions: Vec<Subscription>,

        /// What the bridge is called in the log, in metrics and on the dashboard; no other bridge has the same name.
        "name" name: String = String::new(), Rule::Checked("1 to 64 letters, digits, '-', '_' and '.'", check_name),
            "It names the metrics' label `bridge`.", needed;
        /// The broker's address; without a port 1883, with TLS 8883.
        "url" url: Option<BrokerUrl> = None, Rule::Checked("mqtt://host:port, or mqtts://host:port for TLS", check_url),
            "The name is looked up anew for each connection.", needed;
        /// The protocol: 3.1.1 is understood everywhere; 5 says how much may be under way.
        "version" version: Version = Version::V3, Rule::Choice(&["3.1.1", "5"]),
            "With 5 the broker is told `in_flight` as Receive Maximum, and sends retained messages for new subscriptions only.";
        /// The client id at the broker. Two nodes must not share one.
        "client_id" client_id: Option<String> = None, Rule::Checked("1 to 256 bytes without control characters", check_client_id),
            "The broker keeps under it what the node has not acknowledged.", = "`tidegate-` and the bridge's name";
        /// The user name at the broker.
        "username" username: Option<String> = None, Rule::Checked("1 to 256 bytes without control characters", check_client_id),
            "It is sent as it is: use TLS.";
        /// The password at the broker.
        "password" password: Option<Secret> = None, Rule::Secret,
            "It is shown nowhere; `password_file` keeps it out of this file.";
        /// A file whose first line is the password.
        "password_file" password_file: Option<PathBuf> = None, Rule::Path,
            "It is read when the node starts.";
        /// A file with the certificates (PEM) that sign the broker's; without it those of the system count.
        "ca_file" ca_file: Option<PathBuf> = None, Rule::Path,
            "Needs an `mqtts://` address. It is read anew for each connection.";
        /// A file with the node's own certificate (PEM) and its chain, for brokers that ask for one.
        "certificate_file" certificate_file: Option<PathBuf> = None, Rule::Path,
            "Needs `key_file`. It is read anew for each connection.";
        /// A file with the key (PEM) of `certificate_file`.
        "key_file" key_file: Option<PathBuf> = None, Rule::Path,
            "Needs `certificate_file`.";
        /// Whether the broker forgets the node when it is gone.
        "clean" clean: bool = false, Rule::Switch,
            "false: the broker keeps its messages while the node is away. true: what is published meanwhile is lost.";
        /// Time without a packet after which the broker is asked whether it is still there.
        "keep_alive_ms" keep_alive: Duration = Duration::from_secs(30), Rule::Millis(1_000, 3_600_000),
            "A broker that does not answer within 10 s is connected to anew. Rounded down to seconds.";
        /// Messages of the broker that may be under way at a time.
        "in_flight" in_flight: u16 = limits::BRIDGE_IN_FLIGHT, Rule::Count(1, 10_000),
            "At the limit the broker's socket is not read.";
    }
}

row! {
    /// What a bridge subscribes to, and which devices its messages belong to. The first subscription that matches a topic counts.
    Subscription["bridge.subscription"] => {
        /// A filter; levels in braces are wildcards with a name: `factory/{site}/{device}/telemetry`. `$share/group/…` shares.
        "filter" filter: Option<Pattern> = None, Rule::Checked("an MQTT filter whose levels may be named: a/{site}/+/#", check_filter),
            "The broker is asked for the filter with `+` for each name.", needed;
        /// The quality of service that is asked for.
        "qos" qos: u8 = 1, Rule::Count(0, 2),
            "0: what is under way when the node or the connection dies is lost. 1 and 2: it comes again.";
        /// The device id of a topic: `{name}` is a named level, `{2}` the second one, `{last}` the last one.
        "device" device: Option<Template> = None, Rule::Checked("a text with {name}, {number} or {last}", check_template),
            "A topic that makes no device id is refused, counted and acknowledged.", = "none: each object names its device in `deviceId`";
        /// The field for payloads that are one value, such as `21.5`: a text like `device`'s.
        "field" field: Option<Template> = None, Rule::Checked("a text with {name}, {number} or {last}; not \"ts\" or \"deviceId\"", check_field),
            "Objects are taken as they are all the same.", = "none: a payload that is no object is refused";
        /// Whether retained messages, which the broker sends when the node subscribes, are readings.
        "retained" retained: bool = true, Rule::Switch,
            "false: they are acknowledged and left out.";
    }
}

fn check_name(text: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match text.chars().all(fits) && (1..=64).contains(&text.len()) {
        true => Ok(()),
        false => Err("is no name".to_owned()),
    }
}

fn check_client_id(text: &str) -> Result<(), String> {
    match text {
        "" => Err("is empty".to_owned()),
        _ if text.len() > 256 => Err("is too long".to_owned()),
        _ if text.chars().any(char::is_control) => Err("has a control character".to_owned()),
        _ => Ok(()),
    }
}

fn check_url(text: &str) -> Result<(), String> {
    BrokerUrl::parse(text).map(drop)
}

fn check_filter(text: &str) -> Result<(), String> {
    Pattern::parse(text).map(drop)
}

fn check_template(text: &str) -> Result<(), String> {
    Template::parse(text).map(drop)
}

fn check_field(text: &str) -> Result<(), String> {
    if matches!(text, "ts" | "deviceId") { Err("has a meaning of its own".to_owned()) } else { check_template(text) }
}

macro_rules! parsed_fields {
    ($($type:ty),+) => {$(
        impl Field for $type {
            fn from_value(value: Value) -> Option<Self> {
                Self::parse(&String::from_value(value)?).ok()
            }
            fn to_value(&self) -> Value {
                Value::Text(self.to_string())
            }
        }
    )+};
}

parsed_fields!(BrokerUrl, Pattern, Template);
optional_fields!(BrokerUrl, Pattern, Template);

impl Field for Version {
    fn from_value(value: Value) -> Option<Self> {
        match String::from_value(value)?.as_str() {
            "3.1.1" => Some(Self::V3),
            "5" => Some(Self::V5),
            _ => None,
        }
    }

    fn to_value(&self) -> Value {
        Value::Text(self.name().to_owned())
    }
}

impl Bridge {
    /// The client id at the broker.
    pub(crate) fn client_id(&self) -> String {
        self.client_id.clone().unwrap_or_else(|| format!("tidegate-{}", self.name))
    }
}

/// The bridges of a file; what is wrong with a single value goes to `problems`.
pub(super) fn read(raw: Vec<RawRow>, places: &mut Places, problems: &mut Vec<Problem>) -> Vec<Bridge> {
    let fill = |(index, row): (usize, RawRow)| {
        let path = format!("bridge[{index}]");
        let at = path.clone();
        rows::fill(&path, row, places, problems, |bridge: &mut Bridge, rows, places, problems| {
            let fill = |(index, row)| {
                let path = format!("{at}.subscription[{index}]");
                rows::fill(&path, row, places, problems, |_: &mut Subscription, _, _, _| {})
            };
            bridge.subscriptions = rows.into_iter().enumerate().map(fill).collect();
        })
    };
    raw.into_iter().enumerate().map(fill).collect()
}

/// Reads the password files, and says what does not fit together in bridges whose values are fine each by itself.
pub(super) fn finish(bridges: &mut [Bridge], places: &Places) -> Vec<Problem> {
    let mut problems = Vec::new();
    for at in 0..bridges.len() {
        let (before, rest) = bridges.split_at_mut(at);
        let Some(bridge) = rest.first_mut() else { continue };
        let path = format!("bridge[{at}]");
        // A key that was not given has no place: the row's beginning stands for it.
        let place = |name: &str| {
            let own = places.get(&format!("{path}.{name}")).or_else(|| places.get(&path));
            own.cloned().unwrap_or(Source::Default)
        };
        let mut tell = |name: &str, message: String| {
            problems.push(Problem::of_key(place(name), &format!("bridge.{name}"), format!("bridge.{name} {message}")));
        };
        judge(bridge, before, &mut tell);
        for (at, subscription) in bridge.subscriptions.iter().enumerate() {
            let Some(filter) = &subscription.filter else { continue };
            for (name, template) in [("device", &subscription.device), ("field", &subscription.field)] {
                if let Some(Err(wrong)) = template.as_ref().map(|template| template.check(filter)) {
                    tell(&format!("subscription[{at}].{name}"), wrong);
                }
            }
        }
        if let Some(file) = &bridge.password_file {
            match password_of(file) {
                Ok(password) => bridge.password = Some(password),
                Err(wrong) => tell("password_file", format!("= {file:?} {wrong}")),
            }
        }
    }
    problems
}

fn judge(bridge: &Bridge, before: &[Bridge], tell: &mut impl FnMut(&str, String)) {
    let name = &bridge.name;
    if before.len() == MOST {
        tell("name", format!("= {name:?} is one bridge too many; allowed: {MOST}"));
    }
    if before.iter().any(|other| other.name == *name) {
        tell("name", format!("= {name:?} is taken by another bridge; allowed: a name of its own"));
    }
    if before.iter().any(|other| other.url == bridge.url && other.client_id() == bridge.client_id()) {
        let message =
            "is another bridge's at the same broker, and the broker keeps one of two; allowed: one of its own";
        tell("client_id", format!("= {:?} {message}", bridge.client_id()));
    }
    if bridge.subscriptions.is_empty() {
        tell("subscription", "is missing: nothing would be subscribed to; add a [[bridge.subscription]]".to_owned());
    }
    if bridge.subscriptions.len() > MOST {
        tell("subscription", format!("stands {} times; allowed: {MOST}", bridge.subscriptions.len()));
    }
    if bridge.password.is_some() && bridge.password_file.is_some() {
        tell("password_file", "is given beside password; allowed: one of them".to_owned());
    }
    if bridge.username.is_none() && (bridge.password.is_some() || bridge.password_file.is_some()) {
        tell("username", "is missing: a password without it is not MQTT 3.1.1".to_owned());
    }
    let tls = bridge.url.as_ref().is_some_and(|url| url.tls);
    for (name, file) in
        [("ca_file", &bridge.ca_file), ("certificate_file", &bridge.certificate_file), ("key_file", &bridge.key_file)]
    {
        if file.is_some() && !tls {
            tell(name, "is for TLS; allowed: beside an mqtts:// address".to_owned());
        }
    }
    match (&bridge.certificate_file, &bridge.key_file) {
        (Some(_), None) => tell("key_file", "is missing: certificate_file needs it".to_owned()),
        (None, Some(_)) => tell("certificate_file", "is missing: key_file needs it".to_owned()),
        _ => {}
    }
}

fn password_of(file: &PathBuf) -> Result<Secret, String> {
    let mut text = String::new();
    let read = fs::File::open(file).and_then(|file| file.take(PASSWORD_FILE_BYTES).read_to_string(&mut text));
    read.map_err(|error| format!("cannot be read: {error}"))?;
    match text.lines().next().unwrap_or_default() {
        "" => Err("has an empty first line; allowed: the password in it".to_owned()),
        password => Ok(Secret::new(password)),
    }
}

/// The bridges for `config show`.
pub(super) fn toml(bridges: &[Bridge], places: &Places) -> String {
    let mut text = String::new();
    for (at, bridge) in bridges.iter().enumerate() {
        let path = format!("bridge[{at}]");
        text += &rows::toml(&path, bridge, places);
        for (at, subscription) in bridge.subscriptions.iter().enumerate() {
            text += &rows::toml(&format!("{path}.subscription[{at}]"), subscription, places);
        }
    }
    text
}

/// The bridges for `config show --json`.
pub(super) fn json(bridges: &[Bridge], places: &Places) -> Json {
    let one = |(at, bridge): (usize, &Bridge)| {
        let path = format!("bridge[{at}]");
        let mut row = rows::json(&path, bridge, places);
        let subscriptions = bridge.subscriptions.iter().enumerate();
        let subscriptions = subscriptions.map(|(at, subscription)| {
            Json::Object(rows::json(&format!("{path}.subscription[{at}]"), subscription, places))
        });
        row.insert("subscription".to_owned(), subscriptions.collect());
        Json::Object(row)
    };
    bridges.iter().enumerate().map(one).collect()
}

/// The reference.
pub(super) fn markdown() -> String {
    rows::markdown::<Bridge>() + &rows::markdown::<Subscription>()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::{Loaded, load, show};

    fn load_text(text: &str) -> Result<Loaded, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        load(Some(file.path()), std::iter::empty(), &[]).map_err(|problems| {
            problems.to_string().replace(&*file.path().to_string_lossy(), "t.toml").replace("error: ", "")
        })
    }

    #[track_caller]
    fn refused(text: &str, expected: &[&str]) {
        let problems = load_text(text).err().unwrap_or_default();
        let lines: Vec<_> = problems.lines().collect();
        assert_eq!(lines, expected, "{text}");
    }

    const WHOLE: &str = "[[bridge]]
name = \"plant\"
url = \"mqtt://broker\"
username = \"u\"
password = \"hush\"
[[bridge.subscription]]
filter = \"factory/{site}/{device}/telemetry\"
device = \"{site}-{device}\"
[[bridge.subscription]]
filter = \"one/{d}/{what}\"
device = \"{d}\"
field = \"{last}\"
qos = 2
";

    #[test]
    fn a_bridge_is_read_shown_without_its_password_and_read_back() {
        let loaded = load_text(WHOLE).unwrap_or_else(|problems| panic!("{problems}"));
        let bridge = &loaded.config.bridges[0];
        assert_eq!(bridge.client_id(), "tidegate-plant");
        assert_eq!(bridge.password.as_ref().map(super::Secret::reveal), Some("hush"));
        assert_eq!(bridge.subscriptions[0].filter.as_ref().unwrap().subscribed(), "factory/+/+/telemetry");
        assert_eq!((bridge.subscriptions[0].qos, bridge.subscriptions[1].qos), (1, 2));
        assert_eq!(loaded.values_set(), 10);
        let (toml, json) = (show::toml(&loaded), show::json(&loaded).to_string());
        assert!(!toml.contains("hush") && !json.contains("hush") && !format!("{:?}", loaded.config).contains("hush"));
        assert!(toml.contains(":5:12\n"), "{toml}");
        let mut again = load_text(&toml).unwrap_or_else(|problems| panic!("{problems}")).config;
        again.bridges[0].password.clone_from(&bridge.password);
        assert_eq!(again, loaded.config);
    }

    #[test]
    fn single_values() {
        let with = |line: &str| WHOLE.replace("url = \"mqtt://broker\"", line);
        refused(
            &with("url = \"tcp://broker\""),
            &[
                "t.toml:3:7: bridge.url = \"tcp://broker\" has the scheme \"tcp\"; allowed: mqtt://host:port, or mqtts://host:port for TLS",
            ],
        );
        refused(
            &with(""),
            &["t.toml:1:1: this [[bridge]] has no url; allowed: mqtt://host:port, or mqtts://host:port for TLS"],
        );
        refused(&with("url = \"mqtt://broker\"\nqos = 1"), &["t.toml:4:1: unknown key bridge.qos"]);
        refused(
            &with("url = \"mqtt://broker\"\nusernam = 1"),
            &["t.toml:4:1: unknown key bridge.usernam; did you mean bridge.username?"],
        );
        refused(
            &WHOLE.replace("qos = 2", "qos = 3"),
            &["t.toml:13:7: bridge.subscription.qos = 3 is out of range; allowed: an integer from 0 to 2"],
        );
        refused(
            &WHOLE.replace("\"hush\"", "12345"),
            &["t.toml:5:12: bridge.password = … is an integer; allowed: a text of 1 to 65535 bytes"],
        );
        refused("[bridge]\nname = \"a\"", &["t.toml:1:2: bridge is a list of tables: begin each with [[bridge]]"]);
        refused("bridge = 3", &["t.toml:1:1: bridge is a list of tables: begin each with [[bridge]]"]);
        refused("[[bridg]]\nname = \"a\"", &["t.toml:1:3: unknown section [[bridg]]; did you mean [[bridge]]?"]);
        refused(
            &WHOLE.replace("[[bridge.subscription]]\nfilter = \"one", "[[bridge.subscriptions]]\nfilter = \"one"),
            &["t.toml:9:10: unknown key bridge.subscriptions; did you mean bridge.subscription?"],
        );
    }

    #[test]
    fn what_does_not_fit_together() {
        refused(
            &WHOLE.replace("device = \"{site}-{device}\"", "device = \"{sit}\""),
            &[
                "t.toml:8:10: bridge.subscription[0].device has {sit}, and no level of the filter factory/{site}/{device}/telemetry is named so",
            ],
        );
        refused(
            &WHOLE.replace("username = \"u\"\n", ""),
            &["t.toml:1:1: bridge.username is missing: a password without it is not MQTT 3.1.1"],
        );
        refused(
            &WHOLE.replace("username", "ca_file = \"ca.pem\"\nusername"),
            &["t.toml:4:11: bridge.ca_file is for TLS; allowed: beside an mqtts:// address"],
        );
        refused(
            "[[bridge]]\nname = \"a\"\nurl = \"mqtt://b\"",
            &[
                "t.toml:1:1: bridge.subscription is missing: nothing would be subscribed to; add a [[bridge.subscription]]",
            ],
        );
        let missing = WHOLE.replace("password = \"hush\"", "password_file = \"/nowhere/at/all\"");
        let problems = load_text(&missing).err().unwrap();
        assert!(
            problems.starts_with("t.toml:5:17: bridge.password_file = \"/nowhere/at/all\" cannot be read"),
            "{problems}"
        );
        refused(
            &format!("{WHOLE}{WHOLE}"),
            &[
                "t.toml:14:1: bridge.client_id = \"tidegate-plant\" is another bridge's at the same broker, and the broker keeps one of two; allowed: one of its own",
                "t.toml:15:8: bridge.name = \"plant\" is taken by another bridge; allowed: a name of its own",
            ],
        );
    }

    #[test]
    fn a_password_file_gives_its_first_line() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"hush hush\r\nmore").unwrap();
        let text = WHOLE.replace("password = \"hush\"", &format!("password_file = {:?}", file.path()));
        let loaded = load_text(&text).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(loaded.config.bridges[0].password.as_ref().map(super::Secret::reveal), Some("hush hush"));
        // The text of a file is as little shown as a password that stands here.
        assert!(!show::toml(&loaded).contains("hush"));
    }
}
