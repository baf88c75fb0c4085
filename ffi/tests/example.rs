//! The C example prints what the engine answers, from the shared and from the static library, without an error or a leak.

mod host;
#[path = "../../tests/serve_engine/world.rs"]
#[allow(dead_code, reason = "shared with the tests of the engine")]
mod world;

extern crate docent_api as docent;

use docent::serve::{Filter, Query, Recommendations, Source};
use host::{Language, Link, have, libraries, root, run, said, valgrind};
use world::{Shop, entity};

/// The lines that the example prints for a list.
fn lines(title: &str, list: &Recommendations) -> Vec<String> {
    let mut lines = vec![format!("generation {}: {title}", list.generation.0)];
    for (at, item) in list.items.iter().enumerate() {
        lines.push(format!("{}\t{}\t{}", at + 1, item.id, item.title.as_deref().unwrap_or("")));
    }
    lines
}

/// What the example printed, with the scores apart.
fn split(printed: &str) -> (Vec<String>, Vec<f32>) {
    let mut scores = Vec::new();
    let lines = printed.lines().map(|line| {
        let parts: Vec<&str> = line.split('\t').collect();
        match parts[..] {
            [rank, id, score, title] => {
                scores.push(score.parse().unwrap());
                format!("{rank}\t{id}\t{title}")
            }
            _ => line.to_owned(),
        }
    });
    (lines.collect(), scores)
}

#[test]
fn the_example_prints_what_the_engine_answers() {
    if !have("gcc") {
        return;
    }
    let shop = Shop::new();
    let (engine, store) = (shop.engine(), shop.path());
    let store = store.to_str().unwrap();
    for link in [Link::Static, Link::Shared] {
        let program = shop.dir.path().join(format!("recommend-{link:?}"));
        Language::C.build(&[root().join("examples/c/recommend.c")], &program, link, &["-O2"]);
        for (who, k) in [(entity(1), 10), (entity(4), 7), ("nobody".to_owned(), 5)] {
            let list = engine.recommend(&Query::entity(&who), &Filter::default(), k).unwrap();
            let popular = engine.recommend(&Query::items(&[]), &Filter::default(), k).unwrap();
            let first = &list.items[0].id;
            let alike = engine.similar(first, &Filter::default(), k).unwrap();
            let by = if list.source == Source::Model { "the model" } else { "popularity" };
            let all = [
                lines(&format!("for {who}, by {by}"), &list),
                lines("for somebody new, by popularity", &popular),
                lines(&format!("like {first}"), &alike),
            ];
            let scores: Vec<f32> = [&list, &popular, &alike].iter().flat_map(|l| &l.items).map(|i| i.score).collect();
            let printed = said(&run(&program, &[store, &who, &k.to_string()]));
            assert_eq!(split(&printed), (all.concat(), scores.clone()), "{link:?}");
            if have("valgrind") {
                // Valgrind's processor has no AVX-512: products of matrices may differ in their last digits.
                let (lines, close) = split(&said(&valgrind(&program, &[store, &who, &k.to_string()])));
                assert_eq!((&lines, close.len()), (&split(&printed).0, scores.len()));
                assert!(
                    close.iter().zip(&scores).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs()),
                    "{close:?} {scores:?}"
                );
            }
        }
        let refused = run(&program, &["/nowhere", "u", "3"]);
        assert_eq!(refused.status.code(), Some(4));
        assert!(String::from_utf8_lossy(&refused.stderr).starts_with("error: open: "), "{refused:?}");
    }
}

#[test]
fn the_example_prints_the_list_of_the_command_line() {
    if !have("gcc") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    // The command line talks on stderr while it works; its result is what counts.
    let docent = |arguments: &[&str]| {
        let output = run(&libraries().join("docent"), arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    std::fs::write(at("train.toml"), "[model]\nwidth = 16\nhidden = 16\ncontext = 20\n[train]\nepochs = 2\n").unwrap();
    let (world, dataset, store) = (at("world"), at("world/dataset.toml"), at("store"));
    docent(&["synth", "--out", &world, "--entities", "80", "--items", "200", "--days", "30"]);
    let config = at("train.toml");
    docent(&["train", "--dataset", &dataset, "--store", &store, "--config", &config, "--threads", "1"]);
    let program = folder.path().join("recommend");
    Language::C.build(&[root().join("examples/c/recommend.c")], &program, Link::Shared, &["-O2"]);
    for who in ["p0001", "p0033", "nobody"] {
        let printed = said(&run(&program, &[&store, who, "8"]));
        let ours: Vec<String> = printed
            .lines()
            .skip(1)
            .take_while(|l| l.contains('\t'))
            .map(|l| l.split('\t').nth(1).unwrap().to_owned())
            .collect();
        let text = docent(&["recommend", "--store", &store, "--entity", who, "-k", "8", "--json"]);
        let theirs: Vec<String> = text
            .lines()
            .filter_map(|l| l.trim().strip_prefix("\"id\": \""))
            .map(|l| l.split('"').next().unwrap().to_owned())
            .collect();
        assert_eq!(ours.len(), 8, "{printed}");
        assert_eq!(ours, theirs, "{printed}\n{text}");
    }
}

#[test]
fn valgrind_finds_a_leak_where_there_is_one() {
    if !have("gcc") || !have("valgrind") {
        return;
    }
    let shop = Shop::new();
    let text = std::fs::read_to_string(root().join("examples/c/recommend.c")).unwrap();
    let source = shop.dir.path().join("leak.c");
    assert!(text.contains("  docent_query_free(query);"));
    std::fs::write(&source, text.replace("  docent_query_free(query);", "  query = NULL;")).unwrap();
    let program = shop.dir.path().join("leak");
    Language::C.build(&[source], &program, Link::Static, &[]);
    let output = valgrind(&program, &[shop.path().to_str().unwrap(), "u", "3"]);
    assert_eq!(output.status.code(), Some(9), "{output:?}");
}
