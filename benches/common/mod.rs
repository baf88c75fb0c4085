//! What the benchmarks share: the rivals' Python, child processes that answer line by line, and records.

use docent::evaluate::Machine;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The command line's allocator, with which people train and serve.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whatever ends a benchmark: its text goes to stderr.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder under `target/` for what benchmarks make.
pub fn scratch() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

/// A rival's program.
pub fn rival(name: &str) -> PathBuf {
    root().join("benches/rivals").join(name)
}

/// The Python that has the rivals: the one that `DOCENT_BENCH_PYTHON` names, or a virtual environment under `target/` that
/// is made on first use.
pub fn python() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("DOCENT_BENCH_PYTHON") {
        let given = PathBuf::from(given);
        if !given.is_file() {
            return Err(format!("DOCENT_BENCH_PYTHON names {}, which is no file", given.display()).into());
        }
        return Ok(given);
    }
    let requirements = rival("requirements.txt");
    let wanted = fs::read_to_string(&requirements)?;
    let (folder, mark) = (scratch().join("rivals-python"), scratch().join("rivals-python/requirements.txt"));
    let python = folder.join("bin/python");
    if fs::read_to_string(&mark).is_ok_and(|have| have == wanted) && python.is_file() {
        return Ok(python);
    }
    let test = "import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))";
    let base = ["python3.12", "python3.11", "python3"].into_iter().find(|name| {
        let mut command = Command::new(name);
        command.args(["-c", test]).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|s| s.success())
    });
    let Some(base) = base else {
        return Err("the rivals need Python 3.11 or 3.12 with venv and pip, and neither python3.12, python3.11 nor python3 is \
                    that (on Debian and Ubuntu: apt install python3 python3-venv); or set DOCENT_BENCH_PYTHON to a Python \
                    that has benches/rivals/requirements.txt"
            .into());
    };
    eprintln!("making the rivals' Python in {} (some GB; once)", folder.display());
    run(Command::new(base).args(["-m", "venv", "--clear"]).arg(&folder), "make the virtual environment")?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
    run(Command::new(&python).args(pip).arg(&requirements), "install benches/rivals/requirements.txt from PyPI")?;
    fs::write(mark, wanted)?;
    Ok(python)
}

fn run(command: &mut Command, what: &str) -> Result<()> {
    let status = command.stdout(Stdio::null()).status().map_err(|e| format!("cannot {what}: {e}"))?;
    if !status.success() {
        return Err(format!("cannot {what}: {command:?} ended with {status}; its message is above").into());
    }
    Ok(())
}

/// Writes sequences of items for the rivals: people, items, offsets, then the items of all events, u32 little-endian.
pub fn write_sequences(path: &Path, items: usize, sequences: &[Vec<u32>]) -> Result<()> {
    let mut words = vec![sequences.len() as u32, items as u32, 0];
    let mut end = 0;
    for s in sequences {
        end += s.len() as u32;
        words.push(end);
    }
    words.extend(sequences.iter().flatten());
    write_words(path, words.into_iter().map(u32::to_le_bytes))
}

/// Writes 32-bit words.
pub fn write_words(path: &Path, words: impl Iterator<Item = [u8; 4]>) -> Result<()> {
    fs::write(path, words.flatten().collect::<Vec<u8>>())
        .map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    Ok(())
}

/// A process that answers with JSON lines. It ends when this is dropped.
pub struct Side {
    name: String,
    child: Child,
    /// Where it is asked.
    pub input: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Side {
    /// Starts a process.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.spawn().map_err(|e| format!("cannot start {name} ({command:?}): {e}"))?;
        let output = child.stdout.take().ok_or("a child has no output")?;
        let (send, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { name: name.to_owned(), input: child.stdin.take(), child, answers })
    }

    /// The next answer; `None` where there is no further one.
    pub fn next(&mut self, limit: Duration) -> Result<Option<Value>> {
        let end = Instant::now() + limit;
        loop {
            match self.answers.recv_timeout(end.saturating_duration_since(Instant::now())) {
                // A library may print to stdout as well.
                Ok(line) if !line.starts_with('{') => eprintln!("{}: {line}", self.name),
                Ok(line) => return Ok(Some(serde_json::from_str(&line)?)),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("{} gave no answer in {:.0} s", self.name, limit.as_secs_f64()).into());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait()?;
                    if status.success() {
                        return Ok(None);
                    }
                    return Err(format!("{} ended with {status}; its message is above", self.name).into());
                }
            }
        }
    }

    /// The next answer, which must come.
    pub fn answer(&mut self, limit: Duration) -> Result<Value> {
        self.next(limit)?.ok_or_else(|| format!("{} ended without an answer", self.name).into())
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.input = None;
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A number of an answer.
pub fn number(answer: &Value, key: &str) -> Result<f64> {
    answer[key].as_f64().ok_or_else(|| format!("an answer has no number `{key}`: {answer}").into())
}

/// A text as a table: columns as wide as they need to be, the first to the left, all others to the right.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|v| v.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cell = |(c, v): (usize, &String)| match c {
            0 => format!("{v:<0$}", widths[c]),
            _ => format!("{v:>0$}", widths[c]),
        };
        let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// What a record says besides the result: when, where, of which source, by which command.
pub fn origin(command: &str) -> Value {
    let git = |arguments: &[&str]| -> Option<String> {
        let output = Command::new("git").arg("-C").arg(root()).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| !s.is_empty());
    let commit = git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".into());
    let machine = Machine::here();
    json!({
        "command": command,
        "date": jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        "machine": {"cpu": machine.cpu, "cores": machine.cores, "system": machine.system},
        "commit": if changed { format!("{commit} with changes") } else { commit },
        "docent": env!("CARGO_PKG_VERSION"),
    })
}

/// Writes `benches/records/NAME.md` and `.json`: where the figures come from, further facts, and the text of the result.
pub fn write_record(
    name: &str,
    title: &str,
    origin: &Value,
    facts: &[(String, String)],
    text: &str,
    result: &Value,
) -> Result<()> {
    let machine = &origin["machine"];
    let plain = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let mut page =
        format!("# {title}\n\n- command: `{}`\n- date: {}\n", plain(&origin["command"]), plain(&origin["date"]));
    page += &format!("- machine: {}, {} cores, ", plain(&machine["cpu"]), machine["cores"]);
    page += &format!("{}\n- commit: {}\n", plain(&machine["system"]), plain(&origin["commit"]));
    for (key, value) in facts {
        page += &format!("- {key}: {value}\n");
    }
    page += &format!("\n## Result\n\n```text\n{text}```\n");
    let facts: serde_json::Map<String, Value> = facts.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
    let whole = json!({"title": title, "origin": origin, "facts": facts, "result": result});
    let folder = root().join("benches/records");
    fs::write(folder.join(format!("{name}.md")), page)?;
    fs::write(folder.join(format!("{name}.json")), format!("{whole:#}\n"))?;
    eprintln!("record written to benches/records/{name}.md and .json");
    Ok(())
}

/// The name of a record.
pub fn record_name(text: &str) -> std::result::Result<String, String> {
    match text {
        "" => Err("give the record a name".into()),
        _ if text.starts_with('.') || text.contains(['/', '\\']) => {
            Err("give a file name without folder and extension; records lie in benches/records".into())
        }
        _ => Ok(text.trim_end_matches(".md").to_owned()),
    }
}

/// Versions as one line.
pub fn versions(of: &Value) -> String {
    let pairs = of.as_object().into_iter().flatten();
    pairs.map(|(name, v)| format!("{name} {}", v.as_str().unwrap_or("?"))).collect::<Vec<_>>().join(", ")
}

/// Runs a benchmark if cargo asked for one: `cargo test` builds benchmarks, and may start them, but must not measure.
pub fn main(name: &str, measure: impl FnOnce() -> Result<()>) -> std::process::ExitCode {
    let asked = |flag: &str| std::env::args().any(|a| a == flag);
    if !["--bench", "--side", "--help", "-h"].into_iter().any(asked) || asked("--test") {
        println!("nothing is measured here; run cargo bench --bench {name} --features cli");
        return std::process::ExitCode::SUCCESS;
    }
    match measure() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            std::process::ExitCode::FAILURE
        }
    }
}
