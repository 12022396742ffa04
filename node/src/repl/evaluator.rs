//! The console's thread: it has the stack that the engine needs, and the engine never leaves it.

use anyhow::{Context as _, anyhow};
use tidegate_scripts::{CONSOLE_STACK_BYTES, Console, Evaluated};

use super::{
    host::{Event, Host, Interrupt},
    nodes::Nodes,
};

/// A handle to the console's thread.
pub(super) struct Evaluator {
    ask: flume::Sender<Ask>,
    interrupt: Interrupt,
}

enum Ask {
    /// What was typed, and the script that it means.
    Evaluate(String, String, flume::Sender<Evaluated>),
    IsComplete(String, flume::Sender<bool>),
    Members(Vec<String>, flume::Sender<Vec<String>>),
}

impl Evaluator {
    /// Starts it.
    ///
    /// # Errors
    /// No thread, or the prelude fails.
    pub(super) fn start(
        nodes: Nodes,
        interrupt: Interrupt,
        events: (flume::Sender<Event>, flume::Receiver<Event>),
        colors: bool,
    ) -> anyhow::Result<Self> {
        let (ask, asked) = flume::bounded::<Ask>(1);
        let (say, started) = flume::bounded(1);
        let of_host = interrupt.clone();
        let run = move || {
            let (type_, typed) = flume::bounded(1);
            let host = Host::new(nodes, of_host, events, typed);
            let mut console = match Console::new(Box::new(host), include_str!("prelude.js"), colors) {
                Ok(console) => console,
                Err(words) => return drop(say.send(Err(words))),
            };
            let _ = say.send(Ok(()));
            // Who asked waits for the answer: no send here waits for anybody.
            for ask in asked {
                let _ = match ask {
                    Ask::Evaluate(line, script, answer) => {
                        let _ = type_.try_send(line);
                        answer.send(console.evaluate(&script)).is_ok()
                    }
                    Ask::IsComplete(text, answer) => answer.send(Console::is_complete(&text)).is_ok(),
                    Ask::Members(path, answer) => {
                        let path: Vec<_> = path.iter().map(String::as_str).collect();
                        answer.send(console.members(&path)).is_ok()
                    }
                };
            }
        };
        let thread = std::thread::Builder::new().name("console".to_owned()).stack_size(CONSOLE_STACK_BYTES);
        thread.spawn(run).context("cannot start a thread")?;
        started.recv().context("the console ended")?.map_err(|words: String| anyhow!(words))?;
        Ok(Self { ask, interrupt })
    }

    /// Evaluates a script; `line` is what was typed.
    pub(super) fn evaluate(&self, script: &str, line: &str) -> Evaluated {
        self.interrupt.begin();
        let evaluated = self.asked(|answer| Ask::Evaluate(line.to_owned(), script.to_owned(), answer));
        self.interrupt.end();
        evaluated.unwrap_or_else(|| Evaluated::Failed("the engine crashed on this; start anew".to_owned()))
    }

    /// Is this a whole input?
    pub(super) fn is_complete(&self, text: &str) -> bool {
        self.asked(|answer| Ask::IsComplete(text.to_owned(), answer)).unwrap_or(true)
    }

    /// The names of what a path leads to.
    pub(super) fn members(&self, path: Vec<String>) -> Vec<String> {
        self.asked(|answer| Ask::Members(path, answer)).unwrap_or_default()
    }

    fn asked<T>(&self, ask: impl FnOnce(flume::Sender<T>) -> Ask) -> Option<T> {
        let (answer, answered) = flume::bounded(1);
        self.ask.send(ask(answer)).ok()?;
        answered.recv().ok()
    }
}
