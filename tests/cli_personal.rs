//! The command line, from labelled outcomes to a person: train, adapt, evaluate, and what was kept while serving.
#![cfg(feature = "cli")]

use docent::Event;
use docent::serve::{Engine, EngineOptions, Outcome, PersonalOptions, Query};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn docent(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_docent")).args(arguments).output().unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = docent(&[arguments, &["--json", "--quiet"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn error(arguments: &[&str]) -> String {
    let output = docent(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn outcomes_are_learned_from_adapted_to_and_judged() {
    let folder = tempfile::tempdir().unwrap();
    let (world, store) = (folder.path().join("world"), folder.path().join("store"));
    json(&["synth", "--out", text(&world), "--entities", "300", "--items", "60", "--days", "60"]);
    let (dataset, shown) = (world.join("dataset.toml"), world.join("impressions.toml"));
    let config = folder.path().join("train.toml");
    std::fs::write(
        &config,
        "[model]\nwidth = 16\nhidden = 32\nblocks = 1\nmax_length = 20\n[train]\nepochs = 2\n[ranker]\n\
         publish = \"always\"\ngoal = \"outcome\"\n",
    )
    .unwrap();
    let data = ["--dataset", text(&dataset), "--store", text(&store)];
    let outcomes = ["--outcomes", text(&shown)];
    let config = ["--config", text(&config)];

    // Without labels there is nothing to rank by, and nothing to adapt to.
    json(&[&["train"][..], &data, &config].concat());
    assert!(error(&[&["adapt"][..], &data, &outcomes].concat()).contains("has no ranker"));
    assert!(error(&[&["evaluate", "--protocol", "ctr"][..], &data, &outcomes].concat()).contains("has no ranker"));

    let trained = json(&[&["train"][..], &data, &outcomes, &config].concat());
    assert_eq!(trained["generation"], 2);
    assert!(trained["ranker"]["validation"]["logloss"].as_f64().unwrap() < 0.69, "{trained}");
    assert!(error(&[&["adapt"][..], &data].concat()).contains("no labelled events"));
    let adapted = json(&[&["adapt"][..], &data, &outcomes].concat());
    assert_eq!((&adapted["generation"], &adapted["entities"]), (&3.into(), &300.into()));
    assert!(adapted["adapted"].as_u64().unwrap() > 200, "{adapted}");
    assert!(!store.join("training/adapt.partial").exists());
    // What was held out from training is judged, the same on the generation before and after.
    let judge =
        |generation: &[&str]| json(&[&["evaluate", "--protocol", "ctr"][..], &data, &outcomes, generation].concat());
    let judged = judge(&[]);
    assert_eq!((&judged["generation"], &judged["protocol"]), (&3.into(), &"ctr".into()));
    let auc = |name: &str| {
        let rows = judged["parts"]["known"]["rows"].as_array().unwrap();
        rows.iter().find(|r| r["name"] == name).unwrap()["metrics"]["auc"].as_f64().unwrap()
    };
    assert!(auc("docent") > auc("learned") + 0.01 && auc("docent") > auc("bias"), "{judged}");
    assert_eq!(judged["parts"]["known"]["by_steps"].as_array().unwrap().len(), 5);

    let list = json(&["recommend", "--store", text(&store), "--entity", "p0002"]);
    assert_eq!(list["source"], "ranker");
    let plain = json(&["recommend", "--store", text(&store), "--entity", "p0002", "--retrieval"]);
    assert_eq!(plain["source"], "model");
    let inspected = json(&["inspect", "--store", text(&store)]);
    assert_eq!(inspected["ranker"]["heads"][0], "label");
    assert_eq!(inspected["ranker"]["order"], serde_json::json!({"head": "label", "weight": null}));

    // What an engine kept: counted, exported, forgotten without a trace, imported.
    {
        let options = EngineOptions { personal: Some(PersonalOptions::default()), ..EngineOptions::default() };
        let engine = Engine::open(&store, &options).unwrap();
        for (n, entity) in ["p0002", "p0003", "somebody-new"].into_iter().enumerate() {
            let event = Event { time: Some(1_750_000_000_000 + n as i64), ..Event::item("i0005") };
            engine.observe(entity, &Outcome::labelled(event, &[("label", 1.0)])).unwrap();
        }
        // Beside the engine.
        assert_eq!(json(&["entities", "--store", text(&store)])["entities"], 3);
        let _ = engine.recommend(&Query::entity("p0002"), &Default::default(), 3).unwrap();
    }
    let entities = |arguments: &[&str]| json(&[&["entities", "--store", text(&store)][..], arguments].concat());
    assert_eq!(entities(&[])["entities"], 3);
    assert_eq!(json(&["verify", "--store", text(&store)])["live"]["entities"], 3);
    let file = folder.path().join("states.jsonl");
    assert_eq!(entities(&["--export", text(&file)])["exported"], 3);
    assert!(error(&["entities", "--store", text(&store), "--export", text(&file)]).contains("states.jsonl"));
    let live = store.join("live.db");
    let holds = |what: &str| std::fs::read(&live).unwrap().windows(what.len()).any(|w| w == what.as_bytes());
    assert!(holds("somebody-new"));
    let forgotten = entities(&["--forget", "somebody-new"]);
    assert_eq!((&forgotten["entities"], &forgotten["published"]), (&2.into(), &false.into()));
    assert!(!holds("somebody-new"));
    assert_eq!(entities(&["--purge-before", "1750000000001"])["forgotten"], 1);
    assert_eq!(entities(&["--import", text(&file)])["entities"], 3);
    assert!(holds("somebody-new"));
    // Whom the publication knows, forgetting what was kept does not make unknown.
    let known = docent(&["entities", "--store", text(&store), "--forget", "p0007"]);
    assert!(known.status.success());
    let told = String::from_utf8_lossy(&known.stderr);
    assert!(told.contains("generation 3 was trained with events of \"p0007\""), "{told}");
    // Counting needs no right to write, and makes nothing.
    let bare = folder.path().join("bare");
    docent::store::Store::create(&bare).unwrap();
    assert_eq!(json(&["entities", "--store", text(&bare)])["entities"], 0);
    assert!(!bare.join("live.db").exists());
    // A state that engines would refuse is refused at its line, and with it those before.
    let states = std::fs::read_to_string(&file).unwrap();
    let first = states.lines().next().unwrap();
    let (fine, late) = (first.replace("p0002", "p0042"), first.replace("175000000000", "1750000000000000"));
    assert!(fine.contains("p0042") && late.contains("1750000000000000"), "{first}");
    std::fs::write(&file, format!("{fine}\n{late}\n")).unwrap();
    let told = error(&["entities", "--store", text(&store), "--import", text(&file)]);
    assert!(told.contains("line 2") && told.contains("Unix milliseconds"), "{told}");
    assert_eq!(entities(&[])["entities"], 3);
    std::fs::write(&file, "{\"entity\": 3}\n").unwrap();
    assert!(error(&["entities", "--store", text(&store), "--import", text(&file)]).contains("line 1"));
    assert_eq!(entities(&[])["entities"], 3);
    // Damage to what was kept is told by name.
    let mut bytes = std::fs::read(&live).unwrap();
    let at = bytes.windows(12).position(|w| w == b"somebody-new").unwrap();
    bytes[at + 40] ^= 0x55;
    std::fs::write(&live, &bytes).unwrap();
    assert!(error(&["verify", "--store", text(&store)]).contains("1 problems"));
}

/// The manifest and the segments of a store by name.
fn content(store: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for part in ["generations", "segments"] {
        for entry in std::fs::read_dir(store.join(part)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e != "run") {
                let name = format!("{part}/{}", path.file_name().unwrap().to_str().unwrap());
                found.push((name, std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_foundation_model_that_learned_along_is_published_and_resumed_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (world, config) = (folder.path().join("world"), folder.path().join("train.toml"));
    json(&["synth", "--out", text(&world), "--entities", "200", "--items", "60", "--days", "60"]);
    let (dataset, shown) = (world.join("dataset.toml"), world.join("impressions.toml"));
    let train = |name: &str, ranker: &str| {
        let model = "[model]\nwidth = 16\nhidden = 32\nblocks = 1\nmax_length = 20\n[train]\nepochs = 2\nthreads = 2\n";
        std::fs::write(&config, format!("{model}[ranker]\nepochs = 3\npublish = \"always\"\n{ranker}")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_docent"));
        let store = folder.path().join(name);
        command.args(["train", "--dataset", text(&dataset), "--outcomes", text(&shown), "--config", text(&config)]);
        command.args(["--json", "--store", text(&store)]);
        (command, store)
    };
    let run = |(mut command, store): (Command, std::path::PathBuf)| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (serde_json::from_slice::<Value>(&output.stdout).unwrap(), content(&store))
    };
    let (frozen, _) = run(train("frozen", ""));
    let (joint, whole) = run(train("joint", "finetune = 0.5\n"));
    assert_ne!(joint["ranker"]["validation"], frozen["ranker"]["validation"]);
    assert_ne!(joint["validation"], frozen["validation"], "what is reported is what is published");
    let data = ["--dataset", text(&dataset), "--outcomes", text(&shown)];
    let ctr = |name: &str| {
        let store = folder.path().join(name);
        let judged = json(&[&["evaluate", "--protocol", "ctr", "--store", text(&store)][..], &data].concat());
        judged["parts"]["known"]["rows"].clone()
    };
    assert_ne!(ctr("joint"), ctr("frozen"));

    // Interrupted while both learn: the foundation model is taken up as it was before, and not tuned twice.
    let (mut command, store) = train("interrupted", "finetune = 0.5\n");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|l| l.contains("learns along at 0.5")));
    assert!(Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap().success());
    lines.for_each(drop);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(content(&store).is_empty());
    json(&["train", "--store", text(&store), "--resume"]);
    assert!(content(&store) == whole, "other bytes");
}

#[test]
fn a_ranker_tells_surfaces_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (world, store) = (folder.path().join("world"), folder.path().join("store"));
    json(&["synth", "--out", text(&world), "--entities", "200", "--items", "60", "--days", "60"]);
    let (dataset, shown) = (world.join("dataset.toml"), world.join("impressions.toml"));
    let config = folder.path().join("train.toml");
    let data = ["--dataset", text(&dataset), "--store", text(&store), "--outcomes", text(&shown)];
    let write = |surface: &str| {
        let model = "[model]\nwidth = 16\nhidden = 32\nblocks = 1\nmax_length = 20\n[train]\nepochs = 1\n";
        std::fs::write(
            &config,
            format!("{model}[ranker]\nepochs = 1\npublish = \"always\"\ngoal = \"outcome\"\nsurface = \"{surface}\"\n"),
        )
        .unwrap();
    };
    let train = [&["train"][..], &data, &["--config", text(&config)]].concat();
    write("position");
    let refused = error(&train);
    assert!(refused.contains("position") && refused.contains("device"), "{refused}");
    write("device");
    json(&train);
    let adapted = json(&[&["adapt"][..], &data].concat());
    assert!(adapted["adapted"].as_u64().unwrap() > 100, "{adapted}");
    let judged = json(&[&["evaluate", "--protocol", "ctr"][..], &data].concat());
    assert!(judged["targets"].as_u64().unwrap() > 100, "{judged}");
    assert!(error(&[&["evaluate", "--protocol", "prequential"][..], &data].concat()).contains("ranker.surface"));
    let list = |fields: &[&str]| {
        let mut command = vec!["recommend", "--store", text(&store), "--entity", "p0001", "--include-seen"];
        fields.iter().for_each(|field| command.extend(["--field", field]));
        json(&command)["items"].clone()
    };
    assert_ne!(list(&["device=phone"]), list(&["device=tv"]));
    let wrong = error(&["recommend", "--store", text(&store), "--entity", "p0001", "--field", "colour=red"]);
    assert!(wrong.contains("colour"), "{wrong}");
}

#[test]
fn the_demo_ends_with_a_person() {
    let folder = tempfile::tempdir().unwrap();
    let demo = json(&["demo", "--out", text(&folder.path().join("demo"))]);
    assert!(
        demo["train"]["ranker"]["published"] == true && demo["train"]["warnings"] == serde_json::json!([]),
        "{demo}"
    );
    let adapt = &demo["adapt"];
    assert!(adapt["auc"]["interval"][0].as_f64().unwrap() > 0.02, "{adapt}");
    assert!(adapt["of_category"][1].as_u64() < adapt["of_category"][0].as_u64(), "{adapt}");
    assert_ne!(adapt["before"]["items"], adapt["after"]["items"]);
    assert_eq!(adapt["batch"]["generation"], 2);
}
