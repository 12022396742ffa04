//! `tidegate state export`: a node's states into a file, which has its name only once it is whole.

use std::{
    io::{self, BufWriter, IsTerminal, Write},
    ops::ControlFlow,
    path::Path,
    time::Instant,
};

use anyhow::{Context, bail};
use serde_json::json;
use tidegate_actors::{
    clock::{Clock, SystemClock},
    fold::fold_state,
    ids::Position,
    recovery::{self, RecoveryError},
    snapshot,
    store::StateStore,
};

use super::{
    WholeFile,
    args::{ExportArgs, Format},
    line::{self, Head},
    pace::Pace,
    progress::Progress,
};
use crate::{
    client::{NodeClient, Stream},
    exit::Exit,
    output,
};

/// What was exported.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exported {
    pub(super) position: Position,
    pub(super) devices: u64,
    pub(super) unfinished: u64,
    pub(super) bytes: u64,
}

pub(super) fn run(args: &ExportArgs) -> anyhow::Result<Exit> {
    let to_stdout = args.output == Path::new("-");
    if to_stdout && args.json {
        bail!("--json answers with a summary on standard output: name a file for the states with --output");
    }
    if to_stdout && args.format == Format::Binary && io::stdout().is_terminal() {
        bail!("a binary export is not for a terminal: name a file with --output");
    }
    let started = Instant::now();
    let exported = if to_stdout {
        write(args, &mut BufWriter::new(io::stdout().lock()))?
    } else {
        let mut file = WholeFile::create(&args.output)?;
        let exported = write(args, &mut file)?;
        file.finish()?;
        exported
    };
    let Exported { position, devices, unfinished, bytes } = exported;
    let seconds = started.elapsed().as_secs_f64();
    if args.json {
        let summary = json!({
            "file": args.output.display().to_string(), "format": args.format.name(), "position": position,
            "devices": devices, "unfinished": unfinished, "bytes": bytes, "seconds": seconds,
        });
        output::write(&format!("{summary}\n"))?;
    } else {
        eprintln!("exported {devices} devices at position {position}, {bytes} bytes in {seconds:.1} s");
    }
    Ok(Exit::Ok)
}

fn write(args: &ExportArgs, out: &mut dyn Write) -> anyhow::Result<Exported> {
    match &args.data_dir {
        Some(dir) => from_directory(dir, args, out),
        None => from_node(&args.node, args.format, args.rate, out),
    }
}

/// The states of a running node.
pub(super) fn from_node(
    node: &str,
    format: Format,
    rate: Option<u32>,
    out: &mut dyn Write,
) -> anyhow::Result<Exported> {
    let mut client = NodeClient::new(node)?;
    let rate = rate.map(|rate| format!("&rate={rate}")).unwrap_or_default();
    let mut stream = client.stream(&format!("/state/export?format={}{rate}", format.name()))?;
    let number = |stream: &Stream<'_>, name| stream.header(name).and_then(|text| text.parse().ok()).unwrap_or_default();
    let mut exported = Exported {
        position: Position(number(&stream, "tidegate-position")),
        devices: number(&stream, "tidegate-devices"),
        unfinished: number(&stream, "tidegate-unfinished"),
        bytes: 0,
    };
    let mut progress = Progress::new("exporting", Some(exported.devices));
    let mut tail = Vec::new();
    while let Some(piece) = stream.next().context("the export broke off")? {
        out.write_all(&piece).context("cannot write the export")?;
        exported.bytes += piece.len() as u64;
        if format == Format::Ndjson {
            progress.add(memchr::memchr_iter(b'\n', &piece).count() as u64);
            keep_last_line(&mut tail, &piece);
        }
    }
    out.flush().context("cannot write the export")?;
    if format == Format::Ndjson && line::parse(&tail) != Ok(line::Line::End(exported.devices)) {
        bail!("the export broke off: its last line is not its end");
    }
    Ok(exported)
}

/// Keeps what may be the last line, whole or not.
fn keep_last_line(tail: &mut Vec<u8>, piece: &[u8]) {
    let body = piece.strip_suffix(b"\n").unwrap_or(piece);
    if let Some(at) = memchr::memrchr(b'\n', body) {
        tail.clear();
        tail.extend_from_slice(&piece[at + 1..]);
    } else {
        if tail.last() == Some(&b'\n') {
            tail.clear();
        }
        tail.extend_from_slice(piece);
    }
}

/// The states of a node that is stopped: what its next start would find.
fn from_directory(dir: &Path, args: &ExportArgs, out: &mut dyn Write) -> anyhow::Result<Exported> {
    if !dir.is_dir() {
        bail!("there is no data directory {}", dir.display());
    }
    let found = match recovery::recover(dir, &mut fold_state) {
        Err(error @ RecoveryError::InUse { .. }) => {
            bail!("{error}; or export it while it runs, with --node {}", crate::client::DEFAULT_NODE)
        }
        recovered => recovered?,
    };
    let head = Head {
        position: Position(found.next.0 - 1),
        devices: found.store.count(),
        unfinished: found.unfinished.len() as u64,
        time: SystemClock.now(),
    };
    let (mut pace, mut progress) = (Pace::new(args.rate), Progress::new("exporting", Some(head.devices)));
    let mut out = Counted { out, bytes: 0 };
    match args.format {
        Format::Ndjson => {
            let (mut text, mut written) = (Vec::new(), Ok(()));
            line::put_head(&mut text, &head);
            found.store.for_each(&mut |state| {
                pace.wait(1);
                line::put_state(&mut text, &state);
                written = out.write_all(&text);
                text.clear();
                progress.add(1);
                if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            line::put_end(&mut text, head.devices);
            written.and_then(|()| out.write_all(&text)).context("cannot write the export")?;
        }
        Format::Binary => {
            let mut writer = snapshot::Writer::begin(&mut out, head.position)?;
            let mut written = Ok(());
            found.store.for_each(&mut |state| {
                pace.wait(1);
                written = writer.state(&state);
                progress.add(1);
                if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            written.context("cannot write the export")?;
            for parked in found.store.parked(None, usize::MAX)?.iter().rev() {
                writer.parked(parked).context("cannot write the export")?;
            }
            let mut written = Ok(());
            found.store.kept(b"", &mut |key, value| {
                pace.wait(1);
                written = writer.kept(key, value);
                if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            written.context("cannot write the export")?;
            writer.end().context("cannot write the export")?;
        }
    }
    out.flush().context("cannot write the export")?;
    Ok(Exported { position: head.position, devices: head.devices, unfinished: head.unfinished, bytes: out.bytes })
}

/// Counts what goes through.
struct Counted<'a> {
    out: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_found_however_the_pieces_fall() {
        let text = b"one\ntwo\nthe end\n";
        for size in 1..=text.len() {
            let mut tail = Vec::new();
            text.chunks(size).for_each(|piece| keep_last_line(&mut tail, piece));
            assert_eq!(tail, b"the end\n", "pieces of {size}");
        }
    }
}
