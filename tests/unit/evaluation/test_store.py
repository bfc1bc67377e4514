"""Results of clips as files."""

import pytest

from evaluation import EvaluationError
from evaluation.store import Store
from tests.unit.evaluation.toys import result


def test_results_of_other_weights_are_refused(tmp_path):
    store = Store(tmp_path)
    assert store.read("full", "a", {"weights": "1"}) is None
    store.write("full", result("a", psnr=30.0))
    assert store.read("full", "a", {"weights": "1"}).metrics == {"psnr": 30.0}
    with pytest.raises(EvaluationError, match=r"was made with another weights \(1, now 2\); choose another --output"):
        store.read("full", "a", {"weights": "2"})
    with pytest.raises(EvaluationError, match=r"another network lpips \(none, now 7b\)"):
        store.read("full", "a", {"weights": "1", "network lpips": "7b"})
    (tmp_path / "clips/full/a.json").write_text('{"clip": ')
    with pytest.raises(EvaluationError, match="is no result of a clip"):
        store.read("full", "a", {"weights": "1"})
