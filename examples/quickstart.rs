//! Opens a store, recommends, extends a history, looks for similar items.
//!
//! `cargo run --example quickstart -- STORE [ENTITY]`, where STORE is what `docent demo --out DIR` or `docent train`
//! published.

use docent::Event;
use docent::serve::{Engine, EngineOptions, Filter, Query};

fn main() -> docent::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(store) = arguments.next() else {
        eprintln!("usage: quickstart STORE [ENTITY]");
        std::process::exit(2);
    };
    let engine = Engine::open(store, &EngineOptions::default())?;
    let generation = engine.current();
    println!("generation {}: {} items, {} entities", generation.id(), generation.items(), generation.entities());

    // For an entity by id. One that the model has never seen gets the popular list.
    let entity = match arguments.next() {
        Some(id) => id,
        None if generation.entities() > 0 => generation.entity_id(0)?.to_owned(),
        None => "nobody".to_owned(),
    };
    let list = engine.recommend(&Query::entity(&entity), &Filter::default(), 5)?;
    println!("for {entity} ({:?}):", list.source);
    for item in &list.items {
        println!("  {:>8.4}  {}  {}", item.score, item.id, item.title.as_deref().unwrap_or(""));
    }

    // After something has happened that is not in the store yet. An event may also bring its time, action and fields.
    let Some(first) = list.items.first() else { return Ok(()) };
    let just_now = [Event::item(&first.id)];
    let next = engine.recommend(&Query::entity(&entity).and_then(&just_now), &Filter::default(), 5)?;
    println!("after {}:", first.id);
    for item in &next.items {
        println!("  {:>8.4}  {}  {}", item.score, item.id, item.title.as_deref().unwrap_or(""));
    }

    println!("like {}:", first.id);
    for item in engine.similar(&first.id, &Filter::default(), 5)?.items {
        println!("  {:>8.4}  {}  {}", item.score, item.id, item.title.as_deref().unwrap_or(""));
    }
    Ok(())
}
