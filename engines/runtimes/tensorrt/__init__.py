"""TensorRT: networks compiled on this machine for its GPU, used only after they were proved on it.

Needs the extra `[tensorrt]`, an NVIDIA driver and a GPU. Nothing here has been run on a GPU by its makers: what was
checked, and how, is in `docs/tensorrt.md`; `dicomnode engines selftest` is the acceptance test of a site.
"""
