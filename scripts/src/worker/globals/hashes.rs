//! The cheap hashes and the cheap compression of `node:crypto` and `node:zlib`, which run in the worker itself, at once.

use boa_engine::{
    Context, JsArgs, JsNativeError, JsResult, JsString, JsValue, native_function::NativeFunctionPointer,
    object::builtins::JsArray,
};
use tidegate_actors::limits;

use super::bytes;
use crate::{
    compress::{Zip, zip},
    hashes::{self, Algorithm},
    slow::zip_error,
};

/// By the names that `hashes.js` and `zlib.js` have for them.
pub(super) const NATIVES: [(&str, NativeFunctionPointer); 5] =
    [("hashNames", names), ("hash", hash), ("hmac", hmac), ("derive", derive), ("zip", zip_now)];

fn algorithm(args: &[JsValue], at: usize) -> Option<Algorithm> {
    args.get_or_undefined(at).as_string().and_then(|name| Algorithm::named(&name.to_std_string_lossy()))
}

fn number(args: &[JsValue], at: usize) -> u32 {
    let number = args.get_or_undefined(at).as_number().unwrap_or(0.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    {
        number as u32
    }
}

/// The names of the hashes.
#[expect(clippy::unnecessary_wraps, reason = "the engine's signature")]
fn names(_: &JsValue, _: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    Ok(JsArray::from_iter(Algorithm::NAMES.map(|name| JsString::from(name).into()), context).into())
}

/// Name, bytes → its hash; without bytes: is there one of this name?
fn hash(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let Some(algorithm) = algorithm(args, 0) else { return Ok(false.into()) };
    if args.get_or_undefined(1).is_undefined() {
        return Ok(true.into());
    }
    let input = bytes::of(args.get_or_undefined(1), context)?;
    bytes::array(&algorithm.digest(&input), context)
}

/// Name, key, bytes → the keyed hash.
fn hmac(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let Some(algorithm) = algorithm(args, 0) else { return Ok(false.into()) };
    let key = bytes::of(args.get_or_undefined(1), context)?;
    let input = bytes::of(args.get_or_undefined(2), context)?;
    bytes::array(&algorithm.hmac(&key, &input), context)
}

/// Name, password, salt, iterations, length → the key of `pbkdf2Sync`.
fn derive(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let Some(algorithm) = algorithm(args, 0) else { return Ok(false.into()) };
    let password = bytes::of(args.get_or_undefined(1), context)?;
    let salt = bytes::of(args.get_or_undefined(2), context)?;
    let length = number(args, 4) as usize;
    let most = (limits::SCRIPT_PBKDF2_SYNC_ROUNDS, "script_pbkdf2_sync_rounds; pbkdf2 may have more");
    let key = hashes::pbkdf2(algorithm, &password, &salt, number(args, 3), length, most);
    bytes::array(&key.map_err(|message| JsNativeError::range().with_message(message))?, context)
}

/// Kind, level, bytes → what comes of it; a text: the code and the message of what it failed of.
fn zip_now(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let kind = args.get_or_undefined(0).as_string().map(|kind| kind.to_std_string_lossy()).unwrap_or_default();
    let kind = serde_json::from_value::<Zip>(kind.into());
    let kind = kind.map_err(|_| JsNativeError::typ().with_message("there is no such kind"))?;
    let level = args.get_or_undefined(1).as_number().map(|_| number(args, 1));
    let input = bytes::of(args.get_or_undefined(2), context)?;
    let most = limits::SCRIPT_ZLIB_SYNC_BYTES;
    if input.len() > most {
        let message = format!(
            "ERR_TIDEGATE_LIMIT {} bytes: {most} at most (limit script_zlib_sync_bytes); the form with a callback takes more",
            input.len()
        );
        return Ok(JsString::from(message).into());
    }
    match zip(kind, level, &input, most) {
        Ok(output) => bytes::array(&output, context),
        Err(error) => {
            let (code, message) = zip_error(&error, "script_zlib_sync_bytes; the form with a callback gives more");
            Ok(JsString::from(format!("{code} {message}")).into())
        }
    }
}
