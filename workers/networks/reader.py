"""BERT that points at an answer (Devlin et al. 2019, "BERT", section 4.2)."""

from pathlib import Path

from torch import Tensor, nn
from transformers import BertConfig, BertModel


class Reader(nn.Module):
    """Token ids, attention mask and segment ids (batch, length), int64, to start and end logits (batch, length)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.span = nn.Linear(config.hidden_size, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).last_hidden_state
        start, end = self.span(hidden).unbind(-1)
        return start, end


def pretrained(folder: Path, *, dropout: float, attention_dropout: float) -> Reader:
    """The reader with the weights of a pretrained encoder and a new span layer."""
    config = BertConfig.from_pretrained(folder, hidden_dropout_prob=dropout, attention_probs_dropout_prob=attention_dropout)
    reader = Reader(config)
    reader.encoder = BertModel.from_pretrained(folder, config=config, add_pooling_layer=False)
    return reader
