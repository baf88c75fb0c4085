//! From the values that callers write to the codes that the model reads.

use super::columns::kind_name;
use crate::error::{Result, err};
use crate::event::Cell;
use crate::schema::{Field, FieldKind, Schema, Timing};

/// Codes by text for every declared field, built from the manifest when a generation is opened.
#[derive(Debug)]
pub(crate) struct FieldCodes {
    events: Vec<(Field, Timing, Index)>,
    items: Vec<(Field, Index)>,
    entities: Vec<(Field, Index)>,
    actions: Vec<String>,
}

/// The codes of a vocabulary in ascending order of their texts.
#[derive(Debug, Default)]
struct Index(Vec<u32>);

impl Index {
    fn new(kind: &FieldKind) -> Self {
        let (FieldKind::Categorical(vocabulary) | FieldKind::MultiValued(vocabulary)) = kind else {
            return Self::default();
        };
        let mut codes: Vec<u32> = (1..=vocabulary.len() as u32).collect();
        codes.sort_by_key(|code| vocabulary.get(*code as usize - 1));
        Self(codes)
    }

    /// The code of `text`; 0 if it is not known.
    fn find(&self, kind: &FieldKind, text: &str) -> u32 {
        let (FieldKind::Categorical(vocabulary) | FieldKind::MultiValued(vocabulary)) = kind else {
            return 0;
        };
        let text_of = |code: u32| vocabulary.get((code as usize).saturating_sub(1)).map_or("", String::as_str);
        let place = self.0.binary_search_by(|code| text_of(*code).cmp(text));
        place.ok().and_then(|at| self.0.get(at)).copied().unwrap_or(0)
    }

    /// The code of a value of `field`; 0 if it is missing or not known. A number may be written as text.
    fn code(&self, field: &Field, cell: &Cell<'_>) -> Result<u32> {
        let (name, kind) = (&field.name, &field.kind);
        match (kind, *cell) {
            (_, Cell::Missing) => Ok(0),
            (FieldKind::Numeric(_), Cell::Text(text)) => Ok(kind.bucket(number(name, text)?)),
            (FieldKind::Numeric(_), Cell::Number(x)) if !x.is_infinite() => Ok(kind.bucket(x)),
            (FieldKind::Categorical(_) | FieldKind::MultiValued(_), Cell::Text(text)) => Ok(self.find(kind, text)),
            (kind, cell) => {
                let takes = if matches!(kind, FieldKind::Numeric(_)) { "a finite number" } else { "a text" };
                let kind = kind_name(kind);
                Err(err!(InvalidArgument, "field {name:?} is {kind} and takes {takes}, not {cell:?}"))
            }
        }
    }
}

impl FieldCodes {
    pub(crate) fn new(schema: &Schema) -> Self {
        let event = |f: &crate::schema::EventField| (f.field.clone(), f.timing, Index::new(&f.field.kind));
        Self {
            events: schema.event_fields.iter().map(event).collect(),
            items: schema.item_fields.iter().map(|f| (f.clone(), Index::new(&f.kind))).collect(),
            entities: schema.entity_fields.iter().map(|f| (f.clone(), Index::new(&f.kind))).collect(),
            actions: schema.actions.clone(),
        }
    }

    /// Appends index and code of every value that a profile field is given; code 0 where one is not known.
    pub(crate) fn entity_field(&self, name: &str, cell: &Cell<'_>, to: &mut Vec<(usize, u32)>) -> Result<()> {
        let Some((at, (field, index))) = self.entities.iter().enumerate().find(|(_, (f, _))| f.name == name) else {
            let known = list(self.entities.iter().map(|(f, _)| f.name.as_str()));
            return Err(err!(InvalidArgument, "people have no profile field {name:?}; declared are {known}"));
        };
        match (&field.kind, cell) {
            (FieldKind::Vector(_), _) => {
                Err(err!(InvalidArgument, "profile field {name:?} is a vector, which names nothing; leave it out"))
            }
            (FieldKind::MultiValued(_), Cell::Texts(texts)) => {
                to.extend(texts.iter().map(|text| (at, index.find(&field.kind, text))));
                Ok(())
            }
            _ => {
                to.push((at, index.code(field, cell)?));
                Ok(())
            }
        }
    }

    /// How many event fields are declared.
    pub(crate) fn event_fields(&self) -> usize {
        self.events.len()
    }

    /// Whether event field `index` is known when a request is made.
    fn at_request(&self, index: usize) -> bool {
        self.events.get(index).is_some_and(|(_, timing, _)| *timing == Timing::Request)
    }

    /// Index and code of an event field's value.
    pub(crate) fn event_field(&self, name: &str, cell: &Cell<'_>) -> Result<(usize, u32)> {
        let Some((at, (field, _, index))) = self.events.iter().enumerate().find(|(_, (f, ..))| f.name == name) else {
            let known = list(self.events.iter().map(|(f, ..)| f.name.as_str()));
            return Err(err!(InvalidArgument, "events have no field {name:?}; declared are {known}"));
        };
        Ok((at, index.code(field, cell)?))
    }

    /// Index and code of a field's value at the time of a request.
    pub(crate) fn request_field(&self, name: &str, cell: &Cell<'_>) -> Result<(usize, u32)> {
        let (at, code) = self.event_field(name, cell)?;
        match self.at_request(at) {
            true => Ok((at, code)),
            false => Err(err!(
                InvalidArgument,
                "field {name:?} is known only after an event and cannot be part of a request; leave it out"
            )),
        }
    }

    /// The code of an action.
    pub(crate) fn action(&self, name: &str) -> Result<u16> {
        let place = self.actions.iter().position(|a| a == name).and_then(|at| u16::try_from(at).ok());
        place.ok_or_else(|| {
            let known = list(self.actions.iter().map(String::as_str));
            err!(InvalidArgument, "there is no action {name:?}; declared are {known}")
        })
    }

    /// Index and kind of an item field.
    pub(crate) fn item_field(&self, name: &str) -> Result<(usize, &FieldKind)> {
        let found = self.items.iter().enumerate().find(|(_, (f, _))| f.name == name);
        found.map(|(at, (f, _))| (at, &f.kind)).ok_or_else(|| {
            let known = list(self.items.iter().map(|(f, _)| f.name.as_str()));
            err!(InvalidArgument, "items have no field {name:?}; declared are {known}")
        })
    }

    /// The code of a value of item field `index`; 0 if it is not known.
    pub(crate) fn item_value(&self, index: usize, text: &str) -> u32 {
        self.items.get(index).map_or(0, |(field, codes)| codes.find(&field.kind, text))
    }
}

/// A number written as text; finite.
fn number(name: &str, text: &str) -> Result<f32> {
    match text.trim().parse::<f32>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(err!(InvalidArgument, "field {name:?} is {text:?}; write a finite number, or leave it out")),
    }
}

/// Names in a sentence, the first few of them.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 12;
    let all: Vec<&str> = names.collect();
    match all.len() {
        0 => "none".to_owned(),
        n if n <= SHOWN => all.join(", "),
        n => format!("{} and {} more", all.get(..SHOWN).unwrap_or_default().join(", "), n - SHOWN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn codes() -> FieldCodes {
        let texts = |t: &[&str]| t.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let event =
            |name: &str, kind, timing| crate::schema::EventField { field: Field { name: name.into(), kind }, timing };
        FieldCodes::new(&Schema {
            actions: texts(&["view", "like"]),
            event_fields: vec![
                event("device", FieldKind::Categorical(texts(&["tv", "phone", "car"])), Timing::Request),
                event("seconds", FieldKind::Numeric(vec![10.0, 60.0]), Timing::PostAction),
            ],
            item_fields: vec![Field { name: "genre".into(), kind: FieldKind::MultiValued(texts(&["war", "art"])) }],
            ..Schema::default()
        })
    }

    #[test]
    fn texts_become_codes() {
        let c = codes();
        for (text, code) in [("tv", 1), ("phone", 2), ("car", 3), ("boat", 0), ("", 0)] {
            assert_eq!(c.event_field("device", &Cell::Text(text)).unwrap(), (0, code), "{text}");
        }
        for (text, code) in [("9.5", 1), (" 11 ", 2), ("1e9", 3)] {
            assert_eq!(c.event_field("seconds", &Cell::Text(text)).unwrap(), (1, code), "{text}");
        }
        for (number, code) in [(9.5, 1), (f32::NAN, 0), (11.0, 2)] {
            assert_eq!(c.event_field("seconds", &Cell::Number(number)).unwrap(), (1, code), "{number}");
        }
        assert_eq!(c.event_field("device", &Cell::Missing).unwrap(), (0, 0));
        assert_eq!((c.action("view").unwrap(), c.action("like").unwrap()), (0, 1));
        assert_eq!((c.item_value(0, "war"), c.item_value(0, "art"), c.item_value(0, "x")), (1, 2, 0));
    }

    #[test]
    fn wrong_names_and_numbers_are_refused() {
        let c = codes();
        let kinds = [
            c.event_field("colour", &Cell::Text("x")).map(|_| ()),
            c.event_field("seconds", &Cell::Text("soon")).map(|_| ()),
            c.event_field("seconds", &Cell::Text("NaN")).map(|_| ()),
            c.event_field("seconds", &Cell::Text("inf")).map(|_| ()),
            c.event_field("seconds", &Cell::Number(f32::INFINITY)).map(|_| ()),
            c.event_field("device", &Cell::Number(1.0)).map(|_| ()),
            c.event_field("device", &Cell::Texts(&["tv"])).map(|_| ()),
            c.request_field("seconds", &Cell::Text("3")).map(|_| ()),
            c.action("buy").map(|_| ()),
            c.item_field("colour").map(|_| ()),
        ];
        for refused in kinds {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
        }
        assert!(c.action("buy").unwrap_err().message().contains("view, like"));
        assert_eq!(c.request_field("device", &Cell::Text("tv")).unwrap(), (0, 1));
    }
}
