//! The dashboard's login: a session behind a cookie that scripts cannot read and other sites cannot use.
//!
//! The cookie is `HttpOnly` and `SameSite=Strict`; what changes something, and a WebSocket, must besides come from a page of this
//! node (`Sec-Fetch-Site` or `Origin`). The session lives in memory and ends with the node, its time, or its user's change.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    cookie::{Cookie, SameSite},
    http::{Method, StatusCode, header},
    web,
};
use hashbrown::HashMap;
use serde::Deserialize;
use serde_json::json;
use tidegate_actors::limits;

use super::{
    audit::Event,
    directory::Standing,
    gate::{Auth, Credential, Door},
    http::{peer, problem, refusal},
    principal::Principal,
    secret,
};
use crate::{
    edge::{EdgeLoop, here},
    http::problem::Problem,
};

pub(super) const LOGIN: &str = "/api/login";
pub(super) const LOGOUT: &str = "/api/logout";
pub(super) const SESSION: &str = "/api/session";

const COOKIE: &str = "tidegate_session";
/// How long a session lives.
const LIFETIME: Duration = Duration::from_secs(12 * 3_600);
/// Largest body of a login, in bytes.
const BODY_BYTES: usize = 8 * 1024;

/// The sessions of the dashboard, by the hash of their cookie. Bounded (limit `auth_sessions`).
#[derive(Default)]
pub(super) struct Sessions(Mutex<Table>);

/// Who has a session, and until when.
type Table = HashMap<[u8; 32], (Arc<Principal>, Instant)>;

impl Sessions {
    fn begin(&self, cookie: &str, principal: Arc<Principal>, now: Instant) {
        let mut sessions = self.lock();
        if sessions.len() >= limits::AUTH_SESSIONS {
            sessions.retain(|_, (_, until)| now < *until);
        }
        if sessions.len() >= limits::AUTH_SESSIONS
            && let Some(oldest) = sessions.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| *key)
        {
            sessions.remove(&oldest);
        }
        sessions.insert(secret::sha256(cookie.as_bytes()), (principal, now + LIFETIME));
    }

    fn find(&self, cookie: &str, now: Instant) -> Option<Arc<Principal>> {
        let sessions = self.lock();
        let (principal, until) = sessions.get(&secret::sha256(cookie.as_bytes()))?;
        (now < *until).then(|| Arc::clone(principal))
    }

    fn end(&self, cookie: &str) {
        self.lock().remove(&secret::sha256(cookie.as_bytes()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whose session the request's cookie names.
///
/// # Errors
/// The request changes something, or stays open, and no page of this node sent it.
pub(super) fn of_cookie(edge: &EdgeLoop, request: &HttpRequest, now: i64) -> Result<Option<Arc<Principal>>, Problem> {
    let Some(principal) = session(&edge.shared.auth, request, now) else { return Ok(None) };
    let is_websocket = request.headers().contains_key(header::UPGRADE);
    if (is_websocket || !matches!(*request.method(), Method::GET | Method::HEAD)) && !is_from_here(request) {
        let detail = "a request with the dashboard's cookie must come from the dashboard (Sec-Fetch-Site, Origin)";
        return Err(Problem::new(StatusCode::FORBIDDEN, "cross-site", "Sent by another site", detail));
    }
    Ok(Some(principal))
}

fn session(auth: &Auth, request: &HttpRequest, now: i64) -> Option<Arc<Principal>> {
    let cookie = request.cookie(COOKIE)?;
    let principal = auth.sessions.find(cookie.value(), Instant::now())?;
    (auth.standing(&principal, now) == Standing::Same).then_some(principal)
}

/// Did a page of this node send the request? Browsers say so, and no script can make them say otherwise.
fn is_from_here(request: &HttpRequest) -> bool {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = header("sec-fetch-site") {
        return site == "same-origin";
    }
    let (origin, host) = (header("origin"), header("host"));
    let origin = origin.and_then(|origin| origin.split_once("://")).map(|(_, authority)| authority);
    origin.is_some() && origin == host
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    #[serde(default)]
    user: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    token: String,
}

/// `POST /api/login` with `{"user","password"}` or `{"token"}`.
pub(crate) async fn login(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    log_in(&request, payload).await.unwrap_or_else(|problem| refusal(&problem))
}

async fn log_in(request: &HttpRequest, payload: web::Payload) -> Result<HttpResponse, Problem> {
    let edge = here();
    let auth = &edge.shared.auth;
    if !auth.is_on() {
        return Ok(HttpResponse::Ok().json(json!({ "authentication": false })));
    }
    // A form of another site cannot send this type without asking first.
    let is_json = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !is_json {
        let detail = "a login is application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad-body", "No login", detail));
    }
    let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "bad-body", "No login", detail);
    let body = tokio::time::timeout(limits::HTTP_BODY_TIMEOUT, payload.to_bytes_limited(BODY_BYTES)).await;
    let Ok(Ok(Ok(body))) = body else {
        return Err(bad(format!("the body did not come, or has more than {BODY_BYTES} bytes")));
    };
    // The error must not repeat what may be a password.
    let login: Login = serde_json::from_slice(&body).map_err(|_| {
        bad("not a login; it looks like {\"user\":\"…\",\"password\":\"…\"} or {\"token\":\"…\"}".to_owned())
    })?;
    let credential = if login.token.is_empty() {
        Credential::Password { user: &login.user, password: login.password.as_bytes() }
    } else {
        Credential::Bearer(&login.token)
    };
    let (from, services) = (peer(request), edge.handle.services());
    let now = services.clock.now();
    let principal = auth.identify(&services.pool, Door::Http, from, credential, now).await.map_err(problem)?;
    let principal = Arc::new(principal);
    let internal =
        |error: String| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The node failed", error);
    let value = secret::token().map_err(internal)?;
    auth.sessions.begin(&value, Arc::clone(&principal), Instant::now());
    let address = from.to_string();
    let event =
        Event { action: "login", result: "ok", principal: principal.shown(), address: &address, detail: "dashboard" };
    auth.audit.note_often(&event, now);
    Ok(HttpResponse::Ok().cookie(cookie(request, value, LIFETIME)).json(about(Some(&principal))))
}

/// `POST /api/logout`.
pub(crate) async fn logout(request: HttpRequest) -> HttpResponse {
    if !is_from_here(&request) {
        let detail = "a logout must come from the dashboard (Sec-Fetch-Site, Origin)";
        return Problem::new(StatusCode::FORBIDDEN, "cross-site", "Sent by another site", detail).response();
    }
    if let Some(cookie) = request.cookie(COOKIE) {
        here().shared.auth.sessions.end(cookie.value());
    }
    HttpResponse::Ok().cookie(cookie(&request, String::new(), Duration::ZERO)).json(json!({ "user": null }))
}

/// `GET /api/session`: does the node ask who one is, and who is it?
pub(crate) async fn who(request: HttpRequest) -> HttpResponse {
    let edge = here();
    let auth = &edge.shared.auth;
    if !auth.is_on() {
        return HttpResponse::Ok().json(json!({ "authentication": false }));
    }
    let principal = session(auth, &request, edge.handle.services().clock.now());
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, "no-store")).json(about(principal.as_deref()))
}

fn about(principal: Option<&Principal>) -> serde_json::Value {
    match principal {
        Some(principal) => json!({ "authentication": true, "user": principal.shown(), "role": principal.role }),
        None => json!({ "authentication": true, "user": null }),
    }
}

fn cookie(request: &HttpRequest, value: String, lifetime: Duration) -> Cookie<'static> {
    let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
    Cookie::build(COOKIE, value)
        .path("/")
        .http_only(true)
        .same_site(SameSite::Strict)
        .secure(request.connection_info().scheme() == "https")
        .max_age(actix_web::cookie::time::Duration::seconds(seconds))
        .finish()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;
    use crate::auth::Role;

    #[test]
    fn sessions_end_with_their_time_and_are_bounded() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let somebody = Arc::new(Principal::anonymous(Role::Viewer));
        sessions.begin("first", Arc::clone(&somebody), now);
        assert!(sessions.find("first", now).is_some() && sessions.find("other", now).is_none());
        assert!(sessions.find("first", now + LIFETIME).is_none());
        for n in 0..limits::AUTH_SESSIONS {
            sessions.begin(&n.to_string(), Arc::clone(&somebody), now + Duration::from_secs(1));
        }
        assert_eq!(sessions.lock().len(), limits::AUTH_SESSIONS);
        assert!(sessions.find("first", now).is_none(), "the oldest gave way");
        sessions.end("5");
        assert!(sessions.find("5", now).is_none());
    }

    #[test]
    fn only_a_page_of_this_node_counts_as_from_here() {
        for (headers, expected) in [
            (&[("sec-fetch-site", "same-origin")][..], true),
            (&[("sec-fetch-site", "cross-site"), ("origin", "http://node:8080"), ("host", "node:8080")], false),
            (&[("origin", "http://node:8080"), ("host", "node:8080")], true),
            (&[("origin", "http://evil.example"), ("host", "node:8080")], false),
            (&[("origin", "null"), ("host", "node:8080")], false),
            (&[("host", "node:8080")], false),
            (&[], false),
        ] {
            let request = headers.iter().fold(TestRequest::default(), |request, header| request.insert_header(*header));
            assert_eq!(is_from_here(&request.to_http_request()), expected, "{headers:?}");
        }
    }
}
