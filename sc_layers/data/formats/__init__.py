"""Images in files: folders and zips, TFRecords, MNIST's."""
