//! A chunk by candle's differentiable operations: on CUDA, and on the CPU as the reference that the fused kernels are tested against.

use crate::error::{Result, err};
use crate::kernels::math::add;
use crate::kernels::softmax::Targets;
use crate::model::composed::{self, Composed};
use crate::train::foundation::step::{Chunk, Gradients, Input, Shared, gather};
use candle_core::{Device, Tensor, Var};

/// Opens a CUDA device.
///
/// # Errors
/// `DeviceUnavailable` where this host has no such device.
pub(crate) fn cuda(ordinal: usize) -> Result<Device> {
    // One real stream instead of the per-thread default one: tensors cross threads here.
    Device::new_cuda_with_stream(ordinal).map_err(|e| {
        let text = e.to_string();
        // candle appends a backtrace where the environment asks for one.
        let what = text.lines().next().unwrap_or("no reason given");
        err!(DeviceUnavailable, "device cuda:{ordinal} cannot be opened: {what}; check the driver, or use cpu")
    })
}

/// One chunk, forward and backward: its losses and gradients are added to `part`.
///
/// # Errors
/// `Internal` if an operation fails.
pub(crate) fn pass(
    device: &Device,
    shared: &Shared<'_>,
    chunk: &Chunk,
    input: &Input,
    part: &mut Gradients,
) -> Result<()> {
    composed(device, shared, chunk, input, part)
        .map_err(|e| err!(Internal, "training step: {e}; this is a defect in docent, please report it"))
}

fn composed(
    device: &Device,
    shared: &Shared<'_>,
    chunk: &Chunk,
    input: &Input,
    part: &mut Gradients,
) -> candle_core::Result<()> {
    let network = shared.setup.network;
    let (d, n) = (network.options.width as usize, input.targets.len());
    let mut parameters = Composed::new(&network.layout, shared.values.dense, device)?;
    let x = var(device, &input.x, n)?;
    let fields = input.fields.as_ref().map(|f| var(device, f, n)).transpose()?;
    let fields_tensor = fields.as_ref().map(|f| f.as_tensor());
    let drop = shared.dropouts(chunk);
    let out = network.forward(&mut parameters, x.as_tensor().clone(), fields_tensor, &input.packed, drop)?;
    let items = [shared.items, &shared.negatives.vectors];
    let next = NextItem::new(device, shared, items, &out.user, &input.targets)?;
    part.losses.push(f64::from(next.loss.to_scalar::<f32>()?));
    let mut total = next.loss.clone();
    let mut without_ids = None;
    if let Some((masked, tokens, targets)) = shared.asked(&input.targets, chunk) {
        let users = out.user.detach().index_select(&Tensor::new(tokens, device)?, 0)?;
        let own = NextItem::new(device, shared, [&masked.table, &masked.negatives], &users, &targets)?;
        total = (total + &own.loss)?;
        without_ids = Some((masked, own, targets));
    }
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
        part.losses.push(shared.feedback(input, &states, &mut dstates, &mut own));
        total = (total + (&out.state * Tensor::from_vec(dstates, (n, d), device)?)?.sum_all()?)?;
        by_hand = Some(own);
    }
    let grads = total.backward()?;
    let take = |v: &Var| -> candle_core::Result<Vec<f32>> {
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
    next.scatter(shared, &input.targets, take, &mut part.items)?;
    if let Some((masked, own, targets)) = without_ids {
        let mut ditems = vec![0.0; shared.items.len()];
        own.scatter(shared, &targets, take, &mut ditems)?;
        masked.collect(&ditems, &mut part.masked);
    }
    if let Some(own) = by_hand {
        add(&mut part.dense, &own.dense);
        add(&mut part.items, &own.items);
    }
    let dfields = fields.as_ref().map(take).transpose()?;
    shared.scatter(input, &take(&x)?, dfields.as_deref(), part);
    Ok(())
}

/// The loss of the next item, and the variables whose gradients are those of the item vectors.
struct NextItem {
    loss: Tensor,
    /// The touched items by slot, or the shared negatives.
    catalogue: Var,
    /// Each target's vector, under a sampled loss.
    positives: Option<Var>,
}

impl NextItem {
    /// Users are scored against the touched items by slot, or against the shared negatives among them.
    fn new(
        device: &Device,
        shared: &Shared<'_>,
        [items, negatives]: [&[f32]; 2],
        users: &Tensor,
        targets: &Targets,
    ) -> candle_core::Result<Self> {
        let d = shared.setup.network.options.width as usize;
        if shared.setup.sampler.is_none() {
            let catalogue = var(device, items, shared.touched.rows.len())?;
            let loss = composed::full_loss(users, catalogue.as_tensor(), &shared.slots(targets))?;
            return Ok(Self { loss, catalogue, positives: None });
        }
        let owners = targets.owners();
        let pairs = owners.len();
        let users = users.index_select(&Tensor::from_vec(owners, pairs, device)?, 0)?;
        let positives = var(device, &gather(items, &shared.touched.places(&targets.rows), d), pairs)?;
        let catalogue = var(device, negatives, shared.negatives.rows.len())?;
        let (candidates, objective) = (shared.candidates(&targets.rows), shared.objective());
        let loss = composed::sampled_loss(&users, &positives, &catalogue, &candidates, objective, &targets.weights)?;
        Ok(Self { loss, catalogue, positives: Some(positives) })
    }

    /// Adds the gradients of the item vectors, by slot, to `ditems`.
    fn scatter(
        &self,
        shared: &Shared<'_>,
        targets: &Targets,
        take: impl Fn(&Var) -> candle_core::Result<Vec<f32>>,
        ditems: &mut [f32],
    ) -> candle_core::Result<()> {
        let catalogue = take(&self.catalogue)?;
        match &self.positives {
            None => add(ditems, &catalogue),
            Some(positives) => {
                shared.scatter_items(&targets.rows, &take(positives)?, ditems);
                shared.scatter_items(&shared.negatives.rows, &catalogue, ditems);
            }
        }
        Ok(())
    }
}

fn var(device: &Device, values: &[f32], rows: usize) -> candle_core::Result<Var> {
    Var::from_tensor(&Tensor::from_slice(values, (rows, values.len() / rows.max(1)), device)?)
}
