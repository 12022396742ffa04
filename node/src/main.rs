//! `tidegate`: the edge of the node and its commands.
//!
//! `cli` says what can be asked for, `config` turns a file, variables and flags into one checked [`config::Config`],
//! `boot` runs the node with it, and `exit` says how it ended. This file only joins them.

mod auth;
mod boot;
mod bridge;
mod cli;
#[allow(dead_code, reason = "each command uses its own part of it")]
mod client;
mod commands;
mod config;
mod demo;
mod doctor;
mod edge;
mod exit;
mod http;
mod ingest;
mod journal_command;
mod kept;
mod listeners;
mod logging;
mod mqtt;
mod output;
mod parked;
mod prove;
mod repl;
mod script;
mod script_admin;
mod script_import;
mod script_replay;
mod script_test;
mod script_types;
mod shadow;
mod state;
mod swarm;
mod transport;
mod utc;
mod vitals;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command, ScriptCommand, ServeArgs};
use config::Config;
use exit::{Exit, Failure};
use script_admin::Action;
use script_replay::Replay;
use tidegate_scripts::TestPlan;

fn main() -> ExitCode {
    let Cli { command, token } = Cli::parse();
    token.filter(|token| !token.is_empty()).into_iter().for_each(client::show_token);
    if matches!(command, Command::ScriptWorker) {
        return script::worker();
    }
    run(command).unwrap_or_else(|failure| failure.report()).into()
}

fn run(command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Serve(args) => boot::serve(&start(&args)?)?,
        Command::Demo(args) => demo::run(start(&args.serve)?, &args)?,
        Command::Swarm(args) => return Ok(swarm::run(args)?),
        Command::ProveDurability(args) => return Ok(prove::run(&args)?),
        Command::Script(command) => return script(command),
        Command::State(command) => return Ok(state::run(&command)?),
        Command::Journal(command) => return Ok(journal_command::run(&command)?),
        // Answered in `main`: a worker has an exit code of its own.
        Command::ScriptWorker => {}
        Command::User(command) => return auth::command::user(command),
        Command::Token(command) => return auth::command::token(command),
        Command::Parked(command) => return Ok(parked::run(command)?),
        Command::Config(command) => return config::command::run(&command),
        Command::Repl(args) => return Ok(repl::run(&args)?),
        Command::Doctor(args) => return doctor::run(&args),
    }
    Ok(Exit::Ok)
}

fn script(command: ScriptCommand) -> Result<Exit, Failure> {
    let (of, action) = match command {
        ScriptCommand::Check { path, json } => return Ok(script::check(&path, json)?),
        ScriptCommand::Replay { device, since, with, place, handlers, data_dir, limit, json } => {
            let replay = Replay { device, since, with, place, handlers, data_dir, limit, json };
            return Ok(script_replay::run(&replay)?);
        }
        ScriptCommand::Test { paths, handlers, filter, json } => {
            let plan = TestPlan { paths: &paths, handlers: handlers.as_deref(), filter: &filter };
            return Ok(script_test::run(&plan, json)?);
        }
        ScriptCommand::Types { dir } => {
            script_types::run(dir.as_deref())?;
            return Ok(Exit::Ok);
        }
        ScriptCommand::ImportNodered { flows, out, force } => {
            script_import::run(&flows, &out, force)?;
            return Ok(Exit::Ok);
        }
        ScriptCommand::List { of } => (of, Action::List),
        ScriptCommand::Enable { name, of } => (of, Action::Enable(name)),
        ScriptCommand::Disable { name, of } => (of, Action::Disable(name)),
        ScriptCommand::Rearm { name, of } => (of, Action::Rearm(name)),
        ScriptCommand::Reload { no_canary, of } => (of, Action::Reload { canary: !no_canary }),
        ScriptCommand::Rollback { of } => (of, Action::Rollback),
    };
    Ok(script_admin::run(&of.node, &action, of.json)?)
}

/// The configuration of a command that runs a node; logging is on from here.
fn start(args: &ServeArgs) -> Result<Config, Failure> {
    let config = config::command::load(args)?.config;
    logging::start(&config.log)?;
    prove::arm_crash_point()?;
    Ok(config)
}
