"""Batches keep clips together; per-clip noise depends on seed, clip and purpose alone."""

import pytest
import torch

from components import seeds
from components.batch import Batch, ModelOutput, logits_of


def _batch(n=4):
    return Batch(
        rgb=torch.rand(n, 3, 2, 4, 4),
        skeleton=torch.rand(n, 3, 5, 25, 2),
        present=torch.ones(n, 5, 2, dtype=torch.bool),
        label=torch.arange(n),
        clip_id=tuple(f"clip{i}" for i in range(n)),
    )


@pytest.mark.parametrize("index", [torch.tensor([2, 0]), torch.tensor([True, False, True, False])])
def test_select_keeps_rows_together(index):
    chosen = _batch().select(index)
    assert chosen.clip_id == tuple(f"clip{i}" for i in chosen.label.tolist())
    assert chosen.size == 2


def test_logits_of_takes_both_kinds_of_model():
    logits = torch.rand(2, 3)
    assert logits_of(logits) is logits
    assert logits_of(ModelOutput(logits, {}, {}, {})) is logits


def test_noise_of_a_clip_ignores_its_neighbours():
    both = seeds.uniform(seeds.clip_seeds(7, ["a", "b"], "pgd"), (5, 6))
    alone = seeds.uniform(seeds.clip_seeds(7, ["b"], "pgd"), (5, 6))
    assert torch.equal(both[1], alone[0])


@pytest.mark.parametrize(
    "other", [(8, "a", "pgd", 0), (7, "b", "pgd", 0), (7, "a", "x", 0), (7, "a", "pgd", 1)]
)
def test_seed_clip_purpose_and_stream_each_change_the_noise(other):
    def draw(seed, clip, purpose, stream):
        return seeds.uniform(seeds.clip_seeds(seed, [clip], purpose), (1000,), stream)

    a, b = draw(7, "a", "pgd", 0), draw(*other)
    assert abs(torch.corrcoef(torch.cat([a, b]))[0, 1]) < 0.15
    assert (a == b).float().mean() < 0.01


def test_uniform_is_uniform():
    u = seeds.uniform(seeds.clip_seeds(0, ["a"], "t"), (200_000,)).flatten()
    histogram = torch.histc(u, bins=20, min=0, max=1) / u.numel()
    assert torch.allclose(histogram, torch.full((20,), 0.05), atol=0.003)
    assert 0 <= u.min() and u.max() < 1
    # neighbouring elements are unrelated
    assert abs(torch.corrcoef(torch.stack([u[:-1], u[1:]]))[0, 1]) < 0.01


def test_normal_is_normal():
    z = seeds.normal(seeds.clip_seeds(0, ["a"], "t"), (200_000,))
    assert abs(z.mean()) < 0.01 and abs(z.std() - 1) < 0.01
    assert abs((z.abs() > 1.96).float().mean() - 0.05) < 0.005


def test_integers_cover_their_range():
    drawn = seeds.integers(seeds.clip_seeds(3, ["a"], "t"), 7, (7000,))
    counts = torch.bincount(drawn.flatten(), minlength=7)
    assert counts.numel() == 7 and counts.min() > 850


@pytest.mark.parametrize("stream", [0, 3, 2_000_001])
def test_bits_are_those_of_the_mixer_in_plain_integers(stream):
    """Torch's int32 products must wrap around, or a run would differ between machines."""

    def mix(x: int) -> int:
        x = ((x ^ x >> 16) * 0x7FEB352D) % 2**32
        x = ((x ^ x >> 15) * 0x846CA68B) % 2**32
        return x ^ x >> 16

    keys = seeds.clip_seeds(5, ["a", "b", "c", "d"], "noise")
    drawn = seeds.bits(keys, (2, 50), stream)
    for row, (low, high) in zip(drawn, keys.tolist(), strict=True):
        key = mix((low + stream * 0x9E3779B9) % 2**32)
        expected = [mix(mix((j + key) % 2**32) ^ high) for j in range(100)]
        assert row.flatten().tolist() == expected
