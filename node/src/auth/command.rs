//! `tidegate user` and `tidegate token`: changes of the users' file, with or without a node that runs. A running node takes them up
//! within a second.

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, builder::PossibleValuesParser};
use hashbrown::HashSet;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::json;
use tidegate_actors::ids::DeviceId;

use super::{
    audit::{self, Event},
    directory::{self, Line},
    edit::{self, Edit},
    password::{Hash, PASSWORD_BYTES},
    principal::Role,
    secret,
};
use crate::{
    config::{Config, command::load_with},
    exit::{Exit, Failure},
    output, utc,
};

const USER_EXAMPLES: &str = "\
Examples:
  tidegate user add d1                                   asks for the password; d1 is a device
  tidegate user add anna --role operator
  echo \"$SECRET\" | tidegate user add d2                  the password from stdin, one line
  tidegate user passwd d1 --password-file ./d1.secret
  tidegate user disable d1                               at once; also for names of signed tokens and certificates
  tidegate user import /etc/mosquitto/passwd --role device

A running node takes a change up within a second: who was removed or disabled loses connection, session and queue.
The first user switches authentication on.";

const TOKEN_EXAMPLES: &str = "\
Examples:
  tidegate token create d1                               prints the token once: MQTT user name, or HTTP Bearer
  tidegate token create anna --role operator --expires-days 90
  tidegate token create d1 --from-stdin < d1.token       one that a device has already
  tidegate token list
  tidegate token revoke 6c1f09aa";

/// Where the users' file is.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Configuration file [default: ./tidegate.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory for the data [default: ./tidegate-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// File of users and tokens [default: users.jsonl in the data directory]
    #[arg(long, value_name = "FILE")]
    users_file: Option<String>,
}

/// Where a password comes from.
#[derive(Debug, Args)]
pub(crate) struct Secret {
    /// Take the password from the first line of this file, instead of asking (or stdin)
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

fn role_names() -> PossibleValuesParser {
    PossibleValuesParser::new(Role::NAMES)
}

/// The commands for users.
#[derive(Debug, Subcommand)]
#[command(after_help = USER_EXAMPLES)]
pub(crate) enum UserCommand {
    /// Add a user
    Add {
        /// The user's name; a device's id, unless --role or --device says otherwise
        name: String,
        /// What the user may do
        #[arg(long, value_name = "ROLE", default_value = "device", value_parser = role_names())]
        role: String,
        /// The device that the user is, if it has another id than the name
        #[arg(long, value_name = "ID")]
        device: Option<String>,
        /// Without a password: by token or certificate only
        #[arg(long, conflicts_with = "password_file")]
        no_password: bool,
        /// The password.
        #[command(flatten)]
        secret: Secret,
        /// The file.
        #[command(flatten)]
        place: Place,
    },
    /// Give a user another password
    Passwd {
        /// The user's name
        name: String,
        /// The password.
        #[command(flatten)]
        secret: Secret,
        /// The file.
        #[command(flatten)]
        place: Place,
    },
    /// Remove a user, with all tokens
    Remove {
        /// The user's name
        name: String,
        /// The file.
        #[command(flatten)]
        place: Place,
    },
    /// Let a user in no more, whatever the proof
    Disable {
        /// The user's name; it need not be in the file
        name: String,
        /// The file.
        #[command(flatten)]
        place: Place,
    },
    /// Let a disabled user in again
    Enable {
        /// The user's name
        name: String,
        /// The file.
        #[command(flatten)]
        place: Place,
    },
    /// List the users
    List {
        /// Answer as JSON
        #[arg(long)]
        json: bool,
        /// The file.
        #[command(flatten)]
        place: Place,
    },
    /// Take over the users of a password_file of mosquitto; those that are there stay as they are
    Import {
        /// The password_file
        file: PathBuf,
        /// What the users may do
        #[arg(long, value_name = "ROLE", default_value = "device", value_parser = role_names())]
        role: String,
        /// The file.
        #[command(flatten)]
        place: Place,
    },
}

/// The commands for tokens.
#[derive(Debug, Subcommand)]
#[command(after_help = TOKEN_EXAMPLES)]
pub(crate) enum TokenCommand {
    /// Make a token and print it, once
    Create {
        /// The user that it speaks for; a user of this name decides its role and device
        name: String,
        /// What it may do, if there is no such user
        #[arg(long, value_name = "ROLE", default_value = "device", value_parser = role_names())]
        role: String,
        /// The device that it is, if it has another id than the name
        #[arg(long, value_name = "ID")]
        device: Option<String>,
        /// Days until it ends [default: never]
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        expires_days: Option<u32>,
        /// Take the token from stdin, one line: one that a device has already
        #[arg(long)]
        from_stdin: bool,
        /// The file.
        #[command(flatten)]
        place: Place,
    },
    /// List the tokens; their secrets are nowhere
    List {
        /// Answer as JSON
        #[arg(long)]
        json: bool,
        /// The file.
        #[command(flatten)]
        place: Place,
    },
    /// Revoke a token
    Revoke {
        /// Its id, as `list` tells it
        id: String,
        /// The file.
        #[command(flatten)]
        place: Place,
    },
}

/// Runs a `user` command.
///
/// # Errors
/// The configuration, the file, or a name that is not there.
pub(crate) fn user(command: UserCommand) -> Result<Exit, Failure> {
    match command {
        UserCommand::Add { name, role, device, no_password, secret, place } => {
            let device = device.filter(|device| *device != name);
            let line = Line { user: name, role: stored(&role), device, created: Some(now_text()), ..Line::default() };
            add(&place.config()?, line, (!no_password).then_some(&secret))?;
        }
        UserCommand::Passwd { name, secret, place } => {
            let config = place.config()?;
            known(&edit::read(&config.users_file())?, &name)?;
            let hash = hash(&secret)?;
            change(&config, &name, "user.passwd", |line| line.password = Some(hash))?;
        }
        UserCommand::Remove { name, place } => remove(&place.config()?, &name)?,
        UserCommand::Disable { name, place } => disable(&place.config()?, &name)?,
        UserCommand::Enable { name, place } => enable(&place.config()?, &name)?,
        UserCommand::List { json, place } => list(&place.config()?, json, false)?,
        UserCommand::Import { file, role, place } => import(&place.config()?, &file, &role)?,
    }
    Ok(Exit::Ok)
}

/// Runs a `token` command.
///
/// # Errors
/// As [`user`].
pub(crate) fn token(command: TokenCommand) -> Result<Exit, Failure> {
    match command {
        TokenCommand::Create { name, role, device, expires_days, from_stdin, place } => {
            let expires = expires_days.map(|days| now() + i64::from(days) * 86_400_000);
            let device = device.filter(|device| *device != name);
            let line = Line { user: name, role: stored(&role), device, expires, ..Line::default() };
            create_token(&place.config()?, line, from_stdin)?;
        }
        TokenCommand::List { json, place } => list(&place.config()?, json, true)?,
        TokenCommand::Revoke { id, place } => revoke(&place.config()?, &id)?,
    }
    Ok(Exit::Ok)
}

impl Place {
    /// The configuration with which a node would find the same file.
    fn config(&self) -> Result<Config, Failure> {
        let flags = [("data.dir", &self.data_dir), ("auth.users_file", &self.users_file)];
        let flags = flags.into_iter().filter_map(|(key, word)| Some((key, word.clone()?))).collect();
        Ok(load_with(self.config.as_deref(), &flags)?.config)
    }
}

fn add(config: &Config, mut line: Line, secret: Option<&Secret>) -> anyhow::Result<()> {
    check_new(&line)?;
    let path = config.users_file();
    if edit::read(&path)?.iter().any(|other| other.token.is_none() && other.user == line.user) {
        bail!("the user {:?} is there already; tidegate user passwd changes the password", line.user);
    }
    line.password = secret.map(hash).transpose()?;
    let first = !path.exists();
    let mut edit = Edit::open(&path)?;
    let (name, role) = (line.user.clone(), line.role.unwrap_or(Role::Device).name());
    edit.lines.push(line);
    edit.save()?;
    note(config, "user.add", &name);
    say(&format!("added {name} ({role}) to {}\n", path.display()))?;
    if first {
        say("authentication is on from now on: clients without a user or token are refused\n")?;
    }
    Ok(())
}

fn check_new(line: &Line) -> anyhow::Result<()> {
    directory::check_name(&line.user).map_err(anyhow::Error::msg)?;
    if line.role.is_none() {
        let id = line.device.as_ref().unwrap_or(&line.user);
        DeviceId::new(id)
            .with_context(|| format!("{id:?} names no device; give it with --device, or another --role"))?;
    }
    Ok(())
}

fn change(config: &Config, name: &str, action: &str, change: impl FnOnce(&mut Line)) -> anyhow::Result<()> {
    let mut edit = Edit::open(&config.users_file())?;
    known(&edit.lines, name)?;
    if let Some(line) = edit.lines.iter_mut().find(|line| line.token.is_none() && line.user == name) {
        change(line);
    }
    edit.save()?;
    note(config, action, name);
    say(&format!("changed {name}\n"))
}

fn known(lines: &[Line], name: &str) -> anyhow::Result<()> {
    if lines.iter().any(|line| line.token.is_none() && line.user == name) {
        return Ok(());
    }
    bail!("there is no user {name:?}; tidegate user list lists them")
}

fn remove(config: &Config, name: &str) -> anyhow::Result<()> {
    let mut edit = Edit::open(&config.users_file())?;
    let before = edit.lines.len();
    edit.lines.retain(|line| line.user != name);
    let removed = before - edit.lines.len();
    if removed == 0 {
        bail!("there is no user {name:?}; tidegate user list lists them");
    }
    edit.save()?;
    note(config, "user.remove", name);
    say(&format!("removed {name}, {removed} entries\n"))
}

fn disable(config: &Config, name: &str) -> anyhow::Result<()> {
    let mut edit = Edit::open(&config.users_file())?;
    match edit.lines.iter_mut().find(|line| line.token.is_none() && line.user == name) {
        Some(line) => line.disabled = true,
        // A name that only signed tokens or certificates know.
        None => edit.lines.push(Line { user: name.to_owned(), disabled: true, ..Line::default() }),
    }
    edit.save()?;
    note(config, "user.disable", name);
    say(&format!("disabled {name}\n"))
}

fn enable(config: &Config, name: &str) -> anyhow::Result<()> {
    let mut edit = Edit::open(&config.users_file())?;
    known(&edit.lines, name)?;
    // A line that only says "disabled" says nothing any more.
    let only_disabled = Line { user: name.to_owned(), disabled: true, ..Line::default() };
    edit.lines.retain(|line| *line != only_disabled);
    edit.lines
        .iter_mut()
        .filter(|line| line.token.is_none() && line.user == name)
        .for_each(|line| line.disabled = false);
    edit.save()?;
    note(config, "user.enable", name);
    say(&format!("enabled {name}\n"))
}

fn import(config: &Config, file: &Path, role: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut edit = Edit::open(&config.users_file())?;
    let users = edit.lines.iter().filter(|line| line.token.is_none());
    let mut known: HashSet<String> = users.map(|line| line.user.clone()).collect();
    let (mut added, mut there, mut weak) = (0, 0, 0);
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let place = || format!("{}:{}", file.display(), number + 1);
        let Some((name, password)) = line.split_once(':') else { bail!("{}: not name:password", place()) };
        let hash = Hash::parse(password).map_err(|error| anyhow::anyhow!("{}: the password {error}", place()))?;
        if !known.insert(name.to_owned()) {
            there += 1;
            continue;
        }
        weak += usize::from(matches!(hash, Hash::Sha512 { .. }));
        let (user, password) = (name.to_owned(), Some(password.to_owned()));
        let line = Line { user, role: stored(role), password, created: Some(now_text()), ..Line::default() };
        check_new(&line).with_context(place)?;
        edit.lines.push(line);
        added += 1;
    }
    edit.save()?;
    note(config, "user.import", &format!("{added} of {}", file.display()));
    say(&format!("added {added} users; {there} were there already\n"))?;
    if weak > 0 {
        say(&format!("{weak} of them have the weak form $6$; tidegate user passwd gives them a better one\n"))?;
    }
    Ok(())
}

fn create_token(config: &Config, mut line: Line, from_stdin: bool) -> anyhow::Result<()> {
    check_new(&line)?;
    let path = config.users_file();
    let secret =
        if from_stdin { first_line(io::stdin().lock())? } else { secret::token().map_err(anyhow::Error::msg)? };
    if !secret::TOKEN_LENGTHS.contains(&secret.len()) || secret.chars().any(|c| c.is_control() || c.is_whitespace()) {
        bail!(
            "a token has {} to {} characters and no blanks",
            secret::TOKEN_LENGTHS.start(),
            secret::TOKEN_LENGTHS.end()
        );
    }
    let hash = directory::hex(&secret::sha256(secret.as_bytes()));
    let id = hash[..8].to_owned();
    (line.sha256, line.token, line.created) = (Some(hash), Some(id.clone()), Some(now_text()));
    let first = !path.exists();
    let mut edit = Edit::open(&path)?;
    let name = line.user.clone();
    edit.lines.push(line);
    edit.save()?;
    note(config, "token.create", &format!("{id} for {name}"));
    if first {
        tell("authentication is on from now on: clients without a user or token are refused");
    }
    tell(&format!("token {id} for {name}; it is not shown again"));
    if from_stdin { Ok(()) } else { say(&format!("{secret}\n")) }
}

fn revoke(config: &Config, id: &str) -> anyhow::Result<()> {
    let mut edit = Edit::open(&config.users_file())?;
    let before = edit.lines.len();
    edit.lines.retain(|line| line.token.as_deref() != Some(id));
    if edit.lines.len() == before {
        bail!("there is no token {id:?}; tidegate token list lists them");
    }
    edit.save()?;
    note(config, "token.revoke", id);
    say(&format!("revoked {id}\n"))
}

fn list(config: &Config, as_json: bool, tokens: bool) -> anyhow::Result<()> {
    let lines = edit::read(&config.users_file())?;
    let wanted = lines.iter().filter(|line| line.token.is_some() == tokens);
    if as_json {
        let list: Vec<_> = wanted
            .map(|line| {
                let role = line.role.unwrap_or(Role::Device);
                json!({
                    "user": line.user, "role": role, "device": line.device, "token": line.token,
                    "created": line.created, "expires": line.expires.map(utc::utc),
                    "password": line.password.is_some(), "disabled": line.disabled,
                })
            })
            .collect();
        return say(&format!("{:#}\n", json!(list)));
    }
    for line in wanted {
        let mut words = Vec::new();
        words.extend(line.token.clone());
        words.push(line.user.clone());
        words.push(line.role.unwrap_or(Role::Device).name().to_owned());
        words.extend(line.device.as_ref().map(|device| format!("device={device}")));
        words.extend(line.expires.map(|time| format!("expires={}", utc::utc(time))));
        if !tokens && line.password.is_none() {
            words.push("no-password".to_owned());
        }
        if line.disabled {
            words.push("disabled".to_owned());
        }
        say(&format!("{}\n", words.join("  ")))?;
    }
    Ok(())
}

// ---- passwords

fn hash(secret: &Secret) -> anyhow::Result<String> {
    let password = match &secret.password_file {
        Some(path) => {
            let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            first_line(io::BufReader::new(file))?
        }
        None if io::stdin().is_terminal() => ask()?,
        None => first_line(io::stdin().lock())?,
    };
    match password.len() {
        0 => bail!("the password is empty"),
        1..=PASSWORD_BYTES => Hash::make(password.as_bytes()).map_err(anyhow::Error::msg),
        _ => bail!("the password has more than {PASSWORD_BYTES} bytes"),
    }
}

fn first_line(source: impl io::BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    source.take(64 * 1024).read_line(&mut line).context("cannot read the secret")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks twice at the terminal, without showing what is typed.
fn ask() -> anyhow::Result<String> {
    let once = |prompt: &str| -> anyhow::Result<String> {
        tell(prompt);
        let stdin = io::stdin();
        let shown = tcgetattr(&stdin)?;
        let mut hidden = shown.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
        let line = first_line(stdin.lock());
        tcsetattr(&stdin, OptionalActions::Now, &shown)?;
        line
    };
    let (first, second) = (once("password:")?, once("the same again:")?);
    if first == second { Ok(first) } else { bail!("the two are not the same") }
}

// ---- small things

/// What is the default is not stored.
fn stored(role: &str) -> Option<Role> {
    Role::parse(role).filter(|role| *role != Role::Device)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn now_text() -> String {
    utc::utc(now())
}

/// The audit log's line of a command. A command that has done its work does not fail for want of it.
fn note(config: &Config, action: &str, detail: &str) {
    let who = format!("uid {}", rustix::process::getuid().as_raw());
    let event = Event { action, result: "ok", principal: &who, address: "local", detail };
    if config.data.dir.is_dir()
        && let Err(error) = audit::note_from_command(&config.data.dir, &event, now())
    {
        tell(&format!("warning: cannot write the audit log: {error}"));
    }
}

fn say(text: &str) -> anyhow::Result<()> {
    output::write(text)
}

/// For people, beside what a program reads from stdout.
fn tell(text: &str) {
    use io::Write as _;
    let _ = writeln!(io::stderr().lock(), "{text}");
}
