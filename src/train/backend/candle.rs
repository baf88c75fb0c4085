//! A chunk by candle's differentiable operations: on CUDA, and on the CPU as the reference that the fused kernels are tested against.

use crate::error::{Result, err};
use crate::kernels::math::add;
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
    let (loss, catalogue) = match &shared.setup.sampler {
        None => {
            let items = var(shared.items, shared.touched.rows.len())?;
            (composed::full_loss(&out.user, items.as_tensor(), &shared.slots(&input.targets))?, items)
        }
        Some(_) => {
            let (targets, owners) = (&input.targets, input.targets.owners());
            let pairs = owners.len();
            let users = out.user.index_select(&Tensor::from_vec(owners, pairs, device)?, 0)?;
            let positives = var(&gather(shared.items, &shared.touched.places(&targets.rows), d), pairs)?;
            let negatives = var(&shared.negatives.vectors, shared.negatives.rows.len())?;
            let candidates = shared.candidates(&targets.rows);
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
