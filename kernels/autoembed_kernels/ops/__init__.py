"""The operations as custom operators `torch.ops.autoembed.*`; importing this package registers them.

A graph that torch.export saved needs this import in the process that loads it.
"""

from autoembed_kernels.ops import packed, pairs, quantized, random, rows

__all__ = ["packed", "pairs", "quantized", "random", "rows"]
