"""What Dagster's chart makes of values.yaml: the fields of dagster.yaml.

Written after the templates of the chart's release 1.13. Where helm and the chart are installed, test_values.py renders
them as well.
"""

import re
from collections.abc import Mapping
from typing import Any

Values = Mapping[str, Any]

RELEASE, NAMESPACE = "dagster", "extraction"


def instance_of_chart(values: Values) -> dict[str, Any]:
    """The dagster.yaml in the ConfigMap of the instance."""
    daemon = values["dagsterDaemon"]
    launcher = values["runLauncher"]["config"]["k8sRunLauncher"]
    parts: dict[str, Any] = {
        f"{name}_storage": {"module": f"dagster_postgres.{module}", "class": kind, "config": _postgres(values)}
        for name, module, kind in (
            ("run", "run_storage", "PostgresRunStorage"),
            ("event_log", "event_log", "PostgresEventLogStorage"),
            ("schedule", "schedule_storage", "PostgresScheduleStorage"),
        )
    }
    parts["run_launcher"] = {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": _launcher(launcher, values)}
    if daemon["runCoordinator"]["enabled"]:
        config = snake_case(daemon["runCoordinator"]["config"]["queuedRunCoordinator"])
        parts["run_coordinator"] = {
            "module": "dagster.core.run_coordinator",
            "class": "QueuedRunCoordinator",
            "config": config,
        }
    if daemon["runMonitoring"]["enabled"]:
        parts["run_monitoring"] = snake_case(daemon["runMonitoring"])
    if daemon["runRetries"]["enabled"]:
        parts["run_retries"] = snake_case(daemon["runRetries"])
    parts["telemetry"] = values["telemetry"]
    retention = {name: value for name, value in values["retention"].items() if name != "enabled"}
    return {**parts, "retention": snake_case(retention), **values["additionalInstanceConfig"]}


def _postgres(values: Values) -> dict[str, Any]:
    given = values["postgresql"]
    return {
        "postgres_db": {
            "username": given["postgresqlUsername"],
            "password": {"env": "DAGSTER_PG_PASSWORD"},
            "hostname": given["postgresqlHost"],
            "db_name": given["postgresqlDatabase"],
            "port": given["service"]["port"],
            "params": {},
            "scheme": given["postgresqlScheme"],
        }
    }


def _launcher(given: Mapping[str, Any], values: Values) -> dict[str, Any]:
    return {
        "load_incluster_config": True,
        "job_namespace": NAMESPACE,
        "image_pull_policy": given["imagePullPolicy"],
        "service_account_name": RELEASE,
        "dagster_home": "/opt/dagster/dagster_home",
        "instance_config_map": f"{RELEASE}-instance",
        "env_config_maps": [one["name"] for one in given["envConfigMaps"]],
        "postgres_password_secret": values["global"]["postgresqlSecretName"],
        "run_k8s_config": {_snake(name): value for name, value in given["runK8sConfig"].items()},
    }


def snake_case(given: Any) -> Any:
    """Fields as dagster.yaml writes them."""
    if not isinstance(given, Mapping):
        return given
    return {_snake(name): snake_case(value) for name, value in given.items()}


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda letter: f"_{letter[1].lower()}", name)
