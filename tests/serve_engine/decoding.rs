use crate::world::{START, Shop, entity, item};
use candle_core::{Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling as Oracle};
use docent::serve::{Filter, MAX_STEPS, Query, Sampler, Sampling, Source};
use docent::{Cell, ErrorKind, Event};
use std::collections::BTreeSet;

fn draws(sampling: Sampling, seed: u64) -> Sampler {
    Sampler { sampling, seed }
}

#[test]
fn the_first_step_is_the_list_and_the_next_follows_its_first_item() {
    let shop = Shop::new();
    let engine = shop.engine();
    let ids: Vec<String> = (0..4).map(item).collect();
    let history: Vec<Event<'_>> = ids.iter().map(|id| Event::item(id)).collect();
    let query = Query::history(&history).with(&[("device", Cell::Text("tv"))]);
    let steps = engine.steps(&query, &Filter::default(), 4, 3, None).unwrap();
    assert_eq!(steps.len(), 3);
    // The same by hand: the chosen item becomes an event in the same circumstances.
    let mut events = history.clone();
    for step in &steps {
        let circumstances = Query::history(&events).with(&[("device", Cell::Text("tv"))]);
        let by_hand = engine.recommend(&circumstances, &Filter::default(), 4).unwrap();
        assert_eq!(*step, by_hand);
        events.push(Event { fields: &[("device", Cell::Text("tv"))], ..Event::item(&step.items[0].id) });
    }
    let chosen: BTreeSet<&str> = steps.iter().map(|s| s.items[0].id.as_str()).collect();
    assert_eq!(chosen.len(), 3, "nothing is chosen twice");
}

#[test]
fn steps_go_from_the_popular_list_to_the_model_and_end_with_the_catalogue() {
    let shop = Shop::new();
    let engine = shop.engine();
    let steps = engine.steps(&Query::entity("nobody").at(START), &Filter::everything(), 3, 60, None).unwrap();
    assert_eq!(steps.len(), 40, "each item is chosen once, then nothing is left");
    assert_eq!(steps[0].items.len(), 3);
    assert_eq!(steps[0].source, Source::Popularity);
    assert!(steps[1..].iter().all(|s| s.source == Source::Model));
    let chosen: BTreeSet<u32> = steps.iter().map(|s| s.items[0].row).collect();
    assert_eq!(chosen.len(), 40);
    let nothing = engine.steps(&Query::entity("nobody"), &Filter::default().allow(&[]), 3, 5, None).unwrap();
    assert_eq!(nothing.len(), 1);
    assert!(nothing[0].items.is_empty());
    // For an entity with times, actions and values in its history.
    let id = entity(4);
    let steps = engine.steps(&Query::entity(&id), &Filter::default(), 3, 5, None).unwrap();
    assert_eq!(steps.len(), 5);
}

#[test]
fn draws_are_seeded_without_replacement_and_under_the_filter() {
    let shop = Shop::new();
    let engine = shop.engine();
    let id = entity(1);
    let seen = shop.world.seen(1);
    let samplings = [
        Sampling::All { temperature: 3.0 },
        Sampling::TopK { count: 12, temperature: 3.0 },
        Sampling::TopP { p: 0.9, temperature: 3.0 },
        Sampling::TopKThenTopP { count: 12, p: 0.9, temperature: 3.0 },
    ];
    for query in [Query::entity(&id), Query::entity("nobody")] {
        for sampling in samplings {
            let draw = |seed| engine.sample(&query, &Filter::default(), 8, &draws(sampling, seed)).unwrap();
            let first = draw(1);
            assert_eq!(first, draw(1), "{sampling:?}");
            assert!((2..40).any(|seed| draw(seed) != first), "{sampling:?}");
            for seed in 0..20 {
                let list = draw(seed);
                let rows: BTreeSet<u32> = list.items.iter().map(|i| i.row).collect();
                assert_eq!(rows.len(), 8, "{sampling:?}");
                assert!(list.source == Source::Popularity || rows.iter().all(|row| !seen.contains(row)));
                assert!(list.items.iter().all(|i| i.score.is_finite()));
            }
        }
    }
    let all = engine.sample(&Query::entity(&id), &Filter::everything(), 99, &draws(samplings[0], 5)).unwrap();
    assert_eq!(all.items.iter().map(|i| i.row).collect::<BTreeSet<_>>().len(), 40);
}

#[test]
fn draws_follow_the_distribution() {
    let shop = Shop::new();
    let engine = shop.engine();
    // Shares of popularity are probabilities, so that at temperature 1 draws must repeat them.
    let shares = shop.world.f32s("item.popularity");
    let popular = shop.world.u32s("item.popular");
    let runs = 1500;
    let mut counts = [0u32; 40];
    let mut top_three = BTreeSet::new();
    for seed in 0..runs {
        let query = Query::entity("nobody");
        let one =
            engine.sample(&query, &Filter::default(), 1, &draws(Sampling::All { temperature: 1.0 }, seed)).unwrap();
        counts[one.items[0].row as usize] += 1;
        if seed < 200 {
            let sampler = draws(Sampling::TopK { count: 3, temperature: 1.0 }, seed);
            top_three.insert(engine.sample(&query, &Filter::default(), 1, &sampler).unwrap().items[0].row);
        }
    }
    let surprise: f64 = counts
        .iter()
        .zip(&shares)
        .map(|(count, share)| {
            let expected = f64::from(*share) * runs as f64;
            (f64::from(*count) - expected).powi(2) / expected
        })
        .sum();
    // 39 degrees of freedom: 72.1 is exceeded once in a thousand seeds, and the seeds are fixed.
    assert!(surprise < 72.1, "chi-square {surprise}");
    assert_eq!(top_three, popular[..3].iter().copied().collect());
}

#[test]
fn draws_follow_those_of_candle() {
    let shop = Shop::new();
    let engine = shop.engine();
    let id = entity(1);
    let query = Query::entity(&id);
    let list = engine.recommend(&query, &Filter::default(), 40).unwrap();
    let logits: Vec<f32> = list.items.iter().map(|i| i.score).collect();
    let place = |row: u32| list.items.iter().position(|i| i.row == row).unwrap();
    let samplings = [
        (Sampling::All { temperature: 3.0 }, Oracle::All { temperature: 3.0 }),
        (Sampling::All { temperature: 0.7 }, Oracle::All { temperature: 0.7 }),
        (Sampling::TopK { count: 5, temperature: 2.0 }, Oracle::TopK { k: 5, temperature: 2.0 }),
        (Sampling::TopP { p: 0.8, temperature: 3.0 }, Oracle::TopP { p: 0.8, temperature: 3.0 }),
        // Candle's p is then a share of all; the sampler's is one of those that take part, which alone are given.
        (Sampling::TopKThenTopP { count: 10, p: 0.6, temperature: 3.0 }, Oracle::TopP { p: 0.6, temperature: 3.0 }),
    ];
    for (sampling, oracle) in samplings {
        let partakers = if let Sampling::TopKThenTopP { count, .. } = sampling { count } else { logits.len() };
        let logits = Tensor::new(&logits[..partakers], &Device::Cpu).unwrap();
        let mut counts = [[0f64; 2]; 40];
        let mut oracle = LogitsProcessor::from_sampling(11, oracle);
        for seed in 0..3000 {
            let drawn = engine.sample(&query, &Filter::default(), 1, &draws(sampling, seed)).unwrap();
            counts[place(drawn.items[0].row)][0] += 1.0;
            counts[oracle.sample(&logits).unwrap() as usize][1] += 1.0;
        }
        let all = counts.iter().filter(|[a, b]| a + b > 0.0);
        let surprise: f64 = all.map(|[a, b]| (a - b).powi(2) / (a + b)).sum();
        // At most 39 degrees of freedom: 72.1 is exceeded once in a thousand seeds, and the seeds are fixed.
        assert!(surprise < 72.1, "{sampling:?}: chi-square {surprise}");
    }
}

#[test]
fn no_chance_is_the_best_list() {
    let shop = Shop::new();
    let engine = shop.engine();
    let id = entity(6);
    let list = engine.recommend(&Query::entity(&id), &Filter::default(), 10).unwrap();
    for sampling in [
        Sampling::Greedy,
        Sampling::All { temperature: 1e-6 },
        Sampling::TopK { count: 1, temperature: 1e6 },
        Sampling::TopP { p: 1e-9, temperature: 1.0 },
        Sampling::TopKThenTopP { count: 1, p: 0.5, temperature: 1.0 },
    ] {
        assert_eq!(list, engine.sample(&Query::entity(&id), &Filter::default(), 10, &draws(sampling, 3)).unwrap());
    }
}

#[test]
fn numbers_of_samplers_and_steps_are_checked() {
    let shop = Shop::new();
    let engine = shop.engine();
    let id = entity(6);
    for sampling in [
        Sampling::All { temperature: 0.0 },
        Sampling::All { temperature: -1.0 },
        Sampling::All { temperature: f64::NAN },
        Sampling::All { temperature: f64::INFINITY },
        Sampling::TopK { count: 0, temperature: 1.0 },
        Sampling::TopP { p: 0.0, temperature: 1.0 },
        Sampling::TopP { p: 1.1, temperature: 1.0 },
        Sampling::TopP { p: f64::NAN, temperature: 1.0 },
        Sampling::TopKThenTopP { count: 3, p: 0.5, temperature: 0.0 },
    ] {
        let refused = engine.sample(&Query::entity(&id), &Filter::default(), 3, &draws(sampling, 1)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{sampling:?}");
    }
    for (k, steps) in [(0, 1), (3, 0), (3, MAX_STEPS + 1)] {
        let refused = engine.steps(&Query::entity(&id), &Filter::default(), k, steps, None).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    }
}
