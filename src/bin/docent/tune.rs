//! `docent tune`: a search for settings, written as a train.toml.

use crate::command_line::{positive, refused, typed, word};
use crate::output::{Output, columns, metrics_json, note};
use crate::progress::Progress;
use crate::train::{minutes, ruled};
use crate::{INTERRUPTED, dataset, interrupt, outcomes};
use docent::data::{Dataset, Protocol, Split};
use docent::model::{Inference, Weights};
use docent::options::{RankerTrainOptions, TrainOptions};
use docent::progress::{Cancel, ProgressEvent, ProgressSink};
use docent::train::ranker::{FoundationModel, Impressions, Plan, RateSearch, search_inner_start};
use docent::train::{Candidate, TrainConfig, TrainFile, Trainer, TuneOptions, Tuned, Tuner};
use docent::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

/// Search for settings that suit a dataset, and write them as a train.toml.
///
/// Several trainings, one with the options that `docent train` would choose, get some minutes each; the best third goes
/// on, with more (successive halving). The winner is chosen on validation questions alone. After Ctrl-C the best so far
/// is written.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  docent tune --dataset dataset.toml --minutes 30 --out train.toml")]
pub(crate) struct Arguments {
    /// The dataset's description.
    #[arg(long, value_name = "FILE")]
    dataset: PathBuf,
    /// Where its relative paths start from [default: its own folder].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    outcomes: outcomes::Source,
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
    let file = arguments.config.as_deref().map(TrainFile::read).transpose()?;
    if !arguments.force {
        refuse(&arguments.out)?;
    }
    let place = Scratch::beside(&arguments.out)?;
    let (data, declared) = dataset::read(&arguments.dataset, arguments.data.as_deref(), &mut progress, &cancel)?;
    let protocol = arguments.protocol.clone().or(declared).unwrap_or(Protocol::LeaveOneOut);
    let split = Split::new(&data, &protocol)?;
    let mut base = ruled(&data, &split, file.as_ref(), &progress)?;
    base.train.seed = arguments.seed.unwrap_or(base.train.seed);
    if let Some(threads) = arguments.threads {
        base.train.threads = u32::try_from(threads).unwrap_or(u32::MAX);
    }
    let (source, folder) = (&arguments.outcomes, arguments.data.as_deref());
    let found = match base.ranker.enabled && !base.tokenizer.is_on() {
        true => outcomes::read(source, folder, &data, &mut progress, &cancel)?,
        false => None,
    };
    let found = found.map(|found| found.holding_out(outcomes::held_out(&protocol))).transpose()?;
    // The ranker's inner rate is searched on a short training of the winner.
    let rest = if found.is_some() { RANKER_SHARE } else { 0.0 };
    let seconds = arguments.minutes * 60.0;
    let options =
        TuneOptions { seconds: (1.0 - rest) * seconds, candidates: arguments.candidates, seed: base.train.seed };
    let tuner = Tuner::new(&data, &split, &place.folder).options(options).base(base.model.clone(), base.train.clone());
    let tuner = tuner.tokenizer(base.tokenizer.clone());
    let tuned = tuner.run(&mut Slots { progress: &mut progress, since: Instant::now() }, &cancel)?;
    progress.end();
    let best = tuned.best().ok_or_else(|| Error::new(ErrorKind::Internal, "no winner; please report it"))?;
    let mut rates = None;
    if let Some(found) = found.filter(|_| !tuned.interrupted) {
        let searched = inner_rate(&data, &split, &found, best, &base, rest * seconds, &mut progress, &cancel)?;
        base.ranker.train.inner_rate = searched.rate;
        rates = Some(searched);
    }
    place.write(&arguments.out, arguments.force, &text(&tuned, best, base, &data.schema.name, &protocol)?)?;
    output.result(
        || {
            let mut report = report(&tuned, &arguments.out, &protocol);
            if let (Some(report), Some(rates)) = (report.as_object_mut(), &rates) {
                let tried = rates.tried.iter().map(|(rate, loss)| json!({"rate": rate, "logloss": loss}));
                report.insert("inner_rate".into(), json!({"rate": rates.rate, "tried": tried.collect::<Vec<_>>()}));
            }
            report
        },
        || table(&tuned, &arguments.out) + &rates.as_ref().map_or_else(String::new, rates_text),
    )?;
    output.say(format_args!(
        "train with it: docent train --dataset {} --config {} --store STORE",
        word(&arguments.dataset),
        word(&arguments.out)
    ));
    if tuned.interrupted {
        note(format_args!("interrupted; {} holds the best so far", arguments.out.display()));
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(ExitCode::SUCCESS)
}

/// The share of the time that goes to the ranker's inner rate, where there are outcomes.
const RANKER_SHARE: f64 = 0.2;
/// The inner rates that are tried.
const RATES: [f32; 6] = [0.02, 0.1, 0.5, 2.0, 8.0, 32.0];

/// Trains the winner for a part of `seconds`, and a ranker over it from each inner rate for one epoch.
#[expect(clippy::too_many_arguments, reason = "one call site; a struct would only name them twice")]
fn inner_rate(
    data: &Dataset,
    split: &Split,
    found: &Impressions,
    best: &Candidate,
    base: &TrainConfig,
    seconds: f64,
    progress: &mut Progress,
    cancel: &Cancel,
) -> Result<RateSearch> {
    let train = TrainOptions { max_seconds: (seconds / 3.0).ceil() as u64, ..best.train.clone() };
    progress.say(format_args!("the ranker's inner rate is searched on {} outcomes", found.len()));
    let trained = Trainer::new(data, split).model(best.model.clone()).options(train.clone()).run(progress, cancel)?;
    let inference = Inference::new(&data.schema, &trained.model)?;
    let weights = Weights { items: &trained.items, dense: &trained.dense, features: &trained.features, more: &() };
    let rules = RankerTrainOptions { seed: train.seed, threads: train.threads, epochs: 1, ..base.ranker.train.clone() };
    let features = FoundationModel { inference: &inference, weights };
    let plan = Plan::new(data, found, split, features, rules.validation, rules.seed, rules.threads as usize)?;
    let searched = search_inner_start(&plan, &base.ranker.model, &rules, &RATES, progress, cancel)?;
    progress.end();
    Ok(searched)
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

/// Shows each candidate's time as a stage of its own.
struct Slots<'a> {
    progress: &'a mut Progress,
    since: Instant,
}

impl ProgressSink for Slots<'_> {
    fn on_event(&mut self, event: &ProgressEvent) {
        match event {
            ProgressEvent::Stage { .. } => {
                self.since = Instant::now();
                self.progress.on_event(event);
            }
            ProgressEvent::Step(_) => {
                self.progress.on_event(&ProgressEvent::Advance { done: self.since.elapsed().as_secs() })
            }
            ProgressEvent::Warning(_) => self.progress.on_event(event),
            _ => {}
        }
    }
}

/// NDCG@10 of the candidate's last score.
fn last(candidate: &Candidate) -> Option<f64> {
    candidate.scores.last().map(docent::train::Score::ndcg)
}

/// The file: what was searched, what was found, and every key.
fn text(tuned: &Tuned, best: &Candidate, base: TrainConfig, dataset: &str, protocol: &Protocol) -> Result<String> {
    let score = |c: Option<&Candidate>| c.and_then(last).map_or_else(|| "none".to_owned(), |v| format!("{v:.4}"));
    let names: Vec<&str> = best.settings().iter().map(|s| s.0).collect();
    let config = TrainConfig { model: best.model.clone(), train: best.train.clone(), ..base };
    let (winner, tried) = (tuned.winner, tuned.candidates.len());
    let default = score(tuned.candidates.first());
    Ok(format!(
        "# Found by `{}` in {:.1} minutes{}.\n# Dataset {dataset}, split {protocol}. Searched: {}.\n\
         # Candidate {winner} of {tried} (0 is the default): NDCG@10 {} on validation questions; the default had {default}\n\
         # when it was trained last. Trainings were cut short for the search; run to its end, this one may score more.\n\n{}",
        typed(),
        tuned.seconds / 60.0,
        if tuned.interrupted { ", interrupted" } else { "" },
        names.join(", "),
        score(Some(best)),
        config.text()?
    ))
}

fn report(tuned: &Tuned, out: &Path, protocol: &Protocol) -> Value {
    let settings = |c: &Candidate| -> Value {
        c.settings().into_iter().map(|(k, v)| (k.to_owned(), json!(v))).collect::<serde_json::Map<_, _>>().into()
    };
    let scores = |c: &Candidate| -> Value {
        let score = |s: &docent::train::Score| {
            json!({
                "rung": s.rung + 1,
                "seconds": s.seconds,
                "epochs": s.epochs,
                "validation": metrics_json(&s.validation),
                "ended": s.ended,
            })
        };
        c.scores.iter().map(score).collect()
    };
    let candidates = tuned.candidates.iter().enumerate();
    let candidates = candidates.map(
        |(id, c)| json!({"id": id, "settings": settings(c), "scores": scores(c), "score": last(c), "failed": c.failed}),
    );
    let rungs = tuned.rungs.iter().enumerate();
    let rungs = rungs.map(|(i, r)| json!({"rung": i + 1, "candidates": r.candidates, "seconds": r.seconds}));
    json!({
        "file": out.display().to_string(),
        "protocol": protocol.to_string(),
        "winner": tuned.winner,
        "score": tuned.best().and_then(last),
        "candidates": candidates.collect::<Value>(),
        "rungs": rungs.collect::<Value>(),
        "seconds": tuned.seconds,
        "interrupted": tuned.interrupted,
    })
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
