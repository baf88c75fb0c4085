//! Evaluation: what baselines learn, how questions are judged, and what reports say.

use docent::data::{Case, Dataset, DatasetBuilder, Declaration, EventRow, Protocol, Split, SyntheticOptions, World};
use docent::evaluate::{
    CountedEvents, EvaluateOptions, Evaluation, ItemKnn, KnnOptions, Markov, Popularity, RankMetric, RecentPopularity,
    Resampling, Scorer, evaluate,
};
use docent::options::Seen;
use docent::progress::{Cancel, ProgressEvent, Silent};
use docent::{ErrorKind, Event, Result};

/// One string per person: items are letters, in order, a day apart.
fn toy(people: &[&str]) -> Dataset {
    let mut builder = DatasetBuilder::new(Declaration::new("toy").with_time(), Default::default()).unwrap();
    for (u, items) in people.iter().enumerate() {
        for (day, item) in items.chars().enumerate() {
            let time = Some(86_400_000 * day as i64);
            let item = item.to_string();
            let event = Event { time, ..Event::item(&item) };
            builder.push_event(&EventRow::new(&format!("u{u}"), event)).unwrap();
        }
    }
    builder.build().unwrap()
}

fn run(data: &Dataset, split: &Split, scorers: &[&dyn Scorer], threads: usize) -> Result<Evaluation> {
    let options = EvaluateOptions { threads, ..Default::default() };
    evaluate(data, split, scorers, &options, &mut Silent, &Cancel::new())
}

fn order(data: &Dataset, scorer: &dyn Scorer, case: &Case) -> String {
    let mut scores = vec![0.0; data.items.len()];
    scorer.score(data, case, &mut scores).unwrap();
    let mut rows: Vec<u32> = (0..scores.len() as u32).collect();
    rows.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b)));
    rows.iter().map(|r| data.items.id(*r)).collect()
}

/// The test question of the person at `row`.
fn question(split: &Split, row: u32) -> Case {
    split.test.iter().find(|c| c.entity == row).unwrap().clone()
}

#[test]
fn markov_counts_pairs_before_the_test_and_falls_back_to_popularity() {
    // CountedEvents (all but each last item): "abcd", "abac", "dab", "cc", "ccd". a: 4, b: 3, c: 6, d: 3.
    let data = toy(&["abcdb", "abacd", "dabc", "cca", "ccda"]);
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    let markov = Markov::fit(&data, &split, CountedEvents::BeforeTest);
    // After b (person 2): c once, a once; c is more popular. Neither b nor d followed; they tie.
    assert_eq!(order(&data, &markov, &question(&split, 2)), "cabd");
    // After c (person 3): d twice, c twice; c is more popular. Then a before b.
    assert_eq!(order(&data, &markov, &question(&split, 3)), "cdab");
    // Trained without the validation events: "abc", "aba", "da", "c", "cc"; d only follows where "cd" was known.
    let strict = Markov::fit(&data, &split, CountedEvents::Training);
    assert_eq!(order(&data, &strict, &question(&split, 3)), "cabd");
    let popularity = Popularity::fit(&data, &split, CountedEvents::BeforeTest);
    assert_eq!(order(&data, &popularity, &question(&split, 0)), "cabd");
    let nothing = Case { history: 0..0, ..question(&split, 0) };
    assert_eq!(order(&data, &markov, &nothing), "cabd");
}

#[test]
fn test_events_teach_no_baseline_anything() {
    let (a, b) = (toy(&["abcab", "bcaca", "cabbc"]), toy(&["abcac", "bcacb", "cabba"]));
    let split = |d: &Dataset| Split::new(d, &Protocol::LeaveOneOut).unwrap();
    let (sa, sb) = (split(&a), split(&b));
    let fit = |d: &Dataset, s: &Split| -> Vec<Box<dyn Scorer>> {
        vec![
            Box::new(Popularity::fit(d, s, CountedEvents::BeforeTest)),
            Box::new(Markov::fit(d, s, CountedEvents::BeforeTest)),
            Box::new(ItemKnn::fit(d, s, CountedEvents::BeforeTest, &KnnOptions::default(), 1)),
            Box::new(RecentPopularity::fit(d, s, CountedEvents::BeforeTest, 1.0).unwrap()),
        ]
    };
    for (x, y) in fit(&a, &sa).iter().zip(fit(&b, &sb)) {
        for u in 0..3 {
            assert_eq!(order(&a, &**x, &question(&sa, u)), order(&b, &*y, &question(&sb, u)), "{}", x.name());
        }
    }
}

#[test]
fn item_knn_is_the_cosine_of_who_met_both() {
    // CountedEvents: "ab", "abc", "ad", "cd", each person's last item left out. n_a 3, n_b 2, n_c 2, n_d 2.
    let data = toy(&["abd", "abcd", "ada", "cdb"]);
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    let knn = ItemKnn::fit(&data, &split, CountedEvents::BeforeTest, &KnnOptions::default(), 2);
    let case = Case { history: 0..1, ..question(&split, 0) };
    let mut scores = vec![0.0; 4];
    knn.score(&data, &case, &mut scores).unwrap();
    let of = |id: &str| scores[data.items.row(id).unwrap() as usize];
    assert!((of("b") - 2.0 / 6f32.sqrt()).abs() < 1e-5 && (of("c") - 1.0 / 6f32.sqrt()).abs() < 1e-5);
    assert!((of("d") - 1.0 / 6f32.sqrt()).abs() < 1e-5 && of("a") < 1e-5, "{scores:?}");
}

#[test]
fn recent_popularity_forgets() {
    let data = toy(&["aaabbxx", "cacaabxx"]);
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    let slow = RecentPopularity::fit(&data, &split, CountedEvents::Training, 1e9).unwrap();
    let fast = RecentPopularity::fit(&data, &split, CountedEvents::Training, 0.2).unwrap();
    assert_eq!(&order(&data, &slow, &question(&split, 0))[..1], "a");
    assert_eq!(&order(&data, &fast, &question(&split, 0))[..1], "b");
    assert_eq!(
        RecentPopularity::fit(&data, &split, CountedEvents::Training, f64::NAN).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
}

/// Scores by a fixed list.
struct Fixed(&'static str, Vec<f32>);

impl Scorer for Fixed {
    fn name(&self) -> &str {
        self.0
    }
    fn score(&self, _: &Dataset, _: &Case, scores: &mut [f32]) -> Result<()> {
        scores.copy_from_slice(&self.1);
        Ok(())
    }
}

#[test]
fn seen_items_are_left_out_or_compete_by_one_rule() {
    // Rows: a 0, b 1, c 2, d 3, e 4.
    let data = toy(&["abcd", "abe", "baba"]);
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    let fixed = Fixed("fixed", vec![5.0, 4.0, 3.0, 2.0, 2.0]);
    let cuts = |e: &Evaluation| -> Vec<(String, usize)> {
        e.cuts.iter().filter(|c| c.by == "repeat").map(|c| (c.bucket.clone(), c.targets)).collect()
    };
    // Nobody comes back in the training part. d: a, b, c excluded, ties with e -> 1.5; e: a, b excluded, c before it, ties with d ->
    // 2.5; a, which the third person had before, is not asked for.
    let e = run(&data, &split, &[&fixed], 1).unwrap();
    assert_eq!(e.rows[0].ranks, [vec![1.5, 2.5]]);
    assert_eq!((e.targets, e.catalogue), (2, 5));
    assert_eq!((e.seen, e.repeats, e.not_asked), (Seen::Excluded, 1, 1));
    assert!((e.rows[0].metric("mrr").unwrap() - (1.0 / 1.5 + 1.0 / 2.5) / 2.0).abs() < 1e-12);
    assert_eq!(cuts(&e), []);
    assert_eq!(e.rows[0].metric("coverage@10"), Some(0.6));
    assert!(e.table().contains("seen items are excluded: 1 more questions ask for one"), "{}", e.table());
    // Where people do, what they had competes like all else: a, b and c come before d and e.
    let split = Split { seen: Seen::Allowed, ..split };
    let all = run(&data, &split, &[&fixed], 1).unwrap();
    assert_eq!(all.rows[0].ranks, [vec![4.5, 4.5, 1.0]]);
    assert_eq!((all.targets, all.seen, all.repeats, all.not_asked), (3, Seen::Allowed, 1, 0));
    assert_eq!(cuts(&all), [("first-time".to_owned(), 2), ("repeat".to_owned(), 1)]);
    assert_ne!(all.target_hash, e.target_hash);
    assert_eq!(all.rows[0].metric("coverage@10"), Some(1.0));
}

#[test]
fn hidden_items_are_judged_among_themselves_too() {
    let data = World::new(&SyntheticOptions { entities: 60, items: 60, ..Default::default() }, 1).unwrap();
    let data = data.dataset().unwrap();
    let split = Split::new(&data, &Protocol::ColdItems { share: 0.2, seed: 3 }).unwrap();
    let popularity = Popularity::fit(&data, &split, CountedEvents::BeforeTest);
    let oracle = Fixed("oracle", split.hidden.iter().map(|h| f32::from(u8::from(*h))).collect());
    let e = run(&data, &split, &[&popularity, &oracle], 2).unwrap();
    let cut = e.cuts.iter().find(|c| c.by == "candidates").unwrap();
    assert_eq!((cut.bucket.as_str(), cut.targets), ("hidden", e.targets));
    // Hidden items were never counted, so popularity ties all of them, and the full list is worse than the hidden one.
    assert_eq!(cut.rows[0].ranks, cut.rows[1].ranks);
    assert_eq!(cut.rows[1].ranks, e.rows[1].ranks);
    assert!(e.rows[0].ranks[0].iter().zip(&cut.rows[0].ranks[0]).all(|(full, among)| full >= among));
    assert!(e.rows[0].metric("mrr") < e.rows[1].metric("mrr"));
}

#[test]
fn threads_do_not_change_the_result() {
    let world = World::new(&SyntheticOptions { entities: 200, items: 80, ..Default::default() }, 1).unwrap();
    let data = world.dataset().unwrap();
    let split = Split::new(&data, &Protocol::parse("time-split").unwrap()).unwrap();
    let markov = Markov::fit(&data, &split, CountedEvents::BeforeTest);
    let knn = |threads| ItemKnn::fit(&data, &split, CountedEvents::BeforeTest, &KnnOptions::default(), threads);
    let one = run(&data, &split, &[&markov, &knn(1)], 1).unwrap();
    let many = run(&data, &split, &[&markov, &knn(3)], 5).unwrap();
    assert_eq!((&one.rows, &one.differences, &one.cuts), (&many.rows, &many.differences, &many.cuts));
    assert!(one.targets > 500 && one.cuts.iter().any(|c| c.by == "age"));
}

#[test]
fn runs_of_one_method_share_a_row() {
    let data = toy(&["abc", "abd", "bad", "bac"]);
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    let (up, down) = (Fixed("m", vec![0.0, 0.0, 1.0, 0.0]), Fixed("m", vec![0.0, 0.0, 0.0, 1.0]));
    let flat = Fixed("flat", vec![0.0; 4]);
    let e = run(&data, &split, &[&up, &flat, &down], 1).unwrap();
    assert_eq!(e.rows.iter().map(|r| (r.name.as_str(), r.runs.len())).collect::<Vec<_>>(), [("m", 2), ("flat", 1)]);
    assert_eq!(e.row("m").unwrap().metric("hr@1"), Some(0.5));
    assert_eq!(e.row("flat").unwrap().metric("hr@1"), Some(0.0));
    assert_eq!(e.row("m").unwrap().runs[0].ranks.hr_1, 0.5);
    let d = e.differences.iter().find(|d| d.metric == RankMetric::Hr1).unwrap();
    assert_eq!((d.name.as_str(), d.versus.as_str(), d.mean), ("m", "flat", 0.5));
}

#[test]
fn two_evaluations_compare_only_on_the_same_questions() {
    let data = toy(&["abc", "abd", "bad", "bac"]);
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    let good = run(&data, &split, &[&Fixed("x", vec![0.0, 0.0, 1.0, 0.0])], 1).unwrap();
    let bad = run(&data, &split, &[&Fixed("x", vec![0.0; 4])], 1).unwrap();
    let d = good.compare("x", &bad, "x", RankMetric::Hr1, &Resampling::default()).unwrap();
    assert_eq!(d.mean, 0.5);
    assert!(d.interval.unwrap()[0] >= 0.0);
    let other = toy(&["abc", "abd", "bad", "bad"]);
    let split = Split::new(&other, &Protocol::LeaveOneOut).unwrap();
    let foreign = run(&other, &split, &[&Fixed("x", vec![0.0; 4])], 1).unwrap();
    let kind = |r: Result<docent::evaluate::Difference>| r.unwrap_err().kind();
    assert_eq!(
        kind(good.compare("x", &foreign, "x", RankMetric::Hr1, &Resampling::default())),
        ErrorKind::StateMismatch
    );
    assert_eq!(kind(good.compare("y", &bad, "x", RankMetric::Hr1, &Resampling::default())), ErrorKind::NotFound);
}

#[test]
fn wrong_input_and_cancelling_are_typed_errors() {
    let data = toy(&["abc", "abd", "bad", "bac"]);
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    let kind = |r: Result<Evaluation>| r.unwrap_err().kind();
    assert_eq!(kind(run(&data, &split, &[], 1)), ErrorKind::InvalidArgument);
    assert_eq!(kind(run(&data, &split, &[&Fixed("nan", vec![0.0, f32::NAN, 0.0, 0.0])], 2)), ErrorKind::Diverged);
    let everything = Split::new(&data, &Protocol::Everything).unwrap();
    assert_eq!(kind(run(&data, &everything, &[&Fixed("x", vec![0.0; 4])], 1)), ErrorKind::InvalidData);
    let other = toy(&["ab", "abcdefgab"]);
    let foreign = Split::new(&other, &Protocol::LeaveOneOut).unwrap();
    let beyond = Split { test: vec![Case { entity: 0, history: 0..90, target: 91, at: None }], ..foreign.clone() };
    assert_eq!(kind(run(&data, &beyond, &[&Fixed("x", vec![0.0; 4])], 1)), ErrorKind::InvalidArgument);
    let markov = Markov::fit(&other, &foreign, CountedEvents::BeforeTest);
    assert_eq!(kind(run(&data, &split, &[&markov], 1)), ErrorKind::StateMismatch);
    let cancel = Cancel::new();
    cancel.cancel();
    let scorer = Fixed("x", vec![0.0; 4]);
    let result = evaluate(&data, &split, &[&scorer], &EvaluateOptions::default(), &mut Silent, &cancel);
    assert_eq!(kind(result), ErrorKind::Cancelled);
}

#[test]
fn progress_reaches_the_number_of_questions() {
    let data = toy(&["abc", "abd", "bad", "bac"]);
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    let mut seen = Vec::new();
    let mut observer = |e: &ProgressEvent| seen.push(e.clone());
    let scorer = Fixed("x", vec![0.0; 4]);
    evaluate(&data, &split, &[&scorer], &EvaluateOptions::default(), &mut observer, &Cancel::new()).unwrap();
    assert!(matches!(&seen[0], ProgressEvent::Stage { total: 4, .. }), "{seen:?}");
    assert_eq!(seen.last(), Some(&ProgressEvent::Advance { done: 4 }));
}

#[test]
fn the_table_names_every_method_and_interval() {
    let data = toy(&["abc", "abd", "bad", "bac"]);
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    let e =
        run(&data, &split, &[&Fixed("first", vec![0.0, 0.0, 1.0, 0.0]), &Fixed("second", vec![0.0; 4])], 1).unwrap();
    let table = e.table();
    assert!(table.starts_with("leave-one-out: 4 questions ("), "{table}");
    for part in ["first", "second", "first - second", "coverage@10", "history", " .. "] {
        assert!(table.contains(part), "{part}: {table}");
    }
    assert!(table.lines().all(|l| !l.ends_with(' ')));
}

#[cfg(feature = "files")]
#[test]
fn json_has_the_keys_of_the_contract_and_records_can_be_repeated() {
    use docent::evaluate::Record;
    let data = toy(&["abc", "abd", "bad", "bac"]);
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    let scorers: [&dyn Scorer; 2] = [&Fixed("docent", vec![0.0, 0.0, 1.0, 0.0]), &Fixed("popularity", vec![0.0; 4])];
    let e = run(&data, &split, &scorers, 1).unwrap();
    let json = e.json("g7");
    for key in ["protocol", "targets", "target_hash", "catalogue", "seconds", "peak_rss_bytes", "rows", "cuts"] {
        assert!(!json[key].is_null(), "{key}");
    }
    assert_eq!(json["generation"], "g7");
    assert_eq!(json["target_hash"].as_str().unwrap().len(), 64);
    assert_eq!(json["rows"][0]["name"], "docent");
    assert_eq!(json["rows"][0]["metrics"]["hr@1"], 0.5);
    assert_eq!(json["rows"][0]["interval"]["ndcg@10"].as_array().unwrap().len(), 2);
    assert!(json["cuts"][0]["rows"][1]["metrics"]["mrr"].is_number());

    let dir = tempfile::tempdir().unwrap();
    let mut record = Record::new("A toy", "docent evaluate", "g7", &data, e);
    record.configuration.push(("width".into(), "64".into()));
    record.write(&dir.path().join("records"), "toy").unwrap();
    let page = std::fs::read_to_string(dir.path().join("records/toy.md")).unwrap();
    let hash: String = data.hash.iter().map(|b| format!("{b:02x}")).collect();
    for part in ["# A toy", "docent evaluate", &hash, "| width | 64 |", "popularity", "cores"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let text = std::fs::read_to_string(dir.path().join("records/toy.json")).unwrap();
    let back: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(back["evaluation"]["rows"][1]["name"], "popularity");
    assert_eq!(std::fs::read_dir(dir.path().join("records")).unwrap().count(), 2, "nothing temporary is left");
    assert_eq!(record.write(dir.path(), "../up").unwrap_err().kind(), ErrorKind::InvalidArgument);
}
