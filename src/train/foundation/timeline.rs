//! What was known of each item at each moment of the training events: its age, and how much had been seen of it.

use super::corpus::Corpus;
use crate::data::Dataset;
use crate::model::Standing;
use crate::random::{Rng, hash64};

const DAY: f32 = 86_400_000.0;
/// The share of items that are masked unless told otherwise: metadata has to be learned where the training events hold no new item, too.
pub(crate) const MASKING: f32 = 0.3;
/// Ages in days below which an item is young.
const YOUNG_DAYS: [f32; 2] = [7.0, 28.0];

/// The events on each item, in order of time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timeline {
    /// Item `i` has `times[offsets[i]..offsets[i + 1]]`; all empty where there is no time.
    offsets: Vec<usize>,
    times: Vec<i64>,
    totals: Vec<u32>,
    /// When each item was released or, where that is not known, first seen; `i64::MIN` is unknown.
    begun: Vec<i64>,
    newest: Option<i64>,
    /// Whether an item was there to be chosen.
    offered: Vec<bool>,
}

impl Timeline {
    /// The training events by item; `hidden` items come later, as in [`crate::data::Split`].
    pub(crate) fn new(data: &Dataset, corpus: &Corpus, hidden: &[bool]) -> Self {
        let n = data.items.len();
        let once = corpus.once();
        let (items, at) = (&corpus.history.items[..once], corpus.history.time.get(..once).unwrap_or(&[]));
        let mut totals = vec![0u32; n];
        items.iter().for_each(|i| totals[*i as usize] += 1);
        let mut offsets = vec![0];
        offsets.extend(totals.iter().scan(0, |sum, t| {
            *sum += *t as usize;
            Some(*sum)
        }));
        let mut times = Vec::new();
        if !at.is_empty() {
            times = vec![0i64; items.len()];
            let mut next = offsets.clone();
            for (item, time) in items.iter().zip(at) {
                times[next[*item as usize]] = *time;
                next[*item as usize] += 1;
            }
            offsets.windows(2).for_each(|w| times[w[0]..w[1]].sort_unstable());
        }
        let begun = (0..n).map(|i| {
            let released = data.released.get(i).copied().unwrap_or(i64::MIN);
            let first = times.get(offsets[i]..offsets[i + 1]).and_then(|t| t.first()).copied();
            if released == i64::MIN { first.unwrap_or(i64::MIN) } else { released }
        });
        let begun: Vec<i64> = if times.is_empty() { vec![i64::MIN; n] } else { begun.collect() };
        let offered = (0..n).map(|i| hidden.get(i) != Some(&true)).collect();
        let newest = times.iter().max().copied();
        Self { offsets, newest, times, totals, begun, offered }
    }

    /// How many items there are.
    pub(crate) fn len(&self) -> usize {
        self.totals.len()
    }

    /// Whether the softmax is over the item: over all of the catalogue but what is hidden from training, as if it came later. An item that
    /// nobody has touched competes with those that somebody chose, as it does when lists are made.
    pub(crate) fn offered(&self, item: u32) -> bool {
        self.offered[item as usize]
    }

    /// What was known of an item just before `at`; of the events all, where there is no time.
    pub(crate) fn standing(&self, item: u32, at: Option<i64>) -> Standing {
        let i = item as usize;
        let (Some(at), false) = (at, self.times.is_empty()) else {
            return Standing { age: None, evidence: self.totals[i], known: self.totals[i] > 0 };
        };
        let evidence = self.times[self.offsets[i]..self.offsets[i + 1]].partition_point(|t| *t < at) as u32;
        let begun = self.begun[i];
        let age = (begun != i64::MIN).then(|| (at.saturating_sub(begun) as f32 / DAY).max(0.0));
        Standing { age, evidence, known: self.totals[i] > 0 }
    }

    /// What was known of an item just after one of its events, drawn at random. An item that somebody touched is so never met as one that
    /// nobody did, which is how it will not be met again either.
    pub(crate) fn chosen(&self, item: u32, rng: &mut Rng) -> Standing {
        let own = self.times.get(self.offsets[item as usize]..self.offsets[item as usize + 1]).unwrap_or(&[]);
        match own.is_empty() {
            true => self.standing(item, self.newest),
            false => {
                let at = own.get(rng.below(own.len())).copied();
                let evidence = own.partition_point(|t| Some(*t) <= at) as u32;
                Standing { evidence, ..self.standing(item, at) }
            }
        }
    }

    /// What is known of every item after the last training event: what is published.
    pub(crate) fn last(&self) -> Vec<Standing> {
        let at = self.newest.map(|t| t.saturating_add(1));
        (0..self.totals.len() as u32).map(|i| self.standing(i, at)).collect()
    }
}

/// Which ID embeddings a training step does without.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Masking {
    /// Share of items, at least.
    pub rate: f32,
    /// Shares of the young.
    pub young: [f32; 2],
    /// Names the step.
    pub key: u64,
}

impl Masking {
    /// What is known of an item that is masked; `None` where it is not. Half of the masked pass for items that nobody has touched.
    pub(crate) fn draw(self, item: u32, standing: Standing) -> Option<Standing> {
        let young = standing.age.and_then(|age| YOUNG_DAYS.iter().position(|days| age < *days));
        let share = young.map_or(self.rate, |i| self.rate.max(self.young[i]));
        let draw = |place: u64| (hash64(hash64(self.key, place), u64::from(item)) >> 40) as f32 / (1u64 << 24) as f32;
        (draw(0) < share).then(|| {
            let evidence = if draw(1) < 0.5 { 0 } else { standing.evidence };
            Standing { known: false, evidence, ..standing }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;
    use crate::model::History;

    fn timeline() -> Timeline {
        let mut data = Dataset::default();
        (0..4).for_each(|i| {
            data.items.intern(&i.to_string());
        });
        let day = 86_400_000;
        data.released = vec![-30 * day, i64::MIN, i64::MIN, i64::MIN];
        let history = History {
            items: vec![0, 1, 0, 1, 0, 0, 0, 0, 0, 2],
            time: (0..10).map(|i| i * day).collect(),
            ..History::default()
        };
        let corpus = Corpus { history, offsets: vec![0, 10], ..Corpus::default() };
        Timeline::new(&data, &corpus, &[false, false, true, false])
    }

    #[test]
    fn standings_are_those_of_the_moment() {
        let (t, day) = (timeline(), 86_400_000);
        assert_eq!(t.standing(0, Some(2 * day)), Standing { age: Some(32.0), evidence: 1, known: true });
        assert_eq!(t.standing(1, Some(2 * day)), Standing { age: Some(1.0), evidence: 1, known: true });
        assert_eq!(t.standing(3, Some(2 * day)), Standing { age: None, evidence: 0, known: false });
        assert_eq!(t.last()[0].evidence, 7);
        // Item 3 is in the catalogue, and nobody chose it; item 2 is hidden.
        assert_eq!([1, 2, 3].map(|item| t.offered(item)), [true, false, true]);
    }

    #[test]
    fn a_step_meets_an_item_as_it_was_at_one_of_its_own_events() {
        let (t, mut rng) = (timeline(), Rng::new(1));
        let mut met = |item| (0..50).map(|_| t.chosen(item, &mut rng)).collect::<Vec<_>>();
        let mut evidence: Vec<u32> = met(0).iter().map(|s| s.evidence).collect();
        evidence.sort_unstable();
        evidence.dedup();
        assert_eq!(evidence, [1, 2, 3, 4, 5, 6, 7]);
        let day = |s: &Standing| s.age == Some(0.0) && s.evidence == 1 || s.age == Some(2.0) && s.evidence == 2;
        assert!(met(1).iter().all(day), "after its first event or, two days later, its second");
        // Nobody touched it: as it is at the end.
        assert!(met(3).iter().all(|s| *s == Standing::unseen(None)));
    }

    #[test]
    fn the_young_are_masked_more_often() {
        let share = |standing: Standing| {
            let masking = |key| Masking { rate: 0.1, young: [0.7, 0.5], key };
            let masked = (0..4000).filter(|k| masking(*k).draw(3, standing).is_some_and(|s| !s.known)).count();
            masked as f64 / 4000.0
        };
        let at = |age, evidence| Standing { age, evidence, known: true };
        assert!((share(at(Some(2.0), 900)) - 0.7).abs() < 0.03);
        assert!((share(at(Some(20.0), 900)) - 0.5).abs() < 0.03);
        assert!((share(at(Some(200.0), 900)) - 0.1).abs() < 0.03);
        assert!((share(at(None, 3)) - 0.1).abs() < 0.03, "without time nothing is young");
    }
}
