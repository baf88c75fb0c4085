//! Rows become datasets, datasets become questions.
use docent::data::*;
use docent::options::Seen;
use docent::schema::{FieldKind, Timing};
use docent::{Cell, ErrorKind, Event};
use proptest::prelude::*;

/// `(entity, item, time)` rows under `filter`.
fn build(rows: &[(&str, &str, i64)], filter: EventFilter) -> docent::Result<Dataset> {
    let options = BuildOptions { filter, ..BuildOptions::default() };
    let mut builder = DatasetBuilder::new(Declaration::new("t").with_time(), options)?;
    for &(entity, item, time) in rows {
        builder.push_event(&EventRow::new(entity, Event { time: Some(time), ..Event::item(item) }))?;
    }
    builder.build()
}

fn history<'a>(data: &'a Dataset, entity: &str) -> Vec<&'a str> {
    let row = data.entities.row(entity).unwrap();
    data.history(row).iter().map(|&i| data.items.id(i)).collect()
}

#[test]
fn events_are_sorted_by_entity_then_time_then_input() {
    let data =
        build(&[("b", "x", 5), ("a", "y", 9), ("b", "z", 5), ("b", "w", 1), ("a", "x", 2)], EventFilter::default());
    let data = data.unwrap();
    assert_eq!(data.entities.names(), ["b", "a"]);
    assert_eq!(data.items.names(), ["x", "y", "z", "w"]);
    assert_eq!(history(&data, "b"), ["w", "x", "z"]);
    assert_eq!(history(&data, "a"), ["x", "y"]);
    assert_eq!(data.events.time, [1, 5, 5, 2, 9]);
    assert_eq!(data.hash, data.content_hash());
}

#[test]
fn times_outside_the_years_0_to_9999_are_refused_and_leave_no_trace() {
    let declaration = Declaration { released: true, ..Declaration::new("t").with_time() };
    let mut builder = DatasetBuilder::new(declaration, BuildOptions::default()).unwrap();
    for time in [1_702_387_414_000_000, 253_402_300_800_000, -62_167_219_200_001, i64::MIN] {
        let event = EventRow::new("u", Event { time: Some(time), ..Event::item("a") });
        let item = ItemRow { id: "a", released: Some(time), ..ItemRow::default() };
        for error in [builder.push_event(&event).unwrap_err(), builder.push_item(&item).unwrap_err()] {
            let told = error.message().contains(&time.to_string()) && error.message().contains("Unix milliseconds");
            assert!(error.kind() == ErrorKind::InvalidData && told, "{error}");
        }
    }
    for (item, time) in [("b", 253_402_300_799_999), ("a", -62_167_219_200_000)] {
        builder.push_event(&EventRow::new("u", Event { time: Some(time), ..Event::item(item) })).unwrap();
    }
    let data = builder.build().unwrap();
    assert_eq!((history(&data, "u"), data.items.len()), (vec!["a", "b"], 2));
}

#[test]
fn order_sorts_without_time_and_breaks_its_ties() {
    for time in [None, Some(7)] {
        let declaration = Declaration { order: true, time: time.is_some(), ..Declaration::new("t") };
        let mut builder = DatasetBuilder::new(declaration, BuildOptions::default()).unwrap();
        for (item, order) in [("third", 3.5), ("first", -1.0), ("second", 3.0)] {
            let event = Event { time, ..Event::item(item) };
            builder.push_event(&EventRow { order: Some(order), ..EventRow::new("u", event) }).unwrap();
        }
        assert_eq!(history(&builder.build().unwrap(), "u"), ["first", "second", "third"]);
    }
}

#[test]
fn duplicates_follow_the_policy() {
    let rows = [("u", "a", 3), ("u", "b", 2), ("u", "a", 1), ("v", "a", 1)];
    let with = |duplicates| build(&rows, EventFilter { duplicates, ..EventFilter::default() });
    assert_eq!(history(&with(Duplicates::KeepAll).unwrap(), "u"), ["a", "b", "a"]);
    assert_eq!(history(&with(Duplicates::KeepFirst).unwrap(), "u"), ["a", "b"]);
    assert_eq!(history(&with(Duplicates::KeepLast).unwrap(), "u"), ["b", "a"]);
    let error = with(Duplicates::Error).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(error.message().contains("`u`") && error.message().contains("`a`"), "{error}");
}

#[test]
fn minimum_counts_apply_once_or_until_nothing_changes() {
    // Item c has one event; without it entity w has one, without w item b has one.
    let rows =
        [("u", "a", 1), ("v", "a", 1), ("u", "a", 2), ("v", "a", 2), ("w", "b", 1), ("w", "c", 2), ("u", "b", 3)];
    let filter = EventFilter { min_item_events: 2, min_entity_events: 2, ..EventFilter::default() };
    let once = build(&rows, filter).unwrap();
    assert_eq!((once.events.len(), history(&once, "w")), (6, vec!["b"]));
    let iterated = build(&rows, EventFilter { iterate: true, ..filter }).unwrap();
    assert_eq!((iterated.events.len(), iterated.items.names()), (4, &["a".to_owned()][..]));
    let nothing = build(&rows, EventFilter { min_item_events: 9, ..filter }).unwrap_err();
    assert!(nothing.kind() == ErrorKind::InvalidData && nothing.message().contains("filters drop every event"));
}

#[test]
fn a_time_range_takes_its_start_and_leaves_its_end() {
    let rows = [("u", "a", 1), ("u", "b", 2), ("u", "c", 3)];
    let data = build(&rows, EventFilter { from: Some(2), to: Some(3), ..EventFilter::default() }).unwrap();
    assert_eq!(history(&data, "u"), ["b"]);
    let error = build(&rows, EventFilter { from: Some(3), to: Some(2), ..EventFilter::default() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}

fn with_items(keep_unused_items: bool) -> Dataset {
    let declaration = Declaration {
        title: true,
        released: true,
        action: true,
        value: true,
        label: true,
        event_fields: vec![
            ("device".into(), Kind::Categorical, Timing::Request),
            ("seconds".into(), Kind::Numeric, Timing::PostAction),
        ],
        item_fields: vec![("tags".into(), Kind::MultiValued), ("pixels".into(), Kind::Vector(2))],
        entity_fields: vec![("plan".into(), Kind::Categorical)],
        ..Declaration::new("t")
    };
    let filter = EventFilter { keep_unused_items, ..EventFilter::default() };
    let mut builder = DatasetBuilder::new(declaration, BuildOptions { filter, ..BuildOptions::default() }).unwrap();
    let event = |entity, item, action, fields| {
        EventRow::new(entity, Event { action: Some(action), value: Some(2.0), fields, ..Event::item(item) })
    };
    let fields = [("device", Cell::Text("tv")), ("seconds", Cell::Number(30.0))];
    builder.push_event(&event("u", "late", "view", &fields)).unwrap();
    builder.push_event(&event("u", "two", "like", &[])).unwrap();
    builder.push_event(&event("v", "one", "view", &[("seconds", Cell::Missing)])).unwrap();
    for (id, released) in [("unused", None), ("one", Some(5)), ("two", None)] {
        let fields = [("tags", Cell::Texts(&["x", id])), ("pixels", Cell::Vector(&[1.0, 2.0]))];
        builder.push_item(&ItemRow { id, title: Some(&id.to_uppercase()), released, fields: &fields }).unwrap();
    }
    builder.push_entity("v", &[("plan", Cell::Text("paid"))]).unwrap();
    builder.push_entity("stranger", &[]).unwrap();
    builder.build().unwrap()
}

#[test]
fn described_items_come_first_and_unused_ones_go() {
    let data = with_items(false);
    assert_eq!(data.items.names(), ["one", "two", "late"]);
    assert_eq!(data.titles, ["ONE", "TWO", ""]);
    assert_eq!(data.released, [5, i64::MIN, i64::MIN]);
    assert_eq!(data.schema.actions, ["view", "like"]);
    assert_eq!(data.events.action, [0, 1, 0]);
    assert_eq!(data.entities.names(), ["u", "v"]);
    assert_eq!(data.entity_columns, [Column::Codes(vec![0, 1])]);
    assert_eq!(data.events.fields[0], Column::Codes(vec![1, 0, 0]));
    assert!(matches!(&data.events.fields[1], Column::Numbers(x) if x[0] == 30.0 && x[1].is_nan() && x[2].is_nan()));
    assert!(data.events.label.iter().all(|l| l.is_nan()) && data.events.label.len() == 3);
    let tags = FieldKind::MultiValued(vec!["x".into(), "one".into(), "two".into()]);
    assert_eq!(data.schema.item_fields[0].kind, tags);
    assert_eq!(data.item_columns[0], Column::Lists { offsets: vec![0, 2, 4, 4], codes: vec![1, 2, 1, 3] });
    assert_eq!(data.item_columns[1], Column::Vectors { dim: 2, values: vec![1.0, 2.0, 1.0, 2.0, 0.0, 0.0] });
    assert_eq!(data.fields_with(Timing::PostAction), [1]);

    let all = with_items(true);
    assert_eq!(all.items.names(), ["unused", "one", "two", "late"]);
    assert_ne!(all.hash, data.hash);
}

#[test]
fn a_refused_row_leaves_no_trace() {
    let mut builder = DatasetBuilder::new(Declaration::new("t").with_time(), BuildOptions::default()).unwrap();
    let event = Event { time: Some(1), ..Event::item("a") };
    let good = EventRow::new("u", event);
    builder.push_event(&good).unwrap();
    let bad = [
        EventRow { entity: "", ..good },
        EventRow { event: Event { item: "", ..event }, ..good },
        EventRow { event: Event { time: None, ..event }, ..good },
        EventRow { event: Event { action: Some("like"), ..event }, ..good },
        EventRow { event: Event { value: Some(1.0), ..event }, ..good },
        EventRow { event: Event { fields: &[("device", Cell::Missing)], ..event }, ..good },
        EventRow { order: Some(1.0), ..good },
        EventRow { label: Some(f32::INFINITY), ..good },
    ];
    for row in bad {
        assert_eq!(builder.push_event(&row).unwrap_err().kind(), ErrorKind::InvalidData);
    }
    builder.push_item(&ItemRow { id: "a", ..ItemRow::default() }).unwrap();
    let twice = builder.push_item(&ItemRow { id: "a", ..ItemRow::default() }).unwrap_err();
    assert!(twice.message().contains("`a`"), "{twice}");
    assert!(builder.push_item(&ItemRow { id: "b", title: Some("B"), ..ItemRow::default() }).is_err());
    assert!(builder.push_entity("", &[]).is_err());
    let data = builder.build().unwrap();
    assert_eq!((data.events.len(), data.items.len(), data.entities.len()), (1, 1, 1));
}

#[test]
fn fields_go_by_name_in_any_order() {
    let names = ["a", "b", "c"];
    let declaration = Declaration {
        event_fields: names.map(|name| (name.to_owned(), Kind::Numeric, Timing::Request)).to_vec(),
        ..Declaration::new("t")
    };
    let mut builder = DatasetBuilder::new(declaration, BuildOptions::default()).unwrap();
    let mut push = |fields: &[(&str, f32)]| {
        let fields: Vec<_> = fields.iter().map(|(name, x)| (*name, Cell::Number(*x))).collect();
        builder.push_event(&EventRow::new("u", Event { fields: &fields, ..Event::item("x") }))
    };
    for fields in [
        &[("a", 1.0), ("b", 2.0), ("c", 3.0)][..],
        &[("c", 3.0), ("a", 1.0), ("b", 2.0)],
        &[("c", 3.0)],
        &[("b", 2.0), ("a", 1.0)],
        &[],
    ] {
        push(fields).unwrap();
    }
    for (fields, words) in [
        (&[("a", 1.0), ("d", 2.0)][..], ["`d`", "`a`, `b`, `c`"]),
        (&[("b", 1.0), ("a", 2.0), ("b", 3.0)], ["`b`", "twice"]),
        (&[("a", 1.0), ("a", 2.0)], ["`a`", "twice"]),
    ] {
        let error = push(fields).unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidData && words.iter().all(|w| error.message().contains(w)), "{error}");
    }
    let data = builder.build().unwrap();
    let rows = data.events.fields.iter().map(|column| match column {
        Column::Numbers(x) => x.iter().map(|x| if x.is_nan() { 0.0 } else { *x }).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    });
    let expected = [[1.0, 1.0, 0.0, 1.0, 0.0], [2.0, 2.0, 0.0, 2.0, 0.0], [3.0, 3.0, 3.0, 0.0, 0.0]];
    assert_eq!(rows.collect::<Vec<_>>(), expected);
}

#[test]
fn kinds_and_duplicates_are_read_as_they_are_written() {
    for kind in [Kind::Categorical, Kind::MultiValued, Kind::Numeric, Kind::Vector(64)] {
        assert_eq!(kind.to_string().parse::<Kind>().unwrap(), kind);
    }
    for duplicates in [Duplicates::KeepAll, Duplicates::KeepFirst, Duplicates::KeepLast, Duplicates::Error] {
        assert_eq!(duplicates.to_string().parse::<Duplicates>().unwrap(), duplicates);
    }
    for (error, word) in [
        ("vector".parse::<Kind>().unwrap_err(), "vector:N"),
        ("vector:-1".parse::<Kind>().unwrap_err(), "vector:-1"),
        ("keep".parse::<Duplicates>().unwrap_err(), "keep-first"),
    ] {
        assert!(error.kind() == ErrorKind::InvalidConfig && error.message().contains(word), "{error}");
    }
}

#[test]
fn contradicting_declarations_are_refused() {
    let event = |name: &str, kind| (name.to_owned(), kind, Timing::Request);
    for declaration in [
        Declaration { event_fields: vec![event("x", Kind::MultiValued)], ..Declaration::new("t") },
        Declaration { event_fields: vec![event("x", Kind::Numeric); 2], ..Declaration::new("t") },
        Declaration { item_fields: vec![("v".into(), Kind::Vector(0))], ..Declaration::new("t") },
        Declaration { entity_fields: vec![(String::new(), Kind::Numeric)], ..Declaration::new("t") },
    ] {
        let error = DatasetBuilder::new(declaration, BuildOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    }
    let filter = EventFilter { from: Some(1), ..EventFilter::default() };
    let options = BuildOptions { filter, ..BuildOptions::default() };
    assert!(DatasetBuilder::new(Declaration::new("t"), options).is_err());
}

#[test]
fn check_finds_every_broken_column() {
    let good = with_items(false);
    good.check().unwrap();
    type Break = fn(&mut Dataset);
    let breaks: [(&str, Break); 12] = [
        ("events.offsets", |d| d.events.offsets[1] = 99),
        ("events.offsets", |d| d.events.offsets.truncate(2)),
        ("events.item", |d| d.events.item[0] = 3),
        ("events.time", |d| d.events.time = vec![1, 2, 3]),
        ("events.action", |d| d.events.action[2] = 2),
        ("events.value", |d| d.events.value[1] = f32::INFINITY),
        ("events.label", |d| d.events.label.clear()),
        ("event field `device`", |d| d.events.fields[0] = Column::Codes(vec![2, 0, 0])),
        ("titles", |d| d.titles.push(String::new())),
        ("item field `tags`", |d| d.item_columns[0] = Column::Lists { offsets: vec![0, 1, 1, 1], codes: vec![0] }),
        ("item field `pixels`", |d| d.item_columns[1] = Column::Vectors { dim: 2, values: vec![f32::NAN; 6] }),
        ("entity_columns", |d| d.entity_columns.clear()),
    ];
    for (what, broken) in breaks {
        let mut data = good.clone();
        broken(&mut data);
        let error = data.check().unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidData && error.message().contains(what), "{what}: {error}");
    }
    let mut backwards = build(&[("u", "a", 1), ("u", "b", 2)], EventFilter::default()).unwrap();
    backwards.events.time.reverse();
    assert!(backwards.check().unwrap_err().message().contains("`u`"));
}

// ---- splits

/// Entities with 1, 2, ... events on few items, times interleaved.
fn ladder(entities: usize) -> Dataset {
    let mut rows = Vec::new();
    let names: Vec<String> = (0..entities).map(|u| format!("u{u}")).collect();
    let items: Vec<String> = (0..20).map(|i| format!("i{i}")).collect();
    for (u, name) in names.iter().enumerate() {
        for k in 0..=u {
            rows.push((name.as_str(), items[(u * 7 + k * 3) % 20].as_str(), (k * 100 + u) as i64));
        }
    }
    build(&rows, EventFilter::default()).unwrap()
}

/// What holds under every protocol: histories end before their target, nothing tested or validated is trained on.
fn sound(data: &Dataset, split: &Split) {
    assert_eq!(split.train.len(), data.entities.len());
    for case in split.validation.iter().chain(&split.test) {
        let range = data.range(case.entity);
        assert!(!case.history.is_empty() && case.history.start == range.start, "{case:?}");
        assert!(case.history.end == case.target && range.contains(&case.target), "{case:?}");
        let trained = split.train[case.entity as usize].contains(&case.target);
        assert!(!trained || split.is_hidden(data.events.item[case.target]), "{case:?}");
    }
}

#[test]
fn leave_one_and_two_out_take_the_last_events() {
    let data = ladder(6);
    let one = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    sound(&data, &one);
    assert_eq!((one.test.len(), one.validation.len()), (4, 4));
    assert_eq!(one.train.iter().map(|r| r.len()).collect::<Vec<_>>(), [1, 2, 1, 2, 3, 4]);
    assert!(one.test.iter().all(|c| c.target + 1 == data.range(c.entity).end && c.history.len() >= 2));

    let two = Split::new(&data, &Protocol::LeaveTwoOut).unwrap();
    sound(&data, &two);
    assert_eq!((two.test.len(), two.validation.len()), (6, 3));
    assert_eq!(two.train.iter().map(|r| r.len()).collect::<Vec<_>>(), [1, 2, 3, 1, 2, 3]);
    assert_ne!(one.target_hash, two.target_hash);
}

#[test]
fn questions_that_go_on_with_a_run_can_be_left_out() {
    let mut builder = DatasetBuilder::new(
        Declaration {
            time: true,
            event_fields: vec![("device".into(), Kind::Categorical, Timing::Request)],
            ..Declaration::new("runs")
        },
        BuildOptions::default(),
    )
    .unwrap();
    // The last event goes on with the one before (a), comes from another device (b), too late (c), on another item (d).
    for (entity, item, device, seconds) in
        [("a", "x", "phone", 60), ("b", "x", "desk", 60), ("c", "x", "phone", 61), ("d", "y", "phone", 60)]
    {
        for (item, device, time) in
            [("w", "phone", 0), ("v", "phone", 500), ("x", "phone", 1000), (item, device, 1000 + seconds)]
        {
            let fields = [("device", Cell::Text(device))];
            let event = Event { time: Some(time * 1000), fields: &fields, ..Event::item(item) };
            builder.push_event(&EventRow::new(entity, event)).unwrap();
        }
    }
    let data = builder.build().unwrap();
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    let asked = |text: &str| {
        let asked = split.clone().only(&data, &Questions::parse(text).unwrap()).unwrap();
        sound(&data, &asked);
        assert_eq!(asked.train, split.train);
        (asked.test.iter().map(|c| data.entities.id(c.entity).to_owned()).collect::<String>(), asked)
    };
    let (whose, all) = asked("all");
    assert_eq!((whose.as_str(), all.target_hash, all.describe()), ("abcd", split.target_hash, split.describe()));
    let (whose, device) = asked("token-starts:max_gap=60,surface=device");
    assert_eq!(whose, "bcd");
    assert_eq!(device.describe(), "leave-one-out token-starts:max_gap=60,surface=device");
    assert_ne!(device.target_hash, split.target_hash);
    assert_eq!(asked("token-starts:max_gap=60").0, "cd");
    assert_eq!(asked("token-starts:max_gap=61").0, "d");
    let unknown = split.clone().only(&data, &Questions::parse("token-starts:surface=app").unwrap()).unwrap_err();
    assert!(unknown.kind() == ErrorKind::InvalidConfig && unknown.message().contains("app"), "{unknown}");
}

#[test]
fn a_time_split_of_events_at_one_time_says_so() {
    let rows = ["a", "b", "c"].map(|item| EventRow::new("u", Event { time: Some(7), ..Event::item(item) }));
    let mut builder = DatasetBuilder::new(Declaration::new("t").with_time(), BuildOptions::default()).unwrap();
    rows.iter().for_each(|row| builder.push_event(row).unwrap());
    let data = builder.build().unwrap();
    for protocol in ["time-split", "stale"] {
        let error = Split::new(&data, &protocol.parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.message().contains("all 3 events") && error.message().contains("at one time (7"), "{error}");
    }
}

#[test]
fn a_time_split_never_trains_on_what_came_later() {
    let data = ladder(12);
    let split = Split::new(&data, &Protocol::TimeSplit { test: 0.2, validation: 0.1 }).unwrap();
    sound(&data, &split);
    let time = |event: usize| data.events.time[event];
    let latest_trained = split.train.iter().flat_map(|r| r.clone()).map(time).max().unwrap();
    let validated = || split.validation.iter().map(|c| time(c.target));
    let tested = || split.test.iter().map(|c| time(c.target));
    assert!(latest_trained < validated().min().unwrap() && validated().max() < tested().min());
    // Every late event of an entity with an earlier one is asked for.
    let (from, first) = (tested().min().unwrap(), |u: u32| data.range(u).start);
    let late =
        (0..12).flat_map(|u| data.range(u).map(move |e| (u, e))).filter(|&(u, e)| time(e) >= from && e > first(u));
    assert_eq!(late.count(), split.test.len());

    let timeless = {
        let mut builder = DatasetBuilder::new(Declaration::new("t"), BuildOptions::default()).unwrap();
        builder.push_event(&EventRow::new("u", Event::item("a"))).unwrap();
        builder.build().unwrap()
    };
    let error = Split::new(&timeless, &split.protocol).unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidData && error.message().contains("leave-one-out"), "{error}");
}

#[test]
fn cold_items_are_never_trained_on_and_are_all_that_tests() {
    let data = ladder(15);
    let split = Split::new(&data, &Protocol::ColdItems { share: 0.25, seed: 3 }).unwrap();
    sound(&data, &split);
    assert_eq!(split.hidden.iter().filter(|h| **h).count(), 5);
    assert!(split.test.iter().all(|c| split.is_hidden(data.events.item[c.target])));
    assert!(split.validation.iter().all(|c| !split.is_hidden(data.events.item[c.target])));
    let visible_before = |c: &Case| c.history.clone().any(|e| !split.is_hidden(data.events.item[e]));
    assert!(split.test.iter().all(visible_before) && !split.test.is_empty());
    let other = Split::new(&data, &Protocol::ColdItems { share: 0.25, seed: 4 }).unwrap();
    assert_ne!(split.hidden, other.hidden);
}

#[test]
fn cold_entities_train_nothing() {
    let data = ladder(20);
    let split = Split::new(&data, &Protocol::ColdEntities { share: 0.5, seed: 1 }).unwrap();
    sound(&data, &split);
    let hidden = (0..20).filter(|&u| split.train[u as usize].is_empty()).count();
    assert_eq!(hidden, 10);
    assert!(split.test.iter().all(|c| split.train[c.entity as usize].is_empty()));
    assert!(split.validation.iter().all(|c| !split.train[c.entity as usize].is_empty()));
}

#[test]
fn labels_are_tested_from_the_end_of_what_is_trained_on() {
    let mut data = ladder(20);
    let refused = Split::new(&data, &Protocol::parse("ctr").unwrap()).unwrap_err();
    assert!(refused.kind() == ErrorKind::InvalidData && refused.message().contains("label"), "{refused}");
    // Every third event has no label.
    data.events.label = (0..data.events.len()).map(|i| if i % 3 == 0 { f32::NAN } else { 1.0 }).collect();
    let split = Split::new(&data, &Protocol::Ctr { test: 0.4, share: 0.25, seed: 2 }).unwrap();
    let hidden: Vec<u32> = (0..20).filter(|&u| split.train[u as usize].is_empty() && data.range(u).len() > 2).collect();
    assert!(!hidden.is_empty() && split.test.iter().any(|c| hidden.contains(&c.entity)));
    for u in 0..20u32 {
        let own: Vec<_> = split.test.iter().filter(|c| c.entity == u).collect();
        let labelled: Vec<usize> = data.range(u).filter(|&i| !data.events.label[i].is_nan()).collect();
        let tests = ((0.4 * labelled.len() as f64).round() as usize).min(labelled.len().saturating_sub(1));
        let targets: Vec<usize> = own.iter().map(|c| c.target).collect();
        assert_eq!(targets, labelled[labelled.len() - tests..]);
        assert!(own.iter().all(|c| c.history == (data.range(u).start..targets[0])));
        assert!(own.iter().all(|c| split.train[u as usize].end <= c.history.end));
    }
    assert!(split.validation.iter().all(|c| !hidden.contains(&c.entity)));
    let all = Split::new(&data, &Protocol::Ctr { test: 0.4, share: 0.0, seed: 2 }).unwrap();
    assert_eq!(all.test, split.test);
}

#[test]
fn everything_trains_on_all_and_samples_its_validation() {
    let rows: Vec<(String, i64)> = (0..4_002).map(|t| (format!("u{}", t / 2), t)).collect();
    let rows: Vec<(&str, &str, i64)> =
        rows.iter().map(|(u, t)| (u.as_str(), if t % 2 == 0 { "a" } else { "b" }, *t)).collect();
    let data = build(&rows, EventFilter::default()).unwrap();
    let split = Split::new(&data, &Protocol::Everything).unwrap();
    assert_eq!(split.validation.len(), 2_000);
    assert!(split.test.is_empty());
    assert_eq!(split.train.iter().map(|r| r.len()).sum::<usize>(), data.events.len());
}

#[test]
fn a_split_without_a_question_or_anything_to_train_on_is_refused() {
    let data = ladder(2);
    for protocol in [Protocol::LeaveOneOut, Protocol::LeaveTwoOut] {
        let error = Split::new(&data, &protocol).unwrap_err();
        assert!(error.kind() == ErrorKind::InvalidData && error.message().contains("everything"), "{error}");
    }
    for protocol in [
        Protocol::TimeSplit { test: 0.0, validation: 0.1 },
        Protocol::TimeSplit { test: 0.6, validation: 0.4 },
        Protocol::ColdItems { share: f64::NAN, seed: 0 },
        Protocol::ColdEntities { share: 1.0, seed: 0 },
    ] {
        assert_eq!(Split::new(&data, &protocol).unwrap_err().kind(), ErrorKind::InvalidConfig);
    }
}

#[test]
fn protocols_read_what_they_write() {
    for text in [
        "everything",
        "leave-one-out",
        "leave-two-out",
        "time-split:test=0.3,validation=0",
        "cold-items:share=0.1,seed=1",
        "cold-entities:share=0.25,seed=18446744073709551615",
        "ctr:test=0.2,share=0,seed=1",
    ] {
        assert_eq!(Protocol::parse(text).unwrap().to_string(), text);
    }
    assert_eq!("time-split".parse::<Protocol>().unwrap(), Protocol::TimeSplit { test: 0.2, validation: 0.1 });
    for text in
        ["", "leave-three-out", "leave-one-out:seed=1", "time-split:test=2", "cold-items:share", "cold-items:seed=-1"]
    {
        assert_eq!(Protocol::parse(text).unwrap_err().kind(), ErrorKind::InvalidConfig, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With distinct times, the order of the input changes neither histories, nor vocabularies, nor the questions.
    #[test]
    fn the_order_of_the_input_changes_nothing_that_has_a_time(
        (rows, shuffled) in prop::collection::vec((0..6u8, 0..9u8), 1..80)
            .prop_map(|pairs| pairs.into_iter().enumerate().map(|(t, (u, i))| (u, i, t as i64)).collect::<Vec<_>>())
            .prop_flat_map(|rows| (Just(rows.clone()), Just(rows).prop_shuffle())),
        duplicates in prop::sample::select(vec![Duplicates::KeepAll, Duplicates::KeepFirst, Duplicates::KeepLast]),
        minimum in 0..3u64,
    ) {
        let filter = EventFilter { duplicates, min_item_events: minimum, iterate: true, ..EventFilter::default() };
        let build = |rows: &[(u8, u8, i64)]| {
            let named: Vec<_> = rows.iter().map(|(u, i, t)| (format!("u{u}"), format!("i{i}"), *t)).collect();
            build(&named.iter().map(|(u, i, t)| (u.as_str(), i.as_str(), *t)).collect::<Vec<_>>(), filter)
        };
        match (build(&rows), build(&shuffled)) {
            (Ok(a), Ok(b)) => {
                prop_assert_eq!(a.entities.len(), b.entities.len());
                for id in a.entities.names() {
                    prop_assert_eq!(history(&a, id), history(&b, id));
                }
                let questions = |data: &Dataset| {
                    let split = Split::new(data, &Protocol::ColdEntities { share: 0.3, seed: 9 }).ok()?;
                    let mut all: Vec<(String, usize)> = split.test.iter()
                        .map(|c| (data.entities.id(c.entity).to_owned(), c.history.len())).collect();
                    all.sort();
                    Some(all)
                };
                prop_assert_eq!(questions(&a), questions(&b));
            }
            (a, b) => prop_assert!(a.is_err() && b.is_err()),
        }
    }
}

/// People with these items, events ten seconds apart and each `|` an hour.
fn come_back(people: &[&str]) -> Dataset {
    let mut builder = DatasetBuilder::new(Declaration::new("toy").with_time(), BuildOptions::default()).unwrap();
    for (u, items) in people.iter().enumerate() {
        let mut time = 0;
        for item in items.chars() {
            time += if item == '|' { 3_600_000 } else { 10_000 };
            if item != '|' {
                let item = item.to_string();
                let event = Event { time: Some(time), ..Event::item(&item) };
                builder.push_event(&EventRow::new(&format!("u{u}"), event)).unwrap();
            }
        }
    }
    builder.build().unwrap()
}

#[test]
fn the_share_of_repeats_is_that_of_the_training_part() {
    // Trained on: "abca", "de", "f": one repeat in seven. What is held out repeats, and counts nothing.
    let data = come_back(&["abcaaa", "dedd", "fff"]);
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    assert_eq!((split.repeated, split.seen), (1.0 / 7.0, Seen::Allowed));
    assert!(split.test.iter().all(|case| case.is_repeat(&data) && split.asks(&data, case)));
    let excluded = Split { seen: Seen::Excluded, ..split };
    assert!(excluded.test.iter().all(|case| !excluded.asks(&data, case)));
}

#[test]
fn few_repeats_are_no_habit() {
    // Ten events, one of them a repeat: not above the threshold.
    let data = come_back(&["abcdefghiaxy"]);
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    assert_eq!((split.repeated, split.seen), (0.1, Seen::Excluded));
    assert!(split.test.iter().all(|case| split.asks(&data, case)));
}

#[test]
fn going_on_with_a_run_is_no_repeat() {
    let data = come_back(&["aaabbbccc|dxy", "aa|bb|aa|ccxy"]);
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    assert_eq!((split.repeated, split.seen), (11.0 / 18.0, Seen::Allowed));
    // Eight runs, of which one comes back.
    let starts = Questions::TokenStarts { max_gap: 60, surface: String::new() };
    let split = split.only(&data, &starts).unwrap();
    assert_eq!((split.repeated, split.seen), (1.0 / 8.0, Seen::Allowed));
}
