"""Captures the tensors at the hooks of a model while it runs."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from extraction_assets.engine.memory import is_out_of_memory
from extraction_assets.engine.models.forward.watching import WriteWatch
from extraction_assets.engine.models.hooks.hook import HookError, Site, read_at
from extraction_assets.engine.models.hooks.sites import with_run
from extraction_assets.engine.models.hooks.text_pass import explain_not_run, text_reader


class _DeepestHookReached(Exception):
    """Ends the forward pass: every hook has fired, so no later block and no LM head runs."""


class Capture:
    """The tensors at some sites of a model, pass by pass.

    A captured tensor is the model's own, not a copy. ``watch`` finds the sites whose tensor the model writes into later
    in the pass, or again in the next one; these alone are copied.
    """

    def __init__(self, model: nn.Module, sites: Mapping[str, Site]) -> None:
        self._model, self._reader = model, text_reader(model)
        self.sites: dict[str, Site] = {}
        """By hook; two hooks may have one."""
        self._handles: dict[Site, RemovableHandle] = {}
        self._captured: dict[Site, Tensor] = {}
        self._runs = Counter[Site]()
        """How often the module of each site has run in this pass."""
        self._module_runs: dict[str, int] = {}
        """How often each module with a site runs in a whole pass, once that is known."""
        self._copied: set[Site] = set()
        self._watched: set[Site] = set()
        self._watch: WriteWatch | None = None
        self._whole = False
        self.read(sites)

    def read(self, sites: Mapping[str, Site]) -> None:
        """Reads ``sites`` from here on, and nothing else."""
        self.sites = dict(sites)
        wanted = set(self.sites.values())
        for site in set(self._handles) - wanted:
            self._handles.pop(site).remove()
        for site in dict.fromkeys(self.sites.values()):
            if site not in self._handles:
                self._handles[site] = read_at(self._model, site, partial(self._receive, site))

    @property
    def is_watched(self) -> bool:
        """Whether it is known of every site that is read whether its tensor has to be copied."""
        return self._watched.issuperset(self._handles)

    def num_runs(self, path: str) -> int | None:
        """How often a module runs in a forward pass; None if no hook at it was examined."""
        return self._module_runs.get(path)

    def run(self, token_ids: Tensor, options: Mapping[str, Any]) -> dict[Site, Tensor]:
        """What stands at every site, of a pass over int64 [B, T] that stops once it is known."""
        self._begin()
        with contextlib.suppress(_DeepestHookReached):  # the way a complete pass ends
            self._reader(input_ids=token_ids, **options)
        return self._end()

    def run_whole(self, token_ids: Tensor, options: Mapping[str, Any]) -> dict[Site, Tensor]:
        """As ``run``, to the end of the model, so that it is known how often every module runs.

        Raises HookError if a hook does not run, or runs more than once and names no run. What comes after the last
        hook may fail: no pass that stops there gets so far.
        """
        with self._to_the_end():
            self._begin()
            self._run_to_the_end(token_ids, options)
            captured, runs = self._end(), self._runs
        for hook, site in self.sites.items():
            self._module_runs[site.path] = runs[site]
            _refuse_runs(self._model, hook, site, runs[site])
        return captured

    def watch(self, token_ids: Tensor, options: Mapping[str, Any]) -> None:
        """Finds what has to be copied, from two whole passes over one batch. The model must not be compiled.

        Twice, because a module may give a buffer of its own and write into it the next time. Raises as ``run_whole``.
        """
        self._watch = WriteWatch()
        try:
            with self._watch:
                for _ in range(2):
                    self._watch.begin_pass()
                    self.run_whole(token_ids, options)
            self._copied |= self._watch.rewritten()
        finally:
            self._watch = None
        self._watched |= set(self._handles)

    def _begin(self) -> None:
        self._captured, self._runs = {}, Counter()

    def _end(self) -> dict[Site, Tensor]:
        captured, self._captured = self._captured, {}
        return captured

    @contextlib.contextmanager
    def _to_the_end(self) -> Iterator[None]:
        self._whole = True
        try:
            yield
        finally:
            self._whole = False

    def _run_to_the_end(self, token_ids: Tensor, options: Mapping[str, Any]) -> None:
        try:
            self._reader(input_ids=token_ids, **options)
        except Exception as error:
            left = [hook for hook, site in self.sites.items() if site not in self._captured]
            if not left:
                return
            if is_out_of_memory(error) or isinstance(error, HookError) or _wants_numbers(token_ids, error):
                raise
            first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise HookError(
                f"hook {left[0]!r} is not reached by a forward pass of {type(self._model).__name__} over text alone, "
                f"which ends with: {first_line}"
            ) from error

    def _receive(self, site: Site, value: Any) -> None:
        number = self._runs[site]
        self._runs[site] += 1
        if number != (site.run or 0):
            return
        if not isinstance(value, Tensor):
            raise HookError(f"hook {_hook_of(self.sites, site)!r} gives a {type(value).__name__}, not a tensor")
        self._captured[site] = value.clone() if site in self._copied else value
        if self._watch is not None:
            self._watch.add(site, value)
        if not self._whole and len(self._captured) == len(self._handles):
            raise _DeepestHookReached


def _wants_numbers(token_ids: Tensor, error: Exception) -> bool:
    """Whether a pass on the meta device ended because that has no numbers."""
    return token_ids.device.type == "meta" and isinstance(error, (RuntimeError, NotImplementedError))


def _refuse_runs(model: nn.Module, hook: str, site: Site, runs: int) -> None:
    if runs == 0:
        raise explain_not_run(model, hook, site)
    if site.run is None and runs > 1:
        raise HookError(
            f"hook {hook!r} is at a module that runs {runs} times in a forward pass: name one of its runs, "
            f"{with_run(hook, 0)} to {with_run(hook, runs - 1)}"
        )
    if site.run is not None and site.run >= runs:
        times = "once" if runs == 1 else f"{runs} times"
        raise HookError(
            f"hook {hook!r} names run {site.run} of a module that runs {times} in a forward pass: its runs are counted "
            f"from 0, the last one is {runs - 1}"
        )


def _hook_of(sites: Mapping[str, Site], site: Site) -> str:
    return next(hook for hook, named in sites.items() if named == site)
