"""Names of folders and files as pages show them."""


def last_part(path: str) -> str:
    """The name of a folder or file on this machine; names on the hub stay whole."""
    return path.rstrip("/").rpartition("/")[2] if path.startswith("/") else path
