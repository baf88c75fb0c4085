//! Options as lines of text, a key and a value each: how they stand in manifests, and what tells one training from another.
//!
//! A *binding* line changes what is computed from a generation, an *informative* one says how it came to be (as PNG's critical and
//! ancillary chunks). Whoever reads lines refuses a binding key that it does not know, keeps an informative one, and takes for a key
//! that is missing the value of [`ADDED`]: what stood for it before there was such a key, whatever the default is today.
//!
//! An option that is added to a struct is added in three places, of which the compiler names the first: its line below, its line
//! in [`ADDED`], and `docs/format.md`. One that `train.toml` has goes into the list of the same name in `train/config/keys.rs`, too, by
//! which an unfinished training of an earlier build is read.

use super::*;
use std::collections::BTreeMap;

/// Keys that were added after version 1, each with the value that stood for it before. A `*` is any number.
const ADDED: &[(&str, &str)] = &[
    ("model.tower.gate", "learned"),
    ("ranker.publish", "always"),
    ("ranker.goal", "outcome"),
    ("ranker.order.head", "0"),
    ("ranker.order.weight", "none"),
    ("serve.seen", "excluded"),
    ("train.cooldown", "0.0"),
];

/// Options as text, by key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Lines {
    pub(crate) binding: BTreeMap<String, String>,
    pub(crate) informative: BTreeMap<String, String>,
}

/// Options that have lines.
pub(crate) trait Options: Clone {
    /// Names each option to `codec`, which writes it down or replaces it by what was written.
    ///
    /// # Errors
    /// Those of [`Lines::take`].
    fn each(&mut self, codec: &mut Codec<'_>) -> Result<()>;
}

impl Lines {
    /// Adds the lines of `options`.
    pub(crate) fn put(&mut self, options: &impl Options) {
        // Nothing that is written can be refused.
        let _ = options.clone().each(&mut Codec::Write(self, ADDED));
    }

    /// Takes out the lines of `options`, which get their values. What is left after the last such call is not known here.
    ///
    /// # Errors
    /// `UpgradeRequired` where a value is one of a later version; `Corrupt` where a line is missing or is no such value.
    pub(crate) fn take<O: Options>(&mut self, options: &mut O) -> Result<()> {
        self.take_with(options, ADDED)
    }

    fn take_with(&mut self, options: &mut impl Options, added: &[(&str, &str)]) -> Result<()> {
        options.each(&mut Codec::Read(self, added))
    }

    /// The informative lines that nobody took.
    ///
    /// # Errors
    /// `UpgradeRequired` where a binding line is left.
    pub(crate) fn rest(self) -> Result<BTreeMap<String, String>> {
        match self.binding.first_key_value() {
            None => Ok(self.informative),
            Some((key, value)) => Err(err!(
                UpgradeRequired,
                "it needs {key} = {value:?}, an option that this version does not know; upgrade docent"
            )),
        }
    }

    fn part(&mut self, binding: bool) -> &mut BTreeMap<String, String> {
        if binding { &mut self.binding } else { &mut self.informative }
    }
}

/// Writes options to lines, or reads them, with the values of keys that were added.
pub(crate) enum Codec<'a> {
    Write(&'a mut Lines, &'a [(&'a str, &'a str)]),
    Read(&'a mut Lines, &'a [(&'a str, &'a str)]),
}

impl Codec<'_> {
    fn binding(&mut self, key: &str, value: &mut impl Text) -> Result<()> {
        self.line(true, key, value)
    }

    fn informative(&mut self, key: &str, value: &mut impl Text) -> Result<()> {
        self.line(false, key, value)
    }

    fn line<T: Text>(&mut self, binding: bool, key: &str, value: &mut T) -> Result<()> {
        match self {
            Self::Write(lines, added) => {
                let text = value.text();
                // What stood for a key before there was one needs no line: a file that does not use an option is as it was without it,
                // and earlier builds read it. What a later version wrote of an informative key stays as it wrote it.
                if before(added, key) != Some(&*text) {
                    lines.part(binding).entry(key.to_owned()).or_insert(text);
                }
                Ok(())
            }
            Self::Read(lines, added) => {
                let text = match lines.part(binding).remove(key) {
                    Some(text) => text,
                    None => before(added, key).ok_or_else(|| err!(Corrupt, "its option {key} is missing"))?.to_owned(),
                };
                match T::parse(&text).filter(|value| !T::ONE_FORM || value.text() == text) {
                    Some(read) => *value = read,
                    // It says how the model came to be, in words of a later version: it stays in the lines, and nothing is computed from it.
                    None if !binding => _ = lines.informative.insert(key.to_owned(), text),
                    None if T::GROWS => return Err(later(key, &text)),
                    None => return Err(err!(Corrupt, "its option {key} has the value {text:?}")),
                }
                Ok(())
            }
        }
    }
}

impl Codec<'_> {
    /// Leaves an informative word of a later version in the lines.
    fn keep(&mut self, key: &str, word: String) {
        if let Self::Read(lines, _) = self {
            lines.informative.insert(key.to_owned(), word);
        }
    }
}

/// The value that stood for a key before it was added.
fn before<'a>(added: &[(&str, &'a str)], key: &str) -> Option<&'a str> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let plain: Vec<&str> = key.split('.').map(|part| if is_number(part) { "*" } else { part }).collect();
    let plain = plain.join(".");
    added.iter().find(|(added, _)| *added == plain).map(|(_, value)| *value)
}

fn later(key: &str, text: &str) -> Error {
    err!(UpgradeRequired, "its option {key} has the value {text:?}, which this version does not know; upgrade docent")
}

/// A value as text, in one form.
trait Text: Sized {
    /// Whether a later version may have values that this one does not know.
    const GROWS: bool = false;
    /// Whether a value has a single text. Numbers with a fraction may be written in several: what standard libraries write changes.
    const ONE_FORM: bool = true;
    fn text(&self) -> String;
    fn parse(text: &str) -> Option<Self>;
}

/// Rust's own text of a number has the fewest digits that read to the same bits.
macro_rules! plain {
    ($($type:ty),*) => {$(
        impl Text for $type {
            fn text(&self) -> String {
                format!("{self:?}")
            }
            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        }
    )*};
}
plain!(bool, u32, u64);

impl Text for f32 {
    const ONE_FORM: bool = false;
    fn text(&self) -> String {
        format!("{self:?}")
    }
    fn parse(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

macro_rules! words {
    ($type:ident { $($variant:ident = $word:literal),* }) => {
        impl Text for $type {
            const GROWS: bool = true;
            fn text(&self) -> String {
                match self { $(Self::$variant => $word),* }.to_owned()
            }
            fn parse(text: &str) -> Option<Self> {
                match text {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}
words!(Seen { Excluded = "excluded", Allowed = "allowed" });
words!(Block { Gated = "gated", Hstu = "hstu" });
words!(Gate { Fixed = "fixed", Learned = "learned" });
words!(Positions { Learned = "learned", Rotary = "rotary" });
words!(Publish { Earned = "earned", Always = "always" });
words!(NegativeSource { Uniform = "uniform", Popularity = "popularity", Mixed = "mixed", InBatch = "in-batch" });

impl Text for String {
    fn text(&self) -> String {
        self.clone()
    }
    fn parse(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Text for ItemKind {
    const GROWS: bool = true;
    fn text(&self) -> String {
        match self {
            Self::Off => "off".into(),
            Self::Item => "item".into(),
            Self::Field(name) => format!("field:{name}"),
        }
    }
    fn parse(text: &str) -> Option<Self> {
        match (text, text.strip_prefix("field:")) {
            ("off", _) => Some(Self::Off),
            ("item", _) => Some(Self::Item),
            (_, Some(name)) => Some(Self::Field(name.to_owned())),
            _ => None,
        }
    }
}

impl Text for RankerGoal {
    const GROWS: bool = true;
    const ONE_FORM: bool = false;
    fn text(&self) -> String {
        self.to_string()
    }
    fn parse(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }
}

impl<T: Text> Text for Option<T> {
    const ONE_FORM: bool = T::ONE_FORM;
    fn text(&self) -> String {
        self.as_ref().map_or_else(|| "none".into(), Text::text)
    }
    fn parse(text: &str) -> Option<Self> {
        if text == "none" { Some(None) } else { T::parse(text).map(Some) }
    }
}

/// A comma ends each element; a backslash stands before commas and backslashes of an element's own.
impl<T: Text> Text for Vec<T> {
    const ONE_FORM: bool = T::ONE_FORM;
    fn text(&self) -> String {
        self.iter().map(|value| value.text().replace('\\', "\\\\").replace(',', "\\,") + ",").collect()
    }
    fn parse(text: &str) -> Option<Self> {
        let (mut values, mut element, mut rest) = (Vec::new(), String::new(), text.chars());
        while let Some(c) = rest.next() {
            match c {
                '\\' => element.push(rest.next()?),
                ',' => values.push(T::parse(&std::mem::take(&mut element))?),
                _ => element.push(c),
            }
        }
        element.is_empty().then_some(values)
    }
}

impl Text for [f32; 2] {
    const ONE_FORM: bool = false;
    fn text(&self) -> String {
        self.to_vec().text()
    }
    fn parse(text: &str) -> Option<Self> {
        Vec::parse(text)?.try_into().ok()
    }
}

/// The lines of a struct, by the names of its fields; a field that is named nowhere does not compile. Those of `other` are left to the
/// caller.
macro_rules! fields {
    ($codec:ident, $type:ident $value:expr, $prefix:literal { $($part:ident: $($field:ident)*;)* } other { $($other:ident)* }) => {
        #[allow(unused_variables, reason = "some of the others have no line")]
        let $type { $($($field,)*)* $($other,)* } = $value;
        $($($codec.$part(concat!($prefix, ".", stringify!($field)), $field)?;)*)*
    };
}

impl Options for ModelOptions {
    fn each(&mut self, c: &mut Codec<'_>) -> Result<()> {
        fields!(c, ModelOptions self, "model" {
            binding: width block blocks heads hidden max_length positions distance_bias time_bias time_input field_width;
            binding: normalized temperature feedback;
        } other { tower auxiliary });
        let mut has_tower = tower.is_some();
        c.binding("model.tower", &mut has_tower)?;
        *tower = has_tower.then(|| tower.unwrap_or_default());
        if let Some(tower) = tower {
            fields!(c, TowerOptions tower, "model.tower" {
                binding: title_buckets;
                informative: gate masking masking_young;
            } other {});
        }
        let mut heads = std::mem::take(auxiliary).into_iter();
        let mut count = heads.len() as u32;
        c.binding("model.auxiliary", &mut count)?;
        for i in 0..count {
            let none = Auxiliary { field: String::new(), weight: 0.0, hierarchical: false };
            let mut head = heads.next().unwrap_or(none);
            let Auxiliary { field, weight, hierarchical } = &mut head;
            c.binding(&format!("model.auxiliary.{i}.field"), field)?;
            c.binding(&format!("model.auxiliary.{i}.weight"), weight)?;
            c.binding(&format!("model.auxiliary.{i}.hierarchical"), hierarchical)?;
            auxiliary.push(head);
        }
        Ok(())
    }
}

impl Options for ServeOptions {
    fn each(&mut self, c: &mut Codec<'_>) -> Result<()> {
        fields!(c, ServeOptions self, "serve" {
            binding: seen;
        } other {});
        Ok(())
    }
}

impl Options for TokenizerOptions {
    fn each(&mut self, c: &mut Codec<'_>) -> Result<()> {
        fields!(c, TokenizerOptions self, "tokenizer" {
            binding: max_gap surface terminal merges budget;
            informative: dropout;
        } other {});
        Ok(())
    }
}

impl Options for TrainOptions {
    fn each(&mut self, c: &mut Codec<'_>) -> Result<()> {
        // The threads change nothing in what is trained.
        fields!(c, TrainOptions self, "train" {
            informative: seed epochs batch learning_rate warmup final_rate cooldown weight_decay clip dropout patience;
            informative: validate_every ema window_share checkpoint_every max_seconds;
        } other { threads loss objective });
        loss_lines(loss, c)?;
        let Objective { utility, window, half_life } = objective;
        utility_lines(utility, c)?;
        c.informative("train.objective.window", window)?;
        c.informative("train.objective.half_life", half_life)
    }
}

fn loss_lines(loss: &mut Option<Loss>, c: &mut Codec<'_>) -> Result<()> {
    let (word, mut negatives, mut calibration) = match *loss {
        None => ("auto", Negatives::uniform(0), 0.0),
        Some(Loss::Full) => ("full", Negatives::uniform(0), 0.0),
        Some(Loss::Sampled(negatives)) => ("sampled", negatives, 0.0),
        Some(Loss::Gbce(Gbce { negatives, calibration })) => ("gbce", negatives, calibration),
    };
    let mut word = word.to_owned();
    c.informative("train.loss", &mut word)?;
    if matches!(&*word, "sampled" | "gbce") {
        let Negatives { count, source, log_q } = &mut negatives;
        c.informative("train.loss.negatives", count)?;
        c.informative("train.loss.source", source)?;
        c.informative("train.loss.log_q", log_q)?;
    }
    *loss = match &*word {
        "auto" => None,
        "full" => Some(Loss::Full),
        "sampled" => Some(Loss::Sampled(negatives)),
        "gbce" => {
            c.informative("train.loss.calibration", &mut calibration)?;
            Some(Loss::Gbce(Gbce { negatives, calibration }))
        }
        _ => {
            c.keep("train.loss", word);
            None
        }
    };
    Ok(())
}

fn utility_lines(utility: &mut Utility, c: &mut Codec<'_>) -> Result<()> {
    let (word, mut field, weighted) = match std::mem::take(utility) {
        Utility::Equal => ("equal", String::new(), Vec::new()),
        Utility::Value => ("value", String::new(), Vec::new()),
        Utility::Field(field) => ("field", field, Vec::new()),
        Utility::Actions(weighted) => ("actions", String::new(), weighted),
    };
    let mut word = word.to_owned();
    c.informative("train.objective.utility", &mut word)?;
    *utility = match &*word {
        "equal" => Utility::Equal,
        "value" => Utility::Value,
        "field" => {
            c.informative("train.objective.utility.field", &mut field)?;
            Utility::Field(field)
        }
        "actions" => {
            let (mut actions, mut weights): (Vec<String>, Vec<f32>) = weighted.into_iter().unzip();
            c.informative("train.objective.utility.actions", &mut actions)?;
            c.informative("train.objective.utility.weights", &mut weights)?;
            if actions.len() != weights.len() {
                return Err(err!(Corrupt, "its option train.objective.utility.weights has another length"));
            }
            Utility::Actions(actions.into_iter().zip(weights).collect())
        }
        _ => {
            c.keep("train.objective.utility", word);
            Utility::Equal
        }
    };
    Ok(())
}

impl Options for RankerOptions {
    fn each(&mut self, c: &mut Codec<'_>) -> Result<()> {
        fields!(c, RankerOptions self, "ranker" {
            binding: embedding hidden trunk gate item_width steps support prior_count rate_decay bound identity person items surface;
        } other {});
        Ok(())
    }
}

impl Options for RankerTrainOptions {
    fn each(&mut self, c: &mut Codec<'_>) -> Result<()> {
        // The threads change nothing in what is trained.
        fields!(c, RankerTrainOptions self, "ranker" {
            informative: seed epochs batch learning_rate weight_decay vector_decay inner_rate exact unadapted first cold cold_items;
            informative: validation patience finetune publish goal;
        } other { threads });
        Ok(())
    }
}

impl Options for ListOrder {
    fn each(&mut self, c: &mut Codec<'_>) -> Result<()> {
        fields!(c, ListOrder self, "ranker.order" {
            binding: head weight;
        } other {});
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn lines(options: &impl Options) -> Lines {
        let mut lines = Lines::default();
        lines.put(options);
        lines
    }

    fn again<T: Options>(mut options: T, from: &T) -> T {
        let mut lines = lines(from);
        lines.take(&mut options).unwrap();
        assert_eq!(lines, Lines::default(), "everything that is written is read");
        options
    }

    fn model() -> ModelOptions {
        let head = |field: &str, weight, hierarchical| Auxiliary { field: field.into(), weight, hierarchical };
        ModelOptions {
            block: Block::Hstu,
            positions: Positions::Rotary,
            temperature: 0.1 + f32::EPSILON,
            tower: Some(TowerOptions {
                title_buckets: 0,
                gate: Gate::Learned,
                masking: Some(f32::MIN_POSITIVE),
                masking_young: [0.1, 1e30],
            }),
            auxiliary: vec![head("genre", 0.5, true), head("a=b,\\\n", -0.0, false)],
            ..ModelOptions::default()
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(again(ModelOptions::default(), &model()), model());
        assert_eq!(again(model(), &ModelOptions::default()), ModelOptions::default());
        let tokenizer =
            TokenizerOptions { terminal: vec!["".into(), "a,b\\".into()], surface: "x".into(), ..Default::default() };
        assert_eq!(again(TokenizerOptions::default(), &tokenizer), tokenizer);
        let negatives = Negatives { count: 5, source: NegativeSource::InBatch, log_q: true };
        let losses = [
            None,
            Some(Loss::Full),
            Some(Loss::Sampled(negatives)),
            Some(Loss::Gbce(Gbce { negatives, calibration: 0.75 })),
        ];
        let utilities = [
            Utility::Equal,
            Utility::Value,
            Utility::Field("rating".into()),
            Utility::Actions(vec![("view".into(), 0.1), ("buy, or not".into(), 3.0)]),
        ];
        for (loss, utility) in losses.into_iter().zip(utilities) {
            let objective = Objective { utility, ..Objective::default() };
            let train = TrainOptions { loss, objective, seed: u64::MAX, ..TrainOptions::default() };
            assert_eq!(again(TrainOptions::default(), &train), train);
            assert_eq!(again(train.clone(), &TrainOptions::default()), TrainOptions::default());
        }
        for seen in Seen::ALL {
            assert_eq!(again(ServeOptions::default(), &ServeOptions { seen }), ServeOptions { seen });
        }
        assert_eq!(
            lines(&ServeOptions { seen: Seen::Excluded }),
            Lines::default(),
            "as it was before there was the key"
        );
        let items = ItemKind::Field("creator".into());
        let ranker = RankerOptions { hidden: Vec::new(), items, surface: "device".into(), ..RankerOptions::default() };
        assert_eq!(again(RankerOptions::default(), &ranker), ranker);
        let goals = [
            RankerGoal::Next,
            RankerGoal::Outcome(None),
            RankerGoal::Outcome(Some("like, or not".into())),
            RankerGoal::Weight(0.3),
        ];
        for (goal, publish) in goals.into_iter().zip([Publish::Always, Publish::Earned].into_iter().cycle()) {
            let train = RankerTrainOptions { exact: false, goal, publish, ..RankerTrainOptions::default() };
            assert_eq!(again(RankerTrainOptions::default(), &train), train);
        }
        for weight in [None, Some(0.0), Some(0.3)] {
            let order = ListOrder { head: 2, weight };
            assert_eq!(again(ListOrder::default(), &order), order);
        }
        assert_eq!(lines(&ListOrder::default()), Lines::default(), "the order of rankers from before has no line");
    }

    #[test]
    fn numbers_come_back_to_the_bit() {
        let mut rng = crate::random::Rng::new(5);
        for _ in 0..20_000 {
            let number = f32::from_bits(rng.below(1 << 32) as u32);
            let read: f32 = Text::parse(&number.text()).unwrap();
            assert!(read.to_bits() == number.to_bits() || number.is_nan(), "{number:?}");
        }
    }

    #[test]
    fn threads_are_no_part_of_a_training() {
        let train = TrainOptions { threads: 7, ..TrainOptions::default() };
        let ranker = RankerTrainOptions { threads: 7, ..RankerTrainOptions::default() };
        assert_eq!(lines(&train), lines(&TrainOptions::default()));
        assert_eq!(lines(&ranker), lines(&RankerTrainOptions::default()));
    }

    /// The three rules of docs/format.md.
    #[test]
    fn keys_that_are_unknown_are_refused_or_kept_and_missing_ones_mean_what_stood_for_them() {
        let kind = |lines: &Lines, added: &[(&str, &str)]| {
            let mut lines = lines.clone();
            lines.take_with(&mut ModelOptions::default(), added).and_then(|()| lines.rest())
        };
        let written = lines(&model());
        assert!(kind(&written, ADDED).unwrap().is_empty());
        let mut later = written.clone();
        later.informative.insert("model.colour".into(), "red".into());
        assert_eq!(
            kind(&later, ADDED).unwrap().into_iter().collect::<Vec<_>>(),
            [("model.colour".into(), "red".into())]
        );
        later.binding.insert("model.experts".into(), "8".into());
        let error = kind(&later, ADDED).unwrap_err();
        assert!(error.kind() == ErrorKind::UpgradeRequired && error.message().contains("model.experts"), "{error}");
        let mut word = written.clone();
        word.binding.insert("model.block".into(), "mamba".into());
        let error = kind(&word, ADDED).unwrap_err();
        assert!(error.kind() == ErrorKind::UpgradeRequired && error.message().contains("mamba"), "{error}");
        for text in ["064", "+64", "", "-1", "64.0"] {
            let mut bad = written.clone();
            bad.binding.insert("model.width".into(), text.into());
            assert_eq!(kind(&bad, ADDED).unwrap_err().kind(), ErrorKind::Corrupt, "{text}");
        }

        // As if `field_width` and the weights of heads had come after the file was written. No default is asked.
        let mut old = written.clone();
        old.binding.remove("model.field_width");
        old.binding.retain(|key, _| !key.ends_with(".weight"));
        assert_eq!(kind(&old, ADDED).unwrap_err().kind(), ErrorKind::Corrupt);
        let added = [("model.field_width", "3"), ("model.auxiliary.*.weight", "0.125"), ADDED[0]];
        let mut read = ModelOptions::default();
        old.clone().take_with(&mut read, &added).unwrap();
        assert_eq!((read.field_width, read.auxiliary[0].weight, read.auxiliary[1].weight), (3, 0.125, 0.125));
    }

    /// What was published before an option came is hashed and published again without a line for it.
    #[test]
    fn an_option_with_the_value_from_before_writes_no_line() {
        fn again<O: Options>(mut options: O) -> Vec<String> {
            let mut old = lines(&options);
            old.binding.retain(|key, _| before(ADDED, key).is_none());
            old.informative.retain(|key, _| before(ADDED, key).is_none());
            let without = old.clone();
            old.take(&mut options).unwrap();
            let now = lines(&options);
            let new = now.binding.keys().chain(now.informative.keys());
            new.filter(|key| !without.binding.contains_key(*key) && !without.informative.contains_key(*key))
                .cloned()
                .collect()
        }
        let none: [String; 0] = [];
        assert_eq!(again(TrainOptions::default()), none);
        assert_eq!(again(RankerTrainOptions::default()), none);
        assert_eq!(again(ModelOptions { tower: Some(TowerOptions::default()), ..ModelOptions::default() }), none);
    }

    /// Informative values in words of a later version are read as nothing, and survive being published again.
    #[test]
    fn how_a_later_version_trains_is_kept_as_it_says() {
        let mut later = lines(&TrainOptions::default());
        for (key, value) in [("train.loss", "flow"), ("train.loss.steps", "4"), ("train.epochs", "enough")] {
            later.informative.insert(key.into(), value.into());
        }
        later.informative.insert("train.objective.utility".into(), "regret".into());
        let (mut left, mut read) = (later.clone(), TrainOptions::default());
        left.take(&mut read).unwrap();
        assert_eq!(read, TrainOptions::default());
        let mut again = Lines { informative: left.rest().unwrap(), ..Lines::default() };
        again.put(&read);
        assert_eq!(again, later);
    }

    /// Whoever does not use an option writes what was written before there was one.
    #[test]
    fn an_added_option_that_is_not_used_has_no_line() {
        let added = [("model.field_width", "16"), ("model.auxiliary.*.weight", "0.5")];
        let mut written = Lines::default();
        model().each(&mut Codec::Write(&mut written, &added)).unwrap();
        assert!(!written.binding.contains_key("model.field_width"));
        assert!(!written.binding.contains_key("model.auxiliary.0.weight"));
        assert!(written.binding.contains_key("model.auxiliary.1.weight"));
        let mut read = ModelOptions::default();
        written.take_with(&mut read, &added).unwrap();
        assert_eq!(read, model());
    }

    /// Whoever renames an option, gives it another text or another part, or adds one without a line in [`ADDED`], makes files that
    /// are written unreadable. The fixture never changes.
    #[test]
    fn the_lines_of_version_1_are_read_for_ever() {
        let mut written = Lines::default();
        for line in include_str!("../../tests/fixtures/options.v1.txt").lines() {
            let (part, line) = line.split_once(' ').unwrap();
            let (key, value) = line.split_once(" = ").unwrap();
            written.part(part == "binding").insert(key.into(), value.into());
        }
        let mut left = written.clone();
        let (mut model, mut tokenizer, mut train) = Default::default();
        let (mut ranker, mut ranker_train) = Default::default();
        left.take::<ModelOptions>(&mut model).unwrap();
        left.take::<TokenizerOptions>(&mut tokenizer).unwrap();
        left.take::<TrainOptions>(&mut train).unwrap();
        left.take::<RankerOptions>(&mut ranker).unwrap();
        left.take::<RankerTrainOptions>(&mut ranker_train).unwrap();
        assert_eq!(left, Lines::default(), "a key is not known any more");
        let mut again = lines(&model);
        again.put(&tokenizer);
        again.put(&train);
        again.put(&ranker);
        again.put(&ranker_train);
        let is_in = |old: &BTreeMap<String, String>, new: &BTreeMap<String, String>| {
            old.iter().for_each(|(key, value)| assert_eq!(new.get(key), Some(value), "{key}"));
        };
        is_in(&written.binding, &again.binding);
        is_in(&written.informative, &again.informative);
    }
}
