//! What commands print: one result on stdout, notes on stderr.

use docent::serve::Recommended;
use docent::{Error, Result};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::fmt::{self, Write as _};
use std::io::{ErrorKind, Write};
use std::path::Path;

/// How results and progress are shown.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Output {
    /// Print exactly one JSON object on stdout.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No progress on stderr; warnings and errors stay.
    #[arg(long, global = true)]
    pub(crate) quiet: bool,
}

impl Output {
    /// Prints the result: as JSON where that was asked for, else as text.
    pub(crate) fn result(&self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> Result<()> {
        match self.json {
            true => print(&format!("{:#}\n", json())),
            false => print(&text()),
        }
    }

    /// Says something about the progress of the work, unless that is not wanted.
    pub(crate) fn say(&self, what: fmt::Arguments<'_>) {
        if !self.quiet {
            note(what);
        }
    }
}

/// Writes to stdout. Readers that had enough (`| head`) are no failure.
fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Error::io("cannot write the result to", Path::new("standard output"), e))
        }
        _ => Ok(()),
    }
}

/// Writes a line to stderr. Whoever closed stderr does not want to read it.
pub(crate) fn note(what: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr().lock(), "{what}");
}

/// Items as JSON.
pub(crate) fn items_json(items: &[Recommended]) -> Value {
    items.iter().map(|i| json!({"id": i.id, "score": f64::from(i.score), "title": i.title})).collect()
}

/// Items as text: rank, score, id, title.
pub(crate) fn items_text(items: &[Recommended]) -> String {
    let id = items.iter().map(|i| i.id.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (rank, item) in (1..).zip(items) {
        let title = item.title.as_deref().unwrap_or("");
        let line = format!("{rank:>4}  {:>9.4}  {:<id$}  {title}", item.score, item.id);
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A report as JSON.
pub(crate) fn to_json(report: &impl Serialize) -> Value {
    serde_json::to_value(report).unwrap_or_default()
}

/// Metrics as a JSON object.
pub(crate) fn metrics_json(metrics: &[(String, f64)]) -> Value {
    metrics.iter().map(|(key, value)| (key.clone(), json!(value))).collect::<Map<_, _>>().into()
}

/// Metrics as text.
pub(crate) fn metrics_text(metrics: &[(String, f64)]) -> String {
    let parts: Vec<String> = metrics.iter().map(|(key, value)| format!("{key} {value:.4}")).collect();
    if parts.is_empty() { "-".into() } else { parts.join("  ") }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{b:02x}");
        text
    })
}

/// A size for people.
pub(crate) fn size(bytes: u64) -> String {
    let mut scaled = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if scaled < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{scaled:.1} {unit}") };
        }
        scaled /= 1024.0;
    }
    format!("{scaled:.1} TiB")
}

/// A moment in UTC, such as 2024-01-31T12:00:00Z; empty where it is not known.
pub(crate) fn moment(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms)
        .ok()
        .filter(|ms| *ms > 0)
        .and_then(|ms| Timestamp::from_millisecond(ms - ms % 1000).ok());
    time.map_or_else(String::new, |time| time.to_string())
}

/// Cells side by side, columns two blanks apart, the first to the left and the others to the right.
pub(crate) fn columns(lines: &[Vec<String>]) -> String {
    let count = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| lines.iter().filter_map(|l| l.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).enumerate();
        let cells = cells.map(|(c, (s, w))| if c == 0 { format!("{s:<w$}") } else { format!("  {s:>w$}") });
        text += cells.collect::<String>().trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_sizes_are_readable() {
        assert_eq!(moment(0), "");
        assert_eq!(moment(951_827_696_000), "2000-02-29T12:34:56Z");
        assert_eq!(moment(1_735_689_599_999), "2024-12-31T23:59:59Z");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(3 << 40), "3.0 TiB");
    }

    #[test]
    fn lists_name_rank_score_id_and_title() {
        let item = |id: &str, title: Option<&str>, score| Recommended {
            row: 0,
            id: id.into(),
            title: title.map(Into::into),
            score,
        };
        let items = [item("i10", Some("The Ferry"), 1.5), item("i2", None, -0.25)];
        assert_eq!(items_text(&items), "   1     1.5000  i10  The Ferry\n   2    -0.2500  i2\n");
        assert_eq!(
            items_json(&items).to_string(),
            r#"[{"id":"i10","score":1.5,"title":"The Ferry"},{"id":"i2","score":-0.25,"title":null}]"#
        );
    }
}
