//! The commands with a dot: what they mean. Those that ask a node are evaluated as the prelude's `__dot__`.

use serde_json::json;

/// What `.help` says.
pub(super) const HELP: &str = "\
.help                this
.devices [PREFIX]    devices with their states
.scripts             handlers, their breakers and times
.loops               loops and their lags
.ledger              what became of every reading
.services            the nodes of this session, and how they are
.connect NODE        ask another node: an address, or a number of .services
.history [N]         what was typed last
.exit                leave (as Ctrl-D does)

device(\"d1\")                         a device; .state .at .version .connected .ledger .shadow .commands .parked
device(\"d1\").state.temperature       a field of its state
device(\"d1\").command(name, params)   sends it a command
devices(\"pump-\")                     devices by the beginning of their ids
find({ temperature: { $gt: 30 } }, { limit: 10, fields: [\"temperature\"] })
count({ mode: { $in: [\"auto\", \"boost\"] } })
call(\"GET\", \"/devices\")              any request: docs/http.md
ledger() scripts() loops() metrics() overview() parked() sleep(ms) console.table(rows)

What asks a node is a promise; the prompt waits for it. In between: await. _ is the last value.
Ctrl-C ends what runs, twice leaves. Tab completes. A line that begins with a space is not kept.
";

/// The names, as Tab offers them.
pub(super) const NAMES: [&str; 9] =
    [".help", ".devices", ".scripts", ".loops", ".ledger", ".services", ".connect", ".history", ".exit"];

/// A command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Dot {
    Help,
    Exit,
    History(usize),
    /// A script.
    Evaluate(String),
}

impl Dot {
    /// Does this begin as a command does? (`.5` is a number.)
    pub(super) fn is_one(typed: &str) -> bool {
        typed
            .trim_start()
            .strip_prefix('.')
            .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_alphabetic()))
    }

    /// Reads a command; `None`: it is none.
    ///
    /// # Errors
    /// There is no such command, in words.
    pub(super) fn read(typed: &str) -> Option<Result<Self, String>> {
        if !Self::is_one(typed) {
            return None;
        }
        let (name, rest) = typed.trim().split_once(char::is_whitespace).unwrap_or((typed.trim(), ""));
        let rest = rest.trim();
        Some(match name {
            ".help" => Ok(Self::Help),
            ".exit" => Ok(Self::Exit),
            ".history" => match rest {
                "" => Ok(Self::History(20)),
                rest => rest
                    .parse()
                    .map(Self::History)
                    .map_err(|_| format!(".history {rest}: a number of lines, such as .history 50")),
            },
            ".devices" | ".connect" => Ok(evaluate(name, rest)),
            ".scripts" | ".loops" | ".ledger" | ".services" if rest.is_empty() => Ok(evaluate(name, "")),
            ".scripts" | ".loops" | ".ledger" | ".services" => Err(format!("{name} takes nothing behind it")),
            _ => Err(format!("there is no {name}; there are {}", NAMES.join(" "))),
        })
    }
}

/// A statement, so that it has no value.
fn evaluate(name: &str, argument: &str) -> Dot {
    Dot::Evaluate(format!("if (true) await __dot__({}, {})", json!(name.trim_start_matches('.')), json!(argument)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_and_what_is_none_is_left() {
        for none in ["count()", ".5 + 1", "", "a.b", "..."] {
            assert_eq!(Dot::read(none), None, "{none}");
        }
        assert_eq!(Dot::read(" .help "), Some(Ok(Dot::Help)));
        assert_eq!(Dot::read(".history 5"), Some(Ok(Dot::History(5))));
        let script = r#"if (true) await __dot__("devices", "pump-\"7")"#.to_owned();
        assert_eq!(Dot::read(".devices  pump-\"7 "), Some(Ok(Dot::Evaluate(script))));
        for (wrong, words) in [
            (".load x", "there is no .load; there are .help"),
            (".loops 3", "takes nothing"),
            (".history x", "a number"),
        ] {
            assert!(matches!(Dot::read(wrong), Some(Err(error)) if error.contains(words)), "{wrong}");
        }
    }

    #[test]
    fn help_names_every_command() {
        NAMES.iter().for_each(|name| assert!(HELP.contains(name), "{name}"));
    }
}
