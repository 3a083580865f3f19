"""The feature_report asset: a page for people."""
