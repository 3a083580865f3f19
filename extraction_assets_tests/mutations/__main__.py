"""``python -m extraction_assets_tests.mutations [WORD ...]``: which test notices each fault whose name holds a word."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from extraction_assets_tests.mutations.listed import MUTATIONS
from extraction_assets_tests.mutations.noticed import copy_checkout, failed_tests


def main(words: list[str]) -> int:
    """Prints a line for each fault; 1 where one is not noticed."""
    chosen = [one for one in MUTATIONS if all(word in one.name for word in words)]
    survived = 0
    with TemporaryDirectory() as folder:
        checkout = copy_checkout(Path(__file__).parents[2], Path(folder) / "checkout")
        for mutation in chosen:
            noticed = failed_tests(checkout, mutation)
            survived += not noticed
            print(f"{mutation.name}: {noticed[0] if noticed else 'NOT NOTICED'}", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} noticed")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
