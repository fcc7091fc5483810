"""Which attributes of a source go into an image derived from it: what its SOP class allows, less what would be untrue.

Copied is only what the IOD's modules allow (PS3.3 Annex A), so that scanners' private and stray attributes do not make
our objects invalid; then what the source alone may say is taken out, and empty Type 2 attributes are put in.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    MRImageStorage,
)

from dicomnode.core.derive.elements import put_encoded, tag_of
from dicomnode.core.derive.standard import IODS, MODULES, TYPE_2
from dicomnode.errors import UnsupportedError

SOP_CLASSES: Final[Mapping[str, str]] = {
    CTImageStorage: "ct-image",
    MRImageStorage: "mr-image",
    ComputedRadiographyImageStorage: "computed-radiography-image",
    DigitalXRayImageStorageForPresentation: "digital-x-ray-image",
}
"""SOP classes that images are derived from, with their IOD: the derived image is of the same class."""

EQUIPMENT: Final = frozenset(MODULES["general-equipment"].split()) - {"PixelPaddingValue"}
"""General Equipment describes who made the object, and that is us. Padding is in this module by accident of history."""

_BESIDE_THE_IOD: Final = ("OtherPatientIDs", "RescaleIntercept", "RescaleSlope", "RescaleType")
"""Retired identifiers that a PACS still matches on; and the scaling that MR scanners write though the MR IOD lacks it,
without which its windows would not fit its values."""

_UNTRUE_OF_A_DERIVED_IMAGE: Final = """
    SeriesDescriptionCodeSequence ReferencedPerformedProcedureStepSequence PerformedProcedureStepStartDate
    PerformedProcedureStepStartTime PerformedProcedureStepEndDate PerformedProcedureStepEndTime PerformedProcedureStepID
    PerformedProcedureStepDescription PerformedProtocolCodeSequence CommentsOnThePerformedProcedureStep
    TreatmentSessionUID SmallestPixelValueInSeries LargestPixelValueInSeries

    SmallestImagePixelValue LargestImagePixelValue HistogramSequence IconImageSequence QualityControlImage
    WaterEquivalentDiameter WaterEquivalentDiameterCalculationMethodCodeSequence

    PlanarConfiguration RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor
    BluePaletteColorLookupTableDescriptor RedPaletteColorLookupTableData GreenPaletteColorLookupTableData
    BluePaletteColorLookupTableData ICCProfile ColorSpace PixelDataProviderURL ExtendedOffsetTable
    ExtendedOffsetTableLengths PixelData

    SourceImageSequence SourceInstanceSequence

    InstanceCoercionDateTime RelatedGeneralSOPClassUID OriginalSpecializedSOPClassUID QueryRetrieveView
    ConversionSourceAttributesSequence PrivateDataElementCharacteristicsSequence InstanceOriginStatus
    OriginalAttributesSequence EncryptedAttributesSequence MACParametersSequence DigitalSignaturesSequence
    SOPInstanceStatus SOPAuthorizationDateTime SOPAuthorizationComment AuthorizationEquipmentCertificationNumber
    BarcodeValue
"""
"""The scanner's procedure step, statements on the source's own pixels, signatures over its bytes, its coercions."""

_UNTRUE_OF_A_PRESENTATION: Final = """
    RescaleIntercept RescaleSlope RescaleType ModalityLUTSequence WindowCenter WindowWidth WindowCenterWidthExplanation
    VOILUTFunction VOILUTSequence RealWorldValueMappingSequence PixelPaddingRangeLimit
"""
"""Every statement on what a grey value means."""


def iod_of(sop_class_uid: str) -> str:
    """The IOD of a SOP class that images are derived from. Raises UnsupportedError for any other."""
    iod = SOP_CLASSES.get(sop_class_uid)
    if iod is None:
        raise UnsupportedError(
            f"no image is derived from SOP class {sop_class_uid}",
            "derived are CT, MR, CR and DX For Presentation; send the For Presentation image of a DX pair",
        )
    return iod


@cache
def readable_tags(iod: str) -> frozenset[BaseTag]:
    """Whatever the IOD's modules allow."""
    keywords = {keyword for module in IODS[iod].split() for keyword in MODULES[module].split()}
    return frozenset(tag_of(keyword) for keyword in keywords.union(_BESIDE_THE_IOD))


@cache
def kept_tags(iod: str, presentation: bool) -> frozenset[BaseTag]:
    """What is copied into the derived image as it is; `presentation`: its values are for the eye only."""
    dropped = EQUIPMENT.union(_UNTRUE_OF_A_DERIVED_IMAGE.split())
    if presentation:
        dropped = dropped.union(_UNTRUE_OF_A_PRESENTATION.split())
    return readable_tags(iod) - {tag_of(keyword) for keyword in dropped}


def fill_type_2(image: Dataset, iod: str) -> None:
    """Add, empty, what must be there but may be empty and the source did not have (PS3.5 7.4.3)."""
    for keyword in TYPE_2[iod].split():
        if tag_of(keyword) not in image:
            put_encoded(image, keyword, b"")
