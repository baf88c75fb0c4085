//! Texts that an object collects, one after another in one buffer that is kept when it is cleared.

use crate::boundary::fail;
use docent_api::Result;

/// The most bytes of texts that one object collects.
const MOST_BYTES: usize = 1 << 28;

/// A text's place.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Span {
    start: usize,
    end: usize,
}

/// Texts, one after another.
#[derive(Debug, Default)]
pub(crate) struct Texts(String);

impl Texts {
    /// Keeps a copy of `text`.
    pub(crate) fn add(&mut self, text: &str) -> Result<Span> {
        let start = self.0.len();
        if text.len() > MOST_BYTES.saturating_sub(start) {
            return Err(fail!(InvalidArgument, "this object has collected {start} bytes of texts; clear it"));
        }
        self.0.push_str(text);
        Ok(Span { start, end: self.0.len() })
    }

    /// The text at a place.
    pub(crate) fn get(&self, span: Span) -> &str {
        self.0.get(span.start..span.end).unwrap_or_default()
    }

    /// Forgets all texts, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
