//! `fetch`: one request, and the redirects that it follows, each to a host that the operator allows, all within one time limit.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::json;
use tidegate_actors::limits;
use ureq::{
    Agent, Body, Error,
    http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header},
    tls::{Certificate, RootCerts, TlsConfig, TlsProvider},
};
use url::Url;

use super::{
    SlowConfig,
    breakers::Breakers,
    error::{BREAKER, Done, INVALID, LIMIT, NOT_ALLOWED, Reply, SlowError},
    hosts::Hosts,
};

/// What a script asks for.
#[derive(Debug, Deserialize)]
pub(super) struct Request {
    url: String,
    method: String,
    headers: Vec<(String, String)>,
    redirect: Redirect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Redirect {
    Follow,
    Error,
    Manual,
}

/// Headers that are the client's own, as in the Fetch standard.
const FORBIDDEN: [&str; 11] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-authorization",
];
/// Headers that stay with the host that they were meant for.
const PERSONAL: [HeaderName; 2] = [header::AUTHORIZATION, header::COOKIE];

/// The way to other hosts.
pub(super) struct Web {
    allow: Hosts,
    wall: Duration,
    body: usize,
    breakers: Breakers,
    /// Made when it is first needed: it reads the system's certificates.
    agent: OnceLock<Agent>,
}

impl Web {
    pub(super) fn new(config: SlowConfig) -> Self {
        Self {
            allow: config.fetch_allow,
            wall: config.fetch_wall,
            body: config.fetch_body,
            breakers: Breakers::new(config.fetch_breaker_failures, config.fetch_breaker_open),
            agent: OnceLock::new(),
        }
    }

    /// Does it. Blocks.
    pub(super) fn fetch(&self, request: &Request, body: Option<Vec<u8>>) -> Done {
        let deadline = Instant::now() + self.wall;
        let mut url = Url::parse(&request.url).map_err(|_| invalid(format!("Invalid URL: {}", request.url)))?;
        let mut method = Method::from_bytes(request.method.as_bytes()).map_err(|_| invalid("no such method"))?;
        let mut headers = headers_of(&request.headers)?;
        let mut body = body;
        let mut redirects = 0;
        loop {
            url.set_fragment(None);
            let mut response = self.ask(&url, &method, &headers, body.as_deref(), deadline)?;
            let to = location(&response).filter(|_| request.redirect != Redirect::Manual);
            let Some(to) = to else {
                let bytes = self.read(&url, &mut response)?;
                return Ok(reply(&url, redirects > 0, &response, bytes));
            };
            let failed = |why: &str| SlowError::new("ERR_TIDEGATE_REDIRECT", format!("fetch failed: {url}: {why}"));
            if request.redirect == Redirect::Error {
                return Err(failed("unexpected redirect"));
            }
            redirects += 1;
            if redirects > limits::SCRIPT_FETCH_REDIRECTS {
                let most = limits::SCRIPT_FETCH_REDIRECTS;
                return Err(failed(&format!("more than {most} redirects (limit script_fetch_redirects)")));
            }
            let next = url.join(&to).map_err(|_| failed("a redirect that leads nowhere"))?;
            let status = response.status();
            let is_post = method == Method::POST;
            if (is_post && matches!(status, StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND))
                || (status == StatusCode::SEE_OTHER && method != Method::GET && method != Method::HEAD)
            {
                (method, body) = (Method::GET, None);
                headers.remove(header::CONTENT_TYPE);
            }
            if next.origin() != url.origin() {
                PERSONAL.iter().for_each(|name| drop(headers.remove(name)));
            }
            url = next;
        }
    }

    /// One request, without its answer's body.
    fn ask(
        &self,
        url: &Url,
        method: &Method,
        headers: &HeaderMap,
        body: Option<&[u8]>,
        deadline: Instant,
    ) -> Result<Response<Body>, SlowError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid(format!("fetch failed: {}: is not known here; http: and https: are", url.scheme())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("fetch failed: an address with credentials in it; set the header authorization"));
        }
        let host = host_of(url);
        if !self.allow.allow(url) {
            let message = format!("fetch failed: {host} is not in the setting scripts.fetch_allow");
            return Err(SlowError::new(NOT_ALLOWED, message));
        }
        self.breakers.admit(&host, Instant::now()).map_err(|left| {
            let seconds = left.as_secs_f64();
            let message = format!("fetch failed: {host} did not answer lately and is left alone for {seconds:.1} s (scripts.fetch_breaker_open_ms)");
            SlowError::new(BREAKER, message)
        })?;
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let answered = self.send(url, method, headers, body, left);
        answered.map_err(|error| self.failed(&host, &error))
    }

    fn send(
        &self,
        url: &Url,
        method: &Method,
        headers: &HeaderMap,
        body: Option<&[u8]>,
        left: Duration,
    ) -> Result<Response<Body>, Error> {
        let agent = self.agent.get_or_init(agent);
        let mut request = ureq::http::Request::builder().method(method.clone()).uri(url.as_str());
        if let Some(all) = request.headers_mut() {
            all.extend(headers.clone());
        }
        let takes_body = matches!(*method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE);
        let wants_body = takes_body && *method != Method::DELETE;
        match body.or(wants_body.then_some(&[])) {
            Some(bytes) => agent.run(agent.configure_request(request.body(bytes)?).timeout_global(Some(left)).build()),
            None => agent.run(agent.configure_request(request.body(())?).timeout_global(Some(left)).build()),
        }
    }

    fn read(&self, url: &Url, response: &mut Response<Body>) -> Result<Vec<u8>, SlowError> {
        let host = host_of(url);
        let read = response.body_mut().with_config().limit(self.body as u64).read_to_vec();
        let read = read.map_err(|error| match error {
            Error::BodyExceedsLimit(_) => self.too_large(&host),
            error => self.failed(&host, &error),
        })?;
        self.breakers.tell(&host, true, Instant::now());
        // The reader's limit lets one byte more through.
        if read.len() > self.body { Err(self.too_large(&host)) } else { Ok(read) }
    }

    fn too_large(&self, host: &str) -> SlowError {
        self.breakers.tell(host, true, Instant::now());
        let most = self.body;
        let message = format!(
            "fetch failed: the body from {host} is larger than {most} bytes (limit script_fetch_body, setting scripts.fetch_body_bytes)"
        );
        SlowError::new(LIMIT, message)
    }

    fn failed(&self, host: &str, error: &Error) -> SlowError {
        // A request that makes no sense says nothing of the host.
        if !matches!(error, Error::Http(_) | Error::BadUri(_)) {
            self.breakers.tell(host, false, Instant::now());
        }
        let (code, why) = match error {
            Error::Timeout(_) => {
                let wall = self.wall.as_millis();
                let why =
                    format!("no answer within {wall} ms (limit script_fetch_wall, setting scripts.fetch_wall_ms)");
                ("ETIMEDOUT", why)
            }
            Error::HostNotFound => ("ENOTFOUND", "the name is not known".to_owned()),
            Error::Io(error) => match error.kind() {
                std::io::ErrorKind::ConnectionRefused => ("ECONNREFUSED", "the connection is refused".to_owned()),
                std::io::ErrorKind::ConnectionReset => ("ECONNRESET", "the connection was reset".to_owned()),
                std::io::ErrorKind::TimedOut => ("ETIMEDOUT", error.to_string()),
                _ => ("UND_ERR_SOCKET", error.to_string()),
            },
            Error::Http(_) | Error::BadUri(_) => (INVALID, error.to_string()),
            error => ("UND_ERR_SOCKET", error.to_string()),
        };
        SlowError::new(code, format!("fetch failed: {host}: {why}"))
    }
}

fn agent() -> Agent {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        tracing::warn!("no certificates of the system are found: no fetch over https can be verified");
    }
    let certificates = found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect::<Vec<_>>();
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(certificates)))
        .build();
    let config = Agent::config_builder()
        .tls_config(tls)
        // Which proxy and which redirects: the node says so, not its environment and not the client.
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        // A connection that was kept may be gone: a request that fails for that cannot simply be sent again.
        .max_idle_connections(0)
        .max_response_header_size(limits::SCRIPT_FETCH_HEADERS)
        .user_agent(concat!("tidegate/", env!("CARGO_PKG_VERSION")));
    Agent::new_with_config(config.build())
}

fn headers_of(given: &[(String, String)]) -> Result<HeaderMap, SlowError> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let of =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid(format!("no header is named {name:?}")))?;
        if FORBIDDEN.contains(&of.as_str()) {
            continue;
        }
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| invalid(format!("no value for the header {name:?}")))?;
        headers.append(of, value);
    }
    Ok(headers)
}

fn host_of(url: &Url) -> String {
    let port = url.port_or_known_default().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{port}", url.host_str().unwrap_or_default())
}

/// Where an answer says to go on.
fn location(response: &Response<Body>) -> Option<String> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let to = response.headers().get(header::LOCATION)?;
    Some(String::from_utf8_lossy(to.as_bytes()).into_owned())
}

fn reply(url: &Url, redirected: bool, response: &Response<Body>, bytes: Vec<u8>) -> Reply {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: Vec<_> = response.headers().iter().map(|(name, value)| (name.as_str(), text(value))).collect();
    let about = json!({
        "status": response.status().as_u16(),
        "statusText": response.status().canonical_reason().unwrap_or_default(),
        "headers": headers, "url": url.as_str(), "redirected": redirected,
    });
    Reply { about, bytes }
}

fn invalid(message: impl Into<String>) -> SlowError {
    SlowError::new(INVALID, message)
}
