"""``setup``: the Dagster home."""

import click

from extraction_assets.cli.app import main
from extraction_assets.cli.terminal import echo


@main.command()
@click.option(
    "--storage",
    type=click.Choice(["sqlite", "postgres"]),
    help="Where Dagster keeps runs and events; postgres takes the URL from EXTRACTION_DAGSTER_POSTGRES_URL.  "
    "[default: what the home has; for a new one "
    "postgres where that is set, else sqlite]",
)
@click.option(
    "--gpus",
    type=click.IntRange(min=1),
    help="How many runs may compute at once, all hosts together.  [default: what is set; else this host's GPUs, or 1]",
)
@click.option("--force", is_flag=True, help="Replace a dagster.yaml that was edited or has another storage.")
def setup(storage: str | None, gpus: int | None, force: bool) -> None:
    """Make the Dagster home, or bring it up to date: storage, GPU limit, monitoring, retries, retention.

    The home is DAGSTER_HOME, or the folder dagster in EXTRACTION_HOME. Running it again changes nothing.
    """
    from extraction_assets.dagster_instance.home import set_up_dagster_home
    from extraction_assets.host.locations import dagster_home

    for line in set_up_dagster_home(dagster_home(), storage, gpus, force=force):
        echo(line)
