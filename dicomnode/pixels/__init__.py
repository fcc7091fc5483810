"""Reading and decoding of DICOM files, in separate, memory-limited processes."""
