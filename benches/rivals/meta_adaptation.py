"""The inner loop of benches/meta_adaptation.rs in PyTorch: torch.func.vmap(grad) over people.

usage: meta_adaptation.py FOLDER PEOPLE THREADS ROUNDS

Same weights, same people; prints one JSON line per variant. `apart` is the largest difference to Docent's embeddings.
"""

import json
import sys
import time
from pathlib import Path

import torch
from torch.func import grad, vmap


def main():
    folder, people, threads, rounds = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    torch.set_num_threads(threads)
    shape = json.loads((folder / "shape.json").read_text())
    read = lambda name: torch.frombuffer(bytearray((folder / name).read_bytes()), dtype=torch.float32)
    dense = read("dense")
    weights = {w["name"]: dense[w["start"] : w["end"]].reshape(w["shape"]) for w in shape["weights"]}
    n, gate, e = shape["outcomes"], shape["gate"], shape["embedding"]
    inputs = read("inputs").reshape(-1, shape["inputs"])
    candidates = read("candidates").reshape(-1, n, shape["candidate"])
    labels = read("labels").reshape(-1, n)
    wanted = read("embeddings").reshape(-1, e)
    layers = sum(1 for name in weights if name.startswith("meta.") and name.endswith(".bias"))
    start = {f"{kind}{l}": weights[f"meta.{l}" + suffix] for l in range(layers) for kind, suffix in (("w", ""), ("b", ".bias"))}
    rates = {}
    for l in range(layers):
        both = weights[f"meta.{l}.rates"].exp()
        rates[f"w{l}"], rates[f"b{l}"] = both[0] / start[f"w{l}"].shape[1], both[1]

    def tower(x):
        hidden = torch.nn.functional.silu(x @ weights["tower.in"].T + weights["tower.in.bias"])
        return hidden @ weights["tower.out"].T + x @ weights["tower.wide"].T + weights["tower.bias"]

    def embed(phi, x):
        for l in range(layers):
            x = torch.nn.functional.linear(x, phi[f"w{l}"], phi[f"b{l}"])
            if l + 1 < layers:
                x = torch.nn.functional.silu(x)
        return x

    def loss(phi, x, rows, y):
        vector = embed(phi, x)
        z = rows[:, : 2 * gate] + weights["heads.mix"] @ vector
        m = torch.nn.functional.silu(z[:, :gate]) * z[:, gate:]
        logits = m @ weights["heads.out"][0] + rows[:, 2 * gate : 2 * gate + e] @ vector + rows[:, -1]
        return (torch.nn.functional.softplus(logits) - y * logits).sum() / (n + shape["shrink"])

    inner = grad(loss)

    def adapt(x, rows, y):
        phi = start
        for step in range(shape["steps"]):
            g, fade = inner(phi, x, rows, y), shape["fade"] ** step
            phi = {k: phi[k] - fade * rates[k] * g[k] for k in phi}
        return embed(phi, x)

    def both(x, c, y):
        return vmap(adapt)(x, tower(c), y)

    index = torch.arange(people) % len(inputs)

    def variant(name, run, chunk):
        with torch.no_grad():
            apart = (run(inputs[:64], candidates[:64], labels[:64]) - wanted[:64]).abs().max().item()
            single, whole = [], []
            one = lambda p: run(inputs[p : p + 1], candidates[p : p + 1], labels[p : p + 1])
            one(0)
            parts = [index[i : i + chunk] for i in range(0, people, chunk)]
            batches = [(inputs[i], candidates[i], labels[i]) for i in parts[: max(1, len(inputs) // chunk)]]
            run(*batches[0])
            for _ in range(rounds):
                for p in range(40):
                    begun = time.perf_counter()
                    one(p)
                    single.append(time.perf_counter() - begun)
                begun = time.perf_counter()
                for i in range(len(parts)):
                    run(*batches[i % len(batches)])
                whole.append(time.perf_counter() - begun)
            single.sort()
            answer = {
                "name": f"pytorch, {name}, {chunk} at a time",
                "single_p50": single[len(single) // 2],
                "single_p99": single[int(0.99 * (len(single) - 1))],
                "people_per_second": people / min(whole),
                "apart": apart,
                "versions": {"torch": torch.__version__},
            }
        print(json.dumps(answer), flush=True)

    for chunk in (100, 500, 2000):
        if chunk <= people:
            variant("vmap(grad)", both, chunk)
    try:
        compiled = torch.compile(both, dynamic=False)
        variant("vmap(grad), compiled", compiled, min(500, people))
    except Exception as error:  # a machine without a C++ compiler has no such variant
        print(f"torch.compile is left out: {type(error).__name__}", file=sys.stderr)


main()
