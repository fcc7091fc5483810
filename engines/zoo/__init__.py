"""Engine bundles that come with this package, each in a folder `<name>/<version>/`: trained by `trainers`, with their
cards and their evaluation. `engines.bundle.shipped` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ZOO: Final = Path(__file__).parent
