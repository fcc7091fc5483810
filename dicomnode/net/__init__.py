"""DICOM on the wire: service class providers (scp), users (scu), presentation contexts, DIMSE statuses."""
