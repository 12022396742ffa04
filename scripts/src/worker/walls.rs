//! The walls around a worker: the system calls that it may make once handlers are about to load. Any other one ends the process
//! (`SIGSYS`), and the node says so.
//!
//! They are the second line. A handler cannot ask for a system call; whoever finds a hole in the engine could, and is left with a
//! process that opens nothing, connects to nothing, starts nothing, and maps no page that can be executed.

use std::{collections::BTreeMap, io};

use boa_engine::{Context, Source};
use rustix::time::{ClockId, clock_gettime};
use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

/// Allowed with any arguments, by what needs them.
const ALLOWED: &[libc::c_long] = &[
    // Its socket, its standard error, and the descriptor that tells its own size.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_ppoll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_close,
    // The allocator. Mappings are looked at below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Clocks and waiting: those that the vDSO does not answer, and all where there is none.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    // After it was stopped and goes on, the kernel takes up a wait by this.
    libc::SYS_restart_syscall,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    // Hash tables are seeded by it.
    libc::SYS_getrandom,
    // Signals: a stack that overflows and an abort are told on standard error before the process ends.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_getpid,
    libc::SYS_gettid,
    // The ends of a thread and of the process.
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Sets the walls, for all threads of this process and for good. A warning, if the kernel cannot: then there are none.
///
/// # Errors
/// The kernel could and did not: a worker that should be walled in must not go on without.
pub(super) fn raise() -> io::Result<Option<String>> {
    let program = match TargetArch::try_from(std::env::consts::ARCH) {
        Ok(arch) => program(arch).map_err(io::Error::other)?,
        Err(error) => return Ok(Some(without(&error))),
    };
    ask_ahead();
    match apply_filter_all_threads(&program) {
        Ok(()) => Ok(None),
        // Built without seccomp, or before its kind of call; or whatever this runs in forbids it.
        Err(Error::Prctl(error) | Error::Seccomp(error))
            if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL | libc::EPERM)) =>
        {
            Ok(Some(without(&error)))
        }
        Err(error) => Err(io::Error::other(error)),
    }
}

/// What is asked of the kernel at its first use and known from then on: behind the walls it could not be asked any more.
fn ask_ahead() {
    // Where it keeps its clocks.
    let _ = clock_gettime(ClockId::Monotonic);
    // How many processors there are: the engine's table of symbols is made for so many.
    let _ = Context::default().eval(Source::from_bytes("Symbol.for('')"));
}

fn without(error: &dyn std::error::Error) -> String {
    format!("script worker: the kernel does not limit its system calls (seccomp): {error}; it goes on without")
}

fn program(arch: TargetArch) -> Result<BpfProgram, seccompiler::BackendError> {
    let executable = libc::PROT_EXEC.unsigned_abs().into();
    let is = |argument, value| condition(argument, SeccompCmpOp::Eq, value);
    let lacks = |argument, bits| condition(argument, SeccompCmpOp::MaskedEq(bits), 0);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    // No page is written and then executed.
    rules.insert(libc::SYS_mmap, vec![lacks(2, executable)?]);
    rules.insert(libc::SYS_mprotect, vec![lacks(2, executable)?]);
    // A copy of its socket, for the tests that ask the node.
    rules.insert(libc::SYS_fcntl, vec![is(1, libc::F_DUPFD_CLOEXEC.unsigned_abs().into())?]);
    // An abort: a signal to itself and to nobody else.
    rules.insert(libc::SYS_tgkill, vec![is(0, std::process::id().into())?]);
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)?.try_into()
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?])
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        net::UdpSocket,
        os::unix::process::{CommandExt, ExitStatusExt},
        process::Command,
        thread,
    };

    use rustix::process::{Signal, getppid, kill_process};

    use super::*;

    /// Says to the copy of this test that runs behind the walls what to do there.
    const TRY: &str = "TIDEGATE_TEST_BEHIND_WALLS";

    fn attempt(what: &str) {
        match what {
            "nothing" => {
                // What a worker does all day.
                let mut much = vec![1_u8; 64 << 20];
                much.truncate(1);
                much.shrink_to_fit();
                thread::sleep(std::time::Duration::from_millis(1));
            }
            "open" => drop(File::open("/dev/null")),
            "socket" => drop(UdpSocket::bind("127.0.0.1:0")),
            "execve" => drop(Command::new("/bin/true").exec()),
            "fork" => drop(Command::new("/bin/true").spawn()),
            "thread" => drop(thread::Builder::new().spawn(|| {})),
            "kill" => drop(getppid().map(|parent| kill_process(parent, Signal::CONT))),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn who_leaves_the_walls_is_killed() {
        if let Ok(what) = std::env::var(TRY) {
            let warning = raise().expect("the walls stand");
            assert_eq!(warning, None);
            attempt(&what);
            std::process::exit(7);
        }
        for what in ["nothing", "open", "socket", "execve", "fork", "thread", "kill"] {
            let program = std::env::current_exe().expect("this test");
            let name = "worker::walls::tests::who_leaves_the_walls_is_killed";
            let ended =
                Command::new(program).args(["--exact", name, "--nocapture"]).env(TRY, what).output().expect("it runs");
            let expected = if what == "nothing" { (Some(7), None) } else { (None, Some(Signal::SYS.as_raw())) };
            assert_eq!((ended.status.code(), ended.status.signal()), expected, "{what}: {ended:?}");
        }
    }

    /// What the program says of a call, by the few instructions that it has (`linux/bpf_common.h`).
    fn allows(program: &BpfProgram, arch: u32, call: i64, arguments: [u64; 6]) -> bool {
        let words = |value: u64| [value as u32, (value >> 32) as u32];
        // `struct seccomp_data`: the call, the architecture, the place of the call, the arguments.
        let mut data = vec![u32::try_from(call).expect("a number"), arch, 0, 0];
        data.extend(arguments.into_iter().flat_map(words));
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let instruction = &program[at];
            at += 1;
            let k = instruction.k;
            let is_so = match instruction.code {
                0x20 => {
                    accumulator = data[k as usize / 4];
                    continue;
                }
                0x54 => {
                    accumulator &= k;
                    continue;
                }
                0x06 => return k == libc::SECCOMP_RET_ALLOW,
                0x05 => {
                    at += k as usize;
                    continue;
                }
                0x15 => accumulator == k,
                0x25 => accumulator > k,
                0x35 => accumulator >= k,
                other => panic!("an instruction {other:#x}"),
            };
            at += usize::from(if is_so { instruction.jt } else { instruction.jf });
        }
    }

    #[test]
    fn calls_are_told_apart_by_number_and_arguments() {
        const X86_64: u32 = 0xc000_003e;
        const AARCH64: u32 = 0xc000_00b7;
        let own = u64::from(std::process::id());
        let (read, exec) = (libc::PROT_READ as u64, libc::PROT_EXEC as u64);
        let with = |at: usize, value: u64| {
            let mut arguments = [0; 6];
            arguments[at] = value;
            arguments
        };
        let none = [0; 6];
        for (arch, audit, other) in [(TargetArch::x86_64, X86_64, AARCH64), (TargetArch::aarch64, AARCH64, X86_64)] {
            let program = program(arch).expect("it compiles");
            let check = |call, arguments, expected, what: &str| {
                assert_eq!(allows(&program, audit, call, arguments), expected, "{what} on {arch:?}");
                assert!(!allows(&program, other, call, arguments), "{what} by the calls of another architecture");
            };
            check(libc::SYS_write, none, true, "write");
            check(libc::SYS_mmap, with(2, read), true, "mmap");
            check(libc::SYS_mmap, with(2, read | exec), false, "mmap of code");
            check(libc::SYS_mprotect, with(2, read), true, "mprotect");
            check(libc::SYS_mprotect, with(2, exec), false, "mprotect of code");
            check(libc::SYS_fcntl, with(1, libc::F_DUPFD_CLOEXEC as u64), true, "a copy of a descriptor");
            check(libc::SYS_fcntl, with(1, libc::F_SETFL as u64), false, "fcntl");
            check(libc::SYS_tgkill, with(0, own), true, "a signal to itself");
            check(libc::SYS_tgkill, with(0, own + 1), false, "a signal to another");
            for (call, what) in [
                (libc::SYS_openat, "openat"),
                (libc::SYS_socket, "socket"),
                (libc::SYS_connect, "connect"),
                (libc::SYS_clone, "clone"),
                (libc::SYS_clone3, "clone3"),
                (libc::SYS_execve, "execve"),
                (libc::SYS_execveat, "execveat"),
                (libc::SYS_ptrace, "ptrace"),
                (libc::SYS_kill, "kill"),
                (libc::SYS_recvmsg, "recvmsg"),
                (libc::SYS_ioctl, "ioctl"),
                (libc::SYS_prctl, "prctl"),
                (libc::SYS_setrlimit, "setrlimit"),
                (libc::SYS_io_uring_setup, "io_uring_setup"),
                (libc::SYS_memfd_create, "memfd_create"),
                (libc::SYS_pkey_mprotect, "pkey_mprotect"),
            ] {
                check(call, none, false, what);
            }
        }
    }
}
