//! How generations are numbered and described.

use crate::error::{Error, Result, err};
use std::fmt;
use std::str::FromStr;

/// The number of a generation. They count up from 1 within a store and are never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenerationId(pub u64);

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for GenerationId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text.parse() {
            Ok(number) if number > 0 => Ok(Self(number)),
            _ => {
                Err(err!(InvalidArgument, "generation {text:?} is not a whole number from 1 on; list the generations"))
            }
        }
    }
}

impl GenerationId {
    pub(super) fn manifest_name(self) -> String {
        format!("{:08}.manifest", self.0)
    }

    pub(super) fn run_name(self) -> String {
        format!("{:08}.run", self.0)
    }

    /// The generation whose manifest has this file name.
    pub(super) fn from_manifest_name(name: &str) -> Option<Self> {
        let id = Self(name.strip_suffix(".manifest")?.parse().ok()?);
        (id.0 > 0 && id.manifest_name() == name).then_some(id)
    }
}

/// One line of the list of generations.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationInfo {
    /// Its number.
    pub id: GenerationId,
    /// When it was published, in Unix milliseconds; 0 where that cannot be read.
    pub created_ms: u64,
    /// Bytes of its files; segments shared with other generations are counted in each.
    pub bytes: u64,
    /// Validation metrics by key.
    pub validation: Vec<(String, f64)>,
    /// Whether it is the one being served.
    pub current: bool,
    /// Why it cannot be read, where it cannot.
    pub problem: Option<String>,
}

/// What a full check found.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyReport {
    /// Whether nothing is wrong.
    pub ok: bool,
    /// The generation that was checked; `None` where it is not known which one is current.
    pub generation: Option<GenerationId>,
    /// Bytes of all files that were read.
    pub bytes: u64,
    /// Sections in the manifest.
    pub sections: u64,
    /// Everything that is wrong, in words.
    pub problems: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_written() {
        assert_eq!("12".parse::<GenerationId>().unwrap().to_string(), "12");
        for bad in ["0", "", "-1", "1.0", "x", "18446744073709551616"] {
            assert!(bad.parse::<GenerationId>().is_err(), "{bad}");
        }
        assert_eq!(GenerationId::from_manifest_name("00000012.manifest"), Some(GenerationId(12)));
        assert_eq!(GenerationId::from_manifest_name("123456789.manifest"), Some(GenerationId(123_456_789)));
        for bad in ["12.manifest", "00000000.manifest", "00000012.manifest.tmp", "+0000012.manifest", "00000012.run"] {
            assert_eq!(GenerationId::from_manifest_name(bad), None, "{bad}");
        }
    }
}
