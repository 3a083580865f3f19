"""Real processes over a real daemon, killed or canceled: one file a story, so that workers share them."""
