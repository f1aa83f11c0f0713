"""BERT as a sentence encoder: a vector for every token, from which the recipe makes one for the text."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel

UNUSED = ("pooler.", "embeddings.position_ids")  # of the published file: a head for another task, and a range of numbers


class Encoder(nn.Module):
    """Token ids and attention mask (batch, length), int64, to hidden states (batch, length, size)."""

    def __init__(self, shape: dict[str, Any]) -> None:
        super().__init__()
        self.encoder = BertModel(BertConfig(**shape), add_pooling_layer=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden: Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return hidden


def load_encoder(path: Path, shape: dict[str, Any]) -> Encoder:
    """The encoder with weights as Hugging Face publishes them; RuntimeError when names or shapes differ."""
    model = Encoder(shape)
    found = {name: value.float() for name, value in load_file(path).items() if not name.startswith(UNUSED)}
    model.encoder.load_state_dict(found)
    return model
