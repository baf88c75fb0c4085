//! Lists of different lengths.

/// Lists of different lengths, one after another.
#[derive(Debug, Clone)]
pub(crate) struct Ragged {
    offsets: Vec<usize>,
    values: Vec<u32>,
}

impl Ragged {
    pub(super) fn new() -> Self {
        Self { offsets: vec![0], values: Vec::new() }
    }

    pub(super) fn push(&mut self, list: impl IntoIterator<Item = u32>) {
        self.values.extend(list);
        self.offsets.push(self.values.len());
    }

    /// How many lists there are.
    pub(crate) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// One of them.
    pub(crate) fn get(&self, i: usize) -> &[u32] {
        &self.values[self.offsets[i]..self.offsets[i + 1]]
    }
}
