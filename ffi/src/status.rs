//! What every function returns.

use std::ffi::c_char;

/// What every function returns: DOCENT_OK or one of the DOCENT_ERR_ numbers, which are never given another meaning.
pub type docent_status = u32;

/// Done.
pub const DOCENT_OK: docent_status = 0;
/// An argument is out of its range or contradicts another one. Remedy: correct the call.
pub const DOCENT_ERR_INVALID_ARGUMENT: docent_status = 1;
/// A configuration or dataset description is wrong. Remedy: correct the named key.
pub const DOCENT_ERR_INVALID_CONFIG: docent_status = 2;
/// A row of an input file cannot be read. Remedy: correct the row or raise the tolerance.
pub const DOCENT_ERR_INVALID_DATA: docent_status = 3;
/// A file, store, generation or name does not exist. Remedy: check the name.
pub const DOCENT_ERR_NOT_FOUND: docent_status = 4;
/// An item id is not in this generation's catalogue. Remedy: check the id or reload.
pub const DOCENT_ERR_UNKNOWN_ITEM: docent_status = 5;
/// An entity id is not in this generation. Remedy: pass a history instead.
pub const DOCENT_ERR_UNKNOWN_ENTITY: docent_status = 6;
/// Stored bytes are damaged. Remedy: restore the file or roll back to another generation.
pub const DOCENT_ERR_CORRUPT: docent_status = 7;
/// The file is not a Docent file at all. Remedy: check the path.
pub const DOCENT_ERR_NOT_DOCENT: docent_status = 8;
/// The store was written by a newer format version. Remedy: upgrade Docent.
pub const DOCENT_ERR_UPGRADE_REQUIRED: docent_status = 9;
/// The operating system refused an input or output operation. Remedy: in the message.
pub const DOCENT_ERR_IO: docent_status = 10;
/// The disk is full. Remedy: free space, then run again.
pub const DOCENT_ERR_NO_SPACE: docent_status = 11;
/// Permission denied. Remedy: change the permissions or the user.
pub const DOCENT_ERR_PERMISSION_DENIED: docent_status = 12;
/// Another publisher holds the store. Remedy: wait for it or stop it.
pub const DOCENT_ERR_LOCKED: docent_status = 13;
/// An earlier fsync failed, so this publisher refuses further work. Remedy: open the store anew.
pub const DOCENT_ERR_POISONED: docent_status = 14;
/// The device asked for does not exist here. Remedy: choose another device.
pub const DOCENT_ERR_DEVICE_UNAVAILABLE: docent_status = 15;
/// Training produced NaN or an infinity. Remedy: lower the learning rate; the last good checkpoint is named.
pub const DOCENT_ERR_DIVERGED: docent_status = 16;
/// The work was cancelled by its caller; progress is kept where the message says so.
pub const DOCENT_ERR_CANCELLED: docent_status = 17;
/// State that belongs to another model or dataset. Remedy: rebuild it or use the matching one.
pub const DOCENT_ERR_STATE_MISMATCH: docent_status = 18;
/// The object is used by another call and cannot be shared. Remedy: one object per thread.
pub const DOCENT_ERR_BUSY: docent_status = 19;
/// A defect inside Docent. Remedy: report it.
pub const DOCENT_ERR_INTERNAL: docent_status = 20;
/// A panic was caught at the boundary. Remedy: free the object and report it.
pub const DOCENT_ERR_PANIC: docent_status = 21;
/// The object was made before a fork, in the parent process. Remedy: make it anew in this process.
pub const DOCENT_ERR_FORKED: docent_status = 22;
/// What is to be added is there already. Remedy: choose another name, or leave it out.
pub const DOCENT_ERR_ALREADY_EXISTS: docent_status = 23;

/// Every status with its name, NUL-terminated.
pub(crate) const NAMES: [(docent_status, &str); 24] = [
    (DOCENT_OK, "DOCENT_OK\0"),
    (DOCENT_ERR_INVALID_ARGUMENT, "DOCENT_ERR_INVALID_ARGUMENT\0"),
    (DOCENT_ERR_INVALID_CONFIG, "DOCENT_ERR_INVALID_CONFIG\0"),
    (DOCENT_ERR_INVALID_DATA, "DOCENT_ERR_INVALID_DATA\0"),
    (DOCENT_ERR_NOT_FOUND, "DOCENT_ERR_NOT_FOUND\0"),
    (DOCENT_ERR_UNKNOWN_ITEM, "DOCENT_ERR_UNKNOWN_ITEM\0"),
    (DOCENT_ERR_UNKNOWN_ENTITY, "DOCENT_ERR_UNKNOWN_ENTITY\0"),
    (DOCENT_ERR_CORRUPT, "DOCENT_ERR_CORRUPT\0"),
    (DOCENT_ERR_NOT_DOCENT, "DOCENT_ERR_NOT_DOCENT\0"),
    (DOCENT_ERR_UPGRADE_REQUIRED, "DOCENT_ERR_UPGRADE_REQUIRED\0"),
    (DOCENT_ERR_IO, "DOCENT_ERR_IO\0"),
    (DOCENT_ERR_NO_SPACE, "DOCENT_ERR_NO_SPACE\0"),
    (DOCENT_ERR_PERMISSION_DENIED, "DOCENT_ERR_PERMISSION_DENIED\0"),
    (DOCENT_ERR_LOCKED, "DOCENT_ERR_LOCKED\0"),
    (DOCENT_ERR_POISONED, "DOCENT_ERR_POISONED\0"),
    (DOCENT_ERR_DEVICE_UNAVAILABLE, "DOCENT_ERR_DEVICE_UNAVAILABLE\0"),
    (DOCENT_ERR_DIVERGED, "DOCENT_ERR_DIVERGED\0"),
    (DOCENT_ERR_CANCELLED, "DOCENT_ERR_CANCELLED\0"),
    (DOCENT_ERR_STATE_MISMATCH, "DOCENT_ERR_STATE_MISMATCH\0"),
    (DOCENT_ERR_BUSY, "DOCENT_ERR_BUSY\0"),
    (DOCENT_ERR_INTERNAL, "DOCENT_ERR_INTERNAL\0"),
    (DOCENT_ERR_PANIC, "DOCENT_ERR_PANIC\0"),
    (DOCENT_ERR_FORKED, "DOCENT_ERR_FORKED\0"),
    (DOCENT_ERR_ALREADY_EXISTS, "DOCENT_ERR_ALREADY_EXISTS\0"),
];

/// The name of a status, such as "DOCENT_ERR_BUSY"; "unknown status" for any other number. NUL-terminated, valid for
/// ever.
#[unsafe(no_mangle)]
pub extern "C" fn docent_status_name(status: docent_status) -> *const c_char {
    let name = NAMES.iter().find(|(s, _)| *s == status).map_or("unknown status\0", |(_, name)| name);
    name.as_ptr().cast()
}
