"""The feature_relations asset: top tokens, co-firing neighbours and flags of every feature."""
