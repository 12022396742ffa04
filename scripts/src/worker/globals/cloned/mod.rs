//! Values that cross between the processes of a call and of its task: structured clone as bytes. What is shared or cyclic within one
//! value stays so; functions, symbols, promises and the like do not cross, as in Node.js.
//!
//! No proxy is asked and no script runs, but for getters, which run through the prelude's `try`.

mod reader;
mod tag;
mod writer;

use boa_engine::{
    Context, JsArgs, JsError, JsNativeError, JsResult, JsString, JsValue, native_function::NativeFunctionPointer,
    object::builtins::JsArray,
};

pub(in super::super) use self::{
    reader::unpack,
    writer::{Refused, pack, pack_error},
};
use super::bytes;

/// By the names that `tasks.js` has for them.
pub(super) const NATIVES: [(&str, NativeFunctionPointer); 2] = [("pack", pack_native), ("unpack", unpack_native)];

/// Value, is it one that was thrown → its bytes; a list of one value: that does not cross; a text: the limit that it meets.
fn pack_native(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    match pack(args.get_or_undefined(0), args.get_or_undefined(1).to_boolean(), context) {
        Ok(packed) => bytes::array(&packed, context),
        Err(Refused::Value(value)) => Ok(JsArray::from_iter([value], context).into()),
        Err(Refused::Limit(message)) => Ok(JsString::from(message.as_str()).into()),
        Err(Refused::Threw(error)) => Err(error),
    }
}

/// `Uint8Array` → value.
fn unpack_native(_: &JsValue, args: &[JsValue], context: &mut Context) -> JsResult<JsValue> {
    let packed = bytes::of(args.get_or_undefined(0), context)?;
    unpack(&packed, context)
}

fn unreadable() -> JsError {
    JsNativeError::error().with_message("the message of a task cannot be read").into()
}

#[cfg(test)]
mod tests {
    use boa_engine::Source;

    use super::*;
    use crate::worker::fault;

    /// A value in a context, packed there and unpacked in another, as a text that an expression of `back` makes of it.
    fn through(value: &str, back: &str) -> String {
        let mut from = Context::default();
        let value = from.eval(Source::from_bytes(value)).expect("a value");
        let packed = match pack(&value, false, &mut from) {
            Ok(packed) => packed,
            Err(Refused::Value(value)) => return format!("refused {}", fault::describe(&value)),
            Err(Refused::Limit(message)) => return message,
            Err(Refused::Threw(error)) => return error.to_string(),
        };
        let mut to = Context::default();
        let value = unpack(&packed, &mut to).expect("it is read");
        for cut in 0..packed.len().min(64) {
            assert!(unpack(&packed[..cut], &mut to).is_err(), "cut at {cut}");
        }
        let check = to.eval(Source::from_bytes(&format!("(v => String({back}))"))).expect("a function");
        let shown = check.as_function().expect("a function").call(&JsValue::undefined(), &[value], &mut to);
        shown.expect("it is shown").as_string().expect("a text").to_std_string_lossy()
    }

    #[test]
    fn values_come_as_they_went() {
        for (value, back, shown) in [
            ("undefined", "v", "undefined"),
            (
                "[1, -0, 1e300, NaN, 'ä\\ud800', '漢', true, null, undefined]",
                "Object.is(v[1], -0) && Object.is(v[3], NaN) && v[4] === 'ä\\ud800' && v[5] === '漢' && v[7] === null && 8 in v && v.length",
                "9",
            ),
            ("2n ** 70n * -1n", "v === -(2n ** 70n)", "true"),
            (
                "({ a: { b: [] }, 3: 'x', ['__proto__']: 1, [Symbol('s')]: 1 })",
                "JSON.stringify(v) + Object.getOwnPropertySymbols(v).length + (Object.getPrototypeOf(v) === Object.prototype)",
                "{\"3\":\"x\",\"a\":{\"b\":[]},\"__proto__\":1}0true",
            ),
            ("const a = [1, , 3]; a.x = 'more'; a", "v.length + ' ' + (1 in v) + v[2] + v.x", "3 false3more"),
            ("const far = []; far[4e9] = 1; far", "v.length + ' ' + v[4e9]", "4000000001 1"),
            ("new Date(86400000)", "v.toISOString()", "1970-01-02T00:00:00.000Z"),
            ("/a+/gi", "v.source + v.flags + v.test('bAA')", "a+gitrue"),
            ("new Map([[1, new Set(['x'])], [{}, 2]])", "v.get(1).has('x') + ' ' + v.size", "true 2"),
            (
                "const all = new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8]); [all, new Uint16Array(all.buffer, 2, 2), new DataView(all.buffer, 4)]",
                "(v[0][2] = 9, v[1][0] & 255) + ' ' + v[1].length + ' ' + v[2].byteLength + (v[0].buffer === v[2].buffer)",
                "9 2 4true",
            ),
            (
                "const n = [1, 2.5]; n.x = 1; [n, n, []]",
                "v[0].join() + v[0].x + (v[0] === v[1]) + v[2].length",
                "1,2.51true0",
            ),
            ("new Float64Array([0.5, -1])", "v.join()", "0.5,-1"),
            ("new BigInt64Array([-5n])", "v[0]", "-5"),
            ("const o = {}; o.self = o; o.list = [o]; o", "(v.self === v) + ' ' + (v.list[0] === v)", "true true"),
            (
                "const e = new RangeError('bad', { cause: [1] }); e.code = 'X'; e",
                "(v instanceof RangeError) + v.message + v.cause[0] + v.code",
                "truebad1undefined",
            ),
            (
                "[Object(1), Object('s'), Object(false), Object(3n)]",
                "v.map((x) => typeof x + x.valueOf()).join()",
                "object1,objects,objectfalse,object3",
            ),
            ("class A { constructor() { this.x = 1; } }; new A()", "v.x + v.constructor.name", "1Object"),
        ] {
            assert_eq!(through(value, back), shown, "{value}");
        }
    }

    #[test]
    fn what_does_not_cross_is_refused_and_depth_is_bounded() {
        for (value, why) in [
            ("() => 1", "refused"),
            ("({ a: [Symbol('x')] })", "refused Symbol(x)"),
            ("Promise.resolve()", "refused"),
            ("new Proxy({}, {})", "refused"),
            ("new WeakMap()", "refused"),
            ("let deep = []; for (let i = 0; i < 600; i++) deep = [deep]; deep", "limit script_clone_depth"),
            ("'x'.repeat(9e6)", "limit script_job_bytes"),
        ] {
            let got = through(value, "v");
            assert!(got.contains(why), "{value}: {got}");
        }
    }

    #[test]
    fn errors_within_errors_count_as_depth_whoever_packed_them() {
        let mut packed = vec![tag::UNDEFINED];
        for _ in 0..5_000 {
            // Name, message and stack are empty; no cause; one property "", packed by itself.
            let mut error = vec![tag::ERROR, tag::TEXT, 0, tag::TEXT, 0, tag::TEXT, 0, 0, 1, tag::TEXT, 0, tag::BUFFER];
            let mut size = packed.len();
            while size >= 0x80 {
                error.push(u8::try_from(size & 0x7f).expect("seven bits") | 0x80);
                size >>= 7;
            }
            error.push(u8::try_from(size).expect("seven bits"));
            error.extend(packed);
            packed = error;
        }
        assert!(unpack(&packed, &mut Context::default()).is_err());
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        let mut context = Context::default();
        let mut state = 7_u64;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..24)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    #[expect(clippy::cast_possible_truncation, reason = "one byte")]
                    let byte = (state >> 33) as u8;
                    if byte.is_multiple_of(3) { byte % 21 } else { byte % 5 }
                })
                .collect();
            let _ = unpack(&bytes, &mut context);
        }
    }
}
