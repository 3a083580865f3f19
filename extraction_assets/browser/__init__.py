"""Pages for people: a small web server on the results database. It loads neither torch nor Dagster."""
