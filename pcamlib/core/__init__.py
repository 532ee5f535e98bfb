"""What every part of pcamlib rests on: errors, files, settings and the paper's numbers. Knows nothing of images."""
