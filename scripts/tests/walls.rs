//! What a worker may not do any more once it has handlers, and a worker on a machine that cannot wall it in.

mod common;

use std::{
    fs,
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Command, Stdio},
    thread,
};

use common::{PATIENCE, Rig, command, kept, parked};
use rustix::process::{Pid, Signal, kill_process};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
use tidegate_actors::script::{ParkReason, ScriptEngine, Verdict};

#[test]
fn every_worker_is_walled_in() {
    let rig = Rig::with(&[("a.js", "export function onMetric(m) { return m; }")], |config| config.workers = 2);
    rig.wait("the workers are up", |pool| pool.workers().iter().all(|worker| worker.pid != 0));
    for worker in rig.pool.workers() {
        let threads = fs::read_dir(format!("/proc/{}/task", worker.pid)).expect("its threads");
        let statuses: Vec<String> = threads
            .map(|thread| fs::read_to_string(thread.expect("a thread").path().join("status")).expect("its status"))
            .collect();
        assert_eq!(statuses.len(), 2, "{statuses:#?}");
        for status in statuses {
            for line in ["Seccomp:\t2", "NoNewPrivs:\t1"] {
                assert!(status.lines().any(|said| said == line), "{line}: {status}");
            }
        }
    }
}

#[test]
fn a_forbidden_call_is_told_by_name() {
    // The handler hangs, so that the kernel's signal can be sent by hand in the midst of its call.
    let source = "export function onMetric(m) { if (m.bad) /^(a+)+$/.test('a'.repeat(60) + 'b'); return m; }";
    let mut rig = Rig::with(&[("a.js", source)], |config| config.limits.call_wall = PATIENCE);
    let run = rig.run("d1", &[r#"{"bad":true}"#]);
    rig.submit(vec![run]);
    let mut former = 0;
    // A reading is tried once more after a death.
    for _ in 0..2 {
        rig.wait("a worker hangs in the handler", |pool| {
            let pid = pool.workers()[0].pid;
            pid != 0 && pid != former && cpu_ticks(pid) > HANGS_TICKS
        });
        former = rig.pool.workers()[0].pid;
        let process = i32::try_from(former).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(process, Signal::SYS).expect("sent");
    }
    assert_eq!(parked(&rig.outcome()), (ParkReason::Crashed, "the worker made a forbidden system call (a.js)"));
    assert_eq!(kept(&rig.one(r#"{"bad":false}"#))["bad"], false);
}

/// CPU time that no start of a worker takes, in hundredths of a second.
const HANGS_TICKS: u64 = 30;

/// The CPU time of a process; 0 if it is gone.
fn cpu_ticks(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // proc(5): fields 14 and 15; counted behind the name's bracket.
    let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
    fields.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

#[test]
fn whatever_a_handler_can_call_stays_within() {
    // Every function that can be reached is called and constructed once, with arguments that suit few.
    let source = r#"
        const modules = ["assert", "buffer", "console", "crypto", "dns", "events", "fs", "fs/promises", "module", "path", "perf_hooks",
          "process", "querystring", "string_decoder", "timers", "url", "util", "util/types", "zlib"];
        const loaded = Object.fromEntries(modules.map((name) => [name, require(name)]));
        // These end, wait for long or make much.
        const left = new Set(["exit", "abort", "kill", "reallyExit", "repeat", "padStart", "padEnd", "forEach", "eval"]);
        exports.match = { devices: ["all-*"] };
        exports.onMetric = (metric) => {
          const seen = new Set(), names = [];
          const attempt = (run) => {
            try {
              const result = run();
              if (typeof result?.then === "function" && result instanceof Promise) result.catch(() => {});
            } catch {}
          };
          const visit = (value, name, depth) => {
            if (value === null || (typeof value !== "object" && typeof value !== "function") || seen.has(value) || depth > 5) return;
            seen.add(value);
            for (const key of Reflect.ownKeys(value)) {
              let inner;
              try { inner = value[key]; } catch { continue; }
              if (typeof inner === "function" && !left.has(key) && !seen.has(inner)) names.push([`${name}.${String(key)}`, value, inner]);
              visit(inner, `${name}.${String(key)}`, depth + 1);
            }
          };
          visit({ ...loaded, console, crypto, performance, process, Date, Symbol, Math, JSON, Intl: globalThis.Intl }, "modules", 0);
          visit(Object.fromEntries(Object.getOwnPropertyNames(globalThis).map((name) => [name, globalThis[name]])), "global", 0);
          const part = names.filter((_, at) => at % metric.parts === metric.part);
          for (const [name, owner, call] of part) {
            attempt(() => call.call(owner));
            attempt(() => call.call(owner, "x", 1));
            attempt(() => new call());
          }
          return { called: part.length };
        };"#;
    const PARTS: u64 = 40;
    let mut rig = Rig::with(&[("a.cjs", source)], |config| {
        config.limits.call_wall = PATIENCE;
        config.limits.breaker_failures = u32::MAX;
    });
    let mut called = 0;
    for part in 0..PARTS {
        let outcome = rig.one_of("all-1", &format!(r#"{{"parts":{PARTS},"part":{part}}}"#));
        // What it breaks in its own context is not what is asked here.
        match &outcome.verdict {
            Verdict::Keep(json) => {
                let kept: serde_json::Value = serde_json::from_slice(json).expect("JSON");
                called += kept["called"].as_u64().expect("a count");
            }
            Verdict::Parked { message, .. } => assert!(!message.contains("system call"), "part {part}: {message}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(called > 300, "{called}");
    assert_eq!(rig.pool.workers()[0].restarts, 0);
}

#[test]
fn a_kernel_without_walls_is_warned_of_and_the_worker_goes_on() {
    let arch = std::env::consts::ARCH.try_into().expect("an architecture of the kernel's filters");
    // What a kernel without them says; a filter holds for the thread that sets it and whatever that starts.
    let no_seccomp = SeccompFilter::new(
        [(libc::SYS_seccomp, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
        arch,
    );
    let program: BpfProgram = no_seccomp.and_then(TryInto::try_into).expect("a filter");
    let (mut ours, theirs) = UnixStream::pair().expect("a socket pair");
    let mut child = thread::scope(|scope| {
        let started = scope.spawn(|| {
            apply_filter(&program).expect("set");
            Command::new(command().program)
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("a worker")
        });
        started.join().expect("started")
    });
    // A start frame by hand: the variant's number, then its fields.
    let source = "export function onMetric() {}";
    let start = (0_u32, 128_u64 << 20, 10_000_u64, false, vec![("a.js", true)], vec![("a.js", source)]);
    let body = bincode::encode_to_vec(start, bincode::config::standard()).expect("a frame");
    ours.write_all(&u32::try_from(body.len()).expect("short").to_le_bytes()).expect("written");
    ours.write_all(&body).expect("written");
    // It loads its handler, and ends in good order.
    ours.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    ours.read_exact(&mut [0; 6]).expect("loading");
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("its status");
    assert!(status.lines().any(|line| line == "Seccomp_filters:\t1"), "only this test's own filter: {status}");
    drop(ours);
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("read");
    assert!(child.wait().expect("waitable").success(), "{said}");
    assert!(said.starts_with("script worker: the kernel does not limit its system calls (seccomp): "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}
