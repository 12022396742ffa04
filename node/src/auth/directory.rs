//! The users' file: users with their roles and passwords, and tokens. One JSON object a line, so that a line is a user, a
//! change is a line, and an error has one.
//!
//! It is read as a whole and never changed in place: who changes it writes a new one ([`super::edit`]).

use std::{hash::Hasher as _, path::Path};

use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};
use tidegate_actors::{ids::DeviceId, limits};

use super::{
    password::Hash,
    place::{self, BadFile},
    principal::{Principal, Proof, Role},
};

/// One line as it stands in the file. It has a `user` or a `token`, not both kinds of members.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    /// The id of a token, by which it is listed and revoked; its secret is not here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<String>,
    /// The user; of a token, the user that it speaks for.
    pub(crate) user: String,
    /// `device` if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<Role>,
    /// The device that it is; the user's name if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<String>,
    /// A user's stored password; without one, only tokens and certificates let the user in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password: Option<String>,
    /// A token's secret: its SHA-256 in hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sha256: Option<String>,
    /// When it was made, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<String>,
    /// When a token ends, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expires: Option<i64>,
    /// Nobody gets in by this name, whatever the proof.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) disabled: bool,
}

/// A checked user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) role: Role,
    pub(super) device: Option<DeviceId>,
    pub(super) password: Option<Hash>,
    pub(super) disabled: bool,
    /// A hash of the whole line: another line, another stamp.
    pub(super) stamp: u64,
}

/// A checked token.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    id: Box<str>,
    user: Box<str>,
    role: Role,
    device: Option<DeviceId>,
    expires: Option<i64>,
    disabled: bool,
    stamp: u64,
}

/// The file, checked.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    users: HashMap<Box<str>, User>,
    tokens: HashMap<[u8; 32], Token>,
    /// The secret's hash of each token id.
    token_ids: HashMap<Box<str>, [u8; 32]>,
    /// Whose each device is.
    devices: HashMap<DeviceId, Box<str>>,
}

/// Why a credential is not accepted. The client is not told which of them it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Unknown,
    Disabled,
    Expired,
}

impl Directory {
    /// Reads a file; `None`: there is none.
    ///
    /// # Errors
    /// [`BadFile`].
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, BadFile> {
        let text = place::read(path, limits::AUTH_FILE_BYTES, "auth_file_bytes")?;
        text.map(|text| Self::parse(path, &text)).transpose()
    }

    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, BadFile> {
        let mut directory = Self::default();
        for (number, line) in lines(path, text)? {
            let stamp = stamp(&line);
            directory.add(line, stamp).map_err(|message| BadFile::at(path, number, 1, message))?;
        }
        Ok(directory)
    }

    fn add(&mut self, line: Line, stamp: u64) -> Result<(), String> {
        let role = line.role.unwrap_or(Role::Device);
        check_name(&line.user)?;
        let device = match (role, line.device) {
            (Role::Device, Some(device)) => {
                Some(DeviceId::new(&device).map_err(|error| format!("the device: {error}"))?)
            }
            // Of a name that is only kept out, no device is needed.
            (Role::Device, None) if line.disabled && line.password.is_none() => DeviceId::new(&line.user).ok(),
            (Role::Device, None) => Some(DeviceId::new(&line.user).map_err(|error| {
                format!("the user's name names no device ({error}); give its \"device\", or another role")
            })?),
            (_, Some(_)) => return Err(format!("only the role device has a \"device\", this one is {}", role.name())),
            (_, None) => None,
        };
        let name: Box<str> = line.user.as_str().into();
        let Some(id) = line.token else {
            if line.sha256.is_some() || line.expires.is_some() {
                return Err("only a token has \"sha256\" and \"expires\"".to_owned());
            }
            let password = line.password.as_deref().map(Hash::parse).transpose();
            let password = password.map_err(|error| format!("the password {error}"))?;
            if let Some(device) = &device {
                self.devices.insert(device.clone(), name.clone());
            }
            let user = User { role, device, password, disabled: line.disabled, stamp };
            return match self.users.insert(name, user) {
                None => Ok(()),
                Some(_) => Err(format!("the user {:?} is there twice", line.user)),
            };
        };
        if line.password.is_some() {
            return Err("a token has no \"password\"".to_owned());
        }
        let hash = line.sha256.as_deref().and_then(of_hex).ok_or("a token needs \"sha256\": 64 hex digits")?;
        let (id, expires): (Box<str>, _) = (id.into(), line.expires);
        let token = Token { id: id.clone(), user: name, role, device, expires, disabled: line.disabled, stamp };
        if self.token_ids.insert(id.clone(), hash).is_some() || self.tokens.insert(hash, token).is_some() {
            return Err(format!("the token {id:?} is there twice"));
        }
        Ok(())
    }

    /// The user of this name, if there is one and it is not disabled.
    pub(super) fn user(&self, name: &str) -> Result<&User, Refused> {
        let user = self.users.get(name).ok_or(Refused::Unknown)?;
        if user.disabled { Err(Refused::Disabled) } else { Ok(user) }
    }

    /// Is the name one that nobody gets in by?
    pub(super) fn is_disabled(&self, name: &str) -> bool {
        self.users.get(name).is_some_and(|user| user.disabled)
    }

    /// The principal of a user who has proved to be that.
    pub(super) fn principal(name: &str, user: &User, proof: Proof) -> Principal {
        Principal { name: name.into(), role: user.role, device: user.device.clone(), proof, expires: None, rules: None }
    }

    /// The principal of a token's secret. A user of the same name decides the role and the device.
    pub(super) fn of_token(&self, hash: &[u8; 32], now: i64) -> Result<Principal, Refused> {
        let token = self.tokens.get(hash).ok_or(Refused::Unknown)?;
        if token.disabled || self.is_disabled(&token.user) {
            return Err(Refused::Disabled);
        }
        if token.expires.is_some_and(|expires| expires <= now) {
            return Err(Refused::Expired);
        }
        let owner = self.users.get(&token.user);
        let (role, device) = owner.map_or((token.role, &token.device), |user| (user.role, &user.device));
        Ok(Principal {
            name: token.user.clone(),
            role,
            device: device.clone(),
            proof: Proof::Token { id: token.id.clone(), stamp: owner.map_or(0, |user| user.stamp) ^ token.stamp },
            expires: token.expires,
            rules: None,
        })
    }

    /// What has become of a principal since it was accepted.
    pub(super) fn standing(&self, principal: &Principal) -> Standing {
        let known = match &principal.proof {
            Proof::Password { stamp } => {
                self.users.get(&principal.name).map(|user| (user.disabled, user.stamp == *stamp))
            }
            Proof::Token { id, stamp } => {
                let token = self.token_ids.get(id).and_then(|hash| self.tokens.get(hash));
                let owner = self.users.get(&principal.name);
                token.map(|token| {
                    let disabled = token.disabled || owner.is_some_and(|user| user.disabled);
                    (disabled, owner.map_or(0, |user| user.stamp) ^ token.stamp == *stamp)
                })
            }
            Proof::Jwt | Proof::Certificate => Some((self.is_disabled(&principal.name), true)),
            Proof::Socket | Proof::Nothing => Some((false, true)),
        };
        match known {
            None | Some((true, _)) => Standing::Revoked,
            Some((false, false)) => Standing::Changed,
            Some((false, true)) => Standing::Same,
        }
    }

    /// The names that somebody could get in by, and that nobody can in `other`.
    pub(super) fn gone_in(&self, other: &Self) -> HashSet<Box<str>> {
        let named: HashSet<&str> = other.tokens.values().map(|token| &*token.user).collect();
        let is_known = |name: &str| match other.users.get(name) {
            Some(user) => !user.disabled,
            None => named.contains(name),
        };
        // Who is disabled now may have come by a certificate or a signed token, which no former line tells.
        let disabled = other.users.iter().filter(|(_, user)| user.disabled).map(|(name, _)| name);
        let former = self.users.keys().chain(self.tokens.values().map(|token| &token.user)).chain(disabled);
        former.filter(|name| !is_known(name)).cloned().collect()
    }

    /// Whose this client id is, if it is the name or the device of a user.
    pub(super) fn owner_of(&self, client_id: &str) -> Option<&str> {
        if let Some((name, _)) = self.users.get_key_value(client_id) {
            return Some(name);
        }
        self.devices.get(client_id).map(|name| &**name)
    }

    /// Users and tokens.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.users.len(), self.tokens.len())
    }
}

/// What has become of a principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Same,
    /// Another password, role or device: it must prove itself again, and finds what it has.
    Changed,
    /// Gone or disabled: nothing of it stays.
    Revoked,
}

/// The lines of a file with their numbers; blank ones are passed over.
pub(super) fn lines(path: &Path, text: &str) -> Result<Vec<(usize, Line)>, BadFile> {
    let mut lines = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let parsed = serde_json::from_str(line);
        let parsed = parsed.map_err(|error| {
            // serde's own words end in a place within the line, which is the column here.
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default().to_owned();
            BadFile::at(path, number + 1, error.column().max(1), message)
        })?;
        lines.push((number + 1, parsed));
    }
    Ok(lines)
}

/// What a user may be called: it stands in MQTT's user name, in HTTP's Basic and in logs.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a user's name must not be empty".to_owned());
    }
    if name.len() > limits::DEVICE_ID_BYTES {
        return Err(format!("a user's name has at most {} bytes (limit device_id_bytes)", limits::DEVICE_ID_BYTES));
    }
    match name.chars().find(|c| c.is_control() || *c == ':') {
        Some(c) => Err(format!("a user's name may not contain {c:?}")),
        None => Ok(()),
    }
}

fn stamp(line: &Line) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(serde_json::to_string(line).unwrap_or_default().as_bytes());
    hasher.finish()
}

fn of_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::{super::secret::sha256, *};

    fn parse(text: &str) -> Result<Directory, String> {
        Directory::parse(Path::new("users.jsonl"), text).map_err(|error| error.to_string())
    }

    fn file() -> String {
        let token = hex(&sha256(b"tg_secret"));
        let other = hex(&sha256(b"tg_other"));
        format!(
            "{{\"user\":\"d1\",\"password\":\"$7$1$AAAA${}\"}}\n\n{{\"user\":\"boss\",\"role\":\"admin\"}}\n\
             {{\"user\":\"gone\",\"disabled\":true}}\n{{\"token\":\"t1\",\"user\":\"d1\",\"sha256\":\"{token}\"}}\n\
             {{\"token\":\"t2\",\"user\":\"lone\",\"device\":\"d7\",\"sha256\":\"{other}\",\"expires\":1000}}\n",
            "A".repeat(86) + "=="
        )
    }

    #[test]
    fn users_and_tokens_become_principals() {
        let directory = parse(&file()).unwrap();
        assert_eq!(directory.counts(), (3, 2));
        assert_eq!(directory.user("nobody"), Err(Refused::Unknown));
        assert_eq!(directory.user("gone"), Err(Refused::Disabled));
        let d1 = directory.of_token(&sha256(b"tg_secret"), 0).unwrap();
        assert_eq!((&*d1.name, d1.role, d1.device.as_ref().unwrap().as_str()), ("d1", Role::Device, "d1"));
        let lone = directory.of_token(&sha256(b"tg_other"), 999).unwrap();
        assert_eq!((&*lone.name, lone.device.as_ref().unwrap().as_str(), lone.expires), ("lone", "d7", Some(1000)));
        assert_eq!(directory.of_token(&sha256(b"tg_other"), 1000), Err(Refused::Expired));
        assert_eq!(directory.of_token(&sha256(b"tg_wrong"), 0), Err(Refused::Unknown));
        assert_eq!(
            (directory.owner_of("d1"), directory.owner_of("boss"), directory.owner_of("d9")),
            (Some("d1"), Some("boss"), None)
        );
    }

    #[test]
    fn a_change_is_seen_on_those_whom_it_concerns() {
        let before = parse(&file()).unwrap();
        let d1 =
            Directory::principal("d1", before.user("d1").unwrap(), Proof::Password { stamp: before.users["d1"].stamp });
        let token = before.of_token(&sha256(b"tg_secret"), 0).unwrap();
        let lone = before.of_token(&sha256(b"tg_other"), 0).unwrap();
        let jwt = Principal { name: "else".into(), proof: Proof::Jwt, ..d1.clone() };
        let all = [&d1, &token, &lone, &jwt];
        let check = |text: &str, expected: [Standing; 4]| {
            let after = parse(text).unwrap();
            assert_eq!(all.map(|principal| after.standing(principal)), expected, "{text}");
        };
        use Standing::{Changed, Revoked, Same};
        check(&file(), [Same; 4]);
        check(&file().replace("$7$1$", "$7$2$"), [Changed, Changed, Same, Same]);
        check(
            &file().replace("\"user\":\"d1\",\"password\"", "\"user\":\"d1\",\"disabled\":true,\"password\""),
            [Revoked, Revoked, Same, Same],
        );
        check(
            &file().lines().filter(|line| !line.contains("t1")).collect::<Vec<_>>().join("\n"),
            [Same, Revoked, Same, Same],
        );
        check(&format!("{}{{\"user\":\"else\",\"disabled\":true}}", file()), [Same, Same, Same, Revoked]);
        check("", [Revoked, Revoked, Revoked, Same]);
        let gone = |text: &str| {
            let mut gone: Vec<_> = before.gone_in(&parse(text).unwrap()).into_iter().map(String::from).collect();
            gone.sort_unstable();
            gone.join(" ")
        };
        assert_eq!(gone(&file()), "gone");
        assert_eq!(gone(""), "boss d1 gone lone");
        assert_eq!(gone(&format!("{}{{\"user\":\"else\",\"disabled\":true}}", file())), "else gone");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, expected) in [
            ("{\"user\":\"a\"}\n{\"user\":\"a\"}", "users.jsonl:2:1: the user \"a\" is there twice"),
            ("{\"user\":\"a\",\"passwd\":\"x\"}", "users.jsonl:1:20: unknown field `passwd`, expected one of"),
            ("{\"user\":\"a\"", "users.jsonl:1:11: EOF while parsing an object"),
            ("{\"user\":\"a\",\"password\":\"x\"}", "users.jsonl:1:1: the password is not hashed"),
            ("{\"user\":\"a/b\"}", "users.jsonl:1:1: the user's name names no device"),
            ("{\"user\":\"\"}", "users.jsonl:1:1: a user's name must not be empty"),
            ("{\"user\":\"a:b\"}", "users.jsonl:1:1: a user's name may not contain ':'"),
            ("{\"user\":\"a\",\"role\":\"root\"}", "users.jsonl:1:25: unknown variant `root`, expected one of"),
            (
                "{\"user\":\"a\",\"role\":\"admin\",\"device\":\"d\"}",
                "users.jsonl:1:1: only the role device has a \"device\"",
            ),
            ("{\"token\":\"t\",\"user\":\"a\"}", "users.jsonl:1:1: a token needs \"sha256\": 64 hex digits"),
        ] {
            let error = parse(text).err().unwrap();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
    }
}
