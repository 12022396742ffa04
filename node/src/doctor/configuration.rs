//! Is the configuration one that `serve` would take?

use std::path::Path;

use serde_json::json;

use super::report::Check;
use crate::config::{self, Config};

const NAME: &str = "configuration";

/// Checks what `serve` would be given, and returns it; a configuration that is refused gives way to the defaults, so that the
/// other checks can go on.
pub(super) fn check(file: Option<&Path>, data_dir: Option<String>) -> (Check, Config) {
    let flags: config::Flags = data_dir.into_iter().map(|dir| ("data.dir", dir)).collect();
    match config::command::load_with(file, &flags) {
        Ok(loaded) => {
            let set = loaded.values_set();
            let summary = match set {
                0 => "valid; every value is the default".to_owned(),
                1 => "valid; one value is set".to_owned(),
                _ => format!("valid; {set} values are set"),
            };
            (Check::ok(NAME, summary).with(json!({ "set": set })), loaded.config)
        }
        Err(problems) => {
            let words: Vec<_> = problems.0.iter().map(ToString::to_string).collect();
            let first = words.first().cloned().unwrap_or_default();
            let more = match words.len() {
                0 | 1 => String::new(),
                many => format!(" (and {} more)", many - 1),
            };
            let advice = "tidegate config check lists every problem with its place; serve would exit with 78. \
                          The checks below assume the defaults";
            let check = Check::fail(NAME, format!("refused: {first}{more}"), advice).with(json!({ "problems": words }));
            let mut config = Config::default();
            if let Some((_, dir)) = flags.into_iter().next() {
                config.data.dir = dir.into();
            }
            (check, config)
        }
    }
}
