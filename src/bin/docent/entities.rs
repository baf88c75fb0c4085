//! `docent entities`: what engines have kept of entities while they served.

use crate::command_line::id;
use crate::lines::each_line;
use crate::output::Output;
use docent::serve::Generation;
use docent::store::{EntityState, EntityStore, EntityStoreOptions, LiveStore, OpenOptions, Store, Verify};
use docent::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::fs::{self, File};
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
    let Arguments { export: None, import: None, forget: None, purge_before: None, compact: false, .. } = arguments
    else {
        return change(arguments, &store, output);
    };
    if store.path().join("live.redb").exists() {
        // Counting what an earlier version kept takes it over.
        return change(arguments, &store, output);
    }
    let left = LiveStore::count_entities(&store)?;
    tell(arguments, &store, &Done::default(), left, output)
}

/// What was done.
#[derive(Default)]
struct Done {
    exported: Option<u64>,
    imported: Option<u64>,
    forgotten: Option<u64>,
    /// Whether the publication knows who was to be forgotten.
    published: Option<bool>,
}

/// Does what the arguments ask for.
fn change(arguments: &Arguments, store: &Store, output: &Output) -> Result<ExitCode> {
    let file = LiveStore::open(store, false)?;
    if let Some(migration) = file.migrated() {
        output.say(format_args!("{migration}"));
    }
    let entities = EntityStore::new(Arc::new(file), &EntityStoreOptions::default())?;
    let mut done = Done::default();
    if let Some(path) = &arguments.export {
        done.exported = Some(export(&entities, path)?);
    } else if let Some(path) = &arguments.import {
        done.imported = Some(import(&entities, path)?);
    } else if let Some(entity) = &arguments.forget {
        done.forgotten = Some(u64::from(entities.forget(entity)?));
        entities.compact()?;
        done.published = Some(published(store, entity, output)?);
    } else if let Some(before) = arguments.purge_before {
        done.forgotten = Some(entities.purge_idle(before)?);
        entities.compact()?;
    } else if arguments.compact {
        entities.compact()?;
    }
    tell(arguments, store, &done, entities.len()?, output)
}

/// Whether the current generation knows an entity, which is then said: what it was trained on is not what is kept while serving.
fn published(store: &Store, entity: &str, output: &Output) -> Result<bool> {
    let Some(id) = store.current()? else { return Ok(false) };
    let generation =
        Generation::new(store.snapshot(&OpenOptions { verify: Verify::Header, ..OpenOptions::default() })?)?;
    let knows = generation.find_entity(entity)?.is_some();
    if knows {
        output.say(format_args!(
            "generation {id} was trained with events of {entity:?} and still has them; leave them out of the dataset, train and \
             publish again, and prune the generations before"
        ));
    }
    Ok(knows)
}

fn tell(arguments: &Arguments, store: &Store, done: &Done, left: u64, output: &Output) -> Result<ExitCode> {
    output.result(
        || {
            json!({
                "store": arguments.store.display().to_string(),
                "entities": left,
                "exported": done.exported,
                "imported": done.imported,
                "forgotten": done.forgotten,
                "published": done.published,
            })
        },
        || {
            let what = |n: Option<u64>, what: &str| n.map_or_else(String::new, |n| format!("{what} {n}; "));
            let Done { exported, imported, forgotten, .. } = *done;
            let done = what(exported, "exported") + &what(imported, "imported") + &what(forgotten, "forgotten");
            format!("{done}{left} entities in {}\n", entities_file(store).display())
        },
    )?;
    Ok(ExitCode::SUCCESS)
}

fn entities_file(store: &Store) -> PathBuf {
    store.path().join("live.db")
}

/// Writes all states; gives how many. The file has its name when it is whole.
pub(crate) fn export(entities: &EntityStore, path: &Path) -> Result<u64> {
    if path.try_exists().map_err(|e| Error::io("cannot write", path, e))? {
        let path = path.display();
        return Err(Error::new(ErrorKind::AlreadyExists, format!("{path} is there already; name another file")));
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = write_states(entities, &partial)
        .and_then(|count| fs::rename(&partial, path).map(|()| count).map_err(|e| Error::io("cannot write", path, e)));
    if written.is_err() {
        // The error that counts is the first.
        let _ = fs::remove_file(&partial);
    }
    written
}

fn write_states(entities: &EntityStore, path: &Path) -> Result<u64> {
    let failed = |e| Error::io("cannot write", path, e);
    let mut to = BufWriter::new(File::create(path).map_err(failed)?);
    let mut count = 0;
    entities.each(|entity, state| {
        let line = Line { entity: entity.to_owned(), state: state.clone() };
        serde_json::to_writer(&mut to, &line).map_err(|e| failed(e.into()))?;
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
    let mut lines: Vec<(String, EntityState)> = Vec::new();
    each_line(BufReader::new(File::open(path).map_err(failed)?), path, |number, text| {
        let refused = |why: &str| {
            let path = path.display();
            let message =
                format!("line {number} of {path} is no exported state: {why}; correct the file, nothing was imported");
            Error::new(ErrorKind::InvalidData, message)
        };
        let line: Line = serde_json::from_str(text).map_err(|e| refused(&e.to_string()))?;
        EntityStore::check(&line.entity, &line.state).map_err(|e| refused(e.message()))?;
        lines.push((line.entity, line.state));
        Ok(())
    })?;
    entities.put_all(lines.into_iter().map(Ok))
}
