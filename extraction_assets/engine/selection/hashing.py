"""A seeded hash of samples and of (feature, sample) pairs: what is drawn depends on nothing else.

The numbers are those of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014):
the n-th number of a state is ``mix(state + n * GOLDEN)``, with the multipliers and shifts of Stafford's variant 13 of
the finalizer of MurmurHash3. Sample s has the s-th number of state ``mix(seed)`` as its key, and feature f in it the
f-th number of that key. Integers of 64 bits that wrap around: the same bits on a CPU, on a GPU and in Python.
"""

from typing import TypeVar

import torch
from torch import Tensor

HASH_BITS = 31
"""The highest ones of the 64: a hash is an int64 without sign, and fits an int32."""

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / the golden ratio, odd: multiples of it visit all 64-bit numbers
_FIRST_MULTIPLIER, _SECOND_MULTIPLIER = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_ALL_64 = (1 << 64) - 1

Whole = TypeVar("Whole", int, Tensor)
"""One number of 64 bits, as a Python integer without sign or in int64."""


def sample_keys(seed: int, samples: Whole) -> Whole:
    """64 bits of each sample by its absolute number; int64 [S] of a tensor. No synchronisation."""
    return _mix(_plus(_times(samples, _GOLDEN), seed_state(seed)))


def seed_state(seed: int) -> int:
    """The state of which sample s has the s-th number as its key."""
    return _mix(seed & _ALL_64)


def sample_hash(keys: Whole) -> Whole:
    """The hash of samples with these keys: 0 .. 2^31 - 1."""
    return _shifted(keys, 64 - HASH_BITS)


def pair_hash(keys: Whole, features: Whole) -> Whole:
    """The hash of features in samples with these keys, both int64 [C] of a tensor: 0 .. 2^31 - 1.

    Peak extra memory: 24 bytes a pair. No synchronisation.
    """
    return sample_hash(_mix(_plus(_times(features, _GOLDEN), keys)))


def sampled(seed: int, samples: Tensor, one_in: int) -> Tensor:
    """bool [S]: which of the samples, int64 [S] by absolute number, belong to the sample of one in ``one_in``."""
    return sample_hash(sample_keys(seed, samples)) % one_in == 0


def _mix(number: Whole) -> Whole:
    number = _times(number ^ _shifted(number, 30), _FIRST_MULTIPLIER)
    number = _times(number ^ _shifted(number, 27), _SECOND_MULTIPLIER)
    return number ^ _shifted(number, 31)


def _times(number: Whole, factor: int) -> Whole:
    """Modulo 2^64, as a product of int64 wraps around."""
    return number * _signed(factor) if isinstance(number, torch.Tensor) else number * factor & _ALL_64


def _plus(number: Whole, more: Whole | int) -> Whole:
    """Modulo 2^64."""
    if isinstance(number, torch.Tensor):
        return number + (_signed(more) if isinstance(more, int) else more)
    return number + more & _ALL_64


def _shifted(number: Whole, bits: int) -> Whole:
    """To the right, with zeros from the left: an int64 would repeat its sign."""
    return number >> bits & (_ALL_64 >> bits)


def _signed(number: int) -> int:
    """The int64 of the same bits."""
    return number - (1 << 64) if number >> 63 else number
