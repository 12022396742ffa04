//! What the headers and the query of a POST wish: the ack level, and the idempotency key.

use actix_web::{
    HttpRequest,
    http::{StatusCode, header::HeaderMap},
    web,
};
use tidegate_actors::{limits, reading::AckLevel};

use super::problem::Problem;
use crate::ingest::{BadKey, IdempotencyKey, ack_level};

const KEY_HEADER: &str = "idempotency-key";

/// The wishes of one request.
pub(super) struct Wishes {
    /// How far the readings must have come before the answer.
    pub(super) level: AckLevel,
    /// The level is what `Prefer` asked for, so the answer says that it was applied (RFC 7240 section 3).
    pub(super) preferred: bool,
    /// What tells a retry from a second request.
    pub(super) key: Option<IdempotencyKey>,
}

impl Wishes {
    /// Reads the wishes; `default` is the level of requests that name none.
    ///
    /// # Errors
    /// A wish that cannot be understood: it must not quietly become another one.
    pub(super) fn of(request: &HttpRequest, default: AckLevel) -> Result<Self, Problem> {
        let key = idempotency_key(request.headers())?;
        let named = |name: &str| ack_level(name).map_err(|detail| Problem::parameter("ack", detail));
        if let Some(name) = queried(request)? {
            return Ok(Self { level: named(&name)?, preferred: false, key });
        }
        Ok(match preferred(request.headers()) {
            Some(name) => Self { level: named(&name)?, preferred: true, key },
            None => Self { level: default, preferred: false, key },
        })
    }
}

/// The value of `?ack=`.
fn queried(request: &HttpRequest) -> Result<Option<String>, Problem> {
    let query = web::Query::<Vec<(String, String)>>::from_query(request.query_string())
        .map_err(|error| Problem::parameter("query", format!("the query cannot be read: {error}")))?;
    if let Some((other, _)) = query.iter().find(|(name, _)| name != "ack") {
        // A misspelt level must not quietly become the default one.
        return Err(Problem::parameter("query", format!("unknown parameter {other:?}; allowed: ack")));
    }
    Ok(query.into_inner().into_iter().next().map(|(_, value)| value))
}

/// The value of the preference `ack` (RFC 7240 section 2): of several the first counts, in one `Prefer` or more.
fn preferred(headers: &HeaderMap) -> Option<String> {
    headers.get_all("prefer").filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).find_map(
        |preference| {
            // What comes behind a semicolon are the preference's own parameters.
            let (name, value) = preference.split(';').next()?.split_once('=')?;
            name.trim().eq_ignore_ascii_case("ack").then(|| value.trim().trim_matches('"').to_owned())
        },
    )
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let refused = |detail: String| {
        let kind = (StatusCode::BAD_REQUEST, "bad-idempotency-key", "The Idempotency-Key is not valid");
        Problem::new(kind.0, kind.1, kind.2, detail).with("field", "Idempotency-Key")
    };
    let mut values = headers.get_all(KEY_HEADER);
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(refused("the header Idempotency-Key comes more than once; send one".to_owned()));
    }
    IdempotencyKey::parse(value.as_bytes()).map(Some).map_err(|error| {
        let problem = refused(error.to_string());
        match error {
            BadKey::Length(_) => problem.limit("idempotency_key_bytes", limits::IDEMPOTENCY_KEY_BYTES),
            BadKey::Character(_) | BadKey::Quotes => problem,
        }
    })
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn the_first_preference_counts_wherever_it_stands() {
        let check = |headers: &[&str], expected: Option<&str>| {
            let request = headers.iter().fold(TestRequest::default(), |r, value| r.append_header(("prefer", *value)));
            assert_eq!(preferred(request.to_http_request().headers()).as_deref(), expected, "{headers:?}");
        };
        check(&[], None);
        check(&["respond-async"], None);
        check(&["ack=committed"], Some("committed"));
        check(&["ACK = \"processed\""], Some("processed"));
        check(&["respond-async; ack=received, wait=10, ack=processed; x=1"], Some("processed"));
        check(&["wait=10", "ack=committed, ack=processed"], Some("committed"));
        check(&["back=1"], None);
    }

    #[test]
    fn the_query_wins_and_nothing_unknown_is_passed_over() {
        let wishes = |uri: &str, prefer: &str| {
            let request = TestRequest::with_uri(uri).append_header(("prefer", prefer)).to_http_request();
            Wishes::of(&request, AckLevel::Received)
                .map(|wishes| (wishes.level, wishes.preferred))
                .map_err(|p| p.json())
        };
        assert_eq!(wishes("/metrics", "wait=1"), Ok((AckLevel::Received, false)));
        assert_eq!(wishes("/metrics", "ack=committed"), Ok((AckLevel::Committed, true)));
        assert_eq!(wishes("/metrics?ack=processed", "ack=committed"), Ok((AckLevel::Processed, false)));
        for (uri, prefer) in
            [("/metrics?ack=", "wait=1"), ("/metrics", "ack=durable"), ("/metrics?akc=committed", "wait=1")]
        {
            let problem = wishes(uri, prefer).unwrap_err();
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("allowed: ")), "{problem}");
        }
    }

    #[test]
    fn a_bad_key_is_refused_by_its_header() {
        for value in ["short", "has a blank", "\"open-ended"] {
            let request = TestRequest::default().append_header((KEY_HEADER, value)).to_http_request();
            let problem = idempotency_key(request.headers()).unwrap_err().json();
            assert_eq!((&problem["status"], &problem["field"]), (&400.into(), &"Idempotency-Key".into()), "{problem}");
        }
        let twice = TestRequest::default().append_header((KEY_HEADER, "key-00000001"));
        let twice = twice.append_header((KEY_HEADER, "key-00000001")).to_http_request();
        assert!(idempotency_key(twice.headers()).is_err());
    }
}
