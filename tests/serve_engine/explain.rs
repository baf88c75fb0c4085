//! Explanations name the events that a score came from, and add up to it.

use crate::world::{DAY, Make, START, Shop, World, entity, item};
use docent::options::Block;
use docent::serve::{Engine, EngineOptions, Filter, NewItem, Query, Source};
use docent::{Cell, ErrorKind, Event};

#[test]
fn weights_name_past_events_and_add_up_to_the_score() {
    for block in [Block::Gated, Block::Hstu] {
        let shop = Shop::of(World::new(Make { block, max_length: 30, ..Make::default() }));
        let engine = Engine::open(shop.path(), &EngineOptions { live: true, ..EngineOptions::default() }).unwrap();
        let fields = [("kind", Cell::Text("film")), ("genre", Cell::Texts(&["art", "war"]))];
        let (released, now) = (Some(START - 9 * DAY), Some(START));
        engine.add_item(&NewItem { id: "new", title: Some("A new one"), released, now, fields: &fields }).unwrap();
        let (a, b) = (item(4), item(9));
        let events = [Event::item(&a), Event::item("new"), Event::item(&b)];
        let known = entity(3);
        for (query, own) in [(Query::history(&events), 3), (Query::entity(&known).and_then(&events), 3)] {
            let list = engine.recommend(&query, &Filter::everything(), 41).unwrap();
            assert_eq!((list.source, list.items.len()), (Source::Model, 41));
            let ids: Vec<&str> = list.items.iter().map(|i| i.id.as_str()).collect();
            let found = engine.explain(&query, &ids, 1000).unwrap();
            for (item, why) in list.items.iter().zip(&found) {
                assert_eq!((item.row, item.score), (why.row, why.score));
                let sum: f32 = why.because.iter().map(|e| e.weight).sum();
                let size = why.score.abs().max(why.base.abs()).max(0.1);
                assert!((why.base + sum - why.score).abs() < 0.02 * size, "{} + {sum}: {}", why.base, why.score);
                assert!(why.because.windows(2).all(|w| w[0].weight.abs() >= w[1].weight.abs()));
                for (ago, event) in events.iter().rev().enumerate().take(own) {
                    let because = why.because.iter().find(|e| e.ago == ago).unwrap();
                    assert_eq!(because.id, event.item);
                    assert_eq!(because.title.is_some(), engine.current().item_title(because.row).unwrap().is_some());
                }
                let parts = why.parts.unwrap();
                let both = parts.id + parts.metadata;
                assert!((both - why.score).abs() < 1e-3 * why.score.abs().max(1.0), "{both} of {}", why.score);
                assert!((0.0..=1.0).contains(&parts.metadata_weight));
            }
            let few = engine.explain(&query, &ids[..2], 2).unwrap();
            assert_eq!(few[1].because, found[1].because[..2]);
        }
    }
}

#[test]
fn events_beyond_the_context_have_no_weight() {
    let shop = Shop::of(World::new(Make { max_length: 4, ..Make::default() }));
    let engine = shop.engine();
    let ids: Vec<String> = (0..9).map(item).collect();
    let history: Vec<&str> = ids.iter().map(String::as_str).collect();
    let why = engine.explain(&Query::items(&history), &[&ids[8]], 100).unwrap();
    let mut ago: Vec<usize> = why[0].because.iter().map(|e| e.ago).collect();
    ago.sort_unstable();
    assert_eq!(ago, [0, 1, 2, 3]);
}

#[test]
fn without_a_history_or_a_tower_there_is_less_to_say() {
    let shop = Shop::new();
    let engine = shop.engine();
    let five = item(5);
    let why = engine.explain(&Query::entity("nobody"), &[&five], 5).unwrap();
    assert!(why[0].because.is_empty() && why[0].parts.is_none() && why[0].base == why[0].score);
    assert_eq!(engine.explain(&Query::items(&[&five]), &["nothing"], 5).unwrap_err().kind(), ErrorKind::UnknownItem);
    let bare = Shop::of(World::new(Make { tower: false, ..Make::default() }));
    let why = bare.engine().explain(&Query::items(&[&five]), &[&five], 5).unwrap();
    assert!(why[0].parts.is_none() && why[0].because.len() == 1);
}
