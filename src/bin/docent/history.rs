//! A history that a person brings: item ids, or events in lines of JSON.

use crate::command_line::{Ids, time};
use crate::lines::each_line;
use docent::{Cell, Error, ErrorKind, Event, FieldValue, Result};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// The events, oldest first.
#[derive(Debug, Default)]
pub(crate) struct History {
    lines: Vec<Line>,
}

/// One event.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    item: Id,
    time: Option<Time>,
    action: Option<String>,
    value: Option<f32>,
    #[serde(default, deserialize_with = "fields")]
    fields: Vec<(String, Field)>,
}

/// An id, written as text or as a whole number.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "an id: a text or a whole number")]
enum Id {
    Text(String),
    Number(i64),
}

/// A time in Unix milliseconds or as text.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a time: Unix milliseconds, or such as \"2024-01-31T12:00:00Z\"")]
enum Time {
    Milliseconds(i64),
    Text(String),
}

#[derive(Debug)]
enum Field {
    Text(String),
    Number(f32),
}

impl Field {
    fn cell(&self) -> Cell<'_> {
        match self {
            Self::Text(text) => Cell::Text(text),
            Self::Number(number) => Cell::Number(*number),
        }
    }
}

fn fields<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<(String, Field)>, D::Error> {
    let field = |(name, value): (String, Value)| match value {
        Value::String(text) => Ok(Some((name, Field::Text(text)))),
        Value::Number(number) => Ok(number.as_f64().map(|x| (name, Field::Number(x as f32)))),
        Value::Null => Ok(None),
        _ => Err(serde::de::Error::custom(format!("field {name:?} is no text and no number"))),
    };
    Map::deserialize(from)?.into_iter().map(field).filter_map(Result::transpose).collect()
}

impl History {
    /// Reads what `--history` names where that is a file that ends in `.jsonl`, or `-`; `None` where it names ids.
    pub(crate) fn file(given: &[Ids]) -> Result<Option<Self>> {
        let [one] = given else { return Ok(None) };
        let path = Path::new(one.text());
        if one.text() == "-" {
            return Self::parse(std::io::stdin().lock(), Path::new("standard input")).map(Some);
        }
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            return Ok(None);
        }
        let file = File::open(path).map_err(|e| Error::io("cannot read the history", path, e))?;
        Self::parse(BufReader::new(file), path).map(Some)
    }

    /// Nothing is known of the events but their items.
    pub(crate) fn of_ids(ids: &[String]) -> Self {
        let line = |id: &String| Line {
            item: Id::Text(id.clone()),
            time: None,
            action: None,
            value: None,
            fields: Vec::new(),
        };
        Self { lines: ids.iter().map(line).collect() }
    }

    pub(crate) fn parse(from: impl BufRead, path: &Path) -> Result<Self> {
        let mut lines = Vec::new();
        each_line(from, path, |number, text| {
            if text.trim().is_empty() {
                return Ok(());
            }
            let wrong = |what: String| {
                let message = format!(
                    "line {number} of {} is no event: {what}; write such as {{\"item\": \"i17\", \"time\": 1700000000000}}",
                    path.display()
                );
                Error::new(ErrorKind::InvalidData, message)
            };
            let mut line: Line = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
            if let Id::Number(id) = line.item {
                line.item = Id::Text(id.to_string());
            }
            if let Some(Time::Text(text)) = &line.time {
                line.time = Some(Time::Milliseconds(time(text).map_err(wrong)?));
            }
            lines.push(line);
            Ok(())
        })?;
        Ok(Self { lines })
    }

    /// The fields of each event as the engine takes them.
    pub(crate) fn fields(&self) -> Vec<Vec<FieldValue<'_>>> {
        self.lines
            .iter()
            .map(|line| line.fields.iter().map(|(name, field)| (name.as_str(), field.cell())).collect())
            .collect()
    }

    /// The events as the engine takes them, with these fields.
    pub(crate) fn events<'a>(&'a self, fields: &'a [Vec<FieldValue<'a>>]) -> Vec<Event<'a>> {
        let event = |(line, fields): (&'a Line, &'a Vec<FieldValue<'a>>)| Event {
            item: if let Id::Text(id) = &line.item { id } else { "" },
            time: if let Some(Time::Milliseconds(time)) = line.time { Some(time) } else { None },
            action: line.action.as_deref(),
            value: line.value,
            fields,
        };
        self.lines.iter().zip(fields).map(event).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<History> {
        History::parse(text.as_bytes(), Path::new("h.jsonl"))
    }

    #[test]
    fn lines_are_events() {
        let history = parse(
            "{\"item\": \"a\"}\n\n{\"item\": 7, \"time\": \"1970-01-02\", \"action\": \"buy\", \"value\": 2.5, \
             \"fields\": {\"device\": \"tv\", \"seconds\": 3, \"city\": null}}\n",
        )
        .unwrap();
        let fields = history.fields();
        let second = [("device", Cell::Text("tv")), ("seconds", Cell::Number(3.0))];
        let bought =
            Event { item: "7", time: Some(86_400_000), action: Some("buy"), value: Some(2.5), fields: &second };
        assert_eq!(history.events(&fields), [Event::item("a"), bought]);
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (line, part) in [
            ("{\"item\": \"a\", \"tmie\": 3}", "tmie"),
            ("{\"time\": 3}", "item"),
            ("{\"item\": \"a\", \"time\": \"soon\"}", "soon"),
            ("{\"item\": \"a\", \"fields\": {\"tags\": [1]}}", "tags"),
        ] {
            let e = parse(&format!("{{\"item\": \"a\"}}\n{line}\n")).unwrap_err();
            assert!(e.message().contains("line 2 of h.jsonl") && e.message().contains(part), "{e}");
        }
    }
}
