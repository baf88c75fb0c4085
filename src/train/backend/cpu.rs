//! A chunk on the CPU, by fused kernels.

use crate::error::Result;
use crate::kernels::math::add;
use crate::kernels::softmax::{Targets, cross_entropy, sampled_loss, set_cross_entropy};
use crate::model::tape::{Memory, Tape};
use crate::train::foundation::step::{Chunk, Gradients, Input, Shared, gather};

/// One chunk, forward and backward: its losses and gradients are added to `part`.
pub(crate) fn pass(
    shared: &Shared<'_>,
    chunk: &Chunk,
    mut input: Input,
    part: &mut Gradients,
    memory: &mut Memory,
) -> Result<()> {
    let network = shared.setup.network;
    let (d, n) = (network.options.width as usize, input.targets.len());
    let mut seed = memory.take(n * d);
    seed.fill(0.0);
    let (x, fields) = (std::mem::take(&mut input.x), input.fields.take());
    let mut logits = std::mem::take(&mut memory.logits);
    let mut spare = shared.masked.as_ref().map(|_| memory.take(shared.items.len()));
    let mut tape = Tape::new(&network.layout, shared.values.dense, n, memory);
    let x = tape.leaf(x);
    let fields = fields.map(|f| tape.leaf(f));
    let out = network.forward(&mut tape, x, fields.as_ref(), &input.packed, shared.dropouts(chunk))?;
    let user = tape.value(out.user);
    let (table, targets) = (Table { items: shared.items, negatives: &shared.negatives.vectors }, &input.targets);
    let loss = next_item(shared, table, targets, user, &mut seed, &mut part.items, &mut logits);
    if let (Some((masked, tokens, targets)), Some(ditems)) = (shared.asked(targets, chunk), &mut spare) {
        let users = gather(user, &tokens, d);
        let table = Table { items: &masked.table, negatives: &masked.negatives };
        ditems.fill(0.0);
        next_item(shared, table, &targets, &users, &mut vec![0.0; users.len()], ditems, &mut logits);
        masked.collect(ditems, &mut part.masked);
    }
    part.losses.push(loss);
    let mut seeds = vec![(out.user, seed)];
    for (i, (node, targets)) in out.heads.iter().zip(&input.classes).enumerate() {
        let mut gradient = tape.value(*node).to_vec();
        part.losses.push(set_cross_entropy(&mut gradient, network.features.heads[i].classes, targets));
        seeds.push((*node, gradient));
    }
    if network.options.feedback > 0.0 {
        let mut dstates = vec![0.0; n * d];
        let loss = shared.feedback(&input, tape.value(out.state), &mut dstates, part);
        part.losses.push(loss);
        seeds.push((out.state, dstates));
    }
    let mut leaves = tape.backward(seeds, &mut part.dense).into_iter();
    memory.logits = logits;
    spare.into_iter().for_each(|b| memory.give(b));
    let (dx, dfields) = (leaves.next().unwrap_or_default(), leaves.next());
    shared.scatter(&input, &dx, dfields.as_deref(), part);
    memory.give(dx);
    dfields.into_iter().for_each(|b| memory.give(b));
    Ok(())
}

/// What users are scored against: the touched items by slot, and the shared negatives among them.
#[derive(Clone, Copy)]
struct Table<'a> {
    items: &'a [f32],
    negatives: &'a [f32],
}

/// The loss of the next item for users `h`: adds its gradients to `dh` and, by slot, to `ditems`.
fn next_item(
    shared: &Shared<'_>,
    table: Table<'_>,
    targets: &Targets,
    h: &[f32],
    dh: &mut [f32],
    ditems: &mut [f32],
    logits: &mut Vec<f32>,
) -> f64 {
    let d = shared.setup.network.options.width as usize;
    if shared.setup.sampler.is_none() {
        return cross_entropy(h, table.items, &shared.slots(targets), d, dh, ditems, logits);
    }
    let owners = targets.owners();
    let several = spread(h, targets, &owners, d);
    let users = several.as_deref().unwrap_or(h);
    let positives = gather(table.items, &shared.touched.places(&targets.rows), d);
    let candidates = shared.candidates(&targets.rows);
    let (mut dn, mut dp) = (vec![0.0; table.negatives.len()], vec![0.0; positives.len()]);
    let mut dusers = if several.is_some() { vec![0.0; users.len()] } else { Vec::new() };
    let own: &mut [f32] = if several.is_some() { &mut dusers } else { &mut *dh };
    let (objective, weights) = (shared.objective(), &targets.weights);
    let loss = sampled_loss(
        users,
        &positives,
        table.negatives,
        &candidates,
        objective,
        weights,
        d,
        own,
        &mut dp,
        &mut dn,
        logits,
    );
    if several.is_some() {
        for (g, owner) in dusers.chunks_exact(d).zip(&owners) {
            add(&mut dh[*owner as usize * d..(*owner as usize + 1) * d], g);
        }
    }
    shared.scatter_items(&targets.rows, &dp, ditems);
    shared.scatter_items(&shared.negatives.rows, &dn, ditems);
    loss
}

/// Each token's row of `h` once for each of its targets; `None` where that is `h` itself.
fn spread(h: &[f32], targets: &Targets, owners: &[u32], d: usize) -> Option<Vec<f32>> {
    let single = targets.rows.len() == targets.len() && owners.iter().zip(0..).all(|(o, i)| *o == i);
    (!single).then(|| gather(h, owners, d))
}
