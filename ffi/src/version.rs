//! Which version of the interface and of the library is loaded.

use std::ffi::c_char;

/// The version of this interface: major * 65536 + minor * 256 + patch. Functions and constants are only ever added while
/// the major part stays; the shared library is named by it (libdocent.so.MAJOR).
pub const DOCENT_ABI_VERSION: u32 = 256;

/// The DOCENT_ABI_VERSION that the loaded library was built with. Hosts compare the major part, and ask for at least the
/// minor part that they were built with.
#[unsafe(no_mangle)]
pub extern "C" fn docent_abi_version() -> u32 {
    DOCENT_ABI_VERSION
}

/// The version of the library, such as "0.1.0": NUL-terminated, valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn docent_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}
