"""Triton kernels, one file per operation: importing one needs triton, running one needs a GPU."""
