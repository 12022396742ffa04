//! The terminal: lines with history and completion, until Ctrl-D.

use std::{fs::DirBuilder, os::unix::fs::DirBuilderExt as _, path::PathBuf, time::Duration};

use rustyline::{
    CompletionType, Config, Context, Editor, Helper,
    completion::Completer,
    error::ReadlineError,
    highlight::Highlighter,
    hint::Hinter,
    history::{FileHistory, History as _, SearchDirection},
    validate::{ValidationContext, ValidationResult, Validator},
};
use serde_json::Value;
use tidegate_scripts::Evaluated;

use super::{
    complete::{self, Target},
    dot::{Dot, HELP, NAMES},
    evaluator::Evaluator,
    nodes::Nodes,
    secrets::redact,
    tell,
};
use crate::{client::encode, exit::Exit, output};

/// Lines of the history.
const HISTORY: usize = 1_000;
/// What Tab offers at most.
const OFFERS: usize = 50;
/// Time that a node has to answer Tab.
const PATIENCE: Duration = Duration::from_secs(1);

/// Runs a session at a terminal.
///
/// # Errors
/// The terminal fails.
pub(super) fn run(evaluator: &Evaluator, nodes: &Nodes) -> anyhow::Result<Exit> {
    let config = Config::builder()
        .max_history_size(HISTORY)?
        .completion_type(CompletionType::List)
        .completion_prompt_limit(OFFERS + 1)
        .build();
    let mut editor: Editor<Assist<'_>, FileHistory> = Editor::with_config(config)?;
    editor.set_helper(Some(Assist { evaluator, nodes }));
    let history = history_file();
    if let Some(file) = &history
        && file.exists()
        && let Err(error) = editor.load_history(file)
    {
        tell(&format!("the history in {} cannot be read: {error}", file.display()));
    }
    let version = env!("CARGO_PKG_VERSION");
    output::write(&format!("tidegate {version} at {}; .help says what there is, Ctrl-D leaves\n", nodes.current()))?;
    loop {
        let line = match editor.readline(&format!("{}> ", short(&nodes.current()))) {
            Ok(line) => line,
            // The line is gone, the session goes on.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(Exit::Ok),
            Err(error) => return Err(error.into()),
        };
        if line.trim().is_empty() {
            continue;
        }
        keep(&mut editor, history.as_ref(), &line);
        match Dot::read(&line) {
            None => show(&evaluator.evaluate(&line, &line))?,
            Some(Ok(Dot::Evaluate(script))) => show(&evaluator.evaluate(&script, &line))?,
            Some(Ok(Dot::Help)) => output::write(HELP)?,
            Some(Ok(Dot::Exit)) => return Ok(Exit::Ok),
            Some(Ok(Dot::History(last))) => output::write(&last_lines(&editor, last))?,
            Some(Err(words)) => tell(&words),
        }
    }
}

fn show(evaluated: &Evaluated) -> anyhow::Result<()> {
    match evaluated {
        Evaluated::Value(Some(text)) => output::write(&format!("{text}\n")),
        Evaluated::Value(None) => Ok(()),
        Evaluated::Failed(words) => {
            tell(words);
            Ok(())
        }
        Evaluated::Incomplete => {
            tell("Uncaught SyntaxError: the input ends before it is complete");
            Ok(())
        }
        Evaluated::Interrupted => {
            tell("interrupted");
            Ok(())
        }
    }
}

/// A line that begins with a space, or has what looks like a secret in it, is not kept.
fn keep(editor: &mut Editor<Assist<'_>, FileHistory>, file: Option<&PathBuf>, line: &str) {
    if line.starts_with(' ') || redact(line) != line {
        return;
    }
    if !matches!(editor.add_history_entry(line), Ok(true)) {
        return;
    }
    let Some(file) = file else { return };
    // The file is made 0600 by the editor.
    if let Some(dir) = file.parent()
        && let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(dir)
    {
        tell(&format!("the history is not kept: cannot make {}: {error}", dir.display()));
        return;
    }
    if let Err(error) = editor.append_history(file) {
        tell(&format!("the history is not kept in {}: {error}", file.display()));
    }
}

fn last_lines(editor: &Editor<Assist<'_>, FileHistory>, last: usize) -> String {
    let history = editor.history();
    let first = history.len().saturating_sub(last);
    let lines = (first..history.len()).filter_map(|at| {
        let entry = history.get(at, SearchDirection::Forward).ok()??;
        Some(format!("{:5}  {}\n", at + 1, entry.entry))
    });
    lines.collect()
}

/// `$XDG_STATE_HOME/tidegate/repl_history`, by default in `~/.local/state`.
fn history_file() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("tidegate/repl_history"))
}

/// A node's address for a prompt.
fn short(address: &str) -> &str {
    if address.starts_with("unix:") { "local" } else { address.trim_start_matches("http://") }
}

/// The editor's helper.
struct Assist<'a> {
    evaluator: &'a Evaluator,
    nodes: &'a Nodes,
}

impl Assist<'_> {
    fn offers(&self, target: &Target<'_>) -> Vec<String> {
        match target {
            Target::Dot(_) => NAMES.map(str::to_owned).to_vec(),
            Target::Node(_) => self.nodes.all().0,
            Target::Id(prefix) => {
                let page = self.get(&format!("/devices?limit={OFFERS}&prefix={}", encode(prefix)));
                let ids =
                    page["devices"].as_array().into_iter().flatten().filter_map(|device| device["deviceId"].as_str());
                // What would have to be escaped is left to who types.
                ids.filter(|id| !id.contains(['"', '\'', '`', '\\'])).map(str::to_owned).collect()
            }
            Target::OfDevice(_) => complete::OF_DEVICE.map(str::to_owned).to_vec(),
            Target::Field { device, above, .. } => {
                let document = self.get(&format!("/devices/{}", encode(device)));
                let value = above.iter().fold(&document["state"], |value, name| &value[*name]);
                value.as_object().map(|members| members.keys().cloned().collect()).unwrap_or_default()
            }
            Target::Member { path, .. } => self.evaluator.members(path.iter().map(|name| (*name).to_owned()).collect()),
            Target::Nothing => Vec::new(),
        }
    }

    /// Nothing, if the node does not answer at once: Tab is no place for errors.
    fn get(&self, path: &str) -> Value {
        let answer =
            self.nodes.client(&self.nodes.current()).and_then(|mut client| client.timeout(PATIENCE).get(path)?.json());
        answer.unwrap_or_default()
    }
}

impl Completer for Assist<'_> {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let target = complete::target(&line[..at]);
        let prefix = target.prefix();
        let mut offers = self.offers(&target);
        offers.retain(|offer| offer.starts_with(prefix) && !offer.chars().any(char::is_control));
        offers.sort_unstable();
        offers.dedup();
        offers.truncate(OFFERS);
        Ok((at - prefix.len(), offers))
    }
}

impl Validator for Assist<'_> {
    fn validate(&self, input: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = input.input();
        let is_whole = Dot::is_one(text) || text.trim().is_empty() || self.evaluator.is_complete(text);
        Ok(if is_whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Hinter for Assist<'_> {
    type Hint = String;
}

impl Highlighter for Assist<'_> {}

impl Helper for Assist<'_> {}
