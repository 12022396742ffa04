//! Slow work that handlers ask for by `await`: hashes, compression, files, names and other hosts, done by the node for real worker
//! processes, beside what Node.js makes of the same.

mod common;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use common::{Rig, kept, parked};
use serde_json::{Value, json};
use tidegate_actors::{
    blocking::BlockingPool,
    script::{ParkReason, ScriptEngine},
};
use tidegate_scripts::PoolConfig;

fn handler(imports: &str, body: &str) -> String {
    format!("{imports}\nexport async function onMetric(m, ctx) {{\n{body}\n}}")
}

/// A pool whose scripts may do everything, and reach this machine.
fn rig(imports: &str, body: &str, change: impl FnOnce(&mut PoolConfig)) -> Rig {
    Rig::with(&[("a.js", &handler(imports, body))], |config| {
        config.slow.has_effects = true;
        config.slow.fetch_allow = "127.0.0.1:*, localhost:*".parse().expect("a list");
        change(config);
    })
}

fn one(imports: &str, body: &str) -> Value {
    kept(&rig(imports, body, |_| {}).one("{}"))
}

/// What Node.js prints as JSON.
fn node(imports: &str, body: &str) -> Value {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("case.mjs");
    let source = format!("{imports}\nconst run = async () => {{ {body} }};\nconsole.log(JSON.stringify(await run()));");
    fs::write(&file, source).expect("a file");
    let ran = Command::new("node")
        .arg(&file)
        .current_dir(dir.path())
        .output()
        .expect("node runs: it is needed for this test");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    serde_json::from_slice(&ran.stdout).expect("JSON")
}

#[track_caller]
fn same(imports: &str, body: &str) {
    assert_eq!(one(imports, body), node(imports, body));
}

/// A small HTTP server: each request is answered by a function of it, on a thread of its own.
struct Server {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Server {
    fn new(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (requests, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
        let counter = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                counter.fetch_add(1, Ordering::SeqCst);
                let answer = Arc::clone(&answer);
                thread::spawn(move || {
                    let request = read_request(&mut stream);
                    answer(&request, &mut stream);
                });
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// The head and the body of a request.
fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut part = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
            if body.len() >= length.and_then(|length| length.parse().ok()).unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return text,
            Ok(read) => request.extend_from_slice(&part[..read]),
        }
    }
}

fn say(stream: &mut TcpStream, status: &str, headers: &str, body: &str) {
    let length = body.len();
    // In one write: of a status line that comes in pieces Node.js 20 loses the text.
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}");
    let _ = stream.write_all(answer.as_bytes());
}

/// Holds its connection until the client goes.
fn hang(stream: &mut TcpStream) {
    let _ = stream.read(&mut [0; 16]);
}

#[test]
fn hashes_are_those_of_node() {
    same(
        "import crypto, { createHash, createHmac, timingSafeEqual, pbkdf2Sync } from 'node:crypto';",
        r#"
        const out = {};
        for (const name of ["md5", "sha1", "sha224", "sha256", "sha384", "sha512", "SHA256"]) {
          for (const encoding of ["hex", "base64", "base64url"]) {
            out[name + encoding] = createHash(name).update("grün").update(Buffer.from([0, 255])).update("ff00", "hex").digest(encoding);
            out["mac" + name + encoding] = createHmac(name, "key").update("a").update(new Uint8Array([1, 2, 3])).digest(encoding);
          }
        }
        const hash = createHash("sha256").update("a");
        const copy = hash.copy().update("b");
        out.copies = [hash.digest("hex"), copy.digest().toString("hex"), createHash("md5").digest("hex"), Buffer.isBuffer(createHash("md5").digest())];
        const thrown = (f) => { try { return f(); } catch (error) { return [error.name, error.code, error.message]; } };
        out.errors = [thrown(() => hash.update("c")), thrown(() => hash.digest()), thrown(() => createHmac("none", "k")), thrown(() => createHash("sha1").update(1)),
          thrown(() => timingSafeEqual(Buffer.from("a"), Buffer.from("ab")))];
        out.noDigest = thrown(() => createHash("none"))[2];
        out.equal = [timingSafeEqual(Buffer.from("ab"), Buffer.from("ab")), timingSafeEqual(new Uint8Array([1]), new Uint8Array([2]))];
        out.sync = pbkdf2Sync("secret", "salt", 100, 64, "sha512").toString("hex");
        out.sizes = [crypto.randomBytes(8).length, Buffer.isBuffer(crypto.randomBytes(0)), crypto.randomInt(5, 6)];
        return out;
        "#,
    );
}

#[test]
fn derived_keys_are_those_of_node_by_callback_and_by_promise() {
    same(
        "import { pbkdf2, scrypt } from 'node:crypto'; import { promisify } from 'node:util';",
        r#"
        const derive = promisify(pbkdf2), key = promisify(scrypt);
        const called = await new Promise((done) => pbkdf2("pw", "salt", 1000, 16, "sha256", (error, key) => done([error, key.toString("hex"), Buffer.isBuffer(key)])));
        const thrown = (f) => { try { return f(); } catch (error) { return [error.name, error.code, error.message]; } };
        return {
          called,
          many: (await Promise.all([1, 2, 3].map((n) => derive("pw" + n, Buffer.from([n]), n * 10, 40, "sha1")))).map((key) => key.toString("hex")),
          scrypt: [(await key("pw", "salt", 32)).toString("hex"), (await key("pw", "salt", 16, { N: 1024, r: 4, p: 2 })).toString("base64")],
          errors: [thrown(() => pbkdf2("a", "b", 1, 1, "none", () => {})), thrown(() => pbkdf2("a", "b", 0, 1, "sha1", () => {})), thrown(() => pbkdf2(1, "b", 1, 1, "sha1", () => {}))],
        };
        "#,
    );
}

#[test]
fn what_node_packs_is_unpacked_and_the_other_way_round() {
    const IMPORTS: &str = "import zlib from 'node:zlib'; import { promisify } from 'node:util';";
    const TEXT: &str = "'tidegate '.repeat(5000)";
    let pack = format!(
        "const out = {{}}; for (const kind of ['gzip', 'deflate', 'deflateRaw', 'brotliCompress']) out[kind] = (await promisify(zlib[kind])({TEXT})).toString('base64'); return out;"
    );
    let unpack = |packed: &Value| {
        format!(
            "const packed = {packed}, out = {{}}; for (const [kind, back] of [['gzip', 'gunzip'], ['gzip', 'unzip'], ['deflate', 'inflate'], ['deflate', 'unzip'], ['deflateRaw', 'inflateRaw'], ['brotliCompress', 'brotliDecompress']]) {{
               const bytes = Buffer.from(packed[kind], 'base64');
               out[kind + back] = [(await promisify(zlib[back])(bytes)).toString() === {TEXT}, zlib[back + 'Sync'](bytes).toString() === {TEXT}, bytes.length < 5000];
             }} return out;"
        )
    };
    for packed in [node(IMPORTS, &pack), one(IMPORTS, &pack)] {
        let (ours, theirs) = (one(IMPORTS, &unpack(&packed)), node(IMPORTS, &unpack(&packed)));
        assert_eq!(ours, theirs);
        assert!(!ours.to_string().contains("false"), "{ours}");
    }
}

#[test]
fn a_bomb_is_stopped_at_its_limit_and_rubbish_has_nodes_codes() {
    let got = one(
        "import zlib from 'node:zlib'; import { promisify } from 'node:util';",
        r#"
        const caught = async (f) => { try { return (await f()).length; } catch (error) { return [error.code, error.message]; } };
        let bomb = await promisify(zlib.gzip)(new Uint8Array(8 * 1024 * 1024 - 100));
        const twice = Buffer.concat([bomb, bomb]);
        return { size: bomb.length < 20000, fits: await caught(() => promisify(zlib.gunzip)(bomb)), bomb: await caught(() => promisify(zlib.gunzip)(twice)),
          now: await caught(() => zlib.gunzipSync(bomb)), rubbish: await caught(() => promisify(zlib.gunzip)("nonsense")), cut: await caught(() => promisify(zlib.gunzip)(bomb.subarray(0, 50))),
          brotli: await caught(() => promisify(zlib.brotliCompress)(new Uint8Array(1024 * 1024 + 1))), large: await caught(() => promisify(zlib.gzip)(new Uint8Array(8 * 1024 * 1024 + 1))) };
        "#,
    );
    assert_eq!((&got["size"], &got["fits"]), (&json!(true), &json!(8 * 1024 * 1024 - 100)));
    for (what, code, limit) in [
        ("bomb", "ERR_BUFFER_TOO_LARGE", "limit script_zlib_bytes"),
        ("now", "ERR_BUFFER_TOO_LARGE", "limit script_zlib_sync_bytes"),
        ("rubbish", "Z_DATA_ERROR", "incorrect header check"),
        ("cut", "Z_BUF_ERROR", "unexpected end of file"),
        ("brotli", "ERR_TIDEGATE_LIMIT", "limit script_brotli_bytes"),
        ("large", "ERR_TIDEGATE_LIMIT", "limit script_job_bytes"),
    ] {
        let message = got[what][1].as_str().unwrap_or_default();
        assert!(got[what][0] == code && message.contains(limit), "{what}: {}", got[what]);
    }
}

#[test]
fn limits_of_keys_and_of_calls_are_named() {
    let got = one(
        "import { pbkdf2, pbkdf2Sync, scrypt } from 'node:crypto'; import { promisify } from 'node:util';",
        r#"
        const caught = async (f) => { try { await f(); return "fine"; } catch (error) { return [error.code, error.message]; } };
        const derive = promisify(pbkdf2);
        const all = await Promise.all(Array.from({ length: 20 }, (_, n) => caught(() => derive("p", "s", 1, 8, "md5"))));
        return { rounds: await caught(() => derive("p", "s", 2000001, 32, "sha256")), key: await caught(() => derive("p", "s", 1, 1025, "sha256")), now: await caught(() => pbkdf2Sync("p", "s", 10001, 32, "sha256")),
          memory: await caught(() => promisify(scrypt)("p", "s", 8, { N: 131072, maxmem: 1e9 })), asNode: await caught(() => promisify(scrypt)("p", "s", 8, { N: 65536 })),
          done: all.filter((one) => one === "fine").length, refused: all.at(-1) };
        "#,
    );
    for (what, words) in [
        ("rounds", "limit script_pbkdf2_rounds"),
        ("key", "limit script_key_bytes"),
        ("now", "limit script_pbkdf2_sync_rounds"),
        ("memory", "limit script_scrypt_bytes"),
        ("asNode", "memory limit exceeded"),
        ("refused", "limit script_call_jobs"),
    ] {
        assert!(got[what][1].as_str().is_some_and(|message| message.contains(words)), "{what}: {}", got[what]);
    }
    assert_eq!(got["done"], 16);
}

#[test]
fn pure_work_takes_a_millisecond_of_the_calls_time_and_comes_in_the_order_of_its_asking() {
    const BODY: &str = r#"
        const order = [], at = (what) => order.push([what, performance.now()]);
        const derive = promisify(pbkdf2);
        const timer = (ms) => new Promise((done) => setTimeout(done, ms)).then(() => at("timer " + ms));
        const slow = derive("p", "s", 200000, 32, "sha256").then(() => at("slow"));
        const fast = promisify(gzip)("x").then(() => at("fast"));
        await Promise.all([timer(2), slow, fast, timer(1), timer(40)]);
        await derive("p", "s", 1, 8, "md5");
        at("end");
        return { order, random: Math.random() };
    "#;
    const IMPORTS: &str =
        "import { pbkdf2 } from 'crypto'; import { gzip } from 'zlib'; import { promisify } from 'util';";
    let got = one(IMPORTS, BODY);
    let order = json!([["timer 1", 1], ["slow", 1], ["fast", 1], ["timer 2", 2], ["timer 40", 40], ["end", 41]]);
    assert_eq!(got["order"], order);
    assert_eq!(one(IMPORTS, BODY), got);
}

#[test]
fn a_callback_alone_keeps_a_call_going_and_its_fault_fails_it() {
    let mut rig = rig("import { pbkdf2 } from 'crypto';", "", |config| {
        fs::write(
                config.handlers_dir.join("a.js"),
                "const { pbkdf2 } = require('crypto');
                 exports.onMetric = (m, ctx) => {
                   pbkdf2('p', 's', 10, 8, 'sha1', (error, key) => { if (m.bad) throw new Error('no ' + key.length); ctx.state.key = key.toString('hex'); ctx.emit('key', {}); });
                 };",
            )
            .expect("a file");
    });
    let outcome = rig.one("{}");
    assert_eq!(outcome.emits.len(), 1);
    assert_eq!(outcome.script_state.len(), 1);
    let outcome = rig.one(r#"{"bad":true}"#);
    let (reason, message) = parked(&outcome);
    assert!(reason == ParkReason::Threw && message.contains("no 8"), "{message}");
}

#[test]
fn slow_work_is_for_readings_only() {
    let mut rig = rig(
        "import { gzip, gzipSync } from 'zlib';\nlet loaded; gzip('a', (error) => { loaded = error.message; });\nconst now = gzipSync('a').length;",
        "return { now: now > 0 };",
        |_| {},
    );
    assert_eq!(kept(&rig.one("{}")), json!({"now": true}));
    let mut rig = self::rig(
        "import { gzip } from 'zlib'; import { promisify } from 'util';\nlet why;\nexport async function initialize() { try { await promisify(gzip)('a'); } catch (error) { why = error.message; } }",
        "return { why };",
        |_| {},
    );
    assert!(
        kept(&rig.one("{}"))["why"].as_str().is_some_and(|why| why.contains("slow work is for a reading's handler"))
    );
}

#[test]
fn fetch_is_as_in_node() {
    let server = Server::new(|request, stream| {
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        match path.as_str() {
            "/json" => say(
                stream,
                "200 OK",
                "content-type: application/json\r\nx-a: 1\r\nx-a: 2\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n",
                r#"{"a":[1,"ü"]}"#,
            ),
            "/echo" => {
                let (head, body) = request.split_once("\r\n\r\n").unwrap_or((request, ""));
                let wanted = |line: &&str| {
                    ["content-type", "x-mine", "authorization"].iter().any(|name| line.to_lowercase().starts_with(name))
                };
                let mut lines: Vec<_> = head.lines().filter(wanted).map(str::to_lowercase).collect();
                lines.sort_unstable();
                let method = request.split(' ').next().unwrap_or_default();
                say(stream, "201 Created", "", &json!({"method": method, "lines": lines, "body": body}).to_string());
            }
            "/away" => say(stream, "302 Found", "location: /echo\r\n", ""),
            "/kept" => say(stream, "307 Temporary Redirect", "location: /echo\r\n", ""),
            "/round" => say(stream, "302 Found", "location: /round\r\n", ""),
            "/none" => say(stream, "204 No Content", "", ""),
            _ => say(stream, "404 Not Found", "", "nothing here"),
        }
    });
    let body = format!("const base = 'http://{}';", server.address)
        + r#"
        const seen = async (response) => [response.ok, response.status, response.statusText, response.url, response.redirected, response.type, await response.text(), response.bodyUsed];
        const out = {};
        const first = await fetch(base + "/json#part");
        out.headers = [first.headers.get("X-A"), first.headers.get("none"), first.headers.has("content-type"), first.headers.getSetCookie(), first.headers instanceof Headers, first instanceof Response];
        out.clone = await first.clone().json();
        out.json = await first.json();
        try { await first.text(); } catch (error) { out.used = [error.name, first.bodyUsed]; }
        out.missing = await seen(await fetch(new URL(base + "/missing")));
        out.post = await seen(await fetch(base + "/echo", { method: "post", body: JSON.stringify({ a: 1 }), headers: { "Content-Type": "application/json", "X-Mine": "a" } }));
        out.form = await seen(await fetch(new Request(base + "/echo", { method: "PUT", body: new URLSearchParams({ a: "b c" }), headers: [["x-mine", "1"], ["x-mine", "2"]] })));
        out.text = await seen(await fetch(base + "/echo", { method: "POST", body: "grün" }));
        out.bytes = await seen(await fetch(base + "/echo", { method: "DELETE", body: Buffer.from("bytes") }));
        out.empty = await seen(await fetch(base + "/echo", { method: "POST" }));
        out.away = await seen(await fetch(base + "/away", { method: "POST", body: "x", headers: { authorization: "me" } }));
        out.kept = await seen(await fetch(base + "/kept", { method: "POST", body: "x" }));
        out.manual = (await fetch(base + "/away", { redirect: "manual" })).status;
        out.none = await seen(await fetch(base + "/none"));
        out.head = await seen(await fetch(base + "/json", { method: "HEAD" }));
        out.buffer = Array.from(new Uint8Array(await (await fetch(base + "/missing")).arrayBuffer())).length;
        const failed = async (...all) => { try { await fetch(...all); return "fine"; } catch (error) { return error.name; } };
        out.errors = [await failed("/relative"), await failed(base, { method: "GET", body: "a" }), await failed(base + "/away", { redirect: "error" }), await failed(base + "/round"),
          await failed("ftp://127.0.0.1/"), await failed("http://127.0.0.1:1/"), await failed(base, { headers: { "a b": "c" } }), await failed(base, { method: "a b" })];
        const stop = new AbortController();
        stop.abort();
        out.aborted = await failed(base, { signal: stop.signal });
        out.made = await seen(Response.json({ a: 1 }, { status: 202 }));
        return out;
        "#;
    same("", &body);
}

#[test]
fn only_allowed_hosts_are_reached_also_by_a_redirect() {
    let inner = Server::new(|_, stream| say(stream, "200 OK", "", "secret"));
    let to = inner.address;
    let outer = Server::new(move |_, stream| say(stream, "302 Found", &format!("location: http://{to}/\r\n"), ""));
    let body = format!(
        "const caught = async (url) => {{ try {{ return await (await fetch(url)).text(); }} catch (error) {{ return [error.name, error.code, error.message]; }} }};
         return {{ direct: await caught('http://{to}/'), redirect: await caught('http://{}/'), name: await caught('http://example.org/'), pass: await caught('http://me:secret@{}/') }};",
        outer.address, outer.address
    );
    let mut rig = rig("", &body, |config| {
        config.slow.fetch_allow = outer.address.to_string().parse().expect("a list");
    });
    let got = kept(&rig.one("{}"));
    for what in ["direct", "redirect", "name"] {
        assert_eq!(got[what][1], "ERR_TIDEGATE_NOT_ALLOWED", "{got}");
        assert!(got[what][2].as_str().is_some_and(|why| why.contains("scripts.fetch_allow")), "{got}");
    }
    assert!(got["pass"][2].as_str().is_some_and(|why| why.contains("credentials")), "{got}");
    assert_eq!((inner.requests(), outer.requests()), (0, 1));
    // By default nothing is allowed.
    let mut rig = self::rig("", &body, |config| config.slow.fetch_allow = PoolConfig::new("").slow.fetch_allow);
    assert!(kept(&rig.one("{}")).to_string().matches("scripts.fetch_allow").count() >= 3);
}

#[test]
fn a_host_that_hangs_fails_in_time_while_others_go_on_and_is_then_left_alone() {
    let server = Server::new(|_, stream| hang(stream));
    let body = format!(
        "if (!m.url) return {{ fine: true }};
         if (m.race) {{ const won = await Promise.race([fetch('http://{0}/'), new Promise((done) => setTimeout(done, 60, 'timer'))]); return {{ won, now: performance.now() }}; }}
         if (m.abort) {{ try {{ await fetch('http://{0}/', {{ signal: AbortSignal.timeout(50) }}); }} catch (error) {{ return {{ name: error.name, now: performance.now() }}; }} }}
         return {{ text: await (await fetch('http://{0}/')).text() }};",
        server.address
    );
    let mut rig = rig("", &body, |config| {
        config.slow.fetch_wall = Duration::from_millis(600);
        config.slow.fetch_breaker_failures = 2;
    });
    assert_eq!(kept(&rig.one(r#"{"url":1,"race":1}"#)), json!({"won": "timer", "now": 60}));
    assert_eq!(kept(&rig.one(r#"{"url":1,"abort":1}"#)), json!({"name": "TimeoutError", "now": 50}));
    let begun = Instant::now();
    let slow = rig.run("slow", &[r#"{"url":1}"#, r#"{"n":1}"#]);
    rig.submit(vec![slow]);
    for round in 0..10 {
        assert_eq!(kept(&rig.one_of(&format!("other-{round}"), "{}")), json!({"fine": true}));
    }
    assert!(begun.elapsed() < Duration::from_millis(600), "the others waited: {:?}", begun.elapsed());
    let outcome = rig.outcome();
    let (reason, message) = parked(&outcome);
    assert_eq!((outcome.device.as_str(), reason), ("slow", ParkReason::Threw));
    assert!(message.contains("limit script_fetch_wall") && message.contains("a.js:"), "{message}");
    assert_eq!(kept(&rig.outcome()), json!({"fine": true}), "its further reading comes after it");
    rig.one(r#"{"url":1}"#);
    let asked = server.requests();
    let outcome = rig.one(r#"{"url":1}"#);
    let (_, message) = parked(&outcome);
    assert!(message.contains("did not answer lately") && server.requests() == asked, "{message}");
}

#[test]
fn a_call_that_waits_for_an_answer_too_long_is_parked_by_its_own_limit() {
    let server = Server::new(|_, stream| hang(stream));
    let body = format!("await fetch('http://{}/');", server.address);
    let mut rig = rig("", &body, |config| {
        config.limits.async_wall = Duration::from_millis(300);
        config.slow.fetch_wall = Duration::from_secs(2);
    });
    let outcome = rig.one("{}");
    let (reason, message) = parked(&outcome);
    assert_eq!(reason, ParkReason::Deadline);
    assert!(message.contains("it waits for fetch for longer than 300 ms (limit script_async_wall"), "{message}");
}

#[test]
fn the_size_of_an_answer_is_limited() {
    let server = Server::new(|request, stream| {
        if request.contains("/endless") {
            let _ = write!(stream, "HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[b'x'; 1024]).is_ok() {}
        } else {
            say(stream, "200 OK", "", &"y".repeat(1_000));
        }
    });
    let body = format!(
        "const caught = async (path) => {{ try {{ return (await (await fetch('http://{}' + path)).text()).length; }} catch (error) {{ return error.message; }} }};
         return {{ fits: await caught('/'), endless: await caught('/endless') }};",
        server.address
    );
    let mut rig = rig("", &body, |config| config.slow.fetch_body = 1_000);
    let got = kept(&rig.one("{}"));
    assert_eq!(got["fits"], 1_000);
    assert!(got["endless"].as_str().is_some_and(|why| why.contains("limit script_fetch_body")), "{got}");
}

#[test]
fn files_are_as_in_node() {
    let files = tempfile::tempdir().expect("a directory");
    let dir = files.path().join("of-scripts");
    let body = r#"
        const caught = async (f) => { try { return (await f()) ?? "fine"; } catch (error) { return [error.code, error.message, error.syscall, error.path, error.errno]; } };
        const out = {};
        out.none = await caught(() => fs.readFile("none.txt", "utf8"));
        await fs.writeFile("a.txt", "grün");
        await fs.appendFile("a.txt", Buffer.from("!"));
        out.text = [await fs.readFile("a.txt", "utf8"), (await fs.readFile("./a.txt")).toString("hex"), await fs.readFile("a.txt", { encoding: "base64" })];
        out.exists = await caught(() => fs.writeFile("a.txt", "b", { flag: "wx" }));
        out.made = [await caught(() => fs.mkdir("d")), await caught(() => fs.mkdir("d")), await caught(() => fs.mkdir("x/y")), await caught(() => fs.mkdir("e/f/g", { recursive: true }).then(() => "made"))];
        await fs.writeFile("e/f/g/b.txt", "0123456789");
        const stat = await fs.stat("e/f/g/b.txt"), folder = await fs.stat("e");
        out.stat = [stat.size, stat.isFile(), stat.isDirectory(), folder.isDirectory(), stat.mtime instanceof Date, stat.mtimeMs > 1e12];
        out.names = [(await fs.readdir("e")).sort(), (await fs.readdir("e/f", { withFileTypes: true })).map((entry) => [entry.name, entry.isDirectory()])];
        out.access = [await caught(() => fs.access("a.txt")), await caught(() => fs.access("b.txt"))];
        out.folder = await caught(() => fs.readFile("d"));
        out.rename = [await caught(() => fs.rename("a.txt", "d/c.txt")), await caught(() => fs.rename("a.txt", "d/c.txt")), await fs.readFile("d/c.txt", "latin1")];
        out.rm = [await caught(() => fs.rm("q", { force: true })), await caught(() => fs.unlink("q")), await caught(() => fs.rmdir("d")), await caught(() => fs.rm("d", { recursive: true })), await caught(() => fs.rm("e", { recursive: true, force: true }))];
        out.left = (await fs.readdir(".")).filter((name) => !name.startsWith("case"));
        out.same = fs === all.promises;
        return out;
    "#;
    const IMPORTS: &str = "import fs from 'node:fs/promises'; import all from 'node:fs';";
    let mut rig = rig(IMPORTS, body, |config| config.slow.files_dir = Some(dir.clone()));
    assert_eq!(kept(&rig.one("{}")), node(IMPORTS, body));
    assert!(dir.join("a.js").is_dir());
}

#[test]
fn files_have_a_quota_and_no_way_out() {
    let files = tempfile::tempdir().expect("a directory");
    fs::write(files.path().join("secret"), "x").expect("a file");
    let dir = files.path().join("of-scripts");
    let body = r#"
        const caught = async (f) => { try { await f(); return "fine"; } catch (error) { return [error.code, error.message]; } };
        const out = {};
        for (const path of ["../secret", "/etc/passwd", "d/../../../secret", "way/secret", "file"]) {
          out[path] = [(await caught(() => fs.readFile(path)))[0], (await caught(() => fs.writeFile(path, "y")))[0], (await caught(() => fs.rename("a", path)))[0]];
        }
        out.bytes = await caught(() => fs.writeFile("large", "x".repeat(101)));
        for (let i = 0; i < 8; i++) out.files = await caught(() => fs.writeFile("n" + i, ""));
        return out;
    "#;
    let mut rig = rig("import fs from 'fs/promises';", body, |config| {
        config.slow.files_dir = Some(dir.clone());
        (config.slow.fs_bytes, config.slow.fs_files) = (100, 6);
    });
    let own = dir.join("a.js");
    fs::create_dir_all(&own).expect("a folder");
    std::os::unix::fs::symlink(files.path(), own.join("way")).expect("a link");
    std::os::unix::fs::symlink(files.path().join("secret"), own.join("file")).expect("a link");
    let got = kept(&rig.one("{}"));
    for path in ["../secret", "/etc/passwd", "d/../../../secret"] {
        assert_eq!(got[path], json!(["EACCES", "EACCES", "EACCES"]), "{path}");
    }
    assert!(got["way/secret"][0] == "ENOTDIR" || got["way/secret"][0] == "ELOOP", "{got}");
    assert_eq!(got["file"][0], "ELOOP", "{got}");
    let of = |what: &str| got[what][1].as_str().unwrap_or_default().to_owned();
    assert!(got["bytes"][0] == "EDQUOT" && of("bytes").contains("limit script_fs_bytes"), "{got}");
    assert!(got["files"][0] == "EDQUOT" && of("files").contains("limit script_fs_files"), "{got}");
    assert_eq!(fs::read_to_string(files.path().join("secret")).expect("it is there"), "x");
}

#[test]
fn names_are_looked_up_if_they_are_allowed() {
    let got = one(
        "import dns from 'node:dns'; import { promisify } from 'node:util';",
        r#"
        const caught = async (f) => { try { return await f(); } catch (error) { return [error.code, error.message]; } };
        const called = await new Promise((done) => dns.lookup("localhost", { family: 4 }, (...all) => done(all)));
        return { called, promised: await promisify(dns.lookup)("127.0.0.1"), all: await dns.promises.lookup("localhost", { all: true, family: 4 }), refused: await caught(() => dns.promises.lookup("example.org")) };
        "#,
    );
    assert_eq!(got["called"], json!([null, "127.0.0.1", 4]));
    assert_eq!(got["promised"], json!({"address": "127.0.0.1", "family": 4}));
    assert_eq!(got["all"], json!([{"address": "127.0.0.1", "family": 4}]));
    assert_eq!(got["refused"][0], "ERR_TIDEGATE_NOT_ALLOWED");
}

#[test]
fn where_nothing_may_have_effects_pure_work_is_done_and_the_rest_is_refused() {
    let body = r#"
        const caught = async (f) => { try { await f(); return "fine"; } catch (error) { return error.code; } };
        return { gzip: await caught(() => promisify(gzip)("a")), read: await caught(() => fs.readdir(".")), write: await caught(() => fs.writeFile("a", "b")),
          fetch: await caught(() => fetch("http://127.0.0.1/")), dns: await caught(() => dns.lookup("localhost")) };
    "#;
    let imports = "import { gzip } from 'zlib'; import { promisify } from 'util'; import fs from 'fs/promises'; import dns from 'dns/promises';";
    let files = tempfile::tempdir().expect("a directory");
    let mut rig = rig(imports, body, |config| {
        config.slow.has_effects = false;
        config.slow.files_dir = Some(files.path().join("none"));
    });
    let refused = "ERR_TIDEGATE_REPLAY";
    let expected = json!({"gzip": "fine", "read": "fine", "write": refused, "fetch": refused, "dns": refused});
    assert_eq!(kept(&rig.one("{}")), expected);
    assert!(!files.path().join("none").exists());
    let counts = rig.pool.slow_work().operations;
    let fetch = counts.iter().find(|counts| counts.name == "fetch").expect("it is known");
    assert_eq!((fetch.done, fetch.refused), (0, 1));
}

#[test]
fn a_full_pool_refuses_by_name() {
    let pool = Arc::new(BlockingPool::new(1, 1).expect("threads"));
    let mut rig = rig(
        "import { gzip } from 'zlib'; import { promisify } from 'util';",
        "await promisify(gzip)('a');",
        |config| config.slow.pool = Some(Arc::clone(&pool)),
    );
    let (release, released) = std::sync::mpsc::channel::<()>();
    let first = pool.try_run(move || released.recv().is_ok());
    while pool.running() == 0 {
        thread::yield_now();
    }
    let second = pool.try_run(|| ());
    assert!(first.is_ok() && second.is_ok());
    let outcome = rig.one("{}");
    let (reason, message) = parked(&outcome);
    assert!(reason == ParkReason::Threw && message.contains("limit blocking_jobs"), "{message}");
    drop(release);
}

#[test]
fn a_worker_that_is_killed_while_it_waits_asks_again() {
    let server = Server::new(|_, stream| {
        thread::sleep(Duration::from_millis(300));
        say(stream, "200 OK", "", "here");
    });
    let body = format!("return {{ text: await (await fetch('http://{}/')).text() }};", server.address);
    let mut rig = rig("", &body, |_| {});
    let run = rig.run("d1", &["{}", "{}"]);
    rig.submit(vec![run]);
    rig.wait("the first request comes", |_| server.requests() > 0);
    let pid = rig.pool.workers()[0].pid;
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it is our own worker");
    for outcome in rig.outcomes(2) {
        assert_eq!(kept(&outcome), json!({"text": "here"}));
    }
    assert_eq!(server.requests(), 3);
    rig.assert_quiet();
}

#[test]
fn large_questions_and_answers_at_once_do_not_hold_each_other_up() {
    let mut rig = rig(
        "import { gzip, gunzip } from 'zlib'; import { promisify } from 'util';",
        "const text = new Uint8Array(3000000).fill(m.n); const all = await Promise.all([1, 2, 3, 4].map(async () => (await promisify(gunzip)(await promisify(gzip)(text, { level: 0 }))).length)); return { all };",
        |_| {},
    );
    let runs: Vec<_> = (0..6)
        .map(|n| rig.run(&format!("d{n}"), &[&json!({"n": n, "pad": "x".repeat(200_000)}).to_string()]))
        .collect();
    rig.submit(runs);
    for outcome in rig.outcomes(6) {
        let got = format!("{:?}", outcome.verdict);
        assert!(got.contains("3000000") || got.contains("limit script_pool_bytes"), "{got}");
    }
    assert_eq!(rig.pool.workers()[0].restarts, 0);
}
