//! The worker process: reads frames on its standard input, runs the handlers, answers on the same socket.
//!
//! It opens no file, holds no other descriptor (but one to read its own size) and has no environment. Before it loads the first
//! handler it gives up the system calls that it does not need (`walls`). It trusts the node and nothing that a script does: what a
//! script can do to it (hang, eat memory, crash) ends this process, and the node starts another.

mod chain;
mod cpu;
mod engine;
mod event_loop;
mod fault;
mod flights;
mod frozen;
mod globals;
mod hooks;
mod host;
pub(crate) mod job;
pub(crate) mod json_in;
mod json_out;
#[cfg(test)]
mod json_tests;
mod live;
mod local;
mod memory;
mod modules;
mod plugin;
mod task;
mod task_file;
mod testing;
mod walls;
mod work;

use std::{io, os::fd::AsFd, os::unix::net::UnixStream, process::ExitCode, rc::Rc, thread, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Resource, Rlimit, setrlimit},
};

use self::{
    engine::{Engine, Sources},
    memory::Memory,
    work::Work,
};
use crate::{
    frame::{self, FromWorker, Start, ToWorker},
    modules::Tree,
};

/// The stack of the thread that runs scripts, in bytes: the engine's parser and some natives recurse. Only what is used is resident.
const STACK_BYTES: usize = 256 * 1024 * 1024;
/// Descriptors that a worker may have: its three standard ones, copies of its socket, and one to read its own size.
const DESCRIPTORS: u64 = 16;
/// Address space beyond the heap: thread-local allocator arenas and rounding.
const SLACK_BYTES: u64 = 16 * 1024 * 1024;

/// What the hidden subcommand `script-worker` does: serve the node at the other end of standard input until it closes.
#[must_use]
pub fn worker_main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The node reads this line and logs it.
            let _ = io::Write::write_all(&mut io::stderr(), format!("script worker: {error}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Nofile, DESCRIPTORS)?;
    let of_scripts = socket.try_clone()?;
    let scripts = thread::Builder::new().name("scripts".to_owned()).stack_size(STACK_BYTES).spawn(move || {
        let served = run_scripts(of_scripts);
        let failed = served.is_err();
        if let Err(error) = served {
            let _ = io::Write::write_all(&mut io::stderr(), format!("script worker: {error}\n").as_bytes());
        }
        std::process::exit(i32::from(failed));
    })?;
    // A script may hang: it is this thread that sees the node go.
    loop {
        let mut sockets = [PollFd::new(&socket, PollFlags::RDHUP)];
        match poll(&mut sockets, None) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => break,
            Err(error) => return Err(error.into()),
        }
    }
    if scripts.is_finished() {
        return Ok(());
    }
    std::process::exit(0)
}

fn limit(resource: Resource, value: u64) -> io::Result<()> {
    setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) }).map_err(io::Error::from)
}

/// The life of a worker: one `Start`, then batches.
fn run_scripts(mut socket: UnixStream) -> io::Result<()> {
    let (mut body, mut buffer) = (Vec::new(), Vec::new());
    if !frame::receive(&mut socket, &mut body)? {
        return Ok(());
    }
    let ToWorker::Start(Start { heap_bytes, async_wall_ms, virtual_time, scripts, files }) = frame::decode(&body)?
    else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the first frame must be the start"));
    };
    let sources = Sources {
        scripts: scripts.into_iter().map(|(name, wanted)| (name.to_owned(), wanted)).collect(),
        tree: Rc::new(Tree::new(
            files.into_iter().map(|(path, source)| (path.to_owned(), source.to_owned())).collect(),
        )),
    };
    // What the process maps by now (its binary, this thread's stack) and the heap on top of it.
    limit(Resource::As, memory::virtual_bytes() + heap_bytes + SLACK_BYTES)?;
    let memory = Rc::new(Memory::new(heap_bytes));
    if let Some(warning) = walls::raise()? {
        // Whoever runs the node should know; a worker without walls has all its limits still.
        let _ = io::Write::write_all(&mut io::stderr(), format!("{warning}\n").as_bytes());
    }
    let mut engine = Engine::new(sources, Rc::clone(&memory), heap_bytes, Duration::from_millis(async_wall_ms));
    engine.manner.virtual_time = virtual_time;
    let mut told = Ok(());
    let loaded = engine.load(|script| {
        if told.is_ok() {
            told = frame::send(&mut socket, &FromWorker::Loading(script), &mut buffer);
        }
    });
    told?;
    frame::send(&mut socket, &FromWorker::Loaded(loaded), &mut buffer)?;
    let mut work = Work::new(engine, memory, socket.try_clone()?);
    let served = work.serve();
    // The process ends here. After a panic of the engine it is better not to drop what is left of it.
    std::mem::forget(work);
    served
}
