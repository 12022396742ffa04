//! The data directory: made, locked, or refused with words that help.

use super::{fold, recovered};
use crate::{ids::Position, recovery::recover};

#[test]
fn a_new_directory_is_made_and_empty() {
    let dir = tempfile::tempdir().unwrap();
    let found = recovered(&dir.path().join("a/b"));
    assert_eq!((found.next, found.unfinished.len(), found.report.is_clean()), (Position(1), 0, true));
    assert!(dir.path().join("a/b/state").is_dir());
}

#[test]
fn a_second_node_is_told_who_has_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let first = recovered(dir.path());
    let refused = recover(dir.path(), &mut fold).unwrap_err().to_string();
    let expected = format!("data directory {} is in use by process {}", dir.path().display(), std::process::id());
    assert!(refused.starts_with(&expected), "{refused}");
    drop(first);
    recovered(dir.path());
}

#[test]
fn a_path_that_is_no_directory_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let refused = recover(&file, &mut fold).unwrap_err().to_string();
    assert!(refused.contains("file: it is not a directory; choose another --data-dir"), "{refused}");
    let refused = recover(&file.join("below"), &mut fold).unwrap_err().to_string();
    assert!(refused.contains("file/below"), "{refused}");
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}
