"""How good an image, a model or a space is: pure formulas on arrays of scores and embeddings."""
