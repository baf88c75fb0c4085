//! From decoded bytes to records: lines split on a delimiter, or quoted CSV.

use super::source::{self, Source};
use crate::error::{Result, err};
use std::cell::Cell;
use std::io::BufRead;
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

/// The records of one file, blank lines left out.
pub(super) struct Rows {
    pub path: PathBuf,
    pub position: Rc<Cell<u64>>,
    pub size: u64,
    compressed: bool,
    form: Form,
    line: u64,
}

enum Form {
    /// Without a delimiter, runs of spaces and tabs divide.
    Lines {
        reader: Box<dyn BufRead>,
        buffer: Vec<u8>,
        delimiter: Option<String>,
    },
    Quoted {
        reader: Box<csv::Reader<Box<dyn BufRead>>>,
        record: csv::ByteRecord,
    },
}

impl Rows {
    pub fn new(path: &Path, source: Source, divider: Divider) -> Self {
        let compressed = source.is_compressed();
        let form = match divider {
            Divider::Quoted(byte) => {
                let mut builder = csv::ReaderBuilder::new();
                builder.has_headers(false).flexible(true).delimiter(byte);
                Form::Quoted { reader: Box::new(builder.from_reader(source.reader)), record: csv::ByteRecord::new() }
            }
            Divider::Text(text) => Form::Lines { reader: source.reader, buffer: Vec::new(), delimiter: Some(text) },
            Divider::Whitespace => Form::Lines { reader: source.reader, buffer: Vec::new(), delimiter: None },
        };
        let (position, size) = (source.position, source.size);
        Self { path: path.to_owned(), position, size, compressed, form, line: 0 }
    }

    /// Reads the next record into `out`.
    ///
    /// # Errors
    /// Only those after which nothing more can be read.
    pub fn next(&mut self, out: &mut Record) -> Result<Next> {
        match &mut self.form {
            Form::Lines { reader, buffer, delimiter } => loop {
                buffer.clear();
                let read = reader.read_until(b'\n', buffer);
                if read.map_err(|e| source::failed(&self.path, self.compressed, e))? == 0 {
                    return Ok(Next::End);
                }
                self.line += 1;
                out.line = self.line;
                let line = buffer.strip_suffix(b"\n").unwrap_or(buffer);
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(match std::str::from_utf8(line) {
                    Ok(line) => {
                        out.split(line, delimiter.as_deref());
                        Next::Record
                    }
                    Err(e) => Next::Malformed(not_utf8(line, e.valid_up_to())),
                });
            },
            Form::Quoted { reader, record } => {
                let more = reader.read_byte_record(record).map_err(|e| match e.into_kind() {
                    csv::ErrorKind::Io(e) => source::failed(&self.path, self.compressed, e),
                    other => err!(InvalidData, "{}: {other:?}; correct the file", self.path.display()),
                })?;
                if !more {
                    return Ok(Next::End);
                }
                out.line = record.position().map_or(0, csv::Position::line);
                out.text.clear();
                out.bounds.clear();
                for field in record.iter() {
                    match std::str::from_utf8(field) {
                        Ok(field) => {
                            let start = out.text.len();
                            out.text.push_str(field);
                            out.bounds.push((start, out.text.len()));
                        }
                        Err(e) => return Ok(Next::Malformed(not_utf8(field, e.valid_up_to()))),
                    }
                }
                Ok(Next::Record)
            }
        }
    }
}

fn not_utf8(bytes: &[u8], at: usize) -> String {
    let byte = bytes.get(at).copied().unwrap_or(0);
    format!("byte 0x{byte:02X} is not UTF-8; correct it, or name the file's `encoding`, such as \"iso-8859-1\"")
}
