"""Facts <subject, predicate, object> about images: their words, vectors, tasks and retrieval."""
