"""A forward pass of a few tokens up to some hooks, to see what it uses; what it computes is not looked at."""

from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from torch import nn

from extraction_assets.engine.hooks import Site, read_at

_LENGTHS = (1, 16, 128)
"""Tokens that are tried: one is enough for most models, attention in windows may need more."""


class _AllReached(Exception):
    """Ends the pass: every site was reached."""


@torch.inference_mode()
def short_pass(module: nn.Module, sites: Collection[Site]) -> None:
    """Runs ``module`` on a few tokens until all ``sites`` were reached, with a mask or, where that fails, without.

    Raises what the pass raises if it fails in every way.
    """
    waiting = set(sites)

    def reached(site: Site, _value: Any) -> None:
        waiting.discard(site)
        if not waiting:
            raise _AllReached

    handles = [read_at(module, site, partial(reached, site)) for site in sites]
    try:
        _run(module)
    except _AllReached:
        pass  # the way a pass ends
    finally:
        for handle in handles:
            handle.remove()


def _run(module: nn.Module) -> None:
    device = next(module.parameters()).device
    attempts = [(length, is_masked) for is_masked in (True, False) for length in _LENGTHS]
    for length, is_masked in attempts:
        ids = torch.zeros(1, length, dtype=torch.int64, device=device)
        options = {"attention_mask": torch.ones_like(ids)} if is_masked else {}
        try:
            module(input_ids=ids, **options)
            return
        except _AllReached:
            raise
        except Exception:  # of any library and any kind: the next attempt may do
            if (length, is_masked) == attempts[-1]:
                raise
