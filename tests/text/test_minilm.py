import shutil
import subprocess
import sys

import numpy as np
import pytest

from recsys.errors import InputError
from recsys.text import minilm

TEXTS = [
    "Empire Strikes Back, The (1980). Action, Adventure, Drama, Romance, Sci-Fi, War",
    "Toy Story (1995)",
    "Amélie & Die Straße: été {1997}",
    "A long plot. " * 120,
    "?",
]


@pytest.fixture(scope="module")
def encoder():
    return minilm.load(device="cpu", batch_size=2)


def test_vectors_equal_those_of_sentence_transformers(encoder):
    # A process of its own: the library changes global state and warns on import.
    code = (
        "import sys, json, numpy as np\n"
        "from sentence_transformers import SentenceTransformer\n"
        "model = SentenceTransformer(sys.argv[1], device='cpu')\n"
        "print(json.dumps(model.encode(json.loads(sys.argv[2])).tolist()))\n"
    )
    import json

    arguments = [str(minilm.find_folder()), json.dumps(TEXTS)]
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    expected = np.array(json.loads(result.stdout.splitlines()[-1]), dtype=np.float32)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-5)


def test_it_knows_what_is_alike(encoder):
    space, galaxy, baking = encoder.encode(
        ["War between star fleets", "Soldiers fight in outer space", "How to bake bread"]
    )
    assert space @ galaxy > space @ baking + 0.2


def test_the_texts_beside_it_do_not_change_a_vector(encoder):
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode(TEXTS), alone, atol=1e-5)


def test_its_width_is_384(encoder):
    assert encoder.dim == 384


def test_a_local_folder_wins_and_gives_the_same_encoder(encoder, tmp_path):
    copy = shutil.copytree(minilm.find_folder(), tmp_path / "copy")
    assert minilm.find_folder(copy) == copy
    assert minilm.load(str(copy)).fingerprint == encoder.fingerprint


def test_other_weights_are_refused_with_both_digests(tmp_path):
    copy = shutil.copytree(minilm.find_folder(), tmp_path / "copy")
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(InputError) as caught:
        minilm.find_folder(copy)
    assert minilm.WEIGHTS_SHA256 in caught.value.expected
    assert minilm.WEIGHTS_SHA256 not in caught.value.found


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"text\.folder"):
        minilm.find_folder(tmp_path / "absent")


def test_without_the_package_the_hub_is_asked(monkeypatch):
    asked = []
    packaged = minilm.find_folder()
    monkeypatch.setattr(minilm, "find_spec", lambda _: None)
    monkeypatch.setattr(minilm, "find_model", lambda name: asked.append(name) or packaged)
    assert minilm.find_folder() == packaged
    assert asked == ["sentence-transformers/all-MiniLM-L6-v2"]
