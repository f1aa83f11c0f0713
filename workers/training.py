"""The one training loop: `python -m workers.training models/<name>/train.toml --data DIR`.

Read it top to bottom. Everything random is drawn from (seed, epoch) or (seed, step), so a run that is cut and resumed
goes on exactly where it was, and the checkpoint needs no state of random generators.
"""

import argparse
import math
import os
import shutil
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workers.manifest import write_manifest
from workers.networks.weights import load_weights, save_weights
from workers.recipes import trainable

Report = Callable[[dict[str, Any]], None]
CHECKPOINT_SECONDS = 90


def train(settings: dict[str, Any], root: Path, checkpoints: Path, report: Report) -> tuple[nn.Module, Any]:
    """Train from the last checkpoint, or from the start, to the last step; the best weights by held-out score.

    `root` holds the data files that `settings["data"]` names, `checkpoints` keeps the state of this run, `report` gets
    a dict for every progress line. Raises FileNotFoundError for data that is not there.
    """
    family, loop = trainable(settings["recipe"]), settings["train"]
    torch.set_num_threads(loop.get("threads") or os.cpu_count() or 1)
    torch.manual_seed(loop["seed"])
    data = family.read(settings, root)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = family.build(settings, data).to(device)
    optimiser = make_optimiser(family.groups(model, settings), loop)
    state = load_checkpoint(checkpoints / "last.pt", model, optimiser)
    saved = begun = time.monotonic()
    first, seen = state["step"], 0

    for step, rows in steps(family, settings, data, first):
        torch.manual_seed(loop["seed"] * 1_000_003 + step)  # dropout of this step, whichever run it happens in
        model.train()
        for group in optimiser.param_groups:
            group["lr"] = loop["rate"] * group["scale"] * schedule(step / loop["steps"], loop["warmup"])
        batch = [part.to(device) for part in family.collate(settings, data, rows, seed=step)]
        loss, count = family.loss(model, batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), loop.get("clip", math.inf))
        optimiser.step()
        state["step"], seen = step + 1, seen + count
        state["loss"] = loss.item() if step == 0 else 0.98 * state["loss"] + 0.02 * loss.item()

        if step % loop.get("report_every", 20) == 0:
            speed = seen / (time.monotonic() - begun)
            left = (loop["steps"] - step - 1) * (time.monotonic() - begun) / max(step + 1 - first, 1)
            progress = {"step": step + 1, "steps": loop["steps"], "loss": state["loss"]}
            report({**progress, "per_second": speed, "seconds_left": left})
        if (step + 1) % loop["validate_every"] == 0 or step + 1 == loop["steps"]:
            figures = family.validate(model.eval(), settings, data)
            report({"step": step + 1, **figures})
            if figures["score"] >= state["best"]:
                state["best"] = figures["score"]
                save_weights(model, checkpoints / "best.safetensors")
        if time.monotonic() - saved > CHECKPOINT_SECONDS or step + 1 == loop["steps"]:
            save_checkpoint(checkpoints / "last.pt", model, optimiser, state)
            saved = time.monotonic()

    load_weights(model, checkpoints / "best.safetensors")
    return model.eval(), data


def steps(family: Any, settings: dict[str, Any], data: Any, first: int) -> Iterator[tuple[int, list[int]]]:
    """The rows of every step from `first` to the last. An epoch's batches depend on nothing but seed and epoch."""
    step, epoch = 0, 0
    while step < settings["train"]["steps"]:
        for rows in family.batches(settings, data, epoch):
            if first <= step < settings["train"]["steps"]:
                yield step, rows
            step += 1
        epoch += 1


def schedule(done: float, warmup: float) -> float:
    """The share of the peak learning rate: a straight rise over `warmup` of the run, then half a cosine to zero
    (Loshchilov and Hutter 2017, "SGDR")."""
    if done < warmup:
        return done / warmup
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def make_optimiser(groups: list[dict[str, Any]], loop: dict[str, Any]) -> torch.optim.Optimizer:
    """The optimiser that `train.optimiser` names."""
    decay = loop.get("decay", 0.0)
    if loop["optimiser"] == "sgd":
        return torch.optim.SGD(groups, lr=loop["rate"], momentum=0.9, nesterov=True, weight_decay=decay)
    if loop["optimiser"] == "adamw":
        betas = tuple(loop.get("betas", (0.9, 0.98)))
        return torch.optim.AdamW(groups, lr=loop["rate"], betas=betas, weight_decay=decay)
    raise ValueError(f"train.optimiser must be sgd or adamw, not {loop['optimiser']!r}.")


# ---------- checkpoints ----------
def save_checkpoint(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Whole or not at all: a process may be killed while it writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "state": state}, new)
    new.replace(path)


def load_checkpoint(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Put model and optimiser where they were; where the loop was comes back."""
    if not path.exists():
        return {"step": 0, "loss": 0.0, "best": -math.inf}
    found = torch.load(path, weights_only=True)
    model.load_state_dict(found["model"])
    optimiser.load_state_dict(found["optimiser"])
    state: dict[str, Any] = found["state"]
    return state


# ---------- the command ----------
def main() -> None:
    """Train one model of the catalogue and write its weights, tokenizer and manifest into its folder."""
    options = parse_options()
    settings = tomllib.loads(options.recipe.read_text())
    folder = options.out or options.recipe.parent
    if options.out:
        shutil.copytree(options.recipe.parent, folder, dirs_exist_ok=True)
    checkpoints = options.checkpoints / options.recipe.parent.name
    if options.export_only:
        model, data = best_so_far(settings, options.data, checkpoints)
    else:
        model, data = train(settings, options.data, checkpoints, print_progress)
    save_weights(model, folder / "model.safetensors", torch.float16)
    trainable(settings["recipe"]).save(settings, data, folder)
    write_manifest(folder)


def best_so_far(settings: dict[str, Any], root: Path, checkpoints: Path) -> tuple[nn.Module, Any]:
    """The best weights of a run that may still be going on."""
    family = trainable(settings["recipe"])
    data = family.read(settings, root)
    model = family.build(settings, data)
    load_weights(model, checkpoints / "best.safetensors")
    return model.eval(), data


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a model of the catalogue. A run that was cut goes on.")
    parser.add_argument("recipe", type=Path, help="models/<name>/train.toml")
    parser.add_argument("--data", type=Path, default=os.environ.get("MAAS_DATA"), help="data sets (or MAAS_DATA)")
    parser.add_argument("--checkpoints", type=Path, default=Path.home() / "maas-train", help="state of runs")
    parser.add_argument("--out", type=Path, help="where the model is written; beside train.toml if not given")
    parser.add_argument("--export-only", action="store_true", help="write the best weights so far and stop")
    options = parser.parse_args()
    if options.data is None:
        parser.error("say where the data sets are: --data DIR or MAAS_DATA")
    options.data = Path(options.data)
    return options


def print_progress(figures: dict[str, Any]) -> None:
    """One line a report."""
    shown = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items())
    print("  ".join(shown), flush=True)  # noqa: T201  # a command speaks


if __name__ == "__main__":
    main()
