"""What the engine knows: names of hooks, published SAEs, statistics."""

from generated_parts.markdown import table


def transformer_lens_names() -> str:
    """Where each family of models has the tensors that TransformerLens names."""
    from extraction_assets.engine.models.hooks.transformer_lens_names import FAMILIES

    blocks = [(f"`{name}`", family.points) for name, family in FAMILIES.items()]
    blocks += [(f"`{name}` (linear)", family.linear.points) for name, family in FAMILIES.items() if family.linear]
    layouts = {id(points): points for _, points in blocks}
    heads = [", ".join(name for name, points in blocks if id(points) == key) for key in layouts]
    names = list(dict.fromkeys(point for points in layouts.values() for point in points))
    rows = [[f"`{name}`", *(_place(points.get(name)) for points in layouts.values())] for name in names]
    return table(["`blocks.N.` …", *heads], rows)


def _place(place: tuple[str, str] | None) -> str:
    if place is None:
        return ""
    path, side = place
    return f"`{path}`, {side}" if path else f"the block's {side}"


def published_saes() -> str:
    """How many of the SAEs that SAELens knows by name are read: by format, with their releases and models."""
    from extraction_assets.engine.saes.formats import FORMATS, format_of_loader
    from extraction_assets.engine.saes.published import registry

    sae_lens, releases = registry()
    formats = {name: format_of_loader(release.loader) for name, release in releases.items()}
    rows, read = [], 0
    for name in FORMATS:
        ours = [release for release in releases.values() if formats[release.name] == name]
        count = sum(len(release.saes) for release in ours)
        models = sorted({release.model.rpartition("/")[2] for release in ours})
        rows += [[name, str(len(ours)), f"{count:,}", ", ".join(models)]] if ours else []
        read += count
    refused = [name for name, format_ in formats.items() if format_ is None]
    known = sum(len(release.saes) for release in releases.values())
    return (
        f"Of the {known:,} SAEs in {len(releases)} releases that SAELens {sae_lens} knows by name, {read:,} in "
        f"{len(releases) - len(refused)} releases are read:\n\n"
        f"{table(['format', 'releases', 'SAEs', 'models'], rows)}\n"
        f"Not read, as `saes NAME` explains: {', '.join(f'`{name}`' for name in refused) or 'none'}.\n"
    )


def statistics() -> str:
    """The columns of the table `features` that are statistics."""
    from extraction_assets.engine.statistics.registry import bytes_per_feature
    from extraction_assets.engine.statistics.rows_and_sentences import statistics_table

    size = (
        f"Together {bytes_per_feature()} bytes a feature in memory. Beside the top-k table of each chunk they are "
        "stored without what is 0: a tenth of that or less.\n"
    )
    return f"{statistics_table()}\n{size}"
