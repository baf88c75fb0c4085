//! Generations whose checksums are right and whose content is wrong: what a careless or hostile publisher may write.

use crate::world::{Make, START, Section, Shop, World, entity, item};
use docent::random::Rng;
use docent::serve::{Condition, Engine, EngineOptions, Explanation, Filter, Query, Sampler, Sampling};
use docent::{Cell, ErrorKind, Event};

/// Publishes another world into the shop's store, where equal sections are shared, and opens it.
fn opened(shop: &Shop, world: &World) -> docent::Result<Engine> {
    world.publish(&shop.path());
    Engine::open(shop.path(), &EngineOptions::default())
}

#[test]
fn missing_and_misshapen_sections_are_refused_at_open() {
    let world = World::new(Make::default());
    let shop = Shop::of(world.clone());
    for (name, section) in &world.sections {
        let mut without = world.clone();
        without.sections.remove(name);
        let optional = ["item.titles.offsets", "item.released", "history.field.0", "history.field.1"];
        match opened(&shop, &without) {
            Ok(_) => assert!(optional.contains(&name.as_str()), "{name} may not be missing"),
            Err(e) => assert_eq!(e.kind(), ErrorKind::Corrupt, "{name}: {e}"),
        }
        let values = name.ends_with(".bytes") || name == "item.field.1.codes";
        let mut longer = world.clone();
        let size = section.dtype.size();
        let bytes = [section.bytes.as_slice(), &vec![0; size]].concat();
        let shape = vec![(bytes.len() / size) as u64];
        longer.sections.insert(name.clone(), Section { dtype: section.dtype, shape, bytes });
        match opened(&shop, &longer) {
            Ok(_) => assert!(values, "{name} may not be longer"),
            Err(e) => assert_eq!(e.kind(), ErrorKind::Corrupt, "{name}: {e}"),
        }
        let mut other = world.clone();
        let dtype = docent::store::Dtype::I8;
        let shape = vec![section.bytes.len() as u64];
        other.sections.insert(name.clone(), Section { dtype, shape, bytes: section.bytes.clone() });
        assert_eq!(opened(&shop, &other).unwrap_err().kind(), ErrorKind::Corrupt, "{name} of another type");
    }
    for (items, entities, events) in [(0, 8, 0), (41, 8, 0), (u64::MAX, 8, 0), (40, u64::MAX, 0), (40, 8, u64::MAX)] {
        let mut counts = world.clone();
        counts.content.items = items;
        counts.content.entities = entities;
        counts.content.events = events;
        assert_eq!(opened(&shop, &counts).unwrap_err().kind(), ErrorKind::Corrupt, "{items} {entities} {events}");
    }
}

/// Asks everything there is to ask; whatever comes back must be finite.
fn ask_everything(engine: &Engine) -> Vec<docent::Result<()>> {
    let conditions = [
        Condition::AnyOf { field: "genre", values: &["war", "fun"] },
        Condition::NoneOf { field: "kind", values: &["series"] },
        Condition::Between { field: "price", least: Some(0.0), most: None },
        Condition::Released { from: None, until: Some(30 * 86_400_000) },
    ];
    let ids: Vec<String> = (0..40).map(item).collect();
    let people: Vec<String> = (0..8).map(entity).collect();
    let mut outcomes = Vec::new();
    let finite = |list: docent::Result<docent::serve::Recommendations>| {
        list.map(|l| assert!(l.items.iter().all(|i| i.score.is_finite() && i.row < 40)))
    };
    for id in people.iter().map(String::as_str).chain(["nobody"]) {
        let profile = [("country", Cell::Text("fr")), ("age", Cell::Text("17"))];
        outcomes.push(finite(engine.recommend(&Query::entity(id).profile(&profile), &Filter::default(), 10)));
        let event = [Event { action: Some("like"), time: Some(START + 77), ..Event::item(&ids[9]) }];
        let query = Query::entity(id).and_then(&event);
        for query in [Query::entity(id), query] {
            for filter in [Filter::default(), Filter::everything(), Filter::default().under(&conditions)] {
                outcomes.push(finite(engine.recommend(&query, &filter, 10)));
            }
            let allowed = [ids[1].as_str(), &ids[2], &ids[9]];
            outcomes.push(finite(engine.recommend(&query, &Filter::default().allow(&allowed), 10)));
            let sampler = Sampler { sampling: Sampling::TopK { count: 5, temperature: 1.0 }, seed: 1 };
            outcomes.push(finite(engine.sample(&query, &Filter::default(), 3, &sampler)));
            outcomes.push(engine.score(&query, &allowed).map(|s| assert!(s.iter().all(|v| v.is_finite()))));
            outcomes.push(engine.user_embedding(&query).map(|u| assert!(u.iter().all(|v| v.is_finite()))));
            outcomes.push(engine.steps(&query, &Filter::default(), 2, 3, None).map(|_| ()));
        }
    }
    let history = [ids[3].as_str(), &ids[9]];
    let finite_parts = |why: Vec<Explanation>| {
        for why in why {
            assert!(why.score.is_finite() && why.base.is_finite() && why.because.iter().all(|e| e.weight.is_finite()));
            assert!(why.parts.is_none_or(|parts| parts.id.is_finite() && parts.metadata.is_finite()));
        }
    };
    for id in [&ids[1], &ids[5]] {
        outcomes.push(engine.explain(&Query::items(&history), &[id], 5).map(finite_parts));
    }
    for id in &ids {
        outcomes.push(finite(engine.similar(id, &Filter::default(), 5)));
        outcomes.push(engine.item_embedding(id).map(|v| assert!(v.iter().all(|v| v.is_finite()))));
    }
    outcomes
}

#[test]
fn wrong_content_is_an_error_and_never_a_panic_or_a_nan() {
    let world = World::new(Make::default());
    let sound = Shop::of(world.clone());
    assert!(ask_everything(&sound.engine()).iter().all(|o| o.is_ok()));
    let mut rng = Rng::new(8);
    for name in world.sections.keys() {
        for kind in 0..3 {
            let mut bad = world.clone();
            let bytes = &mut bad.sections.get_mut(name).unwrap().bytes;
            match kind {
                0 => bytes.fill(0xff),
                1 => bytes.iter_mut().for_each(|b| *b = rng.next_u64() as u8),
                _ => bytes.reverse(),
            }
            let Ok(engine) = opened(&sound, &bad) else { continue };
            let outcomes = ask_everything(&engine);
            for e in outcomes.iter().filter_map(|o| o.as_ref().err()) {
                // Wrong id tables lose ids, so that an id of ours may be unknown.
                assert!(matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::UnknownItem), "{name}: {e:?}");
            }
            let harmless = [
                "item.titles",
                "item.evidence",
                "item.released",
                "item.field",
                "history",
                "entity",
                "features",
                "popular",
                "item.age",
            ];
            if kind == 0 && !harmless.iter().any(|h| name.contains(h)) {
                assert!(outcomes.iter().any(|o| o.is_err()), "{name} full of ones must not pass unseen");
            }
        }
    }
}

#[test]
fn a_number_that_is_not_finite_is_reported_with_its_place() {
    for (name, place, told) in [
        ("item.vectors", 23 * 8 + 3, "item row 23"),
        ("item.popularity", 0, "popularity is damaged at item row"),
        ("weights", 1, "user vector"),
    ] {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut world = World::new(Make::default());
            let shape: Vec<usize> = world.sections[name].shape.iter().map(|d| *d as usize).collect();
            let mut values = world.f32s(name);
            values[place] = bad;
            if name == "weights" {
                values.fill(bad);
            }
            world.put_f32(name, &shape, &values);
            let shop = Shop::of(world);
            let engine = shop.engine();
            // Short of events that name row 23 itself, whose vector would reach the user's.
            let seen = item(3);
            let history = [seen.as_str()];
            let query = if name == "item.popularity" { Query::entity("nobody") } else { Query::items(&history) };
            let refused = engine.recommend(&query, &Filter::default(), 40).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Corrupt);
            assert!(refused.message().contains(told), "{refused}");
        }
    }
}
