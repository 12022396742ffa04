//! `tidegate config check|show|reference`: prints, and decides nothing that `serve` would decide otherwise.

use std::path::Path;

use serde_json::json;

use super::{Flags, Loaded, Problem, Problems, reference, show};
use crate::{
    auth,
    cli::{ConfigCommand, ServeArgs},
    exit::{Exit, Failure},
    output,
    transport::certificates::Certificates,
};

/// Runs a `config` command.
///
/// # Errors
/// A configuration that `serve` would refuse, unless it was told as JSON, or a closed stdout.
pub(crate) fn run(command: &ConfigCommand) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Check { serve, json } => check(serve, *json),
        ConfigCommand::Show { serve, json: true } => on_stdout(&format!("{:#}\n", show::json(&load(serve)?))),
        ConfigCommand::Show { serve, json: false } => on_stdout(&show::toml(&load(serve)?)),
        ConfigCommand::Reference => on_stdout(&reference::markdown()),
    }
}

/// Loads what `serve` would load with the same arguments.
pub(crate) fn load(serve: &ServeArgs) -> Result<Loaded, Problems> {
    super::load(serve.config.as_deref(), std::env::vars_os(), &serve.flags())
}

/// Loads what `serve` would load with this file and these flags.
pub(crate) fn load_with(file: Option<&Path>, flags: &Flags) -> Result<Loaded, Problems> {
    super::load(file, std::env::vars_os(), flags)
}

fn check(serve: &ServeArgs, as_json: bool) -> Result<Exit, Failure> {
    let problems = match load(serve).and_then(with_sound_files) {
        Ok(loaded) if as_json => {
            return on_stdout(&format!("{}\n", json!({ "ok": true, "set": loaded.values_set(), "problems": [] })));
        }
        Ok(loaded) => return on_stdout(&format!("ok; values set: {}\n", loaded.values_set())),
        Err(problems) if as_json => problems.0,
        Err(problems) => return Err(problems.into()),
    };
    let problems: Vec<_> = problems.iter().map(Problem::to_json).collect();
    on_stdout(&format!("{}\n", json!({ "ok": false, "set": null, "problems": problems })))?;
    Ok(Exit::Config)
}

/// The files of TLS, and of users, rules and keys, read as `serve` would read them.
fn with_sound_files(loaded: Loaded) -> Result<Loaded, Problems> {
    let files = loaded.config.mqtt_tls().into_iter().chain(loaded.config.http_tls());
    match files.map(Certificates::load).find_map(Result::err) {
        None => match auth::check(&loaded.config) {
            Ok(()) => Ok(loaded),
            Err((key, bad)) => Err(Problem::of_key(loaded.origin(key), key, bad.to_string()).into()),
        },
        Some(bad) => Err(Problem::of_key(loaded.origin(&bad.key()), &bad.key(), bad.to_string()).into()),
    }
}

fn on_stdout(text: &str) -> Result<Exit, Failure> {
    output::write(text)?;
    Ok(Exit::Ok)
}
