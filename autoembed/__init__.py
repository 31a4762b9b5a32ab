"""AutoEmbed: compression search for recommender embedding tables under a memory budget."""

__version__ = "0.1.0"
