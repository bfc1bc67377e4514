"""The numbers of one video."""
