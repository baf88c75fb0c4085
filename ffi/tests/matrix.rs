//! Every function, with every argument wrong in every way that its type allows: NULL, misaligned, of another kind, out of
//! range, too long. The calls are written from the header, so that a new function is in the matrix at once.

mod host;
#[path = "../../tests/serve_engine/world.rs"]
#[allow(dead_code, reason = "shared with the tests of the engine")]
mod world;

extern crate docent_api as docent;

use host::{Language, Link, have, root, run, said, valgrind};
use std::fmt::Write;
use std::fs;

/// Parameters that may be NULL, with their function.
const OPTIONAL: [(&str, &str); 15] = [
    ("docent_engine_open", "options"),
    ("docent_engine_reload", "generation"),
    ("docent_error_message", "length"),
    ("docent_error_status", "error"),
    ("docent_generation_counts", "items"),
    ("docent_generation_counts", "entities"),
    ("docent_generation_counts", "width"),
    ("docent_recommend", "filter"),
    ("docent_recommend", "generation"),
    ("docent_recommend", "source"),
    ("docent_similar", "filter"),
    ("docent_similar", "generation"),
    ("docent_score", "generation"),
    ("docent_user_embedding", "generation"),
    ("docent_item_embedding", "generation"),
];

/// Kinds of objects.
const KINDS: [&str; 7] = ["error", "options", "engine", "generation", "session", "query", "filter"];

#[derive(Clone, Debug)]
struct Parameter {
    kind: String,
    name: String,
}

#[derive(Debug)]
struct Function {
    name: String,
    parameters: Vec<Parameter>,
}

/// The functions that the header declares.
fn functions() -> Vec<Function> {
    let header = fs::read_to_string(root().join("include/docent.h")).unwrap();
    let mut code = String::new();
    let mut comment = false;
    for line in header.lines().map(str::trim) {
        comment |= line.starts_with("/*");
        if !comment && !line.starts_with('#') {
            code += line;
            code.push(' ');
        }
        comment &= !line.ends_with("*/");
    }
    let declarations = code.split(';').filter(|d| d.contains('(') && !d.contains("typedef"));
    declarations
        .map(|declaration| {
            let (head, tail) = declaration.split_once('(').unwrap();
            let name = head.rsplit([' ', '*']).find(|part| !part.is_empty()).unwrap().to_owned();
            let parameters = tail.split_once(')').unwrap().0.split(',').map(str::trim).filter(|p| *p != "void");
            let parameters = parameters
                .map(|parameter| {
                    let at = parameter.rfind([' ', '*']).unwrap() + 1;
                    let kind = parameter[..at].trim().to_owned();
                    Parameter { kind, name: parameter[at..].to_owned() }
                })
                .collect();
            Function { name, parameters }
        })
        .collect()
}

impl Parameter {
    /// The kind of object that it points to.
    fn object(&self) -> Option<&'static str> {
        let stem = self.kind.trim_start_matches("const ").strip_suffix('*')?.trim();
        KINDS.into_iter().find(|kind| stem == format!("docent_{kind}"))
    }

    /// Whether it is the place for a new object other than an error.
    fn is_new_object(&self) -> bool {
        self.kind.starts_with("docent_") && self.kind.ends_with("**") && self.kind != "docent_error **"
    }

    /// An argument that suits it.
    fn valid(&self, function: &str) -> String {
        match (self.kind.as_str(), self.name.as_str()) {
            ("const char *", "id") if function.ends_with("entity") => "\"user-0\"".into(),
            ("size_t", "id_length") if function.ends_with("entity") => "6".into(),
            (_, name) if self.object().is_some() => {
                format!("the_{}", self.object().filter(|k| *k != "error").unwrap_or(name))
            }
            ("docent_error **", _) => "&error".into(),
            ("const char *", "store") => "store".into(),
            ("const char *", "id" | "item") => "\"i111\"".into(),
            ("const char *", "action") => "\"like\"".into(),
            ("const char *", "field") => "field".into(),
            ("const char *", "name") => "\"device\"".into(),
            ("const char *", "value") => "\"phone\"".into(),
            ("size_t", "store_length") => "strlen(store)".into(),
            ("size_t", "id_length" | "item_length" | "action_length") => "4".into(),
            ("size_t", "field_length") => "strlen(field)".into(),
            ("size_t", "name_length") => "6".into(),
            ("size_t", "value_length") => "5".into(),
            ("size_t", "capacity") => "CAPACITY".into(),
            ("size_t", "count") => "1".into(),
            ("const char *const *", "values") => "values".into(),
            ("const size_t *", "value_lengths") => "value_lengths".into(),
            ("const char *const *", "candidates") => "candidates".into(),
            ("const size_t *", "candidate_lengths") => "candidate_lengths".into(),
            ("uint64_t", _) => "1".into(),
            ("uint32_t" | "docent_verify" | "docent_load_mode" | "docent_unknown", _) => "1".into(),
            ("int64_t", "until") => "2000".into(),
            ("int64_t", _) => "1000".into(),
            ("float", _) => "1.0f".into(),
            ("float *" | "uint32_t *", "vector" | "scores" | "rows") => self.name.clone(),
            (_, name) if self.is_new_object() => format!("&made_{name}"),
            (kind, name) if kind.ends_with('*') => format!("&out_{name}"),
            _ => panic!("{self:?} has no argument; add one"),
        }
    }

    /// Wrong arguments, with the statuses that they may give.
    fn wrong(&self, function: &str) -> Vec<(String, &'static str)> {
        let kind = self.kind.as_str();
        let optional = OPTIONAL.contains(&(function, &self.name)) || kind == "docent_error **";
        let invalid = "DOCENT_ERR_INVALID_ARGUMENT";
        let mut wrong = Vec::new();
        if let Some(object) = self.object() {
            let other = if object == "query" { "filter" } else { "query" };
            wrong.push((format!("(void *)the_{other}"), invalid));
            wrong.push((format!("(void *)((char *)the_{other} + 1)"), invalid));
        }
        if kind.ends_with('*') {
            let null = if optional || function.ends_with("_free") { "DOCENT_OK" } else { invalid };
            wrong.push(("NULL".into(), null));
            if kind != "const char *" && self.object().is_none() && !optional {
                wrong.push(("(void *)((char *)misaligned + 1)".into(), invalid));
            }
        }
        match (kind, self.name.as_str()) {
            ("size_t", "capacity") => {
                wrong.push(("0".into(), invalid));
                wrong.push(("SIZE_MAX".into(), invalid));
                wrong.push(("SIZE_MAX / 4".into(), invalid));
            }
            ("size_t", name) if name != "capacity" => wrong.push(("SIZE_MAX".into(), invalid)),
            ("docent_verify" | "docent_load_mode" | "docent_unknown", _) => {
                wrong.push(("2".into(), invalid));
                wrong.push(("UINT32_MAX".into(), invalid));
            }
            ("uint32_t", _) => wrong.push(("UINT32_MAX".into(), invalid)),
            ("uint64_t", "number") => wrong.push(("UINT64_MAX".into(), "DOCENT_ERR_NOT_FOUND")),
            ("float", "value") => {
                wrong.push(("NAN".into(), invalid));
                wrong.push(("INFINITY".into(), invalid));
            }
            ("float", _) => wrong.push(("NAN".into(), invalid)),
            ("const char *", name) if name != "store" => {
                wrong.push(("\"\\xff\\xfe\\xfd\\xfc\\xfb\\xfa\"".into(), invalid))
            }
            _ => {}
        }
        wrong
    }
}

/// The program that makes all the calls.
fn program() -> String {
    let mut calls = String::new();
    let mut cases = 0;
    for function in functions() {
        let Function { name, parameters } = &function;
        if ["docent_abi_version", "docent_version", "docent_status_name"].contains(&name.as_str()) {
            continue;
        }
        let valid: Vec<String> = parameters.iter().map(|p| p.valid(name)).collect();
        let mut case = |what: &str, arguments: &[String], expected: &str| {
            cases += 1;
            let arguments = arguments.join(", ");
            writeln!(calls, "  check(\"{name}\", \"{what}\", {expected}, (before(), {name}({arguments})));").unwrap();
        };
        // What makes or frees an object is called rightly at the beginning and the end.
        let makes = parameters.iter().any(Parameter::is_new_object);
        if !makes && !name.ends_with("_free") {
            let told = name == "docent_error_status";
            case("valid", &valid, if told { "DOCENT_ERR_INVALID_ARGUMENT" } else { "DOCENT_OK" });
        }
        for (at, parameter) in parameters.iter().enumerate() {
            for (argument, expected) in parameter.wrong(name) {
                if expected == "DOCENT_OK" && makes {
                    continue;
                }
                let mut arguments = valid.clone();
                arguments[at] = argument.clone();
                let what = format!("{} = {}", parameter.name, argument.replace('\\', "\\\\").replace('"', "\\\""));
                case(&what, &arguments, expected);
            }
        }
    }
    assert!(cases > 200, "{cases}");
    let template = fs::read_to_string(root().join("ffi/tests/c/matrix.c")).unwrap();
    template.replace("/* CALLS */", &calls)
}

#[test]
fn wrong_arguments_are_refused_and_do_no_harm() {
    if !have("gcc") {
        return;
    }
    let shop = world::Shop::new();
    let (source, binary) = (shop.dir.path().join("matrix.c"), shop.dir.path().join("matrix"));
    fs::write(&source, program()).unwrap();
    let store = shop.path();
    let store = store.to_str().unwrap();
    Language::C.build(std::slice::from_ref(&source), &binary, Link::Static, &["-Wno-overlength-strings"]);
    let plain = said(&run(&binary, &[store]));
    assert!(plain.starts_with("done "), "{plain}");
    if have("valgrind") {
        assert_eq!(said(&valgrind(&binary, &[store])), plain);
    }
    let sanitized = shop.dir.path().join("sanitized");
    Language::C.build(
        &[source],
        &sanitized,
        Link::Static,
        &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    );
    assert_eq!(said(&run(&sanitized, &[store])), plain);
}
