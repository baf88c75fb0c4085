//! JSON that the command line reads: a history in lines, ids of a flag, lists of an item table.

use super::checks::{ask, sound};
use super::golden;
use super::tables::lists;
use crate::command_line::{Ids, time};
use crate::history::History;
use docent::serve::{Engine, EngineOptions, Filter, Query};
use std::path::Path;

/// Events that an engine is asked about, so that no input takes long.
const MOST: usize = 64;

thread_local! {
    static ENGINE: (tempfile::TempDir, Engine) = {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(golden::copy("ranker", folder.path()), &EngineOptions::default()).unwrap();
        (folder, engine)
    };
}

/// The first byte says what the others are.
pub fn json(bytes: &[u8]) {
    let (which, rest) = bytes.split_first().unwrap_or((&0, &[]));
    match which % 8 {
        0 | 1 | 4 | 5 => history(rest),
        2 | 6 => ids(rest),
        3 => lists("lists.json", rest),
        _ => lists("lists.json.zst", rest),
    }
}

fn history(bytes: &[u8]) {
    let Some(history) = sound(History::parse(bytes, Path::new("history.jsonl"))) else { return };
    let fields = history.fields();
    let events = history.events(&fields);
    let events = &events[events.len().saturating_sub(MOST)..];
    ENGINE.with(|(_, engine)| {
        for query in
            [Query::history(events), Query::history(events).skip_unknown(), Query::entity("p0001").and_then(events)]
        {
            if let Some(list) = sound(engine.recommend(&query, &Filter::default(), 10)) {
                assert!(list.items.iter().all(|item| item.score.is_finite()), "{list:?}");
            }
        }
    });
}

fn ids(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for refused in [time(text).err(), text.parse::<Ids>().err()].into_iter().flatten() {
        assert!(!refused.is_empty());
    }
    let Ok(flag) = text.parse::<Ids>() else { return };
    ENGINE.with(|(_, engine)| {
        let ids = Ids::of(&[flag], &engine.current()).unwrap();
        assert!(!ids.is_empty() && ids.iter().all(|id| !id.is_empty()), "{ids:?}");
        ask(engine, &ids.iter().take(2).map(String::as_str).collect::<Vec<_>>());
    });
}
