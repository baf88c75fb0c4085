//! What a `train.toml` may say, and what is said of one that is wrong.

use super::keys::{CALIBRATION, NEGATIVES};
use super::*;
use crate::options::{
    Auxiliary, Block, Gate, Gbce, Loss, ModelOptions, NegativeSource, Negatives, Positions, Publish, RankerGoal,
    TokenizerOptions, TowerOptions, TrainOptions, Utility,
};
use std::path::Path;

#[test]
fn keys_replace_defaults_and_the_others_stay() {
    let text =
        "[model]\nwidth = 96\nheads = 3\npositions = \"rotary\"\n[train]\nloss = \"sampled\"\nlearning_rate = 0.002\n";
    let config = TrainConfig::default().parse(text).unwrap();
    let model = ModelOptions { width: 96, heads: 3, positions: Positions::Rotary, ..ModelOptions::default() };
    let train = TrainOptions {
        loss: Some(Loss::Sampled(Negatives::mixed(256))),
        learning_rate: 0.002,
        ..TrainOptions::default()
    };
    assert_eq!(config, TrainConfig { model, train, ..TrainConfig::default() });
    assert_eq!(TrainConfig::default().parse("").unwrap(), TrainConfig::default());
    let again = config.clone().parse("[train]\nloss = \"auto\"\n").unwrap();
    assert_eq!(again.train.loss, None);
    assert_eq!(again.model, config.model);
}

#[test]
fn what_is_written_is_read_back() {
    let mut config = TrainConfig::default();
    config.train.loss = Some(Loss::Sampled(Negatives { count: 7, source: NegativeSource::InBatch, log_q: true }));
    config.train.learning_rate = 0.1 + f32::EPSILON;
    config.train.seed = 1 << 62;
    config.tokenizer = TokenizerOptions {
        max_gap: 60,
        surface: "device".into(),
        terminal: vec!["like \"it\"".into(), "buy".into()],
        merges: 3,
        budget: 2,
        dropout: 0.25,
    };
    config.ranker.model.surface = "device".into();
    config.ranker.train.publish = Publish::Always;
    config.ranker.train.goal = RankerGoal::Outcome(Some("like".into()));
    config.model.time_bias = false;
    config.model.tower = Some(TowerOptions { masking: Some(0.25), ..TowerOptions::default() });
    config.model.auxiliary = vec![Auxiliary { field: "genres".into(), weight: 0.3, hierarchical: true }];
    config.train.objective.utility = Utility::Actions(vec![("like".into(), 3.0), ("view".into(), 0.5)]);
    (config.model.block, config.model.normalized, config.model.temperature) = (Block::Hstu, false, 0.7);
    assert_eq!(TrainConfig::default().parse(&config.text().unwrap()).unwrap(), config);
    let entries = config.entries().unwrap();
    for (text, goal) in [
        ("\"next\"", RankerGoal::Next),
        ("\"outcome\"", RankerGoal::Outcome(None)),
        ("0.3", RankerGoal::Weight(0.3)),
        ("2", RankerGoal::Weight(2.0)),
    ] {
        let read = TrainConfig::default().parse(&format!("[ranker]\ngoal = {text}\n")).unwrap();
        assert_eq!(read.ranker.train.goal, goal);
        assert_eq!(TrainConfig::default().parse(&read.text().unwrap()).unwrap(), read);
    }
    assert!(entries.contains(&("model.width".into(), "64".into())), "{entries:?}");
    assert!(entries.contains(&("train.loss".into(), "sampled".into())), "{entries:?}");
    assert_eq!(entries.len(), 85);
}

#[test]
fn the_documentation_lists_every_key_with_its_default() {
    let page = include_str!("../../../docs/train.md");
    let world = crate::data::SyntheticOptions { entities: 30, items: 60, days: 20, ..Default::default() };
    let data = crate::data::World::new(&world, 1).unwrap().dataset().unwrap();
    let split = crate::data::Split::new(&data, &crate::data::Protocol::LeaveOneOut).unwrap();
    let rule = crate::train::defaults(&data, &split).unwrap();
    let ruled = |key: &str| rule.choices.iter().any(|c| c.keys.contains(&key));
    let mut config = TrainConfig::default();
    // The one loss that has every key; the page gives the defaults of the sampled softmax.
    config.train.loss = Some(Loss::Gbce(Gbce { negatives: Negatives::mixed(NEGATIVES), calibration: CALIBRATION }));
    for (key, value) in config.entries().unwrap() {
        let (table, name) = key.split_once('.').unwrap();
        let section = page.split("\n## ").find(|s| s.starts_with(&format!("`[{table}]`"))).unwrap_or("");
        let line = section.lines().find(|l| l.starts_with(&format!("| `{name}` |")));
        let listed = line.unwrap_or_else(|| panic!("{key} is not documented")).split('|').nth(2).unwrap();
        let listed = listed.trim();
        let by_rule = listed.strip_prefix("rule (").and_then(|l| l.strip_suffix(")"));
        assert_eq!(
            by_rule.is_some(),
            !["ranker", "tokenizer"].contains(&table) && ruled(name),
            "{key} is documented as {listed}"
        );
        let listed = by_rule.unwrap_or(listed).trim_matches(['`', '"']);
        let same = match (listed.parse::<f64>(), value.parse::<f64>()) {
            (Ok(a), Ok(b)) => a == b,
            _ => listed == if name == "loss" { "auto" } else { &value },
        };
        assert!(same, "{key} is {value} by default, documented is {listed}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (text, part) in [
        ("[model]\nwide = 3\n", "wide"),
        ("[model]\nwidth = \"64\"\n", "line 2"),
        ("[model]\nwidth = 65\n", "model.width 65"),
        ("[model]\nwidth = -1\n", "-1"),
        ("[train]\nepochs = 0\n", "train.epochs"),
        ("[train]\nloss = \"hinge\"\n", "hinge"),
        ("[train]\nnegatives = 3\n", "train.negatives"),
        ("[train]\nloss = \"sampled\"\nnegatives = 0\n", "train.negatives is 0"),
        ("[train]\nloss = \"sampled\"\nnegatives = 1000000000\n", "train.negatives is 1000000000; choose 1 to"),
        ("[train]\nthreads = 4000000000\n", "train.threads is 4000000000"),
        ("[train]\nbatch = 4000000000\n", "train.batch is 4000000000"),
        ("[ranker]\nbatch = 4000000000\n", "ranker.batch is 4000000000"),
        ("[model]\nwidth = 4096\nhidden = 65536\nblocks = 64\n", "weights; choose smaller ones"),
        ("[train]\nloss = \"full\"\nlog_q = true\n", "train.log_q"),
        ("[train]\nloss = \"sampled\"\ncalibration = 0.5\n", "train.calibration"),
        ("[train]\nloss = \"gbce\"\ncalibration = 2.0\n", "train.calibration is 2"),
        ("[train]\nema = 1.0\n", "train.ema"),
        ("[model]\ntemperature = 0.0\n", "model.temperature"),
        ("[model]\nblock = \"resnet\"\n", "resnet"),
        ("[train]\nlearning_rate = nan\n", "train.learning_rate"),
        ("[objectives]\nwindow = 0\n", "objectives.window"),
        ("[objectives]\nutility = \"fun\"\n", "fun"),
        ("[objectives]\nutility = \"action\"\n", "objectives.actions"),
        ("[[objectives.heads]]\nfield = \"a\"\n[[objectives.heads]]\nfield = \"a\"\n", "two heads"),
        ("[tower]\nmasking = 1.5\n", "tower.masking"),
        ("[tokenizer]\nmerges = 5000\n", "tokenizer.merges is 5000"),
        ("[tokenizer]\nmax_gap = -1\n", "-1"),
        ("[tokenizer]\ngap = 3\n", "gap"),
        ("[ranker]\npublish = \"perhaps\"\n", "perhaps"),
        ("[ranker]\ngoal = \"clicks\"\n", "ranker.goal is"),
        ("[ranker]\ngoal = -1\n", "ranker.goal is"),
        ("[ranker]\ngoal = nan\n", "ranker.goal is"),
        ("[training]\n", "training"),
        ("width = 3\n", "width"),
        ("[model\n", "line 1"),
    ] {
        let e = TrainConfig::default().parse(text).unwrap_err();
        assert_eq!(e.kind(), crate::ErrorKind::InvalidConfig, "{text}");
        assert!(e.message().contains(part), "{text}: {e}");
    }
    let e = TrainFile::read(Path::new("/nonexistent/train.toml")).unwrap_err();
    assert_eq!(e.kind(), crate::ErrorKind::NotFound);
}

#[test]
fn what_an_earlier_version_wrote_is_read_as_it_meant_it() {
    let mut config = TrainConfig::default();
    config.model.tower = Some(TowerOptions::default());
    let text = config.text().unwrap();
    assert_eq!(TrainConfig::parse_written(&text).unwrap(), config);
    let later = ["gate = \"fixed\"", "publish =", "goal =", "cooldown ="];
    let old: Vec<&str> = text.lines().filter(|line| !later.iter().any(|key| line.starts_with(key))).collect();
    assert_eq!(old.len(), text.lines().count() - later.len());
    config.model.tower = Some(TowerOptions { gate: Gate::Learned, ..TowerOptions::default() });
    (config.ranker.train.publish, config.ranker.train.goal) = (Publish::Always, RankerGoal::Outcome(None));
    config.train.cooldown = 0.0;
    assert_eq!(TrainConfig::parse_written(&old.join("\n")).unwrap(), config);
}

#[test]
fn keys_of_old_names_are_read_and_warned_of() {
    let old = "[model]\ncontext = 50\n[ranker]\ntower = 8\nshrink = 2.0\nfade = 0.5\n";
    let file = TrainFile::parse(old).unwrap();
    let config = file.over(TrainConfig::default()).unwrap();
    let ranker = &config.ranker.model;
    assert_eq!((config.model.max_length, ranker.trunk, ranker.prior_count, ranker.rate_decay), (50, 8, 2.0, 0.5));
    assert_eq!(file.warnings().len(), 4);
    assert!(file.warnings()[0].contains("model.context is called model.max_length"), "{:?}", file.warnings());
    let new = "[model]\nmax_length = 50\n[ranker]\ntrunk = 8\nprior_count = 2.0\nrate_decay = 0.5\n";
    let file = TrainFile::parse(new).unwrap();
    assert_eq!(file.over(TrainConfig::default()).unwrap(), config);
    assert_eq!(file.warnings().len(), 0);
    let both = TrainFile::parse("[model]\ncontext = 50\nmax_length = 60\n").unwrap_err();
    assert!(both.message().contains("max_length"), "{both}");
}
