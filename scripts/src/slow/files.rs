//! `fs.promises`: a directory for each script, with a quota. Errors are those of Node.js.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read as _, Write as _},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    fs::{AtFlags, FileType, OFlags, renameat, statat, unlinkat},
    io::Errno,
};
use serde::Deserialize;
use serde_json::json;
use tidegate_actors::limits;

use super::{
    error::{Done, LIMIT, Reply, SlowError},
    sandbox::{Sandbox, Usage, names, open_file, parts, remove_all, usage_of},
};

/// The files of all scripts.
pub(super) struct Files {
    dir: Option<PathBuf>,
    bytes: u64,
    files: u64,
    /// What each script has; `None`: to be counted anew. Held by who changes it.
    usage: Mutex<HashMap<String, Arc<Mutex<Option<Usage>>>>>,
}

/// What is asked of a path.
#[derive(Debug, Deserialize)]
pub(super) struct FileCall {
    call: Call,
    path: String,
    /// Where it goes (`rename`).
    #[serde(default)]
    to: String,
    /// `w`, `wx`, `a`, `ax`.
    #[serde(default)]
    flag: String,
    #[serde(default)]
    recursive: bool,
    #[serde(default)]
    force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Call {
    ReadFile,
    Readdir,
    Stat,
    Access,
    WriteFile,
    Mkdir,
    Rmdir,
    Rm,
    Unlink,
    Rename,
}

impl Call {
    /// The name of the system's call in errors.
    fn name(self) -> &'static str {
        match self {
            Self::ReadFile | Self::WriteFile => "open",
            Self::Readdir => "scandir",
            Self::Stat => "stat",
            Self::Access => "access",
            Self::Mkdir => "mkdir",
            Self::Rmdir => "rmdir",
            Self::Rm => "rm",
            Self::Unlink => "unlink",
            Self::Rename => "rename",
        }
    }
}

/// Why a call failed.
enum Wrong {
    System(Errno),
    /// With what to say of it.
    Limit(Errno, String),
}

impl From<Errno> for Wrong {
    fn from(error: Errno) -> Self {
        Self::System(error)
    }
}

impl From<std::io::Error> for Wrong {
    fn from(error: std::io::Error) -> Self {
        Self::System(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

impl Files {
    pub(super) fn new(dir: Option<PathBuf>, bytes: u64, files: u64) -> Self {
        Self { dir, bytes, files, usage: Mutex::default() }
    }

    /// What only looks.
    pub(super) fn read(&self, script: &str, call: &FileCall) -> Done {
        let found = self.dir_of(script, call)?;
        let looked = match Sandbox::open(&found) {
            Ok(sandbox) => look(&sandbox, call),
            // It has written nothing yet.
            Err(Errno::NOENT) if call.call == Call::Readdir && parts(&call.path) == Ok(Vec::new()) => {
                Ok(Reply::about(json!([])))
            }
            Err(error) => Err(parts(&call.path).err().unwrap_or(error).into()),
        };
        looked.map_err(|wrong| error_of(wrong, call))
    }

    /// What changes something.
    pub(super) fn write(&self, script: &str, call: &FileCall, bytes: &[u8]) -> Done {
        let dir = self.dir_of(script, call)?;
        let known = {
            let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(usage.entry(script.to_owned()).or_default())
        };
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = make(&dir).map_err(Wrong::from).and_then(|()| {
            let sandbox = Sandbox::open(&dir)?;
            let before = match *known {
                Some(usage) => usage,
                None => sandbox.usage()?,
            };
            // Until it is known to have gone well.
            *known = None;
            *known = self.change(&sandbox, call, bytes, before)?;
            Ok(Reply::default())
        });
        changed.map_err(|wrong| error_of(wrong, call))
    }

    fn dir_of(&self, script: &str, call: &FileCall) -> Result<PathBuf, SlowError> {
        let dir = self.dir.as_ref().ok_or_else(|| error_of(Errno::NOENT.into(), call))?;
        // The name of an entry of the handlers' directory.
        if script.is_empty() || script.starts_with('.') || script.contains('/') {
            return Err(error_of(Errno::ACCESS.into(), call));
        }
        Ok(dir.join(script))
    }

    /// Changes something, and says what there is then, if that is known.
    fn change(&self, sandbox: &Sandbox, call: &FileCall, bytes: &[u8], before: Usage) -> Result<Option<Usage>, Wrong> {
        let parts = parts(&call.path)?;
        match call.call {
            Call::WriteFile => return self.write_file(sandbox, &parts, &call.flag, bytes, before).map(Some),
            Call::Mkdir => {
                let more = if call.recursive { parts.len() as u64 } else { 1 };
                // Those that are there already would not count; near the limit it does not matter.
                self.check(before.bytes, before.files + more)?;
                sandbox.make(&parts, call.recursive)?;
            }
            Call::Rmdir => {
                let (above, name) = sandbox.place(&parts)?;
                unlinkat(&above, name, AtFlags::REMOVEDIR)?;
            }
            Call::Unlink => {
                let (above, name) = sandbox.place(&parts)?;
                unlinkat(&above, name, AtFlags::empty())?;
            }
            Call::Rm => {
                let gone = remove(sandbox, &parts, call.recursive);
                if !(call.force && matches!(gone, Err(Errno::NOENT))) {
                    gone?;
                }
            }
            Call::Rename => {
                let to = self::parts(&call.to)?;
                let (above, name) = sandbox.place(&parts)?;
                let (above_to, name_to) = sandbox.place(&to)?;
                if let Ok(folder) = sandbox.folder(&parts)
                    && to.len() + usage_of(&folder)?.depth > limits::SCRIPT_FS_DEPTH
                {
                    return Err(Errno::NAMETOOLONG.into());
                }
                renameat(&above, name, &above_to, name_to)?;
            }
            Call::ReadFile | Call::Readdir | Call::Stat | Call::Access => return Err(Errno::INVAL.into()),
        }
        Ok(None)
    }

    fn write_file(
        &self,
        sandbox: &Sandbox,
        parts: &[&str],
        flag: &str,
        bytes: &[u8],
        before: Usage,
    ) -> Result<Usage, Wrong> {
        let (above, name) = sandbox.place(parts)?;
        let old = match statat(&above, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(u64::try_from(stat.st_size).unwrap_or(0)),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error.into()),
        };
        let how = match flag {
            "w" | "" => OFlags::TRUNC,
            "wx" => OFlags::EXCL,
            "a" => OFlags::APPEND,
            "ax" => OFlags::APPEND | OFlags::EXCL,
            _ => return Err(Errno::INVAL.into()),
        };
        let freed = if how.contains(OFlags::APPEND) { 0 } else { old.unwrap_or(0) };
        let after = Usage {
            bytes: before.bytes.saturating_sub(freed) + bytes.len() as u64,
            files: before.files + u64::from(old.is_none()),
            ..before
        };
        self.check(after.bytes, after.files)?;
        let mut file = File::from(open_file(&above, name, OFlags::WRONLY | OFlags::CREATE | how)?);
        file.write_all(bytes)?;
        Ok(after)
    }

    fn check(&self, bytes: u64, files: u64) -> Result<(), Wrong> {
        let (of, most, limit) = if bytes > self.bytes {
            ("bytes", self.bytes, "script_fs_bytes, setting scripts.fs_bytes")
        } else if files > self.files {
            ("files and folders", self.files, "script_fs_files, setting scripts.fs_files")
        } else {
            return Ok(());
        };
        Err(Wrong::Limit(Errno::DQUOT, format!("{most} {of} at most, limit {limit}")))
    }
}

/// The directory of a script, made for the node's user alone.
fn make(dir: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    if dir.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn look(sandbox: &Sandbox, call: &FileCall) -> Result<Reply, Wrong> {
    let parts = parts(&call.path)?;
    match call.call {
        Call::Readdir => Ok(Reply::about(json!(names(&sandbox.folder(&parts)?)?))),
        Call::ReadFile => {
            let (above, name) =
                sandbox.place(&parts).map_err(|error| if parts.is_empty() { Errno::ISDIR } else { error })?;
            let file = File::from(open_file(&above, name, OFlags::RDONLY)?);
            let most = limits::SCRIPT_JOB_BYTES;
            let mut bytes = Vec::new();
            file.take(most as u64 + 1).read_to_end(&mut bytes)?;
            if bytes.len() > most {
                return Err(Wrong::Limit(Errno::FBIG, format!("{most} bytes at most, limit script_job_bytes")));
            }
            Ok(Reply::bytes(bytes))
        }
        Call::Stat | Call::Access => {
            let stat = if parts.is_empty() {
                rustix::fs::fstat(sandbox.folder(&[])?)?
            } else {
                let (above, name) = sandbox.place(&parts)?;
                statat(&above, name, AtFlags::SYMLINK_NOFOLLOW)?
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            #[expect(clippy::cast_precision_loss, reason = "milliseconds are far below 2^53")]
            let modified = stat.st_mtime as f64 * 1e3 + stat.st_mtime_nsec as f64 / 1e6;
            Ok(Reply::about(json!({
                "size": stat.st_size, "mtimeMs": modified, "mode": stat.st_mode,
                "isFile": kind == FileType::RegularFile, "isDirectory": kind == FileType::Directory,
            })))
        }
        _ => Err(Errno::INVAL.into()),
    }
}

fn remove(sandbox: &Sandbox, parts: &[&str], recursive: bool) -> Result<(), Errno> {
    let (above, name) = sandbox.place(parts)?;
    if recursive { remove_all(&above, name) } else { unlinkat(&above, name, AtFlags::empty()) }
}

/// As Node.js words it.
fn error_of(wrong: Wrong, call: &FileCall) -> SlowError {
    let (errno, more) = match wrong {
        Wrong::System(errno) => (errno, String::new()),
        Wrong::Limit(errno, more) => (errno, format!(" ({more})")),
    };
    let (code, words) = match errno {
        Errno::NOENT => ("ENOENT", "no such file or directory"),
        Errno::EXIST => ("EEXIST", "file already exists"),
        Errno::ACCESS => ("EACCES", "permission denied (a script has its own directory only)"),
        Errno::PERM => ("EPERM", "operation not permitted"),
        Errno::ISDIR => ("EISDIR", "illegal operation on a directory"),
        Errno::NOTDIR => ("ENOTDIR", "not a directory"),
        Errno::NOTEMPTY => ("ENOTEMPTY", "directory not empty"),
        Errno::LOOP => ("ELOOP", "too many symbolic links encountered"),
        Errno::NAMETOOLONG => ("ENAMETOOLONG", "name too long"),
        Errno::INVAL => ("EINVAL", "invalid argument"),
        Errno::NOSPC => ("ENOSPC", "no space left on device"),
        Errno::DQUOT => ("EDQUOT", "disk quota exceeded"),
        Errno::FBIG => (LIMIT, "file too large"),
        Errno::MFILE | Errno::NFILE => ("EMFILE", "too many open files"),
        _ => ("EIO", "i/o error"),
    };
    if call.call == Call::ReadFile && errno == Errno::ISDIR {
        // It opens, but cannot be read.
        let error = SlowError::new(code, format!("{code}: {words}, read"));
        return error.with("errno", -errno.raw_os_error()).with("syscall", "read");
    }
    let (syscall, path) = (call.call.name(), &call.path);
    let mut message = format!("{code}: {words}{more}, {syscall} '{path}'");
    if call.call == Call::Rename {
        message.push_str(&format!(" -> '{}'", call.to));
    }
    let error = SlowError::new(code, message).with("errno", -errno.raw_os_error());
    let error = error.with("syscall", syscall).with("path", path.as_str());
    if call.call == Call::Rename { error.with("dest", call.to.as_str()) } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(json: serde_json::Value) -> FileCall {
        serde_json::from_value(json).expect("a call")
    }

    fn code(done: Done) -> &'static str {
        done.err().map_or("ok", |error| error.code)
    }

    #[test]
    fn a_script_has_its_own_files_and_their_quota_is_counted() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = Files::new(Some(dir.path().join("files")), 100, 3);
        let write = |script: &str, path: &str, size: usize, flag: &str| {
            code(files.write(
                script,
                &call(json!({"call": "writefile", "path": path, "flag": flag})),
                &vec![b'x'; size],
            ))
        };
        let change = |json| code(files.write("a.js", &call(json), b""));
        assert_eq!(files.read("a.js", &call(json!({"call": "readdir", "path": "."}))).expect("none").about, json!([]));
        assert_eq!(write("a.js", "one", 60, "w"), "ok");
        assert_eq!(write("a.js", "one", 60, "wx"), "EEXIST");
        assert_eq!(write("a.js", "one", 70, "w"), "ok");
        assert_eq!(write("a.js", "two", 31, "w"), "EDQUOT");
        assert_eq!(write("a.js", "one", 31, "a"), "EDQUOT");
        assert_eq!(write("a.js", "one", 30, "a"), "ok");
        assert_eq!(write("b.js", "one", 100, "w"), "ok");
        assert_eq!(write("a.js", "none/two", 0, "w"), "ENOENT");
        assert_eq!(change(json!({"call": "mkdir", "path": "d/e", "recursive": true})), "ok");
        assert_eq!(write("a.js", "two", 0, "w"), "EDQUOT", "of files");
        assert_eq!(change(json!({"call": "rm", "path": "d"})), "EISDIR");
        assert_eq!(change(json!({"call": "rm", "path": "d", "recursive": true})), "ok");
        assert_eq!(change(json!({"call": "rm", "path": "d", "force": true})), "ok");
        assert_eq!(change(json!({"call": "rename", "path": "one", "to": "uno"})), "ok");
        assert_eq!(change(json!({"call": "unlink", "path": "uno"})), "ok");
        assert_eq!(write("a.js", "two", 100, "w"), "ok");
        for path in ["../b.js/one", "/etc/passwd", "x/../../b.js/one"] {
            assert_eq!(write("a.js", path, 1, "w"), "EACCES", "{path}");
            assert_eq!(code(files.read("a.js", &call(json!({"call": "readfile", "path": path})))), "EACCES");
        }
        assert_eq!(code(files.read("../a", &call(json!({"call": "readfile", "path": "x"})))), "EACCES");
        let two = files.read("a.js", &call(json!({"call": "readfile", "path": "./two"}))).expect("it is there");
        assert_eq!(two.bytes.len(), 100);
        let stat = files.read("a.js", &call(json!({"call": "stat", "path": "two"}))).expect("it is there").about;
        assert_eq!((&stat["size"], &stat["isFile"]), (&json!(100), &json!(true)));
    }

    #[test]
    fn errors_are_worded_as_in_node() {
        let dir = tempfile::tempdir().expect("a directory");
        let files = Files::new(Some(dir.path().to_owned()), 100, 3);
        std::fs::create_dir(dir.path().join("a.js")).expect("a folder");
        let error = files.read("a.js", &call(json!({"call": "readfile", "path": "x"}))).expect_err("it is not there");
        assert_eq!(error.message, "ENOENT: no such file or directory, open 'x'");
        assert_eq!((error.more["errno"].as_i64(), error.more["syscall"].as_str()), (Some(-2), Some("open")));
    }
}
