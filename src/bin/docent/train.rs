//! `docent train`: from a dataset to a new generation.

use crate::command_line::{Outcomes, cores, minutes, positive, refused, threads, typed, word};
use crate::interrupt;
use crate::output::{Output, metrics_text, note, size, to_json};
use crate::progress::Progress;
use docent::data::{Protocol, Questions};
use docent::options::Device;
use docent::pipeline::{self, Files, Settings, TrainJob, TrainReport};
use docent::train::TrainFile;
use docent::{Error, ErrorKind, Result};
use std::path::PathBuf;
use std::process::ExitCode;

/// Train a model on a dataset and publish it as a new generation of a store.
///
/// A checkpoint is kept in the store. After Ctrl-C, a crash or a power cut, --resume goes on from it to the same result,
/// to the bit, that an uninterrupted training gives.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  docent train --dataset dataset.toml --store shop.store --config train.toml")]
pub(crate) struct Arguments {
    /// The dataset's description.
    #[arg(long, value_name = "FILE", required_unless_present = "resume")]
    dataset: Option<PathBuf>,
    /// Where its relative paths start from [default: its own folder].
    #[arg(long, value_name = "DIR", requires = "dataset")]
    data: Option<PathBuf>,
    #[command(flatten)]
    outcomes: Outcomes,
    /// The store; made if there is none.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Options of model and training (docs/train.md); keys that it leaves out are chosen for the data.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Seed of every random choice [default: the configuration's, or 1].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Threads [default: the configuration's, or one per core].
    #[arg(long, value_name = "N", value_parser = positive)]
    threads: Option<usize>,
    /// cpu, cuda or cuda:N [default: cpu].
    #[arg(long, value_parser = |s: &str| s.parse::<Device>().map_err(refused))]
    device: Option<Device>,
    /// Stop, and publish the best model so far, after this time.
    #[arg(long, value_name = "M", value_parser = minutes)]
    max_minutes: Option<f64>,
    /// How to split, such as leave-one-out or time-split:test=0.1,validation=0.1 [default: the dataset's, or
    /// leave-one-out].
    #[arg(long, value_name = "P", value_parser = |s: &str| Protocol::parse(s).map_err(refused))]
    protocol: Option<Protocol>,
    /// Which questions validate: all, or those whose target begins a run of actions, token-starts:max_gap=SECONDS [default:
    /// all that the model can answer].
    #[arg(long, value_name = "Q", value_parser = |s: &str| Questions::parse(s).map_err(refused))]
    questions: Option<Questions>,
    /// Go on with the unfinished training of this store. Options that are not given are those that it began with.
    #[arg(long)]
    resume: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let cancel = interrupt::cancel_on_ctrl_c()?;
    let mut progress = Progress::new(output);
    let files = files(arguments)?;
    let job = TrainJob {
        settings: Settings {
            file: arguments.config.as_deref().map(TrainFile::read).transpose()?,
            granted: threads(cores().get()),
            seed: arguments.seed,
            threads: arguments.threads.map(threads),
            max_seconds: arguments.max_minutes.map(|minutes| (minutes * 60.0).ceil() as u64),
            ..Settings::default()
        },
        protocol: arguments.protocol.clone(),
        questions: arguments.questions.clone(),
        device: arguments.device,
        resume: arguments.resume,
        command: typed(),
        ..TrainJob::default()
    };
    let report = pipeline::train(files, &arguments.store, &job, &mut progress, &cancel);
    progress.end();
    let resume = format!("docent train --store {} --resume", word(&arguments.store));
    let report = report.map_err(|e| {
        let message = e.message().replace("resume it to publish it", &format!("`{resume}` publishes it"));
        Error::new(e.kind(), message)
    })?;
    if report.generation.is_none() {
        let steps = report.steps;
        note(format_args!("interrupted after step {steps}; the checkpoint is written. Go on with: {resume}"));
        if output.json {
            output.result(|| to_json(&report), String::new)?;
        }
        return Ok(ExitCode::from(interrupt::EXIT_CODE));
    }
    output.result(|| to_json(&report), || text(&report))?;
    Ok(ExitCode::SUCCESS)
}

/// Where the data is: as given, or as the unfinished training of the store began with.
fn files(arguments: &Arguments) -> Result<Files> {
    let outcomes = arguments.outcomes.outcomes.clone();
    if let Some(dataset) = &arguments.dataset {
        return Ok(Files { dataset: dataset.clone(), folder: arguments.data.clone(), outcomes });
    }
    let begun = Files::of_unfinished(&arguments.store)?.ok_or_else(|| {
        let store = arguments.store.display();
        let message = format!("store {store} has no unfinished training to resume; start one with --dataset");
        Error::new(ErrorKind::NotFound, message)
    })?;
    Ok(Files { outcomes: outcomes.or(begun.outcomes), ..begun })
}

fn text(report: &TrainReport) -> String {
    let mut text =
        report.generation.map_or_else(String::new, |g| format!("generation {g} of {}\n", report.store.display()));
    text += &format!(
        "validation   {}\ntraining     {} epochs, {:.1} s, {:.0} tokens/s, stopped by {}, peak memory {}\n",
        metrics_text(&report.validation),
        report.epochs,
        report.seconds,
        report.tokens_per_second,
        report.stopped.as_str(),
        size(report.peak_rss_bytes)
    );
    let share = 100.0 * report.repeated;
    text += &format!("seen items   {} ({share:.1} % of the training events repeat an item)\n", report.seen);
    if let Some(r) = &report.ranker {
        let (metrics, not) = (metrics_text(&r.validation), if r.published { "" } else { ", not published" });
        text += &format!("ranker       {metrics}, {} epochs, {:.1} s{not}\n", r.epochs, r.seconds);
    }
    text
}
