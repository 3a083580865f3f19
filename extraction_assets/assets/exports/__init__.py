"""The features in formats that others read, an asset for each format that the settings name."""
