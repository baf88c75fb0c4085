//! How an archive is written and read.

use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error as Failed;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Portable, Serialize};

/// A type that can be archived.
pub(crate) trait Write: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Failed>> {}
impl<T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, Failed>>> Write for T {}

/// An archive that can be checked.
pub(crate) trait Check: Portable + for<'a> CheckBytes<HighValidator<'a, Failed>> {}
impl<T: Portable + for<'a> CheckBytes<HighValidator<'a, Failed>>> Check for T {}

/// A type that an archive can be made into again.
pub(crate) trait Read: Archive<Archived: Check + Deserialize<Self, HighDeserializer<Failed>>> + Sized {}
impl<T: Archive<Archived: Check + Deserialize<T, HighDeserializer<Failed>>>> Read for T {}

/// The archive of `value`; where it cannot be made, the reason in words.
pub(crate) fn archive(value: &impl Write) -> Result<AlignedVec, String> {
    rkyv::to_bytes::<Failed>(value).map_err(|e| e.to_string())
}

/// Memory for an archive, aligned as it must be.
pub(crate) fn aligned(archive: &[u8]) -> AlignedVec {
    let mut aligned = AlignedVec::with_capacity(archive.len());
    aligned.extend_from_slice(archive);
    aligned
}

/// A checked archive, in place.
pub(crate) fn view<T: Check>(archive: &AlignedVec) -> Result<&T, String> {
    rkyv::access::<T, Failed>(archive).map_err(|e| e.to_string())
}

/// What was archived.
pub(crate) fn read<T: Read>(archive: &[u8]) -> Result<T, String> {
    rkyv::from_bytes::<T, Failed>(archive).map_err(|e| e.to_string())
}

// Features of rkyv that another crate in the build switches on would change the layout of stored files without a word.
const _: () = assert!(
    size_of::<rkyv::string::ArchivedString>() == 8 && size_of::<rkyv::vec::ArchivedVec<u8>>() == 8,
    "docent's files need rkyv without its features pointer_width_16 and pointer_width_64; another crate enables one"
);
const _: () = assert!(
    align_of::<rkyv::primitive::ArchivedU64>() == 8,
    "docent's files need rkyv without its feature unaligned; another crate enables it"
);
/// Does not compile where another crate in the build enables rkyv's feature `big_endian`, which docent's format excludes.
const _RKYV_MUST_BE_LITTLE_ENDIAN: fn(rkyv::primitive::ArchivedU64) -> rkyv::rend::u64_le = |number| number;
