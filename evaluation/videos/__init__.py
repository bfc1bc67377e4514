"""The videos of every row: the true ones, generated ones, given ones."""
