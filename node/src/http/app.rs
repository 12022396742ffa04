//! The routes.

use actix_web::{
    App, Error, HttpRequest, HttpResponse,
    dev::{ServiceFactory, ServiceRequest, ServiceResponse},
    http::{Method, StatusCode},
    middleware::from_fn,
    web,
};

use super::{
    commands, devices, ledger, ops, page, parked, post, problem::Problem, scripts, shadow, state, upgrade, viewer,
};
use crate::auth;

/// The application, one for each loop.
pub(crate) fn app()
-> App<impl ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse, Error = Error, InitError = ()>> {
    App::new()
        .wrap(from_fn(auth::http::guard))
        .service(
            web::resource("/metrics")
                .route(web::post().to(post::metrics))
                .route(web::get().to(ops::metrics))
                .default_service(web::to(method_not_allowed)),
        )
        .service(
            web::resource("/devices/{id}/metrics")
                .route(web::post().to(post::device_metrics))
                .default_service(web::to(method_not_allowed)),
        )
        .service(get("/devices", devices::list))
        .service(get("/devices/{id}", devices::one))
        .service(
            web::resource("/devices/{id}/commands")
                .route(web::post().to(commands::send))
                .route(web::get().to(commands::list))
                .default_service(web::to(method_not_allowed)),
        )
        .service(
            web::resource("/devices/{id}/commands/{request}")
                .route(web::get().to(commands::one))
                .route(web::delete().to(commands::cancel))
                .default_service(web::to(method_not_allowed)),
        )
        .service(
            web::resource("/devices/{id}/shadow")
                .route(web::get().to(shadow::get))
                .route(web::patch().to(shadow::update))
                .route(web::post().to(shadow::update))
                .route(web::delete().to(shadow::delete))
                .default_service(web::to(method_not_allowed)),
        )
        .service(get("/state/export", state::export))
        .service(get("/state/scripts", scripts::kept))
        .service(
            web::resource("/state/import")
                .route(web::post().to(state::import))
                .default_service(web::to(method_not_allowed)),
        )
        .service(get("/ws", viewer::websocket))
        .service(get("/stream", viewer::sse))
        .service(get("/mqtt", upgrade::mqtt))
        .service(get("/ledger", ledger::get))
        .service(get("/parked", parked::list))
        .service(
            web::resource("/parked/{position}")
                .route(web::get().to(parked::one))
                .route(web::delete().to(parked::drop_one))
                .default_service(web::to(method_not_allowed)),
        )
        .service(
            web::resource("/parked/{position}/retry")
                .route(web::post().to(parked::retry))
                .default_service(web::to(method_not_allowed)),
        )
        .service(get("/scripts", scripts::list))
        .service(post_only("/scripts/reload", scripts::reload))
        .service(post_only("/scripts/rollback", scripts::rollback))
        .service(post_only("/scripts/{name}/enable", scripts::enable))
        .service(post_only("/scripts/{name}/disable", scripts::disable))
        .service(post_only("/scripts/{name}/rearm", scripts::rearm))
        .service(get("/livez", ops::livez))
        .service(get("/readyz", ops::readyz))
        .service(get("/api/overview", ops::overview))
        .service(get("/api/session", auth::login::who))
        .service(
            web::resource("/api/login")
                .route(web::post().to(auth::login::login))
                .default_service(web::to(method_not_allowed)),
        )
        .service(
            web::resource("/api/logout")
                .route(web::post().to(auth::login::logout))
                .default_service(web::to(method_not_allowed)),
        )
        .service(get("/openapi.json", page::openapi))
        .service(get("/", page::index))
        .service(get("/assets/{file}", page::asset))
        .default_service(web::to(not_found))
}

/// The application of the listeners that speak nothing but MQTT over WebSocket.
pub(crate) fn mqtt_alone()
-> App<impl ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse, Error = Error, InitError = ()>> {
    App::new().service(get("/mqtt", upgrade::mqtt)).service(get("/", upgrade::mqtt)).default_service(web::to(mqtt_only))
}

fn get<F, A>(path: &str, handler: F) -> actix_web::Resource
where
    F: actix_web::Handler<A>,
    A: actix_web::FromRequest + 'static,
    F::Output: actix_web::Responder + 'static,
{
    web::resource(path).route(web::get().to(handler)).default_service(web::to(method_not_allowed))
}

fn post_only<F, A>(path: &str, handler: F) -> actix_web::Resource
where
    F: actix_web::Handler<A>,
    A: actix_web::FromRequest + 'static,
    F::Output: actix_web::Responder + 'static,
{
    web::resource(path).route(web::post().to(handler)).default_service(web::to(method_not_allowed))
}

async fn not_found(request: HttpRequest) -> HttpResponse {
    let detail = format!("there is nothing at {}; GET /openapi.json lists what there is", request.path());
    Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail).response()
}

async fn mqtt_only(request: HttpRequest) -> HttpResponse {
    let detail = format!("there is nothing at {}; this port speaks MQTT over WebSocket, at /mqtt", request.path());
    Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail).response()
}

async fn method_not_allowed(request: HttpRequest) -> HttpResponse {
    let allowed = match (request.path(), request.method()) {
        ("/metrics", _) => "GET, POST",
        (path, _) if path.starts_with("/parked/") && path.ends_with("/retry") => "POST",
        (path, _) if path.starts_with("/parked/") => "GET, DELETE",
        (path, _) if path.starts_with("/scripts/") => "POST",
        (path, _) if path.starts_with("/devices/") && path.ends_with("/shadow") => "GET, PATCH, POST, DELETE",
        (path, _) if path.starts_with("/devices/") && path.ends_with("/commands") => "GET, POST",
        (path, _) if path.starts_with("/devices/") && path.contains("/commands/") => "GET, DELETE",
        (path, _) if path.ends_with("/metrics") || path == "/state/import" => "POST",
        ("/api/login" | "/api/logout", _) => "POST",
        (_, &Method::HEAD | _) => "GET",
    };
    let detail = format!("{} is not allowed here; allowed: {allowed}", request.method());
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", detail);
    let mut response = problem.response();
    response
        .headers_mut()
        .insert(actix_web::http::header::ALLOW, actix_web::http::header::HeaderValue::from_static(allowed));
    response
}
