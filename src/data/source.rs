//! From a name in `dataset.toml` to decoded bytes: finding files, decompressing, decoding.

use crate::error::{Error, Result, err};
use encoding_rs::{Decoder, DecoderResult, Encoding};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

const SUFFIXES: [&str; 2] = [".zst", ".gz"];
const BUFFER: usize = 1 << 17;

/// The files that `name` stands for, in order of their names. A name may be a glob. Where nothing has that name, its
/// compressed or decompressed form is taken.
pub(super) fn find(base: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let plain = SUFFIXES.iter().find_map(|s| name.strip_suffix(s)).unwrap_or(name);
    let compressed = SUFFIXES.iter().map(|s| format!("{plain}{s}"));
    let candidates: Vec<String> = [name.to_owned(), plain.to_owned()].into_iter().chain(compressed).collect();
    for candidate in &candidates {
        let path = base.join(candidate);
        if path.is_file() {
            return Ok(vec![path]);
        }
        if !candidate.contains(['*', '?', '[']) {
            continue;
        }
        let pattern = Path::new(&glob::Pattern::escape(&base.to_string_lossy())).join(candidate);
        let matches = glob::glob(&pattern.to_string_lossy())
            .map_err(|e| err!(InvalidConfig, "`files = \"{name}\"` is no pattern: {e}; correct it"))?;
        let mut found = Vec::new();
        for path in matches {
            let path = path.map_err(|e| {
                let at = e.path().to_owned();
                Error::io("listing", &at, e.into())
            })?;
            if path.is_file() {
                found.push(path);
            }
        }
        found.sort();
        if !found.is_empty() {
            return Ok(found);
        }
    }
    Err(err!(
        NotFound,
        "no file `{name}` in {} (nor {}); check `files`, or give the folder of the data",
        base.display(),
        candidates
            .get(1..)
            .unwrap_or(&[])
            .iter()
            .filter(|c| *c != name)
            .map(|c| format!("`{c}`"))
            .collect::<Vec<_>>()
            .join(", ")
    ))
}

/// An open file: decoded bytes, and how far into the stored ones it is.
pub(super) struct Source {
    pub reader: Box<dyn BufRead>,
    /// Stored (compressed) bytes read so far.
    pub position: Rc<Cell<u64>>,
    /// Stored bytes in all.
    pub size: u64,
    compressed: bool,
}

impl Source {
    /// Opens `path`, decompresses by its suffix and decodes from `encoding` (a WHATWG label). A byte order mark is
    /// dropped.
    pub fn open(path: &Path, encoding: Option<&str>) -> Result<Self> {
        let fail = |e| Error::io("opening", path, e);
        let encoding = match encoding {
            None => encoding_rs::UTF_8,
            Some(label) => Encoding::for_label(label.as_bytes()).ok_or_else(|| {
                err!(InvalidConfig, "`{label}` is no encoding; write for example \"utf-8\" or \"iso-8859-1\"")
            })?,
        };
        let file = File::open(path).map_err(fail)?;
        let size = file.metadata().map_err(fail)?.len();
        let position = Rc::new(Cell::new(0));
        let counted = Counted { inner: file, position: position.clone() };
        let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
        let (stream, compressed): (Box<dyn Read>, bool) = match extension.as_deref() {
            Some("zst") => (Box::new(zstd::Decoder::new(counted).map_err(fail)?), true),
            Some("gz") => {
                (Box::new(flate2::read::MultiGzDecoder::new(BufReader::with_capacity(BUFFER, counted))), true)
            }
            _ => (Box::new(counted), false),
        };
        let mut bytes = BufReader::with_capacity(BUFFER, stream);
        let decoded = encoding != encoding_rs::UTF_8;
        let mut source = Self { reader: Box::new(io::empty()), position, size, compressed };
        if decoded {
            let decoding = Decoding::new(bytes, encoding.new_decoder_with_bom_removal());
            source.reader = Box::new(BufReader::with_capacity(BUFFER, decoding));
        } else {
            let mut start = Vec::new();
            bytes.by_ref().take(3).read_to_end(&mut start).map_err(|e| source.failed(path, e))?;
            if start == b"\xEF\xBB\xBF" {
                start.clear();
            }
            source.reader = Box::new(io::Cursor::new(start).chain(bytes));
        }
        Ok(source)
    }

    /// The error of a failed read.
    pub fn failed(&self, path: &Path, error: io::Error) -> Error {
        failed(path, self.compressed, error)
    }

    /// Whether the file is stored compressed.
    pub fn is_compressed(&self) -> bool {
        self.compressed
    }
}

/// The error of a failed read of `path`.
pub(super) fn failed(path: &Path, compressed: bool, error: io::Error) -> Error {
    if let Some(Undecodable { message }) = error.get_ref().and_then(|e| e.downcast_ref()) {
        return err!(InvalidData, "{}: {message}", path.display());
    }
    if compressed && error.raw_os_error().is_none() {
        let name = path.display();
        return err!(InvalidData, "{name} cannot be decompressed: {error}; it is damaged or cut short, fetch it again");
    }
    Error::io("reading", path, error)
}

struct Counted {
    inner: File,
    position: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.position.set(self.position.get() + n as u64);
        Ok(n)
    }
}

#[derive(Debug)]
struct Undecodable {
    message: String,
}

impl std::fmt::Display for Undecodable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Undecodable {}

/// The longest entry of a JSON object, in bytes without the blanks between its parts: no input makes reading take more memory than some
/// dozen times that.
const LONGEST_ENTRY: usize = 1 << 20;

/// The bytes of a JSON object, none of whose entries is without end.
pub(super) struct Entries<R> {
    inner: R,
    /// How many brackets are open.
    depth: usize,
    quoted: bool,
    escaped: bool,
    /// Bytes of the entry so far.
    length: usize,
    blank: bool,
}

impl<R> Entries<R> {
    pub fn new(inner: R) -> Self {
        Self { inner, depth: 0, quoted: false, escaped: false, length: 0, blank: true }
    }

    /// Whether nothing but blanks was read so far.
    pub fn is_blank(&self) -> bool {
        self.blank
    }

    fn look(&mut self, byte: u8) {
        if !self.quoted && byte.is_ascii_whitespace() {
            return;
        }
        self.blank = false;
        self.length += 1;
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.quoted => self.escaped = true,
            b'"' => self.quoted = !self.quoted,
            _ if self.quoted => {}
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            b',' if self.depth <= 1 => self.length = 0,
            _ => {}
        }
    }
}

impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        for byte in buffer.get(..n).unwrap_or(&[]) {
            self.look(*byte);
            if self.length > LONGEST_ENTRY {
                let message = format!("an entry is longer than {} MiB; shorten its list", LONGEST_ENTRY >> 20);
                return Err(io::Error::new(io::ErrorKind::InvalidData, Undecodable { message }));
            }
        }
        Ok(n)
    }
}

/// Turns bytes of another encoding into UTF-8 as they are read.
struct Decoding<R> {
    inner: R,
    decoder: Decoder,
    lines: u64,
    /// Decoded bytes that did not fit the caller's buffer.
    pending: Vec<u8>,
    taken: usize,
    done: bool,
}

impl<R: BufRead> Decoding<R> {
    fn new(inner: R, decoder: Decoder) -> Self {
        Self { inner, decoder, lines: 1, pending: Vec::new(), taken: 0, done: false }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.pending.clear();
        self.taken = 0;
        while self.pending.is_empty() && !self.done {
            let input = self.inner.fill_buf()?;
            let last = input.is_empty();
            let mut text = String::with_capacity(input.len() * 3 + 16);
            let (result, read) = self.decoder.decode_to_string_without_replacement(input, &mut text, last);
            self.inner.consume(read);
            self.lines += text.bytes().filter(|b| *b == b'\n').count() as u64;
            if let DecoderResult::Malformed(_, _) = result {
                let encoding = self.decoder.encoding().name();
                let message = format!(
                    "line {} holds bytes that are not {encoding}; correct the line or the key `encoding`",
                    self.lines
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, Undecodable { message }));
            }
            self.done = last && result == DecoderResult::InputEmpty;
            self.pending = text.into_bytes();
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Decoding<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.taken >= self.pending.len() {
            self.fill()?;
        }
        let mut rest = self.pending.get(self.taken..).unwrap_or(&[]);
        let n = rest.read(buffer)?;
        self.taken += n;
        Ok(n)
    }
}
