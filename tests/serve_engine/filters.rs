use crate::world::{DAY, Shop, best, entity, item, scores};
use docent::ErrorKind;
use docent::options::Seen;
use docent::serve::{Condition, Filter, Query, Source};

/// The list under a filter, and the truth, for somebody known, for somebody new, and for likeness.
fn check(shop: &Shop, filter: Filter<'_>, admits: impl Fn(u32) -> bool) {
    let engine = shop.engine();
    let id = entity(5);
    let seen = shop.world.seen(5);
    for k in [3, 40] {
        let list = engine.recommend(&Query::entity(&id), &filter, k).unwrap();
        let all = scores(&shop.world, &engine.user_embedding(&Query::entity(&id)).unwrap());
        let expected = best(&all, k, |row| admits(row) && !(filter.seen != Some(Seen::Allowed) && seen.contains(&row)));
        assert_eq!(list.items.iter().map(|i| i.row).collect::<Vec<_>>(), expected, "{filter:?}");
        let popular = engine.recommend(&Query::entity("nobody"), &filter, k).unwrap();
        let mut expected: Vec<u32> = shop.world.u32s("item.popular").into_iter().filter(|row| admits(*row)).collect();
        expected.truncate(k);
        assert_eq!(popular.items.iter().map(|i| i.row).collect::<Vec<_>>(), expected, "{filter:?}");
        assert_eq!(popular.source, Source::Popularity);
        let like = engine.similar(&item(11), &filter, k).unwrap();
        let passing = (0..40).filter(|row| admits(*row) && *row != 11).count();
        assert_eq!(like.items.len(), passing.min(k));
        assert!(like.items.iter().all(|i| admits(i.row) && i.row != 11));
    }
}

#[test]
fn lists_of_ids() {
    let shop = Shop::new();
    let ids: Vec<String> = (0..40).map(item).collect();
    let some = [ids[3].as_str(), &ids[30], &ids[9], &ids[3], &ids[17]];
    check(&shop, Filter::default(), |_| true);
    check(&shop, Filter::everything(), |_| true);
    check(&shop, Filter::default().deny(&some), |row| ![3, 30, 9, 17].contains(&row));
    check(&shop, Filter::everything().allow(&some), |row| [3, 30, 9, 17].contains(&row));
    check(&shop, Filter::default().allow(&some).deny(&[&ids[9]]), |row| [3, 30, 17].contains(&row));
    check(&shop, Filter::default().allow(&[]), |_| false);
}

#[test]
fn scores_under_an_allow_list_are_the_same_to_the_bit() {
    let shop = Shop::new();
    let engine = shop.engine();
    let ids: Vec<String> = (0..40).map(item).collect();
    let all: Vec<&str> = ids.iter().map(String::as_str).collect();
    let id = entity(1);
    let free = engine.recommend(&Query::entity(&id), &Filter::default(), 40).unwrap();
    let allowed = engine.recommend(&Query::entity(&id), &Filter::default().allow(&all), 40).unwrap();
    assert_eq!(free, allowed);
}

#[test]
fn conditions_on_metadata() {
    let shop = Shop::new();
    fn f<'a>(conditions: &'a [Condition<'a>]) -> Filter<'a> {
        Filter::default().under(conditions)
    }
    let film = Condition::AnyOf { field: "kind", values: &["film"] };
    let not_film = Condition::NoneOf { field: "kind", values: &["film"] };
    let war_or_art = Condition::AnyOf { field: "genre", values: &["art", "war"] };
    let no_fun = Condition::NoneOf { field: "genre", values: &["fun"] };
    let cheap = Condition::Between { field: "price", least: None, most: Some(20.0) };
    let mid = Condition::Between { field: "price", least: Some(8.0), most: Some(20.0) };
    let recent = Condition::Released { from: Some(10 * DAY), until: None };
    let between = Condition::Released { from: Some(10 * DAY), until: Some(12 * DAY) };
    let genre = |row: u32, g: u32| (row / g) % 2 == 1;
    check(&shop, f(&[film]), |row| row % 3 == 1);
    check(&shop, f(&[not_film]), |row| row % 3 != 1);
    check(&shop, f(&[war_or_art]), |row| genre(row, 1) || genre(row, 2));
    check(&shop, f(&[no_fun]), |row| !genre(row, 3));
    check(&shop, f(&[cheap]), |row| row <= 20 && row % 7 != 3);
    check(&shop, f(&[mid]), |row| (8..=20).contains(&row) && row % 7 != 3);
    check(&shop, f(&[recent]), |row| row >= 10 && row % 6 != 5);
    check(&shop, f(&[between]), |row| row == 10);
    check(&shop, f(&[film, no_fun, recent]), |row| row % 3 == 1 && !genre(row, 3) && row >= 10 && row % 6 != 5);
    check(&shop, f(&[film, not_film]), |_| false);
    let no_bounds = Condition::Released { from: None, until: None };
    check(&shop, f(&[no_bounds]), |row| row % 6 != 5);
}

#[test]
fn filters_that_cannot_be_meant_are_refused() {
    let shop = Shop::new();
    let engine = shop.engine();
    let id = entity(5);
    let kind = |filter: Filter<'_>| {
        let known = engine.recommend(&Query::entity(&id), &filter, 3).unwrap_err();
        let new = engine.recommend(&Query::entity("nobody"), &filter, 3).unwrap_err();
        assert_eq!(known.kind(), new.kind());
        known.kind()
    };
    assert_eq!(kind(Filter::default().allow(&["no such item"])), ErrorKind::UnknownItem);
    for condition in [
        Condition::AnyOf { field: "colour", values: &["red"] },
        Condition::AnyOf { field: "kind", values: &["flim"] },
        Condition::AnyOf { field: "price", values: &["3"] },
        Condition::AnyOf { field: "look", values: &["3"] },
        Condition::Between { field: "kind", least: None, most: None },
        Condition::Between { field: "price", least: Some(2.0), most: Some(1.0) },
        Condition::Between { field: "price", least: Some(f32::NAN), most: None },
        Condition::Released { from: Some(5), until: Some(5) },
    ] {
        assert_eq!(kind(Filter::default().under(&[condition])), ErrorKind::InvalidArgument, "{condition:?}");
    }
}

#[test]
fn unknown_names_in_filters_can_be_skipped() {
    let shop = Shop::new();
    let nine = item(9);
    let misspelt = [Condition::AnyOf { field: "kind", values: &["flim", "film"] }];
    check(&shop, Filter::default().allow(&["no such item", &nine]).skip_unknown(), |row| row == 9);
    check(&shop, Filter::default().deny(&["no such item", &nine]), |row| row != 9);
    check(&shop, Filter::default().under(&misspelt).skip_unknown(), |row| row % 3 == 1);
}
