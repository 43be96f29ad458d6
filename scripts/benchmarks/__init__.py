"""What `scripts/benchmark` measures: one module per subject, `__main__` puts them together."""
