//! The files that the node read, as a file system of which modules are resolved.

use std::{cell::RefCell, rc::Rc};

use hashbrown::{HashMap, HashSet};

use super::{ROOT, ResolveError, package::Package};

/// The manifests by folder, as far as they were asked for; `None`: it has none.
type Packages = HashMap<String, Option<Rc<Package>>>;

/// Files by path, and the folders that they are in.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    files: HashMap<String, String>,
    folders: HashSet<String>,
    packages: RefCell<Packages>,
}

impl Tree {
    pub(crate) fn new(files: HashMap<String, String>) -> Self {
        let mut folders = HashSet::from([String::new()]);
        for path in files.keys() {
            let mut folder = Self::folder_of(path);
            while folders.insert(folder.to_owned()) {
                folder = Self::folder_of(folder);
            }
        }
        Self { files, folders, packages: RefCell::default() }
    }

    /// The source of a file.
    pub(crate) fn source(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    pub(crate) fn is_file(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    pub(crate) fn is_folder(&self, path: &str) -> bool {
        self.folders.contains(path)
    }

    /// The folder of a path; that of the top is the top.
    pub(crate) fn folder_of(path: &str) -> &str {
        path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// A path below a folder.
    pub(crate) fn join(folder: &str, path: &str) -> String {
        if folder.is_empty() { path.to_owned() } else { format!("{folder}/{path}") }
    }

    /// Where a path leads from a folder, as scripts see both. `Err`: out of the handlers' directory, to this.
    pub(super) fn locate(folder: &str, path: &str) -> Result<String, String> {
        let top = ROOT.trim_start_matches('/');
        let mut parts = Vec::new();
        if !path.starts_with('/') {
            parts.push(top);
            parts.extend(folder.split('/').filter(|part| !part.is_empty()));
        }
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                part => parts.push(part),
            }
        }
        match parts.split_first() {
            Some((first, below)) if *first == top => Ok(below.join("/")),
            _ => Err(format!("/{}", parts.join("/"))),
        }
    }

    /// A folder's manifest.
    ///
    /// # Errors
    /// It is no JSON, or one of its fields is not what it must be.
    pub(super) fn package(&self, folder: &str) -> Result<Option<Rc<Package>>, ResolveError> {
        if let Some(package) = self.packages.borrow().get(folder) {
            return Ok(package.clone());
        }
        let source = self.source(&Self::join(folder, "package.json"));
        let package = source.map(|text| Package::read(folder, text).map(Rc::new)).transpose()?;
        self.packages.borrow_mut().insert(folder.to_owned(), package.clone());
        Ok(package)
    }

    /// The manifest that a file belongs to: the nearest above it, not beyond `node_modules`.
    ///
    /// # Errors
    /// As [`Tree::package`].
    pub(super) fn scope(&self, path: &str) -> Result<Option<Rc<Package>>, ResolveError> {
        let mut folder = Self::folder_of(path);
        loop {
            if folder == "node_modules" || folder.ends_with("/node_modules") {
                return Ok(None);
            }
            if let Some(package) = self.package(folder)? {
                return Ok(Some(package));
            }
            if folder.is_empty() {
                return Ok(None);
            }
            folder = Self::folder_of(folder);
        }
    }
}
