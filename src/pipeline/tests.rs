//! The pipeline in memory: train, adapt, measure and search, each in one call.

use super::*;
use crate::ErrorKind;
use crate::data::{Dataset, Protocol, SyntheticOptions, World};
use crate::options::{ModelOptions, Publish, RankerGoal, RankerTrainOptions, TrainOptions};
use crate::progress::{Cancel, ProgressEvent, Silent};
use crate::random::Rng;
use crate::serve::{Engine, EngineOptions, Filter, Query, Source as ListSource};
use crate::train::ranker::{Impressions, WEIGHTS};
use crate::train::{RankerConfig, Stopped, TrainConfig};
use std::path::{Path, PathBuf};

fn world() -> (Dataset, Impressions) {
    let options = SyntheticOptions { entities: 120, items: 60, days: 40, ..SyntheticOptions::default() };
    let world = World::new(&options, 1).unwrap();
    let data = world.dataset().unwrap();
    let outcomes = Impressions::from_log(&data, &world.impression_log().unwrap()).unwrap();
    (data, outcomes.holding_out(HELD_OUT).unwrap())
}

fn job() -> TrainJob {
    let model = ModelOptions { width: 16, hidden: 32, blocks: 1, max_length: 20, ..ModelOptions::default() };
    let train = TrainOptions { epochs: 2, checkpoint_every: 3, ..TrainOptions::default() };
    let ranker = RankerTrainOptions { epochs: 1, publish: Publish::Always, ..RankerTrainOptions::default() };
    let ranker = RankerConfig { train: ranker, ..RankerConfig::default() };
    let config = Some(TrainConfig { model, train, ranker, ..TrainConfig::default() });
    TrainJob { settings: Settings { config, ..Settings::default() }, ..TrainJob::default() }
}

/// The bytes of every segment and manifest, by name.
fn content(store: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let folders = ["generations", "segments"].map(|part| std::fs::read_dir(store.join(part)).unwrap());
    let paths = folders.into_iter().flatten().map(|entry| entry.unwrap().path());
    let kept = paths.filter(|path| path.extension().is_none_or(|e| e != "run"));
    let mut found: Vec<_> =
        kept.map(|path| (path.file_name().unwrap().into(), std::fs::read(&path).unwrap())).collect();
    found.sort();
    found
}

#[test]
fn a_dataset_in_memory_becomes_a_model_that_is_adapted_and_measured() {
    let (data, outcomes) = world();
    let source = Source::Memory { data: &data, outcomes: Some(&outcomes) };
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let cancel = Cancel::new();
    let kind = |e: crate::Error| e.kind();
    // What cannot work is told before anything is made.
    let mut wrong = job();
    wrong.settings.config.as_mut().unwrap().model.heads = 3;
    assert_eq!(train(&data, &store, &wrong, &mut Silent, &cancel).map_err(kind), Err(ErrorKind::InvalidConfig));
    assert!(!store.exists());

    let trained = train(source.clone(), &store, &job(), &mut Silent, &cancel).unwrap();
    assert_eq!((trained.generation.map(|g| g.0), trained.stopped), (Some(1), Stopped::Epochs));
    assert!(trained.ranker.as_ref().is_some_and(|r| r.published && r.epochs == 1), "{trained:?}");
    let adapted = adapt(source.clone(), &store, &AdaptJob::default(), &mut Silent, &cancel).unwrap();
    assert_eq!((adapted.generation.0, adapted.entities), (2, data.entities.len()));
    assert!(adapted.adapted > 60, "{adapted:?}");
    let measured = |measure| {
        let job = EvaluateJob { measure, ..EvaluateJob::default() };
        evaluate(source.clone(), &[&store], &job, &mut Silent, &cancel)
    };
    let found = measured(Measure::default()).unwrap();
    let rows: Vec<&str> = found.lists().unwrap().rows.iter().map(|r| r.name.as_str()).collect();
    let expected = ["docent", "retrieval", "popularity", "markov", "item-knn", "ease", "ials", "recent-popularity"];
    assert_eq!(rows, expected);
    assert_eq!(found.runs, [Run { store: store.clone(), generation: adapted.generation }]);
    assert!(matches!(measured(Measure::Ctr).unwrap().judgement, Judgement::Ctr(parts) if !parts.is_empty()));
    assert_eq!(measured(Measure::Heads).map_err(kind), Err(ErrorKind::InvalidArgument));
    let cold = Measure::Lists(Some(Protocol::parse("cold-items").unwrap()));
    assert_eq!(measured(cold).map_err(kind), Err(ErrorKind::StateMismatch));
    assert_eq!(
        adapt(&data, &store, &AdaptJob::default(), &mut Silent, &cancel).map_err(kind),
        Err(ErrorKind::InvalidData)
    );

    // One training at a time; stopped, adaptation says what is kept.
    let _place = workplace::Workplace::take(&store).unwrap();
    assert_eq!(train(source.clone(), &store, &job(), &mut Silent, &cancel).map_err(kind), Err(ErrorKind::Locked));
    cancel.cancel();
    let stopped = adapt(source, &store, &AdaptJob::default(), &mut Silent, &cancel).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Cancelled);
    assert_eq!(Engine::open(&store, &EngineOptions::default()).unwrap().current().id().0, 2);
}

/// Trains with these outcomes where a ranker must earn its place, and gives the report and where the lists come from.
fn earning(data: &Dataset, outcomes: &Impressions) -> (TrainReport, ListSource) {
    let (folder, mut job) = (tempfile::tempdir().unwrap(), job());
    job.settings.config.as_mut().unwrap().ranker.train.publish = Publish::Earned;
    let mut said = Vec::new();
    let mut listen = |event: &ProgressEvent| {
        if let ProgressEvent::Warning(what) = event {
            said.push(what.clone());
        }
    };
    let source = Source::Memory { data, outcomes: Some(outcomes) };
    let trained = train(source, folder.path(), &job, &mut listen, &Cancel::new()).unwrap();
    assert_eq!(said, trained.warnings);
    let engine = Engine::open(folder.path(), &EngineOptions::default()).unwrap();
    let list = engine.recommend(&Query::entity(data.entities.id(0)), &Filter::default(), 5).unwrap();
    assert_eq!(engine.current().ranker().is_some(), trained.ranker.as_ref().is_some_and(|r| r.published));
    (trained, list.source)
}

#[test]
fn labels_that_tell_nothing_give_no_ranker() {
    let (data, outcomes) = world();
    let relabelled = |label: &dyn Fn(usize) -> f32| {
        let labels = (0..outcomes.len()).map(label).collect();
        earning(&data, &Impressions { labels, ..outcomes.clone() })
    };
    let nothing = |(trained, source): (TrainReport, ListSource), why: &str| {
        assert_eq!((trained.ranker.map(|r| r.published), source), (None, ListSource::Model));
        assert!(matches!(&trained.warnings[..], [warning] if warning.contains(why)), "{:?}", trained.warnings);
    };
    nothing(relabelled(&|_| 1.0), "negative in 0 outcomes");
    nothing(relabelled(&|i| if i % (outcomes.len() / 10) == 3 { (i % 2) as f32 } else { f32::NAN }), "to validate on");
    nothing(relabelled(&|i| if i + 1 == outcomes.len() { 1.0 } else { f32::NAN }), "Bring more labels");

    // Enough of both kinds, dealt by lot: trained, and not believed.
    let mut shuffled = outcomes.clone();
    Rng::new(3).shuffle(&mut shuffled.labels);
    let (trained, source) = earning(&data, &shuffled);
    let report = trained.ranker.unwrap();
    assert!(!report.published && source == ListSource::Model, "{report:?}");
    assert!(report.worth[0].interval.is_some_and(|[_, high]| high >= 0.0), "{report:?}");
    assert!(trained.warnings[0].contains("no ranker is published"), "{:?}", trained.warnings);
}

#[test]
fn what_lists_are_for_decides_their_order() {
    let (data, outcomes) = world();
    let id = data.entities.id(0);
    let of = |goal: RankerGoal| {
        let (folder, mut job) = (tempfile::tempdir().unwrap(), job());
        let ranker = &mut job.settings.config.as_mut().unwrap().ranker.train;
        // Half of the entities validate, so that there are questions to choose by.
        (ranker.goal, ranker.validation) = (goal, 0.5);
        let source = Source::Memory { data: &data, outcomes: Some(&outcomes) };
        let trained = train(source, folder.path(), &job, &mut Silent, &Cancel::new()).unwrap();
        let engine = Engine::open(folder.path(), &EngineOptions::default()).unwrap();
        let list = engine.recommend(&Query::entity(id), &Filter::default(), 8).unwrap();
        let items: Vec<&str> = list.items.iter().map(|i| i.id.as_str()).collect();
        let scores = engine.score(&Query::entity(id), &items).unwrap();
        let chances = engine.probabilities(&Query::entity(id), &items).unwrap();
        let report = trained.ranker.unwrap();
        assert_eq!(engine.current().ranker().unwrap().order.weight, report.order_weight);
        let got: Vec<f32> = list.items.iter().map(|i| i.score).collect();
        assert!(got.is_sorted_by(|a, b| a >= b), "{got:?}");
        (report, list.source, got, scores, chances.concat())
    };
    let near = |got: &[f32], expected: &mut dyn Iterator<Item = f32>| {
        got.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-4, "{a} {b}"));
    };
    let (report, source, got, _, chances) = of(RankerGoal::Outcome(None));
    assert_eq!((report.order_weight, source), (None, ListSource::Ranker));
    near(&got, &mut chances.into_iter());
    let (report, source, got, scores, chances) = of(RankerGoal::Weight(3.0));
    assert_eq!((report.order_weight, source), (Some(3.0), ListSource::Ranker));
    near(&got, &mut scores.iter().zip(chances).map(|(s, p)| s + 3.0 * p.ln()));
    let (report, source, got, scores, _) = of(RankerGoal::Weight(0.0));
    assert_eq!((report.order_weight, source), (Some(0.0), ListSource::Model));
    near(&got, &mut scores.into_iter());

    // Chosen, and no worse than any weight that was tried, on the questions that chose it.
    let (report, ..) = of(RankerGoal::Next);
    let figure = |name: &str| report.validation.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("{name}")).1;
    assert!(report.order_weight.is_some_and(|w| WEIGHTS.contains(&w)), "{report:?}");
    assert!(figure("ndcg@10") >= figure("ndcg@10@retrieval"), "{report:?}");
    for name in ["ndcg@10@outcome", "auc", "auc@retrieval", "auc@outcome"] {
        assert!((0.0..=1.0).contains(&figure(name)), "{report:?}");
    }
}

#[test]
fn a_training_that_was_interrupted_resumes_to_the_same_bytes_and_one_that_begins_anew_says_so() {
    let (data, _) = world();
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    train(&data, place("whole"), &job(), &mut Silent, &Cancel::new()).unwrap();
    let cancel = Cancel::new();
    let asked = cancel.clone();
    let mut stop = |event: &ProgressEvent| {
        if matches!(event, ProgressEvent::Step(step) if step.step == 4) {
            asked.cancel();
        }
    };
    let stopped = train(&data, place("store"), &job(), &mut stop, &cancel).unwrap();
    assert_eq!((stopped.generation, stopped.stopped), (None, Stopped::Interrupted));
    let mut said = Vec::new();
    let mut listen =
        |event: &ProgressEvent| said.extend(matches!(event, ProgressEvent::Warning(_)).then(|| event.clone()));
    let resumed = TrainJob { resume: true, ..job() };
    train(&data, place("store"), &resumed, &mut listen, &Cancel::new()).unwrap();
    assert_eq!(said, []);
    assert!(content(&place("store")) == content(&place("whole")), "other bytes");
    let mut listen =
        |event: &ProgressEvent| said.extend(matches!(event, ProgressEvent::Warning(_)).then(|| event.clone()));
    train(&data, place("store"), &resumed, &mut listen, &Cancel::new()).unwrap();
    assert!(matches!(&said[..], [ProgressEvent::Warning(what)] if what.contains("starting anew")), "{said:?}");
}

#[test]
fn a_search_gives_the_winner_with_every_option() {
    let (data, outcomes) = world();
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { seed: Some(5), ..job().settings };
    let tuning = TuneJob { settings, seconds: 4.0, candidates: 2, ..TuneJob::default() };
    let source = Source::Memory { data: &data, outcomes: Some(&outcomes) };
    let found = tune(source, folder.path(), &tuning, &mut Silent, &Cancel::new()).unwrap();
    assert_eq!((found.tuned.candidates.len(), found.config.train.seed), (2, 5));
    let best = found.tuned.best().unwrap();
    assert_eq!((&found.config.model, &found.config.train), (&best.model, &best.train));
    assert_eq!(found.rates.unwrap().rate, found.config.ranker.train.inner_rate);
}
