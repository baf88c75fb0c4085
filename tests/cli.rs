//! The command line as scripts see it: results, keys, exit codes, and what happens to bad input and interruptions.
#![cfg(all(feature = "cli", unix))]

use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A training that ends in about a second.
const SMALL: &str = "[model]\nwidth = 16\nblocks = 1\nheads = 2\nhidden = 32\nmax_length = 24\nfield_width = 4\n\
                     [train]\nepochs = 3\nbatch = 16\nwarmup = 5\nthreads = 1\nlearning_rate = 5e-3\ncheckpoint_every = 3\n";

fn docent(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_docent")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that must succeed, and gives its one JSON object.
fn json(arguments: &[&str]) -> Value {
    let output = docent(&[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", err(&output));
    serde_json::from_str(&out(&output)).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {}", out(&output)))
}

/// Runs a command that must fail with `code`, print nothing on stdout, and say all of `parts`.
fn fails(arguments: &[&str], code: i32, parts: &[&str]) -> String {
    let output = docent(arguments);
    let said = err(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert_eq!(out(&output), "", "{arguments:?}");
    assert!(said.contains("error: "), "{arguments:?}: {said}");
    for part in parts {
        assert!(said.contains(part), "{arguments:?}: {part:?} is not in {said}");
    }
    said
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A small world as files, and a store trained on it; shared by tests that only read them.
struct Shop {
    _folder: tempfile::TempDir,
    dataset: PathBuf,
    config: PathBuf,
    store: PathBuf,
    trained: Value,
}

fn world(folder: &Path) -> (PathBuf, PathBuf) {
    let made =
        docent(&["synth", "--out", text(folder), "--entities", "120", "--items", "60", "--days", "30", "--seed", "3"]);
    assert!(made.status.success(), "{}", err(&made));
    let config = folder.join("train.toml");
    fs::write(&config, SMALL).unwrap();
    (folder.join("dataset.toml"), config)
}

fn shop() -> &'static Shop {
    static SHOP: OnceLock<Shop> = OnceLock::new();
    SHOP.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let (dataset, config) = world(folder.path());
        let store = folder.path().join("store");
        let trained = json(&["train", "--dataset", text(&dataset), "--config", text(&config), "--store", text(&store)]);
        Shop { _folder: folder, dataset, config, store, trained }
    })
}

/// Names and bytes of everything that a generation consists of, but the facts of the wall clock.
fn content(store: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for part in ["generations", "segments"] {
        for entry in fs::read_dir(store.join(part)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e != "run") {
                let name = format!("{part}/{}", path.file_name().unwrap().to_str().unwrap());
                found.push((name, fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Copies a store, which is flat apart from its folders.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status().unwrap();
    assert!(sent.success());
}

/// Waits until `ready`, for as long as the child runs.
fn wait_for(child: &mut Child, ready: impl Fn() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be interrupted");
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn help_fits_a_screen_and_wrong_usage_exits_2() {
    let help = docent(&["--help"]);
    assert!(help.status.success());
    assert!(out(&help).lines().count() <= 24, "{}", out(&help));
    for wrong in [
        &["nonsense"][..],
        &["recommend", "--store", "x"],
        &["recommend", "--store", "x", "--entity", "a", "--history", "b"],
        &["recommend", "--store", "x", "--entity", "a", "-k", "0"],
        &["recommend", "--store", "x", "--history", "a,,b"],
        &["recommend", "--store", "x", "--entity", "a", "--deny", "[]"],
        &["recommend", "--store", "x", "--entity", "a", "--allow", "[\"\"]"],
        &["recommend", "--store", "x", "--profile", "country"],
        &["recommend", "--store", "x", "--entity", "a", "--explain", "--steps", "2"],
        &["recommend", "--store", "x", "--entity", "a", "--sample", "top-p=2"],
        &["train", "--store", "x"],
        &["train", "--store", "x", "--dataset", "y", "--device", "tpu"],
        &["train", "--store", "x", "--dataset", "y", "--protocol", "leave-three-out"],
        &["train", "--store", "x", "--dataset", "y", "--max-minutes", "-1"],
        &["rollback", "--store", "x", "--to", "0"],
    ] {
        fails(wrong, 2, &[]);
    }
}

#[test]
fn training_reports_every_key() {
    let trained = &shop().trained;
    assert_eq!(trained["generation"], 1);
    assert_eq!(trained["stopped"], "epochs");
    assert_eq!(trained["epochs"], 3);
    for key in ["seconds", "tokens_per_second", "peak_rss_bytes"] {
        assert!(trained[key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert!(trained["validation"]["ndcg@10"].as_f64().unwrap() > 0.0);
    assert!(!shop().store.join("training/training.checkpoint").exists());
}

#[test]
fn lists_name_their_generation_and_are_the_same_every_time() {
    let shop = shop();
    let ask = ["recommend", "--store", text(&shop.store), "--entity", "p0001", "-k", "5"];
    let list = json(&ask);
    assert_eq!((&list["generation"], &list["entity"]), (&1.into(), &"p0001".into()));
    assert_eq!(list["source"], "model");
    let items = list["items"].as_array().unwrap();
    assert_eq!(items.len(), 5);
    let scores: Vec<f64> = items.iter().map(|i| i["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    assert!(items.iter().all(|i| i["id"].is_string() && i["title"].is_string()));
    assert_eq!(json(&ask), list);
    let text_list = out(&docent(&ask));
    assert_eq!(text_list.lines().count(), 5);
    for (line, item) in text_list.lines().zip(items) {
        assert!(line.contains(item["id"].as_str().unwrap()) && line.ends_with(item["title"].as_str().unwrap()));
    }

    let first = items[0]["id"].as_str().unwrap();
    let denied = json(&[&ask[..], &["--deny", first]].concat());
    assert_eq!(denied["items"][0], items[1]);
    let allowed = json(&[&ask[..], &["--allow", first]].concat());
    assert_eq!(allowed["items"].as_array().unwrap(), &items[..1]);
    let steps = json(&[&ask[..], &["--steps", "3"]].concat());
    assert_eq!(steps["steps"].as_array().unwrap().len(), 3);
    assert_eq!(steps["steps"][0], steps["items"]);
    assert_ne!(steps["steps"][1][0]["id"], steps["steps"][0][0]["id"]);
    let drawn = |seed: &str| json(&[&ask[..], &["--sample", &format!("temperature=5,seed={seed}")]].concat());
    assert_eq!(drawn("1"), drawn("1"));
    assert_ne!(drawn("1"), drawn("2"));
    assert_eq!(json(&[&ask[..], &["--sample", "temperature=0"]].concat())["items"], list["items"]);
}

#[test]
fn items_are_named_whatever_their_ids_hold() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let items = ["a,b", "a", "b", "[1]", "-c", "d"];
    let mut events = String::from("user,item,at\n");
    for user in 0..24 {
        for (n, item) in items.iter().cycle().skip(user % 6).take(if user == 0 { 6 } else { 4 }).enumerate() {
            events += &format!("u{user},\"{item}\",{}\n", 1_700_000_000 + 100 * user + n);
        }
    }
    fs::write(path("events.csv"), &events).unwrap();
    let described =
        "name = \"t\"\n[events]\nfiles = \"events.csv\"\nentity = \"user\"\nitem = \"item\"\ntime = \"at\"\n";
    fs::write(path("dataset.toml"), described).unwrap();
    fs::write(path("train.toml"), SMALL).unwrap();
    let (dataset, config, store) = (path("dataset.toml"), path("train.toml"), path("store"));
    let train = ["train", "--dataset", text(&dataset), "--config", text(&config), "--store", text(&store)];
    json(&train);

    let ask = ["recommend", "--store", text(&store), "--history", "d", "--include-seen", "-k", "6"];
    let ids = |more: &[&str]| -> Vec<String> {
        let list = json(&[&ask[..], more].concat());
        let mut ids: Vec<String> =
            list["items"].as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap().to_owned()).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(ids(&["--deny", "a,b"]), ["-c", "[1]", "a", "b", "d"]);
    assert_eq!(ids(&["--deny", "a,d"]), ["-c", "[1]", "a,b", "b"]);
    assert_eq!(ids(&["--deny", "a", "--deny", "-c", "--deny", "[1]"]), ["a,b", "b", "d"]);
    assert_eq!(ids(&["--deny", "[\"a,b\", \"a\"]"]), ["-c", "[1]", "b", "d"]);
    assert_eq!(ids(&["--allow", "a,b"]), ["a,b"]);
    assert_eq!(ids(&["--allow", "a,b", "--allow", "b"]), ["a,b", "b"]);
    let list = json(&["recommend", "--store", text(&store), "--history", "a,b", "--history", "a,d"]);
    assert_eq!(list["history"], serde_json::json!(["a,b", "a", "d"]));
    let told = err(&docent(&[&ask[..], &["--deny", "a,no-such"]].concat()));
    assert!(told.contains("\"no-such\"") && !told.contains("\"a\""), "{told}");
    fails(&[&ask[..], &["--allow", "no-such"]].concat(), 1, &["no-such"]);

    // Who has had everything is told so.
    let told = err(&docent(&["recommend", "--store", text(&store), "--entity", "u0"]));
    assert!(told.contains("0 are left") && told.contains("--seen allowed"), "{told}");
    let told = err(&docent(&["recommend", "--store", text(&store), "--entity", "u0", "--include-seen"]));
    assert!(told.contains("6 are left") && !told.contains("--seen allowed"), "{told}");
}

#[test]
fn histories_and_strangers_get_lists_too() {
    let shop = shop();
    let store = text(&shop.store);
    let popular = docent(&["recommend", "--store", store, "--entity", "nobody", "--json"]);
    assert!(popular.status.success());
    assert!(err(&popular).contains("nobody"), "{}", err(&popular));
    let popular: Value = serde_json::from_str(&out(&popular)).unwrap();
    assert_eq!(popular["source"], "popularity");
    assert_eq!(popular["items"].as_array().unwrap().len(), 10);
    let ids: Vec<&str> = popular["items"].as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap()).collect();
    let list = json(&["recommend", "--store", store, "--history", &ids[..3].join(",")]);
    assert!(list["entity"].is_null());
    assert!(list["items"].as_array().unwrap().iter().all(|i| !ids[..3].contains(&i["id"].as_str().unwrap())));
    // A history longer than the model's context, and more items than there are.
    let long = vec![ids[0]; 500].join(",");
    let all = json(&["recommend", "--store", store, "--history", &long, "-k", "1000"]);
    assert_eq!(all["items"].as_array().unwrap().len(), 59);
    let seen = json(&["recommend", "--store", store, "--history", &long, "-k", "1000", "--include-seen"]);
    assert_eq!(seen["items"].as_array().unwrap().len(), 60);
    fails(&["recommend", "--store", store, "--history", "no-such-item"], 1, &["no-such-item"]);
    let near = json(&["similar", "--store", store, "--item", ids[0], "-k", "4"]);
    assert_eq!((&near["generation"], &near["item"]), (&1.into(), &ids[0].into()));
    assert!(near["items"].as_array().unwrap().iter().all(|i| i["id"] != ids[0]));
    fails(&["similar", "--store", store, "--item", "no-such-item"], 1, &["no-such-item"]);
}

#[test]
fn lists_are_explained() {
    let shop = shop();
    let ask = ["recommend", "--store", text(&shop.store), "--entity", "p0001", "-k", "4"];
    let (plain, why) = (json(&ask), json(&[&ask[..], &["--explain"]].concat()));
    for (plain, why) in plain["items"].as_array().unwrap().iter().zip(why["items"].as_array().unwrap()) {
        assert_eq!((&plain["id"], &plain["score"], &plain["title"]), (&why["id"], &why["score"], &why["title"]));
        let because = why["because"].as_array().unwrap();
        assert!((1..=10).contains(&because.len()), "{because:?}");
        assert!(because.iter().all(|b| b["id"].is_string() && b["weight"].is_f64()));
        assert!(why["base"].is_f64() && plain.get("because").is_none());
    }
    let shown = out(&docent(&[&ask[..], &["--explain"]].concat()));
    assert!(shown.lines().count() > 8, "{shown}");
    let live = json(&[&ask[..], &["--live"]].concat());
    assert_eq!(live["items"], plain["items"], "nothing was added");
    let stranger = json(&["recommend", "--store", text(&shop.store), "--entity", "nobody", "--explain"]);
    assert_eq!(stranger["items"][0]["because"].as_array().unwrap().len(), 0);
}

#[test]
fn strangers_with_a_profile_get_what_is_popular_among_their_like() {
    let shop = shop();
    let store = text(&shop.store);
    let ask = |profile: &[&str]| json(&[&["recommend", "--store", store, "-k", "20"][..], profile].concat());
    let list = ask(&["--profile", "household=family"]);
    assert_eq!((&list["source"], list["entity"].is_null()), (&"popularity".into(), true));
    assert_eq!(list["items"].as_array().unwrap().len(), 20);
    assert_ne!(list["items"], ask(&["--profile", "household=single"])["items"]);
    assert_ne!(list["items"], ask(&["--profile", "household=family", "--profile", "region=coast"])["items"]);
    assert_eq!(ask(&["--entity", "nobody", "--profile", "household=family"])["items"], list["items"]);
    assert_eq!(
        ask(&["--profile", "household=castle"])["items"],
        ask(&["--entity", "nobody"])["items"],
        "nobody lives there"
    );
    fails(&["recommend", "--store", store, "--profile", "shoe=44"], 1, &["shoe", "household"]);
}

#[test]
fn evaluations_have_their_rows_and_refuse_other_questions() {
    let shop = shop();
    let (store, dataset) = (text(&shop.store), text(&shop.dataset));
    let folder = tempfile::tempdir().unwrap();
    let record = folder.path().join("record.md");
    let found = json(&["evaluate", "--store", store, "--dataset", dataset, "--record", text(&record)]);
    let names: Vec<&str> = found["rows"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    let expected = ["docent", "retrieval", "popularity", "markov", "item-knn", "ease", "ials", "recent-popularity"];
    assert_eq!(names, expected);
    assert_eq!((&found["generation"], &found["protocol"]), (&1.into(), &"leave-one-out".into()));
    assert_eq!(found["catalogue"], 60);
    for row in found["rows"].as_array().unwrap() {
        for key in ["hr@10", "ndcg@10", "mrr", "coverage@10", "head_share@10"] {
            assert!((0.0..=1.0).contains(&row["metrics"][key].as_f64().unwrap()), "{key}");
        }
        assert_eq!(row["interval"]["ndcg@10"].as_array().unwrap().len(), 2);
    }
    for key in ["seconds", "peak_rss_bytes", "targets"] {
        assert!(found[key].as_f64().unwrap() > 0.0, "{key}");
    }
    assert_eq!(found["target_hash"].as_str().unwrap().len(), 64);
    assert!(found["cuts"].is_array());
    let page = fs::read_to_string(&record).unwrap();
    assert!(page.contains("docent evaluate") && page.contains("model.width"), "{page}");
    let twice = json(&["evaluate", "--store", store, "--store", store, "--dataset", dataset, "--no-baselines"]);
    assert_eq!(twice["rows"][0]["runs"].as_array().unwrap().len(), 2);
    let names: Vec<&str> = twice["rows"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["docent", "retrieval"]);
    let ndcg = |e: &Value| e["rows"][0]["metrics"]["ndcg@10"].as_f64().unwrap();
    assert!((ndcg(&twice) - ndcg(&found)).abs() < 1e-9);
    assert_eq!(twice["rows"][0]["runs"][0], found["rows"][0]["metrics"]);
    assert_eq!(twice["stores"].as_array().unwrap().len(), 2);
    // What is served under a filter; ids are written as for `recommend`.
    let popular = json(&["recommend", "--store", store, "--entity", "nobody", "-k", "1"])["items"][0]["id"].clone();
    let deny = format!("[{popular}, \"no,such\"]");
    let told = err(&docent(&["evaluate", "--store", store, "--dataset", dataset, "--deny", &deny]));
    assert!(told.contains("\"no,such\"") && !told.contains(&popular.to_string()), "{told}");
    let asked = ["evaluate", "--store", store, "--dataset", dataset, "--protocol", "cold-items"];
    fails(&asked, 1, &["leave-one-out", "cold-items", "train with --protocol"]);
}

#[test]
fn models_are_measured_under_the_split_that_they_were_trained_under() {
    let shop = shop();
    let folder = tempfile::tempdir().unwrap();
    let train = ["train", "--dataset", text(&shop.dataset), "--config", text(&shop.config), "--quiet"];
    let measure = ["evaluate", "--dataset", text(&shop.dataset), "--quiet"];
    let timed = folder.path().join("timed");
    let trained = json(&[&train[..], &["--store", text(&timed), "--protocol", "time-split:test=0.1"]].concat());
    assert_eq!(trained["protocol"], "time-split:test=0.1,validation=0.1");
    let found = json(&[&measure[..], &["--store", text(&timed)]].concat());
    assert_eq!(found["protocol"], "time-split:test=0.1,validation=0.1");
    let same = json(&[&measure[..], &["--store", text(&timed), "--protocol", "time-split:test=0.1"]].concat());
    assert_eq!(same["rows"], found["rows"]);
    fails(&[&measure[..], &["--store", text(&timed), "--store", text(&shop.store)]].concat(), 1, &["time-split"]);

    let all = folder.path().join("all");
    json(&[&train[..], &["--store", text(&all), "--protocol", "everything"]].concat());
    fails(&[&measure[..], &["--store", text(&all)]].concat(), 1, &["trained on everything", "--protocol"]);

    // Data that grew since the training is measured, with a warning; data of other items is refused.
    let (grown, _) = world(&folder.path().join("grown"));
    let events = grown.with_file_name("events.csv");
    let kept: Vec<String> = fs::read_to_string(&events).unwrap().lines().map(str::to_owned).collect();
    fs::write(&events, kept[..kept.len() - 100].join("\n") + "\n").unwrap();
    let shrunk = docent(&["evaluate", "--store", text(&shop.store), "--dataset", text(&grown), "--json", "--quiet"]);
    assert!(shrunk.status.success(), "{}", err(&shrunk));
    assert!(err(&shrunk).contains("warning: ") && err(&shrunk).contains("other data"), "{}", err(&shrunk));
    let other = |name: &str| fs::read_to_string(grown.with_file_name(name)).unwrap().replace("i00", "x00");
    let (events, items) = (other("events.csv"), other("items.csv"));
    fs::write(grown.with_file_name("events.csv"), events).unwrap();
    fs::write(grown.with_file_name("items.csv"), items).unwrap();
    let refused = docent(&["evaluate", "--store", text(&shop.store), "--dataset", text(&grown), "--quiet"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("error: no item of dataset"), "{}", err(&refused));
}

#[test]
fn stores_are_inspected_verified_rolled_back_and_pruned() {
    let shop = shop();
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let train = ["train", "--dataset", text(&shop.dataset), "--config", text(&shop.config), "--store", text(&store)];
    for generation in 1..=3 {
        let seed = generation.to_string();
        assert_eq!(json(&[&train[..], &["--seed", &seed]].concat())["generation"], generation);
    }
    let store = ["--store", text(&store)];
    let with = |command: &[&str], more: &[&str]| json(&[command, &store, more].concat());
    let inspected = with(&["inspect"], &[]);
    assert_eq!(inspected["generation"], 3);
    assert_eq!((&inspected["items"], &inspected["model"]["width"]), (&60.into(), &16.into()));
    assert_eq!(inspected["training"]["options"]["seed"], 3);
    assert_eq!(inspected["training"]["protocol"], "leave-one-out");
    assert!(inspected["format_version"].as_u64().unwrap() >= 1);
    assert!(inspected["created"].as_str().unwrap().starts_with("20"));
    let sections = inspected["sections"].as_array().unwrap();
    assert!(sections.iter().all(|s| s["sha256"].as_str().unwrap().len() == 64 && s["shape"].is_array()));
    assert!(docent(&["inspect", store[0], store[1]]).status.success());
    let verified = with(&["verify"], &[]);
    assert_eq!((&verified["ok"], &verified["problems"]), (&true.into(), &Value::Array(vec![])));
    assert_eq!(verified["sections"].as_u64().unwrap() as usize, sections.len());
    assert_eq!(verified["generations"].as_array().unwrap().len(), 3);
    let damaged = folder.path().join("damaged");
    copy(Path::new(store[1]), &damaged);
    let manifest = damaged.join("generations/00000001.manifest");
    let mut bytes = fs::read(&manifest).unwrap();
    bytes[100] ^= 1;
    fs::remove_file(&manifest).unwrap();
    fs::write(&manifest, bytes).unwrap();
    let told = docent(&["verify", "--store", text(&damaged), "--json"]);
    assert_eq!(told.status.code(), Some(1));
    assert!(err(&told).contains("is sound, but"), "{}", err(&told));
    let report: Value = serde_json::from_str(&out(&told)).unwrap();
    assert_eq!((&report["generations"][0]["ok"], &report["ok"]), (&true.into(), &false.into()), "{report}");
    assert!(report["problems"][0].as_str().unwrap().starts_with("generation 1: "), "{report}");
    assert_eq!(json(&["verify", "--store", text(&damaged), "--generation", "2"])["ok"], true);
    // Without CURRENT it still says which generation to go to.
    fs::write(damaged.join("CURRENT"), "").unwrap();
    let told = docent(&["verify", "--store", text(&damaged), "--json"]);
    assert!(err(&told).contains("rollback --store") && err(&told).contains("--to N"), "{}", err(&told));
    let report: Value = serde_json::from_str(&out(&told)).unwrap();
    let sound: Vec<bool> = report["generations"].as_array().unwrap().iter().map(|g| g["ok"] == true).collect();
    assert_eq!(sound, [false, false, true, true], "{report}");
    assert_eq!(with(&["rollback"], &[])["generation"], 2);
    assert_eq!(with(&["rollback"], &["--to", "1"])["generation"], 1);
    fails(&["rollback", store[0], store[1]], 1, &["before 1"]);
    fails(&["rollback", store[0], store[1], "--to", "9"], 1, &[]);
    let listed = with(&["generations"], &[]);
    assert_eq!(listed["current"], 1);
    assert_eq!(listed["generations"].as_array().unwrap().len(), 3);
    assert!(listed["generations"][0]["validation"]["ndcg@10"].is_number());
    let pruned = with(&["prune"], &["--keep", "1"]);
    assert_eq!(pruned["removed"], serde_json::json!([2]));
    assert_eq!(pruned["kept"], serde_json::json!([1, 3]));
    assert_eq!(with(&["recommend"], &["--entity", "p0001"])["generation"], 1);
}

#[test]
fn damaged_foreign_and_future_stores_are_told() {
    let shop = shop();
    let folder = tempfile::tempdir().unwrap();
    let largest = |store: &Path| {
        let files = fs::read_dir(store.join("segments")).unwrap().map(|e| e.unwrap().path());
        files.max_by_key(|p| fs::metadata(p).unwrap().len()).unwrap()
    };
    let rewrite = |path: &Path, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        fs::remove_file(path).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let flipped = folder.path().join("flipped");
    copy(&shop.store, &flipped);
    rewrite(&largest(&flipped), &|b| {
        let middle = b.len() / 2;
        b[middle] ^= 1;
    });
    let verified = docent(&["verify", "--store", text(&flipped), "--json"]);
    assert_eq!(verified.status.code(), Some(1));
    let report: Value = serde_json::from_str(&out(&verified)).unwrap();
    assert_eq!(report["ok"], false);
    assert_eq!(report["problems"].as_array().unwrap().len(), 1);

    let cut = folder.path().join("cut");
    copy(&shop.store, &cut);
    rewrite(&largest(&cut), &|b| b.truncate(b.len() - 1));
    fails(&["recommend", "--store", text(&cut), "--entity", "p0001"], 1, &["truncated"]);

    let future = folder.path().join("future");
    copy(&shop.store, &future);
    rewrite(&future.join("CURRENT"), &|b| b[..64].iter_mut().skip(16).take(1).for_each(|v| *v = 99));
    fails(&["recommend", "--store", text(&future), "--entity", "p0001"], 1, &["CURRENT"]);

    let foreign = folder.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("letter.txt"), "dear").unwrap();
    fails(&["inspect", "--store", text(&foreign)], 1, &["not a docent store"]);
    fails(&["inspect", "--store", text(&foreign.join("letter.txt"))], 1, &["is a file"]);
    fails(&["inspect", "--store", text(&folder.path().join("absent"))], 1, &["absent"]);
    let train = ["train", "--dataset", text(&shop.dataset), "--store", text(&foreign)];
    fails(&train, 1, &["letter.txt"]);
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1);
}

#[test]
fn bad_data_is_named_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (dataset, _) = world(folder.path());
    let store = folder.path().join("store");
    let description = fs::read_to_string(&dataset).unwrap();
    let events = fs::read_to_string(folder.path().join("events.csv")).unwrap();
    let items = fs::read_to_string(folder.path().join("items.csv")).unwrap();
    let with = |description: &str, events: &[u8], items: &str, parts: &[&str]| {
        fs::write(&dataset, description).unwrap();
        fs::write(folder.path().join("events.csv"), events).unwrap();
        fs::write(folder.path().join("items.csv"), items).unwrap();
        fails(&["train", "--dataset", text(&dataset), "--store", text(&store)], 1, parts);
        assert!(!store.exists(), "a failed training left a store");
    };
    let ok = events.as_bytes();
    with(&description.replace("item = \"item\"", "item = \"thing\""), ok, &items, &["thing", "person"]);
    with(&description.replacen("delimiter = \",\"", "delimiter = \";\"", 1), ok, &items, &["events.csv"]);
    with(&description, b"", &items, &["events.csv"]);
    with(&description, &[ok, b"p0001,\xff\xfe,2024-01-01T00:00:00Z,view,1,1,tv\n"].concat(), &items, &["events.csv"]);
    with(&description, &[ok, b"p0001,i1,yesterday,view,1,1,tv\n"].concat(), &items, &["events.csv", "yesterday"]);
    let first = items.lines().nth(1).unwrap();
    let double = format!("{items}{},another title,{}\n", &first[..5], first.splitn(3, ',').nth(2).unwrap());
    with(&description, ok, &double, &["items.csv", "line 62", &first[..5]]);
    with(&description.replace("events.csv", "absent.csv"), ok, &items, &["absent.csv"]);
    with(&format!("{description}\nnonsense = 1\n"), ok, &items, &["nonsense"]);

    fs::write(&dataset, &description).unwrap();
    fs::write(folder.path().join("events.csv"), ok).unwrap();
    fs::write(folder.path().join("items.csv"), &items).unwrap();
    let config = folder.path().join("bad.toml");
    fs::write(&config, "[train]\nepoch = 3\n").unwrap();
    let train = ["train", "--dataset", text(&dataset), "--store", text(&store)];
    fails(&[&train[..], &["--config", text(&config)]].concat(), 1, &["bad.toml", "epoch", "docs/train.md"]);
    fails(&[&train[..], &["--protocol", "time-split", "--config", "absent.toml"]].concat(), 1, &["absent.toml"]);
    if cfg!(not(feature = "cuda")) {
        fails(&[&train[..], &["--device", "cuda"]].concat(), 1, &["cuda"]);
        assert!(!store.exists(), "a store was left behind");
    }
    fails(&["train", "--store", text(&store), "--resume"], 1, &["no unfinished training"]);
}

#[test]
fn outputs_that_cannot_be_written_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    fails(&["synth", "--out", text(&file)], 1, &["file"]);
    fails(&["demo", "--out", text(&file)], 1, &["file"]);
    fails(&["demo", "--out", text(folder.path())], 1, &["--out"]);
    let shop = shop();
    let train = ["train", "--dataset", text(&shop.dataset), "--store", text(&file)];
    fails(&train, 1, &["file"]);
    fails(&["synth", "--out", text(folder.path().join("a").as_path()), "--items", "3"], 1, &["items"]);
    fs::write(folder.path().join("events.csv"), "mine").unwrap();
    fails(&["synth", "--out", text(folder.path())], 1, &["events.csv"]);
    assert_eq!(fs::read_to_string(folder.path().join("events.csv")).unwrap(), "mine");

    // A full disk under the result.
    if let Ok(full) = fs::File::options().write(true).open("/dev/full") {
        let run = Command::new(env!("CARGO_BIN_EXE_docent"))
            .args(["generations", "--store", text(&shop.store)])
            .stdout(full)
            .output()
            .unwrap();
        assert_eq!(run.status.code(), Some(1), "{}", err(&run));
        assert!(err(&run).contains("free space"), "{}", err(&run));
    }
    // A reader that has had enough.
    let mut run = Command::new(env!("CARGO_BIN_EXE_docent"));
    run.args(["recommend", "--store", text(&shop.store), "--entity", "p0001", "-k", "60"]);
    let mut child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert!(ended.status.success(), "{}", err(&ended));
}

#[test]
fn folders_that_may_not_be_written_are_told() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    mode(folder.path(), 0o755);
    let locked = folder.path().join("locked");
    fs::create_dir(&locked).unwrap();
    mode(&locked, 0o555);
    let mut run = Command::new(env!("CARGO_BIN_EXE_docent"));
    run.args(["synth", "--entities", "5", "--items", "60", "--days", "7", "--out", text(&locked.join("world"))]);
    if fs::write(locked.join("probe"), "").is_ok() {
        // Root may write everywhere: nobody is asked.
        run.uid(65_534).gid(65_534).current_dir("/");
    }
    match run.output() {
        Ok(refused) => {
            assert_eq!(refused.status.code(), Some(1), "{}", err(&refused));
            assert!(err(&refused).contains("change the permissions"), "{}", err(&refused));
            assert!(!locked.join("world").exists());
        }
        // Written past the capture of the test's output, so that it is seen.
        Err(e) => writeln!(std::io::stderr(), "SKIPPED: nobody cannot run the command ({e})").unwrap(),
    }
}

/// Starts a training that takes a while.
fn slow(dataset: &Path, config: &Path, store: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_docent"))
        .args(["train", "--dataset", text(dataset), "--config", text(config), "--store", text(store), "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn interrupted_and_killed_trainings_resume_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (dataset, config) = world(folder.path());
    fs::write(&config, SMALL.replace("epochs = 3", "epochs = 20").replace("hidden = 32", "hidden = 64")).unwrap();
    let whole = folder.path().join("whole");
    json(&["train", "--dataset", text(&dataset), "--config", text(&config), "--store", text(&whole)]);
    let whole = content(&whole);

    let store = folder.path().join("interrupted");
    let checkpoint = store.join("training/training.checkpoint");
    let mut child = slow(&dataset, &config, &store);
    wait_for(&mut child, || checkpoint.exists());
    let second = fails(
        &["train", "--dataset", text(&dataset), "--config", text(&config), "--store", text(&store)],
        1,
        &["another training"],
    );
    assert!(second.contains(text(&store)));
    signal(&child, "INT");
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", err(&ended));
    assert!(err(&ended).contains("docent train --store") && err(&ended).contains("--resume"), "{}", err(&ended));
    let report: Value = serde_json::from_str(&out(&ended)).unwrap();
    assert_eq!((&report["stopped"], &report["generation"]), (&"interrupted".into(), &Value::Null));
    // The store alone says how to go on; killed again on the way.
    let mut child = Command::new(env!("CARGO_BIN_EXE_docent"))
        .args(["train", "--store", text(&store), "--resume", "--quiet"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let before = fs::metadata(&checkpoint).unwrap().modified().unwrap();
    wait_for(&mut child, || fs::metadata(&checkpoint).is_ok_and(|m| m.modified().unwrap() != before));
    signal(&child, "KILL");
    assert_eq!(child.wait().unwrap().code(), None);
    assert!(checkpoint.exists());
    let resumed = json(&["train", "--store", text(&store), "--resume"]);
    assert_eq!(resumed["generation"], 1);
    let resumed = content(&store);
    assert_eq!(
        resumed.iter().map(|f| &f.0).collect::<Vec<_>>(),
        whole.iter().map(|f| &f.0).collect::<Vec<_>>(),
        "other segments"
    );
    assert!(resumed == whole, "other bytes");
    assert!(!checkpoint.exists());
    assert_eq!(json(&["verify", "--store", text(&store)])["ok"], true);
}

#[test]
fn an_unfinished_training_is_replaced_aloud() {
    let folder = tempfile::tempdir().unwrap();
    let (dataset, config) = world(folder.path());
    fs::write(&config, SMALL.replace("epochs = 3", "epochs = 200")).unwrap();
    let store = folder.path().join("store");
    let mut child = slow(&dataset, &config, &store);
    wait_for(&mut child, || store.join("training/training.checkpoint").exists());
    signal(&child, "KILL");
    child.wait().unwrap();
    // Its lock went with it. Nothing is published, and that is told.
    fails(&["recommend", "--store", text(&store), "--entity", "p0001"], 1, &["no generation yet"]);
    fs::write(&config, SMALL).unwrap();
    let resumed = ["train", "--store", text(&store), "--resume", "--config", text(&config)];
    fails(&resumed, 1, &["other options"]);
    let train = ["train", "--dataset", text(&dataset), "--config", text(&config), "--store", text(&store)];
    let trained = docent(&train);
    assert!(trained.status.success(), "{}", err(&trained));
    assert!(err(&trained).contains("being replaced"), "{}", err(&trained));
    assert!(out(&trained).contains("generation 1"), "{}", out(&trained));
}

#[test]
fn the_same_training_gives_the_same_bytes() {
    let shop = shop();
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let data = shop.dataset.parent().unwrap();
    let moved = folder.path().join("described.toml");
    fs::copy(&shop.dataset, &moved).unwrap();
    let mut train = vec!["train", "--dataset", text(&moved), "--data", text(data), "--config", text(&shop.config)];
    train.extend(["--store", text(&store), "--quiet"]);
    let quiet = docent(&train);
    assert!(quiet.status.success());
    assert_eq!(err(&quiet), "");
    assert!(content(&store) == content(&shop.store));
}

#[test]
fn trainings_say_what_they_chose_and_files_go_over_it() {
    let shop = shop();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("short.toml");
    fs::write(&config, "[model]\nwidth = 24\ncontext = 30\n[train]\nepochs = 1\n").unwrap();
    let store = folder.path().join("store");
    let train = ["train", "--dataset", text(&shop.dataset), "--config", text(&config), "--store", text(&store)];
    let trained = docent(&train);
    assert!(trained.status.success(), "{}", err(&trained));
    let line = err(&trained).lines().find(|l| l.starts_with("defaults: ")).unwrap().to_owned();
    for part in
        ["120 entities", "54 items", "width 32", "max_length ", "softmax", "epochs", "dropout 0.", "events per weight"]
    {
        assert!(line.contains(part), "{part:?} is not in {line}");
    }
    // A key's old name is read, and warned of.
    let warning = format!("warning: {}: model.context is called model.max_length now", text(&config));
    assert!(err(&trained).contains(&warning), "{}", err(&trained));
    let found = json(&["inspect", "--store", text(&store)]);
    assert_eq!((&found["model"]["width"], &found["model"]["hidden"]), (&24.into(), &128.into()));
    assert_eq!(found["model"]["max_length"], 30);
    assert_eq!(found["training"]["options"]["epochs"], 1);
    // What is out of range is told with its file, and a key that is unknown before any data is read.
    fs::write(&config, "[model]\nheads = 3\n").unwrap();
    fails(&train, 1, &["short.toml", "model.heads 3"]);
}

#[test]
fn runs_become_tokens_and_models_of_both_answer_the_same_questions() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let dataset = place("dataset.toml");
    fs::write(
        &dataset,
        "name = \"clicks\"\n[events]\nfiles = \"events.csv\"\nentity = \"who\"\nitem = \"what\"\n\
         time = { column = \"at\", format = \"s\" }\naction = \"did\"\n",
    )
    .unwrap();
    // Everybody walks the same circle of items: one view, or two views and a like; the last item is viewed once.
    let mut events = "who,what,at,did\n".to_owned();
    for person in 0..40 {
        let mut at = 1000;
        for step in 0..12 {
            let item = (person * 5 + step) % 20;
            let clicks: &[&str] = if step % 2 == 1 && step < 10 { &["view", "view", "like"] } else { &["view"] };
            for did in clicks {
                events += &format!("p{person},i{item},{at},{did}\n");
                at += 20;
            }
            at += 3600;
        }
    }
    fs::write(place("events.csv"), events).unwrap();
    let config = place("train.toml");
    fs::write(&config, format!("{SMALL}[tokenizer]\nmax_gap = 60\nterminal = [\"like\"]\n")).unwrap();
    let shown = json(&["tokenize", "--dataset", text(&dataset), "--config", text(&config), "--show", "p3"]);
    assert_eq!((&shown["events"], &shown["tokens"], &shown["entities"]), (&880.into(), &480.into(), &40.into()));
    assert!((shown["shorter"].as_f64().unwrap() - (1.0 - 480.0 / 880.0)).abs() < 1e-9);
    let merges =
        serde_json::json!([{"symbol": "view + view", "count": 200}, {"symbol": "view + view + like", "count": 200}]);
    assert_eq!(shown["merges"], merges);
    let second = &shown["shown"]["tokens"][1];
    assert_eq!((second["item"].as_str(), second["symbol"].as_str()), (Some("i16"), Some("view + view + like")));
    assert_eq!((&second["count"], &second["actions"]), (&3.into(), &serde_json::json!(["view", "like"])));
    assert_eq!(shown["shown"]["events"].as_array().unwrap().len(), 22);
    let page = out(&docent(&["tokenize", "--dataset", text(&dataset), "--show", "p3"]));
    for part in
        ["45.5 % shorter", "at most 1 tokens a run; terminal: like", "p3, before: 22 events", "p3, after: 12 tokens"]
    {
        assert!(page.contains(part), "{part:?} is not in {page}");
    }
    fails(&["tokenize", "--dataset", text(&dataset), "--show", "nobody"], 1, &["nobody"]);

    let questions = ["--questions", "token-starts:max_gap=60"];
    let plain = place("plain.toml");
    fs::write(&plain, SMALL).unwrap();
    for (store, config) in [("merged.store", &config), ("plain.store", &plain)] {
        let store = place(store);
        let train =
            ["train", "--dataset", text(&dataset), "--store", text(&store), "--config", text(config)].map(String::from);
        let train: Vec<&str> = train.iter().map(String::as_str).chain(questions).collect();
        assert_eq!(json(&train)["protocol"], "leave-one-out token-starts:max_gap=60");
    }
    let inspected = json(&["inspect", "--store", text(&place("merged.store"))]);
    assert_eq!((&inspected["tokenizer"]["version"], &inspected["tokenizer"]["merges"]), (&1.into(), &2.into()));
    assert_eq!(inspected["tokenizer"]["options"]["max_gap"], 60);
    assert_eq!(json(&["inspect", "--store", text(&place("plain.store"))])["tokenizer"], Value::Null);
    let judged = ["merged.store", "plain.store"].map(|store| {
        let store = place(store);
        json(&[&["evaluate", "--store", text(&store), "--dataset", text(&dataset)][..], &questions].concat())
    });
    let (merged, plain) = (place("merged.store"), place("plain.store"));
    let record = place("record");
    let both = ["evaluate", "--store", text(&merged), "--versus", text(&plain), "--dataset", text(&dataset)];
    let both = json(&[&both[..], &["--record", text(&record)], &questions].concat());
    assert_eq!((&both["rows"][0]["name"], &both["rows"][1]["name"]), (&"docent".into(), &"versus".into()));
    assert_eq!(both["rows"][0]["metrics"], judged[0]["rows"][0]["metrics"]);
    assert_eq!(both["rows"][1]["metrics"], judged[1]["rows"][0]["metrics"]);
    let page = fs::read_to_string(place("record.md")).unwrap();
    assert!(page.contains("docent - versus") && page.contains("training, versus, seed 1"), "{page}");
    for result in &judged {
        assert_eq!(result["protocol"], "leave-one-out token-starts:max_gap=60");
        assert_eq!((&result["target_hash"], &result["targets"]), (&judged[0]["target_hash"], &40.into()));
    }
}

#[test]
fn tuning_writes_a_train_toml_that_trains() {
    let shop = shop();
    let folder = tempfile::tempdir().unwrap();
    let tuned = folder.path().join("tuned.toml");
    let tune = [
        &["tune", "--dataset", text(&shop.dataset), "--config", text(&shop.config), "--out", text(&tuned)][..],
        &["--minutes", "0.1", "--candidates", "4", "--seed", "5", "--threads", "1"],
    ]
    .concat();
    let found = json(&tune);
    let candidates = found["candidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 4);
    assert_eq!(candidates[0]["settings"]["learning_rate"], "0.005");
    assert_eq!((&candidates[0]["settings"]["width"], &found["interrupted"]), (&"16".into(), &false.into()));
    let rungs = found["rungs"].as_array().unwrap();
    assert_eq!(rungs[0]["candidates"], serde_json::json!([0, 1, 2, 3]));
    assert!(rungs.iter().all(|r| r["candidates"][0] == 0 && r["seconds"].as_f64().unwrap() > 0.0), "{rungs:?}");
    let winner = found["winner"].as_u64().unwrap() as usize;
    assert!(found["score"].as_f64().unwrap() >= candidates[0]["score"].as_f64().unwrap(), "{found}");
    assert_eq!(candidates[winner]["score"], found["score"]);
    assert!(fs::read_dir(folder.path()).unwrap().count() == 1, "checkpoints were left behind");

    let page = fs::read_to_string(&tuned).unwrap();
    for part in
        ["# Found by `docent tune", "leave-one-out", "NDCG@10", "seed = 5", "learning_rate = ", "max_seconds = 0"]
    {
        assert!(page.contains(part), "{part:?} is not in {page}");
    }
    fails(&tune, 1, &["tuned.toml", "--force"]);
    assert_eq!(fs::read_to_string(&tuned).unwrap(), page);
    let store = folder.path().join("store");
    let trained = json(&["train", "--dataset", text(&shop.dataset), "--config", text(&tuned), "--store", text(&store)]);
    assert_eq!(trained["generation"], 1);
    let model = &json(&["inspect", "--store", text(&store)])["model"];
    assert_eq!(model["width"].to_string(), candidates[winner]["settings"]["width"].as_str().unwrap());
    // Forced, as text.
    let forced = docent(&[&tune[..], &["--force", "--minutes", "0.02"]].concat()[..]);
    assert_eq!(forced.status.code(), Some(2), "--minutes was given twice: {}", err(&forced));
    fails(&[&tune[..], &["--force", "--protocol", "cold-nothing"]].concat(), 2, &[]);
    fails(&["tune", "--dataset", text(&shop.dataset), "--minutes", "0"], 2, &[]);
    fails(
        &[
            "tune",
            "--dataset",
            text(&shop.dataset),
            "--minutes",
            "1",
            "--candidates",
            "1",
            "--out",
            text(&store.join("x")),
        ],
        1,
        &["2 to 1000"],
    );
}

#[test]
fn an_interrupted_search_writes_the_best_so_far() {
    let shop = shop();
    let folder = tempfile::tempdir().unwrap();
    let tuned = folder.path().join("tuned.toml");
    let mut child = Command::new(env!("CARGO_BIN_EXE_docent"))
        .args(["tune", "--dataset", text(&shop.dataset), "--config", text(&shop.config), "--out", text(&tuned)])
        .args(["--minutes", "0.5", "--candidates", "3"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The second candidate has begun, so the first one is scored.
    let begun = || {
        let mut entries = fs::read_dir(folder.path()).unwrap();
        entries.any(|e| e.unwrap().path().join("candidate-1/training.checkpoint").exists())
    };
    wait_for(&mut child, begun);
    signal(&child, "INT");
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", err(&ended));
    assert!(err(&ended).contains("the best so far") && out(&ended).contains("0 (default)"), "{}", err(&ended));
    assert!(fs::read_to_string(&tuned).unwrap().contains(", interrupted"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
