//! How anything fails: one error type that says what failed, on what, and the remedy.

use std::fmt;

/// The result of every fallible call in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it was. The numbers are stable: they are the status codes of the C ABI and are only ever
/// appended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u32)]
pub enum ErrorKind {
    /// An argument is out of its range or contradicts another one. Remedy: correct the call.
    InvalidArgument = 1,
    /// A configuration or dataset description is wrong. Remedy: correct the named key.
    InvalidConfig = 2,
    /// A row of an input file cannot be read. Remedy: correct the row or raise the tolerance.
    InvalidData = 3,
    /// A file, store, generation or name does not exist. Remedy: check the name.
    NotFound = 4,
    /// An item id is not in this generation's catalogue. Remedy: check the id or reload.
    UnknownItem = 5,
    /// An entity id is not in this generation. Remedy: pass a history instead.
    UnknownEntity = 6,
    /// Stored bytes are damaged. Remedy: restore the file or roll back to another generation.
    Corrupt = 7,
    /// The file is not a Docent file at all. Remedy: check the path.
    NotDocent = 8,
    /// The store was written by another version: a newer one (remedy: upgrade Docent) or one before the first that lasts (remedy:
    /// train again).
    UpgradeRequired = 9,
    /// The operating system refused an input or output operation. Remedy: in the message.
    Io = 10,
    /// The disk is full. Remedy: free space, then run again.
    NoSpace = 11,
    /// Permission denied. Remedy: change the permissions or the user.
    PermissionDenied = 12,
    /// Another publisher holds the store. Remedy: wait for it or stop it.
    Locked = 13,
    /// An earlier fsync failed, so this publisher refuses further work. Remedy: open the store anew.
    Poisoned = 14,
    /// The device asked for does not exist here. Remedy: choose another device.
    DeviceUnavailable = 15,
    /// Training produced NaN or an infinity. Remedy: lower the learning rate; the last good checkpoint is named.
    Diverged = 16,
    /// The work was cancelled by its caller; progress is kept where the message says so.
    Cancelled = 17,
    /// State that belongs to another model or dataset. Remedy: rebuild it or use the matching one.
    StateMismatch = 18,
    /// The object is used by another call and cannot be shared. Remedy: one object per thread.
    Busy = 19,
    /// A defect inside Docent. Remedy: report it.
    Internal = 20,
    /// A panic was caught at the boundary. Remedy: drop the object and report it.
    Panic = 21,
    /// The object was made before a fork, in the parent process. Remedy: make it anew in this process.
    Forked = 22,
    /// What is to be added is there already. Remedy: choose another name, or leave it out.
    AlreadyExists = 23,
}

impl ErrorKind {
    /// The stable number of this kind, as in the C ABI.
    pub fn code(self) -> u32 {
        self as u32
    }
}

/// An error: what failed, on what, and what to do about it.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync + 'static>>,
}

/// The longest message, in bytes: what is quoted in one may be a whole file without a line break.
const LONGEST: usize = 16 << 10;

/// A message without its middle where it is too long: what failed is at its start, the remedy at its end.
fn shortened(message: String) -> String {
    let left_out = message.len().saturating_sub(LONGEST);
    if left_out == 0 {
        return message;
    }
    let boundary = |at: usize| (at..=message.len()).find(|at| message.is_char_boundary(*at)).unwrap_or(message.len());
    let (start, end) = message.split_at(boundary(LONGEST / 2));
    let end = end.get(boundary(LONGEST / 2 + left_out) - start.len()..).unwrap_or_default();
    format!("{start} ... ({left_out} bytes) ... {end}")
}

impl Error {
    /// A new error. `message` names what failed, on what, and the remedy, in one sentence or two; of one that is longer than 16 KiB the middle
    /// is left out.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: shortened(message.into()), source: None }
    }

    /// The same error with the failure that caused it.
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// An input or output failure on `path` while doing `what`; the kind follows from the operating system's code.
    pub fn io(what: &str, path: &std::path::Path, source: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let (kind, remedy) = match source.kind() {
            K::NotFound => (ErrorKind::NotFound, "check the path"),
            K::PermissionDenied => (ErrorKind::PermissionDenied, "change the permissions or run as another user"),
            K::StorageFull | K::QuotaExceeded => (ErrorKind::NoSpace, "free space on that disk, then run again"),
            K::ReadOnlyFilesystem => (ErrorKind::PermissionDenied, "choose a writable file system"),
            _ => (ErrorKind::Io, "see the operating system's message"),
        };
        Self::new(kind, format!("{what} {}: {source}; {remedy}", path.display())).with_source(source)
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The full message.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|s| s.as_ref() as _)
    }
}

/// Shorthand: `err!(InvalidArgument, "k is {k}; ask for at least 1")`.
macro_rules! err {
    ($kind:ident, $($arg:tt)*) => {
        $crate::error::Error::new($crate::error::ErrorKind::$kind, format!($($arg)*))
    };
}
pub(crate) use err;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_quotes_no_whole_file() {
        let message = |middle: &str| Error::new(ErrorKind::InvalidData, format!("start{middle}end")).message;
        assert_eq!(message("é"), "startéend");
        for middle in ["é".repeat(1 << 20), "e".repeat(LONGEST)] {
            let short = message(&middle);
            assert!(
                short.len() < LONGEST + 100 && short.starts_with("start") && short.ends_with("end"),
                "{}",
                short.len()
            );
            assert!(short.contains(" bytes) ... "));
        }
    }
}
