"""The formats, one file each: see ``ExportFormat``."""
