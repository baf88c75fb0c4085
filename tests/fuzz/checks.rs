//! What must hold whatever is in the files: errors of a kind that says something, numbers that are finite.

use docent::serve::{Engine, Filter, Query, Recommendations, Sampler, Sampling};
use docent::{Cell, ErrorKind, Event, Result};

/// Longest message of an error, in bytes: it may quote what it is about, not the whole input.
const MESSAGE: usize = 64 << 10;

/// What there is; an error must be typed and say something.
pub fn sound<T>(found: Result<T>) -> Option<T> {
    match found {
        Ok(value) => Some(value),
        Err(e) => {
            assert!(!e.message().is_empty(), "{e:?} says nothing");
            assert!(e.message().len() < MESSAGE, "a message of {} bytes", e.message().len());
            assert!(!matches!(e.kind(), ErrorKind::Internal | ErrorKind::Busy | ErrorKind::Forked), "{e:?}");
            None
        }
    }
}

fn list(list: Result<Recommendations>, most: usize) {
    let Some(list) = sound(list) else { return };
    assert!(list.items.len() <= most, "{} items where {most} were asked for", list.items.len());
    for item in &list.items {
        assert!(item.score.is_finite(), "{item:?}");
    }
    let mut rows: Vec<u32> = list.items.iter().map(|item| item.row).collect();
    rows.sort_unstable();
    assert!(rows.windows(2).all(|two| two[0] != two[1]), "an item comes twice: {rows:?}");
}

fn finite(numbers: Result<Vec<f32>>) {
    let numbers = sound(numbers).unwrap_or_default();
    assert!(numbers.iter().all(|x| x.is_finite()), "{numbers:?}");
}

/// Asks for everything that there is to ask for about these entities.
pub fn ask(engine: &Engine, entities: &[&str]) {
    let items = ["i0001", "i0004", "i0009", "i0016"];
    let phone = [("device", Cell::Text("phone"))];
    let event = [Event { time: Some(1_700_000_000_000), fields: &phone, ..Event::item("i0003") }];
    for entity in entities {
        let query = Query::entity(entity);
        list(engine.recommend(&query, &Filter::default(), 10), 10);
        let later = query.with(&phone).and_then(&event).at(1_900_000_000_000);
        list(engine.recommend(&later, &Filter::everything(), 100), 100);
        finite(engine.user_embedding(&query));
        finite(engine.score(&query, &items));
        for head in sound(engine.probabilities(&query, &items)).unwrap_or_default() {
            assert!(head.iter().all(|p| (0.0..=1.0).contains(p)), "{head:?}");
        }
    }
    let query = Query::items(&items);
    list(engine.recommend(&query, &Filter::default().deny(&["i0002"]), 3), 3);
    list(engine.recommend(&query, &Filter::default().allow(&items), 3), 3);
    list(engine.similar(items[1], &Filter::default(), 5), 5);
    finite(engine.item_embedding(items[2]));
    let sampler = Sampler { sampling: Sampling::TopK { count: 5, temperature: 1.0 }, seed: 1 };
    list(engine.sample(&query, &Filter::default(), 3, &sampler), 3);
    for step in sound(engine.steps(&query, &Filter::default(), 2, 2, None)).unwrap_or_default() {
        list(Ok(step), 2);
    }
    for why in sound(engine.explain(&query, &items[..2], 3)).unwrap_or_default() {
        let parts = why.parts.iter().flat_map(|parts| [parts.id, parts.metadata]);
        let numbers = why.because.iter().map(|because| because.weight).chain(parts);
        assert!(numbers.chain([why.score, why.base]).all(f32::is_finite), "{why:?}");
    }
}
