"""All modules that import Ray: pipeline, training, cluster, metrics."""
