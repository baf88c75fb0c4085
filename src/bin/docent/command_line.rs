//! Values that commands share: threads, the words of this very command.

use docent::{Error, Result};
use std::num::NonZeroUsize;

/// The cores that this process may use.
pub(crate) fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// A count of at least 1.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("give a whole number from 1 on".into()),
        Ok(n) => Ok(n),
    }
}

/// An id: any text but the empty one.
pub(crate) fn id(text: &str) -> Result<String, String> {
    match text {
        "" => Err("an id is missing; separate ids by single commas".into()),
        _ => Ok(text.to_owned()),
    }
}

/// What clap prints for a value that the library refuses.
pub(crate) fn refused(e: Error) -> String {
    e.message().to_owned()
}

/// This command as it could be typed again.
pub(crate) fn typed() -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,=+@%".contains(c);
    let quote = |word: String| match !word.is_empty() && word.chars().all(plain) {
        true => word,
        false => format!("'{}'", word.replace('\'', "'\\''")),
    };
    let words = std::env::args_os().skip(1).map(|w| quote(w.to_string_lossy().into_owned()));
    std::iter::once("docent".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// A word of a command that a person is told to type.
pub(crate) fn word(path: &std::path::Path) -> String {
    let text = path.display().to_string();
    if text.contains(char::is_whitespace) { format!("'{}'", text.replace('\'', "'\\''")) } else { text }
}
