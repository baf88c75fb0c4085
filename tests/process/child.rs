//! What the tests of this package run in a process of its own: `docent-test-child TASK [STORE]`.

#[path = "../entity_crash/mod.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod entity_crash;
mod film;
mod recorded;
#[path = "../store_fixture/mod.rs"]
mod store_fixture;
mod together;

use docent::ErrorKind;
use docent::serve::{Engine, EngineOptions};
use docent::store::{LoadMode, OpenOptions, Store};
use entity_crash::{Plan, observe_until_killed};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;
use store_fixture::{publish, write};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let task = arguments.next().expect("docent-test-child TASK [STORE]");
    let store = arguments.next().unwrap_or_default();
    let path = Path::new(&store);
    match task.as_str() {
        "open-hostile-store" => open_hostile_store(path),
        "publish-once" => drop(publish(&Store::create(path).unwrap(), 5).unwrap()),
        "hold-the-lock" => hold_the_lock(path),
        "publish-until-killed" => publish_until_killed(path),
        "observe-until-killed" => observe_until_killed(&Plan::ordered().expect("a plan")),
        "observe-together" => together::observe(path),
        "add-items-until-killed" => add_items_until_killed(path),
        "observe-and-tell" => recorded::observe_and_tell(path),
        "take-over" => recorded::take_over(path),
        "observe-on-a-full-disk" => recorded::observe_on_a_full_disk(path),
        "read-a-map-after-a-cut" => read_after_a_cut(path, LoadMode::Map),
        "read-a-copy-after-a-cut" => read_after_a_cut(path, LoadMode::Copy),
        "count-faults" => count_faults(path, false),
        "count-faults-after-prefault" => count_faults(path, true),
        other => panic!("there is no task {other}"),
    }
}

/// Time that this thread spent on a processor, so that other work on the machine does not count.
fn busy() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

/// Kilobytes of a line in /proc/self/status.
fn status(key: &str) -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|l| l.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Opening must fail as damage, in little time and memory.
fn open_hostile_store(path: &Path) {
    let before = status("VmSize:").max(status("VmPeak:"));
    let start = busy();
    let error = Store::open(path).and_then(|s| s.snapshot(&OpenOptions::default())).map(drop).unwrap_err();
    let took = busy() - start;
    assert!(took < Duration::from_millis(500), "took {took:?}");
    let damage = [ErrorKind::Corrupt, ErrorKind::NotDocent, ErrorKind::UpgradeRequired];
    assert!(damage.contains(&error.kind()), "{error:?}");
    let grown = status("VmPeak:") - before;
    assert!(grown <= 64 << 10, "{grown} KiB more address space");
}

/// Opens a store, and reads its table when somebody has cut the file.
fn read_after_a_cut(path: &Path, load: LoadMode) {
    let snapshot = Store::open(path).unwrap().snapshot(&OpenOptions { load, ..OpenOptions::default() }).unwrap();
    fs::write(path.join("opened.tmp"), "").unwrap();
    while !path.join("cut.tmp").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(snapshot.f32s("table").unwrap().iter().sum::<f32>() > 0.0);
}

/// Writes down how often reading a table waited for the disk.
fn count_faults(path: &Path, prefault: bool) {
    let options = OpenOptions { load: LoadMode::Map, prefault, ..OpenOptions::default() };
    let snapshot = Store::open(path).unwrap().snapshot(&options).unwrap();
    let faults = || -> u64 {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let behind = stat.rsplit_once(") ").unwrap().1;
        behind.split_whitespace().nth(9).unwrap().parse().unwrap()
    };
    let (before, table) = (faults(), snapshot.f32s("table").unwrap());
    // One number of each page, in an order that no reading ahead guesses.
    let pages = table.len() / 1024;
    assert!((0..pages).map(|n| table[n * 1_009 % pages * 1024]).sum::<f32>() > 0.0);
    fs::write(path.join("faults.tmp"), (faults() - before).to_string()).unwrap();
}

fn hold_the_lock(path: &Path) {
    let mut publisher = Store::open(path).unwrap().publisher().unwrap();
    write(&mut publisher, 2).unwrap();
    fs::write(path.join("segments/held.tmp"), "").unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

fn publish_until_killed(path: &Path) {
    let store = Store::create(path).unwrap();
    for n in 1.. {
        publish(&store, 1000 * u64::from(std::process::id()) + n).unwrap();
        if n % 5 == 0 {
            store.rollback(None).unwrap();
            store.prune(3).unwrap();
        }
    }
}

/// Adds items, tells of each when it is added, and removes every third.
fn add_items_until_killed(path: &Path) {
    let engine = Engine::open(path, &EngineOptions { live: true, ..EngineOptions::default() }).unwrap();
    let mut told = fs::File::options().append(true).create(true).open(path.join("told.tmp")).unwrap();
    let mut tell = |line: String| told.write_all(line.as_bytes()).unwrap();
    for n in 0.. {
        let id = format!("{}-{n}", std::process::id());
        engine.add_item(&film::film(&id)).unwrap();
        tell(format!("+{id}\n"));
        if n % 3 == 1 {
            tell(format!("?{id}\n"));
            engine.remove_item(&id).unwrap();
            tell(format!("-{id}\n"));
        }
    }
}
