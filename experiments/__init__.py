"""Experiments: how the embedded world was made, and the paper's tables and figures."""
