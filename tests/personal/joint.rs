//! A foundation model that learned along with its ranker, in a generation: what is published is what was trained.

use crate::scene::{features, scene};
use docent::adapt::BatchAdapter;
use docent::model::{Inference, sections};
use docent::options::RankerOptions;
use docent::progress::{Cancel, Silent};
use docent::serve::{Engine, EngineOptions, Filter, NewItem, Query, Ranking};
use docent::store::{RunRecord, Store};
use docent::train::Trained;
use docent::train::ranker::{Impressions, Plan, Predictor, Task, TaskSet, TrainedRanker};

/// Without the latest outcome of each person.
fn but_the_latest(all: &Impressions) -> Impressions {
    let mut found = Impressions {
        offsets: vec![0],
        heads: all.heads.clone(),
        impression_fields: all.impression_fields.clone(),
        held_out: all.held_out,
        ..Impressions::default()
    };
    let c = all.impression_fields.len();
    for u in 0..all.offsets.len() as u32 - 1 {
        let own = all.range(u);
        for i in own.start..own.end.saturating_sub(1).max(own.start) {
            found.item.push(all.item[i]);
            found.before.push(all.before[i]);
            found.labels.extend_from_slice(all.label(i));
            found.impression.extend_from_slice(&all.impression[i * c..(i + 1) * c]);
            found.time.extend(all.time.get(i));
        }
        found.offsets.push(found.item.len());
    }
    found
}

/// What a ranker over the vectors of `foundation` expects of each person's latest outcome, after adapting to all before it.
fn expected(foundation: &Trained, ranker: &TrainedRanker, outcomes: &Impressions, people: &[u32]) -> Vec<f32> {
    let inference = Inference::new(&scene().data.schema, &foundation.model).unwrap();
    let task = |u: &u32| {
        let own = outcomes.range(*u);
        Task { entity: *u, support: own.start..own.end - 1, query: own.end - 1..own.end }
    };
    let ask = |plan: &Plan<'_>| {
        let asked = plan.asking(people.iter().map(task).collect(), features(&inference, foundation), 2).unwrap();
        let predictor = Predictor::new(&asked, &ranker.ranker, 2).unwrap();
        let steps = ranker.ranker.shape.options.steps as usize;
        let logits = predictor.predict(TaskSet::Hidden, &[steps]).unwrap().swap_remove(0);
        logits.iter().map(|x| ranker.ranker.view().probability(0, *x)).collect()
    };
    scene().plan_of(foundation, outcomes, ask)
}

#[test]
fn what_is_published_is_what_was_trained() {
    let scene = scene();
    let joint = scene.ranked_with(RankerOptions::default(), 0.5);
    let tuned = joint.foundation.as_ref().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    scene.publish_with(&path, &joint);
    let engine = Engine::open(&path, &EngineOptions { live: true, ..EngineOptions::default() }).unwrap();
    let generation = engine.current();
    let section = |name: &str| generation.snapshot().f32s(name).unwrap().to_vec();
    for (name, tuned, before) in [
        (sections::ITEM_VECTORS, &tuned.items, &scene.foundation().items),
        (sections::ITEM_EMBEDDINGS, &tuned.ids, &scene.foundation().ids),
        (sections::WEIGHTS, &tuned.dense, &scene.foundation().dense),
        (sections::FEATURES, &tuned.features, &scene.foundation().features),
    ] {
        assert!(&section(name) == tuned && tuned != before, "{name}");
    }
    assert_eq!(generation.snapshot().manifest().training.validation, tuned.validation);
    assert_eq!(generation.ranker().unwrap().options.finetune, 0.5);

    // Everybody's latest outcome, asked when all else is known: of the engine, and of the weights that training gave.
    let mut outcomes = scene.outcomes.clone();
    let people: Vec<u32> =
        (0..scene.data.entities.len() as u32).filter(|u| outcomes.range(*u).len() > 5).take(60).collect();
    for u in &people {
        let last = outcomes.range(*u).end - 1;
        outcomes.before[last] = scene.data.range(*u).len() as u32;
    }
    let known = but_the_latest(&outcomes);
    let adapter = BatchAdapter::new(generation, &scene.data, &known).unwrap().threads(2);
    let adapted = adapter.run(&mut Silent, &Cancel::new()).unwrap().unwrap();
    let mut publisher = Store::open(&path).unwrap().publisher().unwrap();
    adapter.publish(&mut publisher, &adapted, &RunRecord::default()).unwrap();
    drop(publisher);
    engine.reload().unwrap();
    let field = &outcomes.impression_fields[0];
    let served = people.iter().map(|u| {
        let last = outcomes.range(*u).end - 1;
        let shown = outcomes.impression[last] * field.deviation + field.mean;
        let impression = [(field.name.as_str(), shown)];
        let query = Query::entity(scene.data.entities.id(*u)).impression(&impression);
        engine.probabilities(&query, &[scene.data.items.id(outcomes.item[last])]).unwrap()[0][0]
    });
    let served: Vec<f32> = served.collect();
    let apart = |a: &[f32]| a.iter().zip(&served).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let (with, without) =
        (expected(tuned, &joint, &outcomes, &people), expected(scene.foundation(), &joint, &outcomes, &people));
    assert!(apart(&with) < 1e-3, "{}", apart(&with));
    assert!(apart(&without) > 0.01, "the control: other vectors are told apart, {}", apart(&without));

    // Lists are retrieved by the same vectors, and a new item gets one by the same tower.
    let query = Query::entity(scene.data.entities.id(people[0]));
    let list = engine.recommend(&query.ranked_by(Ranking::Retrieval), &Filter::default(), 5).unwrap();
    assert_eq!(list.items.len(), 5);
    engine.add_item(&NewItem { id: "new", ..NewItem::default() }).unwrap();
    let new = engine.probabilities(&query, &["new"]).unwrap();
    assert!(new[0][0] > 0.0 && new[0][0] < 1.0);
}
