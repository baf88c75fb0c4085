//! What damage to the file does to whoever reads states from it.

use super::*;
use crate::store::format::{LIVE, LIVE_SIDES};

#[test]
fn damage_is_told_and_never_a_panic_or_another_state() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let store = open(dir.path(), &within(1000));
    for n in 0..1500 {
        observe(&store, &format!("u{}", n * 7919 % 300), n).unwrap();
    }
    for id in ["u5", "u77", "u123"] {
        store.forget(id).unwrap();
    }
    let sound_states = all(&store);
    drop(store);
    let path = dir.path().join(LIVE);
    let sound = std::fs::read(&path).unwrap();
    let used: Vec<usize> = (0..sound.len()).filter(|at| sound[*at] != 0).collect();
    let mut counts = [0; 3];
    let mut examine = |bytes: &[u8], n: usize, what: &str| {
        std::fs::write(&path, bytes).unwrap();
        // What a file that cannot be closed in order leaves beside it.
        for side in LIVE_SIDES {
            let _ = std::fs::remove_file(dir.path().join(side));
        }
        let mut told = 0;
        let mut tell = |e: Error| {
            let known = [ErrorKind::Corrupt, ErrorKind::UpgradeRequired, ErrorKind::Poisoned, ErrorKind::Io];
            assert!(known.contains(&e.kind()) && e.message().contains("live.db"), "{e:?}");
            told += 1;
        };
        let opened = LiveStore::open(&Store::open(dir.path()).unwrap(), n.is_multiple_of(5));
        match opened.and_then(|live| EntityStore::new(Arc::new(live), &EntityStoreOptions::default())) {
            Err(e) => tell(e),
            Ok(store) => {
                for id in (0..300).map(|n| format!("u{n}")) {
                    match store.get(&id) {
                        Ok(state) => assert_eq!(state.as_ref(), sound_states.get(&id), "{id} with {what}"),
                        Err(e) => tell(e),
                    }
                }
                let outcomes = [
                    store.each(|id, state| {
                        assert_eq!(Some(state), sound_states.get(id));
                        Ok(())
                    }),
                    observe(&store, "new", 1).map(|_| ()),
                    store.purge_idle(100).map(|_| ()),
                    store.compact(),
                    store.forget("u9").map(|_| ()),
                ];
                outcomes.into_iter().filter_map(Result::err).for_each(&mut tell);
            }
        }
        counts[usize::from(told > 0)] += 1;
    };
    for (n, at) in used.iter().step_by(used.len() / 400 + 1).enumerate() {
        let mut bytes = sound.clone();
        bytes[*at] ^= [1, 0x80, 0xff][n % 3];
        examine(&bytes, n, &format!("byte {at} changed"));
    }
    for cut in [1, 63, 512, 4096, sound.len() / 3, sound.len() / 2, sound.len() - 4096, sound.len() - 1] {
        examine(&sound[..cut], 1, &format!("all but {cut} bytes cut off"));
    }
    let [same, told, _] = counts;
    assert!(told > 20, "{same} did not matter, {told} were told");
    std::fs::write(&path, &sound).unwrap();
    LIVE_SIDES.iter().for_each(|side| _ = std::fs::remove_file(dir.path().join(side)));
    assert_eq!(all(&open(dir.path(), &EntityStoreOptions::default())), sound_states);
}
