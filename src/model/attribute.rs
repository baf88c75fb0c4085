//! How much of a score came from which past event: integrated gradients over the vectors of the events' items
//! (Sundararajan, Taly and Yan 2017, "Axiomatic attribution for deep networks").
//!
//! The path leads from a history whose items are not known (zero in place of their vectors; times, actions, fields and
//! places stay) straight to the history itself. The weight of event e for item i is the integral over the path of the gradient of i's
//! score by e's vector, times that vector. By completeness the weights add up to the score less what the score would be
//! without knowing any item; how exactly depends on the number of points on the path, which is raised until they do.
//! A plain gradient times input would not do: scores that are cosines do not change when their input is scaled, so that such
//! products cancel out.

use super::features::{Features, History, Request, Tokens};
use super::graph::Packed;
use super::layout::attention_shape;
use super::network::Network;
use super::tape::{Memory, Tape};
use super::weights::Weights;
use crate::error::{Result, err};
use crate::kernels::math::add;
use crate::kernels::retrieve::dot;
use crate::options::ModelOptions;
use crate::schema::Schema;
use std::ops::Range;
use std::sync::Arc;

/// Points on the path at first, and at most; each try has four times the points of the one before.
const POINTS: [usize; 3] = [8, 32, 128];
/// Largest share of the scores that the weights may miss before more points are taken.
const TOLERANCE: f32 = 0.01;
/// Tokens of one pass: about what stays near a core.
const PASS_TOKENS: usize = 1536;

/// How much of the scores of some items came from which past events.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Attributed {
    /// The events of the history that the model read: older ones are beyond what it reads.
    pub events: Range<usize>,
    /// The score of each item.
    pub scores: Vec<f32>,
    /// The score that each item would have if no item of the history were known.
    pub bases: Vec<f32>,
    /// For each item one weight per event of `events`; they add up to the score less the base, within a hundredth of the
    /// larger of the two or what the most points on the path give.
    pub weights: Vec<Vec<f32>>,
}

/// Attributes scores of one model shape.
#[derive(Debug, Clone)]
pub(crate) struct Attribution {
    network: Network,
    tables: Vec<usize>,
}

/// A history as the first layer reads it.
struct Inputs {
    /// What the path does not change, `[n, d]`: places and the opening token.
    fixed: Vec<f32>,
    /// The vectors of the events' items, `[n, d]`; zero for the opening token.
    items: Vec<f32>,
    /// Embedded features, `[n, features * field_width]`; empty without features.
    fields: Vec<f32>,
    tokens: Tokens,
}

impl Attribution {
    /// Prepares a model shape.
    ///
    /// # Errors
    /// `InvalidConfig` if the options contradict each other.
    pub(crate) fn new(schema: &Schema, options: &ModelOptions) -> Result<Self> {
        options.check()?;
        let features = Features::new(schema, options)?;
        let tables = features.first_rows();
        Ok(Self { network: Network::new(options, features), tables })
    }

    /// Attributes the scores of the items with the vectors `items` after `history`, asked for under `request`.
    ///
    /// # Errors
    /// `InvalidArgument` for codes, rows or vectors out of range; `Corrupt` where the weights have the wrong length or give
    /// numbers that are not finite.
    pub(crate) fn attribute(
        &self,
        weights: Weights<'_>,
        history: &History,
        request: &Request,
        items: &[&[f32]],
    ) -> Result<Attributed> {
        let options = &self.network.options;
        let d = options.width as usize;
        let features = &self.network.features;
        let wrong = weights.dense.len() != self.network.layout.size()
            || weights.features.len() != features.rows() * options.field_width as usize
            || !weights.items.len().is_multiple_of(d);
        if wrong {
            return Err(err!(Corrupt, "the weights do not fit the model shape; restore the snapshot or roll back"));
        }
        if items.iter().any(|v| v.len() != d) {
            return Err(err!(InvalidArgument, "an item vector does not hold {d} numbers; pass vectors of this model"));
        }
        features.check(history, weights.rows(d))?;
        features.check_request(request)?;
        let targets = history.items.len() + 1;
        let first = targets.saturating_sub(options.max_length as usize);
        let mut tokens = Tokens::default();
        features.encode(history, 0, first..targets, request, &mut tokens);
        let inputs = self.inputs(weights, tokens);
        let mut memory = Memory::default();
        let ends = self.users(weights, &inputs, &[0.0, 1.0], &mut memory)?;
        let [base, user] = [&ends[..d], &ends[d..]];
        let scores: Vec<f32> = items.iter().map(|v| dot(v, user)).collect();
        let bases: Vec<f32> = items.iter().map(|v| dot(v, base)).collect();
        if scores.iter().chain(&bases).any(|s| !s.is_finite()) {
            return Err(err!(Corrupt, "a score is not finite; verify the store and roll back"));
        }
        let mut found = Vec::with_capacity(items.len());
        for ((item, score), base) in items.iter().zip(&scores).zip(&bases) {
            let mut by_token = Vec::new();
            for points in POINTS {
                by_token = self.integrate(weights, &inputs, item, points, &mut memory)?;
                let missed = (by_token.iter().sum::<f32>() - (score - base)).abs();
                if missed <= TOLERANCE * score.abs().max(base.abs()) {
                    break;
                }
            }
            // The first token opens the history where the model reads all of it.
            found.push(by_token.split_off(usize::from(first == 0)));
        }
        Ok(Attributed { events: first.saturating_sub(1)..targets - 1, scores, bases, weights: found })
    }

    fn inputs(&self, weights: Weights<'_>, tokens: Tokens) -> Inputs {
        let options = &self.network.options;
        let (d, width) = (options.width as usize, options.field_width as usize);
        let n = tokens.items.len();
        let of = |name: &str| self.network.layout.range(name).ok().map(|r| &weights.dense[r]);
        let (mut fixed, mut items) = (vec![0.0; n * d], vec![0.0; n * d]);
        for (i, &item) in tokens.items.iter().enumerate() {
            let at = i * d..(i + 1) * d;
            match item {
                Tokens::OPENING => fixed[at.clone()].copy_from_slice(of("opening").unwrap_or(&[])),
                // Rows were checked against their number.
                row => items[at.clone()].copy_from_slice(weights.item(row, d).unwrap_or(&[])),
            }
            if let Some(positions) = of("positions") {
                add(&mut fixed[at.clone()], &positions[at]);
            }
        }
        let count = self.network.features.list.len();
        let codes = tokens.codes.iter().zip(self.tables.iter().take(count).cycle());
        let rows = codes.map(|(code, table)| (table + *code as usize) * width);
        let fields = rows.flat_map(|at| &weights.features[at..at + width]).copied().collect();
        Inputs { fixed, items, fields, tokens }
    }

    /// Runs the network over one copy of the inputs for each of `points` on the path, and hands the tape on with the first
    /// leaf, the inputs of all copies, being the only one that matters.
    fn pass<T>(
        &self,
        weights: Weights<'_>,
        inputs: &Inputs,
        points: &[f32],
        memory: &mut Memory,
        read: impl FnOnce(Tape<'_>, super::tape::Node, usize) -> T,
    ) -> Result<T> {
        let options = &self.network.options;
        let (d, n) = (options.width as usize, inputs.tokens.items.len());
        let mut x = Vec::with_capacity(points.len() * n * d);
        for point in points {
            x.extend(inputs.fixed.iter().zip(&inputs.items).map(|(f, v)| f + point * v));
        }
        let mut packed = Packed { offsets: (0..=points.len()).map(|p| p * n).collect(), ..Packed::default() };
        if attention_shape(options).time {
            packed.query = inputs.tokens.query.repeat(points.len());
            packed.key = inputs.tokens.key.repeat(points.len());
        }
        let mut tape = Tape::new(&self.network.layout, weights.dense, points.len() * n, memory);
        let x = tape.leaf(x);
        let fields = (!inputs.fields.is_empty()).then(|| tape.leaf(inputs.fields.repeat(points.len())));
        let out = self.network.forward(&mut tape, x, fields.as_ref(), &Arc::new(packed), None)?;
        Ok(read(tape, out.user, n))
    }

    /// The user vector at each of `points`, one after another.
    fn users(&self, weights: Weights<'_>, inputs: &Inputs, points: &[f32], memory: &mut Memory) -> Result<Vec<f32>> {
        let d = self.network.options.width as usize;
        self.pass(weights, inputs, points, memory, |tape, user, n| {
            let users = tape.value(user).chunks_exact(n * d);
            users.flat_map(|copy| &copy[(n - 1) * d..]).copied().collect()
        })
    }

    /// The integral of each token's gradient times its item's vector, by the midpoint rule over `points` points.
    fn integrate(
        &self,
        weights: Weights<'_>,
        inputs: &Inputs,
        item: &[f32],
        points: usize,
        memory: &mut Memory,
    ) -> Result<Vec<f32>> {
        let d = self.network.options.width as usize;
        let n = inputs.tokens.items.len();
        let middles: Vec<f32> = (0..points).map(|p| (p as f32 + 0.5) / points as f32).collect();
        let mut sums = vec![0.0f32; n];
        let mut unused = vec![0.0; weights.dense.len()];
        for part in middles.chunks((PASS_TOKENS / n).max(1)) {
            let gradient = self.pass(weights, inputs, part, memory, |tape, user, n| {
                let mut seed = vec![0.0; part.len() * n * d];
                for copy in seed.chunks_exact_mut(n * d) {
                    copy[(n - 1) * d..].copy_from_slice(item);
                }
                tape.backward(vec![(user, seed)], &mut unused).into_iter().next().unwrap_or_default()
            })?;
            for copy in gradient.chunks_exact(n * d) {
                let tokens = copy.chunks_exact(d).zip(inputs.items.chunks_exact(d));
                for (sum, (gradient, vector)) in sums.iter_mut().zip(tokens) {
                    *sum += dot(gradient, vector) / points as f32;
                }
            }
        }
        Ok(sums)
    }
}
