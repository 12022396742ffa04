//! `tidegate state import` and `migrate`: a source's records go to a node in batches, one after the other. A record that is
//! refused or takes too long goes to the file of errors, and the rest goes on.

use std::{
    fs::File,
    io::{BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    args::{ImportArgs, LoadArgs, MigrateArgs},
    line, migrate as other,
    pace::Pace,
    progress::Progress,
    resume::{Resume, beside},
    source::{self, Item, Source},
};
use crate::{
    client::{ClientError, NodeClient},
    exit::Exit,
    output,
};

/// Records of one request.
const BATCH: usize = 500;
/// Bytes at which a request is sent.
const BATCH_BYTES: usize = 1024 * 1024;
/// Records that a dry run shows, and errors that are told on stderr.
const SHOWN: usize = 5;
/// Records in a row that the node did not answer for before it is given up.
const GIVE_UP: u32 = 20;
/// Attempts when the connection breaks.
const ATTEMPTS: u32 = 3;
/// Wait before another attempt.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) fn import(args: &ImportArgs) -> anyhow::Result<Exit> {
    load("importing", std::slice::from_ref(&args.file), "import", source::export(&args.file)?, &args.load)
}

pub(super) fn migrate(args: &MigrateArgs) -> anyhow::Result<Exit> {
    let options = format!("migrate {:?}", args.from);
    load("migrating", &args.files, &options, other::source(args.from, &args.files)?, &args.load)
}

fn load(what: &'static str, files: &[PathBuf], options: &str, source: Source, args: &LoadArgs) -> anyhow::Result<Exit> {
    if args.dry_run {
        return dry_run(source, args);
    }
    let started = Instant::now();
    let resume = Resume::open(files, &format!("{options} {} {}", args.node, args.overwrite))?;
    let after = resume.done.records;
    if after > 0 {
        eprintln!("going on after record {after}");
    }
    let errors = args.errors.clone().unwrap_or_else(|| beside(&files[0], ".errors"));
    let mut loader = Loader {
        client: NodeClient::new(&args.node)?,
        args,
        pace: Pace::new(args.rate),
        progress: Progress::new(what, source.total),
        errors: ErrorFile { path: errors, file: None, bytes: resume.done.errors_bytes },
        resume,
        silent: 0,
    };
    loader.client.timeout(args.record_timeout);
    loader.progress.add(after);
    loader.run(source).with_context(|| {
        format!("stopped after {} records; the same command goes on from there", loader.resume.done.records)
    })?;
    let Loader { errors, resume, progress, .. } = loader;
    drop(progress);
    let (records, counts) = (resume.done.records, resume.done.counts);
    resume.finish();
    let seconds = started.elapsed().as_secs_f64();
    let failed_in = (counts.failed > 0).then(|| errors.path.display().to_string());
    if args.json {
        let summary = json!({
            "records": records, "imported": counts.imported, "unchanged": counts.unchanged, "older": counts.older,
            "failed": counts.failed, "resumedAfter": after, "errors": failed_in, "seconds": seconds, "dryRun": false,
        });
        output::write(&format!("{summary}\n"))?;
    } else {
        let failed = failed_in.map_or("0 failed".to_owned(), |path| format!("{} failed (see {path})", counts.failed));
        output::write(&format!(
            "{records} records: {} imported, {} unchanged, {} older than the node's, {failed}; {seconds:.1} s\n",
            counts.imported, counts.unchanged, counts.older
        ))?;
    }
    Ok(if counts.failed == 0 { Exit::Ok } else { Exit::Runtime })
}

/// Reads everything, and says what would be sent.
fn dry_run(source: Source, args: &LoadArgs) -> anyhow::Result<Exit> {
    let (mut good, mut failed) = (0_u64, 0_u64);
    let mut first: Vec<String> = Vec::new();
    for item in source.items {
        let Item { place, state, .. } = item?;
        match state {
            Ok(state) => {
                good += 1;
                if first.len() < SHOWN {
                    let mut text = Vec::new();
                    line::put_state(&mut text, &state);
                    first.push(String::from_utf8_lossy(&text).trim_end().to_owned());
                }
            }
            Err(reason) => {
                failed += 1;
                if failed <= SHOWN as u64 {
                    eprintln!("{place}: {reason}");
                }
            }
        }
    }
    if args.json {
        let first: Vec<Box<RawValue>> = first.into_iter().filter_map(|text| RawValue::from_string(text).ok()).collect();
        let summary =
            json!({ "records": good + failed, "good": good, "failed": failed, "dryRun": true, "first": first });
        output::write(&format!("{summary}\n"))?;
    } else {
        let shown: String = first.iter().map(|text| format!("{text}\n")).collect();
        output::write(&format!("{shown}{good} records would be sent, {failed} cannot be read; nothing was sent\n"))?;
    }
    Ok(if failed == 0 { Exit::Ok } else { Exit::Runtime })
}

/// The way of the records to the node.
struct Loader<'a> {
    client: NodeClient,
    args: &'a LoadArgs,
    pace: Pace,
    progress: Progress,
    errors: ErrorFile,
    resume: Resume,
    /// Records in a row that the node did not answer for.
    silent: u32,
}

/// A record on its way.
struct Pending {
    item: Item,
    line: Vec<u8>,
}

/// The node's answer.
#[derive(Deserialize)]
struct Results {
    results: Vec<ResultOf>,
}

#[derive(Deserialize)]
struct ResultOf {
    result: String,
    #[serde(default)]
    detail: String,
}

impl Loader<'_> {
    fn run(&mut self, source: Source) -> anyhow::Result<()> {
        let skip = self.resume.done.records;
        let most = self.args.rate.map_or(BATCH, |rate| BATCH.min(rate as usize).max(1));
        let (mut batch, mut bytes, mut read) = (Vec::new(), 0, 0_u64);
        for item in source.items {
            let item = item?;
            read += 1;
            if read <= skip {
                continue;
            }
            match &item.state {
                Err(reason) => {
                    let reason = reason.clone();
                    self.fail(&item, &reason)?;
                }
                Ok(state) => {
                    let mut text = Vec::new();
                    line::put_state(&mut text, state);
                    bytes += text.len();
                    batch.push(Pending { item, line: text });
                }
            }
            if batch.len() >= most || bytes >= BATCH_BYTES {
                self.send(std::mem::take(&mut batch))?;
                bytes = 0;
                self.done(read)?;
            }
        }
        self.send(batch)?;
        self.done(read.max(skip))
    }

    /// Everything up to this record is done with.
    fn done(&mut self, records: u64) -> anyhow::Result<()> {
        self.progress.add(records - self.resume.done.records);
        self.resume.done.records = records;
        self.resume.done.errors_bytes = self.errors.flush()?;
        self.resume.save()
    }

    fn send(&mut self, mut batch: Vec<Pending>) -> anyhow::Result<()> {
        self.pace.wait(u32::try_from(batch.len()).unwrap_or(u32::MAX));
        let deadline = Instant::now() + self.args.record_timeout;
        let mut broken = 0;
        while !batch.is_empty() {
            let late = Instant::now() >= deadline;
            match self.post(&batch) {
                Ok(results) => {
                    batch = self.settle(batch, results)?;
                    if !batch.is_empty() && late {
                        return self.give_up(&batch, "the node was at its limits all the time");
                    }
                }
                Err(error @ ClientError::Broken { .. }) => {
                    broken += 1;
                    if broken >= ATTEMPTS {
                        return Err(error.into());
                    }
                }
                // Which of them it is shows when they go one by one.
                Err(ClientError::Timeout { .. }) if batch.len() > 1 => return self.one_by_one(batch),
                Err(error @ ClientError::Timeout { .. }) => return self.give_up(&batch, &error.to_string()),
                Err(error @ ClientError::Refused(_)) if error.is_passing() && !late => {}
                Err(error @ ClientError::Refused(_)) if error.is_passing() => {
                    return self.give_up(&batch, &error.to_string());
                }
                Err(ClientError::Refused(_)) if batch.len() > 1 => return self.one_by_one(batch),
                Err(error @ ClientError::Refused(_)) => {
                    let reason = error.to_string();
                    return batch.iter().try_for_each(|pending| self.fail(&pending.item, &reason));
                }
                Err(error) => return Err(error.into()),
            }
            if !batch.is_empty() {
                std::thread::sleep(PAUSE);
            }
        }
        self.silent = 0;
        Ok(())
    }

    fn one_by_one(&mut self, batch: Vec<Pending>) -> anyhow::Result<()> {
        batch.into_iter().try_for_each(|pending| self.send(vec![pending]))
    }

    fn post(&mut self, batch: &[Pending]) -> Result<Vec<ResultOf>, ClientError> {
        let body: Vec<u8> = batch.iter().flat_map(|pending| &pending.line).copied().collect();
        let path = if self.args.overwrite { "/state/import?overwrite=true" } else { "/state/import" };
        let results = self.client.post(path, "application/x-ndjson", body.into())?.json::<Results>()?.results;
        if results.len() != batch.len() {
            let (sent, came) = (batch.len(), results.len());
            return Err(ClientError::Answer(format!("{sent} records were sent, {came} results came")));
        }
        Ok(results)
    }

    /// Counts what became of the records, and gives those that the node had no room for.
    fn settle(&mut self, batch: Vec<Pending>, results: Vec<ResultOf>) -> anyhow::Result<Vec<Pending>> {
        let mut again = Vec::new();
        for (pending, ResultOf { result, detail }) in batch.into_iter().zip(results) {
            let counts = &mut self.resume.done.counts;
            match result.as_str() {
                "imported" => counts.imported += 1,
                "unchanged" => counts.unchanged += 1,
                "older" => counts.older += 1,
                "overloaded" => again.push(pending),
                _ => self.fail(&pending.item, if detail.is_empty() { &result } else { &detail })?,
            }
        }
        Ok(again)
    }

    /// These records took too long. A node that answers for nothing any more is given up as a whole.
    fn give_up(&mut self, batch: &[Pending], reason: &str) -> anyhow::Result<()> {
        self.silent += u32::try_from(batch.len()).unwrap_or(u32::MAX);
        if self.silent >= GIVE_UP {
            bail!("{} records in a row failed: {reason}", self.silent);
        }
        batch.iter().try_for_each(|pending| self.fail(&pending.item, reason))
    }

    fn fail(&mut self, item: &Item, reason: &str) -> anyhow::Result<()> {
        self.resume.done.counts.failed += 1;
        if self.resume.done.counts.failed <= SHOWN as u64 {
            eprintln!("{}: {reason}", item.place);
        }
        self.errors.add(item, reason)
    }
}

/// Where refused records go; made with the first one.
struct ErrorFile {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    /// Length that is kept of an earlier run.
    bytes: u64,
}

impl ErrorFile {
    fn add(&mut self, item: &Item, reason: &str) -> anyhow::Result<()> {
        let what = |path: &Path| format!("cannot write {}", path.display());
        if self.file.is_none() {
            let options = File::options().write(true).create(true).truncate(false).open(&self.path);
            let mut file = options.with_context(|| what(&self.path))?;
            file.set_len(self.bytes).and_then(|()| file.seek(SeekFrom::End(0))).with_context(|| what(&self.path))?;
            self.file = Some(BufWriter::new(file));
        }
        let entry: Value = json!({
            "file": item.place.file.display().to_string(), "line": item.place.line, "column": item.place.column,
            "reason": reason, "text": item.text,
        });
        let text = format!("{entry}\n");
        if let Some(file) = &mut self.file {
            file.write_all(text.as_bytes()).with_context(|| what(&self.path))?;
            self.bytes += text.len() as u64;
        }
        Ok(())
    }

    /// Writes what waits, and gives the file's length.
    fn flush(&mut self) -> anyhow::Result<u64> {
        if let Some(file) = &mut self.file {
            file.flush().with_context(|| format!("cannot write {}", self.path.display()))?;
        }
        Ok(self.bytes)
    }
}
