"""All that imports Ray: the pipeline, training, the cluster."""
