"""Segment Anything's vision transformer against a plain one in numpy, one window, head and query at a time."""

import itertools
import math

import numpy as np
import pytest
import torch

from vimvol.errors import InputError
from vimvol.models import build_model, vit
from vimvol.models.vit import Vit, VitOptions, relative

SMALL = {"embedding": 8, "depth": 4, "heads": 2, "window": 3, "patch": 2, "canvas": 8, "channels": 1, "neck": False}


@pytest.fixture
def encoder() -> Vit:
    """Eight blocks, every other one attends in windows; all parameters random, float64."""
    torch.manual_seed(0)
    model = Vit(VitOptions(**SMALL | {"depth": 8})).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    return model.eval()


def normed(x: np.ndarray, layer: torch.nn.LayerNorm) -> np.ndarray:
    deviation = np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return (x - x.mean(-1, keepdims=True)) / deviation * layer.weight.numpy() + layer.bias.numpy()


def linear(x: np.ndarray, layer: torch.nn.Linear) -> np.ndarray:
    return x @ layer.weight.numpy().T + layer.bias.numpy()


def stretched(table: np.ndarray, length: int) -> np.ndarray:
    """The table with another number of entries, each half an entry from the ends of its cell."""
    at = (np.arange(length) + 0.5) * len(table) / length - 0.5
    return np.stack([np.interp(at, np.arange(len(table)), column) for column in table.T], axis=1)


def attention(x: np.ndarray, layer: vit.Attention) -> np.ndarray:
    """Attend among all tokens of a grid (gy, gx, E)."""
    gy, gx, width = x.shape
    dim = width // layer.heads
    along_y, along_x = (stretched(t.numpy(), 2 * n - 1) for t, n in ((layer.rel_pos_h, gy), (layer.rel_pos_w, gx)))
    q, k, v = np.split(linear(x, layer.qkv), 3, axis=-1)
    out = np.zeros_like(x)
    places = list(itertools.product(range(gy), range(gx)))
    for head in range(layer.heads):
        some = slice(head * dim, (head + 1) * dim)
        for y, x_ in places:
            one = q[y, x_, some]
            logits = [
                one @ k[j, i, some] / math.sqrt(dim) + one @ along_y[y - j + gy - 1] + one @ along_x[x_ - i + gx - 1]
                for j, i in places
            ]
            weights = np.exp(logits - np.max(logits))
            weights /= weights.sum()
            out[y, x_, some] = sum(w * v[j, i, some] for w, (j, i) in zip(weights, places, strict=True))
    return linear(out, layer.proj)


def block(x: np.ndarray, layer: vit.Block) -> np.ndarray:
    h = normed(x, layer.norm1)
    if layer.window is None:
        h = attention(h, layer.attn)
    else:
        size, found = layer.window, np.zeros_like(h)
        for y, x_ in itertools.product(range(0, h.shape[0], size), range(0, h.shape[1], size)):
            part = h[y : y + size, x_ : x_ + size]
            window = np.zeros((size, size, h.shape[2]))
            window[: part.shape[0], : part.shape[1]] = part
            found[y : y + size, x_ : x_ + size] = attention(window, layer.attn)[: part.shape[0], : part.shape[1]]
        h = found
    x = x + h
    inner = linear(normed(x, layer.norm2), layer.mlp["lin1"])
    inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
    return x + linear(inner, layer.mlp["lin2"])


@pytest.mark.parametrize("queries", [512, 7])
@pytest.mark.parametrize("grid", [(4, 4), (5, 7), (2, 3), (3, 6)])
@torch.no_grad()
def test_blocks_are_those_of_a_plain_implementation(encoder, grid, queries, monkeypatch):
    """Windows that fit and that are filled with zeros, global tables as they are and interpolated."""
    monkeypatch.setattr(vit, "QUERIES", queries)
    x = torch.randn(2, *grid, 8, dtype=torch.float64)
    assert [b.window for b in encoder.blocks] == [3, None] * 4
    for layer in encoder.blocks[:2]:
        expected = np.stack([block(image, layer) for image in x.numpy()])
        np.testing.assert_allclose(layer(x), expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_encoder_gives_the_last_tokens_and_those_of_three_global_blocks(encoder):
    images = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    kernel, bias = encoder.patch_embed.proj.weight.numpy(), encoder.patch_embed.proj.bias.numpy()
    x = encoder.pos_embed[0].numpy().copy()
    for y, x_ in itertools.product(range(4), repeat=2):
        patch = images[0, 0, 2 * y : 2 * y + 2, 2 * x_ : 2 * x_ + 2].numpy()
        x[y, x_] += (kernel[:, 0] * patch).sum((1, 2)) + bias
    maps = []
    for layer in encoder.blocks:
        x = block(x, layer)
        maps.append(x.transpose(2, 0, 1))
    last, inner = encoder(images)
    np.testing.assert_allclose(last[0], maps[7], rtol=0, atol=1e-10)
    assert len(inner) == 3
    for found, expected in zip(inner, (maps[1], maps[3], maps[5]), strict=True):
        np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("base", (2, 5, 8, 11)), ("large", (5, 11, 17, 23)), ("huge", (7, 15, 23, 31))],
)
def test_blocks_of_segment_anything(name, blocks):
    with torch.device("meta"):
        encoder = build_model(f"unetr-{name}").encoder
    assert encoder.options.global_blocks == blocks
    tables = [len(b.attn.rel_pos_h) for b in encoder.blocks]
    assert tables == [127 if n in blocks else 27 for n in range(len(tables))]


def test_relative_positions_are_query_less_key():
    table = torch.arange(7.0)[:, None]
    assert relative(table, 4)[..., 0].tolist() == [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]]


@torch.no_grad()
def test_positions_of_another_grid_cover_the_canvas(encoder):
    """A slope along y stays one, whatever the grid."""
    encoder.pos_embed.copy_(torch.arange(4.0)[None, :, None, None].expand_as(encoder.pos_embed))
    found = encoder._positions((8, 2))
    assert found.shape == (1, 8, 2, 8)
    assert (found.diff(dim=1) > 0).all()
    torch.testing.assert_close(found[:, 3:5].mean(), torch.tensor(1.5, dtype=torch.float64))


@torch.no_grad()
def test_half_precision_is_near(encoder):
    torch.manual_seed(0)
    model = build_model("unetr-base", embedding=32, depth=4, heads=2, window=2).eval()
    x = torch.randn(1, 1, 64, 96)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(x)
    assert (half.float().sigmoid() - model(x).sigmoid()).abs().mean() < 0.01


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"depth": 6}, "multiple of 4"),
        ({"heads": 3}, "heads=3"),
        ({"window": 0}, "window=0"),
        ({"canvas": 9}, "canvas=9"),
    ],
)
def test_options_that_do_not_fit(options, says):
    with pytest.raises(InputError, match=says):
        VitOptions(**SMALL | options)
