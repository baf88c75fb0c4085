//! What somebody gets of whom a profile is known and nothing else.

use crate::world::{Make, Shop, World, best, entity, item};
use docent::model::sections;
use docent::serve::{Filter, Query, Source};
use docent::{Cell, ErrorKind, FieldValue};

/// Blended shares by plain arithmetic: codes by field, in the order of fields.
fn blended(world: &World, profile: &[(usize, usize)]) -> Vec<f64> {
    let mut shares: Vec<f64> = world.f32s(sections::ITEM_POPULARITY).into_iter().map(f64::from).collect();
    for (field, code) in profile {
        let name = |part: &str| format!("profile.popularity.{field}.{part}");
        let weight = f64::from(world.f32s(&name("weights"))[*code]);
        let mut own = vec![0.0; shares.len()];
        for at in 4 * code..4 * code + 4 {
            own[world.u32s(&name("rows"))[at] as usize] = f64::from(world.f32s(&name("shares"))[at]);
        }
        for (share, own) in shares.iter_mut().zip(own) {
            *share = (weight * own + 100.0 * *share) / (weight + 100.0);
        }
    }
    shares
}

/// A profile as it is asked for, and the entity field and code of each of its values.
type Asked = (&'static [FieldValue<'static>], &'static [(usize, usize)]);

#[test]
fn a_profile_chooses_among_what_is_popular() {
    let shop = Shop::of(World::new(Make { items: 200, ..Make::default() }));
    let engine = shop.engine();
    let cases: [Asked; 6] = [
        (&[], &[]),
        (&[("country", Cell::Text("nl"))], &[(0, 1)]),
        (&[("country", Cell::Text("fr")), ("age", Cell::Text("55"))], &[(0, 2), (1, 2)]),
        (&[("age", Cell::Text("55")), ("country", Cell::Text("fr"))], &[(0, 2), (1, 2)]),
        (&[("age", Cell::Text("12"))], &[(1, 1)]),
        (&[("country", Cell::Text("elsewhere"))], &[]),
    ];
    for (given, codes) in cases {
        let query = Query::entity("nobody").profile(given);
        let shares = blended(&shop.world, codes);
        for k in [1, 5, 40, 200] {
            let list = engine.recommend(&query, &Filter::default(), k).unwrap();
            assert_eq!(list.source, Source::Popularity);
            let rows: Vec<u32> = list.items.iter().map(|i| i.row).collect();
            assert_eq!(rows, best(&shares, k, |_| true), "{given:?}");
            for i in &list.items {
                assert!((f64::from(i.score) - shares[i.row as usize]).abs() < 1e-6);
                assert_eq!(engine.score(&query, &[&i.id]).unwrap(), [i.score]);
            }
        }
        let few = [item(5), item(6), item(7)];
        let few: Vec<&str> = few.iter().map(String::as_str).collect();
        let list = engine.recommend(&query, &Filter::default().deny(&few), 100).unwrap();
        assert!(list.items.iter().all(|i| !few.contains(&i.id.as_str())) && list.items.len() == 100);
        // What the first step of several took from the list does not stay away from the later ones.
        let steps = engine.steps(&query, &Filter::default(), 150, 3, None).unwrap();
        assert_eq!(steps.iter().map(|l| l.items.len()).collect::<Vec<_>>(), [150; 3]);
    }
}

#[test]
fn a_stored_profile_counts_where_no_event_does() {
    // Entity 2 has no event, the second country, and is 28.
    let mut world = World::new(Make::default());
    world.put_u32("entity.field.0.codes", &[0, 1, 2, 1, 2, 1, 2, 1]);
    world.put_f32("entity.field.1.numbers", &[8], &[9.0, 50.0, 28.0, f32::NAN, 31.0, 30.0, 70.0, 1.0]);
    let shop = Shop::of(world);
    let engine = shop.engine();
    let list = |query: &Query<'_>| engine.recommend(query, &Filter::default(), 40).unwrap().items;
    let own = entity(2);
    let profile = [("country", Cell::Text("fr")), ("age", Cell::Text("28"))];
    assert_eq!(list(&Query::entity(&own)), list(&Query::entity("nobody").profile(&profile)));
    assert_ne!(list(&Query::entity(&own)), list(&Query::entity("nobody")));
    let other = [("country", Cell::Text("nl"))];
    let mixed = [("country", Cell::Text("nl")), ("age", Cell::Text("28"))];
    assert_eq!(list(&Query::entity(&own).profile(&other)), list(&Query::items(&[]).profile(&mixed)));
    // Whoever has events is answered by the model, whatever the profile says.
    let known = entity(3);
    let events = Query::entity(&known);
    assert_eq!(list(&events.profile(&profile)), list(&events));
    let refused = |profile: &[FieldValue<'_>]| {
        engine.recommend(&Query::entity(&known).profile(profile), &Filter::default(), 3).unwrap_err().kind()
    };
    assert_eq!(refused(&[("shoe size", Cell::Text("44"))]), ErrorKind::InvalidArgument);
    assert_eq!(refused(&[("age", Cell::Text("old"))]), ErrorKind::InvalidArgument);
}
