//! One described table as a stream of rows with resolved columns, over all its files.

use super::describe::{ColumnRef, FieldSource, Format, ReadAs};
use super::rows::{Divider, Next, Record, Rows};
use super::source::{self, Source};
use crate::error::{Result, err};
use crate::event::{Cell, FieldValue};
use crate::progress::{Cancel, ProgressEvent, ProgressSink};
use std::path::{Path, PathBuf};

/// What is wrong with a row: a reason in words, which names the column where there is one.
pub(super) type Reason = String;

/// What becomes of a row: `Ok(Err(..))` is a fault of that row alone, `Err` ends the reading.
type Row<'a> = dyn FnMut(&Record, &Columns, &Path) -> Result<std::result::Result<(), Reason>> + 'a;

/// Counts malformed rows and stops at the first one past the tolerance.
#[derive(Debug, Default)]
pub(super) struct Faults {
    tolerance: u64,
    pub count: u64,
    first: Vec<String>,
}

impl Faults {
    const SHOWN: usize = 5;

    pub fn new(tolerance: u64) -> Self {
        Self { tolerance, ..Self::default() }
    }

    /// Notes a row that is left out.
    pub fn add(&mut self, path: &Path, line: u64, reason: &str) -> Result<()> {
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

    pub fn shown(&self) -> String {
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

    /// Stops if asked to.
    pub fn go_on(&self, path: &Path) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(err!(Cancelled, "reading {} was cancelled; nothing was written", path.display()));
        }
        Ok(())
    }

    /// Passes every row of a table to `row`, with the column indices of `wanted` in its order.
    pub fn each_row(&mut self, table: &str, format: &Format, wanted: &[ColumnRef], row: &mut Row<'_>) -> Result<()> {
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
        wanted: &[ColumnRef],
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
            match rows.next(&mut record)? {
                Next::End => return Err(empty(path)),
                Next::Malformed(reason) => {
                    return Err(err!(InvalidData, "{} line {}: {reason}", path.display(), record.line));
                }
                Next::Record if names.is_none() => names = Some(record.columns().map(str::to_owned).collect()),
                Next::Record => {}
            }
        }
        let columns = Columns::resolve(path, table, names.as_deref(), wanted, &divider, header)?;
        let mut seen = 0u64;
        loop {
            let reason = match rows.next(&mut record)? {
                Next::End => break,
                Next::Malformed(reason) => Err(reason),
                Next::Record => match columns.check(&record, &divider) {
                    Ok(()) => row(&record, &columns, path)?,
                    Err(reason) => Err(reason),
                },
            };
            seen += 1;
            if let Err(reason) = reason {
                self.faults.add(path, record.line, &reason)?;
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
        wanted: &[ColumnRef],
        divider: &Divider,
        header: bool,
    ) -> Result<Self> {
        let file = path.display();
        let (mut indices, mut called) = (Vec::new(), Vec::new());
        for column in wanted {
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
    pub fn new(sources: Vec<FieldSource>, wanted: &mut Vec<ColumnRef>) -> Self {
        let mut first = Vec::new();
        for source in &sources {
            first.push(wanted.len());
            match &source.read {
                ReadAs::Text(column)
                | ReadAs::Number(column)
                | ReadAs::List(column, _)
                | ReadAs::Vector(column, ..) => {
                    wanted.push(column.clone());
                }
                ReadAs::Flags(columns) => wanted.extend(columns.iter().cloned().map(ColumnRef::Name)),
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
