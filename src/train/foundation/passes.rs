//! One chunk's forward and backward pass, in the two forms of the network: fused kernels on the CPU, and candle's
//! operations, which also run on CUDA.

use super::step::{Chunk, Context, Gradients, Input, Shared, gather};
use crate::kernels::math::add;
use crate::kernels::softmax::{Targets, cross_entropy, sampled_loss, set_cross_entropy};
use crate::model::composed::{self, Composed};
use crate::model::feedback::{Feedback, FeedbackGradients};
use crate::model::tape::{Memory, Tape};
use candle_core::{Result, Tensor, Var};

/// The item rows of the targets as places in the step's own array.
fn slots(shared: &Shared<'_>, targets: &Targets) -> Targets {
    Targets { rows: shared.touched.places(&targets.rows), ..targets.clone() }
}

/// Each token's row of `h` once for each of its targets; `None` where that is `h` itself.
fn spread(h: &[f32], targets: &Targets, owners: &[u32], d: usize) -> Option<Vec<f32>> {
    let single = targets.rows.len() == targets.len() && owners.iter().zip(0..).all(|(o, i)| *o == i);
    (!single).then(|| gather(h, owners, d))
}

/// The feedback head over a chunk's states (`[n, d]`): the loss and, added to the arrays, its gradients.
fn feedback(shared: &Shared<'_>, input: &Input, states: &[f32], dstates: &mut [f32], part: &mut Gradients) -> f64 {
    let network = shared.context.network;
    let d = network.options.width as usize;
    let share = f64::from(network.options.feedback) / shared.totals.feedback.max(1.0);
    let ranges = ["cross", "user", "item", "bias"].map(|p| shared.range(&format!("feedback.{p}")).unwrap_or(0..0));
    let head = Feedback { weights: ranges.clone().map(|r| &shared.values.dense[r]) };
    let mut loss = 0.0;
    for (t, label) in input.labels.iter().enumerate() {
        let Some(label) = label else { continue };
        let slot = shared.touched.slot[input.next[t] as usize] as usize;
        let item = slot * d..(slot + 1) * d;
        let mut to = FeedbackGradients {
            state: &mut dstates[t * d..(t + 1) * d],
            item: &mut part.items[item.clone()],
            weights: &mut part.dense,
            ranges: &ranges,
        };
        loss += head.learn(&states[t * d..(t + 1) * d], &shared.items[item], *label, share as f32, &mut to);
    }
    loss
}

/// A chunk on the CPU.
pub(crate) fn fused(
    shared: &Shared<'_>,
    chunk: &Chunk,
    mut input: Input,
    part: &mut Gradients,
    memory: &mut Memory,
) -> Result<()> {
    let network = shared.context.network;
    let (d, n) = (network.options.width as usize, input.targets.len());
    let mut seed = memory.take(n * d);
    seed.fill(0.0);
    let (x, fields) = (std::mem::take(&mut input.x), input.fields.take());
    let mut logits = std::mem::take(&mut memory.logits);
    let mut tape = Tape::new(&network.layout, shared.values.dense, n, memory);
    let x = tape.leaf(x);
    let fields = fields.map(|f| tape.leaf(f));
    let out = network.forward(&mut tape, x, fields.as_ref(), &input.packed, shared.dropouts(chunk))?;
    let user = tape.value(out.user);
    let loss = match &shared.context.sampler {
        None => {
            let targets = slots(shared, &input.targets);
            cross_entropy(user, shared.items, &targets, d, &mut seed, &mut part.items, &mut logits)
        }
        Some(_) => sampled(shared, &input, user, &mut seed, part, &mut logits),
    };
    part.losses.push(loss);
    let mut seeds = vec![(out.user, seed)];
    for (i, (node, targets)) in out.heads.iter().zip(&input.classes).enumerate() {
        let mut gradient = tape.value(*node).to_vec();
        part.losses.push(set_cross_entropy(&mut gradient, network.features.heads[i].classes, targets));
        seeds.push((*node, gradient));
    }
    if network.options.feedback > 0.0 {
        let mut dstates = vec![0.0; n * d];
        let loss = feedback(shared, &input, tape.value(out.state), &mut dstates, part);
        part.losses.push(loss);
        seeds.push((out.state, dstates));
    }
    let mut leaves = tape.backward(seeds, &mut part.dense).into_iter();
    memory.logits = logits;
    let (dx, dfields) = (leaves.next().unwrap_or_default(), leaves.next());
    shared.scatter(&input, &dx, dfields.as_deref(), part);
    memory.give(dx);
    dfields.into_iter().for_each(|b| memory.give(b));
    Ok(())
}

/// The sampled loss of users `h`: adds its gradients to `dh` and to the items.
fn sampled(
    shared: &Shared<'_>,
    input: &Input,
    h: &[f32],
    dh: &mut [f32],
    part: &mut Gradients,
    logits: &mut Vec<f32>,
) -> f64 {
    let d = shared.context.network.options.width as usize;
    let (targets, owners) = (&input.targets, input.targets.owners());
    let several = spread(h, targets, &owners, d);
    let users = several.as_deref().unwrap_or(h);
    let positives = gather(shared.items, &shared.touched.places(&targets.rows), d);
    let shift = shared.context.sampler.as_ref().map(|s| s.shifts(&targets.rows)).unwrap_or_default();
    let candidates = shared.candidates(&targets.rows, &shift);
    let negatives = &shared.negatives.vectors;
    let (mut dn, mut dp) = (vec![0.0; negatives.len()], vec![0.0; positives.len()]);
    let mut dusers = if several.is_some() { vec![0.0; users.len()] } else { Vec::new() };
    let own: &mut [f32] = if several.is_some() { &mut dusers } else { &mut *dh };
    let (objective, weights) = (shared.objective(), &targets.weights);
    let loss =
        sampled_loss(users, &positives, negatives, &candidates, objective, weights, d, own, &mut dp, &mut dn, logits);
    if several.is_some() {
        for (g, owner) in dusers.chunks_exact(d).zip(&owners) {
            add(&mut dh[*owner as usize * d..(*owner as usize + 1) * d], g);
        }
    }
    shared.scatter_items(&targets.rows, &dp, part);
    shared.scatter_items(&shared.negatives.rows, &dn, part);
    loss
}

/// A chunk by candle's operations.
pub(crate) fn composed(shared: &Shared<'_>, chunk: &Chunk, input: &Input, part: &mut Gradients) -> Result<()> {
    let Context { network, device, .. } = shared.context;
    let d = network.options.width as usize;
    let n = input.targets.len();
    let var = |values: &[f32], rows: usize| {
        Var::from_tensor(&Tensor::from_slice(values, (rows, values.len() / rows.max(1)), device)?)
    };
    let mut parameters = Composed::new(&network.layout, shared.values.dense, device)?;
    let x = var(&input.x, n)?;
    let fields = input.fields.as_ref().map(|f| var(f, n)).transpose()?;
    let fields_tensor = fields.as_ref().map(|f| f.as_tensor());
    let drop = shared.dropouts(chunk);
    let out = network.forward(&mut parameters, x.as_tensor().clone(), fields_tensor, &input.packed, drop)?;
    let mut sampled = None;
    let (loss, catalogue) = match &shared.context.sampler {
        None => {
            let items = var(shared.items, shared.touched.rows.len())?;
            (composed::full_loss(&out.user, items.as_tensor(), &slots(shared, &input.targets))?, items)
        }
        Some(sampler) => {
            let (targets, owners) = (&input.targets, input.targets.owners());
            let pairs = owners.len();
            let users = out.user.index_select(&Tensor::from_vec(owners, pairs, device)?, 0)?;
            let positives = var(&gather(shared.items, &shared.touched.places(&targets.rows), d), pairs)?;
            let negatives = var(&shared.negatives.vectors, shared.negatives.rows.len())?;
            let shift = sampler.shifts(&targets.rows);
            let candidates = shared.candidates(&targets.rows, &shift);
            let (objective, weights) = (shared.objective(), &targets.weights);
            let loss = composed::sampled_loss(&users, &positives, &negatives, &candidates, objective, weights)?;
            sampled = Some(positives);
            (loss, negatives)
        }
    };
    part.losses.push(f64::from(loss.to_scalar::<f32>()?));
    let mut total = loss;
    for (logits, targets) in out.heads.iter().zip(&input.classes) {
        let loss = composed::set_loss(logits, targets)?;
        part.losses.push(f64::from(loss.to_scalar::<f32>()?));
        total = (total + loss)?;
    }
    let mut by_hand = None;
    if network.options.feedback > 0.0 {
        // The head is small and lives on the host: its gradient enters as a constant factor of the states.
        let states: Vec<f32> = out.state.flatten_all()?.to_vec1()?;
        let mut dstates = vec![0.0; n * d];
        let mut own = shared.empty();
        part.losses.push(feedback(shared, input, &states, &mut dstates, &mut own));
        total = (total + (&out.state * Tensor::from_vec(dstates, (n, d), device)?)?.sum_all()?)?;
        by_hand = Some(own);
    }
    let grads = total.backward()?;
    let take = |v: &Var| -> Result<Vec<f32>> {
        match grads.get(v) {
            Some(g) => g.flatten_all()?.to_vec1(),
            None => Ok(vec![0.0; v.elem_count()]),
        }
    };
    for (w, v) in network.layout.weights.iter().zip(parameters.vars()) {
        if w.name != "opening" && w.name != "positions" {
            part.dense[w.range.clone()].copy_from_slice(&take(v)?);
        }
    }
    match sampled {
        None => part.items = take(&catalogue)?,
        Some(positives) => {
            shared.scatter_items(&input.targets.rows, &take(&positives)?, part);
            shared.scatter_items(&shared.negatives.rows, &take(&catalogue)?, part);
        }
    }
    if let Some(own) = by_hand {
        add(&mut part.dense, &own.dense);
        add(&mut part.items, &own.items);
    }
    let dfields = fields.as_ref().map(take).transpose()?;
    shared.scatter(input, &take(&x)?, dfields.as_deref(), part);
    Ok(())
}
