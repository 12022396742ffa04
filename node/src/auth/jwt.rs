//! JSON Web Tokens (RFC 7519) that somebody else signed. The algorithms are the configuration's, never the token's: its header is
//! only compared with them, and a key is used for what it is made for. So neither `none` nor a public key taken for a secret
//! comes through.

use std::{collections::HashSet, path::Path, sync::Arc};

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, Validation,
    jwk::{JwkSet, PublicKeyUse},
};
use serde_json::{Map, Value};
use tidegate_actors::{ids::DeviceId, limits};

use super::{
    acl::Rules,
    directory::check_name,
    jwt_crypto,
    place::{self, BadFile},
    principal::{Principal, Proof, Role},
};
use crate::config;

/// How far the clocks of signer and node may differ, in seconds.
const LEEWAY: u64 = 5;
/// Shortest secret of HS256 and its like, in bytes (RFC 7518 section 3.2).
const SECRET_BYTES: usize = 32;
/// Longest token, in bytes.
const TOKEN_BYTES: usize = 16 * 1024;

/// A key, and what it may be used for.
struct Key {
    id: Option<String>,
    key: DecodingKey,
    algorithms: Vec<Algorithm>,
}

/// The keys, and what a token must say.
pub(super) struct Jwt {
    keys: Vec<Key>,
    validation: Validation,
    name_claim: String,
    device_claim: String,
    role_claim: String,
}

impl std::fmt::Debug for Jwt {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Jwt").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl Jwt {
    /// Reads the key file.
    ///
    /// # Errors
    /// [`BadFile`]: it is missing, is no key, or is a key for none of the algorithms that are allowed.
    pub(super) fn read(config: &config::Auth, path: &Path) -> Result<Self, BadFile> {
        jwt_crypto::install();
        let text = place::read(path, limits::AUTH_FILE_BYTES, "auth_file_bytes")?;
        let text = text.ok_or_else(|| BadFile::whole(path, "is not there"))?;
        let allowed: Vec<Algorithm> =
            config.jwt_algorithms.split(',').filter_map(|word| word.trim().parse().ok()).collect();
        let bad = |message: String| BadFile::whole(path, message);
        let keys = if text.contains("-----BEGIN ") {
            vec![of_pem(&text, &allowed).map_err(bad)?]
        } else if text.trim_start().starts_with('{') {
            of_jwks(&text, &allowed).map_err(bad)?
        } else {
            vec![of_secret(&text, &allowed).map_err(bad)?]
        };
        if keys.is_empty() {
            return Err(bad(format!("holds no key for {} (auth.jwt_algorithms)", config.jwt_algorithms)));
        }
        let mut validation = Validation::new(Algorithm::RS256);
        (validation.leeway, validation.validate_nbf) = (LEEWAY, true);
        let mut required = HashSet::from(["exp".to_owned()]);
        if !config.jwt_audience.is_empty() {
            validation.set_audience(&[&config.jwt_audience]);
            required.insert("aud".to_owned());
        }
        if !config.jwt_issuer.is_empty() {
            validation.set_issuer(&[&config.jwt_issuer]);
            required.insert("iss".to_owned());
        }
        validation.required_spec_claims = required;
        Ok(Self {
            keys,
            validation,
            name_claim: config.jwt_name_claim.clone(),
            device_claim: config.jwt_device_claim.clone(),
            role_claim: config.jwt_role_claim.clone(),
        })
    }

    /// Does this look like a signed token at all?
    pub(super) fn looks_like_one(text: &str) -> bool {
        text.starts_with("ey") && text.split('.').count() == 3
    }

    /// Whose token it is. Costs a signature's check: tens of microseconds, not on a loop.
    ///
    /// # Errors
    /// What is wrong with it, for the log.
    pub(super) fn principal(&self, token: &str) -> Result<Principal, String> {
        if token.len() > TOKEN_BYTES {
            return Err(format!("it has more than {TOKEN_BYTES} bytes"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| format!("its header: {error}"))?;
        let mut last = format!("no key for {:?} and its key id", header.alg);
        let fits = |key: &&Key| {
            key.algorithms.contains(&header.alg) && (header.kid.is_none() || key.id.is_none() || key.id == header.kid)
        };
        for key in self.keys.iter().filter(fits) {
            let validation = Validation { algorithms: vec![header.alg], ..self.validation.clone() };
            match jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &validation) {
                Ok(data) => return self.of_claims(&data.claims),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    fn of_claims(&self, claims: &Map<String, Value>) -> Result<Principal, String> {
        let text = |claim: &str| match claims.get(claim) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(format!("the claim {claim} is no text")),
        };
        let name = text(&self.name_claim)?.ok_or_else(|| format!("there is no claim {}", self.name_claim))?;
        check_name(name)?;
        let role = match text(&self.role_claim)? {
            None => Role::Device,
            Some(word) => Role::parse(word).ok_or_else(|| format!("the role {word:.32?} is not known"))?,
        };
        let device = match role {
            Role::Device => {
                let id = text(&self.device_claim)?.unwrap_or(name);
                Some(DeviceId::new(id).map_err(|error| format!("the device: {error}"))?)
            }
            _ => None,
        };
        let seconds = claims.get("exp").and_then(Value::as_f64).ok_or("exp is no time")?;
        #[expect(clippy::cast_possible_truncation, reason = "saturates, and a time that far is never reached")]
        let expires = Some((seconds * 1e3) as i64);
        let rules = rules(claims)?.map(Arc::new);
        Ok(Principal { name: name.into(), role, device, proof: Proof::Jwt, expires, rules })
    }
}

/// The claim `acl`: `{"pub":[…],"sub":[…],"all":[…]}`, filters that add to what the role grants.
fn rules(claims: &Map<String, Value>) -> Result<Option<Rules>, String> {
    let Some(acl) = claims.get("acl") else { return Ok(None) };
    let acl = acl.as_object().ok_or("the claim acl is no object")?;
    if let Some(other) = acl.keys().find(|key| !matches!(key.as_str(), "pub" | "sub" | "all")) {
        return Err(format!("the claim acl has {other:.32?}; allowed: pub, sub, all"));
    }
    let filters = |key: &str| -> Result<Vec<String>, String> {
        let Some(list) = acl.get(key) else { return Ok(Vec::new()) };
        let list = list.as_array().map(|list| list.iter().map(|filter| filter.as_str().map(str::to_owned)));
        let list: Option<Vec<String>> = list.and_then(Iterator::collect);
        list.filter(|list| list.len() <= limits::AUTH_DECISIONS)
            .ok_or_else(|| format!("acl.{key} is no list of filters"))
    };
    let (mut read, mut write, all) = (filters("sub")?, filters("pub")?, filters("all")?);
    read.extend_from_slice(&all);
    write.extend(all);
    Rules::allowing(&read, &write).map(Some)
}

fn of_pem(text: &str, allowed: &[Algorithm]) -> Result<Key, String> {
    let pem = text.as_bytes();
    if text.contains("PRIVATE KEY") {
        return Err("is a private key; the node needs the public one".to_owned());
    }
    let found = DecodingKey::from_rsa_pem(pem)
        .or_else(|_| DecodingKey::from_ec_pem(pem))
        .or_else(|_| DecodingKey::from_ed_pem(pem))
        .map_err(|error| format!("is no public key of RSA, ECDSA or Ed25519 in PEM: {error}"))?;
    let algorithms = fitting(&found, None, allowed);
    if algorithms.is_empty() {
        let family = found.family();
        return Err(format!("is a key of the family {family:?}, and auth.jwt_algorithms has none of it"));
    }
    Ok(Key { id: None, key: found, algorithms })
}

fn of_secret(text: &str, allowed: &[Algorithm]) -> Result<Key, String> {
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.len() < SECRET_BYTES {
        return Err(format!("is neither PEM nor JWKS, and as a secret it is shorter than {SECRET_BYTES} bytes"));
    }
    let key = DecodingKey::from_secret(secret.as_bytes());
    let algorithms = fitting(&key, None, allowed);
    if algorithms.is_empty() {
        return Err(
            "is neither PEM nor JWKS, and a secret needs HS256, HS384 or HS512 in auth.jwt_algorithms".to_owned()
        );
    }
    Ok(Key { id: None, key, algorithms })
}

/// Keys of a set that this node cannot use are passed over, as RFC 7517 section 5 asks.
fn of_jwks(text: &str, allowed: &[Algorithm]) -> Result<Vec<Key>, String> {
    let set: JwkSet = serde_json::from_str(text).map_err(|error| format!("is no JWKS: {error}"))?;
    let mut keys = Vec::new();
    for jwk in &set.keys {
        if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
            continue;
        }
        let Ok(key) = DecodingKey::from_jwk(jwk) else { continue };
        let own = jwk.common.key_algorithm.as_ref().map(|algorithm| algorithm.to_string().parse::<Algorithm>());
        // A key that says that it is for something that this node does not know is for nothing here.
        let own = match own {
            None => None,
            Some(Ok(algorithm)) => Some(algorithm),
            Some(Err(_)) => continue,
        };
        let algorithms = fitting(&key, own, allowed);
        if !algorithms.is_empty() {
            keys.push(Key { id: jwk.common.key_id.clone(), key, algorithms });
        }
    }
    Ok(keys)
}

/// Those of the allowed algorithms that the key is made for.
fn fitting(key: &DecodingKey, own: Option<Algorithm>, allowed: &[Algorithm]) -> Vec<Algorithm> {
    let family: AlgorithmFamily = key.family();
    let fits = |algorithm: &&Algorithm| algorithm.family() == family && own.is_none_or(|own| own == **algorithm);
    // An ECDSA key is of one curve, and each curve has its algorithm: the length of the point tells.
    let curve = |algorithm: &&Algorithm| match (algorithm, key.try_get_as_bytes()) {
        (Algorithm::ES256, Ok(point)) => point.len() == 65,
        (Algorithm::ES384, Ok(point)) => point.len() == 97,
        _ => true,
    };
    allowed.iter().filter(fits).filter(curve).copied().collect()
}
