"""What a denoiser does to CT, in figures: for patients that nobody trained on, beside its peers, with intervals."""
