//! `docent tune`: a search for settings, written as a train.toml.

use crate::command_line::{Data, Outcomes, cores, minutes, positive, refused, threads, typed, word};
use crate::interrupt;
use crate::output::{Output, columns, metrics_json, note};
use crate::progress::Progress;
use docent::data::Protocol;
use docent::pipeline::{self, Settings, TuneJob, TuneReport};
use docent::train::ranker::RateSearch;
use docent::train::{Candidate, Score, TrainFile, TuneOptions, Tuned};
use docent::{Error, ErrorKind, Result};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Search for settings that suit a dataset, and write them as a train.toml.
///
/// Several trainings, one with the options that `docent train` would choose, get some minutes each; the best third goes
/// on, with more (successive halving). The winner is chosen on validation questions alone. After Ctrl-C the best so far
/// is written.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  docent tune --dataset dataset.toml --minutes 30 --out train.toml")]
pub(crate) struct Arguments {
    #[command(flatten)]
    data: Data,
    #[command(flatten)]
    outcomes: Outcomes,
    /// How to split [default: the dataset's, or leave-one-out].
    #[arg(long, value_name = "P", value_parser = |s: &str| Protocol::parse(s).map_err(refused))]
    protocol: Option<Protocol>,
    /// How long to search.
    #[arg(long, value_name = "M", value_parser = minutes)]
    minutes: f64,
    /// How many settings to try at first.
    #[arg(long, value_name = "N", value_parser = positive, default_value_t = TuneOptions::default().candidates)]
    candidates: usize,
    /// Seed of the settings that are tried and of their trainings [default: the configuration's, or 1].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Threads [default: the configuration's, or one per core].
    #[arg(long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,
    /// Options to start from (docs/train.md); keys that it leaves out are chosen for the data.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The file to write.
    #[arg(long, value_name = "FILE", default_value = "train.toml")]
    out: PathBuf,
    /// Replace it if it is there.
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let cancel = interrupt::cancel_on_ctrl_c()?;
    let mut progress = Progress::new(output);
    let settings = Settings {
        file: arguments.config.as_deref().map(TrainFile::read).transpose()?,
        granted: threads(cores().get()),
        seed: arguments.seed,
        threads: arguments.threads.map(threads),
        ..Settings::default()
    };
    if !arguments.force {
        refuse(&arguments.out)?;
    }
    let place = Scratch::beside(&arguments.out)?;
    let job = TuneJob {
        settings,
        protocol: arguments.protocol.clone(),
        seconds: arguments.minutes * 60.0,
        candidates: arguments.candidates,
    };
    let files = arguments.data.files(Some(&arguments.outcomes));
    let found = pipeline::tune(files, &place.folder, &job, &mut progress, &cancel);
    progress.end();
    let found = found?;
    place.write(&arguments.out, arguments.force, &file(&found)?)?;
    output.result(
        || report(&found, &arguments.out),
        || table(&found.tuned, &arguments.out) + &found.rates.as_ref().map_or_else(String::new, rates_text),
    )?;
    output.say(format_args!(
        "train with it: docent train --dataset {} --config {} --store STORE",
        word(&arguments.data.dataset),
        word(&arguments.out)
    ));
    if found.tuned.interrupted {
        note(format_args!("interrupted; {} holds the best so far", arguments.out.display()));
        return Ok(ExitCode::from(interrupt::EXIT_CODE));
    }
    Ok(ExitCode::SUCCESS)
}

fn rates_text(rates: &RateSearch) -> String {
    let tried: Vec<String> = rates.tried.iter().map(|(rate, loss)| format!("{rate}: {loss:.4}")).collect();
    format!("ranker.inner_rate {}, log loss after one epoch from each: {}\n", rates.rate, tried.join("  "))
}

/// An error where `path` exists.
fn refuse(path: &Path) -> Result<()> {
    match path.try_exists() {
        Ok(false) => Ok(()),
        Ok(true) => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("{} is there already; name another file with --out, or replace it with --force", path.display()),
        )),
        Err(e) => Err(Error::io("cannot look for", path, e)),
    }
}

/// A folder beside the file to write, for checkpoints and the draft; it goes when this goes.
struct Scratch {
    folder: PathBuf,
}

impl Scratch {
    fn beside(out: &Path) -> Result<Self> {
        let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = parent.join(format!(".docent-tune-{}", std::process::id()));
        std::fs::create_dir(&folder).map_err(|e| Error::io("cannot make the folder", &folder, e))?;
        Ok(Self { folder })
    }

    /// Writes `out` whole or not at all.
    fn write(&self, out: &Path, force: bool, text: &str) -> Result<()> {
        let draft = self.folder.join("train.toml");
        let written = File::create(&draft).and_then(|mut f| f.write_all(text.as_bytes()).and_then(|()| f.sync_all()));
        written.map_err(|e| Error::io("cannot write", &draft, e))?;
        if force {
            return std::fs::rename(&draft, out).map_err(|e| Error::io("cannot rename to", out, e));
        }
        // A link, unlike a rename, never replaces a file that came in the meantime.
        match std::fs::hard_link(&draft, out) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => refuse(out),
            Err(_) => std::fs::rename(&draft, out).map_err(|e| Error::io("cannot rename to", out, e)),
            Ok(()) => Ok(()),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind is only in the way.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// NDCG@10 of the candidate's last score.
fn last(candidate: &Candidate) -> Option<f64> {
    candidate.scores.last().map(Score::ndcg)
}

/// The file: what was searched, what was found, and every key.
fn file(found: &TuneReport) -> Result<String> {
    let tuned = &found.tuned;
    let score = |c: Option<&Candidate>| c.and_then(last).map_or_else(|| "none".to_owned(), |v| format!("{v:.4}"));
    let names: Vec<&str> = tuned.best().into_iter().flat_map(|c| c.settings().map(|s| s.0)).collect();
    Ok(format!(
        "# Found by `{}` in {:.1} minutes{}.\n# Dataset {}, split {}. Searched: {}.\n\
         # Candidate {} of {} (0 is the default): NDCG@10 {} on validation questions; the default had {}\n\
         # when it was trained last. Trainings were cut short for the search; run to its end, this one may score more.\n\n{}",
        typed(),
        tuned.seconds / 60.0,
        if tuned.interrupted { ", interrupted" } else { "" },
        found.dataset,
        found.protocol,
        names.join(", "),
        tuned.winner,
        tuned.candidates.len(),
        score(tuned.best()),
        score(tuned.candidates.first()),
        found.config.text()?
    ))
}

fn report(found: &TuneReport, out: &Path) -> Value {
    let tuned = &found.tuned;
    let score = |s: &Score| {
        json!({
            "rung": s.rung + 1,
            "seconds": s.seconds,
            "epochs": s.epochs,
            "validation": metrics_json(&s.validation),
            "ended": s.ended,
        })
    };
    let candidate = |(id, c): (usize, &Candidate)| {
        let settings: Map<String, Value> = c.settings().into_iter().map(|(k, v)| (k.to_owned(), json!(v))).collect();
        let scores: Value = c.scores.iter().map(score).collect();
        json!({"id": id, "settings": settings, "scores": scores, "score": last(c), "failed": c.failed})
    };
    let rungs = tuned.rungs.iter().enumerate();
    let rungs = rungs.map(|(i, r)| json!({"rung": i + 1, "candidates": r.candidates, "seconds": r.seconds}));
    let mut report = json!({
        "file": out.display().to_string(),
        "protocol": found.protocol.to_string(),
        "winner": tuned.winner,
        "score": tuned.best().and_then(last),
        "candidates": tuned.candidates.iter().enumerate().map(candidate).collect::<Value>(),
        "rungs": rungs.collect::<Value>(),
        "seconds": tuned.seconds,
        "interrupted": tuned.interrupted,
    });
    if let (Some(report), Some(rates)) = (report.as_object_mut(), &found.rates) {
        let tried: Value = rates.tried.iter().map(|(rate, loss)| json!({"rate": rate, "logloss": loss})).collect();
        report.insert("inner_rate".into(), json!({"rate": rates.rate, "tried": tried}));
    }
    report
}

/// A line per candidate: its settings, and NDCG@10 at the end of each rung.
fn table(tuned: &Tuned, out: &Path) -> String {
    let mut head = vec!["candidate".to_owned()];
    if let Some(first) = tuned.candidates.first() {
        head.extend(first.settings().map(|s| s.0.to_owned()));
    }
    head.extend((1..=tuned.rungs.len()).map(|r| format!("rung {r}")));
    head.push("epochs".into());
    let mut lines = vec![head];
    for (id, candidate) in tuned.candidates.iter().enumerate() {
        let mark = if id == tuned.winner { " *" } else { "" };
        let mut line = vec![if id == 0 { format!("0 (default){mark}") } else { format!("{id}{mark}") }];
        line.extend(candidate.settings().map(|s| s.1));
        for rung in 0..tuned.rungs.len() {
            let score = candidate.scores.iter().find(|s| s.rung == rung);
            line.push(match (score, &candidate.failed) {
                (Some(score), _) => format!("{:.4}", score.ndcg()),
                (None, Some(_)) if candidate.scores.len() == rung => "diverged".into(),
                (None, _) => "-".into(),
            });
        }
        line.push(candidate.scores.last().map_or_else(|| "-".into(), |s| s.epochs.to_string()));
        lines.push(line);
    }
    format!(
        "{}\n* best NDCG@10 on validation questions after {:.1} min; written to {}\n",
        columns(&lines),
        tuned.seconds / 60.0,
        out.display()
    )
}
