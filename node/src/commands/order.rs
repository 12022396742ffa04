//! The body of `POST /devices/{id}/commands`.

use std::time::Duration;

use serde_json::value::RawValue;
use tidegate_actors::limits;

use super::command::Order;

/// The body as it comes.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Request<'a> {
    name: String,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    timeout_ms: Option<u64>,
    expiry_ms: Option<u64>,
    #[serde(default)]
    oneway: bool,
}

/// Why a body is no command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadOrder {
    /// The member that is wrong; `None`: the whole.
    pub(crate) field: Option<&'static str>,
    pub(crate) detail: String,
    pub(crate) limit: Option<(&'static str, u64)>,
}

impl Request<'_> {
    /// Reads a body and checks it.
    ///
    /// # Errors
    /// [`BadOrder`].
    pub(crate) fn parse(body: &[u8]) -> Result<Order, BadOrder> {
        let request: Request<'_> = serde_json::from_slice(body).map_err(|error| BadOrder {
            field: None,
            detail: format!(
                "{error}; a command is {{\"name\":…}} with, if wanted, params, timeoutMs, expiryMs and oneway"
            ),
            limit: None,
        })?;
        let Request { name, params, timeout_ms, expiry_ms, oneway } = request;
        let params = params.map_or("{}", RawValue::get);
        check(&name, params)?;
        let timeout_ms = timeout_ms.unwrap_or_else(|| ms(limits::COMMAND_TIMEOUT));
        at_most("timeoutMs", "command_timeout_most", timeout_ms, ms(limits::COMMAND_TIMEOUT_MOST))?;
        if timeout_ms == 0 {
            let detail = "timeoutMs = 0: give the device some time, or send it with \"oneway\": true".to_owned();
            return Err(BadOrder { field: Some("timeoutMs"), detail, limit: None });
        }
        let expiry_ms = expiry_ms.unwrap_or(0);
        at_most("expiryMs", "command_expiry_most", expiry_ms, ms(limits::COMMAND_EXPIRY_MOST))?;
        Ok(Order { name: name.into(), params: params.into(), timeout_ms, expiry_ms, oneway })
    }
}

impl Order {
    /// A handler's command.
    ///
    /// # Errors
    /// [`BadOrder`].
    pub(crate) fn of_handler(name: &str, params: &str) -> Result<Self, BadOrder> {
        check(name, params)?;
        let (timeout_ms, expiry_ms) = (ms(limits::COMMAND_TIMEOUT), ms(limits::COMMAND_HANDLER_EXPIRY));
        Ok(Self { name: name.into(), params: params.into(), timeout_ms, expiry_ms, oneway: false })
    }
}

fn check(name: &str, params: &str) -> Result<(), BadOrder> {
    if name.is_empty() {
        return Err(BadOrder { field: Some("name"), detail: "name is empty".to_owned(), limit: None });
    }
    for (field, limit, bytes, most) in [
        ("name", "command_name_bytes", name.len(), limits::COMMAND_NAME_BYTES),
        ("params", "command_params_bytes", params.len(), limits::COMMAND_PARAMS_BYTES),
    ] {
        if bytes > most {
            let detail = format!("{field} has {bytes} bytes, at most {most} are sent");
            return Err(BadOrder { field: Some(field), detail, limit: Some((limit, most as u64)) });
        }
    }
    Ok(())
}

fn at_most(field: &'static str, limit: &'static str, value: u64, most: u64) -> Result<(), BadOrder> {
    if value <= most {
        return Ok(());
    }
    Err(BadOrder {
        field: Some(field),
        detail: format!("{field} = {value}; allowed: up to {most}"),
        limit: Some((limit, most)),
    })
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_checked_and_its_params_stay_as_they_are() {
        let order = Request::parse(br#"{"name":"open","params":{"n":12345678901234567890123}}"#).unwrap();
        assert_eq!((&*order.name, &*order.params), ("open", r#"{"n":12345678901234567890123}"#));
        assert_eq!((order.timeout_ms, order.expiry_ms, order.oneway), (10_000, 0, false));
        assert_eq!(&*Request::parse(br#"{"name":"n"}"#).unwrap().params, "{}");
        let long = format!(r#"{{"name":"{}"}}"#, "n".repeat(limits::COMMAND_NAME_BYTES + 1));
        let large = format!(r#"{{"name":"n","params":"{}"}}"#, "x".repeat(limits::COMMAND_PARAMS_BYTES));
        for (body, field, limit) in [
            ("", None, None),
            ("[]", None, None),
            (r#"{"params":1}"#, None, None),
            (r#"{"name":"n","parms":1}"#, None, None),
            (r#"{"name":""}"#, Some("name"), None),
            (&long, Some("name"), Some("command_name_bytes")),
            (&large, Some("params"), Some("command_params_bytes")),
            (r#"{"name":"n","timeoutMs":0}"#, Some("timeoutMs"), None),
            (r#"{"name":"n","timeoutMs":600001}"#, Some("timeoutMs"), Some("command_timeout_most")),
            (r#"{"name":"n","expiryMs":2592000001}"#, Some("expiryMs"), Some("command_expiry_most")),
            (r#"{"name":"n","timeoutMs":-1}"#, None, None),
        ] {
            let bad = Request::parse(body.as_bytes()).unwrap_err();
            assert_eq!((bad.field, bad.limit.map(|(name, _)| name)), (field, limit), "{bad:?}");
        }
    }
}
