//! The `docent` command line: every journey of the library, for people at a terminal and for scripts.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
#![deny(unsafe_code, missing_docs)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::print_stdout)
)]

mod adapt;
mod command_line;
mod demo;
mod entities;
mod evaluate;
mod generations;
mod history;
mod inspect;
mod interrupt;
mod lines;
mod output;
mod progress;
mod prune;
mod recommend;
mod rollback;
mod similar;
mod synth;
mod tokenize;
mod train;
mod tune;
mod verify;

use clap::{Parser, Subcommand};
use docent::ErrorKind;
use output::{Output, note};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The first screen: every command, by journey.
const HELP: &str = "\
docent: recommendations from your own interaction data, trained, published and served in one process.
Usage: docent <COMMAND> [OPTIONS]          docent <COMMAND> --help shows its options and an example
First look
  demo         the whole journey on a made-up world, in under three minutes
  synth        write that world as files, with a dataset.toml
Bring data
  tokenize     how runs of actions become tokens, and how much shorter histories get
  tune         search for settings that suit a dataset, and write them as a train.toml
  train        train a model on a dataset and publish it as a new generation
  evaluate     measure a published model beside simple baselines
  adapt        fit the published ranker to every person's outcomes
Use
  recommend    the best items for a person, or after a history
  similar      the items most like an item
Operate
  inspect      what is in a generation
  verify       check every byte of a generation
  generations  list the generations of a store
  rollback     serve an older generation again
  prune        remove old generations
  entities     what was kept of people while serving: export, import, forget, purge
With every command: --json (one object on stdout), --quiet (no progress). docent -V prints the version.
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted after a clean checkpoint.
";

#[derive(Debug, Parser)]
#[command(name = "docent", version, about, long_about = None, override_help = HELP)]
struct Cli {
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Arguments),
    Synth(synth::Arguments),
    Tokenize(tokenize::Arguments),
    Tune(tune::Arguments),
    Train(train::Arguments),
    Evaluate(evaluate::Arguments),
    Adapt(adapt::Arguments),
    Recommend(recommend::Arguments),
    Similar(similar::Arguments),
    Inspect(inspect::Arguments),
    Verify(verify::Arguments),
    Generations(generations::Arguments),
    Rollback(rollback::Arguments),
    Prune(prune::Arguments),
    Entities(entities::Arguments),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = &cli.output;
    let done = match &cli.command {
        Command::Demo(arguments) => demo::run(arguments, output),
        Command::Synth(arguments) => synth::run(arguments, output),
        Command::Tokenize(arguments) => tokenize::run(arguments, output),
        Command::Tune(arguments) => tune::run(arguments, output),
        Command::Train(arguments) => train::run(arguments, output),
        Command::Evaluate(arguments) => evaluate::run(arguments, output),
        Command::Adapt(arguments) => adapt::run(arguments, output),
        Command::Recommend(arguments) => recommend::run(arguments, output),
        Command::Similar(arguments) => similar::run(arguments, output),
        Command::Inspect(arguments) => inspect::run(arguments, output),
        Command::Verify(arguments) => verify::run(arguments, output),
        Command::Generations(arguments) => generations::run(arguments, output),
        Command::Rollback(arguments) => rollback::run(arguments, output),
        Command::Prune(arguments) => prune::run(arguments, output),
        Command::Entities(arguments) => entities::run(arguments, output),
    };
    match done {
        Ok(code) => code,
        Err(e) if e.kind() == ErrorKind::Cancelled => {
            note(format_args!("interrupted: {e}"));
            ExitCode::from(interrupt::EXIT_CODE)
        }
        Err(e) => {
            note(format_args!("error: {}", command_line::with_flags(e.message())));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_first_screen_names_every_command_and_fits() {
        let command = Cli::command();
        for sub in command.get_subcommands() {
            let line = format!("\n  {:<12} ", sub.get_name());
            assert!(HELP.contains(&line), "{} is not on the first screen", sub.get_name());
        }
        assert!(HELP.lines().count() <= 24, "{} lines", HELP.lines().count());
        assert!(HELP.lines().all(|l| l.chars().count() <= 110));
    }

    #[test]
    fn every_command_ends_its_help_with_an_example() {
        for sub in Cli::command().get_subcommands() {
            let text = sub.clone().render_long_help().to_string();
            let last = text.trim_end().lines().last().unwrap_or_default().trim().to_owned();
            assert!(last.starts_with("docent "), "{}: {last}", sub.get_name());
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
