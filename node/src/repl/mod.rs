//! `tidegate repl`: a JavaScript prompt into one or many running nodes.
//!
//! The JavaScript runs here, in the process of who types (`tidegate_scripts::Console`, on a thread of its own), and asks the
//! nodes over HTTP, through the local node's admin socket or with a token. A node does no more for a prompt than for any other
//! client, but it writes down what was typed (`audit`).
//!
//! `prompt` is the terminal, `complete` what Tab offers, `dot` the commands with a dot; `host` and `operations` are what the
//! prelude (`prelude.js`) asks for, `query` is what `find` looks for, `nodes` which nodes there are, `secrets` what is not kept.

pub(crate) mod audit;
mod complete;
mod dot;
mod evaluator;
mod host;
mod nodes;
mod operations;
mod prompt;
mod query;
mod secrets;

use std::{
    io::{self, BufRead, IsTerminal as _, Read as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use tidegate_actors::limits;
use tidegate_scripts::Evaluated;
use tokio::signal::unix::{SignalKind, signal};

use self::{
    dot::Dot,
    evaluator::Evaluator,
    host::{EVENTS, Interrupt},
    nodes::Nodes,
};
use crate::{exit::Exit, output};

/// The exit code of a session that Ctrl-C has ended.
const INTERRUPTED: i32 = 130;
/// An input that goes on for so long after Ctrl-C may not hear it.
const DEAF: Duration = Duration::from_millis(700);

/// Arguments of `tidegate repl`.
#[derive(Debug, Args)]
pub(crate) struct ReplArgs {
    /// Addresses of nodes; the first one is asked, until .connect [default: the admin socket in the data directory, or
    /// else http://127.0.0.1:8080]
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
    /// Evaluate this and end; may be repeated
    #[arg(long, short = 'e', value_name = "JAVASCRIPT", allow_hyphen_values = true)]
    eval: Vec<String>,
    /// Directory for the data of the local node, where its admin socket is
    #[arg(long, value_name = "DIR", default_value = "./tidegate-data")]
    data_dir: PathBuf,
}

/// Runs a session.
///
/// # Errors
/// There is no such node, or the terminal fails. An input that fails is told, and ends a session without a terminal with exit code 1.
pub(crate) fn run(args: &ReplArgs) -> anyhow::Result<Exit> {
    let nodes = Nodes::new(&args.nodes, &args.data_dir)?;
    let is_prompt = args.eval.is_empty() && io::stdin().is_terminal() && io::stdout().is_terminal();
    let colors = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let events = flume::bounded(EVENTS);
    let interrupt = Interrupt::new(events.0.clone());
    listen(interrupt.clone(), is_prompt)?;
    let evaluator = Evaluator::start(nodes.clone(), interrupt, events, colors)?;
    if is_prompt {
        return prompt::run(&evaluator, &nodes);
    }
    if args.eval.is_empty() {
        return piped(&evaluator, io::stdin().lock());
    }
    for typed in &args.eval {
        if !one(&evaluator, typed)? {
            return Ok(Exit::Runtime);
        }
    }
    Ok(Exit::Ok)
}

/// What comes through a pipe: inputs of one or more lines, up to the first that fails.
fn piped(evaluator: &Evaluator, mut lines: impl BufRead) -> anyhow::Result<Exit> {
    let mut typed = String::new();
    loop {
        // One byte more than an input may have: it is refused by its size, not cut.
        let room = limits::SCRIPT_SOURCE_BYTES.saturating_sub(typed.len()) + 1;
        let read = lines.by_ref().take(room as u64).read_line(&mut typed).context("cannot read stdin")?;
        let is_over = read == 0;
        if typed.trim().is_empty() {
            typed.clear();
        } else if is_over
            || typed.len() > limits::SCRIPT_SOURCE_BYTES
            || Dot::is_one(&typed)
            || evaluator.is_complete(&typed)
        {
            if typed.trim() == ".exit" {
                return Ok(Exit::Ok);
            }
            if !one(evaluator, typed.trim_end())? {
                return Ok(Exit::Runtime);
            }
            typed.clear();
        }
        if is_over {
            return Ok(Exit::Ok);
        }
    }
}

/// One input without a terminal. `false`: it failed, and why has been told.
fn one(evaluator: &Evaluator, typed: &str) -> anyhow::Result<bool> {
    let evaluated = match Dot::read(typed) {
        None => evaluator.evaluate(typed, typed),
        Some(Ok(Dot::Help)) => {
            output::write(dot::HELP)?;
            return Ok(true);
        }
        Some(Ok(Dot::Evaluate(script))) => evaluator.evaluate(&script, typed),
        Some(Ok(Dot::Exit | Dot::History(_))) => return Ok(true),
        Some(Err(words)) => Evaluated::Failed(words),
    };
    match evaluated {
        Evaluated::Value(Some(text)) if text != "undefined" => output::write(&format!("{text}\n"))?,
        Evaluated::Value(_) => {}
        Evaluated::Failed(words) => {
            tell(&words);
            return Ok(false);
        }
        Evaluated::Incomplete => {
            tell("Uncaught SyntaxError: the input ends before it is complete");
            return Ok(false);
        }
        Evaluated::Interrupted => std::process::exit(INTERRUPTED),
    }
    Ok(true)
}

fn tell(words: &str) {
    use io::Write as _;
    // Nothing is left to be done where even stderr is gone.
    let _ = writeln!(io::stderr().lock(), "{words}");
}

/// Hears Ctrl-C while no line is being edited: the first ends the input, the second the process, whatever the engine does.
fn listen(interrupt: Interrupt, is_prompt: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _entered = runtime.enter();
        signal(SignalKind::interrupt())?
    };
    let hear = move || {
        runtime.block_on(async {
            let mut heard = false;
            loop {
                if !heard {
                    signals.recv().await;
                }
                heard = false;
                if interrupt.raise() {
                    heard = tokio::time::timeout(DEAF, signals.recv()).await.is_ok();
                    if !heard && interrupt.is_ignored() {
                        tell("it does not end; Ctrl-C again leaves");
                    }
                } else if interrupt.is_ignored() || !is_prompt {
                    std::process::exit(INTERRUPTED);
                }
            }
        });
    };
    std::thread::Builder::new().name("ctrl-c".to_owned()).spawn(hear).context("cannot start a thread")?;
    Ok(())
}
