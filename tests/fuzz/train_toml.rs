//! A `train.toml`: what is taken is written and read back to the same.

use super::checks::sound;
use docent::train::{TrainConfig, TrainFile};

/// Reads `bytes` as the text of a configuration.
pub fn train_toml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    sound(TrainConfig::parse_written(text));
    let Some(file) = sound(TrainFile::parse(text)) else { return };
    assert!(file.warnings().iter().all(|warning| !warning.is_empty()));
    let Some(config) = sound(file.over(TrainConfig::default())) else { return };
    let written = config.text().expect("what was read from a text can be written");
    assert_eq!(config, TrainConfig::parse_written(&written).unwrap(), "{written}");
    assert_eq!(config, TrainConfig::default().parse(&written).unwrap(), "{written}");
    assert!(!config.entries().unwrap().is_empty());
}
