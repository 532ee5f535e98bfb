"""The AUC ranks by logits where they are given: probabilities of a confident classifier tie."""

import numpy as np
import pytest

from pcamlib import metrics


@pytest.mark.parametrize("scale", [1, 12, 30, 1000])
def test_auc_ranks_by_logits_where_probabilities_tie(scale):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    logits = (scale * (rng.normal(size=400) + labels)).astype(np.float32)
    logits[:40] = logits[40:80]  # some real ties
    pairs = logits[labels == 1][:, None].astype(float) - logits[labels == 0][None]
    exact = (pairs > 0).mean() + (pairs == 0).mean() / 2
    with np.errstate(over="ignore"):
        probabilities = 1 / (1 + np.exp(-logits.astype(np.float32)))
    found = metrics.classification_metrics(labels, probabilities, logits=logits)
    assert found["auc"] == pytest.approx(exact, abs=1e-6)
    plain = metrics.classification_metrics(labels, probabilities)
    assert {k: v for k, v in plain.items() if k != "auc"} == {k: v for k, v in found.items() if k != "auc"}
    if scale >= 12:
        assert abs(plain["auc"] - exact) > 1e-5, "what ranking by float32 probabilities loses"


def test_auc_of_large_logits():
    # the example of torchmetrics' issue 2819, whose own answer is 0.5
    logits = [
        98.0950,
        98.4612,
        98.1145,
        98.1506,
        97.6037,
        98.9425,
        99.2644,
        99.5014,
        99.7280,
        99.6595,
        99.6931,
        99.4667,
        99.9623,
        99.8949,
        99.8768,
    ]
    found = metrics.classification_metrics([0] + [1] * 14, [1.0] * 15, logits=logits)
    assert found["auc"] == pytest.approx(13 / 14, abs=1e-7)
    for wrong in ([float("inf")] * 15, [0.0] * 14):
        with pytest.raises(ValueError, match="logits: must be finite and have the shape"):
            metrics.classification_metrics([0] + [1] * 14, [1.0] * 15, logits=wrong)
