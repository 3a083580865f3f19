"""URLs of databases, and what may be shown of them."""

import sqlalchemy as sa

URL_VARIABLE = "EXTRACTION_DATABASE_URL"
"""Environment variable with the URL of the results, where no resource has one."""


def split_url(text: str) -> sa.URL | None:
    """The parts of a URL; None if it is not one. ``backends.parse_url`` says what is wrong with it."""
    try:
        url = sa.make_url(text)
    except (ValueError, sa.exc.ArgumentError):
        return None
    # A bare @ in a password ends it early, and its rest would be shown as part of the host or of the name.
    misread = bool(url.host) and "@" in f"{url.host}{url.database}"
    return None if misread else url


def shown_url(url: sa.URL) -> str:
    """A URL without its driver and without its password, in the usual place or among the parameters."""
    return url.set(query={}, drivername=url.get_backend_name()).render_as_string(hide_password=True)


def holds_password(text: str) -> bool:
    """Whether a URL has a password in it."""
    url = split_url(text)
    if url is None:
        return "@" in text  # perhaps: the password may be what is wrong with it
    return bool(url.password) or any("password" in name for name in url.query)


def error_sentence(database: str, url: sa.URL, said: str) -> str:
    """One sentence for what a driver said, on one line and without the password."""
    reason = " ".join(said.split())
    if url.password:
        reason = reason.replace(str(url.password), "***")
    return f"{database} {shown_url(url)} cannot be used: {reason}"
