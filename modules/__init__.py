"""Networks and pure tensor functions of Audio2Head. Imports torch, einops and itself, nothing else of the project."""
