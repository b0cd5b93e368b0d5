import json

import pytest

from stagewise.sweep.circuits import Circuits, circuits_key, read_circuits, write_circuits
from stagewise.sweep.config import CircuitSettings

FOUND = Circuits({"copying": ((0.1 + 0.2, None), (-1.0, 1.0))}, {"icl_score": -0.3, "loss_gap": None}, "a note")
SETTINGS = CircuitSettings(seed=2)


def key(settings=SETTINGS, bos_token_id=None, checkpoint="weights 12"):
    return circuits_key(settings, bos_token_id=bos_token_id, checkpoint=checkpoint)


def test_scores_are_read_as_they_were_written_to_the_last_bit_and_are_plain_json(tmp_path):
    path = write_circuits(tmp_path, 7, key(), FOUND)
    assert read_circuits(tmp_path, 7, key()) == FOUND
    assert read_circuits(tmp_path, 8, key()) is None
    assert json.loads(path.read_text())["tables"]["copying"][0] == [0.1 + 0.2, None]


def test_scores_of_other_settings_weights_or_sequences_are_not_those_asked_for(tmp_path):
    write_circuits(tmp_path, 7, key(), FOUND)
    for other in (key(CircuitSettings(seed=3)), key(checkpoint="weights 13"), key(bos_token_id=1)):
        assert read_circuits(tmp_path, 7, other) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", {"tables": {"copying": 3}}])
def test_a_file_that_cannot_be_read_holds_no_scores(tmp_path, content):
    path = write_circuits(tmp_path, 7, key(), FOUND)
    path.write_text(content if isinstance(content, str) else json.dumps(json.loads(path.read_text()) | content))
    assert read_circuits(tmp_path, 7, key()) is None
