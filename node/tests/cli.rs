//! The command line from outside: what the built binary prints and how it exits.

use std::{
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

/// A working directory of its own, so that no file or variable of the developer's takes part.
struct Sandbox(TempDir);

impl Sandbox {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    /// With `text` as `./tidegate.toml`.
    fn with_file(text: &str) -> Self {
        let sandbox = Self::new();
        std::fs::write(sandbox.0.path().join("tidegate.toml"), text).expect("the file is written");
        sandbox
    }

    fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Outcome {
        let ours =
            std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("TIDEGATE_"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        for name in ours {
            command.env_remove(name);
        }
        command.current_dir(self.0.path()).args(arguments).envs(variables.iter().copied());
        command.output().expect("the binary starts").into()
    }

    /// `config show`'s line of `key`, spaces squeezed.
    fn shown(&self, key: &str, flags: &[&str], variables: &[(&str, &str)]) -> String {
        let outcome = self.run(&[&["config", "show"], flags].concat(), variables);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{}", outcome.stdout);
        let line = outcome.stdout.lines().find(|line| line.starts_with(&format!("{key} ="))).expect("the key is shown");
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

struct Outcome {
    code: i32,
    stdout: String,
    stderr: String,
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it exits by itself"),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

/// Every command that loads the configuration refuses it with the same words and 78.
#[track_caller]
fn refused(sandbox: &Sandbox, flags: &[&str], variables: &[(&str, &str)], expected: &str) {
    for command in [&["serve"][..], &["demo"], &["config", "check"], &["config", "show"]] {
        let outcome = sandbox.run(&[command, flags].concat(), variables);
        assert_eq!(outcome.stderr.trim_end(), expected, "{command:?}");
        assert_eq!((outcome.code, outcome.stdout.as_str()), (78, ""), "{command:?}");
    }
}

#[test]
fn wrong_files_are_refused_with_line_and_column() {
    refused(
        &Sandbox::with_file("[mqtt]\nbnd = \"127.0.0.1:1883\"\n"),
        &[],
        &[],
        "error: tidegate.toml:2:1: unknown key mqtt.bnd; did you mean mqtt.bind?",
    );
    refused(
        &Sandbox::with_file("[scripts]\nworkers = \"two\"\n"),
        &[],
        &[],
        "error: tidegate.toml:2:11: scripts.workers = \"two\" is a string; allowed: an integer from 1 to 256",
    );
    refused(
        &Sandbox::with_file("[http.limits]\n\nheader_timeout_ms = 1\n"),
        &[],
        &[],
        "error: tidegate.toml:3:21: http.limits.header_timeout_ms = 1 is out of range; \
         allowed: milliseconds, an integer from 100 to 600000",
    );
    let outcome = Sandbox::with_file("[mqtt\n").run(&["config", "check"], &[]);
    assert!(outcome.stderr.starts_with("error: tidegate.toml:1:6: is not TOML: "), "{}", outcome.stderr);
    assert_eq!(outcome.code, 78);
}

#[test]
fn wrong_variables_and_flags_are_refused_by_name() {
    let sandbox = Sandbox::new();
    refused(
        &sandbox,
        &[],
        &[("TIDEGATE_HTTP__BNID", "127.0.0.1:1")],
        "error: TIDEGATE_HTTP__BNID: unknown variable; did you mean TIDEGATE_HTTP__BIND?",
    );
    refused(
        &sandbox,
        &[],
        &[("TIDEGATE_LOG", "inof")],
        "error: TIDEGATE_LOG: log.level = \"inof\" holds \"inof\", which is not a level; \
         allowed: off, error, warn, info, debug, trace, or levels by target: \"info,tidegate=debug\"",
    );
    refused(
        &sandbox,
        &["--loops", "-1"],
        &[],
        "error: --loops: runtime.loops = \"-1\" is out of range; allowed: an integer from 1 to 256",
    );
    refused(
        &sandbox,
        &["--mqtt-bind", "127.0.0.1:66000"],
        &[],
        "error: --mqtt-bind: mqtt.bind = \"127.0.0.1:66000\" has the port \"66000\", which is not from 0 to 65535; \
         allowed: an address and a port, such as 127.0.0.1:1883 or [::1]:1883, or a list of at most 16; \
         [] for none",
    );
}

#[test]
fn an_address_that_others_can_reach_needs_the_flag() {
    let sandbox = Sandbox::new();
    for (flag, key) in [("--mqtt-bind", "mqtt.bind"), ("--http-bind", "http.bind")] {
        refused(
            &sandbox,
            &[flag, "0.0.0.0:1234"],
            &[],
            &format!(
                "error: {flag}: {key} = 0.0.0.0:1234 can be reached from other machines, and nobody would have to \
                 authenticate; allowed: users (tidegate user add), a loopback address such as 127.0.0.1:1234, or --insecure-allow-anonymous \
                 (security.insecure_allow_anonymous = true) if that is what you want"
            ),
        );
        let arguments = ["config", "check", flag, "0.0.0.0:1234", "--insecure-allow-anonymous"];
        assert_eq!(sandbox.run(&arguments, &[]).code, 0);
        let variable = ("TIDEGATE_SECURITY__INSECURE_ALLOW_ANONYMOUS", "true");
        assert_eq!(sandbox.run(&arguments[..4], &[variable]).code, 0);
    }
}

#[test]
fn flags_win_over_variables_over_the_file_over_defaults() {
    let variable = [("TIDEGATE_DATA__DIR", "from-variable")];
    let flag = ["--data-dir", "from-flag"];
    let sandbox = Sandbox::new();
    assert_eq!(sandbox.shown("dir", &[], &[]), "dir = \"./tidegate-data\" # default");
    let sandbox = Sandbox::with_file("[data]\ndir = \"from-file\"\n");
    assert_eq!(sandbox.shown("dir", &[], &[]), "dir = \"from-file\" # tidegate.toml:2:7");
    assert_eq!(sandbox.shown("dir", &[], &variable), "dir = \"from-variable\" # TIDEGATE_DATA__DIR");
    assert_eq!(sandbox.shown("dir", &flag, &variable), "dir = \"from-flag\" # --data-dir");
}

#[test]
fn a_named_file_replaces_the_default_one() {
    let sandbox = Sandbox::with_file("nonsense");
    std::fs::write(sandbox.0.path().join("other.toml"), "[data]\nsegment_bytes = 4_194_304\n").unwrap();
    let shown = sandbox.shown("segment_bytes", &["--config", "other.toml"], &[]);
    assert_eq!(shown, "segment_bytes = \"4MiB\" # other.toml:2:17");
}

#[test]
fn files_that_are_missing_or_directories_are_refused() {
    let sandbox = Sandbox::new();
    let missing = "error: missing.toml: cannot be read: there is no such file";
    refused(&sandbox, &["--config", "missing.toml"], &[], missing);
    std::fs::create_dir(sandbox.0.path().join("tidegate.toml")).unwrap();
    refused(&sandbox, &[], &[], "error: tidegate.toml: cannot be read: it is a directory");
}

#[test]
fn the_shown_configuration_can_be_used_as_a_file() {
    let sandbox = Sandbox::new();
    let first = sandbox.run(&["config", "show", "--mqtt-bind", "127.0.0.1:1,[::1]:2", "--log-format", "json"], &[]);
    std::fs::write(sandbox.0.path().join("tidegate.toml"), &first.stdout).unwrap();
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("  #").next().unwrap_or(line).trim_end().to_owned()).collect()
    };
    let second = sandbox.run(&["config", "show"], &[]);
    assert_eq!(values(&second.stdout), values(&first.stdout));
    assert!(second.stdout.contains("tidegate.toml:"), "{}", second.stdout);
}

#[test]
fn answers_as_json() {
    let sandbox = Sandbox::with_file("[mqtt.limits]\npacket_bytes = \"2MiB\"\n");
    let json = |arguments: &[&str], code: i32| -> serde_json::Value {
        let outcome = sandbox.run(arguments, &[]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (code, ""));
        serde_json::from_str(&outcome.stdout).expect("JSON")
    };
    let shown = json(&["config", "show", "--json"], 0);
    assert_eq!(shown["mqtt.limits.packet_bytes"]["value"], 2 * 1024 * 1024);
    let source = serde_json::json!({ "kind": "file", "at": "tidegate.toml:2:16" });
    assert_eq!(shown["mqtt.limits.packet_bytes"]["source"], source);
    assert_eq!(shown["mqtt.bind"]["value"], serde_json::json!(["127.0.0.1:1883"]));
    assert_eq!(json(&["config", "check", "--json"], 0)["ok"], true);
    let refused = json(&["config", "check", "--json", "--loops", "0"], 78);
    assert_eq!(refused["ok"], false);
    assert_eq!(refused["problems"][0]["key"], "runtime.loops");
    assert_eq!(refused["problems"][0]["source"], serde_json::json!({ "kind": "flag", "at": "--loops" }));
}

#[test]
fn help_lists_the_commands_and_hides_the_worker() {
    let outcome = Sandbox::new().run(&["--help"], &[("NO_COLOR", "1")]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    for command in ["serve", "demo", "swarm", "script", "config"] {
        assert!(outcome.stdout.contains(&format!("\n  {command} ")), "{command}\n{}", outcome.stdout);
    }
    assert!(!outcome.stdout.contains("script-worker"), "{}", outcome.stdout);
    assert!(!outcome.stdout.contains('\u{1b}'), "{}", outcome.stdout);
}

#[test]
fn every_command_has_help() {
    let sandbox = Sandbox::new();
    let commands: [&[&str]; 8] = [
        &["serve"],
        &["demo"],
        &["swarm"],
        &["script"],
        &["script", "check"],
        &["config"],
        &["config", "check"],
        &["config", "show"],
    ];
    for command in commands {
        let outcome = sandbox.run(&[command, &["--help"]].concat(), &[]);
        assert_eq!(outcome.code, 0, "{command:?}");
        assert!(outcome.stdout.contains("Usage: tidegate"), "{command:?}");
    }
}

#[test]
fn version_and_usage_errors() {
    let sandbox = Sandbox::new();
    let version = sandbox.run(&["--version"], &[]);
    assert_eq!((version.code, version.stdout), (0, format!("tidegate {}\n", env!("CARGO_PKG_VERSION"))));
    let wrong: [&[&str]; 4] = [&[], &["sreve"], &["serve", "--nonsense"], &["config", "check", "--config"]];
    for arguments in wrong {
        let outcome = sandbox.run(arguments, &[]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""), "{arguments:?}");
        assert!(outcome.stderr.contains("--help") || outcome.stderr.contains("Usage:"), "{arguments:?}");
    }
    assert!(sandbox.run(&["sreve"], &[]).stderr.contains("serve"));
}

#[test]
fn nothing_is_written_where_nothing_is_served() {
    let sandbox = Sandbox::new();
    sandbox.run(&["config", "check"], &[]);
    sandbox.run(&["config", "show"], &[]);
    let left: Vec<_> = std::fs::read_dir(Path::new(sandbox.0.path())).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
