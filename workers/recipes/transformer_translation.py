"""Translation with a Transformer trained from scratch."""

import gzip
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workers.recipes.answers import word_f1
from workers.recipes.beams import BEGIN, END, PAD, Writer, Written, beam_search
from workers.recipes.data import Data, bucketed
from workers.runtime.batching import Cut, buckets, padded
from workers.runtime.graphs import Graph

SPACE = "\u0120"  # how a byte-level tokenizer writes the space before a word
SPECIALS = ["<pad>", "<s>", "</s>"]
SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|\n+")
SMALLEST = "a"
TRIAL = {"max_new_tokens": 8}
CUT = Cut(budget=1024, fixed=256)  # in source tokens times beams: every written token is a run of its own, so few are better


# ---------- training ----------
def read(settings: dict[str, Any], root: Path) -> Data:
    """Pairs of token ids from a TSV of source and target text; held-out pairs share no source text with the others."""
    data, loop = settings["data"], settings["train"]
    with gzip.open(root / data["train"], "rt", encoding="utf-8") as lines:
        pairs = sorted({(source, target) for source, target, *_ in (line.rstrip("\n").split("\t") for line in lines)})
    sources = sorted({source.lower() for source, _ in pairs})
    chosen = np.random.default_rng(loop["seed"]).choice(len(sources), data["valid"], replace=False)
    held_out = {sources[i] for i in chosen}
    train = [pair for pair in pairs if pair[0].lower() not in held_out]
    tokenizer = train_tokenizer([text for pair in train for text in pair], settings["model"]["vocabulary"])
    rows = encode_pairs(tokenizer, train)
    valid = [pair for pair in pairs if pair[0].lower() in held_out]
    lengths = np.array([max(len(source), len(target)) for source, target in rows])
    return Data(rows, encode_pairs(tokenizer, valid), tokenizer, {"lengths": lengths})


def train_tokenizer(texts: list[str], vocabulary: int) -> Any:
    """Byte-level byte-pair encoding (Sennrich et al. 2016) over both languages: no character is ever unknown."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode_pairs(tokenizer: Any, pairs: list[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
    """Source ids with an end, target ids with a beginning and an end."""
    sources = tokenizer.encode_batch([source for source, _ in pairs])
    targets = tokenizer.encode_batch([target for _, target in pairs])
    return [([*s.ids, END], [BEGIN, *t.ids, END]) for s, t in zip(sources, targets, strict=True)]


def build(settings: dict[str, Any], data: Data) -> Any:
    return _network(settings["model"])


def _network(shape: dict[str, Any]) -> Any:
    from workers.networks.translator import Translator

    names = ("vocabulary", "width", "heads", "inner", "encoders", "decoders", "dropout", "longest")
    return Translator(**{name: shape[name] for name in names})


def groups(model: Any, settings: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"params": list(model.parameters()), "scale": 1.0}]


def batches(settings: dict[str, Any], data: Data, epoch: int) -> list[list[int]]:
    return bucketed(data.extra["lengths"], settings["train"]["tokens"], settings["train"]["seed"], epoch)


def collate(settings: dict[str, Any], data: Data, rows: list[int], seed: int | None) -> tuple[Any, ...]:
    """Source (batch, n) and target (batch, m) ids, int64, padded with 0."""
    return _tensors([data.train[row] for row in rows])


def _tensors(pairs: list[tuple[list[int], list[int]]]) -> tuple[Any, ...]:
    import torch

    sources, targets = zip(*pairs, strict=True)
    return torch.from_numpy(padded(list(sources))), torch.from_numpy(padded(list(targets)))


def loss(model: Any, batch: list[Any]) -> tuple[Any, int]:
    """Cross entropy per target token with label smoothing 0.1 (Szegedy et al. 2016)."""
    return _cross_entropy(model, batch, smoothing=0.1), len(batch[0])


def _cross_entropy(model: Any, batch: Any, smoothing: float) -> Any:
    from torch.nn import functional as F

    source, target = batch
    logits = model(source, target[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=PAD, label_smoothing=smoothing)


def validate(model: Any, settings: dict[str, Any], data: Data) -> dict[str, float]:
    """Loss per target token on the held-out pairs."""
    import torch

    device, total, tokens = next(model.parameters()).device, 0.0, 0
    with torch.inference_mode():
        for rows in bucketed(np.array([len(t) for _, t in data.valid]), 4096, 0, 0):
            batch = [part.to(device) for part in _tensors([data.valid[row] for row in rows])]
            count = int((batch[1][:, 1:] != PAD).sum())
            total, tokens = total + count * float(_cross_entropy(model, batch, 0.0)), tokens + count
    return {"score": -total / tokens, "valid_loss": total / tokens}


def save(settings: dict[str, Any], data: Data, folder: Path) -> None:
    data.processor.save(str(folder / "tokenizer.json"))
    languages = {name: settings["data"][name] for name in ("source", "target")}
    config = {**settings["model"], "dropout": 0.0, **languages, **settings["serve"]}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


# ---------- export ----------
def load(folder: Path) -> Any:
    from workers.networks.weights import load_weights

    model = _network(json.loads((folder / "config.json").read_text()))
    load_weights(model, folder / "model.safetensors")
    return model.eval()


def drawings(model: Any) -> list[Any]:
    """Reading the source is done once, writing once for each target token."""
    import torch

    from workers.networks.translator import Reading, Writing
    from workers.runtime.onnx_files import Drawing

    source = torch.tensor([[5, 6, 7, END, 0], [5, 6, 7, 8, END]])
    keys, values = Reading(model)(source)
    token, past = torch.tensor([[BEGIN], [BEGIN]]), torch.zeros(*keys.shape[:3], 3, keys.shape[4])
    inputs = {
        "token": token, "position": torch.tensor([3]), "source": source,
        "source_keys": keys, "source_values": values, "past_keys": past, "past_values": past.clone(),
    }  # fmt: skip
    both, read, past_axes = {0: "batch", 1: "n"}, {1: "batch", 3: "n"}, {1: "batch", 3: "m"}
    axes = {
        "token": {0: "batch"}, "source": both, "source_keys": read, "source_values": read,
        "past_keys": past_axes, "past_values": past_axes,
    }  # fmt: skip
    return [
        Drawing("reading", Reading(model), {"source": source}, ["keys", "values"], {"source": both}),
        Drawing("writing", Writing(model), inputs, ["scores", "tokens", "keys", "values"], axes),
    ]


def parity(model: Any, graphs: dict[str, Graph], served: "Served", inputs: list[Any]) -> float:
    """Largest difference of a log-probability, the source's own tokens taken as the target, step by step in ONNX."""
    import torch

    source = padded([served.encode(text, {}).pieces[0] for text in inputs])
    target = np.concatenate([np.full((len(source), 1), BEGIN), source], axis=1)
    with torch.inference_mode():
        ours = model.best(model(torch.from_numpy(source), torch.from_numpy(target)))[0].numpy()
    writer = Writer(graphs, source, 1)
    theirs = np.stack([writer.step(target[:, at : at + 1])[0] for at in range(target.shape[1])], axis=1)
    return float(np.abs(ours - theirs).max())


def agreement(outputs: list[Any], others: list[Any]) -> float:
    """Mean F1 of the words."""
    pairs = zip(outputs, others, strict=True)
    return float(np.mean([word_f1(a["translation_text"], b["translation_text"]) for a, b in pairs]))


# ---------- serving ----------
@dataclass(frozen=True)
class Source:
    """A text in pieces of at most one sentence each, as ids that end with END."""

    pieces: list[list[int]]
    limit: int  # generated tokens in all
    beams: int


class Served:
    """Texts to translations. A text longer than the sentences of the training data is translated sentence by sentence."""

    def __init__(self, folder: Path, graphs: dict[str, Graph]) -> None:
        from tokenizers import Tokenizer

        self.config = json.loads((folder / "config.json").read_text())
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.graphs = graphs

    def tokens(self, values: list[str]) -> list[list[int]]:
        return [one.ids for one in self.tokenizer.encode_batch_fast(values, add_special_tokens=False)]

    def encode(self, value: str, parameters: dict[str, Any], tokens: list[int] | None = None) -> Source:
        whole = tokens or self.tokens([value])[0]
        short = len(whole) <= self.config["sentence"]
        cut = [whole] if short else [ids for row in self.tokens(SENTENCE_END.split(value)) for ids in self._cut(row)]
        pieces = [[*ids, END] for ids in cut if ids]
        limit = parameters.get("max_new_tokens") or sum(map(longest_target, pieces))
        return Source(pieces, limit, parameters.get("num_beams", self.config["beams"]))

    def _cut(self, ids: list[int]) -> list[list[int]]:
        """A sentence without an end in sight is cut where it gets too long, before a word if there is one."""
        most, pieces = self.config["longest"] // 4, []
        while len(ids) > most:
            at = next((at for at in range(most, most // 2, -1) if self._begins_word(ids[at])), most)
            pieces.append(ids[:at])
            ids = ids[at:]
        return [*pieces, ids]

    def _begins_word(self, id: int) -> bool:
        token = self.tokenizer.id_to_token(id)
        return token is not None and token.startswith(SPACE)

    def run(self, encoded: list[Source]) -> list[tuple[Any, int]]:
        pieces = [(i, ids) for i, source in enumerate(encoded) for ids in source.pieces]
        written: list[Written] = [Written([], True)] * len(pieces)
        for rows in buckets([len(ids) * encoded[i].beams for i, ids in pieces], CUT):
            beams = max(encoded[pieces[row][0]].beams for row in rows)
            limits = [self._limit(encoded[pieces[row][0]], pieces[row][1]) for row in rows]
            best = beam_search(self.graphs, [pieces[row][1] for row in rows], limits, beams)
            for row, one in zip(rows, best, strict=True):
                written[row] = one
        found: list[list[Written]] = [[] for _ in encoded]
        for (i, _), one in zip(pieces, written, strict=True):
            found[i].append(one)
        return [self._joined(source, parts) for source, parts in zip(encoded, found, strict=True)]

    def _limit(self, source: Source, ids: list[int]) -> int:
        return min(source.limit, longest_target(ids), self.config["longest"] - 1)

    def _joined(self, source: Source, parts: list[Written]) -> tuple[Any, int]:
        """The translated pieces as one text, told to be cut off if a limit was met, and the tokens read and written."""
        kept, left, is_whole = [], source.limit, True
        for part in parts:
            kept.append(part.ids[:left])
            is_whole &= part.is_whole and len(part.ids) <= left
            left -= len(kept[-1])
        output = {"translation_text": " ".join(self.tokenizer.decode(ids).strip() for ids in kept if ids)}
        quantity = sum(len(ids) - 1 for ids in source.pieces) + source.limit - left
        return output if is_whole else {**output, "finish_reason": "length"}, quantity


def longest_target(source: list[int]) -> int:
    """Generated tokens for a piece: a translation several times as long is a model going round in circles."""
    return 3 * len(source) + 10


# ---------- evaluation ----------
def examples(settings: dict[str, Any], root: Path) -> list[tuple[Any, Any]]:
    """Every different source text with all its translations."""
    with gzip.open(root / settings["data"]["test"], "rt", encoding="utf-8") as lines:
        pairs = [line.rstrip("\n").split("\t")[:2] for line in lines]
    grouped: dict[str, list[str]] = {}
    for source, target in pairs:
        grouped.setdefault(source, []).append(target)
    return list(grouped.items())


def figures(outputs: list[Any], references: list[Any]) -> dict[str, float]:
    """BLEU (Papineni et al. 2002; sacrebleu, 13a) and chrF (Popovic 2015) against all references, 0..100."""
    import sacrebleu

    found = [output["translation_text"] for output in outputs]
    most = max(map(len, references))
    columns: list[Any] = [[texts[i] if i < len(texts) else None for texts in references] for i in range(most)]
    bleu, chrf = sacrebleu.corpus_bleu(found, columns), sacrebleu.corpus_chrf(found, columns)
    return {"bleu": round(bleu.score, 2), "chrf": round(chrf.score, 2)}
