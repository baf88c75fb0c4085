//! From decoded bytes to records: lines split on a delimiter, or quoted CSV.

use super::source::{self, Source};
use crate::error::{Result, err};
use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// How a line is divided.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Divider {
    /// At every occurrence of this text.
    Text(String),
    /// At every run of spaces and tabs.
    Whitespace,
    /// At this byte, except inside double quotes.
    Quoted(u8),
}

impl Divider {
    /// From the keys `delimiter` and `quote`, with defaults by the file's name.
    pub fn new(delimiter: Option<&str>, quote: Option<bool>, path: &Path) -> Result<Self> {
        let name = path.to_string_lossy().to_ascii_lowercase();
        let plain = name.trim_end_matches(".zst").trim_end_matches(".gz");
        let delimiter = delimiter.unwrap_or(if plain.ends_with(".tsv") { "\t" } else { "," });
        match (delimiter, quote.unwrap_or(delimiter == ",")) {
            ("", _) => Err(err!(InvalidConfig, "`delimiter` is empty; write what stands between two columns")),
            (text, _) if text.contains(['\n', '\r']) => {
                Err(err!(InvalidConfig, "`delimiter` holds a line break; write what stands between two columns"))
            }
            ("whitespace", false) => Ok(Self::Whitespace),
            (text, false) => Ok(Self::Text(text.to_owned())),
            (text, true) => match text.as_bytes() {
                [byte] if byte.is_ascii() && *byte != b'"' => Ok(Self::Quoted(*byte)),
                _ => Err(err!(
                    InvalidConfig,
                    "`quote = true` needs a delimiter of one character, not `{text}`; remove one"
                )),
            },
        }
    }
}

impl Divider {
    /// Whether lines are divided at `text`.
    pub fn is(&self, text: &str) -> bool {
        match self {
            Self::Text(own) => own == text,
            Self::Whitespace => text == " " || text == "\t",
            Self::Quoted(byte) => text.as_bytes() == [*byte],
        }
    }
}

/// One record: its columns, and the line where it starts.
#[derive(Debug, Default)]
pub(super) struct Record {
    text: String,
    bounds: Vec<(usize, usize)>,
    pub line: u64,
}

impl Record {
    /// The column at `index`, from 0.
    pub fn get(&self, index: usize) -> Option<&str> {
        let &(start, end) = self.bounds.get(index)?;
        self.text.get(start..end)
    }

    pub fn len(&self) -> usize {
        self.bounds.len()
    }

    pub fn columns(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|i| self.get(i))
    }

    /// Equal for records with the same columns.
    pub fn digest(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.columns().for_each(|c| c.hash(&mut hasher));
        hasher.finish()
    }

    /// Divides `line` at `delimiter`, or at runs of spaces and tabs.
    fn split(&mut self, line: &str, delimiter: Option<&str>) {
        self.text.clear();
        self.bounds.clear();
        self.text.push_str(line);
        let mut from = 0;
        match delimiter {
            Some(delimiter) => {
                for part in line.split(delimiter) {
                    self.bounds.push((from, from + part.len()));
                    from += part.len() + delimiter.len();
                }
            }
            None => {
                for part in line.split([' ', '\t']) {
                    if !part.is_empty() {
                        self.bounds.push((from, from + part.len()));
                    }
                    from += part.len() + 1;
                }
            }
        }
    }
}

/// What a call for the next record gave.
pub(super) enum Next {
    Record,
    /// A record that cannot be read; the reason in words. Reading may go on.
    Malformed(String),
    End,
}

/// What a row of the file looks like: it tells a quoted text of several lines from rows that a stray quote has swallowed.
pub(super) struct Shape<'a> {
    /// Columns of each row, where all have the same number.
    pub width: Option<usize>,
    /// Whether a line by itself would be a row.
    pub is_row: &'a dyn Fn(&Record) -> bool,
}

/// The records of one file, blank lines left out.
pub(super) struct Rows {
    pub path: PathBuf,
    pub position: Rc<Cell<u64>>,
    pub size: u64,
    compressed: bool,
    reader: Box<dyn BufRead>,
    divider: Divider,
    /// Lines that were looked at and are still to be read.
    ahead: VecDeque<Vec<u8>>,
    /// The memory of a line that was read, for the next one.
    spare: Vec<u8>,
    /// The number of the line that was read last, from 1.
    line: u64,
}

impl Rows {
    pub fn new(path: &Path, source: Source, divider: Divider) -> Self {
        let compressed = source.is_compressed();
        let Source { reader, position, size, .. } = source;
        let (ahead, spare) = (VecDeque::new(), Vec::new());
        Self { path: path.to_owned(), position, size, compressed, reader, divider, ahead, spare, line: 0 }
    }

    /// Reads the next record into `out`. A record that cannot be read ends with its first line: reading goes on at the next.
    ///
    /// # Errors
    /// Only those after which nothing more can be read.
    pub fn next(&mut self, out: &mut Record, shape: &Shape<'_>) -> Result<Next> {
        loop {
            if !self.look_ahead(0)? {
                return Ok(Next::End);
            }
            let Some(line) = self.ahead.pop_front() else { return Ok(Next::End) };
            self.line += 1;
            out.line = self.line;
            let blank = line.iter().all(u8::is_ascii_whitespace);
            let next = if blank { None } else { Some(self.divide(&line, out, shape)?) };
            self.spare = line;
            if let Some(next) = next {
                return Ok(next);
            }
        }
    }

    /// Divides `line`, and those after it that belong to it.
    fn divide(&mut self, line: &[u8], out: &mut Record, shape: &Shape<'_>) -> Result<Next> {
        let delimiter = match self.divider {
            Divider::Quoted(byte) => return self.quoted(line, byte, out, shape),
            Divider::Text(ref text) => Some(text.as_str()),
            Divider::Whitespace => None,
        };
        let (line, _) = without_end(line);
        Ok(match std::str::from_utf8(line) {
            Ok(line) => {
                out.split(line, delimiter);
                Next::Record
            }
            Err(e) => Next::Malformed(not_utf8(line, e.valid_up_to())),
        })
    }

    /// Whether there is an `index`-th line after those that were read.
    fn look_ahead(&mut self, index: usize) -> Result<bool> {
        while self.ahead.len() <= index {
            let mut line = std::mem::take(&mut self.spare);
            line.clear();
            let read = self.reader.by_ref().take(LONGEST_LINE as u64 + 2).read_until(b'\n', &mut line);
            if read.map_err(|e| source::failed(&self.path, self.compressed, e))? == 0 {
                return Ok(false);
            }
            if without_end(&line).0.len() > LONGEST_LINE {
                return Err(err!(
                    InvalidData,
                    "{} line {}: it is longer than {} MiB; check that the file is text with a line break after each row",
                    self.path.display(),
                    self.line + self.ahead.len() as u64 + 1,
                    LONGEST_LINE >> 20
                ));
            }
            self.ahead.push_back(line);
        }
        Ok(true)
    }

    /// Reads the record that begins with `first`; lines that it goes on in are taken from those ahead once it is whole.
    fn quoted(&mut self, first: &[u8], delimiter: u8, out: &mut Record, shape: &Shape<'_>) -> Result<Next> {
        let mut pieces = Pieces::new(delimiter, out);
        pieces.add(first);
        let (mut used, mut opened, mut bytes) = (0, 0, 0);
        let mut reason = None;
        while pieces.is_open() && reason.is_none() {
            if !self.look_ahead(used)? {
                reason = Some(format!("a quote opens here and is never closed; {STRAY}"));
                break;
            }
            let Some(line) = self.ahead.get(used) else { break };
            used += 1;
            bytes += line.len();
            pieces.add(line);
            if bytes > LONGEST {
                reason = Some(format!("a quote opens here and is not closed within {LONGEST} bytes; {STRAY}"));
            } else if pieces.stray {
                let at = self.line + used as u64;
                reason = Some(format!(
                    "a quote opens here, and the next one, in line {at}, is not followed by the delimiter; {STRAY}"
                ));
            } else if pieces.opened {
                opened = used;
            }
        }
        if reason.is_none() && used > 0 {
            let last = self.line + used as u64;
            match shape.width {
                Some(width) if width != pieces.bounds.len() => {
                    reason = Some(format!(
                        "a quote opens here and closes in line {last}, which makes {} columns, not {width}; {STRAY}",
                        pieces.bounds.len()
                    ));
                }
                _ if self.are_rows(used, delimiter, shape) => {
                    reason = Some(format!(
                        "a quote opens here and closes in line {last}, but the lines between look like rows; {STRAY}"
                    ));
                }
                _ => {}
            }
        }
        if let Some(reason) = reason {
            out.line = self.line + opened as u64;
            return Ok(Next::Malformed(reason));
        }
        self.ahead.drain(..used);
        self.line += used as u64;
        Ok(match pieces.give(out) {
            None => Next::Record,
            Some(reason) => Next::Malformed(reason),
        })
    }

    /// Whether at least half of the next `count` lines would be rows by themselves.
    fn are_rows(&self, count: usize, delimiter: u8, shape: &Shape<'_>) -> bool {
        let (mut lines, mut rows) = (0, 0);
        let mut record = Record::default();
        for line in self.ahead.iter().take(count).filter(|l| !l.iter().all(u8::is_ascii_whitespace)) {
            lines += 1;
            let mut pieces = Pieces::new(delimiter, &mut record);
            pieces.add(line);
            let whole = !pieces.is_open() && pieces.give(&mut record).is_none();
            rows += usize::from(whole && (shape.is_row)(&record));
        }
        rows > 0 && 2 * rows >= lines
    }
}

/// The longest line, in bytes: no input makes reading take more memory than a few times that.
const LONGEST_LINE: usize = 4 << 20;
/// The longest record with a line break inside quotes, in bytes.
const LONGEST: usize = 1 << 20;

/// The remedy for a stray quote.
const STRAY: &str = "close it, write `\"\"` for a quote inside quotes, or set quote = false";

/// A line without its end, and the end.
fn without_end(line: &[u8]) -> (&[u8], &[u8]) {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    line.split_at(text.len())
}

/// A record with quotes while its lines are read.
struct Pieces {
    delimiter: u8,
    text: Vec<u8>,
    bounds: Vec<(usize, usize)>,
    /// Where the column that is read starts in `text`.
    start: usize,
    state: State,
    /// Whether the line that was added last has opened the quote that is still open.
    opened: bool,
    /// Whether something other than the delimiter follows a quote that was opened in an earlier line.
    stray: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Nothing of the column was read.
    Start,
    /// Outside quotes, or behind them.
    Plain,
    Quoted,
    /// After a quote inside quotes: it closes them, or another follows.
    Closing,
}

impl Pieces {
    /// An empty record, in the memory of `out`.
    fn new(delimiter: u8, out: &mut Record) -> Self {
        let (mut text, mut bounds) = (std::mem::take(&mut out.text).into_bytes(), std::mem::take(&mut out.bounds));
        text.clear();
        bounds.clear();
        Self { delimiter, text, bounds, start: 0, state: State::Start, opened: false, stray: false }
    }

    /// Whether a quote is open.
    fn is_open(&self) -> bool {
        self.state == State::Quoted
    }

    /// Adds a line of the file, with its end.
    fn add(&mut self, line: &[u8]) {
        let (line, end) = without_end(line);
        let mut earlier = self.is_open();
        self.opened = false;
        for &byte in line {
            match (self.state, byte) {
                (State::Quoted, b'"') => self.state = State::Closing,
                (State::Quoted, _) => self.text.push(byte),
                (State::Closing, b'"') => {
                    self.text.push(byte);
                    self.state = State::Quoted;
                }
                (State::Start, b'"') => {
                    self.state = State::Quoted;
                    self.opened = true;
                    earlier = false;
                }
                (_, byte) if byte == self.delimiter => self.end_column(),
                (state, _) => {
                    self.stray |= earlier && state == State::Closing;
                    self.text.push(byte);
                    self.state = State::Plain;
                }
            }
        }
        if self.is_open() {
            self.text.extend_from_slice(end);
        } else {
            self.end_column();
        }
    }

    fn end_column(&mut self) {
        self.bounds.push((self.start, self.text.len()));
        self.start = self.text.len();
        self.state = State::Start;
    }

    /// Puts the columns into `out`; gives the reason in words where they are no text.
    fn give(self, out: &mut Record) -> Option<String> {
        match String::from_utf8(self.text) {
            Ok(text) => {
                (out.text, out.bounds) = (text, self.bounds);
                None
            }
            Err(e) => Some(not_utf8(e.as_bytes(), e.utf8_error().valid_up_to())),
        }
    }
}

fn not_utf8(bytes: &[u8], at: usize) -> String {
    let byte = bytes.get(at).copied().unwrap_or(0);
    format!("byte 0x{byte:02X} is not UTF-8; correct it, or name the file's `encoding`, such as \"iso-8859-1\"")
}
