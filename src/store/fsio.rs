//! The seam to the file system: everything that publishing does to a disk goes through [`Disk`], so that tests can
//! record it, fail any call of it, and replay what a power cut leaves.

use crate::error::{Error, Result, err};
use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file being written.
pub(super) trait Output: Write {
    /// Returns when the bytes are on stable storage.
    fn sync(&mut self) -> io::Result<()>;
}

/// The calls that reach the disk.
pub(super) trait Disk: Debug + Send + Sync {
    /// Makes a directory; an existing one is an error.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes a new file for writing; an existing one is an error.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>>;
    /// Opens a regular file for reading.
    fn open(&self, path: &Path) -> io::Result<File>;
    /// Reads at `offset`; may read less than asked.
    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Sets mode 0444.
    fn protect(&self, path: &Path) -> io::Result<()>;
    /// Renames, replacing what is there.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Returns when the directory's entries are on stable storage.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory that are UTF-8, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Returns when the content of a file is on stable storage.
    fn sync_data(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// The file system of the operating system.
#[derive(Debug)]
pub(super) struct RealDisk;

struct RealOutput(File);

impl Write for RealOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for RealOutput {
    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_all()
    }
}

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        Ok(Box::new(RealOutput(File::options().write(true).create_new(true).open(path)?)))
    }
    fn open(&self, path: &Path) -> io::Result<File> {
        // Asked before opening, because opening a pipe would wait for its writer.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"));
        }
        File::open(path)
    }
    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(bytes, offset)
    }
    fn protect(&self, path: &Path) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(0o444))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// A failure to write a file.
pub(super) struct WriteError {
    pub(super) error: Error,
    /// Whether it was the sync that failed.
    pub(super) sync: bool,
}

impl From<WriteError> for Error {
    fn from(e: WriteError) -> Self {
        e.error
    }
}

/// Writes `parts` under a temporary name, syncs, checks, protects, and renames to `path`. Leaves no temporary file.
pub(super) fn write_new(
    disk: &dyn Disk,
    path: &Path,
    parts: &[&[u8]],
    check: impl FnOnce(&Path) -> Result<()>,
) -> Result<(), WriteError> {
    let temporary = temporary(path);
    let written = write_checked(disk, &temporary, parts, check).and_then(|()| {
        disk.protect(&temporary)
            .map_err(|e| Error::io("cannot protect", &temporary, e))
            .and_then(|()| disk.rename(&temporary, path).map_err(|e| Error::io("cannot rename to", path, e)))
            .map_err(|error| WriteError { error, sync: false })
    });
    if written.is_err() {
        // It may not exist; what cannot be removed is swept by the next publisher.
        let _ = disk.remove(&temporary);
    }
    written
}

/// As [`write_new`], for CURRENT: small, and replaced by every generation, so its mode stays writable.
pub(super) fn write_replacing(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let temporary = temporary(path);
    let written = write_checked(disk, &temporary, &[bytes], |t| check_same(disk, t, bytes)).and_then(|()| {
        disk.rename(&temporary, path)
            .map_err(|e| WriteError { error: Error::io("cannot rename to", path, e), sync: false })
    });
    if written.is_err() {
        // As above.
        let _ = disk.remove(&temporary);
    }
    written
}

fn write_checked(
    disk: &dyn Disk,
    path: &Path,
    parts: &[&[u8]],
    check: impl FnOnce(&Path) -> Result<()>,
) -> Result<(), WriteError> {
    let failed = |what: &str, sync: bool| {
        let what = what.to_owned();
        move |e| WriteError { error: Error::io(&what, path, e), sync }
    };
    let mut output = disk.create(path).map_err(failed("cannot create", false))?;
    for part in parts {
        output.write_all(part).map_err(failed("cannot write", false))?;
    }
    output.sync().map_err(failed("cannot sync", true))?;
    drop(output);
    check(path).map_err(|error| WriteError { error, sync: false })
}

/// Reads a file back and compares.
pub(super) fn check_same(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |e: io::Error| Error::io("cannot read back", path, e);
    let file = disk.open(path).map_err(failed)?;
    let mut found = vec![0; bytes.len()];
    if file.metadata().map_err(failed)?.len() == bytes.len() as u64 {
        read_exact(disk, &file, &mut found, 0).map_err(failed)?;
        if found == bytes {
            return Ok(());
        }
    }
    Err(err!(Io, "{} does not read back as it was written; check the disk", path.display()))
}

/// Fills `bytes` from `offset` on, through short reads and interruptions.
pub(super) fn read_exact(disk: &dyn Disk, file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match disk.read_at(file, bytes, offset) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends too early")),
            Ok(n) => {
                bytes = bytes.get_mut(n..).unwrap_or_default();
                offset = offset.saturating_add(n as u64);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// `path` with `.tmp` behind it: where a file is written before it gets its name.
pub(super) fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}
