"""What statistics count: the firings of some samples, and the amounts that these add. Loads no torch."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class CountedFirings(NamedTuple):
    """The firings of some samples at counted positions. A value is exactly ``mantissa * 2^(exponent - 150)``."""

    features: "Tensor"
    """int64 [Z]: the feature that fires."""
    mantissa: "Tensor"
    """int64 [Z]: 24 bits."""
    exponent: "Tensor"
    """int64 [Z]: that of the float32 with its bias of 127; 1 for a subnormal too."""
    maxima: "Tensor"
    """float32 [n, F]: maximum of each feature in each sample, 0 where it does not fire."""
    by_interval: "Tensor | None" = None
    """int64 [C], for each (sample, feature) pair in which the feature fires: feature * 80 + interval of its maximum
    (``selection.intervals``). None with ``statistics: basic``."""

    def bits(self) -> "Tensor":
        """int64 [Z]: the values as the 31 bits of a float32, which order like them (``ordering.ascending_bits``)."""
        return self.mantissa + ((self.exponent - 1) << 23)


class Addition(NamedTuple):
    """What some samples add to one statistic: amounts that are summed, or of which the largest counts
    (``Statistic.merge``)."""

    amounts: "Tensor"
    """[F], or [Z] where ``at`` says to which numbers."""
    at: "Tensor | None" = None
    """int64 [Z]: numbers of the statistic, counted over its features: feature * size + number. One may stand here
    several times."""
    offset: int = 0
    """How many numbers behind ``at`` the amounts go."""
