"""Experiments: each reproduces figures of quality that README.md or docs/ablations.md reports."""
