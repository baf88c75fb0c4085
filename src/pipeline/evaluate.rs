//! A published model measured on the questions that its training kept back.

use super::source::Source;
use crate::data::{Dataset, Protocol, Questions, Split, World};
use crate::error::{Error, ErrorKind, Result, err};
use crate::evaluate::{
    CountedEvents, EASE_ITEMS, Ease, EngineScorer, EvaluateOptions, Evaluation, FewShot, FewShotOptions, HeadResult,
    Ials, ItemKnn, KnnOptions, Markov, Method, Optimum, OutcomePart, Popularity, Prequential, PrequentialOptions,
    RecentPopularity, Resampling, Scorer, Served, evaluate_few_shot, evaluate_heads, evaluate_methods,
    evaluate_outcomes, evaluate_prequential, known_items,
};
use crate::options::Seen;
use crate::progress::{Cancel, ProgressEvent, ProgressSink};
use crate::serve::{Engine, EngineOptions, Filter, Generation};
use crate::store::{GenerationId, Verify};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Half-life, in days, of the baseline that counts recent events.
const RECENT_DAYS: f64 = 30.0;

/// What is measured.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Measure {
    /// Lists, on the questions of a protocol; `None` is the one that the model was trained under.
    Lists(Option<Protocol>),
    /// The heads beside the item head.
    Heads,
    /// The ranker, on the outcomes that training kept back.
    Ctr,
    /// The ranker, by how many outcomes of a person whom no training saw it is adapted to.
    FewShot,
    /// The ranker, as it learns from one outcome after another.
    Prequential,
}

impl Default for Measure {
    fn default() -> Self {
        Self::Lists(None)
    }
}

impl Measure {
    fn is_of_ranker(&self) -> bool {
        matches!(self, Self::Ctr | Self::FewShot | Self::Prequential)
    }
}

impl std::str::FromStr for Measure {
    type Err = Error;

    /// Reads `lists`, a protocol, `per-head`, `ctr`, `few-shot` or `prequential`.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "lists" => Ok(Self::Lists(None)),
            "per-head" => Ok(Self::Heads),
            "ctr" => Ok(Self::Ctr),
            "few-shot" => Ok(Self::FewShot),
            "prequential" => Ok(Self::Prequential),
            _ => Protocol::parse(text).map(|protocol| Self::Lists(Some(protocol))),
        }
    }
}

impl std::fmt::Display for Measure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lists(None) => f.write_str("lists"),
            Self::Lists(Some(protocol)) => protocol.fmt(f),
            Self::Heads => f.write_str("per-head"),
            Self::Ctr => f.write_str("ctr"),
            Self::FewShot => f.write_str("few-shot"),
            Self::Prequential => f.write_str("prequential"),
        }
    }
}

/// How to measure.
#[derive(Debug, Clone)]
pub struct EvaluateJob<'a> {
    /// What is measured.
    pub measure: Measure,
    /// Stores of another model to compare with on the same questions, one for each seed; its row is `versus`.
    pub versus: Vec<PathBuf>,
    /// Which questions are asked.
    pub questions: Questions,
    /// Asks with the items that were added and removed since the publication, as [`EngineOptions::live`] does.
    pub live: bool,
    /// The filter of every request: in the rows `docent` and `versus`, the others rank the whole catalogue. Seen items follow the
    /// store's rule.
    pub filter: Filter<'a>,
    /// Whether the baselines are fitted and judged, too. EASE takes minutes from some ten thousand items on.
    pub baselines: bool,
    /// Threads to use; they do not change the result.
    pub threads: usize,
    /// The synthetic world that the data is of: its optimum is a row.
    pub world: Option<&'a World>,
    /// Where to write the result of lists with all that repeats it: this name with `.md` and `.json`.
    #[cfg(feature = "files")]
    pub record: Option<PathBuf>,
    /// The command, for the record.
    pub command: String,
}

impl Default for EvaluateJob<'_> {
    fn default() -> Self {
        Self {
            measure: Measure::default(),
            versus: Vec::new(),
            questions: Questions::default(),
            live: false,
            filter: Filter::default(),
            baselines: true,
            threads: 1,
            world: None,
            #[cfg(feature = "files")]
            record: None,
            command: String::new(),
        }
    }
}

/// A generation that was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its store.
    pub store: PathBuf,
    /// The generation.
    pub generation: GenerationId,
}

/// What a measurement found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct EvaluateReport {
    /// The generations that were measured, runs of one model.
    pub runs: Vec<Run>,
    /// The protocol with its questions.
    pub split: String,
    /// The hash of the questions: equal hashes mean equal questions.
    pub target_hash: String,
    /// The result.
    pub judgement: Judgement,
}

impl EvaluateReport {
    /// The judgement of lists, where these were measured.
    pub fn lists(&self) -> Option<&Evaluation> {
        match &self.judgement {
            Judgement::Lists { evaluation, .. } => Some(evaluation),
            _ => None,
        }
    }
}

/// The result of a [`Measure`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Judgement {
    /// Lists.
    Lists {
        /// The model beside the baselines.
        evaluation: Evaluation,
        /// The heads of each run; empty lists where it has the item head alone.
        heads: Vec<Vec<HeadResult>>,
    },
    /// The heads of each run.
    Heads(Vec<Vec<HeadResult>>),
    /// The ranker, by kind of people.
    Ctr(Vec<OutcomePart>),
    /// The ranker, by size of the support.
    FewShot(FewShot),
    /// The ranker, outcome by outcome.
    Prequential(Prequential),
}

/// Measures the current generations of `stores` (runs of one model: their mean is reported, and each run) on what their training
/// kept back: the lists that are served, beside those of the foundation model alone, popularity, a first-order Markov chain, item-kNN and, where events have times, popularity with a
/// half-life of 30 days.
///
/// # Errors
/// `StateMismatch` where the questions may have been trained on, or the data is not that of the models; `InvalidArgument` where what
/// is measured is not there, or measured in another way; what reading and judging cause. Every byte of the stores is checked
/// first: `Corrupt`.
pub fn evaluate<'a>(
    source: impl Into<Source<'a>>,
    stores: &[impl AsRef<Path>],
    job: &EvaluateJob<'_>,
    progress: &mut dyn ProgressSink,
    cancel: &Cancel,
) -> Result<EvaluateReport> {
    let source = source.into();
    #[cfg(feature = "files")]
    let record = job.record.as_deref().map(record::place).transpose()?;
    #[cfg(feature = "files")]
    if record.is_some() && !matches!(job.measure, Measure::Lists(_)) {
        return Err(err!(InvalidArgument, "a record keeps a judgement of lists; keep this one in another way"));
    }
    let ours: Vec<Opened> = stores.iter().map(|store| Opened::new(store.as_ref(), job.live)).collect::<Result<_>>()?;
    let theirs: Vec<Opened> = job.versus.iter().map(|store| Opened::new(store, job.live)).collect::<Result<_>>()?;
    let all = || ours.iter().chain(&theirs);
    let asked = if let Measure::Lists(asked) = &job.measure { asked.clone() } else { None };
    let protocol = all().try_fold(asked, |common, opened| opened.protocol(common).map(Some))?;
    let protocol = protocol.ok_or_else(|| err!(InvalidArgument, "there is no store to evaluate; name one"))?;
    let (data, _) = source.dataset(progress, cancel)?;
    all().filter_map(|opened| opened.other_data(&data)).for_each(|w| progress.on_event(&ProgressEvent::Warning(w)));
    let split = Split::new(&data, &protocol)?.only(&data, &job.questions)?;
    // As it is served.
    let seen = ours.first().map_or(split.seen, Opened::seen);
    for other in all().filter(|opened| opened.seen() != seen) {
        let warning = format!(
            "{} was published with seen items {}; all are asked with seen items {seen}",
            other.name(),
            other.seen()
        );
        progress.on_event(&ProgressEvent::Warning(warning));
    }
    let split = Split { seen, ..split };
    let judgement = if job.measure.is_of_ranker() {
        let ([opened], []) = (ours.as_slice(), theirs.as_slice()) else {
            return Err(err!(InvalidArgument, "the ranker of one store is judged; leave the others out"));
        };
        let generation = &opened.generation;
        let held_out = generation.ranker().map_or(0.0, |r| r.held_out);
        let outcomes = source.outcomes(&data, held_out, progress, cancel)?.ok_or_else(|| {
            let name = &data.schema.name;
            err!(InvalidData, "dataset {name} has no labelled events; declare `label`, or bring a log of outcomes")
        })?;
        if outcomes.held_out.to_bits() != held_out.to_bits() {
            return Err(err!(
                StateMismatch,
                "the outcomes hold {} of each entity's back and the ranker's training held {held_out}; what it was trained on would be \
                 judged: bring them with the share of the training",
                outcomes.held_out
            ));
        }
        match job.measure {
            Measure::FewShot => {
                let options = FewShotOptions { threads: job.threads, ..FewShotOptions::default() };
                Judgement::FewShot(evaluate_few_shot(generation, &data, &outcomes, &split, &options)?)
            }
            Measure::Prequential => {
                let options = PrequentialOptions { threads: job.threads, ..PrequentialOptions::default() };
                Judgement::Prequential(evaluate_prequential(generation, &data, &outcomes, &split, &options)?)
            }
            _ => {
                let resampling = Resampling::default();
                let parts = evaluate_outcomes(generation, &data, &outcomes, &split, &resampling, job.threads)?;
                Judgement::Ctr(parts)
            }
        }
    } else {
        let heads = |o: &Opened| evaluate_heads(&EngineScorer::new(Arc::clone(&o.generation), &data)?, &data, &split);
        let heads = ours.iter().map(heads).collect::<Result<Vec<_>>>()?;
        if job.measure == Measure::Heads {
            if heads.iter().all(Vec::is_empty) {
                let message = "no generation has a head beside the item head; train one with [objectives]";
                return Err(Error::new(ErrorKind::InvalidArgument, message));
            }
            Judgement::Heads(heads)
        } else {
            let evaluation = lists([&ours, &theirs], &data, &split, job, progress, cancel)?;
            #[cfg(feature = "files")]
            if let Some((folder, name)) = &record {
                record::write(folder, name, [&ours, &theirs], &data, &evaluation, &heads, &job.command)?;
                let path = folder.join(format!("{name}.md"));
                progress.on_event(&ProgressEvent::Note(format!("record written to {}", path.display())));
            }
            Judgement::Lists { evaluation, heads }
        }
    };
    Ok(EvaluateReport {
        runs: ours.into_iter().map(|o| Run { generation: o.generation.id(), store: o.store }).collect(),
        split: split.describe(),
        target_hash: split.target_hash.iter().map(|b| format!("{b:02x}")).collect(),
        judgement,
    })
}

/// The current generation of a store.
struct Opened {
    store: PathBuf,
    engine: Engine,
    generation: Arc<Generation>,
}

impl Opened {
    fn new(store: &Path, live: bool) -> Result<Self> {
        // Figures are kept and compared: every byte they come from is checked first.
        let engine = Engine::open(store, &EngineOptions { verify: Verify::Full, live, ..EngineOptions::default() })?;
        Ok(Self { store: store.to_owned(), generation: engine.current(), engine })
    }

    fn name(&self) -> String {
        format!("generation {} of {}", self.generation.id(), self.store.display())
    }

    /// What it serves under a filter.
    fn served<'s>(&'s self, data: &Dataset, filter: Filter<'s>) -> Result<Served<'s>> {
        Ok(Served::new(&self.engine, data)?.under(filter))
    }

    fn seen(&self) -> Seen {
        self.generation.serve().seen
    }

    /// The protocol to ask by, `common` where it is given; any other than that of the training would ask what was trained on.
    fn protocol(&self, common: Option<Protocol>) -> Result<Protocol> {
        let trained = Protocol::parse(&self.generation.snapshot().manifest().training.protocol)
            .map_err(|e| err!(StateMismatch, "{} does not say how its data was split: {}", self.name(), e.message()))?;
        if trained == Protocol::Everything {
            return Err(err!(
                StateMismatch,
                "{} was trained on everything, so that nothing is left to measure it with; train under protocol leave-one-out",
                self.name()
            ));
        }
        match common {
            Some(asked) if asked != trained && asked.trained_as() != trained => Err(err!(
                StateMismatch,
                "{} was trained under protocol {trained}, so questions of {asked} may have been trained on; train under protocol \
                 {} to measure that",
                self.name(),
                asked.trained_as()
            )),
            common => Ok(common.unwrap_or(trained)),
        }
    }

    /// What to say where the generation was trained on other data than `data`.
    fn other_data(&self, data: &Dataset) -> Option<String> {
        let trained_on = self.generation.snapshot().manifest().training.data_hash;
        let short = |hash: &[u8; 32]| hash.iter().take(6).map(|b| format!("{b:02x}")).collect::<String>();
        (trained_on != data.hash).then(|| {
            format!(
                "{} was trained on other data than dataset {} holds now ({} and {}): items are matched by id, and some questions \
                 may have been trained on",
                self.name(),
                data.schema.name,
                short(&trained_on),
                short(&data.hash)
            )
        })
    }
}

/// Judges what generations serve beside what another model does, if any, their foundation models alone, the baselines, and the optimum
/// where the world is known.
fn lists<'s>(
    [ours, theirs]: [&'s [Opened]; 2],
    data: &Dataset,
    split: &Split,
    job: &'s EvaluateJob<'s>,
    progress: &mut dyn ProgressSink,
    cancel: &Cancel,
) -> Result<Evaluation> {
    let retrieval = |o: &Opened| EngineScorer::new(Arc::clone(&o.generation), data);
    let retrieved = ours.iter().map(retrieval).collect::<Result<Vec<_>>>()?;
    let ours = ours.iter().map(|o| o.served(data, job.filter)).collect::<Result<Vec<_>>>()?;
    let versus = |o: &'s Opened| Ok(o.served(data, job.filter)?.named("versus"));
    let theirs = theirs.iter().map(versus).collect::<Result<Vec<_>>>()?;
    let baselines = if job.baselines { baselines(data, split, job.threads, progress, cancel)? } else { Vec::new() };
    let optimum = job.world.map(|world| Optimum::new(world, data)).transpose()?;
    let mut scorers: Vec<&dyn Scorer> = retrieved.iter().map(|s| s as &dyn Scorer).collect();
    scorers.extend(baselines.iter().map(|s| s.as_ref()));
    scorers.extend(optimum.as_ref().map(|s| s as &dyn Scorer));
    let options = EvaluateOptions { threads: job.threads, ..EvaluateOptions::default() };
    let mut methods: Vec<Method<'_>> = ours.iter().chain(&theirs).map(Method::Lists).collect();
    methods.extend(scorers.into_iter().map(Method::Scores));
    evaluate_methods(data, split, &methods, &options, progress, cancel)
}

/// The baselines, fitted to what is known before the test and tuned on validation.
fn baselines(
    data: &Dataset,
    split: &Split,
    threads: usize,
    progress: &mut dyn ProgressSink,
    cancel: &Cancel,
) -> Result<Vec<Box<dyn Scorer>>> {
    let known = CountedEvents::BeforeTest;
    progress.on_event(&ProgressEvent::Note("fitting EASE and iALS, whose penalties are chosen on validation".into()));
    let mut fitted: Vec<Box<dyn Scorer>> = vec![
        Box::new(Popularity::fit(data, split, known)),
        Box::new(Markov::fit(data, split, known)),
        Box::new(ItemKnn::fit(data, split, known, &KnnOptions::default(), threads)),
    ];
    if known_items(data, split, known) <= EASE_ITEMS {
        fitted.push(Box::new(Ease::tuned(data, split, threads, cancel)?));
    }
    fitted.push(Box::new(Ials::tuned(data, split, threads, cancel)?));
    if data.schema.has_time {
        fitted.push(Box::new(RecentPopularity::fit(data, split, known, RECENT_DAYS)?));
    }
    Ok(fitted)
}

/// The files that keep a judgement with all that repeats it.
#[cfg(feature = "files")]
mod record {
    use super::{Opened, RECENT_DAYS};
    use crate::data::Dataset;
    use crate::error::{Result, err};
    use crate::evaluate::{Evaluation, HeadResult, Record};
    use crate::train::TrainConfig;
    use std::path::{Path, PathBuf};

    /// Folder and name of a record.
    pub(super) fn place(path: &Path) -> Result<(PathBuf, String)> {
        let name = path.file_name().and_then(|n| n.to_str()).map(|n| {
            let stem = n.strip_suffix(".md").or_else(|| n.strip_suffix(".json"));
            stem.unwrap_or(n).to_owned()
        });
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = name.filter(|n| !n.is_empty() && !n.starts_with('.')).ok_or_else(|| {
            let path = path.display();
            err!(InvalidArgument, "{path} does not name a record; write for example records/shop.md")
        })?;
        Ok((folder.to_owned(), name))
    }

    pub(super) fn write(
        folder: &Path,
        name: &str,
        [ours, theirs]: [&[Opened]; 2],
        data: &Dataset,
        evaluation: &Evaluation,
        heads: &[Vec<HeadResult>],
        command: &str,
    ) -> Result<()> {
        let title = format!("docent on {}, {}", data.schema.name, evaluation.protocol);
        let ids: Vec<String> = ours.iter().map(|o| o.generation.id().to_string()).collect();
        let mut record = Record::new(&title, command, &ids.join(", "), data, evaluation.clone());
        let seed = |o: &Opened| o.generation.snapshot().manifest().training.options.seed;
        for (opened, of) in ours.iter().map(|o| (o, "")).chain(theirs.iter().map(|o| (o, "versus, "))) {
            let snapshot = opened.generation.snapshot();
            let (t, run, seed) = (&snapshot.manifest().training, snapshot.run(), seed(opened));
            let training = format!(
                "{:.1} min, {} epochs (best {}), {} steps, {:.0} tokens/s on {}, peak memory {} MiB, stopped by {}",
                run.seconds / 60.0,
                t.epochs,
                t.best_epoch + 1,
                t.steps,
                run.tokens_per_second,
                run.device,
                run.peak_rss_bytes >> 20,
                t.stopped
            );
            record.figures.extend([
                (format!("training, {of}seed {seed}"), training),
                (format!("validation, {of}seed {seed}"), metrics(t.validation.iter().map(|(k, v)| (k.as_str(), *v)))),
                (format!("losses, {of}seed {seed}"), metrics(t.losses.iter().map(|(k, v)| (k.as_str(), *v)))),
                (format!("trained by, {of}seed {seed}"), format!("`{}`", run.command)),
            ]);
        }
        for (opened, heads) in ours.iter().zip(heads) {
            record.figures.extend(heads.iter().map(|head| {
                let metrics = metrics(head.metrics.entries());
                let name = format!("head {}, seed {}", head.name, seed(opened));
                (name, format!("{metrics} ({} questions)", head.questions))
            }));
        }
        if let Some(first) = ours.first() {
            let manifest = first.generation.snapshot().manifest();
            record.configuration = TrainConfig::of(manifest).entries()?;
            record.configuration.push(("parameters".into(), manifest.training.parameters.to_string()));
        }
        if data.schema.has_time {
            record.configuration.push(("recent-popularity.half_life_days".into(), RECENT_DAYS.to_string()));
        }
        record.write(folder, name)
    }

    fn metrics<'a>(metrics: impl Iterator<Item = (&'a str, f64)>) -> String {
        let parts: Vec<String> = metrics.map(|(key, value)| format!("{key} {value:.4}")).collect();
        if parts.is_empty() { "-".into() } else { parts.join("  ") }
    }
}
