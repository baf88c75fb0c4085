//! How bytes of a fuzzer are read as a list of steps: what there is to choose from is counted, so that every input means something.

/// Numbers at which something changes.
const NUMBERS: [u64; 16] = [
    0,
    1,
    2,
    3,
    7,
    8,
    63,
    64,
    255,
    4095,
    u16::MAX as u64,
    i32::MAX as u64,
    u32::MAX as u64,
    1 << 60,
    i64::MAX as u64,
    u64::MAX,
];

/// Floats at which something changes.
const FLOATS: [f32; 8] =
    [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, f32::MIN_POSITIVE, -0.0, 1e30];

/// The steps that are left. Behind their end every byte is 0.
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// At most so many bytes.
    pub fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A number below `n`; 0 where there is none.
    pub fn below(&mut self, n: usize) -> usize {
        let mut wide = usize::from(self.byte());
        if n > 1 << 8 {
            wide = wide << 8 | usize::from(self.byte());
        }
        if n > 1 << 16 {
            wide = wide << 8 | usize::from(self.byte());
        }
        wide % n.max(1)
    }

    /// Any number; those at which something changes are short to write.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            16 => self.take(8).iter().fold(0, |n, byte| n << 8 | u64::from(*byte)),
            17 => u64::from(self.byte()),
            byte => NUMBERS[usize::from(byte) % NUMBERS.len()],
        }
    }

    pub fn float(&mut self) -> f32 {
        FLOATS[usize::from(self.byte()) % FLOATS.len()]
    }

    /// Changes one place of `bytes`, which keep their number.
    pub fn edit(&mut self, bytes: &mut [u8]) {
        if bytes.is_empty() {
            return;
        }
        let (kind, at) = (self.byte(), self.below(bytes.len()));
        let words = |width: usize, at: usize| at / width * width;
        match kind % 8 {
            0 => {
                let length = 1 + usize::from(self.byte() % 16);
                put(bytes, at, self.take(length));
            }
            1 => bytes[at] ^= 1 << (self.byte() % 8),
            2 => bytes[at] = bytes[at].wrapping_add(self.byte()),
            3 => put(bytes, words(4, at), &(self.number() as u32).to_le_bytes()),
            4 => put(bytes, words(8, at), &self.number().to_le_bytes()),
            5 => put(bytes, words(4, at), &self.float().to_le_bytes()),
            6 => {
                let (from, length) = (self.below(bytes.len()), 1 + usize::from(self.byte()));
                let copied: Vec<u8> = bytes[from..].iter().copied().take(length).collect();
                put(bytes, at, &copied);
            }
            _ => {
                let (with, length) = (self.byte(), 1 + self.below(bytes.len()));
                bytes[at..].iter_mut().take(length).for_each(|byte| *byte = with);
            }
        }
    }
}

/// Writes `what` at `at`, as far as there is room.
pub fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes.iter_mut().skip(at).zip(what).for_each(|(to, from)| *to = *from);
}
