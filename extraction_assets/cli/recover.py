"""``recover``: ends runs with a dead process."""

from extraction_assets.cli.app import main
from extraction_assets.cli.terminal import echo
from extraction_assets.dagster_instance.home import prepare_dagster_home


@main.command()
def recover() -> None:
    """Mark runs as ended if their process was killed or has crashed, and free their slots.

    The sensor NAME_recovery of every declared extraction does the same while the daemon runs.
    """
    prepare_dagster_home()
    import dagster as dg

    from extraction_assets.dagster_instance.dead_runs import fail_dead_runs

    with dg.DagsterInstance.get() as instance:
        ended = fail_dead_runs(instance)
    for run, why in ended:
        echo(f"run {run.run_id}: {why}; marked as ended")
    if not ended:
        echo("no run was left by a dead process")
