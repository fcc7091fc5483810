"""What the standard allows in the images that we derive: PS3.3's tables of IODs, modules and attributes.

Taken from the machine-readable tables that highdicom 0.28 ships (`highdicom/_standard`, made from the standard's own
XML). They are copied because those are 22 MB of JSON in a private folder of a package that is slow to import; a test
compares the two. Words are attribute keywords; only attributes at a module's top level are listed. The Overlay Plane
module is left out: overlays are never derived.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

IODS: Final[Mapping[str, str]] = {
    "computed-radiography-image": """
        patient clinical-trial-subject general-study patient-study clinical-trial-study general-series cr-series
        clinical-trial-series general-equipment general-acquisition general-image general-reference image-pixel
        contrast-bolus display-shutter device specimen cr-image modality-lut voi-lut sop-common
        common-instance-reference
    """,
    "digital-x-ray-image": """
        patient clinical-trial-subject general-study patient-study clinical-trial-study general-series
        clinical-trial-series dx-series frame-of-reference general-equipment general-acquisition general-image
        general-reference image-pixel contrast-bolus display-shutter device intervention specimen dx-anatomy-imaged
        dx-image dx-detector x-ray-collimator dx-positioning x-ray-tomography-acquisition x-ray-acquisition-dose
        x-ray-generation x-ray-filtration x-ray-grid voi-lut image-histogram acquisition-context sop-common
        common-instance-reference
    """,
    "ct-image": """
        patient clinical-trial-subject general-study patient-study clinical-trial-study general-series
        clinical-trial-series frame-of-reference synchronization general-equipment general-acquisition general-image
        general-reference enhanced-patient-orientation image-plane image-pixel contrast-bolus device specimen
        ct-image multi-energy-ct-image voi-lut sop-common common-instance-reference
    """,
    "mr-image": """
        patient clinical-trial-subject general-study patient-study clinical-trial-study general-series
        clinical-trial-series frame-of-reference general-equipment general-acquisition general-image
        general-reference enhanced-patient-orientation image-plane image-pixel contrast-bolus device specimen
        mr-image voi-lut sop-common common-instance-reference
    """,
}
"""Modules of an IOD (PS3.3 Annex A)."""

TYPE_2: Final[Mapping[str, str]] = {
    "computed-radiography-image": """
        PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime AccessionNumber ReferringPhysicianName
        StudyID SeriesNumber BodyPartExamined ViewPosition Manufacturer InstanceNumber
    """,
    "digital-x-ray-image": """
        PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime AccessionNumber ReferringPhysicianName
        StudyID SeriesNumber Manufacturer InstanceNumber AnatomicRegionSequence DetectorType
        AcquisitionContextSequence
    """,
    "ct-image": """
        PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime AccessionNumber ReferringPhysicianName
        StudyID SeriesNumber PositionReferenceIndicator Manufacturer InstanceNumber SliceThickness KVP
        AcquisitionNumber
    """,
    "mr-image": """
        PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime AccessionNumber ReferringPhysicianName
        StudyID SeriesNumber PositionReferenceIndicator Manufacturer InstanceNumber SliceThickness ScanOptions
        MRAcquisitionType EchoTime EchoTrainLength
    """,
}
"""Attributes of an IOD's mandatory modules that must be there but may be empty (PS3.5 7.4.3)."""

MODULES: Final[Mapping[str, str]] = {
    "acquisition-context": "AcquisitionContextSequence AcquisitionContextDescription",
    "clinical-trial-series": """
        ClinicalTrialCoordinatingCenterName ClinicalTrialSeriesID ClinicalTrialSeriesDescription
        IssuerOfClinicalTrialSeriesID
    """,
    "clinical-trial-study": """
        ClinicalTrialTimePointID ClinicalTrialTimePointDescription LongitudinalTemporalOffsetFromEvent
        LongitudinalTemporalEventType ClinicalTrialTimePointTypeCodeSequence IssuerOfClinicalTrialTimePointID
        ConsentForClinicalTrialUseSequence
    """,
    "clinical-trial-subject": """
        ClinicalTrialSponsorName ClinicalTrialProtocolID ClinicalTrialProtocolName IssuerOfClinicalTrialProtocolID
        OtherClinicalTrialProtocolIDsSequence ClinicalTrialSiteID ClinicalTrialSiteName IssuerOfClinicalTrialSiteID
        ClinicalTrialSubjectID IssuerOfClinicalTrialSubjectID ClinicalTrialSubjectReadingID
        IssuerOfClinicalTrialSubjectReadingID ClinicalTrialProtocolEthicsCommitteeName
        ClinicalTrialProtocolEthicsCommitteeApprovalNumber
    """,
    "common-instance-reference": "ReferencedSeriesSequence StudiesContainingOtherReferencedInstancesSequence",
    "contrast-bolus": """
        ContrastBolusAgent ContrastBolusAgentSequence ContrastBolusAdministrationRouteSequence ContrastBolusRoute
        ContrastBolusVolume ContrastBolusStartTime ContrastBolusStopTime ContrastBolusTotalDose ContrastFlowRate
        ContrastFlowDuration ContrastBolusIngredient ContrastBolusIngredientConcentration
    """,
    "cr-image": """
        AnatomicRegionSequence PrimaryAnatomicStructureSequence KVP PlateID DistanceSourceToDetector
        DistanceSourceToPatient ExposureTime XRayTubeCurrent Exposure ExposureInuAs ImagerPixelSpacing
        GeneratorPower AcquisitionDeviceProcessingDescription AcquisitionDeviceProcessingCode CassetteOrientation
        CassetteSize ExposuresOnPlate RelativeXRayExposure ExposureIndex TargetExposureIndex DeviationIndex
        Sensitivity PhotometricInterpretation PixelSpacing PixelSpacingCalibrationType
        PixelSpacingCalibrationDescription
    """,
    "cr-series": "BodyPartExamined FilterType CollimatorGridName FocalSpots PlateType PhosphorType ViewPosition",
    "ct-image": """
        ImageType AnatomicRegionSequence PrimaryAnatomicStructureSequence ScanOptions KVP DataCollectionDiameter
        ReconstructionDiameter DistanceSourceToDetector DistanceSourceToPatient GantryDetectorTilt TableHeight
        RotationDirection ExposureTime XRayTubeCurrent Exposure ExposureInuAs ImageAndFluoroscopyAreaDoseProduct
        FilterType GeneratorPower FocalSpots ConvolutionKernel WaterEquivalentDiameter
        WaterEquivalentDiameterCalculationMethodCodeSequence FilterMaterial RevolutionTime SingleCollimationWidth
        TotalCollimationWidth TableSpeed TableFeedPerRotation SpiralPitchFactor DataCollectionCenterPatient
        ReconstructionTargetCenterPatient ExposureModulationType CTDIvol CTDIPhantomTypeCodeSequence
        CalciumScoringMassFactorPatient CalciumScoringMassFactorDevice EnergyWeightingFactor
        CTAdditionalXRaySourceSequence MultienergyCTAcquisition AcquisitionNumber SamplesPerPixel
        PhotometricInterpretation BitsAllocated BitsStored HighBit RescaleIntercept RescaleSlope RescaleType
        ViewCodeSequence SliceProgressionDirection ScanStartPositionSequence ScanStopPositionSequence ScanArcType
        DetectorPositioningType IsocenterPosition EquipmentFrameOfReferenceUID PatientTreatmentPreparationSequence
        PatientToEquipmentRelationshipSequence ImagingEquipmentToTreatmentDeliveryDeviceRelationshipSequence
        ReferencedRTPlanSequence
    """,
    "device": "DeviceSequence",
    "display-shutter": """
        ShutterShape ShutterLeftVerticalEdge ShutterRightVerticalEdge ShutterUpperHorizontalEdge
        ShutterLowerHorizontalEdge CenterOfCircularShutter RadiusOfCircularShutter VerticesOfThePolygonalShutter
        ShutterPresentationValue ShutterPresentationColorCIELabValue
    """,
    "dx-anatomy-imaged": "AnatomicRegionSequence PrimaryAnatomicStructureSequence ImageLaterality",
    "dx-detector": """
        PlateID CassetteID FieldOfViewShape FieldOfViewDimensions ImagerPixelSpacing ExposureIndex
        TargetExposureIndex DeviationIndex Sensitivity DetectorConditionsNominalFlag DetectorTemperature
        DetectorType DetectorConfiguration DetectorDescription DetectorMode DetectorID DateOfLastDetectorCalibration
        TimeOfLastDetectorCalibration ExposuresOnDetectorSinceLastCalibration ExposuresOnDetectorSinceManufactured
        DetectorTimeSinceLastExposure DetectorActiveTime DetectorActivationOffsetFromExposure DetectorBinning
        DetectorElementPhysicalSize DetectorElementSpacing DetectorActiveShape DetectorActiveDimensions
        DetectorActiveOrigin DetectorManufacturerName DetectorManufacturerModelName FieldOfViewOrigin
        FieldOfViewRotation FieldOfViewHorizontalFlip XRayDetectorID PixelSpacing PixelSpacingCalibrationType
        PixelSpacingCalibrationDescription
    """,
    "dx-image": """
        ImageType DerivationDescription AcquisitionDeviceProcessingDescription AcquisitionDeviceProcessingCode
        PatientOrientation SamplesPerPixel PhotometricInterpretation BitsAllocated BitsStored HighBit
        PixelRepresentation BurnedInAnnotation PixelIntensityRelationship PixelIntensityRelationshipSign
        WindowCenter WindowWidth RescaleIntercept RescaleSlope RescaleType WindowCenterWidthExplanation
        LossyImageCompression LossyImageCompressionRatio VOILUTSequence CalibrationImage PresentationLUTShape
    """,
    "dx-positioning": """
        DistanceSourceToDetector DistanceSourceToPatient EstimatedRadiographicMagnificationFactor TableAngle
        TableType BodyPartThickness CompressionForce CompressionPressure PaddleDescription CompressionContactArea
        ColumnAngulation PositionerType PositionerPrimaryAngle PositionerSecondaryAngle DetectorPrimaryAngle
        DetectorSecondaryAngle PatientPosition ViewPosition ProjectionEponymousNameCodeSequence ViewCodeSequence
        PatientOrientationCodeSequence PatientGantryRelationshipCodeSequence
    """,
    "dx-series": "Modality PresentationIntentType ReferencedPerformedProcedureStepSequence",
    "enhanced-patient-orientation": "PatientOrientationCodeSequence PatientEquipmentRelationshipCodeSequence",
    "frame-of-reference": "FrameOfReferenceUID PositionReferenceIndicator",
    "general-acquisition": """
        AcquisitionUID AcquisitionDate AcquisitionDateTime AcquisitionTime IrradiationEventUID AcquisitionDuration
        AcquisitionNumber ImagesInAcquisition
    """,
    "general-equipment": """
        Manufacturer InstitutionName InstitutionAddress StationName InstitutionalDepartmentName
        InstitutionalDepartmentTypeCodeSequence ManufacturerModelName DeviceSerialNumber DeviceUID GantryID
        UDISequence ManufacturerDeviceClassUID SoftwareVersions SpatialResolution DateOfLastCalibration
        TimeOfLastCalibration DateOfManufacture DateOfInstallation PixelPaddingValue
    """,
    "general-image": """
        ImageType ContentDate ContentTime AnatomicRegionSequence PrimaryAnatomicStructureSequence InstanceNumber
        PatientOrientation ImageLaterality ImageComments QualityControlImage BurnedInAnnotation
        RecognizableVisualFeatures LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod
        RealWorldValueMappingSequence IconImageSequence PresentationLUTShape
    """,
    "general-reference": """
        ReferencedImageSequence ReferencedInstanceSequence DerivationDescription SourceImageSequence
        DerivationCodeSequence SourceInstanceSequence
    """,
    "general-series": """
        SeriesDate SeriesTime Modality SeriesDescription SeriesDescriptionCodeSequence PerformingPhysicianName
        PerformingPhysicianIdentificationSequence OperatorsName OperatorIdentificationSequence
        ReferencedPerformedProcedureStepSequence RelatedSeriesSequence AnatomicalOrientationType BodyPartExamined
        ProtocolName PatientPosition SeriesInstanceUID SeriesNumber Laterality SmallestPixelValueInSeries
        LargestPixelValueInSeries PerformedProcedureStepStartDate PerformedProcedureStepStartTime
        PerformedProcedureStepEndDate PerformedProcedureStepEndTime PerformedProcedureStepID
        PerformedProcedureStepDescription PerformedProtocolCodeSequence RequestAttributesSequence
        CommentsOnThePerformedProcedureStep TreatmentSessionUID
    """,
    "general-study": """
        StudyDate StudyTime AccessionNumber IssuerOfAccessionNumberSequence ReferringPhysicianName
        ReferringPhysicianIdentificationSequence ConsultingPhysicianName ConsultingPhysicianIdentificationSequence
        StudyDescription ProcedureCodeSequence PhysiciansOfRecord PhysiciansOfRecordIdentificationSequence
        NameOfPhysiciansReadingStudy PhysiciansReadingStudyIdentificationSequence ReferencedStudySequence
        StudyInstanceUID StudyID RequestingService RequestingServiceCodeSequence
        ReasonForPerformedProcedureCodeSequence
    """,
    "image-histogram": "HistogramSequence",
    "image-pixel": """
        SamplesPerPixel PhotometricInterpretation PlanarConfiguration Rows Columns PixelAspectRatio BitsAllocated
        BitsStored HighBit PixelRepresentation SmallestImagePixelValue LargestImagePixelValue PixelPaddingRangeLimit
        RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor
        BluePaletteColorLookupTableDescriptor RedPaletteColorLookupTableData GreenPaletteColorLookupTableData
        BluePaletteColorLookupTableData ICCProfile ColorSpace PixelDataProviderURL ExtendedOffsetTable
        ExtendedOffsetTableLengths PixelData
    """,
    "image-plane": """
        SliceThickness SpacingBetweenSlices ImagePositionPatient ImageOrientationPatient SliceLocation PixelSpacing
    """,
    "intervention": "InterventionSequence",
    "modality-lut": "RescaleIntercept RescaleSlope RescaleType ModalityLUTSequence",
    "mr-image": """
        ImageType AnatomicRegionSequence PrimaryAnatomicStructureSequence ScanningSequence SequenceVariant
        ScanOptions MRAcquisitionType SequenceName AngioFlag RepetitionTime EchoTime InversionTime NumberOfAverages
        ImagingFrequency ImagedNucleus EchoNumbers MagneticFieldStrength NumberOfPhaseEncodingSteps EchoTrainLength
        PercentSampling PercentPhaseFieldOfView PixelBandwidth TriggerTime NominalInterval BeatRejectionFlag
        LowRRValue HighRRValue IntervalsAcquired IntervalsRejected PVCRejection SkipBeats HeartRate
        CardiacNumberOfImages TriggerWindow ReconstructionDiameter ReceiveCoilName TransmitCoilName
        AcquisitionMatrix InPlanePhaseEncodingDirection FlipAngle VariableFlipAngleFlag SAR dBdt B1rms
        TemporalPositionIdentifier NumberOfTemporalPositions TemporalResolution SamplesPerPixel
        PhotometricInterpretation BitsAllocated BitsStored HighBit ViewCodeSequence SliceProgressionDirection
        IsocenterPosition EquipmentFrameOfReferenceUID PatientTreatmentPreparationSequence
        PatientToEquipmentRelationshipSequence ImagingEquipmentToTreatmentDeliveryDeviceRelationshipSequence
        ReferencedRTPlanSequence
    """,
    "multi-energy-ct-image": """
        MultienergyCTAcquisitionSequence MultienergyCTProcessingSequence MultienergyCTCharacteristicsSequence
    """,
    "patient": """
        ReferencedPatientSequence PatientName PatientID IssuerOfPatientID TypeOfPatientID
        IssuerOfPatientIDQualifiersSequence SourcePatientGroupIdentificationSequence
        GroupOfPatientsIdentificationSequence PatientBirthDate PatientBirthTime
        PatientBirthDateInAlternativeCalendar PatientDeathDateInAlternativeCalendar PatientAlternativeCalendar
        PatientSex QualityControlSubject StrainDescription StrainNomenclature StrainStockSequence
        StrainAdditionalInformation StrainCodeSequence GeneticModificationsSequence OtherPatientNames
        OtherPatientIDsSequence ReferencedPatientPhotoSequence EthnicGroupCodeSequence PatientSpeciesDescription
        PatientSpeciesCodeSequence PatientBreedDescription PatientBreedCodeSequence BreedRegistrationSequence
        ResponsiblePerson ResponsiblePersonRole ResponsibleOrganization PatientComments PatientIdentityRemoved
        DeidentificationMethod DeidentificationMethodCodeSequence
    """,
    "patient-study": """
        AdmittingDiagnosesDescription AdmittingDiagnosesCodeSequence PatientAge PatientSize PatientSizeCodeSequence
        PatientBodyMassIndex MeasuredAPDimension MeasuredLateralDimension PatientWeight MedicalAlerts Allergies
        Occupation SmokingStatus AdditionalPatientHistory PregnancyStatus LastMenstrualDate PatientSexNeutered
        ReasonForVisit ReasonForVisitCodeSequence AdmissionID IssuerOfAdmissionIDSequence ServiceEpisodeID
        ServiceEpisodeDescription IssuerOfServiceEpisodeIDSequence PatientState
    """,
    "sop-common": """
        SpecificCharacterSet InstanceCreationDate InstanceCreationTime InstanceCreatorUID InstanceCoercionDateTime
        SOPClassUID SOPInstanceUID RelatedGeneralSOPClassUID OriginalSpecializedSOPClassUID SyntheticData
        QueryRetrieveView CodingSchemeIdentificationSequence ContextGroupIdentificationSequence
        MappingResourceIdentificationSequence TimezoneOffsetFromUTC PrivateDataElementCharacteristicsSequence
        ContentQualification ReferencedDefinedProtocolSequence ReferencedPerformedProtocolSequence
        ContributingEquipmentSequence InstanceNumber ConversionSourceAttributesSequence
        LongitudinalTemporalInformationModified HL7StructuredDocumentReferenceSequence SOPInstanceStatus
        SOPAuthorizationDateTime SOPAuthorizationComment AuthorizationEquipmentCertificationNumber
        EncryptedAttributesSequence OriginalAttributesSequence InstanceOriginStatus BarcodeValue
        MACParametersSequence DigitalSignaturesSequence
    """,
    "specimen": """
        ContainerIdentifier IssuerOfTheContainerIdentifierSequence AlternateContainerIdentifierSequence
        ContainerTypeCodeSequence ContainerDescription ContainerComponentSequence SpecimenDescriptionSequence
    """,
    "synchronization": """
        TriggerSourceOrType SynchronizationTrigger SynchronizationChannel AcquisitionTimeSynchronized TimeSource
        TimeDistributionProtocol NTPSourceAddress SynchronizationFrameOfReferenceUID
    """,
    "voi-lut": "WindowCenter WindowWidth WindowCenterWidthExplanation VOILUTFunction VOILUTSequence",
    "x-ray-acquisition-dose": """
        KVP DistanceSourceToDetector DistanceSourceToPatient ExposureTime XRayTubeCurrent Exposure ExposureInuAs
        RectificationType ImageAndFluoroscopyAreaDoseProduct FilterType AnodeTargetMaterial BodyPartThickness
        RelativeXRayExposure ExposureIndex TargetExposureIndex DeviationIndex FilterMaterial FilterThicknessMinimum
        FilterThicknessMaximum FilterBeamPathLengthMinimum FilterBeamPathLengthMaximum ExposureTimeInuS
        XRayTubeCurrentInuA EntranceDose ExposedArea DistanceSourceToEntrance CommentsOnRadiationDose XRayOutput
        HalfValueLayer OrganDose OrganExposed EntranceDoseInmGy EntranceDoseDerivation
    """,
    "x-ray-collimator": """
        CollimatorShape CollimatorLeftVerticalEdge CollimatorRightVerticalEdge CollimatorUpperHorizontalEdge
        CollimatorLowerHorizontalEdge CenterOfCircularCollimator RadiusOfCircularCollimator
        VerticesOfThePolygonalCollimator
    """,
    "x-ray-filtration": """
        FilterType FilterMaterial FilterThicknessMinimum FilterThicknessMaximum FilterBeamPathLengthMinimum
        FilterBeamPathLengthMaximum
    """,
    "x-ray-generation": """
        KVP GeneratorID ExposureTime XRayTubeCurrent Exposure ExposureInuAs RectificationType FocalSpots
        AnodeTargetMaterial ExposureControlMode ExposureControlModeDescription ExposureStatus PhototimerSetting
        ExposureTimeInuS XRayTubeCurrentInuA
    """,
    "x-ray-grid": """
        GridID Grid GridAbsorbingMaterial GridSpacingMaterial GridThickness GridPitch GridAspectRatio GridPeriod
        GridFocalDistance
    """,
    "x-ray-tomography-acquisition": """
        TomoLayerHeight TomoAngle TomoTime TomoType TomoClass NumberOfTomosynthesisSourceImages
    """,
}
"""Attributes of a module (PS3.3 Annex C)."""
