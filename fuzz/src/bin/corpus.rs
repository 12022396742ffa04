//! Unpacks the corpus for the fuzzers, and packs what they made of it: `corpus unpack DIR`, `corpus pack DIR`.
//! A folder of DIR is a target; a file in it is an entry.

use std::{
    env, fs,
    io::{self, Error},
    path::Path,
};

use tidegate_fuzz::pack::{pack, unpack};

fn main() -> io::Result<()> {
    let packs = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &arguments[..] {
        [verb, dir] if verb == "unpack" => unpack_all(&packs, Path::new(dir)),
        [verb, dir] if verb == "pack" => pack_all(Path::new(dir), &packs),
        _ => Err(Error::other("usage: corpus unpack DIR | corpus pack DIR")),
    }
}

fn unpack_all(packs: &Path, dir: &Path) -> io::Result<()> {
    for file in fs::read_dir(packs)? {
        let path = file?.path();
        let name = path.file_stem().ok_or_else(|| Error::other("a file without a name"))?;
        let folder = dir.join(name);
        fs::create_dir_all(&folder)?;
        let packed = fs::read(&path)?;
        let entries = unpack(&packed).ok_or_else(|| Error::other(format!("{} is no pack", path.display())))?;
        for (number, entry) in entries.into_iter().enumerate() {
            fs::write(folder.join(format!("{number:05}")), entry)?;
        }
    }
    Ok(())
}

fn pack_all(dir: &Path, packs: &Path) -> io::Result<()> {
    for folder in fs::read_dir(dir)? {
        let folder = folder?.path();
        let entries = fs::read_dir(&folder)?.map(|file| fs::read(file?.path())).collect::<io::Result<Vec<_>>>()?;
        let name = folder.file_name().ok_or_else(|| Error::other("a folder without a name"))?;
        fs::write(packs.join(name).with_extension("pack"), pack(entries))?;
    }
    Ok(())
}
