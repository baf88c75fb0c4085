//! Reads `live.redb`, in which earlier versions kept what is in the live file now, and never writes it.
//!
//! It is a file of redb's format version 3 (<https://github.com/cberner/redb/blob/master/docs/design.md>): two commit slots, each with the root
//! of a tree of tables, and a tree for each table; a page's checksum stands beside its number. redb itself follows page numbers, and
//! allocates what they claim, before it checks them; here nothing is followed whose checksum is wrong, so that a damaged file is told
//! and costs no more memory than it is long.

use super::failure::corrupt;
use crate::error::{Error, Result, err};
use crate::store::directory::Store;
use crate::store::fsio::read_exact;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_128;

/// How long it is waited for the file's lock.
const PATIENCE: Duration = Duration::from_secs(2);
const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
const PAGE: u64 = 4096;
/// Header and both commit slots.
pub(super) const HEADER: usize = 64 + 2 * SLOT;
const SLOT: usize = 128;
/// Flags of the byte behind the magic number.
const SECOND_IS_PRIMARY: u8 = 1;
const UNCLEAN: u8 = 2;
/// Deepest tree that is followed: a page has two children at least.
const DEPTH: usize = 40;

/// A file of an earlier version.
pub(super) struct Before {
    store: Store,
    path: PathBuf,
    /// Locked, as an engine of an earlier version locks it.
    file: File,
    length: u64,
    /// Bytes of a region's header, and of a whole region.
    regions: [u64; 2],
    /// The tables, by name.
    tables: Vec<(String, Option<Root>)>,
    /// The first bytes, which differ where anything in the file does.
    pub(super) header: [u8; HEADER],
}

/// What is called with each key and value.
type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<()>;

/// The root of a tree.
#[derive(Clone, Copy)]
struct Root {
    page: u64,
    checksum: u128,
}

impl Before {
    /// Opens the file; `None` where there is none, or one that nothing was ever committed to.
    ///
    /// # Errors
    /// `Locked` where an engine of an earlier version has it open; `Corrupt` where it is damaged; input errors.
    pub(super) fn open(store: &Store, path: &Path) -> Result<Option<Self>> {
        let failed = |e| Error::io("cannot read", path, e);
        let file = match store.disk().open(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                // Whoever takes the file over, or was forked from it, lets go of it soon.
                Err(TryLockError::WouldBlock) if begun.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => {
                    let path = path.display();
                    return Err(err!(
                        Locked,
                        "{path} is open in an engine of an earlier version; close that one first"
                    ));
                }
                Err(TryLockError::Error(e)) => return Err(Error::io("cannot lock", path, e)),
            }
        }
        let length = file.metadata().map_err(failed)?.len();
        let mut header = [0; HEADER];
        if length < PAGE {
            return match length {
                0 => Ok(None),
                _ => Err(corrupt(path, "it ends too early")),
            };
        }
        read_exact(store.disk(), &file, &mut header, 0).map_err(failed)?;
        if header == [0; HEADER] {
            // Its maker ended before the first commit.
            return Ok(None);
        }
        let mut it = Self {
            store: store.clone(),
            path: path.to_owned(),
            file,
            length,
            regions: [0; 2],
            tables: Vec::new(),
            header,
        };
        it.tables = it.find_tables()?;
        Ok(Some(it))
    }

    fn wrong(&self, what: &str) -> Error {
        corrupt(&self.path, what)
    }

    /// The tables as of the last commit.
    fn find_tables(&mut self) -> Result<Vec<(String, Option<Root>)>> {
        let header = self.header;
        let flags = header.get(MAGIC.len()).copied().unwrap_or_default();
        let [page, region_header, region_data] = [12, 16, 20].map(|at| u64::from(number(&header, at)));
        if !header.starts_with(MAGIC) || page != PAGE {
            return Err(self.wrong("its header makes no sense"));
        }
        self.regions = [region_header * PAGE, (region_header + region_data) * PAGE];
        let slot = |second: bool| {
            header.get(64 + SLOT * usize::from(second)..).and_then(|s| s.get(..SLOT)).unwrap_or_default()
        };
        let primary = flags & SECOND_IS_PRIMARY != 0;
        let sound = |second: bool| {
            let (content, sum) = slot(second).split_at_checked(SLOT - 16).unwrap_or_default();
            content.first() == Some(&3) && xxh3_128(content).to_le_bytes() == sum
        };
        let commit = |second: bool| long(slot(second), 104);
        // A file that was closed says which slot is right. After a crash it is the newest of which everything is there.
        let slots = match flags & UNCLEAN != 0 {
            false => vec![primary],
            true if commit(!primary) > commit(primary) => vec![!primary, primary],
            true => vec![primary, !primary],
        };
        for second in slots.into_iter().filter(|second| sound(*second)) {
            let root = (slot(second).get(1) == Some(&1)).then(|| root(slot(second), 8));
            if let Ok(tables) = self.tables_of(root) {
                return Ok(tables);
            }
        }
        Err(self.wrong("no commit in it is whole"))
    }

    /// The tables under a root, each of whose pages is sound.
    fn tables_of(&self, tables: Option<Root>) -> Result<Vec<(String, Option<Root>)>> {
        let mut found = Vec::new();
        self.each_pair(tables, None, &mut |name, definition| {
            let name = std::str::from_utf8(name).map_err(|_| self.wrong("the name of a table is no text"))?;
            if definition.len() < 42 {
                return Err(self.wrong("the definition of a table is too short"));
            }
            found.push((name.to_owned(), (definition.get(9) == Some(&1)).then(|| root(definition, 10))));
            Ok(())
        })?;
        for (name, root) in &found {
            self.each_pair(*root, fixed(name), &mut |_, _| Ok(()))?;
        }
        Ok(found)
    }

    /// Calls `visit` with every key and value of a table, in the order of the keys.
    ///
    /// # Errors
    /// `Corrupt` where a page is damaged or a key no text; input errors; what `visit` gives.
    pub(super) fn each(&self, table: &str, mut visit: impl FnMut(&str, &[u8]) -> Result<()>) -> Result<()> {
        let root = self.tables.iter().find(|(name, _)| name == table).and_then(|(_, root)| *root);
        self.each_pair(root, fixed(table), &mut |key, value| {
            visit(std::str::from_utf8(key).map_err(|_| self.wrong("a key is no text"))?, value)
        })
    }

    fn each_pair(&self, root: Option<Root>, fixed: Option<usize>, visit: Visit<'_>) -> Result<()> {
        root.map_or(Ok(()), |root| self.walk(root, fixed, DEPTH, visit))
    }

    fn walk(&self, root: Root, fixed: Option<usize>, depth: usize, visit: Visit<'_>) -> Result<()> {
        let page = self.page(root.page)?;
        let damaged = || self.wrong("a page is not what was written");
        let count =
            usize::from(u16::from_le_bytes(page.get(2..4).and_then(|b| b.first_chunk()).copied().unwrap_or_default()));
        let pairs = page.first() == Some(&1);
        if count == 0 || depth == 0 || !(pairs || page.first() == Some(&2)) {
            return Err(damaged());
        }
        // Where the keys end, and in a leaf the values: of each, its end from the start of the page.
        let ends = if pairs { 4 } else { 8 + 24 * (count + 1) };
        let keys = ends + 4 * count * if pairs && fixed.is_none() { 2 } else { 1 };
        let key_end = |i: usize| number(&page, ends + 4 * i) as usize;
        let value_end = |i: usize| match fixed {
            Some(width) => key_end(count - 1) + width * (i + 1),
            None => number(&page, ends + 4 * (count + i)) as usize,
        };
        let end = if pairs { value_end(count - 1) } else { key_end(count - 1) };
        if page.get(..end).map(xxh3_128) != Some(root.checksum) {
            return Err(damaged());
        }
        if !pairs {
            for i in 0..=count {
                let checksum = page.get(8 + 16 * i..).and_then(|b| b.first_chunk()).copied().ok_or_else(damaged)?;
                let child = long(&page, 8 + 16 * (count + 1) + 8 * i);
                self.walk(Root { page: child, checksum: u128::from_le_bytes(checksum) }, fixed, depth - 1, visit)?;
            }
            return Ok(());
        }
        let (mut key, mut value) = (keys, key_end(count - 1));
        for i in 0..count {
            let content = page.get(key..key_end(i)).zip(page.get(value..value_end(i)));
            let (k, v) = content.ok_or_else(damaged)?;
            visit(k, v)?;
            (key, value) = (key_end(i), value_end(i));
        }
        Ok(())
    }

    /// The bytes of a page, which the file holds as a whole.
    fn page(&self, number: u64) -> Result<Vec<u8>> {
        let [header, region] = self.regions;
        let order = number >> 59;
        let index = number & (0xf_ffff >> order);
        let size = if order <= 20 { PAGE << order } else { u64::MAX };
        let start = ((number >> 20) & 0xf_ffff).checked_mul(region).and_then(|base| {
            let within = index.checked_mul(size)?;
            base.checked_add(PAGE)?.checked_add(header)?.checked_add(within)
        });
        let start = start.filter(|start| start.checked_add(size).is_some_and(|end| end <= self.length));
        let start = start.ok_or_else(|| self.wrong("a page lies outside of it"))?;
        let mut page = vec![0; size as usize];
        read_exact(self.store.disk(), &self.file, &mut page, start)
            .map_err(|e| Error::io("cannot read", &self.path, e))?;
        Ok(page)
    }
}

/// Bytes of each value of a table, where all have the same.
fn fixed(table: &str) -> Option<usize> {
    ["facts", "counters"].contains(&table).then_some(8)
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(u32::MAX, |b| u32::from_le_bytes(*b))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(u64::MAX, |b| u64::from_le_bytes(*b))
}

/// Page number and checksum of a root that stands at `at`.
fn root(bytes: &[u8], at: usize) -> Root {
    let checksum = bytes.get(at + 8..).and_then(|b| b.first_chunk()).copied().unwrap_or_default();
    Root { page: long(bytes, at), checksum: u128::from_le_bytes(checksum) }
}
