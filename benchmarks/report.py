"""The figures for people (Markdown) and for programs (JSON)."""

import dataclasses
import os
import platform
from importlib import metadata
from typing import Any

import psutil
import torch

from benchmarks.lines import FLOOR, LEGACY, Line
from benchmarks.measure import GB, gpu_utilisation
from benchmarks.options import Options
from benchmarks.work import MATMUL, least_seconds

_COLUMNS = (
    "measured",
    "figure",
    "unit",
    "of floor",
    "of legacy",
    "of ceiling",
    "samples",
    "seconds",
    "repeats",
    "VRAM GB",
    "held GB",
    "RAM GB",
    "CPU cores",
    "GPU %",
)


@dataclasses.dataclass
class Figures:
    """The measurements of a benchmark, with their conditions."""

    options: Options
    conditions: dict[str, Any]
    lines: list[Line]

    @property
    def ok(self) -> bool:
        """Whether no stage failed; the comparison with the legacy loop is one."""
        return not any(line.failed for line in self.lines)

    def of_ceiling(self, line: Line) -> float | None:
        """The share of a line's time that its matrix products would take at the ceilings measured in the same run."""
        ceilings = {one.name.removeprefix(MATMUL): one.value for one in self.lines if one.name.startswith(MATMUL)}
        measured = {precision: value for precision, value in ceilings.items() if value is not None}
        least = least_seconds(self.options, line.products, measured)
        return None if least is None or line.value is None else least * line.value


def conditions(options: Options) -> dict[str, Any]:
    """Hardware, versions and sizes that the figures hold for."""
    device = options.torch_device
    found: dict[str, Any] = {"device": options.device}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found |= {"gpu": properties.name, "gpu_memory_gb": round(properties.total_memory / GB, 1)}
        found["driver"] = _driver()
        found["cuda"] = torch.version.cuda
        found["gpu_utilisation"] = "NVML" if gpu_utilisation(device) else "not measured"
    found |= {
        "cpu": _cpu_name(),
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "ram_gb": round(psutil.virtual_memory().total / GB, 1),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "triton", "transformers", "dagster")},
        "model_dtype": "bfloat16" if device.type == "cuda" else "float32",
    }
    sizes = {
        "features_per_token_wanted" if field.name == "features_per_token" else field.name: getattr(options, field.name)
        for field in dataclasses.fields(options)
        if field.name not in ("device", "json", "folder", "only")
    }
    return {**found, **sizes}


def as_json(figures: Figures) -> dict[str, Any]:
    """Everything that was measured, with the ratios."""
    lines = figures.lines
    floor, legacy = _rate_of(lines, FLOOR), _rate_of(lines, LEGACY)
    rows = [
        {
            **dataclasses.asdict(line),
            "to_floor": _ratio(line, floor),
            "to_legacy": _ratio(line, legacy),
            "to_ceiling": figures.of_ceiling(line),
        }
        for line in lines
    ]
    return {"ok": figures.ok, "conditions": figures.conditions, "lines": rows}


def as_markdown(figures: Figures) -> str:
    """Conditions, the table, and the seconds that the chunks' events name."""
    lines = figures.lines
    floor, legacy = _rate_of(lines, FLOOR), _rate_of(lines, LEGACY)
    parts = [f"- {name.replace('_', ' ')}: {_plain(value)}" for name, value in figures.conditions.items()]
    parts += ["", _row(_COLUMNS), _row(["---", *["---:"] * (len(_COLUMNS) - 1)])]
    parts += [_row(_cells(line, floor, legacy, figures.of_ceiling(line))) for line in lines]
    parts += _notes(lines)
    parts += _stage_table(lines)
    return "\n".join(parts)


def _cells(line: Line, floor: float | None, legacy: float | None, of_ceiling: float | None) -> list[str]:
    usage = line.usage
    figure = "not measured" if line.value is None else _number(line.value)
    if "equal" in line.notes:
        figure = str(line.notes["equal"]).lower()
    return [
        line.name,
        "failed" if line.failed and "equal" not in line.notes else figure,
        line.unit if line.value is not None else "",
        _number(_ratio(line, floor)),
        _number(_ratio(line, legacy)),
        _number(of_ceiling),
        "" if line.samples is None else f"{line.samples:,}",
        _number(line.seconds),
        str(line.repeats),
        *(
            _number(getattr(usage, name, None))
            for name in ("peak_vram_gb", "peak_reserved_gb", "peak_ram_gb", "cpu_cores")
        ),
        _utilisation(line),
    ]


def _utilisation(line: Line) -> str:
    if line.usage is None or line.usage.gpu_percent is None:
        return ""
    return f"{line.usage.gpu_percent:.0f} (max {line.usage.gpu_percent_max:.0f})"


def _notes(lines: list[Line]) -> list[str]:
    said = []
    for line in lines:
        notes = {name: value for name, value in line.notes.items() if name != "seconds_by_asset" and value != []}
        if notes:
            said.append(f"- {line.name}: " + ", ".join(f"{k.replace('_', ' ')} {_plain(v)}" for k, v in notes.items()))
    return ["", *said] if said else []


def _stage_table(lines: list[Line]) -> list[str]:
    """Seconds by stage as the materializations' metadata names them, summed over the chunks."""
    rows = []
    for line in lines:
        for asset, seconds in line.notes.get("seconds_by_asset", {}).items():
            rows += [_row([line.name, asset, name, _number(value)]) for name, value in seconds.items()]
    return (
        ["", _row(["run", "asset", "in its metadata", "seconds"]), _row(["---"] * 3 + ["---:"]), *rows] if rows else []
    )


def _rate_of(lines: list[Line], name: str) -> float | None:
    return next((line.value for line in lines if line.name == name), None)


def _ratio(line: Line, base: float | None) -> float | None:
    if base is None or line.value is None or line.unit != "samples/s":
        return None
    return line.value / base


def _number(value: float | None) -> str:
    if value is None:
        return ""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    if isinstance(value, float):
        return _number(value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _driver() -> str:
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception:  # not installed, or no NVML
        return "not known (nvidia-ml-py is not installed)"


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
