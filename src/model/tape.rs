//! The network's operations as fused kernels with gradients of their own: training on the CPU.
//!
//! candle's automatic differentiation adds gradients up with elementwise operations, which on the CPU run on a process-wide pool of
//! spinning threads as soon as an array has 65,536 numbers (candle-core 0.11.1). A library may take only the threads that its
//! host granted, and the pool cost more than it gave; the tape needs neither pool nor allocation after its first step.

use super::graph::{Graph, Packed};
use super::layout::Layout;
use crate::error::{Error, Result, err};
use crate::kernels::attention::{AttentionShape, Workspace, attention, attention_backward};
use crate::kernels::gate::{
    Dropout, dropout_factors, gated_add, gated_add_backward, gated_add_plain, silu, silu_backward, silu_gate,
    silu_gate_backward, swiglu, swiglu_backward,
};
use crate::kernels::math::{Real, add, multiply};
use crate::kernels::matmul::{View, linear, matmul};
use crate::kernels::norm::{layer_norm, layer_norm_backward, scale_rows, scale_rows_backward};
use crate::kernels::softmax::{softmax_backward, softmax_rows};
use std::ops::Range;
use std::sync::Arc;

/// Buffers that one thread reuses from step to step.
#[derive(Debug, Default)]
pub(crate) struct Memory<T = f32> {
    free: Vec<Vec<T>>,
    factors: Vec<T>,
    attention: Workspace<T>,
    /// Scores of a block of rows.
    pub logits: Vec<T>,
}

impl<T: Real> Memory<T> {
    /// A buffer of `n` numbers of any value: the smallest free one that is large enough.
    pub(crate) fn take(&mut self, n: usize) -> Vec<T> {
        let fits = |(i, b): (usize, &Vec<T>)| (b.capacity() >= n).then_some((b.capacity(), i));
        let best = self.free.iter().enumerate().filter_map(fits).min();
        let mut buffer = best.map_or_else(Vec::new, |(_, i)| self.free.swap_remove(i));
        buffer.resize(n, T::ZERO);
        buffer
    }

    /// Takes a buffer back.
    pub(crate) fn give(&mut self, buffer: Vec<T>) {
        if buffer.capacity() > 0 {
            self.free.push(buffer);
        }
    }

    fn factors(&mut self, drop: Dropout, n: usize) -> &[T] {
        self.factors.resize(n, T::ZERO);
        dropout_factors(drop, &mut self.factors);
        &self.factors
    }
}

/// A value on the tape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node(usize);

#[derive(Debug)]
struct Matrix {
    outputs: usize,
    inputs: usize,
    range: Range<usize>,
}

#[derive(Debug)]
enum Operation {
    Leaf,
    Affine { x: Node, w: Matrix, bias: Option<Range<usize>> },
    Norm { x: Node, gain: Range<usize>, bias: Range<usize> },
    Attend { qkv: Node, bias: Range<usize>, shape: AttentionShape, packed: Arc<Packed> },
    Gated { x: Node, gate: Node, y: Node, drop: Option<Dropout> },
    Glu { x: Node },
    Silu { x: Node },
    SiluGated { gate: Node, y: Node },
    Dropped { x: Node, drop: Dropout },
    Sum { x: Node, y: Node },
    Softmax { x: Node, width: usize },
    Scaled { x: Node, width: usize, unit: bool, factor: f32 },
}

/// A forward pass that remembers what its backward pass needs.
#[derive(Debug)]
pub(crate) struct Tape<'a, T = f32> {
    layout: &'a Layout,
    dense: &'a [T],
    memory: &'a mut Memory<T>,
    rows: usize,
    operations: Vec<Operation>,
    values: Vec<Vec<T>>,
    /// Empty until a gradient arrives.
    grads: Vec<Vec<T>>,
}

impl<'a, T: Real> Tape<'a, T> {
    /// A pass over `rows` tokens with the dense weights of a layout.
    pub(crate) fn new(layout: &'a Layout, dense: &'a [T], rows: usize, memory: &'a mut Memory<T>) -> Self {
        Self { layout, dense, memory, rows, operations: Vec::new(), values: Vec::new(), grads: Vec::new() }
    }

    /// An input, `[rows, columns]`, in a buffer of this thread's [`Memory`] or any other.
    pub(crate) fn leaf(&mut self, values: Vec<T>) -> Node {
        self.push(Operation::Leaf, values)
    }

    /// The numbers of a node.
    pub(crate) fn value(&self, node: Node) -> &[T] {
        &self.values[node.0]
    }

    fn push(&mut self, operation: Operation, value: Vec<T>) -> Node {
        self.operations.push(operation);
        self.values.push(value);
        self.grads.push(Vec::new());
        Node(self.values.len() - 1)
    }

    fn weight(&self, name: &str) -> Result<(Range<usize>, &[usize])> {
        match self.layout.index(name).and_then(|i| self.layout.weights.get(i)) {
            Some(w) => Ok((w.range.clone(), &w.shape)),
            None => Err(defect(&format!("no weight {name}"))),
        }
    }

    fn columns(&self, x: Node) -> usize {
        self.values[x.0].len() / self.rows.max(1)
    }

    fn copy(&mut self, x: Node) -> Vec<T> {
        let mut y = self.memory.take(self.values[x.0].len());
        y.copy_from_slice(&self.values[x.0]);
        y
    }

    /// Hands the gradient of `node` to `write`, which overwrites it where it is fresh and adds to it otherwise.
    fn gradient(&mut self, node: Node, write: impl FnOnce(&mut [T], bool, &[T], &mut Memory<T>)) {
        let mut grad = std::mem::take(&mut self.grads[node.0]);
        let fresh = grad.is_empty();
        if fresh {
            grad = self.memory.take(self.values[node.0].len());
        }
        write(&mut grad, fresh, &self.values[node.0], self.memory);
        self.grads[node.0] = grad;
    }

    /// Carries the gradients `seeds` of some nodes back to the leaves; gradients of dense weights are added to `dense`.
    /// Gives the gradients of the leaves, in the order in which they were made.
    pub(crate) fn backward(mut self, seeds: Vec<(Node, Vec<T>)>, dense: &mut [T]) -> Vec<Vec<T>> {
        for (node, seed) in seeds {
            self.receive(node, seed);
        }
        let mut leaves = Vec::new();
        for i in (0..self.operations.len()).rev() {
            let grad = std::mem::take(&mut self.grads[i]);
            let operation = std::mem::replace(&mut self.operations[i], Operation::Leaf);
            if let Operation::Leaf = operation {
                leaves.push(grad);
            } else if !grad.is_empty() {
                self.back(Node(i), operation, grad, dense);
            }
            let value = std::mem::take(&mut self.values[i]);
            self.memory.give(value);
        }
        leaves.reverse();
        leaves
    }

    /// One operation's gradients: `grad` is that of its result.
    fn back(&mut self, of: Node, operation: Operation, grad: Vec<T>, dense: &mut [T]) {
        let (weights, n) = (self.dense, self.rows);
        match operation {
            Operation::Leaf => {}
            Operation::Affine { x, w, bias } => {
                let dy = View::dense(&grad, n, w.outputs);
                self.gradient(x, |dx, fresh, x, _| {
                    let weight = View::dense(&weights[w.range.clone()], w.outputs, w.inputs);
                    matmul(dy, weight, dx, w.inputs, !fresh);
                    matmul(dy.t(), View::dense(x, n, w.inputs), &mut dense[w.range.clone()], w.inputs, true);
                });
                if let Some(bias) = bias {
                    let to = &mut dense[bias];
                    grad.chunks_exact(w.outputs).for_each(|row| add(to, row));
                }
            }
            Operation::Norm { x, gain, bias } => {
                let width = gain.len();
                let mut both = vec![T::ZERO; 2 * width];
                let (dgain, dbias) = both.split_at_mut(width);
                self.gradient(x, |dx, fresh, x, _| {
                    if fresh {
                        dx.fill(T::ZERO);
                    }
                    layer_norm_backward(x, &weights[gain.clone()], &grad, dx, dgain, dbias);
                });
                add(&mut dense[gain], dgain);
                add(&mut dense[bias], dbias);
            }
            Operation::Attend { qkv, bias, shape, packed } => {
                let d = shape.heads * shape.head;
                self.gradient(qkv, |dq, fresh, q, memory| {
                    debug_assert!(fresh, "the queries of one attention feed nothing else");
                    for r in packed.ranges() {
                        let (a, z) = (r.start, r.end);
                        attention_backward(
                            &shape,
                            &q[a * 3 * d..z * 3 * d],
                            &weights[bias.clone()],
                            packed.times(&r),
                            &grad[a * d..z * d],
                            &mut dq[a * 3 * d..z * 3 * d],
                            &mut dense[bias.clone()],
                            &mut memory.attention,
                        );
                    }
                });
            }
            Operation::Gated { x, gate, y, drop } => {
                let (mut dgate, mut dy) = (self.memory.take(grad.len()), self.memory.take(grad.len()));
                {
                    let (gate, y) = (&self.values[gate.0], &self.values[y.0]);
                    let drop = drop.unwrap_or(Dropout { key: 0, base: 0, rate: 0.0 });
                    let factors = self.memory.factors(drop, grad.len());
                    gated_add_backward(gate, y, factors, &grad, &mut dgate, &mut dy);
                }
                self.receive(gate, dgate);
                self.receive(y, dy);
                return self.receive(x, grad);
            }
            Operation::Glu { x } => {
                let hidden = grad.len() / n;
                self.gradient(x, |dx, fresh, x, _| {
                    debug_assert!(fresh, "the input of a gated unit feeds nothing else");
                    swiglu_backward(x, hidden, &grad, dx);
                });
            }
            Operation::Silu { x } => {
                let mut grad = grad;
                silu_backward(&self.values[x.0], &mut grad);
                return self.receive(x, grad);
            }
            Operation::SiluGated { gate, y } => {
                let (mut dgate, mut dy) = (self.memory.take(grad.len()), self.memory.take(grad.len()));
                silu_gate_backward(&self.values[gate.0], &self.values[y.0], &grad, &mut dgate, &mut dy);
                self.receive(gate, dgate);
                self.receive(y, dy);
            }
            Operation::Dropped { x, drop } => {
                let mut grad = grad;
                multiply(&mut grad, self.memory.factors(drop, self.values[of.0].len()));
                return self.receive(x, grad);
            }
            Operation::Sum { x, y } => {
                let mut copy = self.memory.take(grad.len());
                copy.copy_from_slice(&grad);
                self.receive(y, copy);
                return self.receive(x, grad);
            }
            Operation::Softmax { x, width } => {
                let mut grad = grad;
                softmax_backward(&self.values[of.0], width, &mut grad);
                return self.receive(x, grad);
            }
            Operation::Scaled { x, width, unit, factor } => {
                self.gradient(x, |dx, fresh, x, _| {
                    if fresh {
                        dx.fill(T::ZERO);
                    }
                    scale_rows_backward(x, width, unit, factor, &grad, dx);
                });
            }
        }
        self.memory.give(grad);
    }

    /// Takes a whole gradient over, or adds it to what is there.
    fn receive(&mut self, node: Node, grad: Vec<T>) {
        let to = &mut self.grads[node.0];
        if to.is_empty() {
            *to = grad;
        } else {
            add(to, &grad);
            self.memory.give(grad);
        }
    }
}

fn defect(what: &str) -> Error {
    err!(Internal, "{what}; this is a defect in docent, please report it")
}

impl<T: Real> Graph for Tape<'_, T> {
    type Value = Node;
    type Error = Error;

    fn affine(&mut self, x: &Node, weight: &str, bias: bool) -> Result<Node> {
        let (range, shape) = self.weight(weight)?;
        let &[outputs, inputs] = shape else { return Err(defect(&format!("weight {weight} is not a matrix"))) };
        let bias = if bias { Some(self.weight(&format!("{weight}.bias"))?.0) } else { None };
        let mut y = self.memory.take(self.rows * outputs);
        let b = bias.clone().map(|b| &self.dense[b]);
        linear(&self.values[x.0], &self.dense[range.clone()], b, inputs, outputs, &mut y);
        Ok(self.push(Operation::Affine { x: *x, w: Matrix { outputs, inputs, range }, bias }, y))
    }

    fn norm(&mut self, x: &Node, name: &str) -> Result<Node> {
        let (gain, bias) = (self.weight(&format!("{name}.gain"))?.0, self.weight(&format!("{name}.bias"))?.0);
        let mut y = self.memory.take(self.values[x.0].len());
        layer_norm(&self.values[x.0], &self.dense[gain.clone()], &self.dense[bias.clone()], &mut y);
        Ok(self.push(Operation::Norm { x: *x, gain, bias }, y))
    }

    fn attend(&mut self, qkv: &Node, bias: &str, shape: AttentionShape, packed: &Arc<Packed>) -> Result<Node> {
        let (bias, d) = (self.weight(bias)?.0, shape.heads * shape.head);
        let mut y = self.memory.take(self.rows * d);
        for r in packed.ranges() {
            let from = &self.values[qkv.0][r.start * 3 * d..r.end * 3 * d];
            let to = &mut y[r.start * d..r.end * d];
            let ws = &mut self.memory.attention;
            attention(&shape, from, &self.dense[bias.clone()], packed.times(&r), 0, to, ws);
        }
        Ok(self.push(Operation::Attend { qkv: *qkv, bias, shape, packed: packed.clone() }, y))
    }

    fn gated(&mut self, x: &Node, gate: &Node, y: &Node, drop: Option<Dropout>) -> Result<Node> {
        let mut sum = self.copy(*x);
        let (g, v) = (&self.values[gate.0], &self.values[y.0]);
        match drop {
            Some(drop) => gated_add(&mut sum, g, v, self.memory.factors(drop, g.len())),
            None => gated_add_plain(&mut sum, g, v),
        }
        Ok(self.push(Operation::Gated { x: *x, gate: *gate, y: *y, drop }, sum))
    }

    fn glu(&mut self, x: &Node) -> Result<Node> {
        let hidden = self.columns(*x) / 2;
        let mut y = self.memory.take(self.rows * hidden);
        swiglu(&self.values[x.0], hidden, &mut y);
        Ok(self.push(Operation::Glu { x: *x }, y))
    }

    fn silu(&mut self, x: &Node) -> Result<Node> {
        let mut y = self.copy(*x);
        silu(&mut y);
        Ok(self.push(Operation::Silu { x: *x }, y))
    }

    fn silu_gated(&mut self, gate: &Node, y: &Node) -> Result<Node> {
        let mut product = self.copy(*y);
        silu_gate(&self.values[gate.0], &mut product);
        Ok(self.push(Operation::SiluGated { gate: *gate, y: *y }, product))
    }

    fn dropped(&mut self, x: &Node, drop: Option<Dropout>) -> Result<Node> {
        let Some(drop) = drop else { return Ok(*x) };
        let mut y = self.copy(*x);
        let n = y.len();
        multiply(&mut y, self.memory.factors(drop, n));
        Ok(self.push(Operation::Dropped { x: *x, drop }, y))
    }

    fn sum(&mut self, x: &Node, y: &Node) -> Result<Node> {
        let mut sum = self.copy(*x);
        add(&mut sum, &self.values[y.0]);
        Ok(self.push(Operation::Sum { x: *x, y: *y }, sum))
    }

    fn softmax(&mut self, x: &Node) -> Result<Node> {
        let (mut y, width) = (self.copy(*x), self.columns(*x));
        softmax_rows(&mut y, width);
        Ok(self.push(Operation::Softmax { x: *x, width }, y))
    }

    fn scaled(&mut self, x: &Node, unit: bool, factor: f32) -> Result<Node> {
        if !unit && factor == 1.0 {
            return Ok(*x);
        }
        let (mut y, width) = (self.copy(*x), self.columns(*x));
        scale_rows(&mut y, width, unit, factor);
        Ok(self.push(Operation::Scaled { x: *x, width, unit, factor }, y))
    }
}
