//! What is measured is what is served: the row `docent` of an evaluation is what a loop over the engine's lists finds, to the last
//! digit, and what is asked about the past knows nothing of what came later.
#![cfg(feature = "cli")]

use docent::data::{Case, Column, Dataset, Protocol, Split, SyntheticOptions, World};
use docent::evaluate::Evaluation;
use docent::options::{ModelOptions, Publish, RankerGoal, RankerTrainOptions, Seen, TowerOptions, TrainOptions};
use docent::pipeline::{AdaptJob, EvaluateJob, Files, HELD_OUT, Settings, Source, TrainJob, adapt, evaluate, train};
use docent::progress::{Cancel, Silent};
use docent::random::Rng;
use docent::schema::FieldKind;
use docent::serve::{AsOf, Engine, EngineOptions, Filter, NewItem, Outcome, PersonalOptions, Query};
use docent::train::ranker::Impressions;
use docent::train::{RankerConfig, TrainConfig};
use docent::{Cell, Event, FieldValue};
use std::path::Path;
use std::process::Command;

fn settings() -> Settings {
    let model = ModelOptions {
        width: 16,
        hidden: 32,
        blocks: 1,
        max_length: 20,
        tower: Some(TowerOptions::default()),
        ..ModelOptions::default()
    };
    let train = TrainOptions { epochs: 3, learning_rate: 4e-3, warmup: 5, ..TrainOptions::default() };
    // One epoch of so few outcomes is not published by itself, and puts lists in another order only where it alone does.
    let ranker = RankerTrainOptions {
        epochs: 1,
        publish: Publish::Always,
        goal: RankerGoal::Weight(1.0),
        ..RankerTrainOptions::default()
    };
    let ranker = RankerConfig { train: ranker, ..RankerConfig::default() };
    let config = Some(TrainConfig { model, train, ranker, ..TrainConfig::default() });
    Settings { config, ..Settings::default() }
}

fn job() -> TrainJob {
    TrainJob { settings: settings(), ..TrainJob::default() }
}

fn measured(source: Source<'_>, store: &Path, job: EvaluateJob<'_>) -> Evaluation {
    let found = evaluate(source, &[store], &job, &mut Silent, &Cancel::new()).unwrap();
    found.lists().unwrap().clone()
}

/// The questions of a store that are asked.
fn asked(data: &Dataset, engine: &Engine) -> Vec<Case> {
    let split = Split::new(data, &Protocol::LeaveOneOut).unwrap();
    let split = Split { seen: engine.current().serve().seen, ..split };
    split.test.iter().filter(|case| split.asks(data, case)).cloned().collect()
}

/// The device of an event, where the data have it.
fn device(data: &Dataset, event: usize) -> Option<&str> {
    let mut fields = data.schema.event_fields.iter().zip(&data.events.fields);
    let (declared, column) = fields.find(|(declared, _)| declared.field.name == "device")?;
    match (&declared.field.kind, column) {
        (FieldKind::Categorical(names), Column::Codes(codes)) => {
            names.get((codes[event] as usize).wrapping_sub(1)).map(String::as_str)
        }
        _ => None,
    }
}

/// The first 10 of the list that a caller gets for a question.
fn list(data: &Dataset, engine: &Engine, filter: &Filter<'_>, case: &Case) -> Vec<String> {
    let fields: Vec<FieldValue<'_>> =
        device(data, case.target).iter().map(|value| ("device", Cell::Text(value))).collect();
    let query = Query::entity(data.entities.id(case.entity))
        .as_of(AsOf::Events(case.history.len()))
        .at(data.events.time[case.target])
        .with(&fields);
    engine.recommend(&query, filter, 10).unwrap().items.into_iter().map(|item| item.id).collect()
}

/// The share of questions whose target is in that list.
fn hits(data: &Dataset, engine: &Engine, filter: &Filter<'_>) -> f64 {
    let cases = asked(data, engine);
    let target = |case: &Case| data.items.id(data.events.item[case.target]);
    let found = cases.iter().filter(|case| list(data, engine, filter, case).iter().any(|id| id == target(case)));
    found.count() as f64 / cases.len() as f64
}

fn docent(arguments: &[&str]) -> serde_json::Value {
    let arguments = [arguments, &["--json", "--quiet"]].concat();
    let output = Command::new(env!("CARGO_BIN_EXE_docent")).args(&arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The same list as the command line prints it.
fn printed(data: &Dataset, store: &Path, more: &[&str], case: &Case) -> Vec<String> {
    let (count, time) = (case.history.len().to_string(), data.events.time[case.target].to_string());
    let field = device(data, case.target).map(|value| format!("device={value}"));
    let field: Vec<&str> = field.iter().flat_map(|field| ["--field", field]).collect();
    let who = ["--entity", data.entities.id(case.entity), "--as-of", &count, "--at", &time];
    let said = docent(&[&["recommend", "--store", store.to_str().unwrap()], &who[..], &field, more].concat());
    said["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

/// Some questions whose lists a caller at a terminal gets, too.
fn as_printed(data: &Dataset, store: &Path, more: &[&str], engine: &EngineOptions, filter: &Filter<'_>) {
    let engine = Engine::open(store, engine).unwrap();
    let cases: Vec<Case> = asked(data, &engine).into_iter().step_by(17).collect();
    let own: Vec<_> = cases.iter().map(|case| list(data, &engine, filter, case)).collect();
    drop(engine);
    let said: Vec<_> = cases.iter().map(|case| printed(data, store, more, case)).collect();
    assert_eq!(said, own);
}

fn hr(evaluation: &Evaluation, row: &str) -> f64 {
    evaluation.row(row).unwrap().metric("hr@10").unwrap()
}

/// People who come back to their own few items, in files.
fn habits(folder: &Path, seen: &str) {
    let mut rng = Rng::new(3);
    let mut rows = "user,item,time\n".to_owned();
    for person in 0..60 {
        let own: Vec<usize> = (0..4).map(|_| rng.below(30)).collect();
        for event in 0..12 {
            let item = if rng.below(4) == 0 { rng.below(30) } else { own[rng.below(4)] };
            rows += &format!("u{person},i{item},{}\n", 1_700_000_000 + event * 86_400 + person);
        }
    }
    std::fs::write(folder.join("events.csv"), rows).unwrap();
    let description =
        "name = \"habits\"\n[events]\nfiles = \"events.csv\"\nentity = \"user\"\nitem = \"item\"\ntime = \"time\"\n";
    std::fs::write(folder.join("dataset.toml"), format!("{description}{seen}")).unwrap();
}

#[test]
fn where_people_come_back_seen_items_are_served_and_measured() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    habits(folder.path(), "");
    let files = Files { dataset: folder.path().join("dataset.toml"), ..Files::default() };
    let (data, _) = files.read(&mut Silent, &Cancel::new()).unwrap();
    let trained = train(files.clone(), &store, &job(), &mut Silent, &Cancel::new()).unwrap();
    assert_eq!(trained.seen, Seen::Allowed);
    assert!(trained.repeated > 0.4, "{}", trained.repeated);
    let engine = Engine::open(&store, &EngineOptions::default()).unwrap();
    let evaluation = measured(files.clone().into(), &store, EvaluateJob::default());
    assert_eq!((evaluation.seen, evaluation.targets, evaluation.not_asked), (Seen::Allowed, 60, 0));
    assert!(evaluation.repeats > 30, "{}", evaluation.repeats);
    assert_eq!(hr(&evaluation, "docent"), hits(&data, &engine, &Filter::default()));
    // The same questions without what was seen: the repeats are never found.
    let excluded = hits(&data, &engine, &Filter::default().seen(Seen::Excluded));
    assert!(excluded * 60.0 <= (60 - evaluation.repeats) as f64 && excluded < hr(&evaluation, "docent"));
    let buckets: Vec<_> = evaluation.cuts.iter().filter(|c| c.by == "repeat").map(|c| c.targets).collect();
    assert_eq!(buckets, [60 - evaluation.repeats, evaluation.repeats]);

    // A caller at a terminal sees the same.
    as_printed(&data, &store, &[], &EngineOptions::default(), &Filter::default());
    let (place, described) = (store.to_str().unwrap(), files.dataset.to_str().unwrap());
    let judged = docent(&["evaluate", "--store", place, "--dataset", described]);
    assert_eq!((&judged["seen"], &judged["not_asked"]), (&"allowed".into(), &0.into()));
    assert_eq!(judged["repeats"], evaluation.repeats);
    assert_eq!(judged["rows"][0]["metrics"]["hr@10"].as_f64(), Some(hr(&evaluation, "docent")));
    assert_eq!(docent(&["inspect", "--store", place])["seen"], "allowed");
    for case in asked(&data, &engine).iter().take(6) {
        let time = data.events.time[case.target];
        // The history as events in a file is the same question.
        let line = |event: usize| {
            let (item, time) = (data.items.id(data.events.item[event]), data.events.time[event]);
            format!("{{\"item\": \"{item}\", \"time\": {time}}}\n")
        };
        let history = folder.path().join("history.jsonl");
        std::fs::write(&history, case.history.clone().map(line).collect::<String>()).unwrap();
        let asked = ["--history", history.to_str().unwrap(), "--at", &time.to_string()];
        let said = docent(&[&["recommend", "--store", place][..], &asked].concat());
        let said: Vec<&str> = said["items"].as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap()).collect();
        assert_eq!(said, list(&data, &engine, &Filter::default(), case));
    }
}

#[test]
fn a_description_may_exclude_seen_items_and_then_no_question_asks_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    habits(folder.path(), "[split]\nseen = \"excluded\"\n");
    let files = Files { dataset: folder.path().join("dataset.toml"), ..Files::default() };
    let (data, _) = files.read(&mut Silent, &Cancel::new()).unwrap();
    train(files.clone(), &store, &job(), &mut Silent, &Cancel::new()).unwrap();
    let engine = Engine::open(&store, &EngineOptions::default()).unwrap();
    assert_eq!(engine.current().serve().seen, Seen::Excluded);
    let evaluation = measured(files.into(), &store, EvaluateJob::default());
    assert_eq!((evaluation.seen, evaluation.repeats), (Seen::Excluded, evaluation.not_asked));
    assert_eq!(evaluation.targets, 60 - evaluation.repeats);
    assert_eq!(hr(&evaluation, "docent"), hits(&data, &engine, &Filter::default()));
}

fn world() -> (Dataset, Impressions) {
    let options = SyntheticOptions { entities: 100, items: 60, days: 40, ..SyntheticOptions::default() };
    let world = World::new(&options, 1).unwrap();
    let data = world.dataset().unwrap();
    let outcomes = Impressions::from_log(&data, &world.impression_log().unwrap()).unwrap();
    (data, outcomes.holding_out(HELD_OUT).unwrap())
}

#[test]
fn ranked_filtered_and_live_lists_are_measured_as_they_are_served() {
    let (data, outcomes) = world();
    let source = || Source::Memory { data: &data, outcomes: Some(&outcomes) };
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    train(source(), &store, &job(), &mut Silent, &Cancel::new()).unwrap();

    // With a ranker; its order is another than the retrieval's.
    let ranked = measured(source(), &store, EvaluateJob::default());
    let engine = Engine::open(&store, &EngineOptions::default()).unwrap();
    assert_eq!(hr(&ranked, "docent"), hits(&data, &engine, &Filter::default()));
    assert_ne!(ranked.row("docent").unwrap().ranks, ranked.row("retrieval").unwrap().ranks);
    drop(engine);
    as_printed(&data, &store, &[], &EngineOptions::default(), &Filter::default());

    // Adapted to everybody.
    adapt(source(), &store, &AdaptJob::default(), &mut Silent, &Cancel::new()).unwrap();
    let adapted = measured(source(), &store, EvaluateJob { threads: 2, ..EvaluateJob::default() });
    let engine = Engine::open(&store, &EngineOptions::default()).unwrap();
    assert_eq!(hr(&adapted, "docent"), hits(&data, &engine, &Filter::default()));

    // Under a filter.
    let popular: Vec<String> =
        engine.recommend(&Query::items(&[]), &Filter::default(), 8).unwrap().items.into_iter().map(|i| i.id).collect();
    let deny: Vec<&str> = popular.iter().map(String::as_str).collect();
    let filter = Filter::default().deny(&deny);
    let filtered = measured(source(), &store, EvaluateJob { filter, ..EvaluateJob::default() });
    assert_eq!(hr(&filtered, "docent"), hits(&data, &engine, &filter));
    assert_ne!(filtered.row("docent").unwrap().ranks, adapted.row("docent").unwrap().ranks);
    drop(engine);
    as_printed(&data, &store, &["--deny", &deny.join(",")], &EngineOptions::default(), &filter);

    // With items that were added and removed since.
    let live = EngineOptions { live: true, ..EngineOptions::default() };
    let engine = Engine::open(&store, &live).unwrap();
    for n in 0..30 {
        engine
            .add_item(&NewItem {
                id: &format!("new{n}"),
                title: Some(data.titles[n].as_str()),
                released: None,
                now: None,
                fields: &[],
            })
            .unwrap();
    }
    popular.iter().for_each(|id| assert!(engine.remove_item(id).unwrap()));
    let served = hits(&data, &engine, &Filter::default());
    drop(engine);
    as_printed(&data, &store, &["--live"], &live, &Filter::default());
    let live = measured(source(), &store, EvaluateJob { live: true, ..EvaluateJob::default() });
    assert_eq!(hr(&live, "docent"), served);
    assert_ne!(live.row("docent").unwrap().ranks, adapted.row("docent").unwrap().ranks);
}

#[test]
fn what_is_observed_later_changes_nothing_in_what_is_asked_about_before() {
    let (data, outcomes) = world();
    let source = Source::Memory { data: &data, outcomes: Some(&outcomes) };
    let folder = tempfile::tempdir().unwrap();
    train(source, folder.path(), &job(), &mut Silent, &Cancel::new()).unwrap();
    let options = EngineOptions { personal: Some(PersonalOptions::default()), ..EngineOptions::default() };
    let engine = Engine::open(folder.path(), &options).unwrap();
    let range = data.range(3);
    let (id, last) = (data.entities.id(3), data.events.time[range.end - 1]);
    let ask = |query: Query<'_>| engine.recommend(&query, &Filter::everything(), 60).unwrap().items;
    let moments = [
        AsOf::Time(last),
        AsOf::Events(range.len()),
        AsOf::Time(data.events.time[range.start + 2]),
        AsOf::Events(3),
        AsOf::Events(0),
    ];
    let observe = |item: u32, time: i64, label: f32| {
        let event = Event { time: Some(time), ..Event::item(data.items.id(item)) };
        engine.observe(id, &Outcome::labelled(event, &[("label", label)])).unwrap();
    };
    // One that counts at the first moments.
    observe(7, last, 0.0);
    let before = moments.map(|moment| ask(Query::entity(id).as_of(moment)));
    let now = ask(Query::entity(id));
    assert_eq!(before[0], ask(Query::entity(id).as_of(AsOf::Time(last + 1)).at(last)));
    (0..12).for_each(|n| observe(n, last + 1000 * i64::from(n + 1), ((n + 1) % 2) as f32));
    assert_eq!(moments.map(|moment| ask(Query::entity(id).as_of(moment))), before);
    assert_ne!(ask(Query::entity(id)), now);
    // As of now is now; every other event joined the history.
    assert_eq!(ask(Query::entity(id).as_of(AsOf::Events(range.len() + 6))), ask(Query::entity(id)));
    assert_ne!(ask(Query::entity(id).as_of(AsOf::Events(range.len() + 5))), ask(Query::entity(id)));
    let refused = engine.recommend(&Query::items(&[]).as_of(AsOf::Events(1)), &Filter::default(), 3).unwrap_err();
    assert!(refused.message().contains("names none"), "{refused}");
}
