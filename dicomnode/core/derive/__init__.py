"""Derived objects: results and their sources in, DICOM data sets out."""
