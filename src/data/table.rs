//! One described table as a stream of rows with resolved columns, over all its files.

use super::describe::{ColumnRef, FieldSource, Format, ReadAs};
use super::moment::TimeFormat;
use super::rows::{Divider, Next, Record, Rows, Shape};
use super::source::{self, Source};
use crate::error::{Result, err};
use crate::event::{Cell, FieldValue};
use crate::progress::{Cancel, ProgressEvent, ProgressSink};
use std::path::{Path, PathBuf};

/// What is wrong with a row: a reason in words, which names the column where there is one.
pub(super) type Reason = String;

/// Why a row is left out.
#[derive(Debug)]
pub(super) enum Fault {
    /// It cannot be read.
    Malformed(Reason),
    /// Its id is one of the texts that mean "missing".
    WithoutId,
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Self {
        Self::Malformed(reason)
    }
}

/// What reading one row gave.
pub(super) type Taken<T> = std::result::Result<T, Fault>;

/// What becomes of a row: `Ok(Err(..))` is a fault of that row alone, `Err` ends the reading.
type Row<'a> = dyn FnMut(&Record, &Columns, &Path) -> Result<Taken<()>> + 'a;

/// What a wanted column holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Holds {
    Id,
    Time(TimeFormat),
    Number,
    /// Anything else.
    Text,
}

impl Holds {
    /// Whether `text` can be only that, and no name of a column.
    fn is_value(&self, text: &str) -> bool {
        match self {
            Self::Time(format) => matches!(format.read(text), Ok(Some(_))),
            Self::Number => text.parse::<f64>().is_ok(),
            Self::Id => text.starts_with(|c: char| c.is_ascii_digit()) && text.parse::<f64>().is_ok(),
            Self::Text => false,
        }
    }
}

/// The columns that a table asks for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    columns: Vec<(ColumnRef, Holds)>,
    /// Whether rows differ in their number of columns.
    pub varied: bool,
}

impl Wanted {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Adds a column; gives its place.
    pub fn add(&mut self, column: &ColumnRef, holds: Holds) -> usize {
        self.columns.push((column.clone(), holds));
        self.columns.len() - 1
    }

    /// Adds a column, where there is one.
    pub fn add_some(&mut self, column: Option<&ColumnRef>, holds: Holds) -> Option<usize> {
        column.map(|column| self.add(column, holds))
    }
}

/// Counts malformed rows and stops at the first one past the tolerance.
#[derive(Debug, Default)]
pub(super) struct Faults {
    tolerance: u64,
    pub count: u64,
    first: Vec<String>,
    without_id: u64,
    first_without_id: String,
}

impl Faults {
    const SHOWN: usize = 5;

    pub fn new(tolerance: u64) -> Self {
        Self { tolerance, ..Self::default() }
    }

    /// Notes a row that is left out.
    pub fn add(&mut self, path: &Path, line: u64, fault: &Fault) -> Result<()> {
        let reason = match fault {
            Fault::Malformed(reason) => reason,
            Fault::WithoutId => {
                if self.without_id == 0 {
                    self.first_without_id = format!("{} line {line}", path.display());
                }
                self.without_id += 1;
                return Ok(());
            }
        };
        self.count += 1;
        if self.first.len() < Self::SHOWN {
            self.first.push(format!("{} line {line}: {reason}", path.display()));
        }
        if self.count <= self.tolerance {
            return Ok(());
        }
        let found =
            if self.count == 1 { "a malformed row".to_owned() } else { format!("{} malformed rows", self.count) };
        Err(err!(
            InvalidData,
            "{found}, {} tolerated: {}; correct the input, or raise `tolerance`",
            self.tolerance,
            self.shown()
        ))
    }

    /// What to tell of the rows that were left out.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.count > 0 {
            warnings.push(format!("{} malformed rows were left out: {}", self.count, self.shown()));
        }
        if self.without_id > 0 {
            warnings.push(format!(
                "{} rows without an id were left out (their id is one of the texts in `missing`), the first is {}",
                self.without_id, self.first_without_id
            ));
        }
        warnings
    }

    fn shown(&self) -> String {
        let more = self.count.saturating_sub(self.first.len() as u64);
        let tail = if more > 0 { format!("; and {more} more") } else { String::new() };
        format!("{}{tail}", self.first.join("; "))
    }
}

/// Everything that reading needs to know about its surroundings.
pub(super) struct Reading<'a> {
    pub base: &'a Path,
    pub observer: &'a mut dyn ProgressSink,
    pub cancel: &'a Cancel,
    pub faults: Faults,
}

impl Reading<'_> {
    /// The files of a table.
    pub fn files(&self, table: &str, format: &Format) -> Result<Vec<PathBuf>> {
        if format.files.is_empty() {
            return Err(err!(InvalidConfig, "[{table}] lists no file; name at least one in `files`"));
        }
        let mut files = Vec::new();
        for name in &format.files {
            for path in source::find(self.base, name)? {
                if !files.contains(&path) {
                    files.push(path);
                }
            }
        }
        Ok(files)
    }

    /// Announces a file.
    pub fn stage(&mut self, path: &Path, size: u64) {
        let file = path.file_name().map_or_else(|| path.to_string_lossy(), |n| n.to_string_lossy());
        self.observer.on_event(&ProgressEvent::Stage { name: format!("read {file}"), total: size, unit: "bytes" });
    }

    /// The first row of a file was taken for its header, and `why` speaks against it: an error, or a warning where `header = true`
    /// is written.
    fn suspect(&mut self, path: &Path, format: &Format, why: &str) -> Result<()> {
        let what = format!("the first row of {} was taken for a header and looks like data: {why}", path.display());
        if format.header.is_none() {
            return Err(err!(InvalidConfig, "{what}; write header = false, or header = true if it is a header"));
        }
        self.observer.on_event(&ProgressEvent::Warning(format!("{what}; if it is data, write header = false")));
        Ok(())
    }

    /// Stops if asked to.
    pub fn go_on(&self, path: &Path) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(err!(Cancelled, "reading {} was cancelled; nothing was written", path.display()));
        }
        Ok(())
    }

    /// Passes every row of a table to `row`, with the column indices of `wanted` in its order.
    pub fn each_row(&mut self, table: &str, format: &Format, wanted: &Wanted, row: &mut Row<'_>) -> Result<()> {
        for path in self.files(table, format)? {
            self.each_row_of(&path, table, format, wanted, row)?;
        }
        Ok(())
    }

    fn each_row_of(
        &mut self,
        path: &Path,
        table: &str,
        format: &Format,
        wanted: &Wanted,
        row: &mut Row<'_>,
    ) -> Result<()> {
        let divider = Divider::new(format.delimiter.as_deref(), format.quote, path)
            .map_err(|e| err!(InvalidConfig, "[{table}] {}", e.message()))?;
        let mut rows = Rows::new(path, Source::open(path, format.encoding.as_deref())?, divider.clone());
        self.stage(path, rows.size);
        let mut record = Record::default();
        let header = format.header.unwrap_or(format.columns.is_empty());
        let mut names: Option<Vec<String>> = (!format.columns.is_empty()).then(|| format.columns.clone());
        if header {
            match rows.next(&mut record, &Shape { width: None, is_row: &|_| false })? {
                Next::End => return Err(empty(path)),
                Next::Malformed(reason) => {
                    return Err(err!(InvalidData, "{} line {}: {reason}", path.display(), record.line));
                }
                Next::Record if names.is_none() => names = Some(record.columns().map(str::to_owned).collect()),
                Next::Record => {}
            }
        }
        let columns = Columns::resolve(path, table, names.as_deref(), wanted, &divider, header)?;
        let mut header = Header::new(&record, format, wanted, &columns, header);
        if let Some(at) = header.value() {
            self.suspect(path, format, &header.told(at, "is no name of a column"))?;
            header.clear();
        }
        let mut width = columns.width;
        let mut seen = 0u64;
        loop {
            let is_row = |record: &Record| columns.are_in(record, wanted, width, &format.missing);
            let shape = Shape { width: width.filter(|_| !wanted.varied), is_row: &is_row };
            let taken = match rows.next(&mut record, &shape)? {
                Next::End => break,
                Next::Malformed(reason) => Err(reason.into()),
                Next::Record => match columns.check(&record, &divider) {
                    Ok(()) => {
                        width.get_or_insert(record.len());
                        row(&record, &columns, path)?
                    }
                    Err(reason) => Err(reason.into()),
                },
            };
            seen += 1;
            match taken {
                Ok(()) => {
                    if let Some(at) = header.comes_again(&record, wanted, &columns) {
                        let why = format!("comes again in line {}", record.line);
                        self.suspect(path, format, &header.told(at, &why))?;
                        header.clear();
                    }
                }
                Err(fault) => self.faults.add(path, record.line, &fault)?,
            }
            if seen.is_multiple_of(8192) {
                self.go_on(path)?;
                self.observer.on_event(&ProgressEvent::Advance { done: rows.position.get() });
            }
        }
        if seen == 0 {
            return Err(empty(path));
        }
        self.observer.on_event(&ProgressEvent::Advance { done: rows.size });
        self.go_on(path)
    }
}

/// The first row of a file, as long as it may be an event, item or entity that was taken for the header.
struct Header {
    /// The text of each wanted column; empty where the row is known to be the header.
    cells: Vec<String>,
    /// Whether each is a value of its column.
    values: Vec<bool>,
    names: Vec<String>,
}

impl Header {
    /// Columns that are asked for by their names are those of a header, which needs no proof.
    fn new(record: &Record, format: &Format, wanted: &Wanted, columns: &Columns, is_header: bool) -> Self {
        let named = |(column, _): &(ColumnRef, Holds)| matches!(column, ColumnRef::Name(_));
        if !is_header || (format.columns.is_empty() && wanted.columns.iter().any(named)) {
            return Self { cells: Vec::new(), values: Vec::new(), names: Vec::new() };
        }
        let cells: Vec<String> = (0..wanted.len()).map(|i| columns.text(record, i).trim().to_owned()).collect();
        let values = cells.iter().zip(&wanted.columns).map(|(cell, (_, holds))| holds.is_value(cell)).collect();
        Self { cells, values, names: columns.names.clone() }
    }

    fn clear(&mut self) {
        self.cells.clear();
    }

    /// The first column whose text is a value and no name.
    fn value(&self) -> Option<usize> {
        self.values.iter().position(|is| *is)
    }

    /// The first id of the row that `record` has, too.
    fn comes_again(&self, record: &Record, wanted: &Wanted, columns: &Columns) -> Option<usize> {
        let is_id = |i: usize| matches!(wanted.columns.get(i), Some((_, Holds::Id)));
        let mut cells = self.cells.iter().enumerate();
        let again = cells.find(|(i, cell)| is_id(*i) && !cell.is_empty() && columns.text(record, *i) == cell.as_str());
        again.map(|(i, _)| i)
    }

    fn told(&self, at: usize, why: &str) -> String {
        let text = |of: &[String]| of.get(at).cloned().unwrap_or_default();
        format!("column {} holds `{}`, which {why}", text(&self.names), text(&self.cells))
    }
}

fn empty(path: &Path) -> crate::Error {
    err!(InvalidData, "{} is empty: it has no row; check the file", path.display())
}

/// The wanted columns of one file.
#[derive(Debug)]
pub(super) struct Columns {
    /// Index of each wanted column.
    indices: Vec<usize>,
    /// What to call each in messages.
    names: Vec<String>,
    /// Columns that each row must have, where names say so.
    width: Option<usize>,
}

impl Columns {
    fn resolve(
        path: &Path,
        table: &str,
        names: Option<&[String]>,
        wanted: &Wanted,
        divider: &Divider,
        header: bool,
    ) -> Result<Self> {
        let file = path.display();
        let (mut indices, mut called) = (Vec::new(), Vec::new());
        for (column, _) in &wanted.columns {
            let index = match (column, names) {
                (ColumnRef::Number(0), _) => {
                    return Err(err!(InvalidConfig, "[{table}] asks for column 0; columns are counted from 1"));
                }
                (ColumnRef::Number(n), None) => *n as usize - 1,
                (ColumnRef::Number(n), Some(names)) => {
                    if *n as usize > names.len() {
                        let hint = hint(names, divider).unwrap_or_default();
                        return Err(err!(
                            InvalidConfig,
                            "{file} has {} columns, [{table}] asks for column {n}{hint}; correct the number",
                            names.len()
                        ));
                    }
                    *n as usize - 1
                }
                (ColumnRef::Name(name), None) => {
                    return Err(err!(
                        InvalidConfig,
                        "[{table}] asks for column `{name}` of a file without header; write its number from 1, or name \
                         all columns in `columns`"
                    ));
                }
                (ColumnRef::Name(name), Some(names)) => {
                    let mut places = names.iter().enumerate().filter(|(_, n)| *n == name).map(|(i, _)| i);
                    match (places.next(), places.next()) {
                        (Some(index), None) => index,
                        (Some(_), Some(_)) => {
                            return Err(err!(
                                InvalidConfig,
                                "{file} has two columns `{name}`; write the number of the one that [{table}] means"
                            ));
                        }
                        (None, _) => {
                            let of = if header { "the header of " } else { "" };
                            let list = names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
                            let remedy =
                                hint(names, divider).unwrap_or_else(|| format!("; correct the name in [{table}]"));
                            return Err(err!(InvalidConfig, "{of}{file} has no column `{name}`, only {list}{remedy}"));
                        }
                    }
                }
            };
            indices.push(index);
            called.push(column.to_string());
        }
        Ok(Self { indices, names: called, width: names.map(<[String]>::len) })
    }

    /// Whether the record has the columns that it should.
    fn check(&self, record: &Record, divider: &Divider) -> std::result::Result<(), Reason> {
        let enough = self.indices.iter().max().map_or(0, |i| i + 1);
        let (len, wanted) = (record.len(), self.width.unwrap_or(enough.max(record.len())));
        if len == wanted {
            return Ok(());
        }
        let hint = record.get(0).filter(|_| len == 1).and_then(|text| hint(&[text.to_owned()], divider));
        Err(format!("it has {len} columns, not {wanted}{}", hint.unwrap_or_default()))
    }

    /// Whether a line by itself is a row of `width` columns that holds what is wanted. Where no column is a time or a number, a
    /// column that begins with a space speaks for prose.
    fn are_in(&self, record: &Record, wanted: &Wanted, width: Option<usize>, missing: &[String]) -> bool {
        let wide = match width {
            Some(width) if !wanted.varied => width > 1 && record.len() == width,
            _ => record.len() > self.indices.iter().max().map_or(1, |i| *i).max(1),
        };
        let mut typed = false;
        let mut hold = wanted.columns.iter().enumerate().map(|(i, (_, holds))| {
            let text = self.text(record, i).trim();
            let known = !text.is_empty() && !missing.iter().any(|m| m == text);
            typed |= matches!(holds, Holds::Time(_) | Holds::Number);
            match holds {
                Holds::Id => !text.is_empty(),
                Holds::Time(format) => !known || format.read(text).is_ok(),
                Holds::Number => !known || text.parse::<f64>().is_ok(),
                Holds::Text => true,
            }
        });
        wide && hold.all(|fits| fits) && (typed || !record.columns().any(|c| c.starts_with(' ')))
    }

    /// The id in wanted column `which`.
    pub fn id<'r>(&self, record: &'r Record, which: usize, missing: &[String]) -> Taken<&'r str> {
        let text = self.text(record, which);
        if missing.iter().any(|m| m == text) {
            return Err(Fault::WithoutId);
        }
        if text.is_empty() {
            return Err(self.fault(which, "it is empty; give an id, or write \"\" into `missing`").into());
        }
        Ok(text)
    }

    /// The text of wanted column `which`, trimmed of nothing.
    pub fn text<'r>(&self, record: &'r Record, which: usize) -> &'r str {
        self.indices.get(which).and_then(|&i| record.get(i)).unwrap_or("")
    }

    /// `reason` with the column's name in front.
    pub fn fault(&self, which: usize, reason: impl std::fmt::Display) -> Reason {
        format!("column {}: {reason}", self.names.get(which).map_or("", String::as_str))
    }

    /// The number in wanted column `which`; `None` where it is missing.
    pub fn number(
        &self,
        record: &Record,
        which: usize,
        missing: &[String],
    ) -> std::result::Result<Option<f64>, Reason> {
        let text = self.text(record, which).trim();
        if text.is_empty() || missing.iter().any(|m| m == text) {
            return Ok(None);
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_nan() => Ok(None),
            Ok(number) if (number as f32).is_finite() => Ok(Some(number)),
            _ => Err(self.fault(which, format!("cannot read `{text}` as a number"))),
        }
    }
}

/// A guess at the right delimiter of a line that was not divided.
fn hint(columns: &[String], divider: &Divider) -> Option<String> {
    let [only] = columns else { return None };
    let likely = [("::", "::"), ("\t", "\\t"), (";", ";"), ("|", "|"), (",", ","), (" ", " ")];
    let (_, shown) = likely.iter().find(|(text, _)| only.contains(text) && !divider.is(text))?;
    Some(format!("; the line was not divided at all: is its delimiter = \"{shown}\"?"))
}

/// Where the columns of declared fields lie among the wanted ones.
#[derive(Debug)]
pub(super) struct Fields {
    sources: Vec<FieldSource>,
    first: Vec<usize>,
}

impl Fields {
    /// Adds the columns that `sources` need to `wanted`.
    pub fn new(sources: Vec<FieldSource>, wanted: &mut Wanted) -> Self {
        let mut first = Vec::new();
        for source in &sources {
            first.push(wanted.len());
            match &source.read {
                ReadAs::Number(column) => _ = wanted.add(column, Holds::Number),
                ReadAs::Text(column) | ReadAs::List(column, _) | ReadAs::Vector(column, ..) => {
                    wanted.add(column, Holds::Text);
                }
                ReadAs::Flags(columns) => {
                    for column in columns {
                        wanted.add(&ColumnRef::Name(column.clone()), Holds::Text);
                    }
                }
            }
        }
        Self { sources, first }
    }

    /// What one record has read as, by the fields' names.
    pub fn named<'v>(&'v self, values: &'v [Value<'_>]) -> Vec<FieldValue<'v>> {
        self.sources.iter().zip(values).map(|(source, value)| (source.name.as_str(), value.cell())).collect()
    }

    /// The fields of one record, before lists and vectors are borrowed as cells.
    pub fn read<'r>(
        &'r self,
        record: &'r Record,
        columns: &Columns,
        missing: &[String],
    ) -> std::result::Result<Vec<Value<'r>>, Reason> {
        let known = |text: &'r str| (!text.is_empty() && !missing.iter().any(|m| m == text)).then_some(text);
        let mut values = Vec::with_capacity(self.sources.len());
        for (source, &at) in self.sources.iter().zip(&self.first) {
            values.push(match &source.read {
                ReadAs::Text(_) => known(columns.text(record, at)).map_or(Value::Missing, Value::Text),
                ReadAs::Number(_) => {
                    let number = columns.number(record, at, missing)?;
                    number.map_or(Value::Missing, |x| Value::Number(x as f32))
                }
                ReadAs::List(_, separator) => match known(columns.text(record, at)) {
                    Some(text) => Value::Texts(text.split(separator.as_str()).map(str::trim).collect()),
                    None => Value::Missing,
                },
                ReadAs::Flags(names) => {
                    let mut set = Vec::new();
                    for (offset, name) in names.iter().enumerate() {
                        match columns.text(record, at + offset).trim() {
                            "1" | "true" => set.push(name.as_str()),
                            "" | "0" | "false" => {}
                            other => {
                                let reason = format!("cannot read `{other}` as a flag (0 or 1)");
                                return Err(columns.fault(at + offset, reason));
                            }
                        }
                    }
                    Value::Texts(set)
                }
                ReadAs::Vector(_, separator, dim) => match known(columns.text(record, at)) {
                    Some(text) => {
                        let parts = text.split(separator.as_str()).map(str::trim).filter(|p| !p.is_empty());
                        let numbers: Option<Vec<f32>> =
                            parts.map(|p| p.parse().ok().filter(|x: &f32| x.is_finite())).collect();
                        match numbers {
                            Some(numbers) if numbers.len() == *dim as usize => Value::Vector(numbers),
                            _ => {
                                let reason = format!("it does not hold {dim} finite numbers");
                                return Err(columns.fault(at, reason));
                            }
                        }
                    }
                    None => Value::Missing,
                },
            });
        }
        Ok(values)
    }
}

/// A field's value in one record.
#[derive(Debug)]
pub(super) enum Value<'r> {
    Missing,
    Text(&'r str),
    Number(f32),
    Texts(Vec<&'r str>),
    Vector(Vec<f32>),
}

impl Value<'_> {
    pub fn cell(&self) -> Cell<'_> {
        match self {
            Self::Missing => Cell::Missing,
            Self::Text(text) => Cell::Text(text),
            Self::Number(number) => Cell::Number(*number),
            Self::Texts(texts) => Cell::Texts(texts),
            Self::Vector(vector) => Cell::Vector(vector),
        }
    }
}
