//! What the elements of a section are.

use std::fmt;

/// The type of a section's elements. All are stored little-endian; every bit pattern is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Dtype {
    /// Unsigned bytes, also UTF-8 text.
    U8 = 1,
    /// Signed bytes.
    I8 = 2,
    /// Unsigned 16-bit integers.
    U16 = 3,
    /// Unsigned 32-bit integers.
    U32 = 4,
    /// Unsigned 64-bit integers.
    U64 = 5,
    /// Signed 64-bit integers.
    I64 = 6,
    /// IEEE 754 single precision.
    F32 = 7,
    /// IEEE 754 half precision.
    F16 = 8,
    /// bfloat16: the upper half of a single-precision number.
    BF16 = 9,
}

impl Dtype {
    /// Every type, in order of its code.
    pub const ALL: [Self; 9] =
        [Self::U8, Self::I8, Self::U16, Self::U32, Self::U64, Self::I64, Self::F32, Self::F16, Self::BF16];

    /// The stable code in the manifest.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The type with this code, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.code() == code)
    }

    /// Bytes per element.
    pub fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::F16 | Self::BF16 => 2,
            Self::U32 | Self::F32 => 4,
            Self::U64 | Self::I64 => 8,
        }
    }

    /// The lower-case name: `f32`, `u64`.
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The bytes that an array of this shape has; `None` where they exceed 2^63 or the product overflows.
pub(super) fn byte_length(dtype: Dtype, shape: &[u64]) -> Option<u64> {
    let size = u64::try_from(dtype.size()).ok()?;
    let bytes = shape.iter().try_fold(size, |product, dim| product.checked_mul(*dim))?;
    (bytes < 1 << 63).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_stable_and_unique() {
        let codes: Vec<u8> = Dtype::ALL.iter().map(|d| d.code()).collect();
        assert_eq!(codes, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert!(Dtype::ALL.iter().all(|d| Dtype::from_code(d.code()) == Some(*d)));
        assert_eq!(Dtype::from_code(0), None);
        assert_eq!(Dtype::from_code(10), None);
    }

    #[test]
    fn lengths_are_checked() {
        assert_eq!(byte_length(Dtype::F32, &[3, 5]), Some(60));
        assert_eq!(byte_length(Dtype::F32, &[]), Some(4));
        assert_eq!(byte_length(Dtype::U64, &[0, 7]), Some(0));
        assert_eq!(byte_length(Dtype::U8, &[u64::MAX]), None);
        assert_eq!(byte_length(Dtype::F32, &[1 << 62, 4]), None);
        assert_eq!(byte_length(Dtype::F32, &[1 << 61]), None);
    }
}
