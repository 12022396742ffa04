//! Roles over HTTP, the dashboard's session, and viewers that lose their right.

mod support;

use serde_json::Value;
use support::{
    House,
    auth::{audited, command, done, token, user},
    eventually, http,
};

fn house() -> House {
    let house = House::new();
    for (name, role) in
        [("d1", "device"), ("gate", "gateway"), ("eye", "viewer"), ("op", "operator"), ("boss", "admin")]
    {
        user(&house, name, role, "secret");
    }
    house
}

#[test]
fn each_role_may_do_its_own() {
    let house = house();
    let node = house.start();
    let reading = "{\"v\":1}";
    let named = "{\"deviceId\":\"d1\",\"v\":1}";
    // Status for: nobody, d1, gate, eye, op, boss.
    for (method, path, body, expected) in [
        ("GET", "/livez", "", [200; 6]),
        ("GET", "/readyz", "", [200; 6]),
        ("GET", "/", "", [200; 6]),
        ("GET", "/assets/app.js", "", [200; 6]),
        ("GET", "/openapi.json", "", [200; 6]),
        ("POST", "/devices/d1/metrics?ack=committed", reading, [401, 200, 200, 403, 200, 200]),
        ("POST", "/devices/d2/metrics?ack=committed", reading, [401, 403, 200, 403, 200, 200]),
        ("POST", "/metrics?ack=committed", named, [401, 200, 200, 403, 200, 200]),
        (
            "POST",
            "/metrics?ack=committed",
            "[{\"deviceId\":\"d1\",\"v\":2},{\"deviceId\":\"d3\",\"v\":2}]",
            [401, 403, 200, 403, 200, 200],
        ),
        ("GET", "/devices", "", [401, 403, 403, 200, 200, 200]),
        ("GET", "/devices/d1", "", [401, 403, 403, 200, 200, 200]),
        ("GET", "/ledger", "", [401, 403, 403, 200, 200, 200]),
        ("GET", "/metrics", "", [401, 403, 403, 200, 200, 200]),
        ("GET", "/api/overview", "", [401, 403, 403, 200, 200, 200]),
        ("GET", "/parked", "", [401, 403, 403, 403, 200, 200]),
        ("GET", "/state/export", "", [401, 403, 403, 403, 200, 200]),
        ("GET", "/state/scripts", "", [401, 403, 403, 403, 200, 200]),
        // The same route by another spelling.
        ("GET", "/st%61te/export", "", [401, 403, 403, 403, 200, 200]),
        ("GET", "/p%61rked", "", [401, 403, 403, 403, 200, 200]),
        ("DELETE", "/parked/1", "", [401, 403, 403, 403, 404, 404]),
        ("GET", "/nowhere", "", [401, 403, 403, 404, 404, 404]),
        ("GET", "/auth/nothing-yet", "", [401, 403, 403, 403, 403, 404]),
    ] {
        for (who, status) in ["", "d1", "gate", "eye", "op", "boss"].into_iter().zip(expected) {
            if who.is_empty() {
                node.showing(None)
            } else {
                node.as_user(who, "secret")
            };
            let response = node.request(method, path, body);
            assert_eq!(response.status, status, "{who:?}: {method} {path}: {}", response.text());
        }
    }
    // What was refused as a whole left nothing behind: the two roles that may, posted twice each.
    node.as_user("op", "secret");
    assert_eq!(node.device("d3").unwrap()["version"], 3);
}

#[test]
fn credentials_come_in_several_headers_and_wrong_ones_in_none() {
    let house = house();
    let (mine, operator) = (token(&house, "d1", "device"), token(&house, "robot", "operator"));
    let node = house.start();
    let basic = |pair: &str| format!("Basic {}", http::base64(pair.as_bytes()));
    for (name, value, expected) in [
        ("authorization", format!("Bearer {mine}"), 202),
        ("authorization", format!("bearer {mine}"), 202),
        ("x-authorization", format!("Bearer {mine}"), 202),
        ("authorization", basic(&format!("{mine}:")), 202),
        ("authorization", basic("d1:secret"), 202),
        ("authorization", basic("d1:wrong"), 401),
        ("authorization", "Bearer wrong".to_owned(), 401),
        ("authorization", "Digest x".to_owned(), 401),
        ("authorization", "Basic !".to_owned(), 401),
        ("x-other", String::new(), 401),
    ] {
        let headers = [(name, value.as_str())];
        let response = http::request(node.http, "POST", "/devices/d1/metrics", &headers, b"{\"v\":1}");
        assert_eq!(response.status, expected, "{name}: {value}: {}", response.text());
        if expected == 401 {
            response.problem(401, "unauthorized");
            assert_eq!(response.header("www-authenticate"), Some("Bearer realm=\"tidegate\""));
        }
    }
    // The node's own commands show a token.
    let url = format!("http://{}", node.http);
    let refused = command(&house, &["user", "list"], "");
    assert!(refused.status.success());
    let list = |more: &[&str]| {
        let mut command = support::node::tidegate(&house.data());
        command.args(["parked", "list", "--node", &url]).args(more).output().unwrap()
    };
    assert!(!list(&[]).status.success());
    assert!(list(&["--token", &operator]).status.success());
    // A disabled user is refused whatever it shows, and what an operator does is written down.
    done(&house, &["user", "disable", "d1"], "");
    let shown = [("authorization", format!("Bearer {mine}"))];
    eventually("the token is refused", || {
        let headers = [(shown[0].0, shown[0].1.as_str())];
        let status = http::request(node.http, "POST", "/devices/d1/metrics", &headers, b"{\"v\":1}").status;
        (status == 401).then_some(())
    });
    eventually("the audit log has the call", || {
        (!audited(&house, &["\"http\"", "GET /parked", "robot", "200"]).is_empty()).then_some(())
    });
}

#[test]
fn the_dashboards_session_is_no_use_to_another_site() {
    let house = house();
    let node = house.start();
    let post = |path: &str, headers: &[(&str, &str)], body: &str| {
        http::request(node.http, "POST", path, headers, body.as_bytes())
    };
    let json = ("content-type", "application/json");
    let login = "{\"user\":\"op\",\"password\":\"secret\"}";
    assert_eq!(node.get("/api/session").json()["user"], Value::Null);
    post("/api/login", &[json], "{\"user\":\"op\",\"password\":\"wrong\"}").problem(401, "unauthorized");
    assert_eq!(post("/api/login", &[("content-type", "text/plain")], login).status, 415, "a form of another site");
    let response = post("/api/login", &[json], login);
    assert_eq!((response.status, &response.json()["role"]), (200, &Value::from("operator")));
    let cookie = response.header("set-cookie").unwrap();
    for word in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap();
    let get = |path: &str, more: &[(&str, &str)]| {
        let headers: Vec<_> = [("cookie", cookie)].into_iter().chain(more.iter().copied()).collect();
        http::request(node.http, "GET", path, &headers, b"").status
    };
    assert_eq!(get("/devices", &[]), 200);
    assert_eq!(get("/parked", &[]), 200);
    for (headers, expected) in [
        (&[("sec-fetch-site", "same-origin")][..], 404),
        (&[("origin", "http://localhost")], 404),
        (&[("sec-fetch-site", "cross-site")], 403),
        (&[("origin", "http://evil.example")], 403),
        (&[], 403),
    ] {
        let headers: Vec<_> = [("cookie", cookie)].into_iter().chain(headers.iter().copied()).collect();
        let response = http::request(node.http, "DELETE", "/parked/1", &headers, b"");
        assert_eq!(response.status, expected, "{headers:?}: {}", response.text());
    }
    let upgrade = [
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let socket = |origin: &str| {
        let headers: Vec<_> = [("cookie", cookie), ("origin", origin)].into_iter().chain(upgrade).collect();
        let mut http = http::Http::connect(node.http);
        http.send("GET", "/ws", &headers, b"");
        http.head().unwrap().status
    };
    assert_eq!((socket("http://localhost"), socket("http://evil.example")), (101, 403));
    // It ends with the logout, and with the user.
    assert_eq!(post("/api/logout", &[("cookie", cookie)], "").status, 403);
    let again = post("/api/login", &[json], login);
    let other = again.header("set-cookie").unwrap().split(';').next().unwrap();
    assert_eq!(post("/api/logout", &[("cookie", cookie), ("sec-fetch-site", "same-origin")], "").status, 200);
    assert_eq!(get("/devices", &[]), 401);
    let still = || http::request(node.http, "GET", "/devices", &[("cookie", other)], b"").status;
    assert_eq!(still(), 200);
    done(&house, &["user", "passwd", "op"], "other");
    eventually("the session ends with the password", || (still() == 401).then_some(()));
}

#[test]
fn a_viewer_that_loses_its_right_loses_its_stream() {
    let house = house();
    let node = house.start();
    let basic = format!("Basic {}", http::base64(b"eye:secret"));
    let mut stream = http::Http::connect(node.http);
    stream.send("GET", "/stream", &[("authorization", &basic)], b"");
    assert_eq!(stream.head().unwrap().status, 200);
    assert!(stream.chunk().unwrap().is_some(), "the snapshot");
    done(&house, &["user", "remove", "eye"], "");
    // The rest of the snapshot may come; then the end does, in time.
    while let Ok(Some(_)) = stream.chunk() {}
    assert_eq!(node.as_user("op", "secret").metric("tidegate_viewers"), 0.0);
}
