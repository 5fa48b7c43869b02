"""Loading: what is resolved, recorded and refused."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_models import SPECIFICATIONS, tiny_model
from tiny_tokenizers import words

from cache_builder import models, session
from cache_builder.dryrun import dry_run
from cache_builder.models import hash_config, hash_text, load_model, pick_device, pick_dtype
from cache_builder.spec import parse_spec
from steerstats.errors import InputError, MissingDependency, ModelError


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_model("llama").save_pretrained(folder)
    tokenizer = words(None)
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    tokenizer.save_pretrained(folder)
    return folder


def test_a_local_directory_loads_in_float32_on_the_cpu_with_its_hashes(saved):
    loaded = load_model(str(saved), device="cpu")
    assert loaded.dtype == "float32"
    assert loaded.model.dtype == torch.float32
    assert loaded.attention == "sdpa"
    assert not loaded.model.training
    assert loaded.revision is None
    file = hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest()
    assert loaded.weights_hash == hash_text(f"model.safetensors\0{file}\n")
    assert loaded.template_hash == hash_text("{{ messages[0]['content'] }}")
    assert len(loaded.tokenizer_hash) == 64
    facts = loaded.provenance()
    assert facts["architecture"] == "llama"
    assert facts["parameters"] == sum(p.numel() for p in loaded.model.parameters())
    assert "model" not in facts


@pytest.mark.parametrize("lost", ["lm_head.weight", "model.layers.1.mlp.up_proj.weight"])
def test_weights_that_the_files_lack_are_not_drawn_at_random(saved, tmp_path, lost):
    other = tmp_path / "other"
    shutil.copytree(saved, other)
    weights = load_file(other / "model.safetensors")
    del weights[lost]
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"cannot be loaded: its files lack 1 of \d+ weights, such as {lost}$"):
        load_model(str(other), device="cpu")


@pytest.mark.parametrize("where", ["loading", "moving"])
def test_a_model_that_does_not_fit_is_one_line(saved, monkeypatch, where):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    holder, name = (models, "_load_whole") if where == "loading" else (transformers.PreTrainedModel, "to")
    monkeypatch.setattr(holder, name, full)
    with pytest.raises(ModelError, match=r"in float32 does not fit in .*memory.*; use a smaller or quantised model"):
        load_model(str(saved), device="cpu")


def test_tied_weights_are_in_the_files_once_and_not_missing(saved, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    tiny_model("llama", tie_word_embeddings=True).save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    model = load_model(str(tmp_path), device="cpu").model
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)


def test_how_special_tokens_in_a_text_are_read_is_part_of_the_tokenizer(saved, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"split_special_tokens": True}))
    one, other = (load_model(str(folder), device="cpu") for folder in (saved, tmp_path))
    assert one.tokenizer("<s>")["input_ids"] != other.tokenizer("<s>")["input_ids"]
    assert one.tokenizer_hash != other.tokenizer_hash


def test_a_tokenizer_is_never_of_the_format_that_another_package_reads(saved, monkeypatch):
    plain, asked = transformers.AutoTokenizer.from_pretrained, []

    def reading(place, **options):
        asked.append(options["mistral_format"])
        return plain(place, **options)

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", reading)
    load_model(str(saved), device="cpu")
    spec = {"model": {"id": "bundled:demo/model"}, "datasets": ["bundled:demo/likes-rain"], "layers": [1], "limit": 10}
    dry_run(parse_spec({**spec, "settings": ["base"]}), probe=False)
    assert asked == [False, False]


def test_the_weights_hash_follows_the_weights(saved, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(saved, other)
    assert load_model(str(other), device="cpu").weights_hash == load_model(str(saved), device="cpu").weights_hash
    tiny_model("llama", seed=1).save_pretrained(other)
    assert load_model(str(other), device="cpu").weights_hash != load_model(str(saved), device="cpu").weights_hash


def test_parts_of_the_weights_are_hashed_at_once_and_in_the_order_of_their_names(tmp_path, monkeypatch):
    parts = {f"model-{k}.safetensors": bytes([k]) for k in (2, 1)}
    for name, content in parts.items():
        (tmp_path / name).write_bytes(content)
    met, plain = threading.Barrier(2, timeout=60), models._file_hash
    monkeypatch.setattr(models, "_file_hash", lambda path: (met.wait(), plain(path))[1])
    lines = [f"{name}\0{hashlib.sha256(parts[name]).hexdigest()}\n" for name in sorted(parts)]
    assert models.hash_weights(str(tmp_path)) == hash_text("".join(lines))


def test_the_config_hash_is_of_the_file_in_any_order_and_of_code_that_is_run(saved, tmp_path):
    other = shutil.copytree(saved, tmp_path / "other")
    text = json.loads((saved / "config.json").read_text())
    part = {"model_type": "llama", "head_dim": 8}
    (other / "config.json").write_text(json.dumps(dict(reversed(text.items()))))
    assert hash_config(str(other)) == hash_config(str(saved)) != ""
    (other / "config.json").write_text(json.dumps(text | {"text_config": part}))
    nested = hash_config(str(other))
    (other / "config.json").write_text(json.dumps(text | {"text_config": part | {"dtype": "float16"}}))
    assert hash_config(str(other)) == nested != hash_config(str(saved))
    (other / "modeling.py").write_text("")
    assert hash_config(str(other)) == nested != hash_config(str(other), code=True)


def test_dtype_and_attention_can_be_chosen(saved):
    loaded = load_model(str(saved), dtype="bfloat16", attention="eager", device="cpu")
    assert loaded.model.dtype == torch.bfloat16
    assert (loaded.dtype, loaded.attention) == ("bfloat16", "eager")


@pytest.mark.parametrize(("name", "attention"), [("gemma2", "eager"), ("bloom", "eager"), ("gpt2", "sdpa")])
def test_attention_is_sdpa_where_the_model_has_it_and_keeps_its_soft_capping(name, attention, saved, tmp_path):
    shutil.copytree(saved, tmp_path / "m")
    tiny_model(name).save_pretrained(tmp_path / "m")
    assert load_model(str(tmp_path / "m"), device="cpu").attention == attention


@pytest.mark.parametrize("name", ["Gemma2", "VaultGemma"])
def test_soft_capping_is_not_left_to_transformers(name, saved, tmp_path, monkeypatch):
    """Which took SDPA for these models once (5.17), and computed something else in silence."""
    shutil.copytree(saved, tmp_path / "m")
    config = getattr(transformers, f"{name}Config")(**SPECIFICATIONS["gemma2"][1])
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    model.save_pretrained(tmp_path / "m")
    monkeypatch.setattr(type(model), "_supports_sdpa", True)
    assert load_model(str(tmp_path / "m"), device="cpu").attention == "eager"
    with pytest.raises(ModelError, match="would leave out the soft-capping"):
        load_model(str(tmp_path / "m"), device="cpu", attention="sdpa")


@pytest.mark.parametrize(
    ("model_id", "words_"),
    [
        ("./no/such/directory", "no such directory"),
        ("bundled:demo/none", "nothing of that name is bundled"),
    ],
)
def test_missing_models_are_one_line(model_id, words_):
    with pytest.raises(ModelError, match=words_) as caught:
        load_model(model_id)
    assert "\n" not in str(caught.value)


def test_a_hub_id_that_cannot_be_had_is_one_line(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("nobody/nothing is not a local folder and is not a valid model identifier\nmore\nlines")

    monkeypatch.setattr(models.transformers.AutoConfig, "from_pretrained", offline)
    with pytest.raises(ModelError, match="'nobody/nothing' cannot be loaded: nobody/nothing is not a local") as caught:
        load_model("nobody/nothing")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("; no directory of that name is there either"), "a path may be mistyped"


def test_a_directory_without_a_model_and_damaged_weights_are_named(saved, tmp_path):
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        load_model(str(tmp_path))
    broken = tmp_path / "broken"
    shutil.copytree(saved, broken)
    (broken / "model.safetensors").write_bytes(b"\x00" * 64)
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        load_model(str(broken), device="cpu")
    assert "no directory" not in str(caught.value)
    shutil.copy(saved / "model.safetensors", broken)
    (broken / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(broken), device="cpu")


@pytest.mark.parametrize("kind", ["Bart", "T5"])
def test_an_encoder_decoder_is_refused_and_not_halved(kind, saved, tmp_path):
    """Of BART transformers would load the decoder alone."""
    shutil.copytree(saved, tmp_path / "m")
    getattr(transformers, f"{kind}Config")().save_pretrained(tmp_path / "m")
    with pytest.raises(ModelError, match=f"m' cannot be loaded: it is an encoder-decoder \\({kind.lower()}\\)"):
        load_model(str(tmp_path / "m"), device="cpu")


def test_choices_that_do_not_exist_are_refused():
    with pytest.raises(InputError, match="dtype 'float8' is not one of"):
        pick_dtype("float8", "cpu")
    with pytest.raises(InputError, match="device 'gpu'"):
        pick_device("gpu")
    assert pick_dtype("auto", "cuda") == "bfloat16"
    assert pick_dtype("auto", "mps") == "float32"
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="sees no CUDA device"):
            pick_device("cuda:0")


def test_a_gpu_past_the_last_one_is_refused_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert [pick_device(one) for one in ("cuda", "cuda:7", "auto")] == ["cuda", "cuda:7", "cuda"]
    with pytest.raises(ModelError, match="device 'cuda:8' asked for, but torch sees 8 CUDA devices"):
        pick_device("cuda:8")


def test_quantised_loading_names_the_package_it_needs(saved, monkeypatch):
    def absent(package, extra, purpose):
        raise MissingDependency(f"{purpose} needs {package}")

    monkeypatch.setattr(models, "require", absent)
    with pytest.raises(MissingDependency, match="bitsandbytes"):
        load_model(str(saved), load_in_8bit=True)


def test_the_extra_that_is_named_for_quantised_loading_brings_its_package_in_a_version_that_transformers_takes(
    saved, monkeypatch
):
    import tomllib
    from pathlib import Path

    from packaging.requirements import Requirement
    from packaging.version import Version
    from transformers.utils.import_utils import BITSANDBYTES_MIN_VERSION

    asked = []
    monkeypatch.setattr(
        models, "require", lambda *what: asked.append(what) or (_ for _ in ()).throw(MissingDependency("x"))
    )
    with pytest.raises(MissingDependency):
        load_model(str(saved), load_in_4bit=True)
    extras = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    package, extra, _ = asked[0]
    [needed] = [Requirement(line) for line in extras["optional-dependencies"][extra] if line.startswith(package)]
    [least] = needed.specifier
    assert (least.operator, Version(least.version)) >= (">=", Version(BITSANDBYTES_MIN_VERSION))


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (8, {"load_in_8bit": True}),
        (4, {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "float32"}),
    ],
)
def test_what_bitsandbytes_is_asked_for_is_recorded_and_the_model_stays_where_it_was_put(
    saved, monkeypatch, bits, expected
):
    plain, asked = transformers.AutoModelForCausalLM.from_pretrained, []

    def loading(place, **options):
        asked.append((options.pop("quantization_config"), options.pop("device_map")))
        model, info = plain(place, **options)
        monkeypatch.setattr(type(model), "to", lambda *_: pytest.fail("a quantised model cannot be moved"))
        return model, info

    monkeypatch.setattr(models, "require", lambda *_: None)
    monkeypatch.setattr(models.transformers, "BitsAndBytesConfig", lambda **options: options)
    monkeypatch.setattr(models.transformers.AutoModelForCausalLM, "from_pretrained", loading)
    loaded = load_model(str(saved), device="cpu", **{f"load_in_{bits}bit": True})
    assert asked == [(expected, {"": "cpu"})]
    assert loaded.provenance()["quantisation"] == expected
    assert loaded.provenance()["device"] == "cpu"
    assert loaded.provenance()["parameters"] == sum(p.numel() for p in loaded.model.parameters())


@pytest.mark.parametrize(
    ("model", "run"),
    [
        ({"load_in_8bit": True}, {}),
        ({"load_in_4bit": True}, {"device_map": "balanced"}),
        ({"dtype": "float16", "attention": "eager", "revision": "abc", "trust_remote_code": True}, {"device": "cpu"}),
    ],
)
def test_a_build_loads_its_model_as_its_spec_says(monkeypatch, model, run):
    asked = {}
    monkeypatch.setattr(session, "load_model", lambda place, **options: asked.update(options, place=place))
    session.load(parse_spec({"model": {"id": "x/y", **model}, "datasets": ["bundled:demo"], "layers": [1], "run": run}))
    defaults = {
        "place": "x/y", "revision": None, "dtype": "auto", "attention": "auto", "device": "auto", "device_map": None,
        "load_in_8bit": False, "load_in_4bit": False, "trust_remote_code": False,
    }  # fmt: skip
    assert asked == {**defaults, **model, **run}
