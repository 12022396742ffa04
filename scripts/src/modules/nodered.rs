//! Bodies of Node-RED's function nodes as handlers: `NAME.nodered.js` holds the body, comment lines that begin with `// nodered` say what the
//! editor's form would. Here the file becomes the source of a CommonJS module, line by line where it was; what the body then finds
//! (`msg`, `node`, `context` …) is in `worker/modules/library/nodered.js`.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Class, ResolveError, tokens::tokens};

/// How a body's file ends.
const END: &str = ".nodered.js";
/// How a line of settings begins.
const MARK: &str = "// nodered ";
/// Outputs of a body.
const OUTPUTS: u32 = 50;
/// The parameters of a body's functions.
const PARAMETERS: &str = "msg, node, context, flow, global, env, RED, util, setTimeout, clearTimeout, setInterval, clearInterval, setImmediate, clearImmediate, __libs__";

/// Is it the file of a body?
pub(crate) fn is_body(path: &str) -> bool {
    path.ends_with(END)
}

/// The modules that the settings of a body ask for.
pub(crate) fn libs_of(source: &str) -> impl Iterator<Item = &str> {
    let settings = source.lines().filter_map(|line| line.trim_end().strip_prefix(MARK).map(str::trim));
    settings.filter_map(|setting| setting.strip_prefix("lib ")?.split_once(':').map(|(_, module)| module.trim()))
}

/// What the lines of settings say.
#[derive(Debug, Serialize)]
struct Settings<'a> {
    name: &'a str,
    id: &'a str,
    outputs: u32,
    devices: Option<Vec<&'a str>>,
    topics: Option<Vec<&'a str>>,
    /// By output, from 1: the name of its event, or of its command.
    events: Vec<(u32, &'a str)>,
    commands: Vec<(u32, &'a str)>,
    env: Vec<(&'a str, &'a str)>,
    /// Variable and module.
    libs: Vec<(&'a str, &'a str)>,
    /// Does it say itself when it is done?
    done: bool,
    /// Does it use `util`?
    util: bool,
    /// Names the code of On Start: when that changes, it runs again.
    mark: String,
}

/// A body as the source of a CommonJS module: what goes before it on its first line, and the rest.
///
/// # Errors
/// A line of settings that makes no sense.
pub(crate) fn module_of(path: &str, source: &str) -> Result<(String, String), ResolveError> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let mut settings = Settings {
        name: file.strip_suffix(END).unwrap_or(file),
        id: file,
        outputs: 1,
        devices: None,
        topics: None,
        events: Vec::new(),
        commands: Vec::new(),
        env: Vec::new(),
        libs: Vec::new(),
        done: is_done_called(source),
        util: source.contains("util."),
        mark: String::new(),
    };
    let mut start = Sha256::new();
    let mut body = String::with_capacity(source.len() + 64);
    let (mut has_start, mut has_stop) = (false, false);
    for (number, line) in (1..).zip(source.split_inclusive('\n')) {
        let Some(setting) = line.trim_end().strip_prefix(MARK).map(str::trim) else {
            if has_start && !has_stop {
                start.update(line);
            }
            body.push_str(line);
            continue;
        };
        let end = if line.ends_with('\n') { "\n" } else { "" };
        let part = match setting {
            "on start" if !has_start && !has_stop => {
                has_start = true;
                format!("}}, start: async function ({PARAMETERS}) {{{end}")
            }
            "on stop" if !has_stop => {
                has_stop = true;
                format!("}}, stop: async function ({PARAMETERS}) {{{end}")
            }
            _ => {
                read(setting, &mut settings).map_err(|why| {
                    let message = format!("{why} at line {number}, col 1 in {path}");
                    ResolveError::new(Class::SyntaxError, "", message)
                })?;
                line.to_owned()
            }
        };
        body.push_str(&part);
    }
    settings.mark = start.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let json = serde_json::to_string(&settings).unwrap_or_default();
    // The modules are variables of the body, as in Node-RED.
    let libs: String = settings
        .libs
        .iter()
        .enumerate()
        .fold(String::new(), |all, (at, (name, _))| format!("{all}const {name} = __libs__[{at}]; "));
    let before = format!(
        "(function (exports, require, module, __filename, __dirname, __nodered) {{ __nodered(module, require, {json}, {{ message: async \
         function ({PARAMETERS}) {{ {libs}"
    );
    Ok((before, format!("{body}\n}} }}) }})")))
}

/// Takes in a setting.
fn read<'a>(setting: &'a str, settings: &mut Settings<'a>) -> Result<(), String> {
    let (key, value) = setting.split_once(':').ok_or_else(|| unknown(setting))?;
    let (key, value) = (key.trim(), value.trim());
    let list = || value.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    match key.split_once(' ').map_or((key, ""), |(key, of)| (key, of.trim())) {
        ("name", "") => settings.name = value,
        ("id", "") => settings.id = value,
        ("outputs", "") => {
            let outputs = value.parse().ok().filter(|outputs| *outputs <= OUTPUTS);
            settings.outputs =
                outputs.ok_or_else(|| format!("outputs is a number from 0 to {OUTPUTS}, not {value:?}"))?;
        }
        ("devices", "") => settings.devices = Some(list()),
        ("topics", "") => settings.topics = Some(list()),
        ("output", of) => {
            let number = of.parse().ok().filter(|number| (2..=OUTPUTS).contains(number));
            let number = number.ok_or_else(|| {
                format!("output is followed by a number from 2 to {OUTPUTS} (1 is the device's state), not {of:?}")
            })?;
            match value.strip_prefix("command ") {
                Some(name) => settings.commands.push((number, name.trim())),
                None if value.is_empty() => return Err("an output is given the name of its event".to_owned()),
                None => settings.events.push((number, value)),
            }
        }
        ("env", name) if !name.is_empty() => settings.env.push((name, value)),
        ("lib", name) if is_name(name) => settings.libs.push((name, value)),
        ("lib", name) => return Err(format!("lib is followed by the name of a variable, not {name:?}")),
        _ => return Err(unknown(setting)),
    }
    Ok(())
}

/// Does a body call `node.done()`? In Node-RED, too, it then says itself when it is done. (A comment does not.)
fn is_done_called(source: &str) -> bool {
    let tokens = tokens(source);
    tokens.windows(4).any(|four| {
        let [(_, node), (_, dot), (_, done), (_, bracket)] = four else { return false };
        node.is_word("node") && dot.is(b'.') && done.is_word("done") && bracket.is(b'(')
    })
}

fn unknown(setting: &str) -> String {
    format!(
        "\"// nodered {setting}\" is no setting: there are name, id, outputs, output N, devices, topics, env NAME, lib NAME (each with a \
         colon), on start, on stop"
    )
}

fn is_name(name: &str) -> bool {
    let starts = name.starts_with(|char: char| char.is_ascii_alphabetic() || char == '_' || char == '$');
    starts && name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_' || char == '$')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_becomes_a_module_with_its_lines_where_they_were() {
        let source = "// nodered name: Check: it\n// nodered outputs: 3\n// nodered devices: a-*, b\n// nodered output 2: high\n\
                      // nodered output 3: command stop\n// nodered env LIMIT: 9\n// nodered lib moment: moment\nreturn msg;\n\
                      // nodered on start\nlet x;\n// nodered on stop\nlet y;\n";
        let (before, body) = module_of("lib/x.nodered.js", source).expect("a body");
        for part in [
            r#""name":"Check: it","id":"x.nodered.js","outputs":3,"devices":["a-*","b"],"topics":null"#,
            r#""events":[[2,"high"]],"commands":[[3,"stop"]],"env":[["LIMIT","9"]],"libs":[["moment","moment"]]"#,
            "const moment = __libs__[0];",
        ] {
            assert!(before.contains(part), "{part} in {before}");
        }
        assert!(!before.contains('\n'));
        let lines: Vec<_> = body.lines().collect();
        assert_eq!((lines[7], lines[9], lines[11]), ("return msg;", "let x;", "let y;"));
        assert!(lines[8].starts_with("}, start: ") && lines[10].starts_with("}, stop: "));
    }

    #[test]
    fn a_body_that_calls_done_is_known() {
        for (source, called) in [
            ("node.done();", true),
            ("x(() => node . done (error));", true),
            ("// node.done();", false),
            ("'node.done()'", false),
            ("node.donee()", false),
            ("", false),
        ] {
            assert_eq!(is_done_called(source), called, "{source}");
        }
    }

    #[test]
    fn a_setting_that_makes_no_sense_is_told_with_its_line() {
        for (line, words) in [
            ("// nodered outputs: many", "outputs is a number"),
            ("// nodered output 1: x", "1 is the device's state"),
            ("// nodered output 2:", "name of its event"),
            ("// nodered device: x", "is no setting"),
            ("// nodered on fire", "is no setting"),
            ("// nodered lib a-b: x", "name of a variable"),
        ] {
            let error = module_of("x.nodered.js", &format!("\n{line}\n")).expect_err("no setting");
            assert!(error.message.contains(words), "{}", error.message);
            assert!(error.message.ends_with(" at line 2, col 1 in x.nodered.js"), "{}", error.message);
        }
    }
}
