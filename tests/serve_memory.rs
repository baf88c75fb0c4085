//! What requests and opening allocate, counted at the allocator.

mod counting;
#[allow(dead_code)]
#[path = "serve_engine/world.rs"]
mod world;

use counting::{Counting, allocated};
use docent::options::Block;
use docent::serve::{AdaptPolicy, Engine, EngineOptions, Filter, Outcome, PersonalOptions, Query, Ranking, Session};
use docent::{Cell, Event};
use world::{DAY, Make, START, Shop, World, entity, item};

#[global_allocator]
static COUNTING: Counting = Counting;

/// Flags of packed panels that one matrix product keeps, at most.
const PRODUCT: usize = 2048;

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
    let event = [Event { action: Some("like"), time: Some(START * 2), value: Some(1.0), ..Event::item(&items[5]) }];
    let device = [("device", Cell::Text("tv"))];
    let mut session = Session::new();
    let (mut rows, mut scores) = ([0; 100], [0.0; 100]);
    let mut ask = |query: &Query<'_>, filter: &Filter<'_>| {
        engine.recommend_into(&mut session, query, filter, &mut rows, &mut scores).unwrap();
    };
    let mut popular = || {
        for filter in [Filter::default(), Filter::default().deny(&some), Filter::default().allow(&some)] {
            ask(&Query::entity("x").with(&device), &filter);
        }
    };
    assert!(allocated(&mut popular).0 > 0, "the count counts");
    assert_eq!(allocated(&mut popular), (0, 0));
    let mut requests = 0;
    let mut round = || {
        requests = 0;
        for id in &ids {
            let query = Query::entity(id).and_then(&event).with(&device).at(START * 2);
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
    assert!(
        count <= requests * 5 && bytes <= count * PRODUCT,
        "{requests} requests: {count} allocations, {bytes} bytes"
    );
}

/// What each kind of request allocates on a model of a real size, with a ranker and with what was observed.
#[test]
fn requests_to_a_real_model_allocate_what_the_documents_say() {
    let make =
        Make { items: 4000, entities: 60, max_length: 200, width: 64, events: 250, ranker: true, ..Make::default() };
    let shop = Shop::of(World::new(make));
    let personal = PersonalOptions { policy: AdaptPolicy::OnDemand, ..PersonalOptions::default() };
    let options = EngineOptions { personal: Some(personal), ..EngineOptions::default() };
    let engine = Engine::open(shop.path(), &options).unwrap();
    let (plain, watched): (Vec<String>, Vec<String>) = ((40..50).map(entity).collect(), (20..24).map(entity).collect());
    for id in &watched {
        for o in 0..256 {
            let id_of_item = item(7 * o);
            let event = Event {
                time: Some(START + 9000 * DAY + o as i64),
                action: Some("view"),
                fields: &[("device", Cell::Text("tv"))],
                ..Event::item(&id_of_item)
            };
            let labels = [("click", (o % 3 / 2) as f32), ("like", 0.0)];
            engine.observe(id, &Outcome { in_history: true, ..Outcome::labelled(event, &labels) }).unwrap();
        }
        engine.adapt(id).unwrap();
    }
    let items: Vec<String> = (0..20).map(item).collect();
    let candidates: Vec<&str> = items.iter().map(String::as_str).collect();
    let mut session = Session::new();
    let (mut rows, mut scores, mut vector) = ([0; 10], [0.0; 10], [0.0; 64]);
    // Allocations of a request and their bytes, on average.
    let mut measure = |ids: &[String], what: &mut dyn FnMut(&mut Session, &Query<'_>)| {
        let mut round = || ids.iter().for_each(|id| what(&mut session, &Query::entity(id)));
        round();
        let (count, bytes) = allocated(&mut round);
        [count as f64 / ids.len() as f64, bytes as f64 / ids.len() as f64]
    };
    let filter = Filter::default();
    let mut user = |session: &mut Session, query: &Query<'_>| {
        engine.user_embedding_into(session, query, &mut vector).unwrap();
    };
    let pass = measure(&plain, &mut user);
    let state = measure(&watched, &mut user);
    let mut list = |session: &mut Session, query: &Query<'_>| {
        engine.recommend_into(session, query, &filter, &mut rows, &mut scores).unwrap();
    };
    let retrieved = measure(&plain, &mut |s, q| list(s, &q.ranked_by(Ranking::Retrieval)));
    let ranked = measure(&plain, &mut list);
    let observed = measure(&watched, &mut list);
    let mut of_candidates = [0.0; 20];
    let scored = measure(&plain, &mut |s, q| _ = engine.score_into(s, q, &candidates, &mut of_candidates).unwrap());
    let probable = measure(&plain, &mut |_, q| _ = engine.probabilities(q, &candidates).unwrap());
    let similar = measure(&plain, &mut |s, _| {
        _ = engine.similar_into(s, &items[3], &filter, &mut [0; 10], &mut [0.0; 10]).unwrap()
    });
    // Each matrix product has a block to pack an operand into and flags of its own: as many as the network has products, and none
    // longer than an operand. Nothing else of a pass allocates; retrieval and scores add nothing to it, and a state
    // its record.
    let operand = (200 * 256 * size_of::<f32>()) as f64;
    assert!(pass[0] <= 50.0 && pass[1] <= pass[0] * operand, "a pass: {pass:?}");
    assert!(state[0] <= pass[0] + 2.0, "a pass after what was observed: {state:?}, a pass: {pass:?}");
    assert_eq!([retrieved, scored], [pass, pass]);
    assert_eq!(similar, [0.0, 0.0]);
    // The ranker has products of its own, and some small lists.
    let few = |all: [f64; 2], part: [f64; 2]| all[0] - part[0] <= 12.0 && all[1] - part[1] <= 12.0 * operand;
    assert!(few(ranked, pass), "ranked {ranked:?}, a pass {pass:?}");
    assert!(few(observed, state), "observed {observed:?}, a pass with a state {state:?}");
    // One list for each candidate, and the list of them.
    assert!(probable[0] <= pass[0] + 12.0 + 21.0, "probabilities {probable:?}, a pass {pass:?}");
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
