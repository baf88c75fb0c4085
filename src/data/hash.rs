//! A dataset's content hash: equal data, equal hash, whatever the files were called.

use super::{Column, Dataset};
use crate::schema::{Field, FieldKind};

impl Dataset {
    /// BLAKE3 of ids, events, columns and declared fields; the dataset's name is no part of it. Builders store it as
    /// [`Dataset::hash`].
    pub fn content_hash(&self) -> [u8; 32] {
        let mut feed = Feed(blake3::Hasher::new());
        feed.texts(self.entities.names());
        feed.texts(self.items.names());
        let schema = &self.schema;
        feed.texts(&schema.actions);
        feed.word(u64::from(schema.has_time) | u64::from(schema.has_label) << 1);
        match &schema.value {
            Some(kind) => feed.kind(kind),
            None => feed.word(0),
        }
        feed.word(schema.event_fields.len() as u64);
        for field in &schema.event_fields {
            feed.word(field.timing as u64);
            feed.field(&field.field);
        }
        for fields in [&schema.item_fields, &schema.entity_fields] {
            feed.word(fields.len() as u64);
            fields.iter().for_each(|f| feed.field(f));
        }
        let events = &self.events;
        feed.numbers(&events.offsets, |x| x.to_le_bytes());
        feed.numbers(&events.item, |x| x.to_le_bytes());
        feed.numbers(&events.time, |x| x.to_le_bytes());
        feed.numbers(&events.action, |x| x.to_le_bytes());
        feed.floats(&events.value);
        feed.floats(&events.label);
        feed.texts(&self.titles);
        feed.numbers(&self.released, |x| x.to_le_bytes());
        for columns in [&events.fields, &self.item_columns, &self.entity_columns] {
            feed.word(columns.len() as u64);
            columns.iter().for_each(|c| feed.column(c));
        }
        *feed.0.finalize().as_bytes()
    }
}

/// Feeds values to the hash, each list after its length so that no two datasets feed the same bytes.
struct Feed(blake3::Hasher);

impl Feed {
    fn word(&mut self, word: u64) {
        self.0.update(&word.to_le_bytes());
    }

    fn numbers<T: Copy, const N: usize>(&mut self, values: &[T], bytes: impl Fn(T) -> [u8; N]) {
        self.word(values.len() as u64);
        let mut buffer = Vec::with_capacity(4096 * N);
        for chunk in values.chunks(4096) {
            buffer.clear();
            chunk.iter().for_each(|&x| buffer.extend_from_slice(&bytes(x)));
            self.0.update(&buffer);
        }
    }

    /// All NaNs mean "missing", so they hash alike.
    fn floats(&mut self, values: &[f32]) {
        self.numbers(values, |x| if x.is_nan() { f32::NAN } else { x }.to_le_bytes());
    }

    fn texts(&mut self, texts: &[String]) {
        self.word(texts.len() as u64);
        for text in texts {
            self.word(text.len() as u64);
            self.0.update(text.as_bytes());
        }
    }

    fn field(&mut self, field: &Field) {
        self.texts(std::slice::from_ref(&field.name));
        self.kind(&field.kind);
    }

    fn kind(&mut self, kind: &FieldKind) {
        match kind {
            FieldKind::Categorical(vocabulary) => {
                self.word(1);
                self.texts(vocabulary);
            }
            FieldKind::MultiValued(vocabulary) => {
                self.word(2);
                self.texts(vocabulary);
            }
            FieldKind::Numeric(bounds) => {
                self.word(3);
                self.floats(bounds);
            }
            FieldKind::Vector(dim) => {
                self.word(4);
                self.word(u64::from(*dim));
            }
        }
    }

    fn column(&mut self, column: &Column) {
        match column {
            Column::Codes(codes) => {
                self.word(1);
                self.numbers(codes, |x| x.to_le_bytes());
            }
            Column::Lists { offsets, codes } => {
                self.word(2);
                self.numbers(offsets, |x| x.to_le_bytes());
                self.numbers(codes, |x| x.to_le_bytes());
            }
            Column::Numbers(numbers) => {
                self.word(3);
                self.floats(numbers);
            }
            Column::Vectors { dim, values } => {
                self.word(4);
                self.word(u64::from(*dim));
                self.floats(values);
            }
        }
    }
}
