"""An engine bundle: a folder, read, checked, proven, signed, installed; and from and to a MONAI bundle."""
