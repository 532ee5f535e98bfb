"""pcamlib: does training on synthetic histopathology patches improve a classifier?

An executable study after Benito-Del-Valle et al., "Unleashing the Potential of Synthetic Images"
(arXiv 2409.16002). The notebooks tell the story; this package does the work.
"""

__version__ = "0.1.0"
