"""Validation of JSON by a schema, in the readers' Python."""

import json
from pathlib import Path
from typing import Any

from extraction_assets_tests.exports.readers import read_by

_VALIDATE = """
    import json, sys
    from jsonschema import Draft202012Validator
    schema, values = json.loads(open(sys.argv[1], encoding="utf-8").read())
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    print(json.dumps([error.message[:200] for value in values for error in validator.iter_errors(value)]))
"""


def errors_of(schema: dict[str, Any], values: list[Any], folder: Path) -> list[str]:
    """What a schema finds wrong with some values."""
    file = folder / "values.json"
    file.write_text(json.dumps([schema, values]), "utf-8")
    found: list[str] = read_by(_VALIDATE, file, package="jsonschema")
    return found
