"""What published collections ask to be said of them (TCIA's data citations), for tables that do not say it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_TCIA: Final = "The Cancer Imaging Archive"

ATTRIBUTIONS: Final[Mapping[str, str]] = {
    "ACRIN-FLT-Breast": "Kinahan P et al. (2017). Data from ACRIN-FLT-Breast. "
    f"{_TCIA}. doi:10.7937/K9/TCIA.2017.ol20zmxg",
    "C4KC-KiTS": f"Heller N et al. (2019). Data from C4KC-KiTS. {_TCIA}. doi:10.7937/TCIA.2019.IX49E8NX",
    "CMB-CRC": "Cancer Moonshot Biobank (2022). Cancer Moonshot Biobank - Colorectal Cancer Collection. "
    f"{_TCIA}. doi:10.7937/DJG7-GZ87",
    "CPTAC-PDA": "National Cancer Institute Clinical Proteomic Tumor Analysis Consortium (2018). CPTAC "
    f"Pancreatic Ductal Adenocarcinoma Collection. {_TCIA}. doi:10.7937/K9/TCIA.2018.SC20FO18",
    "LIDC-IDRI": f"Armato S G III et al. (2015). Data From LIDC-IDRI. {_TCIA}. doi:10.7937/K9/TCIA.2015.LO9QL9SX",
    "TCGA-LUAD": "Albertina B et al. (2016). The Cancer Genome Atlas Lung Adenocarcinoma Collection. "
    f"{_TCIA}. doi:10.7937/K9/TCIA.2016.JGNIHEP5",
    "TCGA-LUSC": "Kirk S et al. (2016). The Cancer Genome Atlas Lung Squamous Cell Carcinoma Collection. "
    f"{_TCIA}. doi:10.7937/K9/TCIA.2016.TYGKKFMQ",
}
"""By the collection's name."""

_BETWEEN: Final = re.compile(r"[\s/()]+")


def attribution_of(collection: str) -> str:
    """Of a collection, or of several that a table names together ("TCGA-LUAD/LUSC"); empty where none is known."""
    words = _BETWEEN.split(collection)
    archive = words[0].partition("-")[0]
    named = dict.fromkeys(name for word in words for name in (word, f"{archive}-{word}"))
    return "; ".join(ATTRIBUTIONS[name] for name in named if name in ATTRIBUTIONS)
