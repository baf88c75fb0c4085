//! The pipeline in memory: train, adapt, measure and search, each in one call.

use super::*;
use crate::ErrorKind;
use crate::data::{Dataset, Protocol, SyntheticOptions, World};
use crate::options::{ModelOptions, RankerTrainOptions, TrainOptions};
use crate::progress::{Cancel, ProgressEvent, Silent};
use crate::serve::{Engine, EngineOptions};
use crate::train::ranker::Impressions;
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
    let ranker = RankerTrainOptions { epochs: 1, ..RankerTrainOptions::default() };
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
    assert!(trained.ranker.as_ref().is_some_and(|r| r.epochs == 1), "{trained:?}");
    let adapted = adapt(source.clone(), &store, &AdaptJob::default(), &mut Silent, &cancel).unwrap();
    assert_eq!((adapted.generation.0, adapted.entities), (2, data.entities.len()));
    assert!(adapted.adapted > 60, "{adapted:?}");
    let measured = |measure| {
        let job = EvaluateJob { measure, ..EvaluateJob::default() };
        evaluate(source.clone(), &[&store], &job, &mut Silent, &cancel)
    };
    let found = measured(Measure::default()).unwrap();
    let rows: Vec<&str> = found.lists().unwrap().rows.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(rows, ["docent", "retrieval", "popularity", "markov", "item-knn", "recent-popularity"]);
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
