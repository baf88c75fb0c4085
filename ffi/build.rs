//! Gives the shared library its name and keeps it loaded.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        // The number is the major part of DOCENT_ABI_VERSION; a test compares them.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libdocent.so.0");
        // Thread-local destructors of this library may run after a dlclose.
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
