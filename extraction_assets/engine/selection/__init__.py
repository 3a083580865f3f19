"""Selection: sparse features to examples, top-k tables and statistics, and their merge."""
