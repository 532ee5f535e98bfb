"""A feature space and a sampler for tests of selection."""

import numpy as np

from pcamlib.experiments import features


def colour(images):
    """A feature space of our own: mean colour of the whole and of the centre."""
    x = images.astype(np.float32)
    return np.concatenate([x.mean((1, 2)), x[:, 32:64, 32:64].mean((1, 2))], 1)


GATE = features.Extractor("colour", "mean colours", colour)


def channels_first(images):
    """The same images in the memory layout that a network's output has."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)


class Sampler:
    """Real patches with a share of failures: blanks for class 0, the other class's patches for class 1."""

    def __init__(self, study, bad=0.5, die_after=None):
        self.study, self.bad, self.die_after, self.calls = study, bad, die_after, 0

    def __call__(self, labels, seed):
        if self.calls == self.die_after:
            raise KeyboardInterrupt
        self.calls += 1
        rng = np.random.default_rng(seed)
        real, y = self.study.real
        images = np.stack([real[rng.choice(np.flatnonzero(y == label))] for label in labels])
        for i in np.flatnonzero(rng.random(len(labels)) < self.bad):
            images[i] = 255 if labels[i] == 0 else real[rng.choice(np.flatnonzero(y == 0))]
        return channels_first(images)
