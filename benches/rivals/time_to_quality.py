"""RecTools' SASRec and eSASRec on a leave-one-out split: the rival of benches/time_to_quality.rs.

Started by that program. It prints one JSON line per epoch: the seconds of fitting so far (evaluation left out), and the
metrics of the validation and the test items over the full catalogue.
"""

import argparse
import json
import logging
import sys
import time
import warnings

import numpy as np
import pandas as pd
import pytorch_lightning
import rectools
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.transformers.ligr import LiGRLayers

import sequences

# The settings that the authors of eSASRec chose for ML-1M (arXiv 2508.06450; github.com/blondered/transformer_benchmark,
# configs/paper/loo/ml_1m.yaml): width 64, 2 blocks, 1 head, dropout 0.1, 200 items, learning rate 0.001, at most 100
# epochs with patience 50, batches of 128 (RecTools' default).
COMMON = {
    "n_factors": 64,
    "n_blocks": 2,
    "n_heads": 1,
    "dropout_rate": 0.1,
    "session_max_len": 200,
    "lr": 0.001,
    "batch_size": 128,
}
LIGR = {"transformer_layers_type": LiGRLayers, "use_key_padding_mask": True}
SAMPLED = {"loss": "sampled_softmax", "n_negatives": 256}
MODELS = {
    "esasrec": {**COMMON, **LIGR, **SAMPLED},
    "esasrec-softmax": {**COMMON, **LIGR, "loss": "softmax"},
    "sasrec": {**COMMON, "loss": "softmax"},
    "sasrec-sampled": {**COMMON, **SAMPLED},
}
EPOCHS, PATIENCE = 100, 50


def metrics(ranks):
    """From ranks counted from 0."""
    hit = ranks < 10
    return {"ndcg@10": float(np.where(hit, 1 / np.log2(ranks + 2), 0).mean()), "hr@10": float(hit.mean())}


def evaluate(model, people, items, held):
    """Metrics of each person's item at place `held` (-2 or -1) from what came before, among all items not seen before."""
    net, context = model.lightning_model.torch_model, model.session_max_len
    known = model.data_preparator.item_id_map.to_internal
    code = np.zeros(items, np.int64)
    code[known.index[1:].astype(np.int64)] = known.to_numpy()[1:]
    ranks = []
    training = net.training
    net.eval()
    with torch.no_grad():
        vectors = net.item_model.get_all_embeddings()
        for start in range(0, len(people), 256):
            part = people[start : start + 256]
            x = np.zeros((len(part), context), np.int64)
            for row, person in zip(x, part):
                history = code[person[:held][-context:]]
                history = history[history > 0]
                row[len(row) - len(history) :] = history
            users = net.encode_sessions({"x": torch.from_numpy(x)}, vectors)[:, -1]
            scores = (users @ vectors.T).numpy()[:, code]
            # Items that training never saw have no vector of their own.
            scores[:, code == 0] = -np.inf
            for row, person in zip(scores, part):
                target = row[person[held]]
                seen = np.setdiff1d(person[:held], person[held])
                row[seen] = -np.inf
                if not np.isfinite(target):
                    ranks.append(len(row))
                else:
                    ranks.append((row > target).sum() + 0.5 * ((row == target).sum() - 1))
    net.train(training)
    return metrics(np.array(ranks, np.float64))


class Watch(pytorch_lightning.Callback):
    """Evaluates after each epoch and ends the fitting at the limit, off its clock."""

    def __init__(self, o, people, items):
        self.o, self.people, self.items = o, people, items
        self.aside, self.best, self.waited, self.epochs, self.stopped = 0.0, (-1.0, -1.0), 0, 0, "epochs"

    def __deepcopy__(self, memo):
        # RecTools copies its trainer before it fits; the clock must stay one.
        return self

    def begin(self, model):
        self.model, self.begun = model, time.perf_counter()

    def seconds(self):
        return time.perf_counter() - self.begun - self.aside

    def stop(self, trainer, why):
        trainer.should_stop, self.stopped = True, why

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if self.seconds() >= self.o.seconds:
            self.stop(trainer, "time")

    def on_train_epoch_end(self, trainer, module):
        seconds, paused = self.seconds(), time.perf_counter()
        whole = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        self.epochs += 1 if whole else 0
        validation = evaluate(self.model, self.people, self.items, -2)
        test = evaluate(self.model, self.people, self.items, -1)
        self.waited += 1
        if validation["ndcg@10"] > self.best[0]:
            self.best, self.waited = (validation["ndcg@10"], test["ndcg@10"]), 0
        say(seconds=seconds, epoch=trainer.current_epoch + 1, whole=whole, validation=validation, test=test)
        if min(self.best) >= self.o.level:
            self.stop(trainer, "level")
        elif self.waited >= PATIENCE:
            self.stop(trainer, "patience")
        self.aside += time.perf_counter() - paused


def say(**what):
    print(json.dumps(what), flush=True)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--data", required=True)
    a.add_argument("--model", choices=sorted(MODELS), required=True)
    a.add_argument("--seconds", type=float, required=True, help="end the fitting after this time")
    a.add_argument("--level", type=float, required=True, help="end it when NDCG@10 of validation and test is this high")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--seed", type=int, default=1)
    o = a.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(o.threads)
    torch.set_flush_denormal(True)
    pytorch_lightning.seed_everything(o.seed)
    items, people = sequences.read(o.data)
    train = [person[:-2] if len(person) >= 3 else person for person in people]
    lengths = [len(person) for person in train]
    events = pd.DataFrame({
        Columns.User: np.repeat(np.arange(len(train)), lengths),
        Columns.Item: np.concatenate(train),
        Columns.Weight: 1.0,
        # The order of a person's events is all that RecTools takes from the time.
        Columns.Datetime: pd.to_datetime(np.concatenate([np.arange(n) for n in lengths]), unit="s"),
    })
    dataset = Dataset.construct(events)
    watch = Watch(o, [person for person in people if len(person) >= 3], items)

    def trainer():
        return pytorch_lightning.Trainer(
            max_epochs=EPOCHS,
            min_epochs=1,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[watch],
        )

    settings = MODELS[o.model]
    model = SASRecModel(**settings, epochs=EPOCHS, get_trainer_func=trainer)
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "rectools": rectools.__version__}
    versions["pytorch-lightning"] = pytorch_lightning.__version__
    shown = {key: getattr(value, "__name__", value) for key, value in settings.items()}
    say(versions=versions, settings=shown, questions=len(watch.people))
    watch.begin(model)
    model.fit(dataset)
    parameters = sum(p.numel() for p in model.lightning_model.torch_model.parameters())
    say(stopped=watch.stopped, epochs=watch.epochs, parameters=parameters, peak_memory=sequences.peak_memory())


if __name__ == "__main__":
    main()
