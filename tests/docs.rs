//! What the documents and the comments point to is there: links and their anchors, paths of files, other documents.

use std::fs;
use std::path::{Path, PathBuf};

const FOLDERS: [&str; 9] = ["src/", "tests/", "benches/", "docs/", "examples/", "ffi/", "fuzz/", "include/", ".ci/"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The documents that are held to this; records of measurements stay as they were written.
fn documents() -> Vec<PathBuf> {
    let mut found = vec![root().join("benches/README.md"), root().join("tests/attacks/README.md")];
    for folder in [root().to_owned(), root().join("docs")] {
        let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        found.extend(entries.filter(|p| p.extension().is_some_and(|e| e == "md")));
    }
    found.sort();
    assert!(found.len() > 10, "{found:?}");
    found
}

fn sources() -> Vec<PathBuf> {
    let (mut found, mut folders) =
        (Vec::new(), ["src", "tests", "benches", "examples", "ffi"].map(PathBuf::from).to_vec());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// The comment of a line of Rust.
fn comment(line: &str) -> Option<&str> {
    let at = line.find("//")?;
    line[..at].matches('"').count().is_multiple_of(2).then(|| &line[at..])
}

/// Words that may be paths.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && !"_./-*".contains(c));
    words.map(|w| w.trim_end_matches(['.', '-'])).filter(|w| !w.starts_with("//"))
}

/// Whether a path stands for any of a kind, as `records/NAME.md` does.
fn is_pattern(path: &str) -> bool {
    let stem = |part: &str| part.split('.').next().unwrap_or("").to_owned();
    let shouted = |s: String| s.len() > 1 && s.chars().all(|c| c.is_ascii_uppercase() || c == '-');
    path.split('/').map(stem).any(|s| shouted(s.clone()) && !["README", "ARCHITECTURE"].contains(&s.as_str()))
}

/// Whether a path is there: a file, a folder, a source without its ending, or the start of several.
fn is_there(path: &Path) -> bool {
    if path.exists() || path.with_extension("rs").exists() {
        return true;
    }
    let text = path.to_string_lossy();
    let Some((start, _)) = text.split_once('*') else { return false };
    let (folder, start) = start.rsplit_once('/').unwrap_or((".", start));
    fs::read_dir(folder)
        .is_ok_and(|mut all| all.any(|e| e.is_ok_and(|e| e.file_name().to_string_lossy().starts_with(start))))
}

/// What a text of a file in `folder` points to and is not there.
fn missing(text: &str, folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for word in words(text) {
        let is_document = word.ends_with(".md") && word.len() > 3;
        let is_path = FOLDERS.iter().any(|f| word.starts_with(f) && word.len() > f.len());
        let there = || is_there(&root().join(word)) || (is_document && is_there(&folder.join(word)));
        if (is_document || is_path) && !is_pattern(word) && !there() {
            found.push(word.to_owned());
        }
    }
    found
}

/// The name of a heading in a link.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn has_anchor(document: &str, wanted: &str) -> bool {
    let mut fenced = false;
    document.lines().any(|line| {
        fenced ^= line.starts_with("```");
        !fenced && line.starts_with('#') && anchor(line.trim_start_matches('#')) == wanted
    })
}

/// The targets of links within this repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|target| !target.contains(':'))
}

#[test]
fn links_lead_somewhere() {
    let (mut broken, mut seen) = (Vec::new(), 0);
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in links(&text) {
            let (path, wanted) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            let there = target.exists()
                && (wanted.is_empty() || fs::read_to_string(&target).is_ok_and(|text| has_anchor(&text, wanted)));
            if !there {
                broken.push(format!("{}: {link}", name(&document)));
            }
            seen += 1;
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
    assert!(seen > 40, "only {seen} links were read");
}

#[test]
fn paths_in_documents_are_there() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let mut found = missing(&text, document.parent().unwrap());
        // Modules are named without `src/`: `store/live`.
        for span in text.split('`').skip(1).step_by(2) {
            let folder = span.split('/').next().unwrap();
            let plain = span.chars().all(|c| c.is_ascii_lowercase() || "_/*".contains(c));
            let is_module = plain && folder != span && root().join("src").join(folder).is_dir();
            if is_module && !folder.is_empty() && !is_there(&root().join("src").join(span)) {
                found.push(span.to_owned());
            }
        }
        broken.extend(found.into_iter().map(|path| format!("{}: {path}", name(&document))));
    }
    assert!(broken.is_empty(), "paths that are not there:\n{}", broken.join("\n"));
}

#[test]
fn paths_in_comments_are_there() {
    let (mut broken, mut seen) = (Vec::new(), 0);
    for source in sources().into_iter().filter(|s| !s.ends_with("tests/docs.rs")) {
        let text = fs::read_to_string(&source).unwrap();
        for (at, line) in text.lines().enumerate() {
            let Some(comment) = comment(line) else { continue };
            seen += 1;
            let found = missing(comment, source.parent().unwrap());
            broken.extend(found.into_iter().map(|path| format!("{}:{}: {path}", name(&source), at + 1)));
        }
    }
    assert!(broken.is_empty(), "{} paths that are not there:\n{}", broken.len(), broken.join("\n"));
    assert!(seen > 1000, "only {seen} comments were read");
}

#[test]
fn what_is_missing_is_seen() {
    let folder = root().join("docs");
    let text = "`tests/docs.rs`, src/store, src/store/region*, train.md, docs/train.md, benches/records/NAME.md, \
                https://example.org/src/none.rs and src/none.rs, none.md, src/none*.";
    assert_eq!(missing(text, &folder), ["src/none.rs", "none.md", "src/none*"]);
    assert_eq!(comment("let a = \"http://b\"; // c"), None);
    assert_eq!(comment("let a = 1; // src/b"), Some("// src/b"));
    let text = "# A `b.toml`: c\n```\n# d\n```\n";
    assert!(has_anchor(text, "a-btoml-c") && !has_anchor(text, "d"));
    assert_eq!(links("[a](b.md#c) [d](https://e)").collect::<Vec<_>>(), ["b.md#c"]);
}

/// Names in a document that are written as code and look like those of tests.
fn named_tests(text: &str) -> Vec<&str> {
    let code = text.split('`').skip(1).step_by(2);
    code.filter(|c| {
        c.matches('_').count() > 1 && c.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    })
    .collect()
}

#[test]
fn every_promise_names_a_test_that_is_there() {
    let text = fs::read_to_string(root().join("docs/reliability.md")).unwrap();
    let mut tests = String::new();
    for source in sources() {
        tests.push_str(&fs::read_to_string(root().join(source)).unwrap());
    }
    let named = named_tests(&text);
    let missing: Vec<_> = named
        .iter()
        .filter(|name| {
            !tests.contains(&format!("#[test]\nfn {name}()")) && !tests.contains(&format!("#[test]\n    fn {name}()"))
        })
        .collect();
    assert!(missing.is_empty(), "docs/reliability.md names tests that are not there: {missing:?}");
    assert!(named.len() > 80, "{}", named.len());
    // Each promise has one.
    for row in text.lines().filter(|l| l.starts_with("| ") && !l.starts_with("| promise")) {
        assert!(!named_tests(row).is_empty(), "this promise has no test: {row}");
    }
}
