"""What an engine did to an image, in figures: noise and its spectrum, HU bias in tissue, sharpness of edges, what the
residual holds beside noise, order of the slices, clipping.

Pure functions of arrays. A slice is float32 (rows, columns); lengths are in pixels; noise and bias are in the unit of
the voxels. Where a figure is judged, its places are chosen on the source alone and after smoothing: masks drawn on the
noisy source select its noise, and then even a perfect denoiser seems to shift the means by some HU.

    slices.py    pairs of slices before and after        flat.py      noise in flat places
    tissue.py    HU bias                                 spectrum.py  noise power spectrum
    edges.py     width and modulation of edges           residual.py  edges and blobs in what was taken away
    order.py     does each slice stand at its place      clipping.py  voxels cut off
    report.py    all of them: `measure`, `QualityReport`
"""

from engines.quality.clipping import clipped_fraction
from engines.quality.edges import EdgeResponse, edge_response, edge_width_px
from engines.quality.flat import flat_blocks, flat_places, flat_sd, noise, smooth
from engines.quality.report import Measuring, QualityReport, measure
from engines.quality.residual import BLOB_SIZES_MM, Blob
from engines.quality.slices import Pixels, Places, measured_places, measured_range
from engines.quality.spectrum import NoisePower
from engines.quality.tissue import BANDS_HU, bias_by_band, tissue_cores

__all__ = [
    "BANDS_HU", "BLOB_SIZES_MM", "Blob", "EdgeResponse", "Measuring", "NoisePower", "Pixels", "Places", "QualityReport",
    "bias_by_band", "clipped_fraction", "edge_response", "edge_width_px", "flat_blocks", "flat_places", "flat_sd",
    "measure", "measured_places", "measured_range", "noise", "smooth", "tissue_cores",
]  # fmt: skip
