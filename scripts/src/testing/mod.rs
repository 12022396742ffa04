//! `tidegate script test`: the tests beside the handlers, without a node. Each file has a worker process of its own; what it sends goes
//! through the handlers in another one, by the rules of the node (`house`). What a test does to its worker costs that test: the next
//! one goes on in a new worker.

mod house;
mod report;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tidegate_actors::limits;

use self::house::House;
pub use self::report::{TestFailure, TestState, TestedFile, TestedTest};
use crate::{
    config::{ScriptLimits, WorkerCommand},
    frame::{FromWorker, TestFile, ToWorker},
    load::LoadError,
    process::{Failure, Process, broken},
    source::SourceSet,
};

/// What the clock of a file of tests shows at first: 2026-01-01T00:00:00Z.
const BEGIN: i64 = 1_767_225_600_000;

/// Which tests to run.
#[derive(Debug)]
pub struct TestPlan<'a> {
    /// Files of tests, and directories of handlers with all tests in them.
    pub paths: &'a [PathBuf],
    /// The handlers' directory of the files; `None`: the folder that each is in.
    pub handlers: Option<&'a Path>,
    /// Only tests whose name (`suite > test`) has this in it.
    pub filter: &'a str,
}

/// Runs tests; `told` of each file when it is through. `false` from it ends the run.
///
/// # Errors
/// [`LoadError`]: there is nothing to read, or no worker can be started. A test that fails is none.
pub fn run_tests(
    plan: &TestPlan<'_>,
    command: &WorkerCommand,
    mut told: impl FnMut(TestedFile) -> bool,
) -> Result<(), LoadError> {
    for (dir, file) in places(plan).map_err(LoadError::Read)? {
        let sources = Arc::new(SourceSet::read_with_tests(&dir).map_err(LoadError::Read)?);
        let files: Vec<&str> = match &file {
            Some(file) => vec![file.as_str()],
            None => sources.tests().collect(),
        };
        for path in files {
            let mut runner = Runner { sources: &sources, command, filter: plan.filter, limits: virtual_limits() };
            if !told(runner.file(path)?) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Each path as a handlers' directory, and the one file in it, if it is one.
fn places(plan: &TestPlan<'_>) -> io::Result<Vec<(PathBuf, Option<String>)>> {
    let mut places = Vec::new();
    for path in plan.paths {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let whole = fs::canonicalize(path).map_err(named)?;
        if whole.is_dir() {
            places.push((path.clone(), None));
            continue;
        }
        let dir = match plan.handlers {
            Some(dir) => dir.to_owned(),
            None => whole.parent().unwrap_or(Path::new("/")).to_owned(),
        };
        let root = fs::canonicalize(&dir)?;
        let Some(below) = whole.strip_prefix(&root).ok().and_then(Path::to_str) else {
            let message = format!("it is not below the handlers' directory {}", dir.display());
            return Err(named(io::Error::other(message)));
        };
        if ![".test.js", ".test.mjs", ".test.cjs"].iter().any(|end| below.ends_with(end)) {
            return Err(named(io::Error::other(
                "not a file of tests: its name ends in .test.js, .test.mjs or .test.cjs",
            )));
        }
        places.push((dir, Some(below.to_owned())));
    }
    Ok(places)
}

fn virtual_limits() -> ScriptLimits {
    ScriptLimits { virtual_time: true, ..ScriptLimits::default() }
}

/// Runs the files of one handlers' directory.
struct Runner<'a> {
    sources: &'a Arc<SourceSet>,
    command: &'a WorkerCommand,
    filter: &'a str,
    limits: ScriptLimits,
}

/// How a worker with a file of tests ended.
enum Ended {
    /// All tests are through, or a test has cost the context.
    Done,
    /// It died, at this test if at any.
    Died(Option<u32>, Failure),
    /// The file does not load.
    Broken(TestFailure),
}

impl Runner<'_> {
    /// Runs one file.
    ///
    /// # Errors
    /// No worker can be started.
    fn file(&mut self, path: &str) -> Result<TestedFile, LoadError> {
        let started = Instant::now();
        let mut house = House::new(self.sources, self.command, &self.limits)?;
        let mut tested = TestedFile::new(path);
        let mut names = Vec::new();
        loop {
            house.forget_devices();
            let from = tested.tests.len();
            let mut process = Process::spawn(self.command).map_err(|error| LoadError::Worker(error.to_string()))?;
            let skip = vec![true; self.sources.handlers.len()];
            if let Err((_, failure)) = process.load(self.sources, &skip, &self.limits) {
                return Err(LoadError::Worker(process.bury(&failure).message));
            }
            match self.talk(&mut process, &mut house, &mut tested, &mut names) {
                Ended::Done => drop(process.retire(Duration::from_secs(1))),
                Ended::Broken(failure) => {
                    process.retire(Duration::from_secs(1));
                    tested.error = Some(failure);
                }
                Ended::Died(test, failure) => {
                    let message = why(&failure, process.bury(&failure), &self.limits);
                    match test.and_then(|number| names.get(number as usize)) {
                        Some(name) => tested.tests.push(TestedTest::failed(name, TestFailure::new(message))),
                        None => tested.error = Some(TestFailure::new(format!("it does not load: {message}"))),
                    }
                }
            }
            let is_through = tested.tests.len() >= names.len() || tested.tests.len() == from;
            if tested.error.is_some() || is_through {
                break;
            }
        }
        house.close();
        tested.ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(tested)
    }

    /// Gives a worker the file and hears what comes of it.
    fn talk(
        &self,
        process: &mut Process,
        house: &mut House<'_>,
        tested: &mut TestedFile,
        names: &mut Vec<Vec<String>>,
    ) -> Ended {
        let mut at = None;
        match self.hear(process, house, tested, names, &mut at) {
            Ok(ended) => ended,
            Err(failure) => Ended::Died(at, failure),
        }
    }

    fn hear(
        &self,
        process: &mut Process,
        house: &mut House<'_>,
        tested: &mut TestedFile,
        names: &mut Vec<Vec<String>>,
        at: &mut Option<u32>,
    ) -> Result<Ended, Failure> {
        let from = u32::try_from(tested.tests.len()).unwrap_or(u32::MAX);
        let file = TestFile { path: &tested.file, filter: self.filter, from, now: BEGIN };
        process.tell(&ToWorker::Test(file))?;
        let mut patience = self.limits.load_wall;
        let mut began = Instant::now();
        loop {
            match process.hear(patience)? {
                FromWorker::Tests(Ok(found)) => {
                    *names = serde_json::from_str(&found).map_err(|_| broken("names that are none"))?;
                    patience = limits::SCRIPT_TEST_WALL;
                }
                FromWorker::Tests(Err(fault)) => return Ok(Ended::Broken(TestFailure::of(fault, self.sources))),
                FromWorker::Testing(number) => {
                    *at = Some(number);
                    began = Instant::now();
                }
                FromWorker::TestAsks(question) => {
                    let answer = house.answer(&question);
                    process.tell(&ToWorker::TestAnswer(&answer))?;
                }
                FromWorker::Tested(report, logs) => {
                    let Some(name) = at.take().and_then(|number| names.get(number as usize)) else {
                        tested.take_logs(&logs);
                        continue;
                    };
                    let mut test = match report {
                        Ok(report) => TestedTest::read(name, &report, self.sources),
                        Err(fault) => TestedTest::failed(name, TestFailure::of(fault, self.sources)),
                    };
                    test.take_logs(&logs);
                    test.ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                    tested.tests.push(test);
                }
                FromWorker::Done { .. } => return Ok(Ended::Done),
                _ => return Err(broken("an answer out of place")),
            }
        }
    }
}

/// What a death says of the test that the worker died of.
fn why(failure: &Failure, death: crate::process::Death, limits: &ScriptLimits) -> String {
    match failure {
        Failure::Silent => {
            let wall = limits::SCRIPT_TEST_WALL.as_millis();
            format!("it ran longer than {wall} ms (limit script_test_wall) and was killed")
        }
        _ if death.memory => {
            format!(
                "it needed more memory than {} MB (limit script_heap_bytes, setting scripts.heap_bytes)",
                limits.heap_bytes / (1024 * 1024)
            )
        }
        _ => death.message,
    }
}
