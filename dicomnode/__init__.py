"""The DICOM node between scanners and PACS. The rooms of this package are described in docs/architecture.md."""

__version__ = "0.1.0"
