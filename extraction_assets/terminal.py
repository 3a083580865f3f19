"""Features and examples as lines for a terminal."""

from typing import Any

import click

from extraction_assets.database.queries import Example


def feature_lines(feature: Any, examples: list[Example], width: int) -> list[str]:
    """A heading with the feature's statistics, then one line for each example: its strongest token in context."""
    if not examples:
        why = "fires, but never above min_activation" if feature.activation_count else "never fires"
        return [click.style(f"feature {feature.neuron_index}", bold=True) + f"  {why}"]
    heading = (
        f"fires in {feature.activation_frequency:.2%} of samples, on {feature.token_frequency:.3%} of tokens; "
        f"maximum {feature.max_activation:.2f}, mean {feature.mean_activation:.2f}"
    )
    lines = [click.style(f"feature {feature.neuron_index}", bold=True) + f"  {heading}"]
    for example in examples:
        where = click.style(f"{example.document_id}, sample {example.sample_index}", dim=True)
        lines.append(f"  {example.max_activation:7.2f}  {_in_context(example, width)}  {where}")
    return lines


def _in_context(example: Example, width: int) -> str:
    """Tokens around the strongest position; those on which the feature fires are marked, the strongest most."""
    strongest, firing = example.positions[0], set(example.positions)
    pieces = []
    for at in range(max(0, strongest - width), min(len(example.tokens), strongest + width + 1)):
        text = one_line(example.tokens[at])
        if at == strongest:
            pieces.append(click.style(f"[{text}]", fg="yellow", bold=True))
        else:
            pieces.append(click.style(text, fg="yellow") if at in firing else text)
    return "".join(pieces)


def one_line(text: str) -> str:
    """Text with its line breaks and tabs as visible signs."""
    return text.replace("\n", "⏎").replace("\t", "⇥").replace("\r", "␍")
