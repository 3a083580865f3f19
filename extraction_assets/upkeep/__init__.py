"""Looking after what extractions leave behind: what lies on disk and in the database, and what of it may go."""
