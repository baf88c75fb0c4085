//! The committed header is the one that the sources give; it compiles alone, twice, and from two places, as C and as C++.

mod host;

use host::{Language, Link, have, root, run, said};
use std::fs;

fn generated() -> String {
    let folder = root().join("ffi");
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).unwrap();
    let mut header = Vec::new();
    let builder = cbindgen::Builder::new().with_config(config).with_crate(&folder);
    builder.generate().unwrap().write(&mut header);
    String::from_utf8(header).unwrap()
}

#[test]
fn header_is_what_the_sources_give() {
    let (generated, path) = (generated(), root().join("include/docent.h"));
    if std::env::var_os("DOCENT_WRITE_HEADER").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == generated,
        "include/docent.h differs from ffi/src; run DOCENT_WRITE_HEADER=1 cargo test -p docent-ffi --test header"
    );
}

#[test]
fn header_compiles_alone_twice_and_from_two_places() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let part = "#include <docent.h>\n#include <docent.h>\ndocent_status other(docent_engine *engine);\n\
                docent_status other(docent_engine *engine) { return docent_engine_free(engine); }\n";
    let whole = "#include <docent.h>\n#include <stdio.h>\ndocent_status other(docent_engine *engine);\n\
                 int main(void) { return printf(\"%u\", other(NULL)) == 1 ? 0 : 1; }\n";
    for (language, ending) in [(Language::C, "c"), (Language::Cxx, "cc")] {
        if !have(language.compiler()) {
            continue;
        }
        let (part, whole) = (write(&format!("part.{ending}"), part), write(&format!("whole.{ending}"), whole));
        let alone = write(&format!("alone.{ending}"), "#include <docent.h>\n");
        language.build(&[alone], &dir.path().join("alone.o"), Link::None, &[]);
        for link in [Link::Static, Link::Shared] {
            let program = dir.path().join(format!("whole-{ending}-{link:?}"));
            language.build(&[part.clone(), whole.clone()], &program, link, &[]);
            assert_eq!(said(&run(&program, &[])), "0");
        }
    }
}

#[test]
fn statuses_are_the_kinds_of_errors() {
    // `Name = number,` in the engine; DOCENT_ERR_NAME in the header.
    let engine = fs::read_to_string(root().join("src/error.rs")).unwrap();
    let body = engine.split_once("pub enum ErrorKind {").unwrap().1.split_once("\n}").unwrap().0;
    let mut kinds = vec![("DOCENT_OK".to_owned(), 0)];
    for line in body.lines() {
        if let Some((name, number)) = line.trim().trim_end_matches(',').split_once(" = ") {
            let snake: String = name
                .chars()
                .map(|c| if c.is_uppercase() { format!("_{c}") } else { c.to_uppercase().to_string() })
                .collect();
            kinds.push((format!("DOCENT_ERR{snake}"), number.parse().unwrap()));
        }
    }
    assert!(kinds.len() > 20, "{kinds:?}");
    let header = fs::read_to_string(root().join("include/docent.h")).unwrap();
    let defined: Vec<(String, u32)> = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define ")?.split_once(' '))
        .filter(|(name, _)| name.starts_with("DOCENT_ERR_") || *name == "DOCENT_OK")
        .map(|(name, number)| (name.to_owned(), number.parse().unwrap()))
        .collect();
    assert_eq!(defined, kinds);
}
