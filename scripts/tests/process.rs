//! The worker process itself: what it holds, when it ends, what it prints; and the check of handlers without a node.

mod common;

use std::{
    fs,
    io::Write,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use common::{PATIENCE, Rig, command};
use tidegate_actors::script::ScriptEngine;
use tidegate_scripts::{LoadError, WorkerCommand, check};
use tracing::{
    Event, Id, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Record},
};

#[test]
fn a_worker_holds_nothing_but_its_socket_and_its_size() {
    let rig = Rig::new(&[("a.js", "export function onMetric(m) { return m; }")]);
    rig.wait("the worker is up", |pool| pool.workers()[0].pid != 0);
    let pid = rig.pool.workers()[0].pid;
    let proc = |name: &str| format!("/proc/{pid}/{name}");
    let descriptors = |of: &str| -> Vec<(String, String)> {
        let entries = fs::read_dir(format!("/proc/{of}/fd")).expect("its descriptors");
        let link = |entry: fs::DirEntry| {
            let path = fs::read_link(entry.path()).ok()?;
            Some((entry.file_name().into_string().ok()?, path.to_string_lossy().into_owned()))
        };
        entries.filter_map(|entry| link(entry.ok()?)).collect()
    };
    // What whoever started this test left open for everybody is not the pool's.
    let is_left_open = |number: &str| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap_or_default();
        u32::from_str_radix(flags.trim(), 8).is_ok_and(|flags| flags & 0o2_000_000 == 0)
    };
    let left_open: Vec<_> = descriptors("self").into_iter().filter(|(number, _)| is_left_open(number)).collect();
    let files: Vec<String> = descriptors(&pid.to_string())
        .into_iter()
        .filter(|(number, path)| {
            ["0", "1", "2"].contains(&number.as_str()) || !left_open.iter().any(|(_, open)| open == path)
        })
        .map(|(_, path)| path)
        .collect();
    let strange: Vec<_> = files
        .iter()
        .filter(|file| !file.starts_with("socket:") && !file.starts_with("pipe:") && *file != "/dev/null")
        .filter(|file| **file != proc("statm"))
        .collect();
    assert!(strange.is_empty() && files.iter().filter(|file| file.starts_with("pipe:")).count() == 1, "{files:?}");
    assert_eq!(fs::read(proc("environ")).expect("its environment"), b"MALLOC_ARENA_MAX=1\0");
    assert_eq!(fs::read_link(proc("cwd")).expect("its directory").to_string_lossy(), "/");
    let limits = fs::read_to_string(proc("limits")).expect("its limits");
    let limit = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).expect("the limit");
        line[name.len()..].split_whitespace().next().expect("a value").to_owned()
    };
    assert_eq!(
        (limit("Max core file size"), limit("Max open files"), limit("Max file size")),
        ("0".into(), "16".into(), "0".into())
    );
    let address_space: u64 = limit("Max address space").parse().expect("bounded");
    assert!(address_space < 1024 * 1024 * 1024, "{address_space}");
    assert!(rig.pool.workers()[0].rss_bytes > 1024 * 1024);
}

#[test]
fn a_worker_ends_with_its_node_even_when_a_script_hangs() {
    for source in [None, Some("/^(a+)+$/.test('a'.repeat(60) + 'b');")] {
        let (mut ours, theirs) = UnixStream::pair().expect("a socket pair");
        let mut child = Command::new(command().program)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a worker");
        if let Some(source) = source {
            // A start frame by hand: the variant's number, then its fields.
            let start = (0_u32, 128_u64 << 20, 10_000_u64, false, vec![("a.js", true)], vec![("a.js", source)]);
            let body = bincode::encode_to_vec(start, bincode::config::standard()).expect("a frame");
            ours.write_all(&u32::try_from(body.len()).expect("short").to_le_bytes()).expect("written");
            ours.write_all(&body).expect("written");
            // It has begun to load once it says so.
            ours.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            std::io::Read::read_exact(&mut ours, &mut [0; 6]).expect("loading");
        }
        drop(ours);
        let deadline = Instant::now() + Duration::from_secs(10);
        let ended = loop {
            match child.try_wait().expect("waitable") {
                Some(status) => break Some(status),
                None if Instant::now() > deadline => break None,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        if ended.is_none() {
            child.kill().expect("killed");
        }
        assert!(ended.is_some_and(|status| status.success()), "{source:?}: {ended:?}");
    }
}

/// Keeps the log lines of scripts.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!(" {}={value:?}", field.name()));
            }
        }
        let mut text = Text(event.metadata().level().to_string());
        event.record(&mut text);
        self.0.lock().expect("not poisoned").push(text.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn what_scripts_print_is_logged_with_script_and_device_and_broken_ones_with_their_line() {
    let lines = Lines::default();
    // For all threads: the workers' own threads log.
    tracing::subscriber::set_global_default(lines.clone()).expect("the only one of this binary");
    let script = r#"
        export function onMetric(m, ctx) {
          console.log("one", 2, { three: [3] }, null, new TypeError("five"));
          console.warn("careful\nnow"); console.error("bad"); console.debug("small"); ctx.log("from ctx");
          for (let i = 0; i < m.many; i++) console.info("line", i);
        }"#;
    let mut rig = Rig::new(&[("10-log.js", script), ("20-bad.js", "let a = 1;\nlet b = ;\n")]);
    rig.one(r#"{"many":0}"#);
    rig.one(r#"{"many":1000}"#);
    let lines = lines.0.lock().expect("not poisoned");
    let has = |text: &str| lines.iter().any(|line| line.contains(text));
    for wanted in [
        r#"INFO message=one 2 { three: [ 3 ] } null TypeError: five script="10-log.js" device="d1""#,
        "WARN message=careful now script",
        "ERROR message=bad script",
        "DEBUG message=small script",
        "INFO message=from ctx script",
        "INFO message=line 0 script",
        "more than 20 lines in one call",
        "2 | let b = ;\n  |         ^",
    ] {
        assert!(has(wanted), "{wanted}: {lines:#?}");
    }
    assert!(!has("line 20"), "{lines:#?}");
}

#[test]
fn scripts_are_told_when_their_worker_stops() {
    let lines = Lines::default();
    tracing::subscriber::set_global_default(lines.clone()).expect("each test has a process of its own");
    let script = |name: &str| {
        format!(
            "process.on('beforeExit', () => {{ if (n++ < 1) setTimeout(() => console.log('{name} more'), 5); }});
             process.on('exit', (code) => console.log('{name} ends', code));
             let n = 0;
             export function onMetric() {{}}"
        )
    };
    let mut rig =
        Rig::new(&[("10-a.js", &script("a")), ("20-b.js", &script("b")), ("30-c.js", "export function onMetric() {}")]);
    rig.one("{}");
    rig.pool.stop();
    let lines = lines.0.lock().expect("not poisoned");
    let said = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    for text in ["a more", "a ends 0", "b more", "b ends 0"] {
        assert_eq!(said(text), 1, "{text}: {lines:#?}");
    }
}

#[test]
fn a_check_reports_every_handler_with_its_line() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in [
        ("10-good.js", "export function onMetric() {}"),
        ("20-syntax.js", "export function onMetric(m) {\n  return m.;\n}\n"),
        ("30-deep.js", &format!("// deep\nlet x = {}", "[".repeat(5_000))),
        ("40-throws.js", "export function onMetric() {}\nexport const match = { devices: nothing };"),
        ("50-import.js", "import './lib/bad.js';\nexport function onMetric() {}"),
        ("lib/bad.js", "\n\n  let let = 1;"),
    ] {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    }
    let reports = check(dir.path(), &command()).expect("checked");
    let names: Vec<_> = reports.iter().map(|report| &*report.name).collect();
    assert_eq!(names, ["10-good.js", "20-syntax.js", "30-deep.js", "40-throws.js", "50-import.js"]);
    assert_eq!(reports[0].error, None);
    let excerpt = |at: usize| reports[at].excerpt.clone().unwrap_or_default();
    assert!(excerpt(1).starts_with("2 |   return m.;\n"), "{reports:#?}");
    assert!(excerpt(2).starts_with("2 | ") && excerpt(2).ends_with('^'), "{reports:#?}");
    let error = |at: usize| reports[at].error.clone().expect("an error");
    assert!(error(3).message.contains("nothing") && &*error(3).file == "40-throws.js", "{reports:#?}");
    assert!(error(4).line == Some(3) && &*error(4).file == "lib/bad.js", "{reports:#?}");
    assert!(excerpt(4).starts_with("3 |   let let = 1;\n"), "{reports:#?}");

    let one = check(&dir.path().join("20-syntax.js"), &command()).expect("checked");
    assert_eq!(one.len(), 1);
    assert!(matches!(check(&dir.path().join("none.js"), &command()), Err(LoadError::Read(_))));
    let no_worker = WorkerCommand { program: "/bin/true".into(), args: Vec::new() };
    assert!(matches!(check(dir.path(), &no_worker), Err(LoadError::Worker(_))));
}
