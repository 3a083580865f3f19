"""Texts from outside, as the database can hold them."""


def storable(text: str) -> str:
    """Text that UTF-8 and PostgreSQL take: names of files may hold bytes that are no text, and NUL is refused."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
