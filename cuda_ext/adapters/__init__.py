"""Other people's rasterizers, where they are installed, behind the interface of `cuda_ext.rasterize`."""

from cuda_ext.adapters.rasterizers import RasterizerMissingError, find_rasterizer

__all__ = ["RasterizerMissingError", "find_rasterizer"]
