//! Signed tokens of somebody else: which are taken, which are not, and what they may do.

mod support;

use serde_json::{Value, json};
use support::{
    House, Node,
    auth::done,
    jwt::{Keys, hs256, none, seconds},
    mqtt::{Connect, Raw, Version, publish, subscribe},
};

const BAD_PASSWORD: u8 = 0x86;
const NOT_AUTHORIZED: u8 = 0x87;

fn with<'a>(id: &'a str, token: &'a str) -> Connect<'a> {
    Connect { user: Some("whatever"), password: Some(token), ..Connect::new(Version::V5, id) }
}

#[track_caller]
fn code(node: &Node, connect: &Connect<'_>) -> u8 {
    let mut raw = Raw::open(node.mqtt);
    raw.send(&connect.bytes());
    raw.expect(0x20).body[1]
}

fn house(keys: &Keys) -> House {
    House::new()
        .variable("TIDEGATE_AUTH__JWT_KEY_FILE", keys.public.to_str().expect("a path of UTF-8"))
        .variable("TIDEGATE_AUTH__JWT_AUDIENCE", "tidegate")
        .variable("TIDEGATE_AUTH__JWT_ISSUER", "https://id.example")
        .variable("TIDEGATE_AUTH__BANS__WRONG_PASSWORDS", "0")
}

fn claims() -> Value {
    json!({ "sub": "d1", "aud": "tidegate", "iss": "https://id.example", "exp": seconds(600) })
}

/// The claims with one changed; `null` takes it away.
fn but(name: &str, value: Value) -> Value {
    let mut claims = claims();
    let members = claims.as_object_mut().expect("claims are an object");
    if value.is_null() {
        members.remove(name)
    } else {
        members.insert(name.to_owned(), value)
    };
    claims
}

#[test]
fn a_token_counts_only_as_it_was_signed_for_whom_and_while_it_lasts() {
    let dir = tempfile::tempdir().unwrap();
    let (keys, others) = (Keys::new(dir.path(), "RSA"), tempfile::tempdir().unwrap());
    let strangers = Keys::new(others.path(), "RSA");
    let node = house(&keys).start();
    let sign = |claims: &Value| keys.sign("RS256", claims);
    let public = std::fs::read(&keys.public).unwrap();
    let forged = |token: String| {
        let (rest, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = rest.split_once('.').unwrap();
        use base64::Engine as _;
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(but("role", json!("admin")).to_string());
        format!("{header}.{claims}.{signature}")
    };
    for (what, token, expected) in [
        ("good", sign(&claims()), 0),
        ("one of several audiences", sign(&but("aud", json!(["x", "tidegate"]))), 0),
        ("another's signature", strangers.sign("RS256", &claims()), BAD_PASSWORD),
        ("none", none(&claims()), BAD_PASSWORD),
        ("the public key as a secret", hs256(&public, &claims()), BAD_PASSWORD),
        ("the public key as a secret, trimmed", hs256(public.trim_ascii_end(), &claims()), BAD_PASSWORD),
        ("other claims under the same signature", forged(sign(&claims())), BAD_PASSWORD),
        ("over", sign(&but("exp", json!(seconds(-60)))), BAD_PASSWORD),
        ("without an end", sign(&but("exp", Value::Null)), BAD_PASSWORD),
        ("not yet", sign(&but("nbf", json!(seconds(120)))), BAD_PASSWORD),
        ("for somebody else", sign(&but("aud", json!("elsewhere"))), BAD_PASSWORD),
        ("for nobody", sign(&but("aud", Value::Null)), BAD_PASSWORD),
        ("by somebody else", sign(&but("iss", json!("https://evil.example"))), BAD_PASSWORD),
        ("of nobody", sign(&but("sub", Value::Null)), BAD_PASSWORD),
        ("with an unknown role", sign(&but("role", json!("root"))), BAD_PASSWORD),
        ("with a list for a name", sign(&but("sub", json!(["d1"]))), BAD_PASSWORD),
        ("with rules that are none", sign(&but("acl", json!({ "pub": ["a/#/b"] }))), BAD_PASSWORD),
    ] {
        assert_eq!(code(&node, &with("d1", &token)), expected, "{what}");
        let shown = format!("Bearer {token}");
        // A device may not read: who is let in is told so, who is not is asked who they are.
        let status = node.showing(Some(shown)).get("/devices").status;
        assert_eq!(status, if expected == 0 { 403 } else { 401 }, "{what}");
        assert!(!node.log().contains(&token), "a token in the log");
    }
}

#[test]
fn claims_say_who_it_is_and_the_connection_ends_with_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::new(dir.path(), "EC");
    let house = house(&keys);
    let node = house.start();
    let sign = |claims: &Value| keys.sign("ES256", claims);
    let token = sign(&but("device", json!("pump-7")));
    let mut pump = Raw::connect_with(node.mqtt, &with("some-client", &token));
    for (id, topic, expected) in [
        (1, "v1/devices/me/telemetry", 0),
        (2, "devices/pump-7/metrics", 0),
        (3, "devices/d1/metrics", NOT_AUTHORIZED),
        (4, "plant/1", NOT_AUTHORIZED),
    ] {
        pump.send(&publish(Version::V5, topic, 1, id, &[], b"{\"v\":1}"));
        assert_eq!(pump.expect(0x40).puback(), (id, expected), "{topic}");
    }
    let token = sign(&but("acl", json!({ "pub": ["plant/1"], "sub": ["plant/#"] })));
    let mut ruled = Raw::connect_with(node.mqtt, &with("ruled", &token));
    ruled.send(&publish(Version::V5, "plant/1", 1, 1, &[], b"x"));
    assert_eq!(ruled.expect(0x40).puback(), (1, 0));
    ruled.send(&publish(Version::V5, "plant/2", 1, 2, &[], b"x"));
    assert_eq!(ruled.expect(0x40).puback(), (2, NOT_AUTHORIZED));
    ruled.send(&subscribe(Version::V5, 3, "plant/+", 0));
    assert_eq!(ruled.expect(0x90).body[3], 0);

    let operator = sign(&but("role", json!("operator")));
    node.showing(Some(format!("Bearer {operator}")));
    assert_eq!(node.get("/devices/pump-7").json()["state"]["v"], 1);

    let short = sign(&but("exp", json!(seconds(2))));
    let mut brief = Raw::connect_with(node.mqtt, &with("brief", &short));
    assert_eq!(brief.expect(0xE0).disconnect_reason(), NOT_AUTHORIZED);

    // A name can be shut out before its tokens end.
    done(&house, &["user", "disable", "d1"], "");
    assert_eq!(ruled.expect(0xE0).disconnect_reason(), NOT_AUTHORIZED);
    assert_eq!(code(&node, &with("d1", &token)), BAD_PASSWORD);
}

#[test]
fn keys_that_cannot_be_meant_refuse_to_start() {
    let house = House::new();
    std::fs::create_dir_all(house.data()).unwrap();
    let dir = house.data().parent().unwrap().to_owned();
    let keys = Keys::new(&dir, "RSA");
    std::fs::write(dir.join("short"), "too short\n").unwrap();
    std::fs::write(dir.join("secret"), "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::write(dir.join("empty.json"), "{\"keys\":[]}").unwrap();
    let public = keys.public.to_str().unwrap();
    for (key, algorithms, words) in [
        ("missing", "RS256", "missing: is not there"),
        (public, "HS256", "is a key of the family Rsa, and auth.jwt_algorithms has none of it"),
        (public, "HS256,ES256", "is a key of the family Rsa"),
        ("short", "HS256", "as a secret it is shorter than 32 bytes"),
        ("secret", "RS256", "a secret needs HS256"),
        ("empty.json", "RS256", "holds no key for RS256"),
    ] {
        let file = format!("[auth]\njwt_key_file = {key:?}\njwt_algorithms = {algorithms:?}\n");
        std::fs::write(dir.join("tidegate.toml"), file).unwrap();
        let output = support::raw::run(&dir, &support::raw::SERVE);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{key} {algorithms}: {said}");
        assert!(said.contains(words), "{key} {algorithms}: {said}");
    }
}
