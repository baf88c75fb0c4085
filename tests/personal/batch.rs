//! The ranker in a generation, and the table of meta embeddings that batch adaptation makes.

use crate::scene::{Place, other, scene};
use docent::adapt::{BatchAdapted, BatchAdapter};
use docent::evaluate::ctr_metrics;
use docent::model::sections;
use docent::progress::{Cancel, ProgressEvent, Silent};
use docent::serve::{Filter, Generation, Query, Ranking, Source, WithoutStates};
use docent::store::{GenerationId, RunRecord, Store};
use docent::train::ranker::Impressions;
use docent::{ErrorKind, Result};
use std::path::Path;
use std::sync::Arc;

fn adapter<'a>(generation: Arc<Generation>, outcomes: &'a Impressions) -> BatchAdapter<'a> {
    BatchAdapter::new(generation, &scene().data, outcomes).unwrap()
}

fn publish(path: &Path, adapter: &BatchAdapter<'_>, adapted: &BatchAdapted) -> GenerationId {
    let mut publisher = Store::open(path).unwrap().publisher().unwrap();
    adapter.publish(&mut publisher, adapted, &RunRecord::default()).unwrap()
}

fn bits(scores: &[Vec<f32>]) -> Vec<u32> {
    scores.iter().flatten().map(|p| p.to_bits()).collect()
}

fn probabilities(generation: &Generation, entity: u32) -> Result<Vec<Vec<f32>>> {
    let items: Vec<&str> = scene().data.items.names().iter().map(String::as_str).collect();
    WithoutStates(generation).probabilities(&Query::entity(scene().data.entities.id(entity)), &items)
}

#[test]
fn lists_are_retrieved_and_then_put_in_order_by_the_predicted_outcome() {
    let place = Place::new();
    let engine = place.plain();
    let generation = engine.current();
    let entity = scene().data.entities.id(scene().somebody(30));
    let query = Query::entity(entity);
    let ranked = engine.recommend(&query, &Filter::default(), 10).unwrap();
    assert_eq!((ranked.source, ranked.items.len()), (Source::Ranker, 10));
    let ids: Vec<&str> = ranked.items.iter().map(|i| i.id.as_str()).collect();
    let each = engine.probabilities(&query, &ids).unwrap();
    for (item, each) in ranked.items.iter().zip(&each) {
        assert_eq!(each.len(), 1);
        assert_eq!(item.score.to_bits(), each[0].to_bits(), "the list's score is the probability");
        assert!(item.score > 0.0 && item.score < 1.0);
    }
    assert!(ranked.items.windows(2).all(|w| w[0].score >= w[1].score));
    let head = engine.recommend(&query.ranked_by(Ranking::Head("label")), &Filter::default(), 10).unwrap();
    assert_eq!(head, ranked);
    let plain = engine.recommend(&query.ranked_by(Ranking::Retrieval), &Filter::default(), 10).unwrap();
    assert_eq!(plain.source, Source::Model);
    assert_ne!(plain.items, ranked.items);
    let refused = engine.recommend(&query.ranked_by(Ranking::Head("purchase")), &Filter::default(), 10);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
    // A filter holds through both stages, and a place on the page changes what is expected of everything.
    let allowed = [ids[3], ids[1]];
    let few = engine.recommend(&query, &Filter::default().allow(&allowed), 10).unwrap();
    assert_eq!(few.items.iter().map(|i| i.id.as_str()).collect::<Vec<_>>(), [ids[1], ids[3]]);
    let first = engine.probabilities(&query.impression(&[("position", 1.0)]), &ids).unwrap();
    let last = engine.probabilities(&query.impression(&[("position", 6.0)]), &ids).unwrap();
    assert!(first.iter().zip(&last).filter(|(f, l)| f[0] > l[0]).count() > 7, "{first:?} {last:?}");
    assert_eq!(
        engine.probabilities(&query.impression(&[("weather", 1.0)]), &ids).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    // Of those of whom nothing is known the list is the popular one, and probabilities are still given.
    let nobody = Query::entity("nobody");
    assert_eq!(engine.recommend(&nobody, &Filter::default(), 3).unwrap().source, Source::Popularity);
    assert_eq!(engine.probabilities(&nobody, &ids).unwrap().len(), ids.len());
    assert_eq!(generation.ranker().unwrap().adapted, 0);
    let batch = engine.recommend_batch(&[query, nobody], &Filter::default(), 10, 2).unwrap();
    assert_eq!(batch[0].as_ref().unwrap(), &ranked);
}

#[test]
fn batch_adaptation_gives_the_same_bytes_whatever_the_threads_and_interruptions() {
    let place = Place::new();
    let generation = place.plain().current();
    let outcomes = &scene().outcomes;
    let whole = adapter(Arc::clone(&generation), outcomes).run(&mut Silent, &Cancel::new()).unwrap().unwrap();
    let two = adapter(Arc::clone(&generation), outcomes).threads(2).run(&mut Silent, &Cancel::new()).unwrap().unwrap();
    assert_eq!(whole, two);
    assert!(whole.adapted > 300, "{}", whole.adapted);
    assert_eq!(whole.adapted + whole.refused + whole.unlabelled, generation.entities() as u64);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("partial");
    let resumable = adapter(Arc::clone(&generation), outcomes).partial(&file);
    // Stopped before it begins, then torn in the middle of what it wrote.
    let stopped = Cancel::new();
    stopped.cancel();
    assert_eq!(resumable.run(&mut Silent, &stopped).unwrap(), None);
    let first = resumable.run(&mut Silent, &Cancel::new()).unwrap().unwrap();
    assert_eq!((first.resumed, &first.embeddings), (0, &whole.embeddings));
    let again = resumable.run(&mut Silent, &Cancel::new()).unwrap().unwrap();
    assert_eq!((again.resumed, &again.embeddings), (generation.entities() as u64, &whole.embeddings));
    let length = std::fs::metadata(&file).unwrap().len();
    for cut in [1, length / 2, length - 60] {
        std::fs::File::options().write(true).open(&file).unwrap().set_len(length - cut).unwrap();
        let torn = resumable.run(&mut Silent, &Cancel::new()).unwrap().unwrap();
        assert_eq!((torn.resumed, &torn.embeddings), (0, &whole.embeddings), "cut {cut}");
    }
    // Outcomes of another log are not mixed with what is kept.
    let mut fewer = outcomes.clone();
    fewer.labels.iter_mut().step_by(2).for_each(|l| *l = f32::NAN);
    let other =
        adapter(Arc::clone(&generation), &fewer).partial(&file).run(&mut Silent, &Cancel::new()).unwrap().unwrap();
    assert_eq!(other.resumed, 0);
    assert_ne!(other.embeddings, whole.embeddings);
}

#[test]
fn the_table_answers_as_the_adapted_block_does_and_shares_the_model() {
    let place = Place::new();
    let engine = place.plain();
    let before = engine.current();
    let adapter = adapter(Arc::clone(&before), &scene().outcomes);
    let mut steps = 0;
    let mut watch = |event: &ProgressEvent| steps += usize::from(matches!(event, ProgressEvent::Advance { .. }));
    let adapted = adapter.run(&mut watch, &Cancel::new()).unwrap().unwrap();
    assert!(steps > 0);
    assert_eq!(publish(&place.path, &adapter, &adapted), GenerationId(2));
    engine.reload().unwrap();
    let after = engine.current();
    assert_eq!(after.ranker().unwrap().adapted, adapted.adapted);
    assert_eq!(before.meta_version().unwrap(), after.meta_version().unwrap());
    for name in before.snapshot().section_names() {
        assert_eq!(before.snapshot().section(name).unwrap(), after.snapshot().section(name).unwrap(), "{name}");
    }
    assert!(Store::open(&place.path).unwrap().verify(Some(GenerationId(2))).unwrap().problems.is_empty());

    // Scores under the stored vector are those under the vector that was adapted, to the bit, and not the learned ones.
    let somebody = scene().somebody(30);
    let learned = probabilities(&before, somebody).unwrap();
    let stored = probabilities(&after, somebody).unwrap();
    assert_ne!(bits(&learned), bits(&stored));
    let width = after.meta_width();
    let vector = &adapted.embeddings[somebody as usize * width..(somebody as usize + 1) * width];
    let table = after.snapshot().f32s(sections::META_EMBEDDINGS).unwrap();
    assert_eq!(&table[somebody as usize * width..(somebody as usize + 1) * width], vector);
    // Adapted beats learned over everybody: the outcomes were adapted to, so this is about the path, not about quality.
    let mut judged = [Vec::new(), Vec::new()];
    let (mut people, mut labels) = (Vec::new(), Vec::new());
    for entity in 0..scene().data.entities.len() as u32 {
        let id = scene().data.entities.id(entity);
        let range = scene().outcomes.range(entity);
        let items: Vec<&str> = range.clone().map(|i| scene().data.items.id(scene().outcomes.item[i])).collect();
        for (generation, scores) in [&before, &after].into_iter().zip(&mut judged) {
            scores.extend(
                WithoutStates(generation).probabilities(&Query::entity(id), &items).unwrap().into_iter().map(|p| p[0]),
            );
        }
        people.extend(range.clone().map(|_| entity));
        labels.extend(range.map(|i| scene().outcomes.labels[i]));
    }
    let auc = |scores: &[f32]| ctr_metrics(&people, scores, &labels)[0].1;
    assert!(auc(&judged[1]) > auc(&judged[0]) + 0.03, "{} against {}", auc(&judged[1]), auc(&judged[0]));
}

#[test]
fn a_newer_model_is_never_replaced_by_an_adaptation_of_an_older_one() {
    let place = Place::new();
    let engine = place.plain();
    let adapter = adapter(engine.current(), &scene().outcomes);
    let adapted = adapter.run(&mut Silent, &Cancel::new()).unwrap().unwrap();
    other().publish(&place.path);
    let mut publisher = Store::open(&place.path).unwrap().publisher().unwrap();
    let error = adapter.publish(&mut publisher, &adapted, &RunRecord::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StateMismatch);
    drop(publisher);
    assert_eq!(engine.reload().unwrap(), GenerationId(2));
    assert_eq!(engine.current().ranker().unwrap().adapted, 0);
}

#[test]
fn what_is_kept_of_an_interrupted_run_is_not_mixed_with_another_context() {
    let place = Place::new();
    let generation = place.plain().current();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("partial");
    let first = adapter(Arc::clone(&generation), &scene().outcomes).partial(&file);
    first.run(&mut Silent, &Cancel::new()).unwrap().unwrap();
    let mut moved = scene().outcomes.clone();
    moved.impression.iter_mut().for_each(|x| *x = -*x);
    let second = adapter(generation, &moved).partial(&file).run(&mut Silent, &Cancel::new()).unwrap().unwrap();
    assert_eq!(second.resumed, 0);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let place = Place::new();
    let generation = place.plain().current();
    let mut heads = scene().outcomes.clone();
    heads.heads = vec!["purchase".into()];
    let error = BatchAdapter::new(Arc::clone(&generation), &scene().data, &heads).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StateMismatch);
    let mut torn = scene().outcomes.clone();
    torn.item.pop();
    assert_eq!(
        BatchAdapter::new(Arc::clone(&generation), &scene().data, &torn).unwrap_err().kind(),
        ErrorKind::InvalidData
    );
}

/// Publishes generation 2 with one section replaced.
pub fn with_section(
    path: &Path,
    generation: &Generation,
    replaced: &str,
    change: impl Fn(&mut Vec<u8>, &mut Vec<u64>),
) {
    let snapshot = generation.snapshot();
    let mut publisher = Store::open(path).unwrap().publisher().unwrap();
    for name in snapshot.section_names() {
        if name == replaced {
            let section = snapshot.section(name).unwrap();
            let (mut bytes, mut shape) = (snapshot.bytes(name).unwrap().to_vec(), section.shape.clone());
            change(&mut bytes, &mut shape);
            publisher.section(name, section.dtype, &shape, &bytes).unwrap();
        } else {
            publisher.carry(snapshot, name).unwrap();
        }
    }
    publisher.publish(snapshot.manifest(), &RunRecord::default()).unwrap();
}

#[test]
fn hostile_sections_are_refused_or_answered_and_never_a_panic() {
    let place = Place::new();
    let engine = place.plain();
    let adapter = adapter(engine.current(), &scene().outcomes);
    let adapted = adapter.run(&mut Silent, &Cancel::new()).unwrap().unwrap();
    publish(&place.path, &adapter, &adapted);
    engine.reload().unwrap();
    let sound = engine.current();
    let entity = scene().data.entities.id(scene().somebody(30));
    let names: Vec<String> = sound.snapshot().section_names().map(str::to_owned).collect();
    let own = names.iter().filter(|n| n.starts_with("ranker.") || n.starts_with("meta."));
    let mut refused = 0;
    for name in own {
        // One element less: told when the generation is opened.
        with_section(&place.path, &sound, name, |bytes, shape| {
            let first = shape[0];
            bytes.truncate(bytes.len() / first as usize * (first as usize - 1));
            shape[0] -= 1;
        });
        assert_eq!(engine.reload().unwrap_err().kind(), ErrorKind::Corrupt, "{name}");
        // Numbers that make no sense: told when they are used.
        for byte in [0xff, 0x7f, 0x80] {
            with_section(&place.path, &sound, name, |bytes, _| bytes.fill(byte));
            let personal = Some(docent::serve::PersonalOptions::default());
            let options = docent::serve::EngineOptions { personal, ..Default::default() };
            let engine = docent::serve::Engine::open(&place.path, &options).unwrap();
            let event = docent::Event::item("i0003");
            let outcome = docent::serve::Outcome::labelled(event, &[("label", 1.0)]);
            let query = Query::entity(entity);
            let mut judge = |kind: Option<ErrorKind>| {
                assert!(kind.is_none_or(|k| k == ErrorKind::Corrupt), "{name}: {kind:?}");
                refused += usize::from(kind.is_some());
            };
            judge(engine.recommend(&query, &Filter::default(), 5).err().map(|e| e.kind()));
            judge(engine.probabilities(&query, &["i0001"]).err().map(|e| e.kind()));
            judge(engine.observe(entity, &outcome).err().map(|e| e.kind()));
            judge(engine.recommend(&query, &Filter::default(), 5).err().map(|e| e.kind()));
            let _ = engine.entities().unwrap().forget(entity).unwrap();
        }
    }
    assert!(refused > 20, "{refused}");
}
