//! `tidegate state backup` and `restore`: a binary export with a manifest, and a data directory made of it.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
    time::Instant,
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidegate_actors::{
    clock::{Clock, Millis, SystemClock},
    ids::Position,
    recovery::DataDir,
    snapshot::{self, Entries, Entry},
};
use tidegate_scripts::KeptSets;

use super::{
    WholeFile,
    args::{BackupArgs, Format, RestoreArgs},
    export, sync_dir,
};
use crate::{client::NodeClient, exit::Exit, output, script::kept_scripts};

const STATES: &str = "states.tgs";
const SCRIPTS: &str = "scripts.json";
const MANIFEST: &str = "manifest.json";
const FORMAT: u32 = 1;

/// What a backup says of itself. It is written last: without it there is no backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    tidegate_backup: u32,
    /// The tidegate that wrote it.
    version: String,
    time: Millis,
    file: String,
    position: u64,
    devices: u64,
    parked: u64,
    /// Pairs of the edge: sessions, retained messages. Backups of older versions have none.
    #[serde(default)]
    kept: u64,
    /// Readings up to the position whose handlers had not answered: they are not in it.
    unfinished: u64,
    bytes: u64,
    /// CRC-32C of the file.
    crc32c: String,
    /// The versions of the handlers. Backups of older versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scripts: Option<KeptScripts>,
}

/// The file with the versions of the handlers that the node kept, and which of them are switched off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeptScripts {
    file: String,
    sets: usize,
    bytes: u64,
    crc32c: String,
}

pub(super) fn backup(args: &BackupArgs) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let dir = &args.dir;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    if !is_empty(dir)? {
        bail!("{} is not empty: each backup has a directory of its own", dir.display());
    }
    let states = dir.join(STATES);
    let mut file = WholeFile::create(&states)?;
    let exported = export::from_node(&args.node, Format::Binary, args.rate, &mut file)?;
    file.finish()?;
    // Read back from the disk: what cannot be read is no backup.
    let Counted { position, devices, parked, kept } = count(&states)?;
    let (bytes, crc) = sum(&states)?;
    let scripts = backup_scripts(args)?;
    let sets = scripts.sets;
    let manifest = Manifest {
        tidegate_backup: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        time: SystemClock.now(),
        file: STATES.to_owned(),
        position: position.0,
        devices,
        parked,
        kept,
        unfinished: exported.unfinished,
        bytes,
        crc32c: format!("{crc:08x}"),
        scripts: Some(scripts),
    };
    let mut file = WholeFile::create(&dir.join(MANIFEST))?;
    io::Write::write_all(&mut file, format!("{:#}\n", serde_json::to_value(&manifest)?).as_bytes())?;
    file.finish()?;
    let seconds = started.elapsed().as_secs_f64();
    if args.json {
        output::write(&format!("{}\n", serde_json::to_value(&manifest)?))?;
    } else {
        output::write(&format!(
            "{devices} devices, {parked} parked readings and {kept} kept pairs at position {position}, {sets} versions of the handlers, {bytes} bytes in {seconds:.1} s: {}\n",
            dir.display()
        ))?;
    }
    Ok(Exit::Ok)
}

/// Writes what the node keeps of its handlers, and reads it back.
fn backup_scripts(args: &BackupArgs) -> anyhow::Result<KeptScripts> {
    let path = args.dir.join(SCRIPTS);
    let mut file = WholeFile::create(&path)?;
    let mut client = NodeClient::new(&args.node)?;
    let mut stream = client.stream("/state/scripts")?;
    while let Some(piece) = stream.next().context("the handlers' versions broke off")? {
        io::Write::write_all(&mut file, &piece).with_context(|| format!("cannot write {}", path.display()))?;
    }
    file.finish()?;
    let (bytes, crc) = sum(&path)?;
    let sets = read_scripts(&path)?.len();
    Ok(KeptScripts { file: SCRIPTS.to_owned(), sets, bytes, crc32c: format!("{crc:08x}") })
}

fn read_scripts(path: &Path) -> anyhow::Result<KeptSets> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} has no versions of handlers", path.display()))
}

pub(super) fn restore(args: &RestoreArgs) -> anyhow::Result<Exit> {
    let manifest = verify(&args.dir)?;
    let to = &args.data_dir;
    let cannot = || format!("cannot make the data directory {}", to.display());
    fs::create_dir_all(to).with_context(cannot)?;
    if !is_empty(to)? {
        bail!("{} is not empty: restore into a new directory", to.display());
    }
    let snapshots = DataDir::new(to).snapshots();
    fs::create_dir_all(&snapshots).with_context(cannot)?;
    let mut placed = WholeFile::create(&snapshots.join(snapshot::file_name(Position(manifest.position))))?;
    let mut states = File::open(args.dir.join(STATES)).with_context(cannot)?;
    io::copy(&mut states, &mut placed).with_context(cannot)?;
    placed.finish()?;
    let sets = manifest.scripts.as_ref().map_or(0, |scripts| scripts.sets);
    if manifest.scripts.is_some() {
        read_scripts(&args.dir.join(SCRIPTS))?.write(&kept_scripts(to)).with_context(cannot)?;
    }
    sync_dir(Some(to)).with_context(cannot)?;
    let Manifest { devices, parked, kept, position, .. } = manifest;
    if args.json {
        let summary = json!({
            "dataDir": to.display().to_string(), "position": position, "devices": devices, "parked": parked, "kept": kept,
            "sets": sets,
        });
        output::write(&format!("{summary}\n"))?;
    } else {
        output::write(&format!(
            "{devices} devices, {parked} parked readings and {kept} kept pairs at position {position}, {sets} versions of the handlers; start it with: tidegate serve --data-dir {}\n",
            to.display()
        ))?;
    }
    Ok(Exit::Ok)
}

/// Checks a backup from end to end.
fn verify(dir: &Path) -> anyhow::Result<Manifest> {
    let path = dir.join(MANIFEST);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("{} is no backup, or one that was not finished: it has no {MANIFEST}", dir.display())
        }
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let manifest: Manifest =
        serde_json::from_slice(&text).with_context(|| format!("{} is no manifest of a backup", path.display()))?;
    if manifest.tidegate_backup != FORMAT {
        bail!("the backup has format {}, this tidegate reads {FORMAT}", manifest.tidegate_backup);
    }
    let states = dir.join(STATES);
    check_sum(&states, manifest.bytes, &manifest.crc32c)?;
    if let Some(scripts) = &manifest.scripts {
        let path = dir.join(SCRIPTS);
        check_sum(&path, scripts.bytes, &scripts.crc32c)?;
        if read_scripts(&path)?.len() != scripts.sets {
            bail!("{} is not the file that the manifest describes", path.display());
        }
    }
    let said = Counted {
        position: Position(manifest.position),
        devices: manifest.devices,
        parked: manifest.parked,
        kept: manifest.kept,
    };
    if count(&states)? != said {
        bail!("{} is not the file that the manifest describes", states.display());
    }
    Ok(manifest)
}

fn check_sum(path: &Path, bytes: u64, crc32c: &str) -> anyhow::Result<()> {
    let (found, crc) = sum(path)?;
    if (found, format!("{crc:08x}").as_str()) != (bytes, crc32c) {
        bail!(
            "{} is damaged: it has {found} bytes and the sum {crc:08x}, the manifest says {bytes} and {crc32c}",
            path.display()
        );
    }
    Ok(())
}

/// What a snapshot holds.
#[derive(Debug, PartialEq, Eq)]
struct Counted {
    position: Position,
    devices: u64,
    parked: u64,
    kept: u64,
}

/// Reads a whole snapshot.
fn count(path: &Path) -> anyhow::Result<Counted> {
    let found = snapshot::at(path)?;
    let mut entries = Entries::open(&found)?;
    let mut counted = Counted { position: found.position, devices: 0, parked: 0, kept: 0 };
    while let Some(entry) = entries.next()? {
        match entry {
            Entry::State(_) => counted.devices += 1,
            Entry::Parked(_) => counted.parked += 1,
            Entry::Kept(..) => counted.kept += 1,
        }
    }
    Ok(counted)
}

/// Length and CRC-32C.
fn sum(path: &Path) -> anyhow::Result<(u64, u32)> {
    let read = || -> io::Result<(u64, u32)> {
        let (mut file, mut piece) = (File::open(path)?, vec![0; 256 * 1024]);
        let (mut bytes, mut crc) = (0, 0);
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                return Ok((bytes, crc));
            }
            bytes += read as u64;
            crc = crc32c::crc32c_append(crc, &piece[..read]);
        }
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

fn is_empty(dir: &Path) -> anyhow::Result<bool> {
    let mut entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    Ok(entries.next().is_none())
}
