//! The libraries export what the committed list names and nothing else, under the right name.

mod host;

use host::{have, libraries, root};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

fn listed() -> BTreeSet<String> {
    fs::read_to_string(root().join("ffi/symbols.txt")).unwrap().lines().map(str::to_owned).collect()
}

fn output(tool: &str, args: &[&str]) -> String {
    let output = Command::new(tool).args(args).arg(libraries().join("libdocent.so")).output().unwrap();
    assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn exports_are_the_listed_ones() {
    if !have("nm") {
        return;
    }
    let found: BTreeSet<String> = output("nm", &["--dynamic", "--defined-only"])
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .map(str::to_owned)
        .collect();
    assert_eq!(found, listed(), "ffi/symbols.txt and the exports differ; symbols are added, never removed");
}

#[test]
fn header_declares_the_listed_functions() {
    let header = fs::read_to_string(root().join("include/docent.h")).unwrap();
    let declared: BTreeSet<String> = header
        .lines()
        .filter(|line| !line.trim_start().starts_with(['*', '/', '#']))
        .filter_map(|line| line.split_once('(')?.0.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("docent_"))
        .map(str::to_owned)
        .collect();
    assert_eq!(declared, listed());
}

#[test]
fn soname_and_versions_agree() {
    if !have("readelf") {
        return;
    }
    let dynamic = output("readelf", &["--dynamic", "--wide"]);
    let header = fs::read_to_string(root().join("include/docent.h")).unwrap();
    let number = header.lines().find_map(|line| line.strip_prefix("#define DOCENT_ABI_VERSION ")).unwrap();
    let major = number.parse::<u32>().unwrap() >> 16;
    assert!(dynamic.contains(&format!("[libdocent.so.{major}]")), "{dynamic}");
    assert!(dynamic.contains("NODELETE"), "{dynamic}");
}
