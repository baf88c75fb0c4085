//! `train.toml`: a configuration in a file. Every key may be left out; docs/train.md lists them with their defaults.

use super::keys::{ADDED, File, RENAMED};
use super::options::TrainConfig;
use crate::error::{Error, Result, err};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// A `train.toml` that was read but not yet put over options: it may leave any key out.
#[derive(Debug, Clone, Default)]
pub struct TrainFile {
    keys: File,
    path: Option<PathBuf>,
    warnings: Vec<String>,
}

impl TrainFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied` or `Io` for the file, and those of [`TrainFile::parse`].
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io("cannot read the training's configuration", path, e))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| err!(InvalidConfig, "{} is not UTF-8; is it a train.toml?", path.display()))?;
        let read = Self::parse(&text).map_err(|e| in_file(Some(path), e))?;
        let warnings = read.warnings.iter().map(|w| format!("{}: {w}", path.display())).collect();
        Ok(Self { path: Some(path.to_owned()), warnings, ..read })
    }

    /// Reads the text of a configuration.
    ///
    /// # Errors
    /// `InvalidConfig` naming the line and the key that is unknown.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |e: toml::de::Error| {
            let line = e.span().map(|s| text.get(..s.start).unwrap_or(text).matches('\n').count() + 1);
            let at = line.map_or_else(String::new, |line| format!("line {line}: "));
            err!(InvalidConfig, "{at}{}; docs/train.md lists the keys", e.message())
        };
        let keys = toml::from_str(text).map_err(wrong)?;
        let given: Table = toml::from_str(text).map_err(wrong)?;
        let old = RENAMED.iter().filter(|(table, old, _)| given.get(*table).is_some_and(|t| t.get(old).is_some()));
        let warning = |(table, old, new): &(&str, &str, &str)| {
            format!("{table}.{old} is called {table}.{new} now; rename it, the next version does not read the old name")
        };
        Ok(Self { keys, path: None, warnings: old.map(warning).collect() })
    }

    /// What a person should know of the file: keys that have another name now.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// These keys over `config`, which keeps the others.
    ///
    /// # Errors
    /// `InvalidConfig` naming the key that is out of range, or does not go with another one.
    pub fn over(&self, mut config: TrainConfig) -> Result<TrainConfig> {
        let put = self.keys.put(&mut config).and_then(|()| config.check());
        put.map_err(|e| in_file(self.path.as_deref(), e))?;
        Ok(config)
    }
}

/// The error with the name of the file before it.
fn in_file(path: Option<&Path>, e: Error) -> Error {
    match path {
        Some(path) => Error::new(e.kind(), format!("{}: {}", path.display(), e.message())),
        None => e,
    }
}

impl TrainConfig {
    /// Reads the text of a configuration over these options: keys that it leaves out stay as they are.
    ///
    /// # Errors
    /// As [`TrainFile::parse`] and [`TrainFile::over`].
    pub fn parse(self, text: &str) -> Result<Self> {
        TrainFile::parse(text)?.over(self)
    }

    /// Reads what [`TrainConfig::text`] wrote, in this version or an earlier one: a key that came later has the value that stood for it
    /// before.
    ///
    /// # Errors
    /// As [`TrainConfig::parse`].
    pub fn parse_written(text: &str) -> Result<Self> {
        let mut table: Table = toml::from_str(text).map_err(|e| err!(InvalidConfig, "{}", e.message()))?;
        for (name, key, value) in ADDED {
            if let Some(Value::Table(options)) = table.get_mut(name)
                && !options.contains_key(key)
            {
                let value = value.parse().map_or(Value::String(value.into()), Value::Float);
                options.insert(key.into(), value);
            }
        }
        Self::default().parse(&table.to_string())
    }

    /// These options as the text of a configuration with every key, which [`TrainConfig::parse`] reads to the same.
    ///
    /// # Errors
    /// `InvalidConfig` for a number that the format cannot hold, such as a seed beyond 63 bits.
    pub fn text(&self) -> Result<String> {
        toml::to_string(&File::of(self)).map_err(|e| err!(InvalidConfig, "the configuration cannot be written: {e}"))
    }

    /// Every key with its value, such as `("model.width", "64")`.
    ///
    /// # Errors
    /// As [`TrainConfig::text`].
    pub fn entries(&self) -> Result<Vec<(String, String)>> {
        let table: Table = toml::from_str(&self.text()?)
            .map_err(|e| err!(Internal, "cannot read a configuration back: {e}; please report it"))?;
        let mut entries = Vec::new();
        list("", &Value::Table(table), &mut entries);
        Ok(entries)
    }
}

/// The keys below `name` with their values.
fn list(name: &str, value: &Value, to: &mut Vec<(String, String)>) {
    match value {
        Value::Table(table) => table.iter().for_each(|(key, value)| {
            let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            list(&name, value, to);
        }),
        Value::Array(tables) if tables.iter().any(Value::is_table) => tables.iter().for_each(|t| list(name, t, to)),
        Value::String(text) => to.push((name.to_owned(), text.clone())),
        _ => to.push((name.to_owned(), value.to_string())),
    }
}
