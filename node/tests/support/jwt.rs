//! Signed tokens, as some other server would make them: keys by `openssl`, signatures by hand, so that a test can also make those
//! that nobody should accept.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair},
};
use serde_json::{Value, json};

/// A key pair whose public half is a PEM file.
pub(crate) struct Keys {
    private: Vec<u8>,
    pub(crate) public: PathBuf,
}

impl Keys {
    /// A new pair of `RSA` or `EC` (P-256); its files are in `dir`.
    pub(crate) fn new(dir: &Path, kind: &str) -> Self {
        let [pem, der, public] = ["key", "der", "pem"].map(|suffix| dir.join(format!("{kind}.{suffix}")));
        let option = if kind == "RSA" { "rsa_keygen_bits:2048" } else { "ec_paramgen_curve:P-256" };
        let openssl = |arguments: &[&str], input: Option<&Path>, output: &Path| {
            let mut command = Command::new("openssl");
            command.args(arguments).arg("-out").arg(output);
            if let Some(input) = input {
                command.arg("-in").arg(input);
            }
            let output = command.output().expect("openssl is installed");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        openssl(&["genpkey", "-quiet", "-algorithm", kind, "-pkeyopt", option], None, &pem);
        openssl(&["pkcs8", "-topk8", "-nocrypt", "-outform", "DER"], Some(&pem), &der);
        openssl(&["pkey", "-pubout"], Some(&pem), &public);
        Self { private: std::fs::read(&der).expect("the key"), public }
    }

    /// A token with these claims, signed as `alg` says: RS256 or ES256.
    pub(crate) fn sign(&self, alg: &str, claims: &Value) -> String {
        let message = message(alg, claims);
        let random = SystemRandom::new();
        let signature = if alg == "RS256" {
            let key = RsaKeyPair::from_pkcs8(&self.private).expect("an RSA key");
            let mut signature = vec![0; key.public().modulus_len()];
            key.sign(&RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).expect("a signature");
            signature
        } else {
            let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.private, &random);
            key.expect("a P-256 key").sign(&random, message.as_bytes()).expect("a signature").as_ref().to_vec()
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A token that an HMAC with this secret signs.
pub(crate) fn hs256(secret: &[u8], claims: &Value) -> String {
    let message = message("HS256", claims);
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A token that nobody signed.
pub(crate) fn none(claims: &Value) -> String {
    format!("{}.", message("none", claims))
}

fn message(alg: &str, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", encode(&json!({ "alg": alg, "typ": "JWT" })), encode(claims))
}

/// Seconds since 1970, and `more`.
pub(crate) fn seconds(more: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("before the year 292 billion") + more
}
