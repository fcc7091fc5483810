"""CT physics: projection, reconstruction, low dose, planted lesions. Knows neither files nor DICOM."""
