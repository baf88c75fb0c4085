//! The only owner of mapped memory: a file's bytes, mapped or copied, and typed views of them.
//!
//! A mapping is sound only while nobody changes the file. Published segments are never opened for writing, have mode
//! 0444, and are replaced by renaming only; whoever truncates or rewrites one by other means breaks the contract of
//! [`super::LoadMode::Map`] (reading a truncated part raises SIGBUS). [`super::LoadMode::Copy`] has no such contract.
#![expect(unsafe_code, reason = "mapping a file and viewing its bytes as numbers cannot be expressed safely")]

use super::dtype::Dtype;
use memmap2::{Mmap, MmapMut};
use std::fs::File;
use std::io;

mod sealed {
    pub trait Sealed {}
}

/// A type that a section can be viewed as: fixed size, no padding, every bit pattern valid.
pub trait Element: Copy + Send + Sync + sealed::Sealed + 'static {
    /// The section type that this is the natural view of.
    const DTYPE: Dtype;
}

macro_rules! elements {
    ($($type:ty => $dtype:ident),*) => {$(
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: Dtype = Dtype::$dtype;
        }
    )*};
}
elements!(u8 => U8, i8 => I8, u16 => U16, u32 => U32, u64 => U64, i64 => I64, f32 => F32);

/// One file's bytes in memory, page-aligned and read-only; unmapped when dropped.
#[derive(Debug)]
pub(super) struct Region {
    map: Option<Mmap>,
}

impl Region {
    /// Maps the first `length` bytes of `file`, which must have at least that many.
    pub(super) fn map(file: &File, length: usize) -> io::Result<Self> {
        if length == 0 {
            return Ok(Self { map: None });
        }
        // SAFETY: the file is a published segment or a temporary one of ours; by the contract in the module's head its
        // bytes do not change while it is mapped. The caller compared its length with the expected one.
        let map = unsafe { memmap2::MmapOptions::new().len(length).map(file)? };
        Ok(Self { map: Some(map) })
    }

    /// Memory of our own, filled by `read`, which gets the whole of it.
    pub(super) fn copy(length: usize, read: impl FnOnce(&mut [u8]) -> io::Result<()>) -> io::Result<Self> {
        if length == 0 {
            return Ok(Self { map: None });
        }
        let mut map = MmapMut::map_anon(length)?;
        read(&mut map)?;
        Ok(Self { map: Some(map.make_read_only()?) })
    }

    /// All bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }

    /// Reads all pages in now, reporting an I/O failure as an error and not as a signal; as a signal after all where the system does not
    /// know how to read in at once.
    pub(super) fn populate(&self) -> io::Result<()> {
        match &self.map {
            #[cfg(target_os = "linux")]
            Some(map) => populated(map.advise(memmap2::Advice::PopulateRead), map),
            _ => Ok(()),
        }
    }
}

/// What came of advising the system to read all of `bytes` in. One that does not know the advice (Linux before 5.14, some
/// sandboxes) is made to by touching each page.
#[cfg(target_os = "linux")]
fn populated(advised: io::Result<()>, bytes: &[u8]) -> io::Result<()> {
    const UNKNOWN: [i32; 3] = [22, 38, 95]; // EINVAL, ENOSYS, EOPNOTSUPP
    const PAGE: usize = 4096;
    match advised {
        Err(e) if e.raw_os_error().is_some_and(|code| UNKNOWN.contains(&code)) => {
            bytes.iter().step_by(PAGE).for_each(|byte| _ = std::hint::black_box(*byte));
            Ok(())
        }
        other => other,
    }
}

/// `bytes` as numbers; `None` where the length is not a multiple of the size or the start is not aligned.
pub(super) fn view<T: Element>(bytes: &[u8]) -> Option<&[T]> {
    let size = size_of::<T>();
    if bytes.is_empty() {
        return Some(&[]);
    }
    if !bytes.len().is_multiple_of(size) || !bytes.as_ptr().cast::<T>().is_aligned() {
        return None;
    }
    // SAFETY: `T: Element` is sealed to types without padding for which every bit pattern is valid; length and alignment
    // were checked above; the result borrows `bytes`, so the memory outlives it and nobody can write to it.
    Some(unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<T>(), bytes.len() / size) })
}

/// The bytes of `values`, as stored (the target is little-endian; `format.rs` refuses others).
pub(super) fn bytes_of<T: Element>(values: &[T]) -> &[u8] {
    // SAFETY: `T: Element` is sealed to types without padding, so all bytes are initialised; u8 needs no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn an_older_system_reads_pages_in_by_touching_them() {
        let error = |code| Err(io::Error::from_raw_os_error(code));
        assert!(populated(error(22), &[1; 9000]).is_ok() && populated(error(38), &[]).is_ok());
        assert_eq!(populated(error(5), &[1; 9000]).unwrap_err().raw_os_error(), Some(5), "a disk that fails is told");
    }

    #[test]
    fn views_check_length_and_alignment() {
        let words = [1u32, 2, 0x7fc0_0000];
        let bytes = bytes_of(&words);
        assert_eq!(view::<u32>(bytes), Some(&words[..]));
        assert!(view::<f32>(bytes).unwrap()[2].is_nan());
        assert!(view::<u32>(&bytes[1..5]).is_none(), "misaligned");
        assert!(view::<u32>(&bytes[..6]).is_none(), "odd length");
        assert_eq!(view::<u64>(&bytes[..0]), Some(&[][..]));
    }

    #[test]
    fn copies_are_page_aligned_and_empty_regions_are_fine() {
        let region = Region::copy(5000, |bytes| {
            bytes.fill(7);
            Ok(())
        })
        .unwrap();
        assert_eq!(region.bytes().len(), 5000);
        assert_eq!(region.bytes().as_ptr() as usize % 4096, 0);
        assert!(Region::copy(0, |_| Ok(())).unwrap().bytes().is_empty());
        assert!(Region::copy(9, |_| Err(io::Error::other("no"))).is_err());
    }
}
