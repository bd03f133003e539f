"""Drawn dogs, the second kind of subject of the embedded world's next edition."""
