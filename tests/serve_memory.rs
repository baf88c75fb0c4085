//! What requests and opening allocate, counted at the allocator.

#[allow(dead_code)]
#[path = "serve_engine/world.rs"]
mod world;

use docent::options::Block;
use docent::serve::{Engine, EngineOptions, EventInput, Filter, Query, Session};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use world::{Make, START, Shop, World, entity, item};

thread_local! {
    static ALLOCATED: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

struct Counting;

fn count(bytes: usize) {
    ALLOCATED.with(|a| a.set((a.get().0 + 1, a.get().1 + bytes)));
}

// SAFETY: every call is handed on to the system's allocator unchanged; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// How many allocations `work` makes on this thread, and of how many bytes.
fn allocated(work: impl FnOnce()) -> (usize, usize) {
    let before = ALLOCATED.get();
    work();
    let after = ALLOCATED.get();
    (after.0 - before.0, after.1 - before.1)
}

#[test]
fn a_warm_session_allocates_nothing() {
    for block in [Block::Gated, Block::Hstu] {
        warm_sessions_allocate_nothing(block);
    }
}

fn warm_sessions_allocate_nothing(block: Block) {
    let shop = Shop::of(World::new(Make { items: 3000, entities: 50, block, ..Make::default() }));
    let engine = shop.engine();
    let ids: Vec<String> = (0..50).map(entity).collect();
    let items: Vec<String> = (0..900).map(item).collect();
    let some: Vec<&str> = items.iter().take(20).map(String::as_str).collect();
    let event =
        [EventInput { action: Some("like"), time: Some(START * 2), value: Some(1.0), ..EventInput::item(&items[5]) }];
    let mut session = Session::new();
    let (mut rows, mut scores) = ([0; 100], [0.0; 100]);
    let mut ask = |query: &Query<'_>, filter: &Filter<'_>| {
        engine.recommend_into(&mut session, query, filter, &mut rows, &mut scores).unwrap();
    };
    let mut popular = || {
        for filter in [Filter::default(), Filter::default().deny(&some), Filter::default().allow(&some)] {
            ask(&Query::entity("x").with(&[("device", "tv")]), &filter);
        }
    };
    assert!(allocated(&mut popular).0 > 0, "the count counts");
    assert_eq!(allocated(&mut popular), (0, 0));
    let mut requests = 0;
    let mut round = || {
        requests = 0;
        for id in &ids {
            let query = Query::entity(id).and_then(&event).with(&[("device", "tv")]).at(START * 2);
            for filter in [Filter::default(), Filter::default().deny(&some), Filter::default().allow(&some)] {
                ask(&query, &filter);
                requests += 1;
            }
            ask(&Query::items(&some), &Filter::default());
            requests += 1;
        }
    };
    round();
    let (count, bytes) = allocated(&mut round);
    // Matrix products keep their flags of packed panels in a vector of under 2 KiB; nothing else allocates, and nothing
    // grows with the catalogue or the history.
    assert!(count <= requests * 5 && bytes <= count * 2048, "{requests} requests: {count} allocations, {bytes} bytes");
}

#[test]
fn opening_allocates_nothing_in_proportion_to_the_tables() {
    let opening = |items: usize| {
        let shop = Shop::of(World::new(Make { items, entities: items / 10, ..Make::default() }));
        let mut engine = None;
        let (_, bytes) = allocated(|| {
            engine = Some(Engine::open(shop.path(), &EngineOptions::default()).unwrap());
        });
        let query_id = item(1);
        let query = [query_id.as_str()];
        let (_, asking) = allocated(|| {
            engine.as_ref().unwrap().recommend(&Query::items(&query), &Filter::default(), 10).unwrap();
        });
        (bytes, asking)
    };
    let (small, large) = (opening(1000), opening(100_000));
    let slack = 64 << 10;
    assert!(large.0 < small.0 + slack, "opening 100 times the items allocated {} bytes, not {}", large.0, small.0);
    // One bit per item, and no copy of a table of 3.2 MB.
    assert!(large.1 < small.1 + 100_000 / 8 + slack, "a request allocated {} bytes, not {}", large.1, small.1);
}
