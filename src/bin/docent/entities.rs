//! `docent entities`: what engines have kept of entities while they served.

use crate::command_line::id;
use crate::lines::each_line;
use crate::output::Output;
use docent::store::{EntityState, EntityStore, EntityStoreOptions, LiveStore, Store};
use docent::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// What engines have kept of people while they served: count, export, import, forget, purge.
///
/// Engines may have the store open meanwhile, in this process or another: they see what changes here.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  docent entities --store shop.store --forget ann")]
#[command(group = clap::ArgGroup::new("what").args(["export", "import", "forget", "purge_before", "compact"]))]
pub(crate) struct Arguments {
    /// The store.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Write every state to FILE, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// Read states from such a FILE; those of the same ids are replaced.
    #[arg(long, value_name = "FILE")]
    import: Option<PathBuf>,
    /// Forget this person, and leave no byte of what was kept.
    #[arg(long, value_name = "ID", value_parser = id, allow_hyphen_values = true)]
    forget: Option<String>,
    /// Forget everybody whose newest event is older than this (Unix milliseconds).
    #[arg(long, value_name = "MS")]
    purge_before: Option<i64>,
    /// Rewrite the file, so that nothing is left of what was removed or replaced.
    #[arg(long)]
    compact: bool,
}

/// A line of an export.
#[derive(Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) entity: String,
    #[serde(flatten)]
    pub(crate) state: EntityState,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let store = Store::open(&arguments.store)?;
    let file = LiveStore::open(&store, false)?;
    if let Some(migration) = file.migrated() {
        output.say(format_args!("{migration}"));
    }
    let entities = EntityStore::new(Arc::new(file), &EntityStoreOptions::default())?;
    let (mut exported, mut imported, mut forgotten) = (None, None, None);
    if let Some(path) = &arguments.export {
        exported = Some(export(&entities, path)?);
    } else if let Some(path) = &arguments.import {
        imported = Some(import(&entities, path)?);
    } else if let Some(entity) = &arguments.forget {
        forgotten = Some(u64::from(entities.forget(entity)?));
        entities.compact()?;
    } else if let Some(before) = arguments.purge_before {
        forgotten = Some(entities.purge_idle(before)?);
        entities.compact()?;
    } else if arguments.compact {
        entities.compact()?;
    }
    let left = entities.len()?;
    output.result(
        || {
            json!({
                "store": arguments.store.display().to_string(),
                "entities": left,
                "exported": exported,
                "imported": imported,
                "forgotten": forgotten,
            })
        },
        || {
            let done = |n: Option<u64>, what: &str| n.map_or_else(String::new, |n| format!("{what} {n}; "));
            let done = done(exported, "exported") + &done(imported, "imported") + &done(forgotten, "forgotten");
            format!("{done}{left} entities in {}\n", entities_file(&store).display())
        },
    )?;
    Ok(ExitCode::SUCCESS)
}

fn entities_file(store: &Store) -> PathBuf {
    store.path().join("live.db")
}

/// Writes all states; gives how many.
pub(crate) fn export(entities: &EntityStore, path: &Path) -> Result<u64> {
    let failed = |e| Error::io("cannot write", path, e);
    let mut to = BufWriter::new(File::create_new(path).map_err(failed)?);
    let mut count = 0;
    entities.each(|entity, state| {
        let line = Line { entity: entity.to_owned(), state: state.clone() };
        serde_json::to_writer(&mut to, &line)
            .map_err(|e| Error::new(ErrorKind::Io, format!("cannot write {}: {e}; free some space", path.display())))?;
        to.write_all(b"\n").map_err(failed)?;
        count += 1;
        Ok(())
    })?;
    to.into_inner().map_err(|e| failed(e.into_error()))?.sync_all().map_err(failed)?;
    Ok(count)
}

/// Reads states, all or none; gives how many.
pub(crate) fn import(entities: &EntityStore, path: &Path) -> Result<u64> {
    let failed = |e| Error::io("cannot read", path, e);
    let mut lines: Vec<Line> = Vec::new();
    each_line(BufReader::new(File::open(path).map_err(failed)?), path, |number, text| {
        let refused = |why: &str| {
            let path = path.display();
            let message =
                format!("line {number} of {path} is no exported state: {why}; correct the file, nothing was imported");
            Error::new(ErrorKind::InvalidData, message)
        };
        let line: Line = serde_json::from_str(text).map_err(|e| refused(&e.to_string()))?;
        EntityStore::check(&line.entity, &line.state).map_err(|e| refused(e.message()))?;
        lines.push(line);
        Ok(())
    })?;
    for line in &lines {
        entities.put(&line.entity, &line.state)?;
    }
    entities.flush()?;
    Ok(lines.len() as u64)
}
