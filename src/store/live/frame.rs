//! The frame of a record: a hash of key and content, the version of the record, its archive.
//!
//! SQLite does not check what its pages hold. So every record carries a hash of its own, which is checked whenever it is read.

use super::failure::corrupt;
use crate::error::{Result, err};
use std::path::Path;

/// Bytes of the hash in front of each record, and of the version behind it.
pub(super) const HASH: usize = 16;
const VERSION: usize = 4;
/// Longest archive, so that a slip of a caller does not fill a disk.
pub(super) const RECORD_CAP: usize = 1 << 20;

/// A record of version `version` as it is stored under `key`.
///
/// # Errors
/// `InvalidArgument` where the archive is too long.
pub(super) fn frame(key: &str, version: u32, archive: &[u8]) -> Result<Vec<u8>> {
    if archive.len() > RECORD_CAP {
        let have = archive.len();
        return Err(err!(InvalidArgument, "what is known of {key:?} takes {have} bytes; {RECORD_CAP} are the most"));
    }
    let mut record = vec![0; HASH];
    record.reserve_exact(VERSION + archive.len());
    record.extend_from_slice(&version.to_le_bytes());
    record.extend_from_slice(archive);
    let hash = hash(key, record.get(HASH..).unwrap_or_default());
    record.splice(..HASH, hash);
    Ok(record)
}

/// Version and archive in a stored record of the file `path`, of a table whose records have versions up to `newest`.
///
/// # Errors
/// `Corrupt` where it is not what was stored under `key`; `UpgradeRequired` where it has a later version.
pub(super) fn content<'a>(path: &Path, key: &str, newest: u32, record: &'a [u8]) -> Result<(u32, &'a [u8])> {
    let content = unversioned(path, key, record)?;
    let (version, archive) = content
        .split_first_chunk::<VERSION>()
        .map(|(version, archive)| (u32::from_le_bytes(*version), archive))
        .filter(|(version, _)| *version > 0)
        .ok_or_else(|| corrupt(path, format_args!("the record of {key:?} has no version")))?;
    match version <= newest {
        true => Ok((version, archive)),
        false => Err(err!(
            UpgradeRequired,
            "the record of {key:?} in {} has version {version}, this build reads up to {newest}; upgrade docent",
            path.display()
        )),
    }
}

/// What stands behind the hash of a record: in a file of the first layout, an archive of version 1.
///
/// # Errors
/// `Corrupt` where it is not what was stored under `key`.
pub(super) fn unversioned<'a>(path: &Path, key: &str, record: &'a [u8]) -> Result<&'a [u8]> {
    let parts = record.split_at_checked(HASH).filter(|(sum, content)| *sum == hash(key, content));
    let (_, content) =
        parts.ok_or_else(|| corrupt(path, format_args!("the record of {key:?} is not what was written")))?;
    Ok(content)
}

pub(super) fn hash(key: &str, content: &[u8]) -> [u8; HASH] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key.as_bytes()).update(content);
    let mut start = [0; HASH];
    hasher.finalize_xof().fill(&mut start);
    start
}
