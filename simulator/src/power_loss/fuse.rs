//! Mounts a [`Disk`] by FUSE, so that any process works on it. It owns the mount; what survives is the disk's matter.
//!
//! The kernel's writeback cache stays off: each write reaches us when it is made. `sync_file_range` does not reach a FUSE file
//! system at all, so whoever relies on it loses its data here, as on a real disk.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use rustix::io::Errno;

use super::disk::{Attributes, Disk, ROOT, Refused};
use crate::dice::Dice;

/// How long the kernel may keep names and attributes: nobody but it changes them while the disk is mounted.
const KEPT: Duration = Duration::from_secs(60);
/// Longest time that a sync takes, as on a disk: commits gather, and there is a time in which data is written and not synced.
const SYNC_MS: f64 = 4.0;
/// How long an unmounting waits for the last file to be closed.
const BUSY: Duration = Duration::from_secs(5);
/// `FALLOC_FL_KEEP_SIZE`.
const KEEP_SIZE: i32 = 1;

/// A disk in its place. Dropped: unmounted.
#[derive(Debug)]
pub(crate) struct Mount {
    disk: Arc<Mutex<Disk>>,
    at: PathBuf,
    session: Option<BackgroundSession>,
    sync_dice: Dice,
}

impl Mount {
    /// Mounts a disk at a directory.
    ///
    /// # Errors
    /// The system's, which says nothing of FUSE.
    pub(crate) fn new(disk: Disk, at: &Path, sync_dice: Dice) -> io::Result<Self> {
        let mut mount = Self { disk: Arc::new(Mutex::new(disk)), at: at.to_owned(), session: None, sync_dice };
        mount.mount()?;
        Ok(mount)
    }

    /// Takes the disk off the machine, cuts its power, and mounts what it still has. Nobody may have it open any more.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn cut_power(&mut self) -> io::Result<()> {
        self.unmount()?;
        self.disk.lock().unwrap_or_else(PoisonError::into_inner).cut_power();
        self.mount()
    }

    /// Copies what the disk has to a real directory.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn copy_to(&self, to: &Path) -> io::Result<()> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner).copy_to(to)
    }

    fn mount(&mut self) -> io::Result<()> {
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("tidegate-power-loss".to_owned()),
            MountOption::NoAtime,
            MountOption::NoDev,
            MountOption::NoSuid,
        ];
        self.sync_dice.next();
        let files = Files { disk: Arc::clone(&self.disk), sync_dice: Mutex::new(self.sync_dice.clone()) };
        self.session = Some(fuser::spawn_mount(files, &self.at, &config)?);
        Ok(())
    }

    fn unmount(&mut self) -> io::Result<()> {
        let Some(session) = self.session.take() else { return Ok(()) };
        let deadline = Instant::now() + BUSY;
        // The kernel closes the files of a killed process in its own time.
        loop {
            match rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::empty()) {
                Ok(()) => return session.join(),
                Err(Errno::BUSY) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
                // Without root the session asks fusermount to do it.
                Err(_) => return session.umount_and_join(),
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            eprintln!("cannot unmount {}: {error}; do it by hand: umount -l {0}", self.at.display());
        }
    }
}

/// The disk, as the kernel asks for it.
struct Files {
    disk: Arc<Mutex<Disk>>,
    sync_dice: Mutex<Dice>,
}

impl Files {
    fn with<T>(&self, work: impl FnOnce(&mut Disk) -> Result<T, Refused>) -> Result<T, fuser::Errno> {
        work(&mut self.disk.lock().unwrap_or_else(PoisonError::into_inner)).map_err(errno)
    }

    /// The time that a disk takes to sync.
    fn take_time(&self) {
        let ms = self.sync_dice.lock().unwrap_or_else(PoisonError::into_inner).range(0.0, SYNC_MS);
        std::thread::sleep(Duration::from_secs_f64(ms / 1_000.0));
    }
}

fn errno(refused: Refused) -> fuser::Errno {
    match refused {
        Refused::NotFound => fuser::Errno::ENOENT,
        Refused::Exists => fuser::Errno::EEXIST,
        Refused::NotADirectory => fuser::Errno::ENOTDIR,
        Refused::IsADirectory => fuser::Errno::EISDIR,
        Refused::NotEmpty => fuser::Errno::ENOTEMPTY,
    }
}

fn file_attr(found: Attributes, request: &Request) -> FileAttr {
    FileAttr {
        ino: INodeNo(found.ino),
        size: found.len,
        blocks: found.len.div_ceil(512),
        atime: found.modified,
        mtime: found.modified,
        ctime: found.modified,
        crtime: found.modified,
        kind: kind(found.directory),
        perm: if found.directory { 0o755 } else { 0o644 },
        nlink: if found.directory { 2 } else { 1 },
        uid: request.uid(),
        gid: request.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn kind(directory: bool) -> FileType {
    if directory { FileType::Directory } else { FileType::RegularFile }
}

fn empty(result: Result<(), fuser::Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Files {
    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.with(|disk| disk.lookup(parent.0, name).and_then(|ino| disk.attributes(ino))) {
            Ok(found) => reply.entry(&KEPT, &file_attr(found, request), Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, request: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.with(|disk| disk.attributes(ino.0)) {
            Ok(found) => reply.attr(&KEPT, &file_attr(found, request)),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changed = self.with(|disk| {
            if let Some(size) = size {
                disk.set_len(ino.0, size, SystemTime::now())?;
            }
            match mtime {
                Some(TimeOrNow::SpecificTime(at)) => disk.set_modified(ino.0, at)?,
                Some(TimeOrNow::Now) => disk.set_modified(ino.0, SystemTime::now())?,
                None => {}
            }
            disk.attributes(ino.0)
        });
        match changed {
            Ok(found) => reply.attr(&KEPT, &file_attr(found, request)),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        let made = self.with(|disk| {
            let ino = disk.make_directory(parent.0, name, SystemTime::now())?;
            disk.attributes(ino)
        });
        match made {
            Ok(found) => reply.entry(&KEPT, &file_attr(found, request), Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.with(|disk| {
            let ino = disk.make_file(parent.0, name, SystemTime::now())?;
            disk.attributes(ino)
        });
        match made {
            Ok(found) => {
                reply.created(&KEPT, &file_attr(found, request), Generation(0), FileHandle(0), FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.with(|disk| disk.remove_file(parent.0, name)), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.with(|disk| disk.remove_directory(parent.0, name)), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        as_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.contains(RenameFlags::RENAME_EXCHANGE) || flags.contains(RenameFlags::RENAME_WHITEOUT) {
            return reply.error(fuser::Errno::EINVAL);
        }
        let keep = flags.contains(RenameFlags::RENAME_NOREPLACE);
        let renamed = self.with(|disk| match disk.lookup(to.0, as_name) {
            Ok(_) if keep => Err(Refused::Exists),
            _ => disk.rename(parent.0, name, to.0, as_name),
        });
        empty(renamed, reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.with(|disk| disk.attributes(ino.0)) {
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.with(|disk| disk.read(ino.0, offset, size as usize)) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.with(|disk| disk.write(ino.0, offset, bytes, SystemTime::now())) {
            // A request is at most 16 MiB.
            Ok(()) => reply.written(bytes.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.take_time();
        empty(self.with(|disk| disk.sync_file(ino.0)), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.take_time();
        empty(self.with(|disk| disk.sync_directory(ino.0)), reply);
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.with(|disk| {
            let mut listed = Vec::new();
            for (name, child) in disk.names(ino.0)? {
                listed.push((*child, disk.attributes(*child)?.directory, name.clone()));
            }
            Ok(listed)
        });
        let mut listed = match listed {
            Ok(listed) => listed,
            Err(error) => return reply.error(error),
        };
        // In the order of their numbers, which are also their places: a name that goes away moves no other.
        listed.sort_unstable_by_key(|(child, ..)| *child);
        let here = [(1, "."), (2, "..")].into_iter().filter(|(place, _)| *place > offset);
        for (place, name) in here {
            if reply.add(ino, place, FileType::Directory, name) {
                return reply.ok();
            }
        }
        for (child, directory, name) in listed {
            // Numbers begin behind that of the top, which is 1: one more, and none is a dot's place.
            let place = child + ROOT;
            if place > offset && reply.add(INodeNo(child), place, kind(directory), &name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        // As much as anybody asks for: it is not a full disk that is tried here.
        let blocks = 1 << 32;
        reply.statfs(blocks, blocks, blocks, blocks, blocks, 4096, 255, 4096);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let result = match mode {
            0 => self.with(|disk| {
                let reach = offset.saturating_add(length);
                let len = disk.attributes(ino.0)?.len;
                if reach > len { disk.set_len(ino.0, reach, SystemTime::now()) } else { Ok(()) }
            }),
            KEEP_SIZE => Ok(()),
            _ => Err(fuser::Errno::EOPNOTSUPP),
        };
        empty(result, reply);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;
    use crate::dice::Stream;

    #[test]
    fn a_process_works_on_it_and_what_it_synced_survives() {
        let dir = tempfile::tempdir().unwrap();
        let dice = Dice::of(3, 0, Stream::Faults);
        let mut mount = match Mount::new(Disk::new(dice.clone()), dir.path(), dice) {
            Ok(mount) => mount,
            Err(error) => return println!("FUSE cannot be mounted here: {error}"),
        };
        let at = |name: &str| dir.path().join(name);
        for _ in 0..20 {
            fs::create_dir_all(at("d")).unwrap();
            fs::File::open(dir.path()).unwrap().sync_all().unwrap();
            let mut file = fs::File::create(at("d/f.tmp")).unwrap();
            file.write_all(&[7; 10_000]).unwrap();
            file.sync_all().unwrap();
            file.write_all(b"lost or not").unwrap();
            drop(file);
            fs::rename(at("d/f.tmp"), at("d/f")).unwrap();
            fs::File::open(at("d")).unwrap().sync_all().unwrap();
            fs::write(at("d/g"), b"lost or not").unwrap();
            let mut names: Vec<_> = fs::read_dir(at("d")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, ["f", "g"]);
            mount.cut_power().unwrap();
            let found = fs::read(at("d/f")).unwrap();
            assert_eq!(found[..10_000], [7; 10_000]);
            let _ = fs::remove_file(at("d/g"));
        }
        let copy = tempfile::tempdir().unwrap();
        mount.copy_to(copy.path()).unwrap();
        assert_eq!(fs::read(copy.path().join("d/f")).unwrap()[..10_000], [7; 10_000]);
        drop(mount);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "it is unmounted");
    }
}
