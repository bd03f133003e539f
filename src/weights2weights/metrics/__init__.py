"""Measures of images, models and directions: pure formulas, and judges of drawings and photos."""
