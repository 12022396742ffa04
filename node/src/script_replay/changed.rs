//! The changed handlers of a replay: another directory, or a copy of the handlers' with one file in the place of another.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, bail};

/// Places that are named when a file could stand in each of them.
const NAMED: usize = 8;
/// Folders within folders; deeper ones are not read as handlers either.
const MOST_FOLDERS: usize = tidegate_actors::limits::SCRIPT_FOLDER_DEPTH + 1;

/// The changed handlers.
pub(super) enum Changed {
    /// A copy, and what is changed in it: a path below it.
    Copy(tempfile::TempDir, PathBuf),
    Other(PathBuf),
}

impl Changed {
    /// `with`: a directory, or a file; `place`: where that file belongs below the handlers' directory, if it does not show.
    ///
    /// # Errors
    /// It does not show, or something cannot be read.
    pub(super) fn of(handlers: &Path, with: &Path, place: Option<&Path>) -> anyhow::Result<Self> {
        if with.is_dir() {
            if place.is_some() {
                bail!("--as tells the place of a file, and {} is a directory", with.display());
            }
            return Ok(Self::Other(std::path::absolute(with)?));
        }
        let whole = fs::canonicalize(with).with_context(|| format!("cannot read {}", with.display()))?;
        let mut files = Vec::new();
        if handlers.is_dir() {
            list(handlers, Path::new(""), &mut files).with_context(|| format!("cannot read {}", handlers.display()))?;
        }
        let own = fs::canonicalize(handlers).unwrap_or_else(|_| handlers.to_owned());
        let place = match place {
            Some(place) if is_below(place) => place.to_owned(),
            Some(place) => {
                bail!("--as {}: a path below the handlers' directory, like 30-plugin/index.js", place.display())
            }
            // One of the handlers themselves.
            None if whole.starts_with(&own) => whole.strip_prefix(&own).unwrap_or(&whole).to_owned(),
            None => place_of(&whole, &files)?,
        };
        let copy = tempfile::tempdir()?;
        for file in &files {
            put(&handlers.join(file), &copy.path().join(file))
                .with_context(|| format!("cannot copy {}", handlers.join(file).display()))?;
        }
        put(&whole, &copy.path().join(&place)).with_context(|| format!("cannot read {}", with.display()))?;
        Ok(Self::Copy(copy, place))
    }

    pub(super) fn dir(&self) -> &Path {
        match self {
            Self::Copy(dir, _) => dir.path(),
            Self::Other(dir) => dir,
        }
    }

    /// The one file that is changed.
    pub(super) fn place(&self) -> Option<&Path> {
        match self {
            Self::Copy(_, place) => Some(place),
            Self::Other(_) => None,
        }
    }
}

/// Where a file from elsewhere belongs: in the place of the one whose path ends as its own does, with the most folders in common. One
/// that resembles none is a further handler.
fn place_of(file: &Path, files: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let name = PathBuf::from(file.file_name().with_context(|| format!("{} is no file", file.display()))?);
    let own = files.iter().filter(|path| !path.iter().any(|folder| folder == "node_modules"));
    let rated: Vec<_> = own.map(|path| (common(path, file), path)).filter(|(rate, _)| *rate > 0).collect();
    let best = rated.iter().map(|(rate, _)| *rate).max().unwrap_or(0);
    let mut places: Vec<_> = rated.iter().filter(|(rate, _)| *rate == best).map(|(_, path)| *path).collect();
    // By its name alone it is a handler of one file first, and then a part of a plugin.
    if best <= 1 && files.contains(&name) {
        return Ok(name);
    }
    match places[..] {
        [] => Ok(name),
        [place] => Ok(place.clone()),
        _ => {
            places.truncate(NAMED);
            let places: Vec<_> = places.iter().map(|place| place.display().to_string()).collect();
            bail!(
                "{} could stand in the place of {}; say which with --as, such as --as {}",
                file.display(),
                places.join(" or of "),
                places[0]
            )
        }
    }
}

/// The parts that two paths have in common at their ends.
fn common(one: &Path, other: &Path) -> usize {
    one.iter().rev().zip(other.iter().rev()).take_while(|(one, other)| one == other).count()
}

/// A path of names only.
fn is_below(path: &Path) -> bool {
    path.file_name().is_some() && path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// The files below a directory, each by its path there.
fn list(dir: &Path, below: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(dir.join(below))?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, below) = (entry.path(), below.join(entry.file_name()));
        // As where handlers are read: what is hidden is none, and a link that leads back would never end.
        let is_hidden = entry.file_name().to_string_lossy().starts_with('.');
        let is_round = || fs::canonicalize(&path).is_ok_and(|target| dir.starts_with(target));
        if is_hidden || below.iter().count() > MOST_FOLDERS || is_round() {
            continue;
        }
        if path.is_dir() {
            list(dir, &below, files)?;
        } else if path.is_file() {
            files.push(below);
        }
    }
    Ok(())
}

fn put(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(Path::new("")))?;
    fs::copy(from, to).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_finds_its_place() {
        let files: Vec<PathBuf> = [
            "10-a.js",
            "30-one/index.js",
            "30-one/package.json",
            "30-one/lib/unit.js",
            "30-one/node_modules/x/10-b.js",
            "40-two/index.js",
            "40-two/package.json",
            "lib/10-a.js",
        ]
        .map(PathBuf::from)
        .into();
        let place = |file: &str| place_of(Path::new(file), &files).map(|place| place.display().to_string());
        for (file, expected) in [
            ("/new/10-a.js", "10-a.js"),
            ("/new/lib/10-a.js", "lib/10-a.js"),
            ("/new/unit.js", "30-one/lib/unit.js"),
            ("/new/40-two/index.js", "40-two/index.js"),
            ("/new/30-one/package.json", "30-one/package.json"),
            // Not in the place of a package's file, and so a new handler.
            ("/new/10-b.js", "10-b.js"),
            ("/new/99-new.js", "99-new.js"),
        ] {
            assert_eq!(place(file).expect("a place"), expected, "{file}");
        }
        let error = place("/new/index.js").expect_err("two plugins have one").to_string();
        assert_eq!(
            error,
            "/new/index.js could stand in the place of 30-one/index.js or of 40-two/index.js; say which with --as, such as --as 30-one/index.js"
        );
    }

    #[test]
    fn a_place_is_below_the_handlers() {
        for (path, expected) in
            [("a.js", true), ("a/b.js", true), ("", false), ("../a.js", false), ("/a.js", false), ("a/../b.js", false)]
        {
            assert_eq!(is_below(Path::new(path)), expected, "{path}");
        }
    }
}
