//! The shape of the house, held by tests: who may import whom, which crates the library stands on, where `unsafe` lives.

#[path = "architecture/reader.rs"]
mod reader;

use reader::Arrows;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/")
}

/// The layer of each top-level module; a module may use those of its own layer and below. The command line stands above
/// all, and the C ABI sees the public API alone.
const LAYERS: [(&str, &[&str]); 7] = [
    ("shared by all", &["error", "random", "progress", "options", "schema", "threads", "event", "bootstrap"]),
    ("data and bytes", &["data", "store", "kernels"]),
    ("what is computed", &["tokenizer", "model", "ranker"]),
    ("a published model", &["generation"]),
    ("training and serving", &["train", "serve"]),
    ("adaptation and evaluation", &["adapt", "evaluate"]),
    ("the whole way", &["pipeline"]),
];

/// The layer of a file below `src/`; the crate's root has none.
fn layer(file: &str) -> Option<usize> {
    let module = file.split(['/', '.']).next().unwrap();
    if module == "lib" {
        return None;
    }
    let found = LAYERS.iter().position(|(_, modules)| modules.contains(&module));
    Some(found.unwrap_or_else(|| panic!("{file}: module {module} has no layer; give it one")))
}

fn arrows(folder: &str, crate_root: &str) -> Arrows {
    let arrows = reader::arrows(&reader::files(&root().join(folder)), crate_root);
    assert!(arrows.len() > 10, "{folder}: only {} arrows were read", arrows.len());
    arrows
}

#[test]
fn dependencies_point_down() {
    let mut upward = String::new();
    for ((from, to), names) in arrows("src", "lib.rs") {
        if let (Some(own), Some(theirs)) = (layer(&from), layer(&to))
            && theirs > own
        {
            let (own, theirs) = (LAYERS[own].0, LAYERS[theirs].0);
            upward += &format!("  src/{from} ({own}) -> src/{to} ({theirs}): {names:?}\n");
        }
    }
    assert!(upward.is_empty(), "these arrows point up:\n{upward}");
}

#[test]
fn no_files_lie_in_a_circle() {
    let crates = [("src", "lib.rs"), ("src/bin/docent", "main.rs"), ("ffi/src", "lib.rs")];
    let circles: Vec<String> = crates
        .iter()
        .flat_map(|(folder, root)| {
            reader::circles(&arrows(folder, root)).into_iter().map(move |circle| format!("{folder}: {circle}"))
        })
        .collect();
    assert!(circles.is_empty(), "{} circles\n{}", circles.len(), circles.join(""));
}

/// The text without its unit tests.
fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod tests {").map_or(text, |at| &text[..at])
}

#[test]
fn nothing_in_the_library_speaks_of_other_languages_or_prints() {
    for path in sources(&root().join("src")) {
        let file = name(&path);
        if file.starts_with("src/bin/") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for line in without_tests(&text).lines().filter(|l| !l.trim_start().starts_with("//")) {
            for word in ["println!", "eprintln!", "print!(", "eprint!(", "dbg!(", "jni::", "std::env::set_var"] {
                assert!(!line.contains(word), "{file}: {line}");
            }
        }
    }
}

/// Where `unsafe` may stand.
fn may_be_unsafe(file: &str) -> bool {
    file.starts_with("src/store/region") || file.starts_with("src/kernels/") || file.starts_with("ffi/")
}

#[test]
fn unsafe_stands_where_it_may_and_says_why_it_is_sound() {
    let mut blocks = 0;
    for folder in ["src", "ffi", "tests", "examples", "benches"] {
        for path in sources(&root().join(folder)) {
            let file = name(&path);
            if file == "tests/architecture.rs" {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            for (i, line) in lines.iter().enumerate() {
                let code = line.split("//").next().unwrap_or("");
                let block =
                    code.contains("unsafe {") || code.contains("unsafe impl") || code.trim_end().ends_with("unsafe");
                let function = code.contains("unsafe fn") || code.contains("unsafe extern");
                if !block && !function {
                    continue;
                }
                assert!(
                    may_be_unsafe(&file) || file.starts_with("tests/"),
                    "{file}:{}: unsafe has no place here",
                    i + 1
                );
                if block {
                    blocks += 1;
                    let near = lines[i.saturating_sub(8)..=i].iter().any(|l| l.contains("SAFETY:"));
                    assert!(near, "{file}:{}: an unsafe block needs its SAFETY: line", i + 1);
                }
            }
        }
    }
    assert!(blocks > 0);
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    assert!(lib.contains("deny(unsafe_code"));
}

#[test]
fn every_dependency_says_why_it_is_there() {
    for manifest in ["Cargo.toml", "ffi/Cargo.toml"] {
        let text = fs::read_to_string(root().join(manifest)).unwrap();
        let (mut table, mut seen) = ("", 0);
        for line in text.lines() {
            if line.starts_with('[') {
                table = line;
            } else if table.ends_with("dependencies]") && line.contains('=') {
                assert!(line.contains(" # "), "{manifest}: a one-line reason belongs behind `{line}`");
                seen += 1;
            }
        }
        assert!(seen > 1, "{manifest}: no dependencies were read");
    }
}

#[test]
fn versions_with_known_defects_stay_out() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    for (name, least) in [("rkyv", [0, 8, 15]), ("memmap2", [0, 9, 11]), ("crossbeam-epoch", [0, 9, 20])] {
        let entry = lock.find(&format!("name = \"{name}\"\n")).unwrap_or_else(|| panic!("{name} is not in Cargo.lock"));
        let version = lock[entry..].split('"').nth(3).unwrap();
        let have: Vec<u64> = version.split('.').map(|p| p.parse().unwrap()).collect();
        assert!(have.as_slice() >= least.as_slice(), "{name} {version} is older than {least:?}");
    }
}

#[test]
fn nothing_is_left_open_in_the_code() {
    for folder in ["src", "ffi", "examples"] {
        for path in sources(&root().join(folder)) {
            let text = fs::read_to_string(&path).unwrap();
            for word in ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("] {
                assert!(!text.contains(word), "{}: {word}", name(&path));
            }
        }
    }
}
