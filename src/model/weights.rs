//! The weights of a generation as the model reads them.

/// The weights of a generation, borrowed from wherever they live.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// Item vectors, `items x width`, row-major.
    pub items: &'a [f32],
    /// Dense weights, flat, in the order of the layout.
    pub dense: &'a [f32],
    /// All feature tables one after another, each `codes x field_width`.
    pub features: &'a [f32],
    /// The vectors of the items whose rows follow those of `items`; `&()` where there are none.
    pub more: &'a dyn MoreItems,
}

impl Weights<'_> {
    /// How many item rows there are.
    pub(crate) fn rows(&self, width: usize) -> usize {
        self.items.len() / width + self.more.count()
    }

    /// The vector of an item row; `None` where there is none.
    pub(crate) fn item(&self, row: u32, width: usize) -> Option<&[f32]> {
        let row = row as usize;
        match row.checked_sub(self.items.len() / width) {
            Some(at) => self.more.vector(at),
            None => self.items.get(row * width..(row + 1) * width),
        }
    }
}

/// Item vectors that lie elsewhere than the table.
pub trait MoreItems: std::fmt::Debug + Sync {
    /// How many there are.
    fn count(&self) -> usize;
    /// The vector of the `at`-th of them, `width` numbers; `None` where there is none.
    fn vector(&self, at: usize) -> Option<&[f32]>;
}

/// No further items.
impl MoreItems for () {
    fn count(&self) -> usize {
        0
    }
    fn vector(&self, _: usize) -> Option<&[f32]> {
        None
    }
}
