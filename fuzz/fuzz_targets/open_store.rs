#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| docent_fuzz::run(docent_fuzz::fuzz::open_store, bytes));
