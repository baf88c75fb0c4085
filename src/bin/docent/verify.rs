//! `docent verify`: every byte of the generations that a store keeps.

use crate::output::{Output, note, size};
use docent::store::{EntityStore, EntityStoreOptions, GenerationId, LiveStore, Store, VerifyReport};
use docent::{ErrorKind, Result};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Check every byte of all generations that are kept against their checksums, and what engines kept beside them. Exits 1 where something
/// is wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  docent verify --store shop.store")]
pub(crate) struct Arguments {
    /// The store.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// This generation alone [default: all that are kept].
    #[arg(long, value_name = "N", value_parser = crate::generations::number)]
    generation: Option<GenerationId>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let store = Store::open(&arguments.store)?;
    let mut all = match arguments.generation {
        Some(_) => vec![store.verify(arguments.generation)?],
        None => store.verify_all()?,
    };
    let others = all.split_off(1);
    let mut report = all.swap_remove(0);
    let sound = report.ok;
    for (other, id) in others.iter().filter_map(|other| other.generation.map(|id| (other, id))) {
        report.ok &= other.ok;
        // Generations share what they have in common.
        let new = |problem: &&String| !report.problems.contains(*problem);
        let told: Vec<_> = other.problems.iter().filter(new).map(|p| format!("generation {id}: {p}")).collect();
        report.problems.extend(told);
    }
    let live = match live(&store) {
        Ok(live) => live,
        Err(e) if e.kind() == ErrorKind::Corrupt => {
            report.ok = false;
            report.problems.push(e.message().to_owned());
            None
        }
        Err(e) => return Err(e),
    };
    let id = report.generation.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
    output.result(
        || {
            json!({
                "ok": report.ok,
                "generation": report.generation.map(|g| g.0),
                "bytes": report.bytes,
                "sections": report.sections,
                "problems": report.problems,
                "generations": checked(report.generation, sound, &others),
                "live": live.as_ref().map(|l| json!({"items": l.items, "entities": l.entities})),
            })
        },
        || {
            let verdict = if sound { "ok" } else { "damaged" };
            let mut text =
                format!("generation {id}: {verdict}, {} sections, {}\n", report.sections, size(report.bytes));
            for other in &others {
                let id = other.generation.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
                text += &format!("generation {id}: {}\n", if other.ok { "ok" } else { "damaged" });
            }
            if let Some(live) = &live {
                text += &format!("live.db: {} items added or removed, {} entities\n", live.items, live.entities);
            }
            for problem in &report.problems {
                text += &format!("- {problem}\n");
            }
            text
        },
    )?;
    if report.ok {
        return Ok(ExitCode::SUCCESS);
    }
    let (count, store) = (report.problems.len(), crate::command_line::word(&arguments.store));
    let what = match sound {
        true => {
            format!("generation {id} is sound, but {store} has {count} problems; restore the files")
        }
        false => format!(
            "generation {id} of {store} has {count} problems; restore the files, or go to a generation that is sound with `docent \
             rollback --store {store} --to N`"
        ),
    };
    Err(docent::Error::new(ErrorKind::Corrupt, what))
}

/// Each generation that was checked, and whether it is sound.
fn checked(first: Option<GenerationId>, sound: bool, others: &[VerifyReport]) -> Vec<Value> {
    let all = [(first, sound)].into_iter().chain(others.iter().map(|other| (other.generation, other.ok)));
    all.map(|(id, ok)| json!({"generation": id.map(|g| g.0), "ok": ok})).collect()
}

/// What engines kept in `live.db`.
struct Live {
    items: usize,
    entities: u64,
}

/// Reads every record of `live.db`, or of what an earlier version kept; `None` where there is none.
fn live(store: &Store) -> Result<Option<Live>> {
    if !["live.db", "live.redb"].iter().any(|name| store.path().join(name).exists()) {
        return Ok(None);
    }
    let file = Arc::new(LiveStore::open(store, true)?);
    if let Some(migration) = file.migrated() {
        note(format_args!("{migration}"));
    }
    let items = file.items()?;
    let mut entities = 0;
    EntityStore::new(file, &EntityStoreOptions::default())?.each(|_, _| {
        entities += 1;
        Ok(())
    })?;
    Ok(Some(Live { items: items.added.len() + items.removed.len(), entities }))
}
