//! `tidegate script import-nodered`: the function nodes of an exported flow as handlers, and what could not be taken along.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::output;

/// Largest file of flows, in bytes.
const FLOWS_BYTES: u64 = 64 * 1024 * 1024;
/// Characters of a file's name that come from a node's name.
const SLUG_CHARS: usize = 40;

/// A node of a flow, as far as it is looked at.
#[derive(Debug, Deserialize)]
struct Node {
    #[serde(default)]
    id: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    label: String,
    /// The tab or subflow that it is in.
    #[serde(default)]
    z: String,
    /// Switched off.
    #[serde(default)]
    d: bool,
    #[serde(default)]
    disabled: bool,
    #[serde(default)]
    func: Option<String>,
    #[serde(default)]
    initialize: String,
    #[serde(default)]
    finalize: String,
    #[serde(default)]
    outputs: Option<u32>,
    #[serde(default)]
    libs: Vec<Lib>,
    #[serde(default)]
    env: Vec<Variable>,
    #[serde(default)]
    wires: Value,
}

/// A module that a function node uses.
#[derive(Debug, Deserialize)]
struct Lib {
    var: String,
    module: String,
}

/// A variable of a tab or group.
#[derive(Debug, Deserialize)]
struct Variable {
    name: String,
    #[serde(default)]
    value: Value,
}

/// What became of the flows.
#[derive(Debug, Default)]
struct Taken {
    files: Vec<(PathBuf, String)>,
    notes: Vec<String>,
}

/// Writes the function nodes of a file of flows into a directory.
///
/// # Errors
/// The file is no export of flows, it has no function nodes, a file is there already, or cannot be written.
pub(crate) fn run(flows: &Path, out: &Path, force: bool) -> anyhow::Result<()> {
    let shown = flows.display();
    let bytes = fs::metadata(flows).with_context(|| format!("cannot read {shown}"))?.len();
    if bytes > FLOWS_BYTES {
        bail!("{shown} has {bytes} bytes, more than {FLOWS_BYTES} (limit flows_bytes)");
    }
    let text = fs::read_to_string(flows).with_context(|| format!("cannot read {shown}"))?;
    let nodes = nodes_of(&text).with_context(|| format!("{shown} is no export of flows"))?;
    let taken = take(&nodes, out);
    if taken.files.is_empty() {
        bail!("{shown} has no function nodes that are switched on");
    }
    if let Some((path, _)) = taken.files.iter().find(|(path, _)| !force && path.exists()) {
        bail!("{} is there already; nothing was written (--force replaces it)", path.display());
    }
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut told = String::new();
    for (path, text) in &taken.files {
        let written = fs::File::create(path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.with_context(|| format!("cannot write {}", path.display()))?;
        let _ = writeln!(told, "{}", path.display());
    }
    if !taken.notes.is_empty() {
        told.push_str("\nnot taken along, or other than in Node-RED:\n");
    }
    for note in &taken.notes {
        let _ = writeln!(told, "- {}", clean(note));
    }
    told.push_str("\nnext: name the devices of each (// nodered devices: ...), then tidegate script check\n");
    output::write(&told)
}

/// The nodes of an export: a list, or an object with a list `flows`.
fn nodes_of(text: &str) -> anyhow::Result<Vec<Node>> {
    let json: Value = serde_json::from_str(text)?;
    let list = match json {
        Value::Object(mut object) => object.remove("flows").unwrap_or_default(),
        other => other,
    };
    let Value::Array(list) = list else { bail!("it is neither a list of nodes nor an object with flows") };
    let node = |value: Value| {
        let id = value["id"].as_str().unwrap_or("?").to_owned();
        serde_json::from_value(value).with_context(|| format!("the node {id}"))
    };
    list.into_iter().map(node).collect()
}

/// The files of the function nodes, and notes on the rest.
fn take(nodes: &[Node], out: &Path) -> Taken {
    let tabs: BTreeMap<&str, &Node> = nodes
        .iter()
        .filter(|node| matches!(node.kind.as_str(), "tab" | "subflow" | "group"))
        .map(|node| (node.id.as_str(), node))
        .collect();
    let mut taken = Taken::default();
    let mut others: BTreeMap<&str, u64> = BTreeMap::new();
    for node in nodes {
        let Some(func) = node.func.as_deref().filter(|_| node.kind == "function") else {
            if !tabs.contains_key(node.id.as_str()) && !node.kind.is_empty() {
                *others.entry(node.kind.as_str()).or_default() += 1;
            }
            continue;
        };
        let tab = tabs.get(node.z.as_str()).copied();
        let of = title(node);
        if node.d || tab.is_some_and(|tab| tab.disabled) {
            taken.notes.push(format!("{of}: it is switched off"));
            continue;
        }
        let number = (taken.files.len() + 1) * 10;
        let name = file_name(number, node);
        taken.notes.extend(notes(node, func, tab).into_iter().map(|note| format!("{name}: {note}")));
        taken.files.push((out.join(&name), body(node, func, tab)));
    }
    if !others.is_empty() {
        let list: Vec<_> = others.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        taken.notes.push(format!("nodes of other types: {}", list.join(", ")));
    }
    taken
}

fn title(node: &Node) -> String {
    if node.name.is_empty() {
        format!("the function node {}", node.id)
    } else {
        format!("{:?} ({})", node.name, node.id)
    }
}

/// `20-check-pressure.nodered.js`
fn file_name(number: usize, node: &Node) -> String {
    let mut slug = String::new();
    let source = if node.name.trim().is_empty() { &node.id } else { &node.name };
    for char in source.chars().take(SLUG_CHARS) {
        match char.to_ascii_lowercase() {
            char @ ('a'..='z' | '0'..='9') => slug.push(char),
            _ if slug.ends_with('-') || slug.is_empty() => {}
            _ => slug.push('-'),
        }
    }
    let slug = slug.trim_matches('-');
    let slug = if slug.is_empty() { "function" } else { slug };
    format!("{number:02}-{slug}.nodered.js")
}

/// The text of a handler's file.
fn body(node: &Node, func: &str, tab: Option<&Node>) -> String {
    let mut text = String::new();
    let mut setting = |key: &str, value: &str| {
        // A setting is one line.
        let value: String = value.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
        let _ = writeln!(text, "// nodered {key}: {}", value.trim());
    };
    if !node.name.is_empty() {
        setting("name", &node.name);
    }
    setting("id", &node.id);
    setting("outputs", &node.outputs.unwrap_or(1).to_string());
    for variable in tab.iter().flat_map(|tab| &tab.env).filter(|variable| !variable.name.contains([':', ' ', '\n'])) {
        let value = variable.value.as_str().map_or_else(|| variable.value.to_string(), str::to_owned);
        setting(&format!("env {}", variable.name), &value);
    }
    for lib in &node.libs {
        setting(&format!("lib {}", lib.var), &lib.module);
    }
    push_code(&mut text, func);
    for (mark, code) in [("start", &node.initialize), ("stop", &node.finalize)] {
        if has_code(code) {
            let _ = writeln!(text, "// nodered on {mark}");
            push_code(&mut text, code);
        }
    }
    text
}

fn push_code(text: &mut String, code: &str) {
    for line in code.lines() {
        // It would be read as a setting.
        let quoted = if line.starts_with("// nodered ") { "//" } else { "" };
        let _ = writeln!(text, "{quoted}{line}");
    }
}

/// Is there more than comments? (The editor puts one into what is empty.)
fn has_code(code: &str) -> bool {
    code.lines().map(str::trim).any(|line| !line.is_empty() && !line.starts_with("//"))
}

/// What a function node asks for that it does not get here, or not as in Node-RED.
fn notes(node: &Node, func: &str, tab: Option<&Node>) -> Vec<String> {
    let all = format!("{func}\n{}\n{}", node.initialize, node.finalize);
    let mut notes = Vec::new();
    if all.contains("flow.") {
        notes.push("flow is this file's own for each device; other files do not see it".to_owned());
    }
    if all.contains("global.") {
        notes.push("global is this file's own for each device; other files do not see it".to_owned());
    }
    for lib in &node.libs {
        notes.push(format!("the module {:?} must be in node_modules of the handlers' directory", lib.module));
    }
    if all.contains("node.on(") {
        notes.push("node.on() does nothing: code for the end belongs into On Stop".to_owned());
    }
    if all.contains("setInterval(") {
        notes.push("an interval ends with the reading's call: it must be cleared, or the reading is parked".to_owned());
    }
    if has_code(&node.initialize) {
        notes.push("On Start runs with the first reading of each device, not when the node starts".to_owned());
    }
    if has_code(&node.finalize) {
        notes.push("On Stop runs when a worker ends, without a device".to_owned());
    }
    match node.outputs.unwrap_or(1) {
        0 => notes.push("it has no output: readings go on as they are".to_owned()),
        1 => {}
        outputs => notes.push(format!(
            "output 1 is the device's state, 2 to {outputs} are the events output2 to output{outputs} unless `// nodered output N: NAME` says otherwise"
        )),
    }
    if tab.is_some_and(|tab| tab.kind == "subflow") {
        notes.push("it is part of a subflow; what its instances set is not known here".to_owned());
    }
    let wires: usize = node.wires.as_array().into_iter().flatten().filter_map(|to| to.as_array().map(Vec::len)).sum();
    if wires > 0 {
        notes.push(format!("its {wires} wires: handlers run in the order of their names"));
    }
    if let Some(tab) = tab.filter(|tab| !tab.label.is_empty()) {
        notes.push(format!("it was on {:?}", tab.label));
    }
    notes
}

/// For a terminal.
fn clean(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_names_of_files() {
        let node =
            |name: &str| Node { name: name.to_owned(), ..nodes_of(r#"[{"id":"1a.b"}]"#).expect("a node").remove(0) };
        for (name, file) in [
            ("Check Pressure!", "10-check-pressure.nodered.js"),
            ("../../etc/passwd", "10-etc-passwd.nodered.js"),
            ("", "10-1a-b.nodered.js"),
            ("Überdruck 9", "10-berdruck-9.nodered.js"),
            ("日本", "10-function.nodered.js"),
        ] {
            assert_eq!(file_name(10, &node(name)), file, "{name}");
        }
    }

    #[test]
    fn what_is_no_export_is_refused() {
        for text in ["", "{}", "5", r#"{"flows":{}}"#, r#"[{"id":5}]"#, r#"["x"]"#] {
            assert!(nodes_of(text).is_err(), "{text}");
        }
    }
}
