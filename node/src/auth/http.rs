//! What the HTTP door asks: one guard in front of all routes. It finds out who calls (Basic, Bearer, or the dashboard's cookie),
//! what the route needs, and passes on or refuses. Everything that is not named open needs a role.

use std::{net::SocketAddr, sync::Arc};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method, StatusCode,
        header::{self, HeaderMap},
    },
    middleware::Next,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tidegate_actors::ids::DeviceId;

use super::{
    audit::Event,
    gate::{Counters, Credential, Denied, Door},
    login,
    principal::{Principal, Role},
};
use crate::{
    edge::{EdgeLoop, here},
    http::{
        admin::{self, Peer},
        problem::Problem,
    },
    repl,
};

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Nobody is asked.
    Open,
    /// To report readings, of which devices is asked later.
    Report,
    /// To read.
    Read,
    /// To change, or to take everything away at once.
    Operate,
    /// To manage users.
    Administer,
}

impl Need {
    /// `path` is decoded as the router decodes it.
    fn of(method: &Method, path: &str) -> Self {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        match path {
            "/" | "/livez" | "/readyz" | "/openapi.json" => Self::Open,
            // The dashboard's way in and out; MQTT's own door has its own guard.
            login::LOGIN | login::LOGOUT | login::SESSION | "/mqtt" => Self::Open,
            _ if path.starts_with("/assets/") => Self::Open,
            _ if *method == Method::POST && is_report(path) => Self::Report,
            _ if path.starts_with("/auth/") => Self::Administer,
            _ if path.starts_with("/state/") || path.starts_with("/parked") => Self::Operate,
            _ if reads => Self::Read,
            _ => Self::Operate,
        }
    }

    fn is_met_by(self, principal: &Principal) -> bool {
        match self {
            Self::Open => true,
            Self::Report => principal.role != Role::Viewer,
            Self::Read => principal.role.reads(),
            Self::Operate => principal.role.operates(),
            Self::Administer => principal.role == Role::Admin,
        }
    }

    fn role(self) -> &'static str {
        match self {
            Self::Open => "any",
            Self::Report => "device, gateway, operator or admin",
            Self::Read => "viewer, operator or admin",
            Self::Operate => "operator or admin",
            Self::Administer => "admin",
        }
    }
}

fn is_report(path: &str) -> bool {
    path == "/metrics" || (path.starts_with("/devices/") && path.ends_with("/metrics"))
}

/// Who calls, for the routes behind the guard. Not there: nobody was asked.
pub(crate) struct Caller(pub(crate) Arc<Principal>);

/// The principal of a request that came through the guard.
pub(crate) fn caller(request: &HttpRequest) -> Option<Arc<Principal>> {
    request.extensions().get::<Caller>().map(|caller| Arc::clone(&caller.0))
}

/// May the caller report readings of this device?
///
/// # Errors
/// The refusal.
pub(crate) fn check_report(caller: Option<&Principal>, device: &DeviceId) -> Result<(), Problem> {
    match caller {
        Some(principal) if !principal.reports(device.as_str()) => {
            let detail = format!("{} may not report readings of {device}", principal.shown());
            Counters::add(&here().shared.auth.counters.requests_denied);
            Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail).with("field", "deviceId"))
        }
        _ => Ok(()),
    }
}

/// The guard.
///
/// # Errors
/// Those of the routes behind it.
pub(crate) async fn guard(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let edge = here();
    let need = Need::of(request.method(), request.match_info().as_str());
    let admin = admin::peer(request.request());
    let from = admin.map_or_else(|| peer(request.request()).to_string(), Peer::address);
    let principal = match admin {
        Some(peer) => Arc::new(Principal::of_socket(peer.uid)),
        None if !edge.shared.auth.is_on() => {
            note_typed(&edge, &request, &from, "(anonymous)");
            return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
        }
        None if need == Need::Open => return next.call(request).await.map(ServiceResponse::map_into_boxed_body),
        None => match allow(&edge, request.request(), peer(request.request()), need).await {
            Ok(principal) => principal,
            Err(problem) => return Ok(request.into_response(refusal(&problem))),
        },
    };
    note_typed(&edge, &request, &from, principal.shown());
    request.extensions_mut().insert(Caller(Arc::clone(&principal)));
    let call = matches!(need, Need::Operate | Need::Administer)
        .then(|| format!("{} {}", request.method(), request.uri().path()));
    let response = next.call(request).await?.map_into_boxed_body();
    if let Some(call) = call {
        note_from(&edge, &from, "http", response.status().as_str(), principal.shown(), &call);
    }
    Ok(response)
}

/// What was typed at a prompt, if the request comes from one.
fn note_typed(edge: &EdgeLoop, request: &ServiceRequest, from: &str, principal: &str) {
    let header = request.headers().get(repl::audit::HEADER).and_then(|header| header.to_str().ok());
    if let Some(header) = header {
        note_from(edge, from, "repl", "ok", principal, &repl::audit::line(header));
    }
}

/// Whose request it is, if that one may do what the route does.
async fn allow(
    edge: &EdgeLoop,
    request: &HttpRequest,
    from: SocketAddr,
    need: Need,
) -> Result<Arc<Principal>, Problem> {
    let principal = identify(edge, request, from).await?;
    if !need.is_met_by(&principal) {
        Counters::add(&edge.shared.auth.counters.requests_denied);
        note(edge, from, "denied", principal.shown(), &format!("{} {}", request.method(), request.path()));
        let role = principal.role.name();
        let detail = format!("{} has the role {role}; this needs {}", principal.shown(), need.role());
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail).with("role", role));
    }
    Ok(principal)
}

/// Who calls.
///
/// # Errors
/// The refusal.
pub(super) async fn identify(
    edge: &EdgeLoop,
    request: &HttpRequest,
    from: SocketAddr,
) -> Result<Arc<Principal>, Problem> {
    let (auth, services) = (&edge.shared.auth, edge.handle.services());
    let now = services.clock.now();
    let shown = Shown::of(request.headers())?;
    if matches!(shown, Shown::Nothing)
        && let Some(principal) = login::of_cookie(edge, request, now)?
    {
        return Ok(principal);
    }
    let credential = match &shown {
        Shown::Password(user, password) => Credential::Password { user, password: password.as_bytes() },
        Shown::Token(token) => Credential::Bearer(token),
        Shown::Nothing => Credential::Nothing,
    };
    let found = auth.identify(&services.pool, Door::Http, from, credential, now).await;
    found.map(Arc::new).map_err(problem)
}

/// The credential of a request's headers.
enum Shown {
    Password(String, String),
    Token(String),
    Nothing,
}

impl Shown {
    /// `X-Authorization` is ThingsBoard's.
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let header = headers.get(header::AUTHORIZATION).or_else(|| headers.get("x-authorization"));
        let Some(header) = header else { return Ok(Self::Nothing) };
        let text = header.to_str().unwrap_or_default();
        let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
        let unreadable = || {
            let detail =
                "the Authorization header cannot be read; allowed: Basic user:password in base64, Bearer token";
            Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "Who are you?", detail)
        };
        if scheme.eq_ignore_ascii_case("bearer") && !rest.trim().is_empty() {
            return Ok(Self::Token(rest.trim().to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(unreadable());
        }
        let decoded = STANDARD.decode(rest.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match decoded.as_deref().and_then(|pair| pair.split_once(':')) {
            // As in MQTT: a token may stand where the user's name stands.
            Some((token, "")) if !token.is_empty() => Ok(Self::Token(token.to_owned())),
            Some((user, password)) => Ok(Self::Password(user.to_owned(), password.to_owned())),
            None => Err(unreadable()),
        }
    }
}

pub(super) fn problem(denied: Denied) -> Problem {
    let unauthorized =
        |detail: &str| Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "Who are you?", detail.to_owned());
    match denied {
        Denied::Wrong => unauthorized("wrong user, password or token"),
        Denied::Missing => unauthorized("send Authorization: Basic with user and password, or Bearer with a token"),
        Denied::Banned(rest) => {
            let detail = "too many wrong credentials from this address";
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "banned", "Banned for a while", detail);
            let seconds = u32::try_from(rest.as_secs() + 1).unwrap_or(u32::MAX);
            problem.with("limit", "auth.bans.wrong_passwords").retry_after(seconds)
        }
        Denied::Busy => Problem::overloaded(denied.words(), "auth_waiting"),
    }
}

pub(super) fn refusal(problem: &Problem) -> HttpResponse {
    let mut response = problem.response();
    if response.status() == StatusCode::UNAUTHORIZED {
        // Not Basic, although it is taken: a browser would ask with a window of its own in front of the dashboard's.
        let challenge = header::HeaderValue::from_static("Bearer realm=\"tidegate\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    }
    response
}

pub(super) fn peer(request: &HttpRequest) -> SocketAddr {
    request.peer_addr().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
}

pub(super) fn note(edge: &EdgeLoop, from: SocketAddr, result: &str, principal: &str, detail: &str) {
    note_from(edge, &from.to_string(), "http", result, principal, detail);
}

fn note_from(edge: &EdgeLoop, address: &str, action: &str, result: &str, principal: &str, detail: &str) {
    let event = Event { action, result, principal, address, detail };
    edge.shared.auth.audit.note_often(&event, edge.handle.services().clock.now());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_a_need_and_what_is_not_known_needs_much() {
        for (method, path, need) in [
            (Method::GET, "/", Need::Open),
            (Method::GET, "/livez", Need::Open),
            (Method::GET, "/assets/app.js", Need::Open),
            (Method::POST, "/metrics", Need::Report),
            (Method::POST, "/devices/d1/metrics", Need::Report),
            (Method::GET, "/metrics", Need::Read),
            (Method::GET, "/devices", Need::Read),
            (Method::GET, "/ws", Need::Read),
            (Method::GET, "/state/export", Need::Operate),
            (Method::POST, "/state/import", Need::Operate),
            (Method::GET, "/parked", Need::Operate),
            (Method::DELETE, "/parked/1", Need::Operate),
            (Method::POST, "/devices/d1/commands", Need::Operate),
            (Method::GET, "/auth/users", Need::Administer),
            (Method::PUT, "/whatever", Need::Operate),
        ] {
            assert_eq!(Need::of(&method, path), need, "{method} {path}");
        }
    }
}
