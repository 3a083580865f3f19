"""``python -m extraction_assets_tests.run_code CODE ARGUMENTS``: ``python -c``, for the forks of ``processes``."""

import sys

if __name__ == "__main__":
    exec(compile(sys.argv.pop(1), "<string>", "exec"), {"__name__": "__main__"})
