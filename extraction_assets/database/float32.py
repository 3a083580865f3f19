"""float32 values in the database: as JSON numbers of the fewest digits that are no other float32."""

import struct
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from extraction_assets.database.backends import column_type


def to_float32(value: float) -> float:
    """The float32 nearest to a number: what a stored number means."""
    (nearest,) = struct.unpack("f", struct.pack("f", value))
    return float(nearest)


class Float32(TypeDecorator[float]):
    """A float32 that a view reads from JSON: SQL sees 0.1, Python gets 0.10000000149011612, which is exact."""

    impl = sa.Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: sa.Dialect) -> float | None:
        """The number as SQL sees it, so that it can be compared with stored ones."""
        if value is None:
            return None
        import numpy as np  # whoever only reads needs none

        return float(str(np.float32(value)))

    def process_result_value(self, value: float | None, dialect: sa.Dialect) -> float | None:
        return None if value is None else to_float32(value)


class Float32List(TypeDecorator[list[float]]):
    """A list of float32 that a view reads from JSON."""

    impl = sa.JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        return column_type("doubles").dialect_impl(dialect)

    def process_result_value(self, value: list[float] | None, dialect: sa.Dialect) -> list[float] | None:
        if value is None:
            return None
        kind = f"{len(value)}f"  # all at once: a dense feature has tens of thousands of firings
        return list(struct.unpack(kind, struct.pack(kind, *value)))
