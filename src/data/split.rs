//! Which events are trained on, which choose the model, and which judge it.

use super::seen;
use super::{Dataset, Questions, RunRule};
use crate::error::{Result, err};
use crate::options::{Seen, TokenizerOptions};
use crate::random::hash64;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// How a dataset is divided.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Protocol {
    /// Everything is trained on; the last event of up to 2,000 entities is also used to choose the
    /// model, so its validation figures are optimistic. Nothing tests it.
    Everything,
    /// Each entity's last event tests, the one before validates, the rest trains. An entity
    /// with fewer than three events only trains.
    LeaveOneOut,
    /// Each entity's last two events test, the one before validates, the rest trains. An entity with fewer than four
    /// events only trains.
    LeaveTwoOut,
    /// The last `test` share of the events, by time, tests, the `validation` share before it validates; events of the
    /// same millisecond fall on the same side. Every such event is a case of its own if its entity has an earlier one;
    /// its history is all of them, those of the test share included.
    TimeSplit {
        /// Share of events, by time, that test.
        test: f64,
        /// Share of events, by time, that validate.
        validation: f64,
    },
    /// A time split whose lists are served `hours` late: a question's history ends so long before its target, and is asked
    /// for then, when nothing is known of the circumstances in which the list will be seen. Validation questions likewise.
    Stale {
        /// Hours between the newest event that is known and the target, at least.
        hours: f64,
        /// Share of events, by time, that test.
        test: f64,
        /// Share of events, by time, that validate.
        validation: f64,
    },
    /// A seeded `share` of the items is hidden from all training; events on them test, if the entity has an earlier
    /// event on an item that is not hidden. Each entity's last event on an item that is not hidden validates.
    ColdItems {
        /// Share of the items that are hidden.
        share: f64,
        /// Seed of the choice.
        seed: u64,
    },
    /// A seeded `share` of the entities is hidden from all training; their last events test, if there is an earlier
    /// one. The last events of the others validate.
    ColdEntities {
        /// Share of the entities that are hidden.
        share: f64,
        /// Seed of the choice.
        seed: u64,
    },
    /// What comes of the labels: each entity's last `test` share of labelled events tests, all before the first of them
    /// trains, but for the last, which validates. A seeded `share` of the entities is hidden from all training; they are
    /// asked the same questions. Every question is asked at the end of the training part, so later test events are not
    /// in its history.
    Ctr {
        /// Share of each entity's labelled events that test.
        test: f64,
        /// Share of the entities that are hidden; may be 0.
        share: f64,
        /// Seed of the choice.
        seed: u64,
    },
}

/// The parameters of a protocol, where given.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Parameters {
    pub hours: Option<f64>,
    pub test: Option<f64>,
    pub validation: Option<f64>,
    pub share: Option<f64>,
    pub seed: Option<u64>,
}

#[cfg(feature = "files")]
impl Parameters {
    /// Whether none is given.
    pub(super) fn is_empty(&self) -> bool {
        let Self { hours, test, validation, share, seed } = self;
        [hours, test, validation, share].iter().all(|given| given.is_none()) && seed.is_none()
    }
}

/// How many entities validate under [`Protocol::Everything`].
const EVERYTHING_SAMPLE: usize = 2_000;

impl Protocol {
    /// The protocol's name: `everything`, `leave-one-out`, `leave-two-out`, `time-split`, `stale`, `cold-items`,
    /// `cold-entities` or `ctr`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Everything => "everything",
            Self::LeaveOneOut => "leave-one-out",
            Self::LeaveTwoOut => "leave-two-out",
            Self::TimeSplit { .. } => "time-split",
            Self::Stale { .. } => "stale",
            Self::ColdItems { .. } => "cold-items",
            Self::ColdEntities { .. } => "cold-entities",
            Self::Ctr { .. } => "ctr",
        }
    }

    /// Reads what [`Display`](fmt::Display) writes: a name, or a name with parameters such as
    /// `time-split:test=0.2,validation=0.1` or `cold-items:share=0.1,seed=1` (these are also the defaults).
    ///
    /// # Errors
    /// `InvalidConfig` for an unknown name or parameter, or a share out of range.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, parameters) = text.split_once(':').unwrap_or((text, ""));
        let mut given = Parameters::default();
        for parameter in parameters.split(',').filter(|p| !p.is_empty()) {
            let bad = || {
                err!(
                    InvalidConfig,
                    "`{parameter}` is no parameter of a protocol; write for example `test=0.2` or `seed=1`"
                )
            };
            let (key, value) = parameter.split_once('=').ok_or_else(bad)?;
            let number = || value.trim().parse::<f64>().map_err(|_| bad());
            match key.trim() {
                "hours" => given.hours = Some(number()?),
                "test" => given.test = Some(number()?),
                "validation" => given.validation = Some(number()?),
                "share" => given.share = Some(number()?),
                "seed" => given.seed = Some(value.trim().parse::<u64>().map_err(|_| bad())?),
                _ => return Err(bad()),
            }
        }
        Self::from_parts(name.trim(), given)
    }

    /// The protocol `name` with the parameters given; the others keep their defaults.
    pub(super) fn from_parts(name: &str, given: Parameters) -> Result<Self> {
        let Parameters { hours, test, validation, share, seed } = given;
        let (share_or, seed_or) = (share.unwrap_or(0.1), seed.unwrap_or(1));
        let (protocol, takes): (_, &[&str]) = match name {
            "everything" => (Self::Everything, &[]),
            "leave-one-out" => (Self::LeaveOneOut, &[]),
            "leave-two-out" => (Self::LeaveTwoOut, &[]),
            "time-split" => (
                Self::TimeSplit { test: test.unwrap_or(0.2), validation: validation.unwrap_or(0.1) },
                &["test", "validation"],
            ),
            "stale" => (
                Self::Stale {
                    hours: hours.unwrap_or(48.0),
                    test: test.unwrap_or(0.2),
                    validation: validation.unwrap_or(0.1),
                },
                &["hours", "test", "validation"],
            ),
            "cold-items" => (Self::ColdItems { share: share_or, seed: seed_or }, &["share", "seed"]),
            "cold-entities" => (Self::ColdEntities { share: share_or, seed: seed_or }, &["share", "seed"]),
            "ctr" => {
                (Self::Ctr { test: test.unwrap_or(0.2), share: share_or, seed: seed_or }, &["test", "share", "seed"])
            }
            _ => {
                return Err(err!(
                    InvalidConfig,
                    "`{name}` is no protocol; choose leave-one-out, leave-two-out, time-split, stale, cold-items, \
                     cold-entities, ctr or everything"
                ));
            }
        };
        let given = [
            ("hours", hours.is_some()),
            ("test", test.is_some()),
            ("validation", validation.is_some()),
            ("share", share.is_some()),
            ("seed", seed.is_some()),
        ];
        if let Some((key, _)) = given.iter().find(|(key, given)| *given && !takes.contains(key)) {
            return Err(err!(InvalidConfig, "protocol `{name}` has no parameter `{key}`; remove it"));
        }
        protocol.check()?;
        Ok(protocol)
    }

    /// The protocol whose training keeps back what this one asks: lists that are late ask a time split's questions.
    pub fn trained_as(&self) -> Self {
        match *self {
            Self::Stale { test, validation, .. } => Self::TimeSplit { test, validation },
            ref other => other.clone(),
        }
    }

    fn check(&self) -> Result<()> {
        let inside = |x: f64| x > 0.0 && x < 1.0;
        let ok = match *self {
            Self::Stale { hours, .. } if !(0.0..=87_600.0).contains(&hours) => {
                return Err(err!(InvalidConfig, "`{self}` is late by {hours} hours; choose 0 to 87600"));
            }
            Self::TimeSplit { test, validation } | Self::Stale { test, validation, .. } => {
                inside(test) && (0.0..1.0).contains(&validation) && test + validation < 1.0
            }
            Self::ColdItems { share, .. } | Self::ColdEntities { share, .. } => inside(share),
            Self::Ctr { test, share, .. } => inside(test) && (0.0..1.0).contains(&share),
            Self::Everything | Self::LeaveOneOut | Self::LeaveTwoOut => true,
        };
        if ok {
            return Ok(());
        }
        Err(err!(
            InvalidConfig,
            "the shares of `{self}` are out of range; each lies between 0 and 1, their sum below 1"
        ))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Everything | Self::LeaveOneOut | Self::LeaveTwoOut => Ok(()),
            Self::TimeSplit { test, validation } => write!(f, ":test={test},validation={validation}"),
            Self::Stale { hours, test, validation } => {
                write!(f, ":hours={hours},test={test},validation={validation}")
            }
            Self::ColdItems { share, seed } | Self::ColdEntities { share, seed } => {
                write!(f, ":share={share},seed={seed}")
            }
            Self::Ctr { test, share, seed } => write!(f, ":test={test},share={share},seed={seed}"),
        }
    }
}

impl FromStr for Protocol {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

/// One question: after these events of this entity, which item came next?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The entity's row.
    pub entity: u32,
    /// The events known at the time of the question: indices into the columns of [`super::Events`], oldest first.
    pub history: Range<usize>,
    /// The event to be predicted.
    pub target: usize,
    /// When the list is made (Unix milliseconds), where that is before the target: its request-time fields are not known
    /// then. `None` is at the target.
    pub at: Option<i64>,
}

impl Case {
    /// Whether the target is an item of the history.
    pub fn is_repeat(&self, data: &Dataset) -> bool {
        let history = data.events.item.get(self.history.clone()).unwrap_or(&[]);
        data.events.item.get(self.target).is_some_and(|target| history.contains(target))
    }

    /// Whether the target begins a run: it does not go on with that of the event before.
    pub(crate) fn starts_run(&self, data: &Dataset, rule: &RunRule) -> bool {
        match self.history.end.checked_sub(1).filter(|last| *last >= self.history.start) {
            Some(last) => !rule.joins(rule.place(data, last), rule.place(data, self.target)),
            None => true,
        }
    }
}

/// A dataset divided under a protocol.
#[derive(Debug, Clone)]
pub struct Split {
    /// The protocol.
    pub protocol: Protocol,
    /// Events of entity `u` that may be trained on: indices into the columns of [`super::Events`]. Empty for hidden
    /// entities.
    pub train: Vec<Range<usize>>,
    /// Items that are hidden from training: one entry per item row, or empty where none is. Events on them inside
    /// `train` must be skipped.
    pub hidden: Vec<bool>,
    /// Which of the protocol's questions are asked.
    pub questions: Questions,
    /// Questions that choose the model.
    pub validation: Vec<Case>,
    /// Questions that judge it.
    pub test: Vec<Case>,
    /// BLAKE3 over the test questions by id (entity id, target item id, in order): equal hashes mean equal questions.
    pub target_hash: [u8; 32],
    /// The share of the training events that repeat an earlier item of their entity.
    pub repeated: f64,
    /// Whether seen items may be in lists, in training, evaluation and serving alike: as that share says
    /// ([`super::COMES_BACK`]), unless it is set otherwise.
    pub seen: Seen,
}

impl Split {
    /// Divides `data` under `protocol`.
    ///
    /// # Errors
    /// `InvalidConfig` for shares out of range; `InvalidData` where the protocol needs time and there is none, or
    /// leaves nothing to train on, or (unless it is [`Protocol::Everything`]) no question to test with.
    pub fn new(data: &Dataset, protocol: &Protocol) -> Result<Self> {
        protocol.check()?;
        let entities = 0..data.entities.len() as u32;
        let mut split = Self {
            protocol: protocol.clone(),
            train: Vec::with_capacity(data.entities.len()),
            hidden: Vec::new(),
            questions: Questions::All,
            validation: Vec::new(),
            test: Vec::new(),
            target_hash: [0; 32],
            repeated: 0.0,
            seen: Seen::Excluded,
        };
        match *protocol {
            Protocol::Everything => {
                split.train = entities.clone().map(|u| data.range(u)).collect();
                let eligible: Vec<u32> = entities.filter(|&u| data.range(u).len() >= 2).collect();
                let mut sample = draw(eligible.iter().map(|&u| data.entities.id(u)), EVERYTHING_SAMPLE, 1);
                sample.sort_unstable();
                let chosen = sample.iter().filter_map(|&i| eligible.get(i));
                split.validation = chosen.filter_map(|&u| last_of(u, &data.range(u))).collect();
            }
            Protocol::LeaveOneOut => entities.for_each(|u| split.leave_out(u, data.range(u), 1)),
            Protocol::LeaveTwoOut => entities.for_each(|u| split.leave_out(u, data.range(u), 2)),
            Protocol::TimeSplit { test, validation } => split.by_time(data, test, validation, None)?,
            Protocol::Stale { hours, test, validation } => {
                let late = (hours * 3_600_000.0) as i64;
                split.by_time(data, test, validation, Some(late))?;
            }
            Protocol::ColdItems { share, seed } => split.hide_items(data, share, seed),
            Protocol::Ctr { test, share, seed } => split.by_label(data, test, share, seed)?,
            Protocol::ColdEntities { share, seed } => {
                let hidden = hidden_entities(data, share, seed);
                for (u, hidden) in entities.zip(hidden) {
                    let range = data.range(u);
                    let case = last_of(u, &range);
                    let train = match &case {
                        _ if hidden => range.start..range.start,
                        Some(case) => case.history.clone(),
                        None => range,
                    };
                    if hidden { &mut split.test } else { &mut split.validation }.extend(case);
                    split.train.push(train);
                }
            }
        }
        Ok(split.finish(data)?.measured(data, None))
    }

    /// Asks only some of the questions, of validation and test alike. What is trained on stays the same. Whether people come back
    /// to items is measured by what may be asked.
    ///
    /// # Errors
    /// `InvalidConfig` where the questions name a field that `data` does not have; `InvalidData` where none is left to test
    /// with.
    pub fn only(mut self, data: &Dataset, questions: &Questions) -> Result<Self> {
        if let Questions::TokenStarts { max_gap, surface } = questions {
            let rule = RunRule::new(&data.schema, *max_gap, surface)?;
            self.validation.retain(|case| case.starts_run(data, &rule));
            self.test.retain(|case| case.starts_run(data, &rule));
            self.questions = questions.clone();
            self = self.finish(data)?.measured(data, Some(&rule));
        }
        Ok(self)
    }

    /// Measures whether people come back to items by the tokens that events are merged to: going on with one is no repeat.
    ///
    /// # Errors
    /// `InvalidConfig` where the options name a surface that `data` does not have.
    pub fn merging(self, data: &Dataset, options: &TokenizerOptions) -> Result<Self> {
        match options.is_on() {
            true => {
                let rule = RunRule::new(&data.schema, options.max_gap, &options.surface)?;
                Ok(self.measured(data, Some(&rule)))
            }
            false => Ok(self),
        }
    }

    fn measured(mut self, data: &Dataset, rule: Option<&RunRule>) -> Self {
        self.repeated = seen::repeated(data, &self.train, |item| self.is_hidden(item), rule);
        self.seen = seen::rule(self.repeated);
        self
    }

    /// Whether a question is asked: where seen items are excluded, none that asks for an item of its history.
    pub fn asks(&self, data: &Dataset, case: &Case) -> bool {
        self.seen == Seen::Allowed || !case.is_repeat(data)
    }

    /// The protocol with its parameters, as [`Protocol::parse`] reads it, and, where not all are asked, the questions.
    pub fn describe(&self) -> String {
        match self.questions {
            Questions::All => self.protocol.to_string(),
            _ => format!("{} {}", self.protocol, self.questions),
        }
    }

    /// Whether item row `item` is hidden from training.
    pub fn is_hidden(&self, item: u32) -> bool {
        self.hidden.get(item as usize).copied().unwrap_or(false)
    }

    /// The last `tests` events test, the one before them validates; needs one more to train on.
    fn leave_out(&mut self, entity: u32, range: Range<usize>, tests: usize) {
        if range.len() < tests + 2 {
            self.train.push(range);
            return;
        }
        let first_test = range.end - tests;
        self.train.push(range.start..first_test - 1);
        self.validation.push(Case { entity, history: range.start..first_test - 1, target: first_test - 1, at: None });
        for target in first_test..range.end {
            self.test.push(Case { entity, history: range.start..target, target, at: None });
        }
    }

    fn by_time(&mut self, data: &Dataset, test: f64, validation: f64, late: Option<i64>) -> Result<()> {
        if !data.schema.has_time {
            return Err(err!(
                InvalidData,
                "protocol `{}` needs the time of events, and dataset `{}` has none; declare `time`, or split it with \
                 leave-one-out",
                self.protocol,
                data.schema.name
            ));
        }
        let mut times = data.events.time.clone();
        times.sort_unstable();
        if let [first, .., last] = times.as_slice()
            && first == last
        {
            return Err(err!(
                InvalidData,
                "protocol `{}` divides by time, and all {} events of dataset `{}` are at one time ({first} in Unix \
                 milliseconds); check the column and format of `time`, or split it with leave-one-out",
                self.protocol,
                times.len(),
                data.schema.name
            ));
        }
        let boundary = |share: f64| {
            let from = times.len() - part(share, times.len());
            times.get(from).copied().unwrap_or(i64::MAX)
        };
        let (from_test, from_validation) = (boundary(test), boundary(test + validation));
        for entity in 0..data.entities.len() as u32 {
            let range = data.range(entity);
            let times = data.events.time.get(range.clone()).unwrap_or(&[]);
            let train = times.partition_point(|&t| t < from_validation.min(from_test));
            let before_test = times.partition_point(|&t| t < from_test);
            self.train.push(range.start..range.start + train);
            for at in train.max(1)..times.len() {
                let target = range.start + at;
                let cases = if at < before_test { &mut self.validation } else { &mut self.test };
                let made = late.and_then(|late| times.get(at).map(|t| t.saturating_sub(late)));
                let known = made.map_or(at, |made| times.partition_point(|t| *t <= made).min(at));
                if known > 0 {
                    cases.push(Case { entity, history: range.start..range.start + known, target, at: made });
                }
            }
        }
        Ok(())
    }

    fn by_label(&mut self, data: &Dataset, test: f64, share: f64, seed: u64) -> Result<()> {
        if data.events.label.is_empty() {
            return Err(err!(
                InvalidData,
                "protocol `{}` needs labels, and dataset `{}` declares none; declare `label` in [events], or split it with \
                 leave-one-out",
                self.protocol,
                data.schema.name
            ));
        }
        let hidden = hidden_entities(data, share, seed);
        for (entity, hidden) in (0..data.entities.len() as u32).zip(hidden) {
            let range = data.range(entity);
            let labelled: Vec<usize> =
                range.clone().filter(|&i| data.events.label.get(i).is_some_and(|l| !l.is_nan())).collect();
            let tests = ((test * labelled.len() as f64).round() as usize).min(labelled.len().saturating_sub(1));
            let tested = labelled.get(labelled.len() - tests..).unwrap_or(&[]);
            let history = range.start..tested.first().copied().unwrap_or(range.end);
            self.test.extend(tested.iter().map(|&target| Case { entity, history: history.clone(), target, at: None }));
            let case = last_of(entity, &history).filter(|_| !hidden);
            self.train.push(match &case {
                _ if hidden => range.start..range.start,
                Some(case) => case.history.clone(),
                None => history,
            });
            self.validation.extend(case);
        }
        Ok(())
    }

    fn hide_items(&mut self, data: &Dataset, share: f64, seed: u64) {
        self.hidden = vec![false; data.items.len()];
        let chosen = draw(data.items.names().iter().map(String::as_str), part(share, data.items.len()), seed);
        mark(&mut self.hidden, &chosen);
        for entity in 0..data.entities.len() as u32 {
            let range = data.range(entity);
            let is_hidden: Vec<bool> = data.history(entity).iter().map(|&i| self.is_hidden(i)).collect();
            let first_seen = is_hidden.iter().position(|h| !h).unwrap_or(is_hidden.len());
            let last_seen = is_hidden.iter().rposition(|h| !h).unwrap_or(0);
            let mut train = range.clone();
            if last_seen > first_seen {
                train.end = range.start + last_seen;
                self.validation.push(Case { entity, history: train.clone(), target: train.end, at: None });
            }
            self.train.push(train);
            for (at, _) in is_hidden.iter().enumerate().filter(|&(at, &hidden)| hidden && at > first_seen) {
                let target = range.start + at;
                self.test.push(Case { entity, history: range.start..target, target, at: None });
            }
        }
    }

    fn finish(mut self, data: &Dataset) -> Result<Self> {
        let visible = |range: &Range<usize>| {
            let items = data.events.item.get(range.clone()).unwrap_or(&[]);
            items.iter().any(|&i| !self.is_hidden(i))
        };
        if !self.train.iter().any(visible) {
            return Err(err!(
                InvalidData,
                "protocol `{}` leaves no event of dataset `{}` to train on; choose smaller shares, or `everything`",
                self.protocol,
                data.schema.name
            ));
        }
        if self.test.is_empty() && self.protocol != Protocol::Everything {
            return Err(err!(
                InvalidData,
                "protocol `{}` finds no question to test with in dataset `{}`: its entities have too few events; bring \
                 more, or choose `everything`",
                self.protocol,
                data.schema.name
            ));
        }
        self.target_hash = target_hash(data, &self.test);
        Ok(self)
    }
}

/// What tells questions from others: BLAKE3 over entity id and target item id of each, in order.
pub(crate) fn target_hash(data: &Dataset, cases: &[Case]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for case in cases {
        let item = data.events.item.get(case.target).map_or("", |&i| data.items.id(i));
        for id in [data.entities.id(case.entity), item] {
            hasher.update(&(id.len() as u64).to_le_bytes());
            hasher.update(id.as_bytes());
        }
    }
    *hasher.finalize().as_bytes()
}

/// The last event of an entity that has an earlier one.
fn last_of(entity: u32, range: &Range<usize>) -> Option<Case> {
    let target = range.end.checked_sub(1)?;
    (range.len() >= 2).then_some(Case { entity, history: range.start..target, target, at: None })
}

/// How many of `n` a share is, to the nearest, but neither none nor all where `n` allows it.
fn part(share: f64, n: usize) -> usize {
    ((share * n as f64).round() as usize).clamp(1.min(n), n.saturating_sub(1).max(1).min(n))
}

/// Which entities a seeded share hides: one flag per entity.
fn hidden_entities(data: &Dataset, share: f64, seed: u64) -> Vec<bool> {
    let mut hidden = vec![false; data.entities.len()];
    if share > 0.0 {
        let ids = data.entities.names().iter().map(String::as_str);
        mark(&mut hidden, &draw(ids, part(share, data.entities.len()), seed));
    }
    hidden
}

/// `count` places drawn by seed and id alone, so that the order of the input changes nothing.
fn draw<'a>(ids: impl Iterator<Item = &'a str>, count: usize, seed: u64) -> Vec<usize> {
    let key = |id: &str| {
        let mut first = [0; 8];
        blake3::hash(id.as_bytes()).as_bytes().iter().zip(&mut first).for_each(|(from, to)| *to = *from);
        hash64(seed, u64::from_le_bytes(first))
    };
    let mut ranked: Vec<(u64, &str, usize)> = ids.enumerate().map(|(i, id)| (key(id), id, i)).collect();
    ranked.sort_unstable();
    ranked.into_iter().take(count).map(|(_, _, i)| i).collect()
}

fn mark(flags: &mut [bool], places: &[usize]) {
    places.iter().for_each(|&i| {
        if let Some(flag) = flags.get_mut(i) {
            *flag = true;
        }
    });
}
