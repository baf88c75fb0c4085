//! Lines of a text that somebody brings, one at a time and none without end.

use docent::{Error, ErrorKind, Result};
use std::io::{BufRead, Read};
use std::path::Path;

/// The longest line, in bytes.
const LONGEST: u64 = 16 << 20;

/// Passes each line, without its end, and its number from 1 to `line`.
///
/// # Errors
/// Those of `line` and of reading; `InvalidData` naming the line that is no UTF-8 or too long.
pub(crate) fn each_line(
    mut from: impl BufRead,
    path: &Path,
    mut line: impl FnMut(u64, &str) -> Result<()>,
) -> Result<()> {
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        let read = from.by_ref().take(LONGEST + 2).read_until(b'\n', &mut bytes);
        if read.map_err(|e| Error::io("cannot read", path, e))? == 0 {
            break;
        }
        let wrong =
            |what: &str| Error::new(ErrorKind::InvalidData, format!("line {number} of {} {what}", path.display()));
        let line_bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        if line_bytes.len() as u64 > LONGEST {
            return Err(wrong("is longer than 16 MiB; write each record in a line of its own"));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| wrong("is not UTF-8; write it as UTF-8"))?;
        line(number, text.trim_end_matches(['\r', '\n']))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_numbers_and_an_end() {
        let mut seen = Vec::new();
        let mut read = |text: &[u8]| {
            seen.clear();
            each_line(text, Path::new("x"), |number, line| {
                seen.push((number, line.to_owned()));
                Ok(())
            })
            .map(|()| seen.clone())
        };
        let found = read(b"a\r\n\nb").unwrap();
        assert_eq!(found, [(1, "a".to_owned()), (2, String::new()), (3, "b".to_owned())]);
        let error = read(b"a\n\xff\n").unwrap_err();
        assert!(
            error.kind() == ErrorKind::InvalidData && error.message().contains("line 2 of x is not UTF-8"),
            "{error}"
        );
        let long = [b"a\n".as_slice(), &vec![b'b'; LONGEST as usize + 1]].concat();
        let error = read(&long).unwrap_err();
        assert!(error.message().contains("line 2 of x is longer than 16 MiB"), "{error}");
    }
}
