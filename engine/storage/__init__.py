"""Bytes and tables at a path or URI: files, manifests, images, shards, weights."""
