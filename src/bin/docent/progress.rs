//! Progress of long work: a bar on a terminal, a plain line every few seconds elsewhere.

use crate::output::{Output, note};
use docent::progress::{ProgressEvent, ProgressSink};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fmt;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Time between two plain lines.
const EVERY: Duration = Duration::from_secs(5);

/// Shows events on stderr.
#[derive(Debug)]
pub(crate) struct Progress {
    show: Show,
    /// The stage that is under way, its size and the unit of that.
    stage: (String, u64, &'static str),
    last: Option<Instant>,
    best: Option<f64>,
    /// Running means of the loss and, where there are several objectives, of each.
    losses: Vec<f64>,
}

#[derive(Debug)]
enum Show {
    Nothing,
    Lines,
    Bar(ProgressBar),
}

impl Progress {
    /// Progress as the options and stderr ask for.
    pub(crate) fn new(output: &Output) -> Self {
        let show = match (output.quiet, std::io::stderr().is_terminal()) {
            (true, _) => Show::Nothing,
            (false, false) => Show::Lines,
            (false, true) => Show::Bar(ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())),
        };
        Self { show, stage: (String::new(), 0, ""), last: None, best: None, losses: Vec::new() }
    }

    /// Says something, above the bar where there is one.
    fn say(&self, what: fmt::Arguments<'_>) {
        match &self.show {
            Show::Nothing => {}
            Show::Lines => note(what),
            Show::Bar(bar) => bar.suspend(|| note(what)),
        }
    }

    /// Says something that must be read even where progress is not wanted.
    fn warn(&self, what: fmt::Arguments<'_>) {
        match &self.show {
            Show::Bar(bar) => bar.suspend(|| note(format_args!("warning: {what}"))),
            _ => note(format_args!("warning: {what}")),
        }
    }

    /// Takes the bar away, and forgets the losses that it showed.
    pub(crate) fn end(&mut self) {
        self.best = None;
        self.losses.clear();
        if let Show::Bar(bar) = &self.show {
            bar.finish_and_clear();
            self.show = Show::Bar(ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()));
        }
        self.last = None;
    }

    /// Whether a plain line is due now.
    fn due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.last.is_none_or(|last| now.duration_since(last) >= EVERY);
        if due {
            self.last = Some(now);
        }
        due
    }

    fn bar(&self, length: u64, done: u64, template: &str, prefix: &str, message: String) {
        if let Show::Bar(bar) = &self.show {
            if bar.length() != Some(length) {
                bar.set_length(length);
                if let Ok(style) = ProgressStyle::with_template(template) {
                    bar.set_style(style.progress_chars("=> "));
                }
            }
            bar.set_prefix(prefix.to_owned());
            bar.set_message(message);
            bar.set_position(done);
        }
    }
}

/// A time span for people.
fn span(seconds: f64) -> String {
    let s = seconds.clamp(0.0, 1e9) as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{}:{:02} min", s / 60, s % 60),
        _ => format!("{}:{:02} h", s / 3600, s / 60 % 60),
    }
}

impl Progress {
    /// The running mean of the loss in words, with that of each objective where there are several.
    fn mean_losses(&mut self, step: &docent::progress::Step) -> String {
        let now: Vec<f64> = std::iter::once(step.loss).chain(step.losses.iter().map(|l| l.1)).collect();
        if self.losses.len() != now.len() {
            self.losses.clone_from(&now);
        }
        self.losses.iter_mut().zip(&now).for_each(|(mean, loss)| *mean = 0.95 * *mean + 0.05 * loss);
        let mut means = self.losses.iter();
        let mut text = format!("{:.3}", means.next().copied().unwrap_or_default());
        if step.losses.len() > 1 {
            let each = step.losses.iter().zip(means).map(|((name, _), mean)| format!("{name} {mean:.3}"));
            text += &format!(" ({})", each.collect::<Vec<_>>().join(", "));
        }
        text
    }
}

impl ProgressSink for Progress {
    fn on_event(&mut self, event: &ProgressEvent) {
        if let ProgressEvent::Warning(what) = event {
            self.warn(format_args!("{what}"));
            return;
        }
        if matches!(self.show, Show::Nothing) {
            return;
        }
        match event {
            ProgressEvent::Note(what) => {
                self.end();
                self.say(format_args!("{what}"));
            }
            ProgressEvent::Stage { name, total, unit } => {
                self.end();
                self.stage = (name.clone(), *total, unit);
                self.bar(*total, 0, "{prefix} [{bar:30}] {percent}%", name, String::new());
            }
            ProgressEvent::Advance { done } => {
                let (name, total, unit) = self.stage.clone();
                self.bar(total, *done, "{prefix} [{bar:30}] {percent}%", &name, String::new());
                if matches!(self.show, Show::Lines) && self.last.is_none() {
                    // The first line comes after a while, so that short work says nothing.
                    self.last = Some(Instant::now());
                } else if matches!(self.show, Show::Lines) && self.due() {
                    match total {
                        0 => note(format_args!("{name}: {done} {unit}")),
                        _ => note(format_args!("{name}: {} %", 100 * done.min(&total) / total)),
                    }
                }
            }
            ProgressEvent::Step(step) => {
                let mean = self.mean_losses(step);
                let best = self.best.map_or_else(|| "-".to_owned(), |b| format!("{b:.4}"));
                let (epoch, epochs) = (step.epoch + 1, step.epochs);
                let rest = span(step.eta_seconds);
                let speed = step.tokens_per_second;
                // The outer loss is that of meta learning, whose steps count tasks and which is chosen by its log loss.
                let (unit, metric) = match step.losses.first() {
                    Some((name, _)) if name == "outer" => ("tasks", "logloss"),
                    _ => ("tokens", "ndcg@10"),
                };
                let text = format!("loss {mean}  {speed:.0} {unit}/s  ETA {rest}  best {metric} {best}");
                let prefix = format!("epoch {epoch}/{epochs}");
                self.bar(step.steps, step.step, "{prefix} [{bar:20}] {msg}", &prefix, text.clone());
                if matches!(self.show, Show::Lines) && self.due() {
                    note(format_args!("{prefix} step {}/{}  {text}", step.step, step.steps));
                }
            }
            ProgressEvent::Validation(validation) => self.best = Some(validation.best).filter(|b| *b >= 0.0),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn spans_are_readable() {
        assert_eq!([span(-1.0), span(59.9), span(61.0), span(3_725.0)], ["0 s", "59 s", "1:01 min", "1:02 h"]);
        assert_eq!(span(f64::NAN), "0 s");
    }
}
