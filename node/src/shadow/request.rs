//! What a request about a shadow says, and why it is refused. The words and codes of a refusal are those of AWS' device
//! shadows where they have some, so that a client that knows them needs no others.

use serde_json::{Map, Value, json};
use tidegate_actors::limits;

/// What an update does to one section.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Patch {
    /// Nothing.
    Absent,
    /// It empties it.
    Clear,
    /// It merges this (RFC 7396).
    Merge(Map<String, Value>),
}

/// A checked update.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Update {
    pub(crate) desired: Patch,
    pub(crate) reported: Patch,
    /// The version that the shadow must have.
    pub(crate) version: Option<u64>,
    pub(crate) token: Option<Box<str>>,
}

/// Why a request is refused: a code like HTTP's, and words.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rejection {
    pub(crate) code: u16,
    pub(crate) message: String,
    /// The limit that was met: its name and value.
    pub(crate) limit: Option<(&'static str, usize)>,
    pub(crate) token: Option<Box<str>>,
}

impl Rejection {
    pub(crate) fn new(code: u16, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), limit: None, token: None }
    }

    pub(crate) fn limit(self, name: &'static str, value: usize) -> Self {
        Self { limit: Some((name, value)), ..self }
    }

    fn token(self, token: Option<Box<str>>) -> Self {
        Self { token, ..self }
    }

    /// The payload of a `rejected` message.
    pub(crate) fn json(&self, now: i64) -> Value {
        let mut body = json!({ "code": self.code, "message": self.message, "timestamp": now });
        if let Some(token) = &self.token {
            body["clientToken"] = json!(token);
        }
        body
    }
}

impl Update {
    /// Reads an update.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, Rejection> {
        let mut body = object(payload)?;
        let token = token(&body)?;
        let refused = |message: String| Rejection::new(400, message).token(token.clone());
        const MEMBERS: [&str; 5] = ["state", "version", "clientToken", "metadata", "timestamp"];
        // What an answer carries beside the state may come back; a misspelt version must not be passed over.
        if let Some(other) = body.keys().find(|key| !MEMBERS.contains(&key.as_str())) {
            return Err(refused(format!("unknown member {other:?}; allowed: state, version, clientToken")));
        }
        let version = match body.get("version") {
            None | Some(Value::Null) => None,
            Some(version) => Some(version.as_u64().ok_or_else(|| refused("Invalid version".to_owned()))?),
        };
        let mut state = match body.remove("state") {
            Some(Value::Object(state)) => state,
            Some(_) => return Err(refused("State node must be an object".to_owned())),
            None => return Err(refused("Missing required node: state".to_owned())),
        };
        let mut section = |name: &str, title: &str| match state.remove(name) {
            None => Ok(Patch::Absent),
            Some(Value::Null) => Ok(Patch::Clear),
            Some(Value::Object(patch)) => Ok(Patch::Merge(patch)),
            Some(_) => Err(refused(format!("{title} node must be an object"))),
        };
        let (desired, reported) = (section("desired", "Desired")?, section("reported", "Reported")?);
        if let Some(other) = state.keys().next() {
            return Err(refused(format!("State contains an invalid node: {other:?}; allowed: desired, reported")));
        }
        Ok(Self { desired, reported, version, token })
    }

    /// The state as it was asked for: what `accepted` says back.
    pub(crate) fn state(&self) -> Map<String, Value> {
        let mut state = Map::new();
        for (name, patch) in [("desired", &self.desired), ("reported", &self.reported)] {
            match patch {
                Patch::Absent => {}
                Patch::Clear => drop(state.insert(name.to_owned(), Value::Null)),
                Patch::Merge(patch) => drop(state.insert(name.to_owned(), patch.clone().into())),
            }
        }
        state
    }

    /// The times of what it sets, at `now`; what it removes has none.
    pub(crate) fn metadata(&self, now: i64) -> Map<String, Value> {
        fn set(patch: &Map<String, Value>, now: i64) -> Value {
            let of = |value: &Value| match value {
                Value::Object(inner) => set(inner, now),
                other => super::document::times_of(other, now),
            };
            patch.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), of(value))).collect()
        }
        let sections = [("desired", &self.desired), ("reported", &self.reported)].into_iter();
        sections
            .filter_map(|(name, patch)| match patch {
                Patch::Merge(patch) => Some((name.to_owned(), set(patch, now))),
                Patch::Absent | Patch::Clear => None,
            })
            .collect()
    }
}

/// The `clientToken` of a request that says nothing else: nothing, or an object.
///
/// # Errors
/// It is neither, or its token is none.
pub(crate) fn bare(payload: &[u8]) -> Result<Option<Box<str>>, Rejection> {
    if payload.trim_ascii().is_empty() {
        return Ok(None);
    }
    token(&object(payload)?)
}

fn object(payload: &[u8]) -> Result<Map<String, Value>, Rejection> {
    if payload.len() > limits::SHADOW_REQUEST_BYTES {
        let message = format!(
            "The payload exceeds the maximum size allowed: {} bytes, at most {} (limit shadow_request_bytes)",
            payload.len(),
            limits::SHADOW_REQUEST_BYTES
        );
        return Err(Rejection::new(413, message).limit("shadow_request_bytes", limits::SHADOW_REQUEST_BYTES));
    }
    match serde_json::from_slice(payload) {
        Ok(Value::Object(body)) => Ok(body),
        Ok(_) => Err(Rejection::new(400, "Invalid JSON: not an object")),
        Err(error) => Err(Rejection::new(400, format!("Invalid JSON: {error}"))),
    }
}

fn token(body: &Map<String, Value>) -> Result<Option<Box<str>>, Rejection> {
    match body.get("clientToken") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(token)) if token.len() <= limits::SHADOW_TOKEN_BYTES => Ok(Some(token.as_str().into())),
        Some(_) => {
            let most = limits::SHADOW_TOKEN_BYTES;
            let message = format!("Invalid clientToken: a string of at most {most} bytes (limit shadow_token_bytes)");
            Err(Rejection::new(400, message).limit("shadow_token_bytes", most))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_refused_in_the_words_that_clients_know() {
        for (payload, code, words) in [
            ("", 400, "Invalid JSON"),
            ("[1]", 400, "Invalid JSON"),
            ("{}", 400, "Missing required node: state"),
            (r#"{"state":null}"#, 400, "State node must be an object"),
            (r#"{"state":{"desired":1}}"#, 400, "Desired node must be an object"),
            (r#"{"state":{"reported":[]}}"#, 400, "Reported node must be an object"),
            (r#"{"state":{"desird":{}}}"#, 400, "invalid node: \"desird\""),
            (r#"{"state":{},"version":-1}"#, 400, "Invalid version"),
            (r#"{"state":{},"version":"1"}"#, 400, "Invalid version"),
            (r#"{"state":{},"versoin":1}"#, 400, "unknown member \"versoin\""),
            (r#"{"state":{},"clientToken":7}"#, 400, "Invalid clientToken"),
        ] {
            let rejection = Update::parse(payload.as_bytes()).unwrap_err();
            assert_eq!(rejection.code, code, "{payload}");
            assert!(rejection.message.contains(words), "{payload}: {}", rejection.message);
        }
        let long = json!({ "state": {}, "clientToken": "x".repeat(limits::SHADOW_TOKEN_BYTES + 1) }).to_string();
        assert_eq!(Update::parse(long.as_bytes()).unwrap_err().limit, Some(("shadow_token_bytes", 64)));
        let large = " ".repeat(limits::SHADOW_REQUEST_BYTES + 1);
        assert_eq!(Update::parse(large.as_bytes()).unwrap_err().code, 413);
    }

    #[test]
    fn a_refusal_carries_the_token_of_its_request() {
        let rejection = Update::parse(br#"{"clientToken":"t"}"#).unwrap_err();
        assert_eq!(rejection.json(9)["clientToken"], "t");
        assert_eq!(bare(b" ").unwrap(), None);
        assert_eq!(bare(br#"{"clientToken":"t"}"#).unwrap().as_deref(), Some("t"));
        assert!(bare(b"no").is_err());
    }

    #[test]
    fn what_is_accepted_is_said_back() {
        let payload = json!({ "state": { "desired": { "a": 1, "b": null, "c": { "d": [1, 2] } }, "reported": null } });
        let update = Update::parse(payload.to_string().as_bytes()).unwrap();
        assert_eq!(Value::from(update.state()), payload["state"]);
        let (t, times) = (json!({ "timestamp": 5 }), update.metadata(5));
        assert_eq!(Value::from(times), json!({ "desired": { "a": t, "c": { "d": [t, t] } } }));
    }
}
