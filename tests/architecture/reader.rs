//! Which file of a crate names what another one defines.
//!
//! Every path is read: `use` with groups, aliases and globs, `self`, `super`, `crate`, paths in code and in the arguments of
//! macros. A re-export is followed to the file that defines the name, so a `mod.rs` that re-exports neither makes arrows nor
//! receives any. What only tests see is left out.

use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use syn::visit::{self, Visit};

/// The text of each file, by its path below the crate's folder.
pub type Files = BTreeMap<String, String>;
/// From a file to another: the names of the other that it uses.
pub type Arrows = BTreeMap<(String, String), BTreeSet<String>>;
type Names = Vec<String>;

#[derive(Default)]
struct Module {
    file: String,
    items: BTreeSet<String>,
    imports: BTreeMap<String, Names>,
    globs: Vec<Names>,
    /// Paths as they are written.
    uses: BTreeSet<Names>,
}

/// What a path leads to.
enum Found {
    Module(Names),
    /// An item, and the module that defines it.
    Item(Names),
}

struct Reader<'a> {
    files: &'a Files,
    modules: BTreeMap<Names, Module>,
    at: Names,
}

/// All Rust files below a folder.
pub fn files(folder: &Path) -> Files {
    let (mut found, mut folders) = (Files::new(), vec![folder.to_owned()]);
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(folder).unwrap().to_string_lossy().replace('\\', "/");
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

/// The arrows between the files of a crate, from its root on.
pub fn arrows(files: &Files, root: &str) -> Arrows {
    let mut reader = Reader { files, modules: BTreeMap::new(), at: Names::new() };
    reader.file(root);
    let mut arrows = Arrows::new();
    for (at, module) in &reader.modules {
        for path in &module.uses {
            if let Some(Found::Item(definer)) = reader.resolve(at, path, 0) {
                let definer = &reader.modules[&definer].file;
                if *definer != module.file {
                    arrows.entry((module.file.clone(), definer.clone())).or_default().insert(path.join("::"));
                }
            }
        }
    }
    arrows
}

/// Groups of files each of which leads to all others of its group, with the arrows inside.
pub fn circles(arrows: &Arrows) -> Vec<String> {
    let nodes: BTreeSet<&str> = arrows.keys().flat_map(|(a, b)| [a.as_str(), b]).collect();
    let reach: BTreeMap<&str, BTreeSet<&str>> = nodes
        .iter()
        .map(|start| {
            let (mut seen, mut open) = (BTreeSet::new(), vec![*start]);
            while let Some(node) = open.pop() {
                let next = arrows.range((node.to_owned(), String::new())..).take_while(|((a, _), _)| a == node);
                open.extend(next.map(|((_, b), _)| b.as_str()).filter(|b| seen.insert(*b)));
            }
            (*start, seen)
        })
        .collect();
    let mut told = BTreeSet::new();
    let mut circles = Vec::new();
    for start in nodes {
        let circle: BTreeSet<&str> =
            reach[start].iter().copied().filter(|other| *other != start && reach[other].contains(start)).collect();
        if circle.is_empty() || !told.insert(start) {
            continue;
        }
        told.extend(&circle);
        let inside = |file: &str| file == start || circle.contains(file);
        let mut text = format!("{} files in a circle:\n", circle.len() + 1);
        for ((a, b), names) in arrows.iter().filter(|((a, b), _)| inside(a) && inside(b)) {
            let names: BTreeSet<&str> = names.iter().filter_map(|n| n.rsplit("::").next()).collect();
            text += &format!("  {a} -> {b} ({})\n", Vec::from_iter(names).join(", "));
        }
        circles.push(text);
    }
    circles
}

macro_rules! attributes {
    ($value:expr, $kind:ident: $($variant:ident)*) => {
        match $value {
            $(syn::$kind::$variant(x) => x.attrs.as_slice(),)*
            _ => &[],
        }
    };
}

/// Whether only tests see what has these attributes.
fn only_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().filter(|a| a.path().is_ident("cfg")).any(|a| {
        let text = a.meta.require_list().map(|l| l.tokens.to_string().replace(' ', "")).unwrap_or_default();
        text == "test" || (text.starts_with("all(") && text.contains("test") && !text.contains("not(test)"))
    })
}

/// The name that an item gives its module.
fn defined(item: &syn::Item) -> Option<String> {
    use syn::Item;
    let name = match item {
        Item::Const(x) => &x.ident,
        Item::Enum(x) => &x.ident,
        Item::Fn(x) => &x.sig.ident,
        Item::Macro(x) => x.ident.as_ref()?,
        Item::Static(x) => &x.ident,
        Item::Struct(x) => &x.ident,
        Item::Trait(x) => &x.ident,
        Item::Type(x) => &x.ident,
        Item::Union(x) => &x.ident,
        _ => return None,
    };
    Some(name.to_string())
}

impl Reader<'_> {
    fn module(&mut self) -> &mut Module {
        self.modules.get_mut(&self.at).unwrap()
    }

    /// Reads a file as the module that is the current one.
    fn file(&mut self, name: &str) {
        let text = self.files.get(name).unwrap_or_else(|| panic!("{name} is not there"));
        let parsed = syn::parse_file(text).unwrap_or_else(|e| panic!("{name}: {e}"));
        self.modules.insert(self.at.clone(), Module { file: name.to_owned(), ..Module::default() });
        parsed.items.iter().for_each(|item| self.visit_item(item));
    }

    /// The file of a module that is declared in the current one.
    fn child(&mut self, name: &str) -> String {
        let own = self.module().file.clone();
        let (folder, last) = own.rsplit_once('/').map_or(("", own.as_str()), |(f, l)| (f, l));
        let folder = match last {
            "mod.rs" | "lib.rs" | "main.rs" => folder.to_owned(),
            _ => own.trim_end_matches(".rs").to_owned(),
        };
        let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        let candidates = [format!("{path}.rs"), format!("{path}/mod.rs")];
        let found = candidates.into_iter().find(|c| self.files.contains_key(c));
        found.unwrap_or_else(|| panic!("{own}: no file for mod {name}"))
    }

    fn import(&mut self, tree: &syn::UseTree, mut path: Names, is_use: bool) {
        let (name, glob) = match tree {
            syn::UseTree::Path(x) => {
                path.push(x.ident.to_string());
                return self.import(&x.tree, path, is_use);
            }
            syn::UseTree::Group(x) => return x.items.iter().for_each(|t| self.import(t, path.clone(), is_use)),
            syn::UseTree::Glob(_) => (None, true),
            syn::UseTree::Name(x) if x.ident == "self" => (path.last().cloned(), false),
            syn::UseTree::Name(x) => {
                path.push(x.ident.to_string());
                (path.last().cloned(), false)
            }
            syn::UseTree::Rename(x) => {
                if x.ident != "self" {
                    path.push(x.ident.to_string());
                }
                (Some(x.rename.to_string()), false)
            }
        };
        let module = self.module();
        if is_use && !glob {
            module.uses.insert(path.clone());
        }
        match name {
            Some(name) => drop(module.imports.entry(name).or_insert(path)),
            None => module.globs.push(path),
        }
    }

    /// Paths in what a macro is given.
    fn tokens(&mut self, tokens: TokenStream) {
        let (mut path, mut colons): (Names, usize) = (Names::new(), 0);
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.used(std::mem::take(&mut path));
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(p) if p.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.used(std::mem::take(&mut path));
                    colons = 0;
                    self.tokens(group.stream());
                }
                _ => {
                    self.used(std::mem::take(&mut path));
                    colons = 0;
                }
            }
        }
        self.used(path);
    }

    fn used(&mut self, path: Names) {
        if !path.is_empty() {
            self.module().uses.insert(path);
        }
    }

    fn resolve(&self, module: &[String], path: &[String], depth: usize) -> Option<Found> {
        let mut at = module.to_vec();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => (at, rest) = (Names::new(), &path[1..]),
            "self" => rest = &path[1..],
            _ => {
                while rest.first().is_some_and(|s| s == "super") {
                    at.pop()?;
                    rest = &rest[1..];
                }
            }
        }
        while let Some((name, after)) = rest.split_first() {
            match self.step(&at, name, after.is_empty(), depth)? {
                Found::Item(definer) => return Some(Found::Item(definer)),
                Found::Module(next) => at = next,
            }
            rest = after;
        }
        Some(Found::Module(at))
    }

    /// What a name is in a module.
    fn step(&self, at: &[String], name: &str, last: bool, depth: usize) -> Option<Found> {
        let module = &self.modules[at];
        let child = [at, &[name.to_owned()]].concat();
        let is_child = self.modules.contains_key(&child);
        if is_child && !last {
            return Some(Found::Module(child));
        }
        if module.items.contains(name) {
            return Some(Found::Item(at.to_vec()));
        }
        if depth > 16 {
            return None;
        }
        if let Some(import) = module.imports.get(name) {
            return self.resolve(at, import, depth + 1);
        }
        if is_child {
            return Some(Found::Module(child));
        }
        module.globs.iter().find_map(|glob| match self.resolve(at, glob, depth + 1)? {
            Found::Module(other) if other != at => self.step(&other, name, last, depth + 1),
            Found::Item(definer) => Some(Found::Item(definer)), // the variants of an enum
            Found::Module(_) => None,
        })
    }
}

impl<'a> Visit<'a> for Reader<'_> {
    fn visit_item(&mut self, item: &'a syn::Item) {
        let attributes = attributes!(item, Item: Const Enum ExternCrate Fn ForeignMod Impl Macro Mod Static Struct Trait
            TraitAlias Type Union Use);
        if only_for_tests(attributes) {
            return;
        }
        if let Some(name) = defined(item) {
            self.module().items.insert(name);
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        let name = item.ident.to_string();
        match &item.content {
            Some((_, items)) => {
                let file = self.module().file.clone();
                self.at.push(name);
                self.modules.insert(self.at.clone(), Module { file, ..Module::default() });
                items.iter().for_each(|item| self.visit_item(item));
            }
            None => {
                let file = self.child(&name);
                self.at.push(name);
                self.file(&file);
            }
        }
        self.at.pop();
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        let file = &self.module().file;
        let may_forward = ["mod.rs", "lib.rs"].contains(&file.rsplit('/').next().unwrap());
        let forwards = may_forward && !matches!(item.vis, syn::Visibility::Inherited);
        self.import(&item.tree, Names::new(), !forwards);
    }

    fn visit_impl_item(&mut self, item: &'a syn::ImplItem) {
        if !only_for_tests(attributes!(item, ImplItem: Const Fn Type Macro)) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_local(&mut self, local: &'a syn::Local) {
        if !only_for_tests(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        self.used(path.segments.iter().map(|s| s.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'a syn::Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    fn visit_visibility(&mut self, _: &'a syn::Visibility) {}

    fn visit_attribute(&mut self, _: &'a syn::Attribute) {}
}

/// The arrows of a crate of these files, without the names.
fn drawn(files: &[(&str, &str)]) -> Vec<String> {
    let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    arrows(&files, "lib.rs").into_keys().map(|(a, b)| format!("{a} {b}")).collect()
}

#[test]
fn reads_grouped_imports_aliases_and_paths_in_code() {
    let lib = ("lib.rs", "mod a; mod b; mod c; mod d; mod e;");
    let a = (
        "a.rs",
        "use crate::{b::{self, B as Other}, c::*}; fn f() { c(); crate::d::d(); b::b(); println!(\"{}\", crate::e::E) }",
    );
    let rest = [
        ("b.rs", "pub struct B; pub fn b() {}"),
        ("c.rs", "pub fn c() {}"),
        ("d.rs", "pub fn d() {}"),
        ("e.rs", "pub const E: u8 = 0;"),
    ];
    assert_eq!(drawn(&[&[lib, a], &rest[..]].concat()), ["a.rs b.rs", "a.rs c.rs", "a.rs d.rs", "a.rs e.rs"]);
}

#[test]
fn reads_self_and_super() {
    let files = [
        ("lib.rs", "mod a; mod b;"),
        ("a/mod.rs", "mod one; mod two;"),
        ("a/one.rs", "use super::two::Two; use super::super::b::B; mod inner { use super::super::two::deep; }"),
        ("a/two.rs", "pub struct Two; pub fn deep() {}"),
        ("b.rs", "pub struct B;"),
    ];
    assert_eq!(drawn(&files), ["a/one.rs a/two.rs", "a/one.rs b.rs"]);
}

#[test]
fn follows_reexports_to_the_file_that_defines() {
    let files = [
        ("lib.rs", "mod a; mod b; pub use a::One;"),
        ("a/mod.rs", "mod one; mod two; pub use self::{one::One as Uno, two::*}; pub use one::One;"),
        ("a/one.rs", "pub struct One; fn f() { super::Two; }"),
        ("a/two.rs", "pub struct Two; fn f(_: crate::One) {}"),
        ("b.rs", "use crate::a::{Uno}; fn f(_: Uno) {}"),
    ];
    assert_eq!(drawn(&files), ["a/one.rs a/two.rs", "a/two.rs a/one.rs", "b.rs a/one.rs"]);
}

#[test]
fn leaves_out_tests_strings_comments_and_visibility() {
    let files = [
        ("lib.rs", "mod a; mod b; #[cfg(test)] mod tests;"),
        (
            "a.rs",
            "//! crate::b::B\n pub(in crate::a) struct A; const S: &str = \"crate::b::B\";
             #[cfg(test)] mod tests { use crate::b::B; } #[cfg(all(test, unix))] use crate::b::B;
             impl A { #[cfg(test)] fn f(_: crate::b::B) {} }",
        ),
        ("b.rs", "pub struct B;"),
    ];
    assert_eq!(drawn(&files), [""; 0]);
}

#[test]
fn finds_circles_and_names_their_arrows() {
    let arrow = |a: &str, b: &str| ((a.to_owned(), b.to_owned()), BTreeSet::from([format!("{b}::name")]));
    let all = Arrows::from([arrow("a", "b"), arrow("b", "c"), arrow("c", "a"), arrow("d", "a"), arrow("c", "e")]);
    let found = circles(&all);
    assert_eq!(found, ["3 files in a circle:\n  a -> b (name)\n  b -> c (name)\n  c -> a (name)\n"]);
}
