//! The shape of the house, held by tests: who may import whom, which crates the library stands on, where `unsafe` lives.

use std::collections::BTreeSet;
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
    assert!(!found.is_empty() || folder.ends_with("benches"));
    found
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/")
}

/// The layer of each top-level module; a module may use those of its own layer and below.
const LAYERS: [(&str, u32); 14] = [
    ("error", 0),
    ("random", 0),
    ("observe", 0),
    ("options", 0),
    ("schema", 0),
    ("data", 1),
    ("store", 1),
    ("kernels", 1),
    ("tokenizer", 2),
    ("model", 2),
    ("train", 3),
    ("serve", 3),
    ("adapt", 4),
    ("evaluate", 4),
];

fn layer(module: &str) -> Option<u32> {
    LAYERS.iter().find(|(m, _)| *m == module).map(|(_, l)| *l)
}

/// The text without its unit tests, which may look anywhere.
fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod tests {").map_or(text, |at| &text[..at])
}

#[test]
fn dependencies_point_down() {
    let mut modules = BTreeSet::new();
    for path in sources(&root().join("src")) {
        let file = name(&path);
        let module = file.trim_start_matches("src/").split(['/', '.']).next().unwrap().to_owned();
        if ["lib", "bin"].contains(&module.as_str()) {
            continue;
        }
        let own = layer(&module).unwrap_or_else(|| panic!("{file}: module {module} has no layer; give it one"));
        modules.insert(module.clone());
        if file.contains("/tests") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for used in without_tests(&text).split("crate::").skip(1) {
            let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if let Some(theirs) = layer(&used) {
                assert!(theirs <= own, "{file} (layer {own}) uses {used} (layer {theirs}): dependencies point down");
            }
        }
    }
    assert!(modules.len() >= 12, "{modules:?}");
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
        if !root().join(folder).exists() {
            continue;
        }
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

/// Names under a table of Cargo.toml, with the reason behind each.
fn dependencies(manifest: &str, table: &str) -> Vec<(String, bool, bool)> {
    let start = manifest.find(&format!("[{table}]\n")).unwrap_or_else(|| panic!("no [{table}]"));
    let body = &manifest[start + table.len() + 3..];
    let body = &body[..body.find("\n[").unwrap_or(body.len())];
    body.lines()
        .filter(|l| !l.trim().is_empty() && !l.starts_with('#'))
        .map(|l| {
            let (name, rest) = l.split_once('=').unwrap();
            (name.trim().to_owned(), rest.contains("optional = true"), rest.contains(" # "))
        })
        .collect()
}

#[test]
fn the_direct_dependencies_are_these_each_with_its_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let all = dependencies(&manifest, "dependencies");
    for (name, _, reason) in &all {
        assert!(reason, "{name} needs a one-line reason in Cargo.toml");
    }
    let names = |optional: bool| all.iter().filter(|d| d.1 == optional).map(|d| d.0.as_str()).collect::<Vec<_>>();
    assert_eq!(
        names(false),
        ["blake3", "candle-core", "candle-nn", "crossbeam", "gemm", "memmap2", "parking_lot", "redb", "rkyv"]
    );
    assert_eq!(
        names(true),
        [
            "csv",
            "encoding_rs",
            "flate2",
            "glob",
            "jiff",
            "serde",
            "serde_json",
            "toml",
            "zstd",
            "clap",
            "ctrlc",
            "indicatif",
            "mimalloc"
        ]
    );
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
fn files_hold_one_idea() {
    for path in sources(&root().join("src")) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 620, "{} has {lines} lines: usually two ideas", name(&path));
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
