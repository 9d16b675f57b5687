import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, GPT2Config, T5Config, T5Model, XLNetConfig

from recsys.errors import InputError
from recsys.text.encoder import HuggingFaceEncoder

TEXTS = ["old robot", "the red river of the king", "war", "a ghost in the night and a new robot"]


def decoder(folder: Path, **options) -> HuggingFaceEncoder:
    return HuggingFaceEncoder(str(folder), **{"pooling": "last_token", "device": "cpu", **options})


def test_a_decoder_gives_the_hidden_state_of_the_last_token(tiny_decoder):
    model = AutoModel.from_pretrained(tiny_decoder).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_decoder)
    with torch.inference_mode():
        expected = [
            model(**tokenizer(t, return_tensors="pt")).last_hidden_state[0, -1] for t in TEXTS
        ]
    found = decoder(tiny_decoder, normalize=False, batch_size=3).encode(TEXTS)
    np.testing.assert_allclose(found, torch.stack(expected).numpy(), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last_token"])
def test_the_texts_beside_it_do_not_change_a_vector(tiny_decoder, pooling):
    encoder = decoder(tiny_decoder, pooling=pooling, batch_size=4)
    together = encoder.encode(TEXTS)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_vectors_come_in_the_order_of_the_texts(tiny_decoder):
    encoder = decoder(tiny_decoder, batch_size=2)
    forwards, backwards = encoder.encode(TEXTS), encoder.encode(TEXTS[::-1])
    np.testing.assert_allclose(forwards, backwards[::-1], atol=1e-5)


def test_vectors_have_length_one_only_when_asked(tiny_decoder):
    lengths = np.linalg.norm(decoder(tiny_decoder).encode(TEXTS), axis=1)
    np.testing.assert_allclose(lengths, 1.0, atol=1e-5)
    raw = decoder(tiny_decoder, normalize=False).encode(TEXTS)
    assert np.abs(np.linalg.norm(raw, axis=1) - 1).min() > 0.1


def test_the_template_is_what_the_model_reads(tiny_decoder):
    with_template = decoder(tiny_decoder, template="the old {text} of war").encode(["{king}"])
    spelled_out = decoder(tiny_decoder).encode(["the old {king} of war"])
    np.testing.assert_array_equal(with_template, spelled_out)


def test_text_beyond_max_length_is_cut(tiny_decoder):
    encoder = decoder(tiny_decoder, max_length=3)
    np.testing.assert_array_equal(
        encoder.encode(["red blue old"]), encoder.encode(["red blue old night"])
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "auto"])
def test_other_precisions_come_close_and_are_returned_as_float32(tiny_decoder, dtype):
    found = decoder(tiny_decoder, dtype=dtype).encode(TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, decoder(tiny_decoder).encode(TEXTS), atol=0.05)


def test_no_texts_give_no_rows(tiny_decoder):
    assert decoder(tiny_decoder).encode([]).shape == (0, 32)


class TestFingerprint:
    def test_it_and_the_width_are_known_without_loading_weights(self, tiny_decoder, monkeypatch):
        monkeypatch.setattr(AutoModel, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
        encoder = decoder(tiny_decoder)
        assert encoder.dim == 32
        assert len(encoder.fingerprint) == 64

    def test_it_does_not_depend_on_where_the_model_lies_or_how_it_is_run(
        self, tiny_decoder, tmp_path
    ):
        copy = shutil.copytree(tiny_decoder, tmp_path / "copy")
        assert decoder(copy, batch_size=7).fingerprint == decoder(tiny_decoder).fingerprint

    @pytest.mark.parametrize(
        "option",
        [
            {"pooling": "mean"},
            {"template": "Query: {text}"},
            {"max_length": 16},
            {"dtype": "bfloat16"},
            {"normalize": False},
        ],
        ids=lambda option: next(iter(option)),
    )
    def test_every_option_that_changes_vectors_changes_it(self, tiny_decoder, option):
        assert decoder(tiny_decoder, **option).fingerprint != decoder(tiny_decoder).fingerprint

    @pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
    def test_a_changed_file_changes_it(self, tiny_decoder, tmp_path, name):
        copy = shutil.copytree(tiny_decoder, tmp_path / "copy")
        with (copy / name).open("ab") as file:
            file.write(b" ")
        assert decoder(copy).fingerprint != decoder(tiny_decoder).fingerprint


class TestRefusals:
    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ({"pooling": "max"}, "text.pooling to be one of mean, cls, last_token"),
            ({"dtype": "int8"}, "text.dtype to be one of"),
            ({"device": "tpu"}, "text.device to be one of"),
            ({"template": "Query:"}, r"text.template that holds \{text\} once"),
            ({"max_length": 0}, "text.max_length of 1 or more"),
            ({"batch_size": 0}, "text.batch_size of 1 or more"),
        ],
    )
    def test_an_option_that_makes_no_sense(self, tiny_decoder, option, message):
        with pytest.raises(InputError, match=message):
            decoder(tiny_decoder, **option)

    def test_more_tokens_than_the_model_has_positions(self, tiny_decoder):
        with pytest.raises(InputError, match="at most 256"):
            decoder(tiny_decoder, max_length=257).encode(["war"])

    def test_pickled_weights(self, tiny_decoder, tmp_path):
        copy = shutil.copytree(tiny_decoder, tmp_path / "copy")
        (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
        with pytest.raises(InputError, match=r"pickled weights pytorch_model\.bin"):
            _ = decoder(copy).fingerprint

    def test_truncated_weights(self, tiny_decoder, tmp_path):
        copy = shutil.copytree(tiny_decoder, tmp_path / "copy")
        weights = copy / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(InputError, match="a model that transformers can load"):
            decoder(copy).encode(["war"])

    def test_weights_that_lack_a_layer(self, tiny_decoder, tmp_path):
        copy = shutil.copytree(tiny_decoder, tmp_path / "copy")
        config = json.loads((copy / "config.json").read_text())
        config["num_hidden_layers"] = 3
        config["layer_types"] = ["full_attention"] * 3
        (copy / "config.json").write_text(json.dumps(config))
        with pytest.raises(InputError, match=r"tensors missing, such as layers\.2"):
            decoder(copy).encode(["war"])

    def test_weights_that_give_nan(self, tiny_decoder, tmp_path):
        model = AutoModel.from_pretrained(tiny_decoder)
        torch.nn.init.constant_(model.norm.weight, torch.nan)
        copy = shutil.copytree(tiny_decoder, tmp_path / "copy")
        model.save_pretrained(copy)
        with pytest.raises(InputError, match="finite text vectors"):
            decoder(copy).encode(["war"])

    def test_a_text_without_tokens(self, tiny_decoder):
        with pytest.raises(InputError, match="texts of one token or more"):
            decoder(tiny_decoder).encode(["war", ""])


def test_an_encoder_decoder_model_uses_its_encoder(tiny_decoder, tmp_path):
    copy = shutil.copytree(tiny_decoder, tmp_path / "t5")
    torch.manual_seed(0)
    T5Model(
        T5Config(vocab_size=32, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    ).save_pretrained(copy)
    encoder = HuggingFaceEncoder(str(copy), pooling="mean", device="cpu")
    together = encoder.encode(TEXTS)
    assert together.shape == (4, 16)
    np.testing.assert_allclose(together[:1], encoder.encode(TEXTS[:1]), atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "last_token"])
@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=256),
        XLNetConfig(vocab_size=32, d_model=16, n_layer=1, n_head=2, d_inner=16),
    ],
    ids=["absolute positions", "relative positions without a limit"],
)
def test_other_architectures_are_blind_to_padding_too(tiny_decoder, tmp_path, config, pooling):
    copy = shutil.copytree(tiny_decoder, tmp_path / "copy")
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(copy)
    encoder = decoder(copy, pooling=pooling)
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode(TEXTS), alone, atol=1e-5)
