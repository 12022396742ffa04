//! A set of handlers: the files of one directory at one time, as they were read and loaded. It never changes; a reload makes another.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::{config::ScriptLimits, load::LoadedScript, logs::Logs, scripts::Scripts, source::SourceSet, stats::Counts};

/// A set that can be run.
pub(crate) struct Set {
    /// Counts the sets of this node, from 1.
    pub(crate) generation: u64,
    /// What its routes are known by: differs from [`Set::generation`], because routes also change while a canary runs.
    pub(crate) routes: u64,
    /// Names its files.
    pub(crate) digest: String,
    pub(crate) sources: Arc<SourceSet>,
    /// By handler: not to be loaded.
    pub(crate) skip: Vec<bool>,
    pub(crate) scripts: Arc<Scripts>,
    pub(crate) logs: Logs,
}

impl Set {
    pub(crate) fn new(
        generation: u64,
        routes: u64,
        sources: SourceSet,
        loaded: Vec<LoadedScript>,
        limits: &ScriptLimits,
        counts: impl Fn(&str) -> Option<Arc<Counts>>,
    ) -> Self {
        Self {
            generation,
            routes,
            digest: digest(&sources),
            skip: loaded.iter().map(|(_, result)| result.is_err()).collect(),
            logs: Logs::new(sources.handlers.len()),
            scripts: Arc::new(Scripts::new(loaded, limits, counts)),
            sources: Arc::new(sources),
        }
    }

    /// Is there a script that runs?
    pub(crate) fn runs(&self) -> bool {
        self.skip.contains(&false)
    }
}

/// Names the files of a set: the same files, the same name.
pub(crate) fn digest(sources: &SourceSet) -> String {
    let mut hash = Sha256::new();
    for (path, source) in &sources.files {
        for text in [path, source] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        }
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
