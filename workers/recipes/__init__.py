"""One file per architecture family, all with the same names.

For training (torch is imported inside these functions; a family that is shipped as published, `sentence_encoder`, has none):
    read(settings, root) -> Data            rows of the training files, a held-out part of them, and the processor
    build(settings, data) -> nn.Module      the network with its first weights
    groups(model, settings) -> list         parameter groups with a `scale` of the learning rate
    batches(settings, data, epoch) -> list  lists of row numbers, shuffled by (seed, epoch) and of similar length
    collate(settings, data, rows, seed) -> tuple of tensors; `seed` is None for evaluation, else it drives augmentation
    loss(model, batch) -> (loss, count)     mean loss and the number of examples behind it
    validate(model, settings, data) -> dict figures on the held-out part; the key `score` chooses the best weights
    save(settings, data, folder) -> None    what serving needs beside the weights: config.json, tokenizer.json

For export (torch as well):
    load(folder) -> nn.Module               the trained network
    drawings(model) -> list[Drawing]        what becomes which ONNX file
    parity(model, graphs, served, inputs) -> float   largest difference between torch and ONNX on real inputs
    agreement(outputs, others) -> float     1 when two lists of outputs say the same, 0 when nothing is the same

For serving (numpy only):
    Served(folder, graphs)                  with tokens(values) -> what `encode` takes for each, made at once for all,
                                            encode(value, parameters, tokens=None) -> anything; ValueError says what is wrong,
                                            and run(list of encoded) -> list of (output, quantity)

    SMALLEST, TRIAL                         the smallest valid input, and the parameters that keep a first run short

For evaluation:
    examples(settings, root) -> list        (input, reference) pairs of the public test file
    figures(outputs, references) -> dict    measures in the field's own terms, the main one first
"""

import importlib
from types import ModuleType

FAMILIES = ("image_cnn", "bert_qa", "transformer_translation", "sentence_encoder")


def recipe(name: str) -> ModuleType:
    """The module of a family; ValueError for one that does not exist."""
    if name not in FAMILIES:
        raise ValueError(f"There is no recipe '{name}'. Known: {', '.join(FAMILIES)}.")
    return importlib.import_module(f"workers.recipes.{name}")


def trainable(name: str) -> ModuleType:
    """The module of a family that can be trained; ValueError for one that is shipped as others published it."""
    family = recipe(name)
    if not hasattr(family, "read"):
        raise ValueError(f"The recipe '{name}' serves published weights; there is nothing to train.")
    return family
