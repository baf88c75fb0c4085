//! The synthetic world: the same seed gives the same world, and what is planted in it is there.

use docent::data::{Dataset, Protocol, Split, SyntheticOptions, World};
use docent::evaluate::{CountedEvents, EvaluateOptions, ItemKnn, KnnOptions, Markov, Optimum, Popularity, evaluate};
use docent::progress::{Cancel, Silent};

fn small(seed: u64) -> SyntheticOptions {
    SyntheticOptions { entities: 400, items: 300, days: 90, events_per_entity: 40.0, seed, ..Default::default() }
}

fn judge(data: &Dataset, world: Option<&World>) -> Vec<(String, f64)> {
    let split = Split::new(data, &Protocol::LeaveOneOut).unwrap();
    let popularity = Popularity::fit(data, &split, CountedEvents::BeforeTest);
    let markov = Markov::fit(data, &split, CountedEvents::BeforeTest);
    let knn = ItemKnn::fit(data, &split, CountedEvents::BeforeTest, &KnnOptions::default(), 2);
    let optimum = world.map(|w| Optimum::new(w, data).unwrap());
    let mut scorers: Vec<&dyn docent::evaluate::Scorer> = vec![&popularity, &markov, &knn];
    scorers.extend(optimum.iter().map(|o| o as &dyn docent::evaluate::Scorer));
    let options = EvaluateOptions { threads: 2, cuts: false, ..Default::default() };
    let result = evaluate(data, &split, &scorers, &options, &mut Silent, &Cancel::new()).unwrap();
    result.rows.iter().map(|r| (r.name.clone(), r.metric("ndcg@10").unwrap())).collect()
}

fn value(rows: &[(String, f64)], name: &str) -> f64 {
    rows.iter().find(|r| r.0 == name).unwrap().1
}

#[test]
fn the_same_seed_gives_the_same_world_on_any_number_of_threads() {
    let a = World::new(&small(3), 1).unwrap();
    let b = World::new(&small(3), 3).unwrap();
    let c = World::new(&small(4), 1).unwrap();
    assert_eq!(a.dataset().unwrap(), b.dataset().unwrap());
    assert_eq!(a.impressions(), b.impressions());
    assert_ne!(a.dataset().unwrap().hash, c.dataset().unwrap().hash);
}

#[test]
fn the_optimum_beats_markov_and_markov_beats_popularity() {
    let world = World::new(&small(1), 2).unwrap();
    let rows = judge(&world.dataset().unwrap(), Some(&world));
    let (optimum, markov) = (value(&rows, "optimum"), value(&rows, "markov"));
    let (knn, popularity) = (value(&rows, "item-knn"), value(&rows, "popularity"));
    assert!(optimum > 1.5 * markov && optimum > 1.5 * knn, "{rows:?}");
    assert!(markov > 1.2 * popularity, "{rows:?}");
}

#[test]
fn shuffled_items_leave_nothing_to_learn() {
    let world = World::new(&small(1), 2).unwrap();
    let mut data = world.dataset().unwrap();
    let straight = judge(&data, None);
    let mut items = std::mem::take(&mut data.events.item);
    docent::random::Rng::new(5).shuffle(&mut items);
    data.events.item = items;
    let shuffled = judge(&data, None);
    assert!(value(&shuffled, "markov") < 0.5 * value(&straight, "markov"), "{straight:?} {shuffled:?}");
    assert!(value(&shuffled, "markov") < 1.5 * value(&shuffled, "popularity"), "{shuffled:?}");
}

#[test]
fn events_follow_the_probabilities_that_the_world_reports() {
    let world = World::new(&small(2), 2).unwrap();
    // Twice: sums are 1, and the expected log-probability equals the observed one within its standard error.
    let (mut n, mut gap, mut spread) = (0.0, 0.0, 0.0);
    for entity in 0..200 {
        for (event, item) in world.history(entity).enumerate() {
            let p = world.probabilities(entity, event).unwrap();
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            let log = |p: f64| if p > 0.0 { p.ln() } else { 0.0 };
            let mean: f64 = p.iter().map(|p| p * log(*p)).sum();
            let square: f64 = p.iter().map(|p| p * log(*p) * log(*p)).sum();
            assert!(p[item as usize] > 0.0);
            gap += log(p[item as usize]) - mean;
            spread += square - mean * mean;
            n += 1.0;
        }
    }
    assert!(n > 3000.0 && gap.abs() < 4.0 * f64::sqrt(spread), "{gap} over {n}, spread {spread}");
    assert_eq!(world.probabilities(0, 1_000_000).unwrap_err().kind(), docent::ErrorKind::NotFound);
}

#[test]
fn nobody_meets_an_item_twice_or_before_its_launch_and_trailers_are_short() {
    let data = World::new(&small(2), 2).unwrap().dataset().unwrap();
    let trailer = data.schema.actions.iter().position(|a| a == "trailer").unwrap() as u16;
    let (mut trailers, mut views) = ((0.0, 0.0), (0.0, 0.0));
    for u in 0..data.entities.len() as u32 {
        let mut items = data.history(u).to_vec();
        let met = items.len();
        items.sort_unstable();
        items.dedup();
        assert_eq!(items.len(), met);
        for e in data.range(u) {
            assert!(data.events.time[e] >= data.released[data.events.item[e] as usize]);
            let side = if data.events.action[e] == trailer { &mut trailers } else { &mut views };
            *side = (side.0 + f64::from(data.events.value[e]), side.1 + 1.0);
        }
    }
    let share = trailers.1 / (trailers.1 + views.1);
    assert!((0.08..0.12).contains(&share), "{share}");
    assert!(10.0 * trailers.0 / trailers.1 < views.0 / views.1);
    assert!(data.titles.iter().all(|t| t.ends_with(')') && t.len() > 8), "{:?}", data.titles);
}

#[test]
fn in_a_large_world_everybody_meets_only_some_works_and_draws_them_as_reported() {
    let options =
        SyntheticOptions { entities: 4, items: 20_001, days: 10, events_per_entity: 8.0, ..Default::default() };
    let world = World::new(&options, 2).unwrap();
    let known: Vec<Vec<usize>> = (0..options.entities)
        .map(|entity| {
            let p = world.probabilities(entity, 0).unwrap();
            assert!(p.len() == 20_001 && (p.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            (0..p.len()).filter(|&i| p[i] > 0.0).collect()
        })
        .collect();
    for (entity, known) in (0..).zip(&known) {
        assert!((2000..4100).contains(&known.len()), "{}", known.len());
        let first = world.history(entity).next().unwrap();
        assert!(known.binary_search(&(first as usize)).is_ok());
        for (event, item) in world.history(entity).enumerate() {
            assert!(world.probabilities(entity, event).unwrap()[item as usize] > 0.0);
        }
    }
    assert!(world.impressions().iter().all(|i| i.item < 20_001) && known[0] != known[1]);
    // Up to 20,000 works, everybody knows of all that are out.
    let world = World::new(&SyntheticOptions { items: 20_000, entities: 1, ..options }, 1).unwrap();
    assert!(world.probabilities(0, 0).unwrap().iter().filter(|p| **p > 0.0).count() > 10_000);
}

#[test]
fn clicks_happen_as_often_as_their_probabilities_say() {
    let world = World::new(&small(2), 2).unwrap();
    let shown = world.impressions();
    let expected: f64 = shown.iter().map(|i| i.probability).sum();
    let spread: f64 = shown.iter().map(|i| i.probability * (1.0 - i.probability)).sum::<f64>().sqrt();
    let clicked = shown.iter().filter(|i| i.clicked).count() as f64;
    assert!(shown.len() > 5000 && (clicked - expected).abs() < 4.0 * spread, "{clicked} {expected} {spread}");
}

#[test]
fn sizes_out_of_range_are_refused() {
    for options in [
        SyntheticOptions { entities: 0, ..small(1) },
        SyntheticOptions { items: 3, ..small(1) },
        SyntheticOptions { days: 0, ..small(1) },
        SyntheticOptions { events_per_entity: f64::NAN, ..small(1) },
    ] {
        assert_eq!(World::new(&options, 1).unwrap_err().kind(), docent::ErrorKind::InvalidArgument);
    }
}

#[cfg(feature = "files")]
#[test]
fn files_are_the_same_byte_for_byte_and_hold_every_event() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let world = World::new(&small(3), 1).unwrap();
    world.write(a.path()).unwrap();
    World::new(&small(3), 2).unwrap().write(&b.path().join("made/for/it")).unwrap();
    for file in ["events.csv", "impressions.csv", "items.csv", "people.csv", "dataset.toml", "impressions.toml"] {
        let bytes = std::fs::read(a.path().join(file)).unwrap();
        assert_eq!(bytes, std::fs::read(b.path().join("made/for/it").join(file)).unwrap(), "{file}");
    }
    let lines = |file: &str| std::fs::read_to_string(a.path().join(file)).unwrap().lines().count();
    assert_eq!(lines("events.csv"), world.events() + 1);
    assert_eq!(lines("impressions.csv"), world.impressions().len() + 1);
    assert_eq!((lines("items.csv"), lines("people.csv")), (301, 401));
}

#[cfg(feature = "files")]
#[test]
fn what_is_written_is_read_back_to_the_same_dataset() {
    use docent::data::DatasetFile;
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(&small(3), 2).unwrap();
    world.write(dir.path()).unwrap();
    let mut told = Vec::new();
    let mut observer = |e: &docent::progress::ProgressEvent| told.push(e.clone());
    let file = DatasetFile::open(&dir.path().join("dataset.toml"), None).unwrap();
    assert_eq!(file.protocol(), Some(&Protocol::LeaveOneOut));
    assert_eq!(file.read(&mut observer, &Cancel::new()).unwrap(), world.dataset().unwrap());
    let warning = told.iter().find(|e| matches!(e, docent::progress::ProgressEvent::Warning(_)));
    assert!(warning.is_none(), "{warning:?}");
    let file = DatasetFile::open(&dir.path().join("impressions.toml"), None).unwrap();
    let impressions = file.read(&mut Silent, &Cancel::new()).unwrap();
    assert_eq!(impressions.events.len(), world.impressions().len());
    let clicks = impressions.events.label.iter().filter(|l| **l == 1.0).count();
    assert_eq!(clicks, world.impressions().iter().filter(|i| i.clicked).count());
}
