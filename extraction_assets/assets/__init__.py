"""Asset factories: each reads, calls the engine, writes and returns metadata."""
