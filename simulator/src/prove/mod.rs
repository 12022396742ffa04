//! The proof of durability: a node is loaded, killed and started again on what is left, round after round, and must have every
//! reading that it had acknowledged.
//!
//! `plan` draws how a round ends, `node` is the process, `load` sends the readings, `tally` judges what is there afterwards,
//! `house` is a directory in which rounds follow each other, `report` is what it came to. With power loss the directory lies on
//! a disk of `power_loss`. This module knows the node by its command line and its interfaces only.

mod args;
mod house;
mod load;
mod node;
mod plan;
mod progress;
mod report;
mod tally;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use tidegate_actors::crash_point::CrashPoint;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};

pub use self::{
    args::ProveArgs,
    report::{Problem, ProofReport, Spread},
};
use self::{house::House, plan::Plan, progress::Progress, report::ProofReport as Report};
use crate::dice::{Dice, Stream};

/// Every third round has a handler.
const HANDLER_EVERY: u32 = 3;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// The directory cannot be used.
    #[error("cannot use {dir}: {reason}", dir = dir.display())]
    Dir {
        /// The directory.
        dir: PathBuf,
        /// Why not.
        reason: String,
    },
    /// There is no disk to be had that forgets.
    #[error(
        "--power-loss needs FUSE, and {at} cannot be mounted: {reason}. It takes the device /dev/fuse and the right to mount: \
         load the module (modprobe fuse), run as root or install fusermount3; in a container give it --device /dev/fuse \
         and --cap-add SYS_ADMIN. Without --power-loss nothing of this is needed",
        at = at.display()
    )]
    NoFuse {
        /// Where it was tried.
        at: PathBuf,
        /// The system's reason.
        reason: String,
    },
    /// The system refuses processes, signals or files.
    #[error("the proof cannot go on: {0}")]
    Io(#[from] io::Error),
}

/// Runs the proof with this program, which must know `serve`. Ctrl-C and SIGTERM end it after the round, with a report.
///
/// # Errors
/// [`ProveError`], when there is nothing to report. That a promise was broken is in the report.
pub fn prove(program: &Path, args: &ProveArgs) -> Result<ProofReport, ProveError> {
    let seed = args.seed.unwrap_or_else(draw_seed);
    let (dir, temporary) = make_dir(args, seed)?;
    let report = Report { power_loss: args.power_loss, seed, asked: args.rounds, ..Report::default() };
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let proven = runtime.block_on(Proof { program, args, dir: &dir, report }.run());
    let keep = !temporary || proven.as_ref().is_ok_and(|report| !report.held);
    if !keep {
        // A directory that stays is a nuisance, and no reason to hide the report.
        let _ = fs::remove_dir_all(&dir);
    }
    let mut report = proven?;
    report.kept_in = keep.then_some(dir);
    Ok(report)
}

struct Proof<'a> {
    program: &'a Path,
    args: &'a ProveArgs,
    dir: &'a Path,
    report: Report,
}

impl Proof<'_> {
    async fn run(mut self) -> Result<Report, ProveError> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let begin = Instant::now();
        let mut dice = Dice::of(self.report.seed, 0, Stream::Faults);
        let mut houses = [self.house("plain", false)?, self.house("handler", true)?];
        let mut times = Vec::new();
        let mut progress = Progress::new(self.args.rounds);
        self.report.points = CrashPoint::ALL.iter().map(|point| (point.name(), 0)).collect();
        for round in 0..self.args.rounds {
            let house = &mut houses[usize::from(round % HANDLER_EVERY == HANDLER_EVERY - 1)];
            let plan = Plan::draw(round, &mut dice);
            house.round(round + 1, plan, &mut times, &mut self.report).await?;
            progress.tell(&self.report);
            let stop = async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            };
            // A signal that came during the round is found at once.
            if tokio::time::timeout(Duration::ZERO, stop).await.is_ok() {
                self.report.interrupted = true;
                break;
            }
            if houses.iter().any(|house| house.closed) {
                break;
            }
        }
        for house in houses.iter_mut().filter(|house| !house.closed) {
            house.check_out(self.report.rounds + 1, &mut times, &mut self.report).await?;
        }
        self.report.recovery_ms = Spread::of(&mut times);
        self.report.seconds = begin.elapsed().as_secs_f64();
        self.report.held = self.report.is_clean();
        if !self.report.held || self.args.dir.is_some() {
            houses.iter_mut().try_for_each(House::leave)?;
        }
        Ok(self.report)
    }

    fn house(&self, name: &str, handler: bool) -> Result<House, ProveError> {
        let house = House::new(self.program, self.dir.join(name), handler)?;
        if self.args.power_loss { self.with_disk(house, handler) } else { Ok(house) }
    }

    #[cfg(target_os = "linux")]
    fn with_disk(&self, mut house: House, handler: bool) -> Result<House, ProveError> {
        use crate::power_loss::{Disk, Mount};

        let at = house.disk_dir();
        let dice = |stream| Dice::of(self.report.seed, 1 + u64::from(handler), stream);
        let mount = Mount::new(Disk::new(dice(Stream::Faults)), &at, dice(Stream::Phase));
        house.use_disk(mount.map_err(|error| ProveError::NoFuse { at, reason: error.to_string() })?);
        Ok(house)
    }

    #[cfg(not(target_os = "linux"))]
    fn with_disk(&self, house: House, _: bool) -> Result<House, ProveError> {
        Err(ProveError::NoFuse { at: house.disk_dir(), reason: "it is done on Linux only".to_owned() })
    }
}

/// Makes the directory to work in; and is it one to be cleared away?
fn make_dir(args: &ProveArgs, seed: u64) -> Result<(PathBuf, bool), ProveError> {
    let name = || format!("tidegate-prove-{}-{seed}", std::process::id());
    let dir = args.dir.clone().unwrap_or_else(|| std::env::temp_dir().join(name()));
    let refused = |error: io::Error| ProveError::Dir { dir: dir.clone(), reason: error.to_string() };
    fs::create_dir_all(&dir).map_err(refused)?;
    if fs::read_dir(&dir).map_err(refused)?.next().is_some() {
        let reason = "it is not empty; name an empty or a new directory with --dir".to_owned();
        return Err(ProveError::Dir { dir, reason });
    }
    // The node works elsewhere, so its places must not depend on where we are.
    let dir = dir.canonicalize().map_err(refused)?;
    Ok((dir, args.dir.is_none()))
}

/// A seed that is short enough to be typed.
fn draw_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Dice::of(now.as_nanos() as u64, u64::from(std::process::id()), Stream::Faults).below(1_000_000_000)
}
