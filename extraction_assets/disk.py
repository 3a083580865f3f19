"""How much is free where, and sizes as people read them."""

import shutil
from pathlib import Path


def readable_size(size: float) -> str:
    """``12.3 MB``; units of 1000, as disks are sold and `df -H` counts."""
    amount, unit = float(size), 0
    while amount >= 1000 and unit < 4:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.1f} {('bytes', 'kB', 'MB', 'GB', 'TB')[unit]}" if unit else f"{int(size)} bytes"


def nearest(folder: Path) -> Path:
    """The folder itself or the nearest one above it that exists."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def free_bytes(folder: Path) -> int:
    """Free on the disk of a folder, which need not exist yet."""
    return shutil.disk_usage(nearest(folder)).free
