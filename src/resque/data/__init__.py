"""Data specifications, readers, the dataset, shifts, preprocessing and augmentation."""
