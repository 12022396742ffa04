//! The dashboard and the interface's description, embedded in the binary.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header},
};

use super::problem::Problem;

/// Only what the node itself serves may run or be loaded.
const POLICY: &str =
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Embeds files of the dashboard with their media types.
macro_rules! assets {
    ($($name:literal: $kind:literal),+ $(,)?) => {
        const ASSETS: &[(&str, &str, &[u8])] = &[$(($name, $kind, include_bytes!(concat!("../../dashboard/", $name)))),+];
    };
}

const JS: &str = "text/javascript; charset=utf-8";

assets! {
    "app.js": "js", "chart.js": "js", "clock.js": "js", "commands-card.js": "js", "device-view.js": "js", "dom.js": "js", "empty.js": "js",
    "feed.js": "js", "fleet-store.js": "js", "fleet-view.js": "js", "format.js": "js", "frame.js": "js",
    "grid.js": "js", "health-view.js": "js", "history.js": "js", "icons.js": "js", "json-view.js": "js",
    "ledger-card.js": "js", "login.js": "js", "overview.js": "js", "router.js": "js", "scale.js": "js", "series.js": "js", "shadow-card.js": "js", "sparkline.js": "js", "table.js": "js",
    "theme-boot.js": "js", "theme.js": "js", "style.css": "css", "favicon.svg": "svg",
}

/// `GET /`.
pub(crate) async fn index() -> HttpResponse {
    serve("text/html; charset=utf-8", include_bytes!("../../dashboard/index.html"))
}

/// `GET /assets/{file}`.
pub(crate) async fn asset(request: HttpRequest) -> HttpResponse {
    let name = request.match_info().get("file").unwrap_or_default();
    match ASSETS.iter().find(|(asset, ..)| *asset == name) {
        Some((_, "css", bytes)) => serve("text/css; charset=utf-8", bytes),
        Some((_, "svg", bytes)) => serve("image/svg+xml", bytes),
        Some((_, _, bytes)) => serve(JS, bytes),
        None => Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", format!("no asset {name:?}")).response(),
    }
}

/// `GET /openapi.json`.
pub(crate) async fn openapi() -> HttpResponse {
    serve("application/json", include_bytes!("openapi.json"))
}

fn serve(kind: &str, bytes: &'static [u8]) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, kind))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_dashboard_is_embedded() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/dashboard");
        for entry in std::fs::read_dir(dir).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let embedded = name == "index.html" || ASSETS.iter().any(|(asset, ..)| *asset == name);
            assert!(embedded, "{name} is in {dir} but not in ASSETS");
        }
    }

    #[test]
    fn the_description_is_json() {
        serde_json::from_slice::<serde_json::Value>(include_bytes!("openapi.json")).unwrap();
    }
}
