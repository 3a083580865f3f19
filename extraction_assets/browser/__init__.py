"""Pages for people, on the queries of the results database (Starlette, Jinja2)."""
