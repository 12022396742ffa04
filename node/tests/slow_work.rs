//! Handlers that wait for slow work, in a real node: `fetch` to a server of the test, files, hashes and compression; what an
//! operator has not allowed, a host that hangs, a crash in the midst, a replay and a canary.

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{House, authority::Authority, eventually, node::tidegate};

/// A server that answers `/fast` with a count of its requests, and holds any other until the client goes.
struct Server {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let count = counter.fetch_add(1, Ordering::SeqCst) + 1;
                thread::spawn(move || answer(stream, count));
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn answer(mut stream: TcpStream, count: usize) {
    let mut request = [0; 4096];
    let read = stream.read(&mut request).unwrap_or(0);
    if request[..read].starts_with(b"GET /fast") {
        let body = json!({"count": count}).to_string();
        let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    } else {
        // It reads nothing more, and ends when the client goes.
        let _ = stream.read(&mut request);
    }
}

/// A house whose handlers may reach this machine.
fn house(source: &str) -> House {
    House::new().handler("10-slow.js", source).variable("TIDEGATE_SCRIPTS__FETCH_ALLOW", "127.0.0.1:*")
}

#[test]
fn a_handler_asks_another_host_and_keeps_files_and_it_is_all_counted() {
    let server = Server::new();
    let source = format!(
        r#"
        import {{ createHash, pbkdf2 }} from "node:crypto";
        import {{ gzip, gunzip }} from "node:zlib";
        import {{ promisify }} from "node:util";
        import fs from "node:fs/promises";
        export async function onMetric(metric, ctx) {{
          const {{ count }} = await (await fetch("http://{}/fast")).json();
          const key = await promisify(pbkdf2)("secret", "salt", 1000, 16, "sha256");
          const back = await promisify(gunzip)(await promisify(gzip)("text"));
          await fs.appendFile("seen.txt", `${{ctx.deviceId}}\n`);
          const seen = await fs.readFile("seen.txt", "utf8");
          return {{ count, key: key.toString("hex"), back: back.toString(), lines: seen.split("\n").length - 1, hash: createHash("md5").update("a").digest("hex") }};
        }}"#,
        server.address
    );
    let house = house(&source);
    let mut node = house.start();
    node.processed("d1", r#"{"t":1}"#);
    node.processed("d2", r#"{"t":1}"#);
    let state = node.device("d2").expect("known")["state"].clone();
    let expected = json!({"count": 2, "back": "text", "lines": 2, "hash": "0cc175b9c0f1b6a831c399e269772661"});
    for field in ["count", "back", "lines", "hash"] {
        assert_eq!(state[field], expected[field], "{state}");
    }
    assert_eq!(state["key"].as_str().map(str::len), Some(32));
    assert_eq!(fs::read_to_string(house.data().join("script-files/10-slow.js/seen.txt")).expect("kept"), "d1\nd2\n");

    for (operation, count) in [("fetch", 2.0), ("pbkdf2", 2.0), ("zlib", 4.0), ("fs.write", 2.0), ("fs.read", 2.0)] {
        let name = format!("tidegate_script_work_total{{operation=\"{operation}\",result=\"done\"}}");
        assert_eq!(node.metric(&name), count, "{operation}");
    }
    let overview = node.get("/api/overview").json();
    assert_eq!((&overview["slowWork"]["running"], &overview["slowWork"]["threads"]), (&json!(0), &json!(3)));
    assert_eq!(overview["pool"]["refused"], 0);
    assert_eq!(node.metric("tidegate_blocking_pool_threads"), 4.0);
    assert_eq!(node.stop(), Some(0));
    house.ledger_balances();
}

#[test]
fn what_the_operator_has_not_allowed_is_refused_with_the_settings_name() {
    let server = Server::new();
    let source = format!("export async function onMetric() {{ await fetch('http://{}/fast'); }}", server.address);
    let house = House::new().handler("10-slow.js", &source);
    let node = house.start();
    node.processed("d1", r#"{"t":1}"#);
    let parked = node.parked();
    assert_eq!(parked[0]["reason"], "threw");
    let message = parked[0]["message"].as_str().unwrap_or_default();
    assert!(message.contains("scripts.fetch_allow") && message.contains("10-slow.js:1:"), "{message}");
    assert_eq!(server.requests(), 0);

    let mut command = tidegate(&house.path("."));
    let run = command.args(["config", "check"]).env("TIDEGATE_SCRIPTS__FETCH_ALLOW", "http://a/").output();
    let run = run.expect("the binary starts");
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(!run.status.success() && said.contains("scripts.fetch_allow"), "{said}");
}

#[test]
fn a_host_that_hangs_parks_its_own_readings_and_nobody_elses() {
    let server = Server::new();
    let source = format!(
        "export async function onMetric(metric) {{ if (metric.ask) await fetch('http://{}/hang'); return {{ done: metric.n }}; }}",
        server.address
    );
    let house = house(&source)
        .variable("TIDEGATE_SCRIPTS__FETCH_WALL_MS", "2000")
        .variable("TIDEGATE_SCRIPTS__BREAKER_FAILURES", "100");
    let mut node = house.start();
    // More of them than the pool has threads.
    for n in 0..8 {
        assert_eq!(node.post(&format!("/devices/slow-{n}/metrics"), r#"{"ask":1}"#).status, 202);
    }
    node.post("/devices/slow-0/metrics", r#"{"n":2}"#);
    eventually("the server is asked", || (server.requests() > 0).then_some(()));
    let start = Instant::now();
    for n in 0..20 {
        node.processed(&format!("fast-{n}"), &json!({"n": n}).to_string());
        // A load of the node's own, on the same pool.
        assert_eq!(node.get(&format!("/devices/nobody-{n}")).status, 404);
    }
    let meanwhile = start.elapsed();
    assert!(meanwhile < Duration::from_millis(1_500), "they waited: {meanwhile:?}");
    let parked = eventually("all are parked", || Some(node.parked()).filter(|parked| parked.len() == 8));
    for reading in &parked {
        let message = reading["message"].as_str().unwrap_or_default();
        let told = message.contains("limit script_fetch_wall") || message.contains("did not answer lately");
        assert!(reading["reason"] == "threw" && told, "{reading}");
    }
    node.device_with("slow-0", "done", &json!(2));
    assert_eq!(node.stop(), Some(0));
    house.ledger_balances();
}

#[test]
fn a_bomb_and_a_full_quota_park_their_reading() {
    let source = r#"
        import zlib from "node:zlib";
        import { promisify } from "node:util";
        import fs from "node:fs/promises";
        export async function onMetric(metric) {
          if (metric.bomb) {
            const part = await promisify(zlib.gzip)(new Uint8Array(8e6));
            await promisify(zlib.gunzip)(Buffer.concat([part, part]));
          }
          if (metric.way) await fs.readFile(metric.way);
          if (metric.fill) await fs.writeFile("f", "x".repeat(metric.fill));
          return { fine: true };
        }"#;
    let node = House::new().handler("10-slow.js", source).variable("TIDEGATE_SCRIPTS__FS_BYTES", "1000").start();
    for (reading, words) in [
        (r#"{"bomb":1}"#, "limit script_zlib_bytes"),
        (r#"{"fill":1001}"#, "limit script_fs_bytes"),
        (r#"{"way":"../../journal"}"#, "EACCES"),
    ] {
        node.processed("d1", reading);
        let parked = node.parked();
        let is_told = |parked: &Value| parked["message"].as_str().is_some_and(|message| message.contains(words));
        assert!(parked.iter().any(is_told), "{reading}: {parked:?}");
        // The breaker is not to open.
        node.processed("d1", r#"{"fill":1000}"#);
    }
    node.device_with("d1", "fine", &json!(true));
}

#[test]
fn a_reading_that_a_crash_took_from_its_fetch_is_handled_again() {
    let server = Server::new();
    let source = format!(
        "export async function onMetric(metric) {{ const answer = await fetch('http://{}/' + (metric.hang ? 'hang' : 'fast')); return await answer.json(); }}",
        server.address
    );
    let house = house(&source).variable("TIDEGATE_SCRIPTS__FETCH_WALL_MS", "4000");
    let mut node = house.start();
    assert_eq!(node.post("/devices/d1/metrics?ack=committed", r#"{"hang":1}"#).status, 200);
    eventually("the server is asked", || (server.requests() == 1).then_some(()));
    node.kill9();
    let mut node = house.start();
    eventually("it is asked again", || (server.requests() >= 2).then_some(()));
    eventually("it is parked in the end", || (node.parked().len() == 1).then_some(()));
    node.processed("d1", r#"{"t":1}"#);
    assert_eq!(node.device("d1").expect("known")["state"]["count"], 3);
    assert_eq!(node.stop(), Some(0));
    house.ledger_balances();
}

#[test]
fn a_replay_and_a_canary_have_no_effects() {
    let server = Server::new();
    let source = |version: u32| {
        format!(
            r#"
            import fs from "node:fs/promises";
            import {{ gzipSync, gunzip }} from "node:zlib";
            import {{ promisify }} from "node:util";
            export async function onMetric(metric) {{
              const text = (await promisify(gunzip)(gzipSync("pure"))).toString();
              const {{ count }} = await (await fetch("http://{}/fast")).json();
              await fs.appendFile("seen", "x");
              return {{ text, count, version: {version} }};
            }}"#,
            server.address
        )
    };
    let house = House::new()
        .handler("10-slow.js", "export function onMetric() {}")
        .variable("TIDEGATE_SCRIPTS__FETCH_ALLOW", "127.0.0.1:*")
        .variable("TIDEGATE_SCRIPTS__CANARY_SHARE", "100")
        .variable("TIDEGATE_SCRIPTS__CANARY_READINGS", "5");
    let mut node = house.start();
    let handler = house.path("handlers/10-slow.js");
    // Handlers that begin to use the network are not held to have failed in the canary, where they have none.
    fs::write(&handler, source(1)).expect("written");
    let reloaded = thread::scope(|scope| {
        let reload = scope.spawn(|| node.post("/scripts/reload", ""));
        let mut n = 0;
        while !reload.is_finished() {
            n += 1;
            node.post(&format!("/devices/early-{n}/metrics?ack=processed"), r#"{"t":1}"#);
        }
        reload.join().expect("it answers")
    });
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    let before = server.requests();
    node.processed("d1", r#"{"t":1}"#);
    assert_eq!(server.requests(), before + 1);
    let seen = house.data().join("script-files/10-slow.js/seen");
    let written = fs::read_to_string(&seen).expect("written");
    assert_eq!(node.stop(), Some(0));

    let mut command = tidegate(&house.path("."));
    command.args(["script", "replay", "--json", "--device", "d1", "--data-dir"]).arg(house.data());
    let run = command.arg("--handlers").arg(house.path("handlers")).arg("--with").arg(&handler).output();
    let run = run.expect("the binary starts");
    let report: Value = serde_json::from_slice(&run.stdout).expect("JSON");
    assert_eq!((&report["readings"], &report["failed"]["new"]), (&json!(1), &json!(1)), "{report:#}");
    assert_eq!(server.requests(), before + 1, "a replay asks nobody");
    assert_eq!(fs::read_to_string(&seen).expect("kept"), written, "and writes nothing");
}

#[test]
fn https_is_checked_against_the_certificates_of_the_system() {
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(dir.path(), "test");
    let files = authority.node("server", 1);
    let (cert, key) = (files.cert.display().to_string(), files.key.display().to_string());
    let other = House::new()
        .flags(&["--https-bind", "127.0.0.1:0"])
        .variable("TIDEGATE_HTTP__TLS_CERT", &cert)
        .variable("TIDEGATE_HTTP__TLS_KEY", &key);
    let other = other.start();
    let source = format!(
        "export async function onMetric() {{ return {{ said: await (await fetch('https://localhost:{}/livez')).text() }}; }}",
        other.door("https").port()
    );
    let allowed =
        || House::new().handler("10-slow.js", &source).variable("TIDEGATE_SCRIPTS__FETCH_ALLOW", "localhost:*");
    let trusting = allowed().variable("SSL_CERT_FILE", &authority.ca().display().to_string());
    let node = trusting.start();
    node.processed("d1", r#"{"t":1}"#);
    node.device_with("d1", "said", &json!("ok"));

    let wary = allowed();
    let node = wary.start();
    node.processed("d1", r#"{"t":1}"#);
    let message = node.parked()[0]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("fetch failed") && message.contains("certificate"), "{message}");
}
