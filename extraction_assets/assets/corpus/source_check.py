"""A claim about the corpus that time can make wrong: its source is still what was tokenized."""

import dagster as dg

from extraction_assets.execution.keys import corpus_key
from extraction_assets.settings import ExtractionSettings
from extraction_assets.stores.chunk_store import CurrentCorpus, SourceIdentity

SOURCE_UNCHANGED = "source_has_not_changed"


def source_check(settings: ExtractionSettings) -> dg.AssetCheckSpec:
    """Evaluated when the corpus is materialized, alone in the UI, and with every tick of the schedule."""
    return dg.AssetCheckSpec(
        SOURCE_UNCHANGED,
        asset=corpus_key(settings),
        description="The source holds what was tokenized, no more and no other.",
        automation_condition=dg.AutomationCondition.on_cron(settings.schedule) if settings.schedule else None,
    )


def compare_sources(
    settings: ExtractionSettings, current: CurrentCorpus | None, now: SourceIdentity
) -> dg.AssetCheckResult:
    """Compares what the source holds ``now`` with what the current corpus was made from."""
    if current is None:
        sentence = "the corpus was never materialized"
    elif current.source == now.fingerprint:
        sentence = ""
    else:
        sentence = f"{_difference(current, now)}: materialize {settings.name}/corpus to run on it" + (
            "" if len(current.corpus) < settings.evaluation_samples else _no_more(settings)
        )
    return dg.AssetCheckResult(
        asset_key=corpus_key(settings),
        check_name=SOURCE_UNCHANGED,
        passed=not sentence,
        severity=dg.AssetCheckSeverity.WARN,
        description=sentence or "the source is as it was tokenized",
        metadata={name: size for name, size in now._replace(reading=None)._asdict().items() if isinstance(size, int)},
    )


def _no_more(settings: ExtractionSettings) -> str:
    return f"; more than {settings.evaluation_samples} samples are run only where evaluation_samples is raised"


def _difference(current: CurrentCorpus, now: SourceIdentity) -> str:
    for many, small in (("documents", "characters"), ("files", "bytes")):
        before = getattr(current, many), getattr(current, small)
        after = getattr(now, many), getattr(now, small)
        if None not in (*before, *after):
            verb = "grown" if after[1] > before[1] and after[0] >= before[0] else "changed"
            return f"the source has {verb} from {before[0]} {many} of {before[1]} {small} to {after[0]} of {after[1]}"
    return "the source has changed"
