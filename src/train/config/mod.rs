//! How is a training described in a file? `train.toml`: the shape of the model and the way it is trained.
//!
//! Every key may be left out; docs/train.md lists them with their defaults.

mod objectives;
mod ranker;

use crate::error::{Error, Result, err};
use crate::options::{
    Block, Gbce, Loss, ModelOptions, NegativeSource, Negatives, Positions, TokenizerOptions, TrainOptions,
};
use crate::store::ManifestContent;
use objectives::{ObjectivesTable, TowerTable};
pub use ranker::RankerConfig;
use ranker::RankerTable;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Negatives of `loss = "sampled"` unless `negatives` says otherwise.
const NEGATIVES: u32 = 256;
/// The temperature of normalized vectors unless `temperature` says otherwise (HSTU's).
const TEMPERATURE: f32 = 0.05;
/// The calibration of `loss = "gbce"` unless `calibration` says otherwise (gSASRec's).
const CALIBRATION: f32 = 0.75;

/// What a `train.toml` says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrainConfig {
    /// The tables `[model]` and `[tower]`, and the heads of `[objectives]`.
    pub model: ModelOptions,
    /// The table `[train]`, and what `[objectives]` says of the item head.
    pub train: TrainOptions,
    /// The table `[tokenizer]`.
    pub tokenizer: TokenizerOptions,
    /// The table `[ranker]`.
    pub ranker: RankerConfig,
}

impl TrainConfig {
    /// The configuration that a published generation was trained with.
    pub fn of(manifest: &ManifestContent) -> Self {
        let tokenizer = manifest.tokenizer.as_ref().map(|t| t.options.clone());
        Self {
            model: manifest.model.clone(),
            train: manifest.training.options.clone(),
            tokenizer: tokenizer.unwrap_or_default(),
            ranker: match &manifest.ranker {
                Some(r) => RankerConfig { enabled: true, model: r.shape.clone(), train: r.options.clone() },
                None => RankerConfig { enabled: false, ..RankerConfig::default() },
            },
        }
    }

    /// Reads the file at `path` over these options: keys that it leaves out stay as they are.
    ///
    /// # Errors
    /// As [`TrainFile::read`] and [`TrainFile::over`].
    pub fn read(self, path: &Path) -> Result<Self> {
        TrainFile::read(path)?.over(self)
    }

    /// Reads the text of a configuration over these options.
    ///
    /// # Errors
    /// As [`TrainFile::parse`] and [`TrainFile::over`].
    pub fn parse(self, text: &str) -> Result<Self> {
        TrainFile::parse(text)?.over(self)
    }

    /// These options as the text of a configuration with every key, which [`TrainConfig::parse`] reads to the same.
    ///
    /// # Errors
    /// None that options can cause; the encoder's are passed on.
    pub fn text(&self) -> Result<String> {
        toml::to_string(&self.file())
            .map_err(|e| err!(Internal, "cannot write a training's configuration: {e}; please report it"))
    }

    /// Every key with its value, such as `("model.width", "64")`.
    ///
    /// # Errors
    /// As [`TrainConfig::text`].
    pub fn entries(&self) -> Result<Vec<(String, String)>> {
        let mut entries = Vec::new();
        let mut table = "";
        let text = self.text()?;
        for line in text.lines() {
            if line.starts_with('[') {
                table = line.trim_matches(['[', ']']);
            } else if let Some((key, value)) = line.split_once(" = ") {
                entries.push((format!("{table}.{key}"), value.trim_matches('"').to_owned()));
            }
        }
        Ok(entries)
    }

    fn file(&self) -> File {
        let (m, t, k) = (&self.model, &self.train, &self.tokenizer);
        let (loss, negatives, calibration) = match t.loss {
            None => (LossKey::Auto, None, None),
            Some(Loss::Full) => (LossKey::Full, None, None),
            Some(Loss::Sampled(n)) => (LossKey::Sampled, Some(n), None),
            Some(Loss::Gbce(Gbce { negatives, calibration })) => (LossKey::Gbce, Some(negatives), Some(calibration)),
        };
        File {
            model: ModelTable {
                width: Some(m.width),
                block: Some(match m.block {
                    Block::Gated => BlockKey::Gated,
                    Block::Hstu => BlockKey::Hstu,
                }),
                blocks: Some(m.blocks),
                heads: Some(m.heads),
                hidden: Some(m.hidden),
                max_length: Some(m.max_length),
                positions: Some(match m.positions {
                    Positions::Learned => PositionsKey::Learned,
                    Positions::Rotary => PositionsKey::Rotary,
                }),
                distance_bias: Some(m.distance_bias),
                time_bias: Some(m.time_bias),
                time_input: Some(m.time_input),
                field_width: Some(m.field_width),
                normalized: Some(m.normalized),
                temperature: Some(m.temperature),
            },
            train: TrainTable {
                seed: Some(t.seed),
                threads: Some(t.threads),
                loss: Some(loss),
                negatives: negatives.map(|n| n.count),
                negative_source: negatives.map(|n| match n.source {
                    NegativeSource::Uniform => SourceKey::Uniform,
                    NegativeSource::Popularity => SourceKey::Popularity,
                    NegativeSource::InBatch => SourceKey::InBatch,
                }),
                log_q: negatives.map(|n| n.log_q),
                calibration,
                epochs: Some(t.epochs),
                batch: Some(t.batch),
                learning_rate: Some(t.learning_rate),
                warmup: Some(t.warmup),
                final_rate: Some(t.final_rate),
                weight_decay: Some(t.weight_decay),
                clip: Some(t.clip),
                dropout: Some(t.dropout),
                patience: Some(t.patience),
                validate_every: Some(t.validate_every),
                ema: Some(t.ema),
                window_share: Some(t.window_share),
                checkpoint_every: Some(t.checkpoint_every),
                max_seconds: Some(t.max_seconds),
            },
            tower: TowerTable::of(m),
            objectives: ObjectivesTable::of(m, &t.objective),
            tokenizer: TokenizerTable {
                max_gap: Some(k.max_gap),
                surface: Some(k.surface.clone()),
                terminal: Some(k.terminal.clone()),
                merges: Some(k.merges),
                budget: Some(k.budget),
                dropout: Some(k.dropout),
            },
            ranker: RankerTable::of(&self.ranker),
        }
    }
}

/// A `train.toml` that was read but not yet put over options: it may leave any key out.
#[derive(Debug, Clone, Default)]
pub struct TrainFile {
    file: File,
    path: Option<PathBuf>,
}

impl TrainFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// `NotFound` or another input error for `path`; `InvalidConfig` naming the line and the key that is unknown.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io("cannot read the training's configuration", path, e))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| err!(InvalidConfig, "{} is not UTF-8; is it a train.toml?", path.display()))?;
        let read = Self::parse(&text).map_err(|e| in_file(Some(path), e))?;
        Ok(Self { path: Some(path.to_owned()), ..read })
    }

    /// Reads the text of a configuration.
    ///
    /// # Errors
    /// `InvalidConfig` naming the line and the key that is unknown.
    pub fn parse(text: &str) -> Result<Self> {
        let file = toml::from_str(text).map_err(|e| {
            let what = e.message();
            let line = e.span().map(|s| text.get(..s.start).unwrap_or(text).matches('\n').count() + 1);
            let at = line.map_or_else(String::new, |line| format!("line {line}: "));
            err!(InvalidConfig, "{at}{what}; docs/train.md lists the keys")
        })?;
        Ok(Self { file, path: None })
    }

    /// These keys over `config`, which keeps the others.
    ///
    /// # Errors
    /// `InvalidConfig` naming the key that is out of range, or does not go with another one.
    pub fn over(&self, config: TrainConfig) -> Result<TrainConfig> {
        let put = |mut config: TrainConfig| {
            self.file.model.put(&mut config.model);
            self.file.train.put(&mut config.train)?;
            self.file.tower.put(&mut config.model);
            self.file.objectives.put(&mut config.model, &mut config.train.objective)?;
            self.file.tokenizer.put(&mut config.tokenizer);
            self.file.ranker.put(&mut config.ranker)?;
            config.ranker.model.check()?;
            config.ranker.train.check()?;
            config.tokenizer.check()?;
            config.model.check()?;
            config.train.check()?;
            Ok(config)
        };
        put(config).map_err(|e| in_file(self.path.as_deref(), e))
    }
}

/// The error with the name of the file before it.
fn in_file(path: Option<&Path>, e: Error) -> Error {
    match path {
        Some(path) => Error::new(e.kind(), format!("{}: {}", path.display(), e.message())),
        None => e,
    }
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    model: ModelTable,
    #[serde(default)]
    train: TrainTable,
    #[serde(default)]
    tower: TowerTable,
    #[serde(default)]
    objectives: ObjectivesTable,
    #[serde(default)]
    tokenizer: TokenizerTable,
    #[serde(default)]
    ranker: RankerTable,
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum PositionsKey {
    Learned,
    Rotary,
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum BlockKey {
    Gated,
    Hstu,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum LossKey {
    Auto,
    Full,
    Sampled,
    Gbce,
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
enum SourceKey {
    Uniform,
    Popularity,
    InBatch,
}

#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct ModelTable {
    width: Option<u32>,
    block: Option<BlockKey>,
    blocks: Option<u32>,
    heads: Option<u32>,
    hidden: Option<u32>,
    max_length: Option<u32>,
    positions: Option<PositionsKey>,
    distance_bias: Option<bool>,
    time_bias: Option<bool>,
    time_input: Option<bool>,
    field_width: Option<u32>,
    normalized: Option<bool>,
    temperature: Option<f32>,
}

impl ModelTable {
    fn put(&self, to: &mut ModelOptions) {
        set(&mut to.width, self.width);
        set(
            &mut to.block,
            self.block.map(|b| match b {
                BlockKey::Gated => Block::Gated,
                BlockKey::Hstu => Block::Hstu,
            }),
        );
        set(&mut to.blocks, self.blocks);
        set(&mut to.heads, self.heads);
        set(&mut to.hidden, self.hidden);
        set(&mut to.max_length, self.max_length);
        set(
            &mut to.positions,
            self.positions.map(|p| match p {
                PositionsKey::Learned => Positions::Learned,
                PositionsKey::Rotary => Positions::Rotary,
            }),
        );
        set(&mut to.distance_bias, self.distance_bias);
        set(&mut to.time_bias, self.time_bias);
        set(&mut to.time_input, self.time_input);
        set(&mut to.field_width, self.field_width);
        if let Some(normalized) = self.normalized {
            if normalized != to.normalized {
                to.temperature = if normalized { TEMPERATURE } else { 1.0 };
            }
            to.normalized = normalized;
        }
        set(&mut to.temperature, self.temperature);
    }
}

#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct TrainTable {
    seed: Option<u64>,
    threads: Option<u32>,
    loss: Option<LossKey>,
    negatives: Option<u32>,
    negative_source: Option<SourceKey>,
    log_q: Option<bool>,
    calibration: Option<f32>,
    epochs: Option<u32>,
    batch: Option<u32>,
    learning_rate: Option<f32>,
    warmup: Option<u32>,
    final_rate: Option<f32>,
    weight_decay: Option<f32>,
    clip: Option<f32>,
    dropout: Option<f32>,
    patience: Option<u32>,
    validate_every: Option<u32>,
    ema: Option<f32>,
    window_share: Option<f32>,
    checkpoint_every: Option<u32>,
    max_seconds: Option<u64>,
}

impl TrainTable {
    fn put(&self, to: &mut TrainOptions) -> Result<()> {
        let sampled = matches!(self.loss, Some(LossKey::Sampled | LossKey::Gbce));
        for (key, given) in [
            ("negatives", self.negatives.is_some()),
            ("negative_source", self.negative_source.is_some()),
            ("log_q", self.log_q.is_some()),
        ] {
            if given && !sampled {
                return Err(err!(
                    InvalidConfig,
                    "train.{key} stands without train.loss = \"sampled\" or \"gbce\"; add one, or remove the key"
                ));
            }
        }
        if self.calibration.is_some() && self.loss != Some(LossKey::Gbce) {
            return Err(err!(
                InvalidConfig,
                "train.calibration stands without train.loss = \"gbce\"; add that, or remove the key"
            ));
        }
        let negatives = Negatives {
            count: self.negatives.unwrap_or(NEGATIVES),
            source: match self.negative_source {
                None | Some(SourceKey::Uniform) => NegativeSource::Uniform,
                Some(SourceKey::Popularity) => NegativeSource::Popularity,
                Some(SourceKey::InBatch) => NegativeSource::InBatch,
            },
            log_q: self.log_q.unwrap_or(false),
        };
        match self.loss {
            None => {}
            Some(LossKey::Auto) => to.loss = None,
            Some(LossKey::Full) => to.loss = Some(Loss::Full),
            Some(LossKey::Sampled) => to.loss = Some(Loss::Sampled(negatives)),
            Some(LossKey::Gbce) => {
                let calibration = self.calibration.unwrap_or(CALIBRATION);
                to.loss = Some(Loss::Gbce(Gbce { negatives, calibration }));
            }
        }
        set(&mut to.seed, self.seed);
        set(&mut to.threads, self.threads);
        set(&mut to.epochs, self.epochs);
        set(&mut to.batch, self.batch);
        set(&mut to.learning_rate, self.learning_rate);
        set(&mut to.warmup, self.warmup);
        set(&mut to.final_rate, self.final_rate);
        set(&mut to.weight_decay, self.weight_decay);
        set(&mut to.clip, self.clip);
        set(&mut to.dropout, self.dropout);
        set(&mut to.patience, self.patience);
        set(&mut to.validate_every, self.validate_every);
        set(&mut to.ema, self.ema);
        set(&mut to.window_share, self.window_share);
        set(&mut to.checkpoint_every, self.checkpoint_every);
        set(&mut to.max_seconds, self.max_seconds);
        Ok(())
    }
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct TokenizerTable {
    max_gap: Option<u32>,
    surface: Option<String>,
    terminal: Option<Vec<String>>,
    merges: Option<u32>,
    budget: Option<u32>,
    dropout: Option<f32>,
}

impl TokenizerTable {
    fn put(&self, to: &mut TokenizerOptions) {
        set(&mut to.max_gap, self.max_gap);
        set(&mut to.surface, self.surface.clone());
        set(&mut to.terminal, self.terminal.clone());
        set(&mut to.merges, self.merges);
        set(&mut to.budget, self.budget);
        set(&mut to.dropout, self.dropout);
    }
}

fn set<T>(to: &mut T, from: Option<T>) {
    if let Some(value) = from {
        *to = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Auxiliary, TowerOptions, Utility};

    #[test]
    fn keys_replace_defaults_and_the_others_stay() {
        let text = "[model]\nwidth = 96\nheads = 3\npositions = \"rotary\"\n[train]\nloss = \"sampled\"\nlearning_rate = 0.002\n";
        let config = TrainConfig::default().parse(text).unwrap();
        let model = ModelOptions { width: 96, heads: 3, positions: Positions::Rotary, ..ModelOptions::default() };
        let train = TrainOptions {
            loss: Some(Loss::Sampled(Negatives::uniform(256))),
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
        config.model.time_bias = false;
        config.model.tower = Some(TowerOptions { masking: Some(0.25), ..TowerOptions::default() });
        config.model.auxiliary = vec![Auxiliary { field: "genres".into(), weight: 0.3, hierarchical: true }];
        config.train.objective.utility = Utility::Actions(vec![("like".into(), 3.0), ("view".into(), 0.5)]);
        (config.model.block, config.model.normalized, config.model.temperature) = (Block::Hstu, false, 0.7);
        assert_eq!(TrainConfig::default().parse(&config.text().unwrap()).unwrap(), config);
        let entries = config.entries().unwrap();
        assert!(entries.contains(&("model.width".into(), "64".into())), "{entries:?}");
        assert!(entries.contains(&("train.loss".into(), "sampled".into())), "{entries:?}");
        assert_eq!(entries.len(), 81);
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
        config.train.loss =
            Some(Loss::Gbce(Gbce { negatives: Negatives::uniform(NEGATIVES), calibration: CALIBRATION }));
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
            ("[train]\nloss = \"sampled\"\nnegatives = 0\n", "0 negatives"),
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
            ("[training]\n", "training"),
            ("width = 3\n", "width"),
            ("[model\n", "line 1"),
        ] {
            let e = TrainConfig::default().parse(text).unwrap_err();
            assert_eq!(e.kind(), crate::ErrorKind::InvalidConfig, "{text}");
            assert!(e.message().contains(part), "{text}: {e}");
        }
        let e = TrainConfig::default().read(Path::new("/nonexistent/train.toml")).unwrap_err();
        assert_eq!(e.kind(), crate::ErrorKind::NotFound);
    }
}
