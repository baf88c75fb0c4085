//! The order in which publishing reaches the disk, and what a power cut at any point leaves.

use super::disks::{Failing, Op, Recorder};
use super::{content, create, number, publish, write};
use crate::store::{GenerationId, RunRecord, Store};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The calls without their payloads, paths relative to the store, hashes shortened.
fn short(op: &Op, root: &Path) -> String {
    let name = |p: &PathBuf| {
        let p = p.strip_prefix(root).unwrap_or(p).to_str().unwrap().to_owned();
        p.split_once("segments/").map_or(p.clone(), |(_, file)| match file {
            "" => "segments".into(),
            _ => format!("segments/#{}", &file[64..]),
        })
    };
    match op {
        Op::CreateDir(p) => format!("mkdir {}", name(p)),
        Op::Create(p) => format!("create {}", name(p)),
        Op::Write(p, _) => format!("write {}", name(p)),
        Op::Sync(p) => format!("fsync {}", name(p)),
        Op::Protect(p) => format!("chmod {}", name(p)),
        Op::Rename(a, b) => format!("rename {} {}", name(a), name(b)),
        Op::Remove(p) => format!("remove {}", name(p)),
        Op::SyncDir(p) => format!("fsyncdir {}", name(p)),
        Op::Done(n) => format!("done {n}"),
    }
}

#[test]
fn publishing_reaches_the_disk_in_the_promised_order() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Recorder::default();
    let store = create(dir.path(), disk.clone()).unwrap();
    disk.0.lock().unwrap().clear();
    let mut publisher = store.publisher().unwrap();
    publisher.slice("own", &[3], &[1u8, 2, 3]).unwrap();
    publisher.publish(&content(1), &RunRecord::default()).unwrap();
    let mut calls: Vec<String> = disk.0.lock().unwrap().iter().map(|op| short(op, dir.path())).collect();
    calls.dedup();
    let expected = [
        "create segments/#.segment.tmp",
        "write segments/#.segment.tmp",
        "fsync segments/#.segment.tmp",
        "chmod segments/#.segment.tmp",
        "rename segments/#.segment.tmp segments/#.segment",
        "fsyncdir segments",
        "create generations/00000001.run.tmp",
        "write generations/00000001.run.tmp",
        "fsync generations/00000001.run.tmp",
        "chmod generations/00000001.run.tmp",
        "rename generations/00000001.run.tmp generations/00000001.run",
        "fsyncdir generations",
        "create generations/00000001.manifest.tmp",
        "write generations/00000001.manifest.tmp",
        "fsync generations/00000001.manifest.tmp",
        "chmod generations/00000001.manifest.tmp",
        "rename generations/00000001.manifest.tmp generations/00000001.manifest",
        "fsyncdir generations",
        "create CURRENT.tmp",
        "write CURRENT.tmp",
        "fsync CURRENT.tmp",
        "rename CURRENT.tmp CURRENT",
        "fsyncdir ",
    ];
    assert_eq!(calls, expected);
}

/// A file's bytes: as written, and as they are on the platter.
#[derive(Debug, Clone, Default)]
struct Inode {
    written: Vec<u8>,
    durable: Option<Vec<u8>>,
}

/// A change of a directory that is not on the platter yet.
#[derive(Debug, Clone)]
enum Change {
    Add(PathBuf, usize),
    Move(PathBuf, PathBuf, usize),
    Drop(PathBuf),
    Folder(PathBuf),
}

/// A disk with a volatile cache in front of it.
#[derive(Debug, Clone, Default)]
struct Model {
    inodes: Vec<Inode>,
    /// What programs see.
    names: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    folders: Vec<PathBuf>,
    pending: BTreeMap<PathBuf, Vec<Change>>,
}

impl Model {
    fn change(&mut self, path: &Path, change: Change) {
        self.pending.entry(path.parent().unwrap().into()).or_default().push(change);
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::CreateDir(p) => self.change(p, Change::Folder(p.clone())),
            Op::Create(p) => {
                self.inodes.push(Inode::default());
                self.names.insert(p.clone(), self.inodes.len() - 1);
                self.change(p, Change::Add(p.clone(), self.inodes.len() - 1));
            }
            Op::Write(p, bytes) => self.inodes[self.names[p]].written.extend_from_slice(bytes),
            Op::Sync(p) => {
                let inode = &mut self.inodes[self.names[p]];
                inode.durable = Some(inode.written.clone());
            }
            Op::Rename(a, b) => {
                let inode = self.names.remove(a).unwrap();
                self.names.insert(b.clone(), inode);
                self.change(b, Change::Move(a.clone(), b.clone(), inode));
            }
            Op::Remove(p) => {
                self.names.remove(p).unwrap();
                self.change(p, Change::Drop(p.clone()));
            }
            Op::SyncDir(p) => {
                for change in self.pending.remove(p).unwrap_or_default() {
                    Self::settle(&mut self.durable, &mut self.folders, &change);
                }
            }
            Op::Protect(_) | Op::Done(_) => {}
        }
    }

    fn settle(names: &mut BTreeMap<PathBuf, usize>, folders: &mut Vec<PathBuf>, change: &Change) {
        match change {
            Change::Add(p, inode) => drop(names.insert(p.clone(), *inode)),
            Change::Move(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            Change::Drop(p) => drop(names.remove(p)),
            Change::Folder(p) => folders.push(p.clone()),
        }
    }

    /// Disks that a power cut may leave: which pending changes of directories survived, and what became of bytes that
    /// were not synced (nothing, half, zeros, all).
    fn images(&self) -> Vec<BTreeMap<PathBuf, Option<Vec<u8>>>> {
        let changes: Vec<&Change> = self.pending.values().flatten().collect();
        let n = changes.len();
        let mut subsets: Vec<Vec<bool>> = Vec::new();
        if n <= 5 {
            subsets.extend((0..1u32 << n).map(|bits| (0..n).map(|i| bits >> i & 1 == 1).collect()));
        } else {
            subsets.extend((0..=n).map(|prefix| (0..n).map(|i| i < prefix).collect()));
            subsets.extend((0..n).map(|only| (0..n).map(|i| i == only).collect()));
            subsets.extend((0..n).map(|without| (0..n).map(|i| i != without).collect()));
        }
        let mut images = Vec::new();
        for subset in subsets {
            let (mut names, mut folders) = (self.durable.clone(), self.folders.clone());
            for (change, _) in changes.iter().zip(&subset).filter(|(_, kept)| **kept) {
                Self::settle(&mut names, &mut folders, change);
            }
            let synced = |inode: &Inode| inode.durable.as_ref() == Some(&inode.written);
            let torn = names.values().any(|i| !synced(&self.inodes[*i]));
            for variant in 0..if torn { 4 } else { 1 } {
                let mut image: BTreeMap<PathBuf, Option<Vec<u8>>> = folders.iter().map(|f| (f.clone(), None)).collect();
                for (path, inode) in &names {
                    if !path.parent().is_some_and(|p| image.contains_key(p)) {
                        continue;
                    }
                    let inode = &self.inodes[*inode];
                    let bytes = match variant {
                        _ if synced(inode) => inode.written.clone(),
                        0 => inode.durable.clone().unwrap_or_default(),
                        1 => inode.written[..inode.written.len() / 2].to_vec(),
                        2 => vec![0; inode.written.len()],
                        _ => inode.written.clone(),
                    };
                    image.insert(path.clone(), Some(bytes));
                }
                images.push(image);
            }
        }
        images
    }
}

fn build(image: &BTreeMap<PathBuf, Option<Vec<u8>>>, root: &Path, at: &Path) {
    for (path, bytes) in image {
        let to = at.join(path.strip_prefix(root.parent().unwrap()).unwrap());
        match bytes {
            None => std::fs::create_dir(&to).unwrap(),
            Some(bytes) => std::fs::write(&to, bytes).unwrap(),
        }
    }
}

#[test]
fn a_power_cut_at_any_point_leaves_the_old_or_the_new_generation() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let disk = Recorder::default();
    let done = |n: u64| disk.note(Ok(()), Op::Done(n)).unwrap();
    // After step i of this script, generation `served[i]` is served; 0 is none.
    let served = [0, 1, 2, 1, 3, 3];
    let store = create(&root, disk.clone()).unwrap();
    done(1);
    publish(&store, 1).unwrap();
    done(2);
    publish(&store, 2).unwrap();
    done(3);
    store.rollback(None).unwrap();
    done(4);
    let mut publisher = store.publisher().unwrap();
    write(&mut publisher, 3).unwrap();
    publisher.publish(&content(3), &RunRecord::default()).unwrap();
    drop(publisher);
    done(5);
    assert_eq!(store.prune(1).unwrap(), [GenerationId(1), GenerationId(2)]);
    done(6);

    let log = disk.0.lock().unwrap().clone();
    let (mut model, mut step, mut images, mut both) = (Model::default(), 0usize, 0, [false; 2]);
    for (index, op) in log.iter().enumerate() {
        model.apply(op);
        if let Op::Done(n) = op {
            step = *n as usize;
        }
        for image in model.images() {
            images += 1;
            let at = tempfile::tempdir().unwrap();
            build(&image, &root, at.path());
            let path = at.path().join("store");
            let context = format!("after call {index}: {}", short(op, &root));
            if step == 0 {
                let store = create(&path, Failing::default()).unwrap_or_else(|e| panic!("{context}: {e}"));
                assert_eq!(number(&store).unwrap(), 0);
                continue;
            }
            let store = Store::open(&path).unwrap_or_else(|e| panic!("{context}: {e}"));
            let found = number(&store).unwrap_or_else(|e| panic!("{context}: {e}"));
            let (before, after) = (served[step - 1], *served.get(step).unwrap_or(&3));
            let at_rest = matches!(op, Op::Done(_));
            assert!(found == before || (found == after && !at_rest), "{context}: generation {found} is served");
            if step == 2 {
                both[usize::from(found == after)] = true;
            }
            for info in store.generations().unwrap() {
                assert_eq!(info.problem, None, "{context}");
            }
            if images % 7 == 0 {
                let store = create(&path, Failing::default()).unwrap();
                let id = publish(&store, 9).unwrap_or_else(|e| panic!("{context}: {e}"));
                assert!(id.0 > found, "{context}: number {id} was used before");
                assert_eq!(number(&store).unwrap(), 9);
            }
        }
    }
    assert!(images > 300, "only {images} images");
    assert_eq!(both, [true, true], "the model must show both outcomes");
}

/// The model itself must be able to show a mistake: without the syncs of directories, something is lost.
#[test]
fn the_model_shows_a_missing_sync() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let disk = Recorder::default();
    let store = create(&root, disk.clone()).unwrap();
    publish(&store, 1).unwrap();
    let log = disk.0.lock().unwrap().clone();
    for (folder, lost) in [("segments", true), ("generations", true), ("", true)] {
        let mut model = Model::default();
        let skip = log
            .iter()
            .rposition(|op| {
                *op == Op::SyncDir(root.join(folder)) || *op == Op::SyncDir(root.join(folder).components().collect())
            })
            .unwrap();
        for (_, op) in log.iter().enumerate().filter(|(i, _)| *i != skip) {
            model.apply(op);
        }
        let bad = model.images().iter().any(|image| {
            let at = tempfile::tempdir().unwrap();
            build(image, &root, at.path());
            Store::open(at.path().join("store")).and_then(|s| number(&s)).ok() != Some(1)
        });
        assert_eq!(bad, lost, "without the sync of {folder:?}");
    }
}
