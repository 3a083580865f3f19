"""Pages for people, served on this machine: features, samples and documents, from the results database alone."""
