//! Files of a store with checksums that are right, whatever else is in them: `docs/format.md`, written a second time.
#![allow(dead_code, reason = "each test binary uses its part")]

/// Bytes of every header.
pub const HEADER: usize = 64;

/// Makes length and checksum of a manifest or a run record those of its content; gives the checksum.
pub fn archive(file: &mut [u8]) -> [u8; 32] {
    let length = (file.len() - HEADER) as u64;
    file[24..32].copy_from_slice(&length.to_le_bytes());
    let checksum = *blake3::Hasher::new().update(&file[..32]).update(&file[HEADER..]).finalize().as_bytes();
    file[32..HEADER].copy_from_slice(&checksum);
    checksum
}

/// Makes `CURRENT` name the manifest with this checksum.
pub fn current(file: &mut [u8], manifest: &[u8; 32]) {
    file[32..48].copy_from_slice(&manifest[..16]);
    let hash = blake3::hash(&file[..48]);
    file[48..HEADER].copy_from_slice(&hash.as_bytes()[..16]);
}

/// The segment of a payload below 1 MiB, and its root hash.
pub fn segment(payload: &[u8]) -> (Vec<u8>, [u8; 32]) {
    let length = payload.len();
    let end = (HEADER + length).next_multiple_of(64);
    let tail = if length == 0 { Vec::new() } else { blake3::hash(payload).as_bytes().to_vec() };
    let mut file = b"\x89DCS\r\n\x1a\n\x01\x00\x00\x00\x01\x02\x03\x04".to_vec();
    for number in [HEADER, length, end, end + tail.len()] {
        file.extend_from_slice(&(number as u64).to_le_bytes());
    }
    let hash = blake3::hash(&file);
    file.extend_from_slice(&hash.as_bytes()[..16]);
    file.extend_from_slice(payload);
    file.resize(end, 0);
    file.extend_from_slice(&tail);
    let mut root = blake3::Hasher::new_derive_key("docent 2026-11 segment root v1");
    root.update(&(length as u64).to_le_bytes()).update(&tail);
    (file, *root.finalize().as_bytes())
}

/// A record of `live.db` with the hash that belongs to its key and content.
pub fn record(key: &str, record: &mut [u8]) {
    let Some((hash, content)) = record.split_at_mut_checked(16) else { return };
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key.as_bytes()).update(content);
    hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
}
