"""The engine: pure PyTorch and NumPy; knows nothing of Dagster or storage."""
