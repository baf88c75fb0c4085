//! Disks for tests: one that records, one that fails. Neither waits for the platter: they say when it would be waited
//! for.

use crate::store::fsio::{Disk, Output, RealDisk};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What was done to a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    CreateDir(PathBuf),
    Create(PathBuf),
    Write(PathBuf, Vec<u8>),
    Sync(PathBuf),
    Protect(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncDir(PathBuf),
    /// Set by a test: so many steps of its script are done.
    Done(u64),
}

pub(super) type Log = Arc<Mutex<Vec<Op>>>;

/// Passes everything through and writes down what changes the disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Recorder(pub(super) Log);

impl Recorder {
    pub(super) fn note<T>(&self, result: io::Result<T>, op: Op) -> io::Result<T> {
        if result.is_ok() {
            self.0.lock().unwrap().push(op);
        }
        result
    }
}

struct RecordedOutput(Box<dyn Output>, Recorder, PathBuf);

impl Write for RecordedOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.0.write(bytes)?;
        self.1.note(Ok(n), Op::Write(self.2.clone(), bytes[..n].to_vec()))
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for RecordedOutput {
    fn sync(&mut self) -> io::Result<()> {
        self.1.note(Ok(()), Op::Sync(self.2.clone()))
    }
}

impl Disk for Recorder {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.note(RealDisk.create_dir(path), Op::CreateDir(path.into()))
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        let output = self.note(RealDisk.create(path), Op::Create(path.into()))?;
        Ok(Box::new(RecordedOutput(output, self.clone(), path.into())))
    }
    fn open(&self, path: &Path) -> io::Result<File> {
        RealDisk.open(path)
    }
    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        RealDisk.read_at(file, bytes, offset)
    }
    fn protect(&self, path: &Path) -> io::Result<()> {
        self.note(RealDisk.protect(path), Op::Protect(path.into()))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.note(RealDisk.rename(from, to), Op::Rename(from.into(), to.into()))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.note(RealDisk.remove(path), Op::Remove(path.into()))
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.note(Ok(()), Op::SyncDir(path.into()))
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(path)
    }
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The call fails with this code of the operating system.
    Errno(i32),
    /// Reads and writes stop half-way, which is allowed; other calls fail with EIO.
    Short,
}

#[derive(Debug, Default)]
struct Plan {
    calls: u64,
    fault: Option<(u64, Fault)>,
    hit: Option<&'static str>,
}

/// Fails one call.
#[derive(Debug, Clone, Default)]
pub(super) struct Failing(Arc<Mutex<Plan>>);

impl Failing {
    /// The `n`-th call from now on, counted from 0, goes wrong.
    pub(super) fn arm(&self, n: u64, fault: Fault) {
        *self.0.lock().unwrap() = Plan { calls: 0, fault: Some((n, fault)), hit: None };
    }

    /// The call that went wrong since [`Failing::arm`]; no more will.
    pub(super) fn disarm(&self) -> Option<&'static str> {
        let mut plan = self.0.lock().unwrap();
        plan.fault = None;
        plan.hit
    }

    fn next(&self, call: &'static str) -> Option<Fault> {
        let mut plan = self.0.lock().unwrap();
        plan.calls += 1;
        let (_, fault) = plan.fault.filter(|(n, _)| n + 1 == plan.calls)?;
        plan.hit = Some(call);
        Some(fault)
    }

    fn pass(&self, call: &'static str) -> io::Result<()> {
        match self.next(call) {
            Some(Fault::Errno(code)) => Err(io::Error::from_raw_os_error(code)),
            Some(Fault::Short) => Err(io::Error::from_raw_os_error(5)),
            None => Ok(()),
        }
    }

    /// How many of `length` bytes a read or write may do.
    fn allowed(&self, call: &'static str, length: usize) -> io::Result<usize> {
        match self.next(call) {
            Some(Fault::Errno(code)) => Err(io::Error::from_raw_os_error(code)),
            Some(Fault::Short) => Ok(length.div_ceil(2)),
            None => Ok(length),
        }
    }
}

struct FailingOutput(Box<dyn Output>, Failing);

impl Write for FailingOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.1.allowed("write", bytes.len())?;
        self.0.write(&bytes[..length])
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for FailingOutput {
    fn sync(&mut self) -> io::Result<()> {
        self.1.pass("sync")
    }
}

impl Disk for Failing {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.pass("create_dir")?;
        RealDisk.create_dir(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn Output>> {
        self.pass("create")?;
        Ok(Box::new(FailingOutput(RealDisk.create(path)?, self.clone())))
    }
    fn open(&self, path: &Path) -> io::Result<File> {
        self.pass("open")?;
        RealDisk.open(path)
    }
    fn read_at(&self, file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let length = self.allowed("read", bytes.len())?;
        RealDisk.read_at(file, &mut bytes[..length], offset)
    }
    fn protect(&self, path: &Path) -> io::Result<()> {
        self.pass("protect")?;
        RealDisk.protect(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.pass("rename")?;
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.pass("remove")?;
        RealDisk.remove(path)
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.pass("sync_dir")
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.pass("list")?;
        RealDisk.list(path)
    }
}
