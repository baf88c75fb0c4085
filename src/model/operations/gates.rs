//! Gated residuals, dropout, SiLU and what it gates.

use super::{Path, out, read, slice, tensor};
use crate::kernels::gate::{
    Dropout, dropout_factors, gated_add, gated_add_backward, gated_add_plain, silu, silu_backward, silu_gate,
    silu_gate_backward, swiglu, swiglu_backward,
};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape as Dims, Tensor};

struct GatedAdd(Option<Dropout>);

impl GatedAdd {
    fn factors(&self, n: usize) -> Option<Vec<f32>> {
        self.0.map(|dropout| {
            let mut factors = vec![0.0; n];
            dropout_factors(dropout, &mut factors);
            factors
        })
    }
}

impl CustomOp3 for GatedAdd {
    fn name(&self) -> &'static str {
        "gated-add"
    }
    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        gate: &CpuStorage,
        lg: &Layout,
        y: &CpuStorage,
        ly: &Layout,
    ) -> Result<(CpuStorage, Dims)> {
        let mut sum = slice(x, lx)?.to_vec();
        match self.factors(sum.len()) {
            Some(f) => gated_add(&mut sum, slice(gate, lg)?, slice(y, ly)?, &f),
            None => gated_add_plain(&mut sum, slice(gate, lg)?, slice(y, ly)?),
        }
        out(sum, lx.shape())
    }
    fn bwd(
        &self,
        _: &Tensor,
        gate: &Tensor,
        y: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (dgate, dy) = read([gate, y, grad], |[g, ys, d]| {
            let (mut dg, mut dy) = (vec![0.0; g.len()], vec![0.0; g.len()]);
            let factors = self.factors(g.len()).unwrap_or_else(|| vec![1.0; g.len()]);
            gated_add_backward(g, ys, &factors, d, &mut dg, &mut dy);
            Ok((dg, dy))
        })?;
        Ok((Some(grad.clone()), Some(tensor(dgate, gate)?), Some(tensor(dy, y)?)))
    }
}

/// `x + sigmoid(gate) * dropout(y)`, all `[n, d]`.
pub(crate) fn gated(path: Path, x: &Tensor, gate: &Tensor, y: &Tensor, drop: Option<Dropout>) -> Result<Tensor> {
    match path {
        Path::Fused => x.apply_op3(gate, y, GatedAdd(drop)),
        Path::Composed => x + (candle_nn::ops::sigmoid(gate)? * dropped(path, y, drop)?)?,
    }
}

struct Dropped(Dropout);

impl CustomOp1 for Dropped {
    fn name(&self) -> &'static str {
        "dropout"
    }
    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Dims)> {
        let mut y = slice(x, lx)?.to_vec();
        self.multiply(&mut y);
        out(y, lx.shape())
    }
    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut dx = read([grad], |[g]| Ok(g.to_vec()))?;
        self.multiply(&mut dx);
        Ok(Some(tensor(dx, x)?))
    }
}

impl Dropped {
    fn multiply(&self, values: &mut [f32]) {
        let mut factors = vec![0.0; values.len()];
        dropout_factors(self.0, &mut factors);
        values.iter_mut().zip(&factors).for_each(|(v, f)| *v *= f);
    }
}

/// Dropout with factors drawn from a counter: the same on every path, device and split of the batch.
pub(crate) fn dropped(path: Path, x: &Tensor, drop: Option<Dropout>) -> Result<Tensor> {
    match (path, drop) {
        (_, None) => Ok(x.clone()),
        (Path::Fused, Some(d)) => x.apply_op1(Dropped(d)),
        (Path::Composed, Some(d)) => {
            let mut factors = vec![0.0; x.elem_count()];
            dropout_factors(d, &mut factors);
            x * Tensor::from_vec(factors, x.shape(), x.device())?.to_dtype(x.dtype())?
        }
    }
}

struct SwiGlu;

impl CustomOp1 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }
    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Dims)> {
        let (n, both) = lx.shape().dims2()?;
        let mut y = vec![0.0; n * both / 2];
        swiglu(slice(x, lx)?, both / 2, &mut y);
        out(y, (n, both / 2))
    }
    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let hidden = x.dim(1)? / 2;
        let dx = read([x, grad], |[xs, dy]| {
            let mut dx = vec![0.0; xs.len()];
            swiglu_backward(xs, hidden, dy, &mut dx);
            Ok(dx)
        })?;
        Ok(Some(tensor(dx, x)?))
    }
}

/// `silu(a) * b` of `[n, 2 hidden]` rows `[a, b]`; gives `[n, hidden]`.
pub(crate) fn glu(path: Path, x: &Tensor) -> Result<Tensor> {
    if path == Path::Fused {
        return x.apply_op1(SwiGlu);
    }
    let hidden = x.dim(1)? / 2;
    x.narrow(1, 0, hidden)?.silu()? * x.narrow(1, hidden, hidden)?
}

struct Silu;

impl CustomOp1 for Silu {
    fn name(&self) -> &'static str {
        "silu"
    }
    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Dims)> {
        let mut y = slice(x, lx)?.to_vec();
        silu(&mut y);
        out(y, lx.shape())
    }
    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let dx = read([x, grad], |[xs, dy]| {
            let mut dx = dy.to_vec();
            silu_backward(xs, &mut dx);
            Ok(dx)
        })?;
        Ok(Some(tensor(dx, x)?))
    }
}

/// `x * sigmoid(x)`, element by element.
pub(crate) fn activated(path: Path, x: &Tensor) -> Result<Tensor> {
    match path {
        Path::Fused => x.apply_op1(Silu),
        Path::Composed => x.silu(),
    }
}

struct SiluGate;

impl CustomOp2 for SiluGate {
    fn name(&self) -> &'static str {
        "silu-gate"
    }
    fn cpu_fwd(&self, gate: &CpuStorage, lg: &Layout, y: &CpuStorage, ly: &Layout) -> Result<(CpuStorage, Dims)> {
        let mut product = slice(y, ly)?.to_vec();
        silu_gate(slice(gate, lg)?, &mut product);
        out(product, ly.shape())
    }
    fn bwd(&self, gate: &Tensor, y: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dgate, dy) = read([gate, y, grad], |[g, ys, d]| {
            let (mut dg, mut dy) = (vec![0.0; g.len()], vec![0.0; g.len()]);
            silu_gate_backward(g, ys, d, &mut dg, &mut dy);
            Ok((dg, dy))
        })?;
        Ok((Some(tensor(dgate, gate)?), Some(tensor(dy, y)?)))
    }
}

/// `silu(gate) * y`, both `[n, d]`.
pub(crate) fn silu_gated(path: Path, gate: &Tensor, y: &Tensor) -> Result<Tensor> {
    match path {
        Path::Fused => gate.apply_op2(y, SiluGate),
        Path::Composed => gate.silu()? * y,
    }
}
