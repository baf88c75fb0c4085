//! Hosts that share objects between threads, fork, unload the library, or end in the middle of a call.

mod host;
#[path = "../../tests/serve_engine/world.rs"]
#[allow(dead_code, reason = "shared with the tests of the engine")]
mod world;

extern crate docent_api as docent;

use host::{Language, Link, have, installed, root, run, said, valgrind};
use world::{Shop, entity};

fn build(shop: &Shop, name: &str, link: Link) -> std::path::PathBuf {
    let program = shop.dir.path().join(format!("{name}-{link:?}"));
    let source = root().join("ffi/tests/c").join(name).with_extension("c");
    Language::C.build(&[source], &program, link, &["-std=gnu11"]);
    program
}

#[test]
fn threads_forks_and_the_order_of_freeing() {
    if !have("gcc") {
        return;
    }
    let shop = Shop::new();
    let (store, entity) = (shop.path(), entity(1));
    let args = [store.to_str().unwrap(), &entity];
    for link in [Link::Static, Link::Shared] {
        let program = build(&shop, "host", link);
        // Nothing but its own word is on standard output, and nothing on standard error.
        let done = concat!("done ", env!("CARGO_PKG_VERSION"));
        assert_eq!(said(&run(&program, &args)), done, "{link:?}");
        if have("valgrind") {
            assert_eq!(said(&valgrind(&program, &args)), done, "{link:?}");
        }
    }
}

#[test]
fn unloading_and_loading_again() {
    if !have("gcc") {
        return;
    }
    let shop = Shop::new();
    let (store, program) = (shop.path(), build(&shop, "unload", Link::Dynamic));
    let library = installed(shop.dir.path()).join("libdocent.so.0");
    assert_eq!(said(&run(&program, &[library.to_str().unwrap(), store.to_str().unwrap()])), "done");
}

#[test]
fn ending_in_the_middle_of_a_call() {
    if !have("gcc") {
        return;
    }
    let shop = Shop::new();
    let (store, program) = (shop.path(), build(&shop, "leave", Link::Shared));
    for _ in 0..40 {
        assert_eq!(said(&run(&program, &[store.to_str().unwrap()])), "done");
    }
}
