//! A measured result with everything that is needed to repeat it: kept as a file beside the benchmarks.

use super::evaluation::Evaluation;
use super::machine::Machine;
use crate::data::{Dataset, iso_date};
use crate::error::{Error, Result};
use std::fmt::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// A result and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// What was measured, in a few words.
    pub title: String,
    /// The command that repeats it.
    pub command: String,
    /// The generation that was judged.
    pub generation: String,
    /// The dataset's name.
    pub dataset: String,
    /// The dataset's content hash, hexadecimal.
    pub data_hash: String,
    /// The day, such as 2024-01-31, UTC.
    pub date: String,
    /// What it ran on.
    pub machine: Machine,
    /// The configuration: names and values of all options.
    pub configuration: Vec<(String, String)>,
    /// Further figures, such as the time of the training, with their units.
    pub figures: Vec<(String, String)>,
    /// The result.
    pub evaluation: Evaluation,
}

impl Record {
    /// A record of `evaluation` on `data`, made now and here, with nothing in its configuration and figures yet.
    pub fn new(title: &str, command: &str, generation: &str, data: &Dataset, evaluation: Evaluation) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        Self {
            title: title.to_owned(),
            command: command.to_owned(),
            generation: generation.to_owned(),
            dataset: data.schema.name.clone(),
            data_hash: data.hash.iter().map(|b| format!("{b:02x}")).collect(),
            date: iso_date(now),
            machine: Machine::here(),
            configuration: Vec::new(),
            figures: Vec::new(),
            evaluation,
        }
    }

    /// The record as a Markdown page.
    pub fn markdown(&self) -> String {
        let machine = &self.machine;
        let cpu = if machine.cpu.is_empty() { "unknown processor" } else { &machine.cpu };
        let mut text = format!("# {}\n\n", self.title);
        let facts = [
            ("command", format!("`{}`", self.command)),
            ("date", self.date.clone()),
            ("machine", format!("{cpu}, {} cores, {}", machine.cores, machine.system)),
            ("dataset", format!("{} (BLAKE3 {})", self.dataset, self.data_hash)),
            ("generation", self.generation.clone()),
            ("questions", format!("{} (hash {})", self.evaluation.targets, self.evaluation.target_hash)),
        ];
        for (key, value) in facts.iter().map(|(k, v)| (*k, v)).chain(self.figures.iter().map(|(k, v)| (k.as_str(), v)))
        {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "- {key}: {value}");
        }
        if !self.configuration.is_empty() {
            text += "\n## Configuration\n\n| option | value |\n|---|---|\n";
            for (option, value) in &self.configuration {
                let _ = writeln!(text, "| {option} | {} |", value.replace('|', "\\|"));
            }
        }
        let _ = write!(text, "\n## Result\n\n```text\n{}```\n", self.evaluation.table());
        text
    }

    /// The record as JSON; the result has the keys of the command line's contract.
    #[cfg(feature = "files")]
    pub fn json(&self) -> serde_json::Value {
        let object = |pairs: &[(String, String)]| -> serde_json::Map<String, serde_json::Value> {
            pairs.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect()
        };
        serde_json::json!({
            "title": self.title,
            "command": self.command,
            "date": self.date,
            "machine": self.machine,
            "dataset": self.dataset,
            "data_hash": self.data_hash,
            "configuration": object(&self.configuration),
            "figures": object(&self.figures),
            "evaluation": self.evaluation.json(&self.generation),
        })
    }

    /// Writes `<name>.md` (and `<name>.json` where the feature `files` is on) into the folder `dir`, which is made if it
    /// does not exist. Each file is written whole beside its place and then moved there.
    ///
    /// # Errors
    /// `Io`, `NoSpace` or `PermissionDenied`, naming the file; `InvalidArgument` if `name` is not a plain file name.
    pub fn write(&self, dir: &Path, name: &str) -> Result<()> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\\']) {
            return Err(crate::error::err!(
                InvalidArgument,
                "{name:?} cannot name a record; choose a file name without folder and extension"
            ));
        }
        std::fs::create_dir_all(dir).map_err(|e| Error::io("cannot create the folder", dir, e))?;
        place(&dir.join(format!("{name}.md")), &self.markdown())?;
        #[cfg(feature = "files")]
        place(&dir.join(format!("{name}.json")), &format!("{:#}\n", self.json()))?;
        Ok(())
    }
}

fn place(path: &Path, text: &str) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = Path::new(&beside);
    std::fs::write(beside, text).map_err(|e| Error::io("cannot write", beside, e))?;
    std::fs::rename(beside, path).map_err(|e| Error::io("cannot move a record to", path, e))
}
