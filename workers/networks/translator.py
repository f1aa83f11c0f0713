"""An encoder-decoder Transformer (Vaswani et al. 2017, "Attention Is All You Need"), normalised before each block
(Xiong et al. 2020), with one embedding for source, target and output (Press and Wolf 2017)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Cache = list[tuple[Tensor, Tensor]]


class Attention(nn.Module):
    """Multi-head attention of queries (batch, m, width) over keys and values of shape (batch, heads, n, width / heads)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def remember(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of x, ready to be attended to."""
        return self.split(self.key(x)), self.split(self.value(x))

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        mixed = F.scaled_dot_product_attention(self.split(self.query(x)), keys, values, attn_mask=mask, is_causal=causal)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """Self-attention, attention to the source if `cross`, and a feed-forward layer, each normalised before and added."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float, *, cross: bool) -> None:
        super().__init__()
        self.own, self.norm_own = Attention(width, heads), nn.LayerNorm(width)
        self.other = Attention(width, heads) if cross else None
        self.norm_other = nn.LayerNorm(width) if cross else None
        self.feed = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, inner), nn.GELU(), nn.Dropout(dropout), nn.Linear(inner, width))
        self.drop = nn.Dropout(dropout)

    def read(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values of the source that this layer attends to; TypeError in an encoder."""
        if self.other is None:
            raise TypeError("An encoder block attends to nothing but its own input.")
        return self.other.remember(hidden)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        source: tuple[Tensor, Tensor] | None = None,
        source_mask: Tensor | None = None,
    ) -> Tensor:
        h = self.norm_own(x)
        x = x + self.drop(self.own(h, *self.own.remember(h), mask=mask, causal=source is not None))
        if self.other is not None and self.norm_other is not None and source is not None:
            x = x + self.drop(self.other(self.norm_other(x), *source, mask=source_mask))
        return x + self.drop(self.feed(x))

    def step(
        self, x: Tensor, past: tuple[Tensor, Tensor], source: tuple[Tensor, Tensor], source_mask: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """One target position (batch, 1, width) after those in `past`; the longer past comes back."""
        h = self.norm_own(x)
        keys, values = self.own.remember(h)
        now = torch.cat([past[0], keys], dim=2), torch.cat([past[1], values], dim=2)
        x = x + self.own(h, *now)
        if self.other is not None and self.norm_other is not None:
            x = x + self.other(self.norm_other(x), *source, mask=source_mask)
        return x + self.feed(x), now


class Translator(nn.Module):
    """Source ids (batch, n) and target ids (batch, m), int64, 0 = padding, to logits (batch, m, vocabulary)."""

    positions: Tensor

    def __init__(
        self,
        vocabulary: int,
        width: int,
        heads: int,
        inner: int,
        encoders: int,
        decoders: int,
        dropout: float,
        longest: int,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.encoders = nn.ModuleList(Block(width, heads, inner, dropout, cross=False) for _ in range(encoders))
        self.decoders = nn.ModuleList(Block(width, heads, inner, dropout, cross=True) for _ in range(decoders))
        self.norm_source, self.norm_target = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop, self.width = nn.Dropout(dropout), width
        self.register_buffer("positions", sinusoids(longest, width), persistent=False)
        nn.init.normal_(self.embed.weight, std=width**-0.5)

    def place(self, ids: Tensor, positions: Tensor) -> Tensor:
        placed: Tensor = self.drop(self.embed(ids) * math.sqrt(self.width) + positions)
        return placed

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states (batch, n, width) and the mask (batch, 1, 1, n) that is true where there is a token."""
        mask = (source != 0)[:, None, None, :]
        x = self.place(source, self.positions[: source.shape[1]])
        for block in self.encoders:
            x = block(x, mask)
        return self.norm_source(x), mask

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        hidden, mask = self.encode(source)
        x = self.place(target, self.positions[: target.shape[1]])
        for block in self.writers():
            x = block(x, None, block.read(hidden), mask)
        return self.logits(x)

    def writers(self) -> list[Block]:
        """The decoder's layers."""
        return [block for block in self.decoders if isinstance(block, Block)]

    def logits(self, x: Tensor) -> Tensor:
        return F.linear(self.norm_target(x), self.embed.weight)

    def best(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest next tokens as log-probabilities and ids (..., 8), padding and beginning left out."""
        special = torch.arange(logits.shape[-1], device=logits.device) < 2
        scores, tokens = logits.masked_fill(special, -1e9).log_softmax(-1).topk(8)
        return scores, tokens


class Reading(nn.Module):
    """The first of the two exported graphs: source ids (batch, n), int64, to the keys and values that every decoder
    layer attends to, each (layers, batch, heads, n, width / heads), float32."""

    def __init__(self, model: Translator) -> None:
        super().__init__()
        self.model = model

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        hidden, _ = self.model.encode(source)
        keys, values = zip(*(block.read(hidden) for block in self.model.writers()), strict=True)
        return torch.stack(keys), torch.stack(values)


class Writing(nn.Module):
    """The second: one more target token (batch, 1) at `position` (1,), int64, to the eight likeliest next ones
    (batch, 8) and the keys and values so far (layers, batch, heads, m + 1, width / heads), float32."""

    def __init__(self, model: Translator) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        token: Tensor,
        position: Tensor,
        source: Tensor,
        source_keys: Tensor,
        source_values: Tensor,
        past_keys: Tensor,
        past_values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mask = (source != 0)[:, None, None, :]
        x, pasts = self.model.place(token, self.model.positions[position]), []
        for i, block in enumerate(self.model.writers()):
            x, past = block.step(x, (past_keys[i], past_values[i]), (source_keys[i], source_values[i]), mask)
            pasts.append(past)
        keys, values = zip(*pasts, strict=True)
        return *self.model.best(self.model.logits(x)[:, 0]), torch.stack(keys), torch.stack(values)


def sinusoids(length: int, width: int) -> Tensor:
    """Positions (length, width) as sines and cosines of falling frequency (Vaswani et al. 2017, section 3.5)."""
    angles = torch.arange(length)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1) * 0.1  # small beside the embeddings at the start
