"""Image enhancement engines: arrays in, arrays out. Nothing here knows DICOM or the node."""
