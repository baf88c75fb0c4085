//! Training: the same bytes for the same seed, however often it is interrupted; failures that say so; and the same
//! scores from the published snapshot as from the trainer's own weights.

use docent::Cell;
use docent::data::{
    BuildOptions, Dataset, DatasetBuilder, Declaration, EventRow, Kind, Protocol, Questions, Split, SyntheticOptions,
    World,
};
use docent::evaluate::{EngineScorer, ranks};
use docent::model::{History, Inference, Request, Scratch, Weights};
use docent::options::{
    Auxiliary, Block, Device, Gbce, Loss, ModelOptions, NegativeSource, Negatives, Positions, TokenizerOptions,
    TowerOptions, TrainOptions,
};
use docent::progress::{Cancel, ProgressEvent, Silent};
use docent::schema::Timing;
use docent::serve::{Engine, EngineOptions, Filter, Query};
use docent::store::{RunRecord, Store};
use docent::tokenizer::{CodedEvent, Pushed, Stream, Tokenizer};
use docent::train::{Stopped, Trained, Trainer, publish};
use docent::{ErrorKind, Result};
use std::path::Path;

fn data() -> (Dataset, Split) {
    let options =
        SyntheticOptions { entities: 120, items: 60, days: 60, events_per_entity: 14.0, ..Default::default() };
    let data = World::new(&options, 1).unwrap().dataset().unwrap();
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    (data, split)
}

fn model() -> ModelOptions {
    let head = Auxiliary { field: "category".into(), weight: 0.2, hierarchical: true };
    ModelOptions {
        width: 16,
        heads: 2,
        hidden: 24,
        blocks: 2,
        max_length: 12,
        field_width: 4,
        tower: Some(TowerOptions::default()),
        auxiliary: vec![head],
        ..ModelOptions::default()
    }
}

fn options() -> TrainOptions {
    TrainOptions { epochs: 4, batch: 16, warmup: 5, patience: 4, checkpoint_every: 3, ..TrainOptions::default() }
}

fn train(data: &Dataset, split: &Split, options: TrainOptions) -> Result<Trained> {
    Trainer::new(data, split).model(model()).options(options).run(&mut Silent, &Cancel::new())
}

fn same(a: &Trained, b: &Trained) -> bool {
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    bits(&a.items) == bits(&b.items)
        && bits(&a.dense) == bits(&b.dense)
        && bits(&a.features) == bits(&b.features)
        && a.validation == b.validation
        && (a.steps, a.tokens, a.epochs, a.best_epoch) == (b.steps, b.tokens, b.epochs, b.best_epoch)
}

#[test]
fn the_same_seed_gives_the_same_bits_on_any_number_of_threads() {
    let (data, split) = data();
    for block in [Block::Gated, Block::Hstu] {
        let train = |options| {
            let trainer = Trainer::new(&data, &split).model(ModelOptions { block, ..model() }).options(options);
            trainer.run(&mut Silent, &Cancel::new()).unwrap()
        };
        let one = train(options());
        for threads in [1, 2, 3] {
            assert!(same(&one, &train(TrainOptions { threads, ..options() })), "{block:?}, {threads} threads");
        }
        assert!(!same(&one, &train(TrainOptions { seed: 2, ..options() })));
    }
}

#[test]
fn training_that_is_interrupted_anywhere_resumes_to_the_bit() {
    let (data, split) = data();
    let sampled = Negatives { count: 8, source: NegativeSource::InBatch, log_q: true };
    let gbce = Gbce { negatives: Negatives { source: NegativeSource::Popularity, ..sampled }, calibration: 0.5 };
    let losses = [(None, 0.0, 0.0), (Some(Loss::Sampled(sampled)), 0.9, 1.0), (Some(Loss::Gbce(gbce)), 0.0, 0.5)];
    for (loss, ema, cooldown) in losses {
        let options = TrainOptions { loss, ema, cooldown, ..options() };
        let whole = train(&data, &split, options.clone()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut runs = 0;
        let last = loop {
            // Every run is cancelled after two more steps; the checkpoint carries it on.
            let (cancel, mut steps) = (Cancel::new(), 0);
            let token = cancel.clone();
            let mut watch = |e: &ProgressEvent| {
                if matches!(e, ProgressEvent::Step(_)) {
                    steps += 1;
                    if steps == 2 {
                        token.cancel();
                    }
                }
            };
            let trainer = Trainer::new(&data, &split).model(model()).options(options.clone());
            let trained = trainer.checkpoints(dir.path(), true).run(&mut watch, &cancel).unwrap();
            runs += 1;
            if trained.stopped != Stopped::Interrupted {
                break trained;
            }
        };
        assert!(runs > 5);
        assert!(same(&whole, &last));
    }
}

#[test]
fn training_ends_a_cooldown_after_learning_does() {
    let (data, split) = data();
    let run = |epochs, patience, cooldown| {
        let (mut waited, mut stalled, mut planned) = (0, None, Vec::new());
        let mut watch = |e: &ProgressEvent| match e {
            ProgressEvent::Validation(v) => {
                waited = if v.improved { 0 } else { waited + 1 };
                stalled = stalled.or((waited == patience).then_some(v.epoch + 1));
            }
            ProgressEvent::Step(s) => planned.push(s.steps),
            _ => {}
        };
        let options = TrainOptions { epochs, patience, cooldown, ..options() };
        let trained =
            Trainer::new(&data, &split).model(model()).options(options).run(&mut watch, &Cancel::new()).unwrap();
        assert!(cooldown == 0.0 || planned.last() == Some(&trained.steps), "what is planned is what is done");
        (trained, stalled)
    };
    let (trained, stalled) = run(60, 2, 0.5);
    let stalled = stalled.unwrap();
    assert_eq!((trained.stopped, trained.epochs), (Stopped::Patience, stalled + stalled.div_ceil(2)));
    let (without, same) = run(60, 2, 0.0);
    assert_eq!((without.stopped, Some(without.epochs)), (Stopped::Patience, same));
    // The bound holds, and the rate falls before it.
    let (bounded, stalled) = run(6, 60, 0.5);
    assert_eq!((bounded.stopped, bounded.epochs, stalled), (Stopped::Epochs, 6, None));
}

/// Names the checkpoint directory that a child process of the next test trains in.
const KILLED: &str = "DOCENT_TEST_CHECKPOINTS";

#[test]
fn fifty_kills_lose_only_the_work_since_the_last_checkpoint() {
    let options = TrainOptions { epochs: 150, patience: 150, checkpoint_every: 1, ..options() };
    let weights = |t: &Trained| {
        let bytes: Vec<u8> =
            [&t.items, &t.dense, &t.features].into_iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
        format!("weights {} after {} steps", blake3::hash(&bytes).to_hex(), t.steps)
    };
    let (data, split) = data();
    let trainer = || Trainer::new(&data, &split).model(model()).options(options.clone());
    if let Ok(directory) = std::env::var(KILLED) {
        println!("ready");
        let trained = trainer().checkpoints(directory, true).run(&mut Silent, &Cancel::new()).unwrap();
        println!("{}", weights(&trained));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut rng = docent::random::Rng::new(5);
    let child = || {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "fifty_kills_lose_only_the_work_since_the_last_checkpoint", "--nocapture"])
            .env(KILLED, dir.path())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    for kill in 0..50 {
        let mut running = child();
        let mut said = std::io::BufReader::new(running.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut said, &mut line).unwrap() > 0, "kill {kill}: no child to kill");
        }
        std::thread::sleep(std::time::Duration::from_micros(rng.below(40_000) as u64));
        running.kill().unwrap();
        running.wait().unwrap();
    }
    let last = child().wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&last.stdout).into_owned();
    let whole = weights(&trainer().run(&mut Silent, &Cancel::new()).unwrap());
    assert!(said.contains(&whole), "{said} instead of {whole}");
}

#[test]
fn a_checkpoint_of_other_options_is_refused_and_a_new_start_replaces_it() {
    let (data, split) = data();
    let dir = tempfile::tempdir().unwrap();
    let trainer = |seed| Trainer::new(&data, &split).model(model()).options(TrainOptions { seed, ..options() });
    trainer(1).checkpoints(dir.path(), false).run(&mut Silent, &Cancel::new()).unwrap();
    let e = trainer(2).checkpoints(dir.path(), true).run(&mut Silent, &Cancel::new()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::StateMismatch, "{e}");
    trainer(2).checkpoints(dir.path(), false).run(&mut Silent, &Cancel::new()).unwrap();
}

#[test]
fn divergence_is_told_with_the_last_good_checkpoint() {
    let (data, split) = data();
    let dir = tempfile::tempdir().unwrap();
    let wild = TrainOptions { learning_rate: 10.0, warmup: 0, clip: 0.0, epochs: 40, patience: 40, ..options() };
    let trainer = Trainer::new(&data, &split).model(model()).options(wild);
    match trainer.checkpoints(dir.path(), false).run(&mut Silent, &Cancel::new()) {
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::Diverged, "{e}");
            assert!(e.message().contains("training.checkpoint"), "{e}");
        }
        // Layer norms may survive even this; then every number must be finite.
        Ok(t) => assert!(t.items.iter().chain(&t.dense).all(|v| v.is_finite())),
    }
}

#[test]
fn learning_is_real_and_a_shuffled_control_learns_nothing() {
    let options =
        SyntheticOptions { entities: 400, items: 60, days: 90, events_per_entity: 25.0, ..Default::default() };
    let data = World::new(&options, 1).unwrap().dataset().unwrap();
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    let train_on = |data: &Dataset, block: Block| {
        let model = ModelOptions { block, ..model() };
        let options =
            TrainOptions { epochs: 12, batch: 16, learning_rate: 3e-3, warmup: 20, ..TrainOptions::default() };
        let trained =
            Trainer::new(data, &split).model(model).options(options).run(&mut Silent, &Cancel::new()).unwrap();
        trained.validation.iter().find(|(k, _)| k == "ndcg@10").unwrap().1
    };
    let mut shuffled = data.clone();
    let mut rng = docent::random::Rng::new(3);
    // Every training event gets the item of another one: popularity stays, order and taste are gone.
    let mut items: Vec<u32> = split.train.iter().flat_map(|r| data.events.item[r.clone()].to_vec()).collect();
    rng.shuffle(&mut items);
    let mut next = items.into_iter();
    for range in &split.train {
        for i in range.clone() {
            shuffled.events.item[i] = next.next().unwrap();
        }
    }
    for block in [Block::Gated, Block::Hstu] {
        let (real, control) = (train_on(&data, block), train_on(&shuffled, block));
        assert!(real > 1.3 * control, "{block:?}: NDCG@10 {real} against {control} on shuffled events");
    }
}

#[test]
fn the_snapshot_scores_as_the_trainer_does() {
    let options =
        SyntheticOptions { entities: 1000, items: 80, days: 60, events_per_entity: 8.0, ..Default::default() };
    let data = World::new(&options, 1).unwrap().dataset().unwrap();
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    let options = TrainOptions { epochs: 1, ..self::options() };
    for (block, positions) in
        [(Block::Gated, Positions::Learned), (Block::Gated, Positions::Rotary), (Block::Hstu, Positions::Rotary)]
    {
        let shape = ModelOptions { block, positions, ..model() };
        let trainer = Trainer::new(&data, &split).model(shape).options(options.clone());
        let trained = trainer.run(&mut Silent, &Cancel::new()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        publish_to(dir.path(), &data, &split, &trained);
        let engine = Engine::open(dir.path(), &EngineOptions::default()).unwrap();
        let inference = Inference::new(&data.schema, &trained.model).unwrap();
        let weights = Weights { items: &trained.items, dense: &trained.dense, features: &trained.features, more: &() };
        let d = trained.model.width as usize;
        let ids: Vec<&str> = data.items.names().iter().map(String::as_str).collect();
        let mut user = vec![0.0; d];
        for entity in 0..data.entities.len() as u32 {
            let history = encode(&data, entity);
            let request = Request::default();
            inference.user_vector(weights, &history, &request, &mut Scratch::default(), &mut user).unwrap();
            let scores = engine.score(&Query::entity(data.entities.id(entity)), &ids).unwrap();
            let scale = scores.iter().fold(0.0f32, |m, s| m.max(s.abs()));
            for (row, score) in scores.iter().enumerate() {
                let want: f32 = user.iter().zip(&trained.items[row * d..(row + 1) * d]).map(|(a, b)| a * b).sum();
                assert!((score - want).abs() <= 1e-5 * scale, "entity {entity} item {row}: {score} against {want}");
            }
        }
    }
}

/// People who walk a circle of items, and click each of them once or some times.
fn clicks() -> (Dataset, Split) {
    let declared = Declaration {
        time: true,
        action: true,
        value: true,
        event_fields: vec![
            ("device".into(), Kind::Categorical, Timing::Request),
            ("completion".into(), Kind::Numeric, Timing::PostAction),
        ],
        ..Declaration::new("clicks")
    };
    let mut builder = DatasetBuilder::new(declared, BuildOptions::default()).unwrap();
    let mut rng = docent::random::Rng::new(5);
    for person in 0..150 {
        let (mut item, mut time) = (rng.below(40), 1_700_000_000_000i64);
        for _ in 0..4 + rng.below(20) {
            item = (item + if rng.below(5) == 0 { rng.below(40) } else { 7 }) % 40;
            time += 1_000_000 + 1000 * rng.below(100_000) as i64;
            let device = ["phone", "desk"][rng.below(2)];
            for click in 0..[1, 1, 2, 3, 5][rng.below(5)] {
                time += 1000 * rng.below(60) as i64;
                let action = if click > 0 && rng.below(2) == 0 { "like" } else { "view" };
                let completion = rng.uniform() as f32;
                let (person, item) = (format!("p{person}"), format!("i{item}"));
                let event = docent::Event {
                    item: &item,
                    time: Some(time),
                    action: Some(action),
                    value: Some(rng.below(30) as f32),
                    fields: &[("device", Cell::Text(device)), ("completion", Cell::Number(completion))],
                };
                builder.push_event(&EventRow::new(&person, event)).unwrap();
            }
        }
    }
    let data = builder.build().unwrap();
    // Clicks on one item in a row are one token: going on with it is no repeat.
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap().merging(&data, &merging(1)).unwrap();
    (data, split)
}

fn merging(budget: u32) -> TokenizerOptions {
    TokenizerOptions {
        max_gap: 120,
        surface: "device".into(),
        terminal: vec!["like".into()],
        budget,
        ..TokenizerOptions::default()
    }
}

/// The tokens of an entity's events, made one event at a time.
fn streamed(tokenizer: &Tokenizer, events: &History) -> History {
    let mut stream = Stream::new(tokenizer);
    let mut tokens = History::default();
    for i in 0..events.items.len() {
        let pushed = stream.push(CodedEvent {
            item: events.items[i],
            time: Some(events.time[i]),
            action: events.action[i],
            value: events.value[i],
            fields: events.fields.iter().map(|c| c[i]).collect(),
        });
        if let Pushed::Opened(Some(token)) = pushed {
            tokenizer.append(&token, &mut tokens);
        }
    }
    if let Some(token) = stream.close() {
        tokenizer.append(&token, &mut tokens);
    }
    tokens
}

#[test]
fn the_snapshot_scores_tokens_as_the_trainer_does() {
    let (data, split) = clicks();
    for budget in [1, 2, 0] {
        let options = TrainOptions { epochs: 2, ..self::options() };
        let trainer = Trainer::new(&data, &split)
            .model(ModelOptions { auxiliary: Vec::new(), ..model() })
            .options(options)
            .tokenizer(merging(budget));
        let trained = trainer.run(&mut Silent, &Cancel::new()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        publish_to(dir.path(), &data, &split, &trained);
        let engine = Engine::open(dir.path(), &EngineOptions::default()).unwrap();
        let generation = engine.current();
        let tokenizer = Tokenizer::new(&data.schema, trained.tokenizer.clone().unwrap()).unwrap();
        assert_eq!(generation.tokenizer(), Some(&tokenizer));
        assert!(!tokenizer.vocabulary().merges.is_empty());
        let inference = Inference::new(tokenizer.schema(), &trained.model).unwrap();
        let weights = Weights { items: &trained.items, dense: &trained.dense, features: &trained.features, more: &() };
        let d = trained.model.width as usize;
        let ids: Vec<&str> = data.items.names().iter().map(String::as_str).collect();
        let (mut user, mut long, mut events) = (vec![0.0; d], 0, 0);
        for entity in 0..data.entities.len() as u32 {
            let history = streamed(&tokenizer, &encode(&data, entity));
            long += usize::from(history.items.len() > 12);
            events += history.items.len();
            let request = Request::default();
            inference.user_vector(weights, &history, &request, &mut Scratch::default(), &mut user).unwrap();
            let scores = engine.score(&Query::entity(data.entities.id(entity)), &ids).unwrap();
            let scale = scores.iter().fold(0.0f32, |m, s| m.max(s.abs()));
            for (row, score) in scores.iter().enumerate() {
                let want: f32 = user.iter().zip(&trained.items[row * d..(row + 1) * d]).map(|(a, b)| a * b).sum();
                assert!((score - want).abs() <= 1e-5 * scale, "entity {entity} item {row}: {score} against {want}");
            }
        }
        assert!(long > 30, "{long} histories have more tokens than the context");
        assert!(events * 10 < data.events.len() * 9, "{events} tokens of {} events", data.events.len());
        // The trainer's validation and the judge's, which makes its own histories.
        let starts = Questions::TokenStarts { max_gap: 120, surface: "device".into() };
        let asked = split.clone().only(&data, &starts).unwrap();
        assert!(asked.validation.len() < split.validation.len() && asked.target_hash != split.target_hash);
        let scorer = EngineScorer::new(generation, &data).unwrap();
        let cases: Vec<_> = asked.validation.iter().filter(|case| asked.asks(&data, case)).cloned().collect();
        assert!(cases.len() < asked.validation.len());
        let ranks = ranks(&data, &asked, &cases, &scorer, 1, &Cancel::new()).unwrap();
        let gain = |r: &f64| if *r <= 10.0 { 1.0 / (r + 1.0).log2() } else { 0.0 };
        let ndcg = ranks.iter().map(gain).sum::<f64>() / ranks.len() as f64;
        let said = trained.validation.iter().find(|(name, _)| name == "ndcg@10").unwrap().1;
        assert!((ndcg - said).abs() < 1e-9, "NDCG@10 {said} in training, {ndcg} from the snapshot");
    }
}

#[test]
fn events_of_a_query_go_on_with_the_stored_ones() {
    let (data, split) = clicks();
    let options = TrainOptions { epochs: 1, ..self::options() };
    let trainer = Trainer::new(&data, &split)
        .model(ModelOptions { auxiliary: Vec::new(), ..model() })
        .options(options)
        .tokenizer(merging(1));
    let trained = trainer.run(&mut Silent, &Cancel::new()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    publish_to(dir.path(), &data, &split, &trained);
    let engine = Engine::open(dir.path(), &EngineOptions::default()).unwrap();
    let tokenizer = Tokenizer::new(&data.schema, trained.tokenizer.clone().unwrap()).unwrap();
    let inference = Inference::new(tokenizer.schema(), &trained.model).unwrap();
    let weights = Weights { items: &trained.items, dense: &trained.dense, features: &trained.features, more: &() };
    let mut events = encode(&data, 0);
    let (item, time) = (*events.items.last().unwrap(), *events.time.last().unwrap() + 5000);
    let device = *events.fields[0].last().unwrap();
    let docent::schema::FieldKind::Categorical(devices) = &data.schema.event_fields[0].field.kind else { panic!() };
    let fields = [("device", Cell::Text(devices[device as usize - 1].as_str())), ("completion", Cell::Text("0.5"))];
    let more = [docent::Event {
        time: Some(time),
        action: Some("like"),
        value: Some(3.0),
        fields: &fields,
        ..docent::Event::item(data.items.id(item))
    }];
    let before = streamed(&tokenizer, &events);
    events.items.push(item);
    events.time.push(time);
    events.action.push(data.schema.actions.iter().position(|a| a == "like").unwrap() as u16);
    events.value.push(3.0);
    events.fields[0].push(device);
    events.fields[1].push(data.schema.event_fields[1].field.kind.bucket(0.5));
    let after = streamed(&tokenizer, &events);
    assert_eq!(before.items, after.items, "the event goes on with the last token");
    let id = data.entities.id(0);
    let got = engine.user_embedding(&Query::entity(id).and_then(&more)).unwrap();
    let vector = |h: &History| {
        let mut user = vec![0.0; trained.model.width as usize];
        inference.user_vector(weights, h, &Request::default(), &mut Scratch::default(), &mut user).unwrap();
        user
    };
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-4 * (1.0 + b.abs()));
    assert!(close(&got, &vector(&after)) && !close(&got, &vector(&before)));

    // A step ahead imagines an event: the same as bringing it, with the action of the last one.
    let query = Query::entity(id).and_then(&more);
    let steps = engine.steps(&query, &Filter::default(), 5, 2, None).unwrap();
    let imagined = docent::Event { action: Some("like"), ..docent::Event::item(&steps[0].items[0].id) };
    let then = engine.recommend(&Query::entity(id).and_then(&[more[0], imagined]), &Filter::default(), 5).unwrap();
    assert_eq!(steps[1].items, then.items);
    assert_ne!(steps[1].items, steps[0].items[1..]);
}

/// An entity's events in the model's codes, made here from the dataset alone.
fn encode(data: &Dataset, entity: u32) -> History {
    let r = data.range(entity);
    let field = |(column, field): (&docent::data::Column, &docent::schema::EventField)| match column {
        docent::data::Column::Codes(codes) => codes[r.clone()].to_vec(),
        docent::data::Column::Numbers(v) => v[r.clone()].iter().map(|x| field.field.kind.bucket(*x)).collect(),
        _ => Vec::new(),
    };
    let part = |v: &[i64]| if v.is_empty() { Vec::new() } else { v[r.clone()].to_vec() };
    History {
        items: data.events.item[r.clone()].to_vec(),
        time: part(&data.events.time),
        first: Vec::new(),
        action: if data.events.action.is_empty() { Vec::new() } else { data.events.action[r.clone()].to_vec() },
        value: if data.events.value.is_empty() { Vec::new() } else { data.events.value[r.clone()].to_vec() },
        fields: data.events.fields.iter().zip(&data.schema.event_fields).map(field).collect(),
    }
}

fn publish_to(dir: &Path, data: &Dataset, split: &Split, trained: &Trained) {
    let store = Store::create(dir).unwrap();
    publish(&mut store.publisher().unwrap(), data, split, trained, &RunRecord::default()).unwrap();
}

/// Names the store that a child process of the next test opens.
const CHILD: &str = "DOCENT_TEST_STORE";

/// Every bit of every person's list.
fn lists(store: &Path) -> String {
    let engine = Engine::open(store, &EngineOptions::default()).unwrap();
    let generation = engine.current();
    let mut hash = blake3::Hasher::new();
    for row in 0..generation.entities() as u32 {
        let query = Query::entity(generation.entity_id(row).unwrap());
        for item in engine.recommend(&query, &Filter::default(), 20).unwrap().items {
            hash.update(item.id.as_bytes()).update(&item.score.to_bits().to_le_bytes());
        }
    }
    hash.finalize().to_hex().to_string()
}

#[test]
fn another_process_gets_the_same_lists_to_the_bit() {
    if let Ok(store) = std::env::var(CHILD) {
        println!("lists {}", lists(Path::new(&store)));
        return;
    }
    let options =
        SyntheticOptions { entities: 1000, items: 80, days: 60, events_per_entity: 8.0, ..Default::default() };
    let data = World::new(&options, 1).unwrap().dataset().unwrap();
    let split = Split::new(&data, &Protocol::LeaveOneOut).unwrap();
    let trained = train(&data, &split, TrainOptions { epochs: 1, ..self::options() }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    publish_to(dir.path(), &data, &split, &trained);
    let here = lists(dir.path());
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "another_process_gets_the_same_lists_to_the_bit", "--nocapture"])
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout).into_owned();
    assert!(said.contains(&format!("lists {here}")), "{said}");
}

#[test]
fn the_same_training_publishes_the_same_bytes() {
    let (data, split) = data();
    let files = |threads: u32| {
        let trained = train(&data, &split, TrainOptions { threads, ..options() }).unwrap();
        let dir = tempfile::tempdir().unwrap();
        publish_to(dir.path(), &data, &split, &trained);
        let mut found = Vec::new();
        for folder in ["generations", "segments"] {
            for entry in std::fs::read_dir(dir.path().join(folder)).unwrap() {
                let path = entry.unwrap().path();
                // The run record holds the clock.
                if path.extension().is_none_or(|e| e != "run") {
                    found.push((path.file_name().unwrap().to_owned(), std::fs::read(&path).unwrap()));
                }
            }
        }
        found.sort();
        found
    };
    let one = files(1);
    assert!(one.len() > 10);
    assert!(one == files(2));
}

#[test]
fn a_new_person_gets_the_popular_list_and_one_event_makes_it_personal() {
    let (data, split) = data();
    let trained = train(&data, &split, options()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    publish_to(dir.path(), &data, &split, &trained);
    let engine = Engine::open(dir.path(), &EngineOptions::default()).unwrap();
    let list = |q: &Query<'_>| {
        let got = engine.recommend(q, &Filter::default(), 10).unwrap();
        (got.source, got.items.iter().map(|i| i.id.to_string()).collect::<Vec<_>>())
    };
    let nobody = list(&Query::entity("nobody has this id"));
    assert_eq!(nobody.1.len(), 10);
    assert_eq!(nobody, list(&Query::items(&[])));
    let (a, b) = (data.items.id(3).to_string(), data.items.id(40).to_string());
    assert_ne!(list(&Query::items(&[&a])).0, nobody.0);
    assert_ne!(list(&Query::items(&[&a])), list(&Query::items(&[&b])));
}

#[test]
fn a_device_that_is_not_there_is_a_typed_error() {
    let (data, split) = data();
    let trainer = Trainer::new(&data, &split).model(model()).options(options()).device(Device::Cuda(4096));
    let e = trainer.run(&mut Silent, &Cancel::new()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::DeviceUnavailable, "{e}");
}
