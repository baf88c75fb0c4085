"""The network that Docent trains by default, in PyTorch on the CPU: the rival of benches/training_throughput.rs.

Started by that program. It prints one JSON line when the first step is done; then each line that it reads is a number of
seconds to train for, answered by one JSON line. With --check it trains on one batch and prints its losses.

Written as PyTorch's performance tuning guide says: one product for queries, keys and values, fused attention with a float
mask, logits of real tokens only, the fused AdamW, gradients set to None, flushed denormals, no copies that nothing reads.
"""

import argparse
import json
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import sequences

BUCKETS, EXACT = 64, 32


def bucket(distance):
    """Docent's bucket of a distance in tokens: exact below 32, then four per octave."""
    quarter = np.floor(4 * np.log2(np.maximum(distance, EXACT) / EXACT)).astype(np.int64)
    return np.where(distance < EXACT, distance, np.minimum(EXACT + quarter, BUCKETS - 1))


class Model(nn.Module):
    """Gated blocks (LiGR) over items and places; the items' vectors are the output layer as well."""

    def __init__(self, items, width, blocks, heads, hidden, context, dropout, packed):
        super().__init__()
        self.width, self.blocks, self.heads, self.dropout, self.packed = width, blocks, heads, dropout, packed
        self.items = nn.Parameter(torch.empty(items, width))
        # In the order of src/model/layout.rs.
        d = width
        shapes = [("opening", [d]), ("positions", [context, d])]
        for b in range(blocks):
            shapes += [
                (f"{b}_attention_norm_gain", [d]),
                (f"{b}_attention_norm_bias", [d]),
                (f"{b}_attention_qkv", [3 * d, d]),
                (f"{b}_attention_qkv_bias", [3 * d]),
                (f"{b}_attention_bias", [heads, BUCKETS]),
                (f"{b}_attention_out", [d, d]),
                (f"{b}_attention_gate", [d, d]),
                (f"{b}_attention_gate_bias", [d]),
                (f"{b}_feed_norm_gain", [d]),
                (f"{b}_feed_norm_bias", [d]),
                (f"{b}_feed_in", [2 * hidden, d]),
                (f"{b}_feed_out", [d, hidden]),
                (f"{b}_feed_gate", [d, d]),
                (f"{b}_feed_gate_bias", [d]),
            ]
        shapes += [("norm_gain", [d]), ("norm_bias", [d])]
        self.dense = nn.ParameterDict({name: nn.Parameter(torch.empty(shape)) for name, shape in shapes})
        self.names = [name for name, _ in shapes]
        place = np.arange(context)
        distance = place[:, None] - place[None, :]
        self.register_buffer("bucket", torch.from_numpy(bucket(np.maximum(distance, 0))))
        hidden_from = torch.from_numpy(np.where(distance < 0, -np.inf, 0.0).astype(np.float32))
        self.register_buffer("causal", hidden_from)

    def load(self, path):
        """Takes the weights in the order in which Docent keeps them: items, then the dense array."""
        flat = torch.from_numpy(np.fromfile(path, dtype="<f4"))
        at = 0
        with torch.no_grad():
            for p in [self.items] + [self.dense[name] for name in self.names]:
                p.copy_(flat[at : at + p.numel()].view(p.shape))
                at += p.numel()
        if at != flat.numel():
            sys.exit(f"Docent has {flat.numel()} parameters and this model {at}: the two are not the same network")
        return at

    def forward(self, ids, valid):
        """Vectors of the real tokens (`valid`: their places in the padded batch) of histories `ids`, [rows, length]."""
        rows, length = ids.shape
        w, d = self.dense, self.width
        first = w["opening"].expand(rows, 1, d)
        x = torch.cat([first, F.embedding(ids[:, :-1], self.items)], 1) + w["positions"][:length]
        if self.packed:
            x = x.view(-1, d).index_select(0, valid)
        x = F.dropout(x, self.dropout, self.training)
        for b in range(self.blocks):
            p = lambda name: w[f"{b}_{name}"]
            normed = F.layer_norm(x, (d,), p("attention_norm_gain"), p("attention_norm_bias"))
            qkv = F.linear(normed, p("attention_qkv"), p("attention_qkv_bias"))
            y = F.linear(self.attend(qkv, p("attention_bias"), rows, length, valid), p("attention_out"))
            gate = torch.sigmoid(F.linear(x, p("attention_gate"), p("attention_gate_bias")))
            x = x + F.dropout(gate * y, self.dropout, self.training)
            normed = F.layer_norm(x, (d,), p("feed_norm_gain"), p("feed_norm_bias"))
            a, c = F.linear(normed, p("feed_in")).chunk(2, -1)
            y = F.linear(F.silu(a) * c, p("feed_out"))
            gate = torch.sigmoid(F.linear(x, p("feed_gate"), p("feed_gate_bias")))
            x = x + F.dropout(gate * y, self.dropout, self.training)
        if not self.packed:
            x = x.view(-1, d).index_select(0, valid)
        return F.layer_norm(x, (d,), w["norm_gain"], w["norm_bias"])

    def attend(self, qkv, bias, rows, length, valid):
        """Causal attention with a bias by distance. Padding lies after the real tokens, so the causal mask hides it."""
        d = self.width
        if self.packed:
            qkv = qkv.new_zeros(rows * length, 3 * d).index_copy(0, valid, qkv)
        q, k, v = qkv.view(rows, length, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mask = F.embedding(self.bucket[:length, :length], bias.t()).permute(2, 0, 1) + self.causal[:length, :length]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.unsqueeze(0))
        if self.packed:
            return out.transpose(1, 2).reshape(-1, d).index_select(0, valid)
        return out.transpose(1, 2).reshape(rows, length, d)


def full_loss(h, items, targets, _):
    return F.cross_entropy(h @ items.t(), targets)


def sampled_loss(h, items, targets, negatives):
    """Softmax over the target and negatives that the whole batch shares; a negative that is the target takes no part."""
    positive = (h * F.embedding(targets, items)).sum(-1, keepdim=True)
    shared = h @ F.embedding(negatives, items).t()
    shared = shared.masked_fill(negatives == targets.unsqueeze(1), -1e30)
    return (torch.logsumexp(torch.cat([shared, positive], 1), 1, keepdim=True) - positive).mean()


class Training:
    """Steps over batches that are drawn anew each epoch."""

    def __init__(self, o):
        self.o = o
        self.count, self.people = sequences.read(o.data)
        self.model = Model(self.count, o.width, o.blocks, o.heads, o.hidden, o.context, o.dropout, o.packed)
        self.parameters = self.model.load(o.weights)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=o.rate, weight_decay=0.0, fused=True)
        self.encode, self.loss = self.model, sampled_loss if o.negatives else full_loss
        if o.compile:
            # The batch has one padded shape; how many of its tokens are real changes from step to step.
            self.encode = torch.compile(self.encode)
            self.loss = torch.compile(self.loss)
        self.random = np.random.default_rng(o.seed)
        self.queue, self.steps, self.tokens, self.losses = [], 0, 0, []

    def batch(self):
        o = self.o
        if not self.queue:
            order = self.random.permutation(len(self.people))
            self.queue = [order[i : i + o.batch] for i in range(0, len(order), o.batch)]
        chosen = [self.people[i] for i in self.queue.pop(0)]
        lengths = np.fromiter((len(s) for s in chosen), np.int64)
        rows, length = (o.batch, o.context) if o.compile else (len(chosen), int(lengths.max()))
        real = np.zeros((rows, length), bool)
        real[: len(chosen)] = np.arange(length) < lengths[:, None]
        ids = np.zeros((rows, length), np.int64)
        targets = np.concatenate(chosen)
        ids[real] = targets
        valid = np.flatnonzero(real)
        return torch.from_numpy(ids), torch.from_numpy(valid), torch.from_numpy(targets)

    def step(self):
        o = self.o
        ids, valid, targets = self.batch()
        negatives = torch.randint(self.count, (o.negatives,)) if o.negatives else None
        if o.compile:
            torch._dynamo.mark_dynamic(valid, 0)
            torch._dynamo.mark_dynamic(targets, 0)
        self.steps += 1
        self.optimizer.param_groups[0]["lr"] = o.rate * min(1.0, self.steps / o.warmup)
        loss = self.loss(self.encode(ids, valid), self.model.items, targets, negatives)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.tokens += len(targets)
        self.losses.append(loss.item())

    def later_loss(self):
        return float(np.mean(self.losses[80:100])) if len(self.losses) >= 100 else None


def arguments():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--data", required=True)
    a.add_argument("--weights", required=True)
    for name, value in [("width", 64), ("blocks", 2), ("heads", 2), ("hidden", 256), ("context", 200), ("batch", 32)]:
        a.add_argument(f"--{name}", type=int, default=value)
    a.add_argument("--dropout", type=float, default=0.2)
    a.add_argument("--rate", type=float, default=1e-3)
    a.add_argument("--warmup", type=int, default=100)
    a.add_argument("--negatives", type=int, default=0, help="0: softmax over all items")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--packed", action="store_true", help="padding in attention only; all else on real tokens")
    a.add_argument("--compile", action="store_true", help="torch.compile, batches padded to the context")
    a.add_argument("--check", type=int, default=0, metavar="STEPS", help="print the losses of so many steps, and end")
    return a.parse_args()


def main():
    o = arguments()
    torch.set_num_threads(o.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(o.seed)
    say = lambda what: print(json.dumps(what), flush=True)
    training = Training(o)
    if o.check:
        for _ in range(o.check):
            training.step()
        say({"losses": training.losses, "parameters": training.parameters})
        return
    training.step()
    say({
        "parameters": training.parameters,
        "first_loss": training.losses[0],
        "versions": {"python": sys.version.split()[0], "torch": torch.__version__, "numpy": np.__version__},
    })
    for line in sys.stdin:
        seconds, before, begun = float(line), training.tokens, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            training.step()
        taken = time.perf_counter() - begun
        say({
            "tokens": training.tokens - before,
            "seconds": taken,
            "steps": training.steps,
            "later_loss": training.later_loss(),
            "peak_memory": sequences.peak_memory(),
        })


if __name__ == "__main__":
    main()
