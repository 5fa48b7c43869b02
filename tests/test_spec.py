"""Build specs: what is refused and how it is said, what the hash covers, what the presets hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from cache_builder.datasets import paper_datasets
from cache_builder.spec import DEFAULT_LAYERS, SETTINGS, BuildSpec, is_place, load_spec, local_path, parse_spec, presets
from steerstats.errors import SpecError

MINIMAL = 'datasets = ["openness"]\nlayers = [1]\n[model]\nid = "some/model"\n'


@pytest.fixture
def toml(tmp_path):
    def write(text: str):
        path = tmp_path / "spec.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_tan2024_preset_is_the_papers_grid():
    spec = load_spec("tan2024")
    assert spec.dataset_names() == paper_datasets()
    assert spec.settings == SETTINGS == spec.training_settings()
    assert spec.multipliers == (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
    assert (spec.scope, spec.score, spec.order, spec.operator) == ("last_prompt", "logit_diff", "tan2024", "add")
    assert (spec.vectors.mean, spec.vectors.rescale, spec.vectors.method) == (True, "base", "mean_difference")
    assert spec.split_percent == (40, 10, 50)
    assert spec.steered_layers(32) == ((13,),)
    assert load_spec("tan2024", ["scope=first_answer", "score=logit_sum"]).score == "logit_sum"


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        ("meta-llama/Llama-2-7b-chat-hf", 13),
        ("Qwen/Qwen1.5-14B-Chat", 21),
        ("meta-llama/Llama-2-70b-chat-hf", 30),
        ("google/gemma-2-2b-it", 14),
    ],
)
def test_the_papers_models_have_their_layers(model, layer):
    assert load_spec("tan2024", [f"model.id={model}"]).steered_layers() == ((layer,),)
    assert len(DEFAULT_LAYERS) == 4


def test_the_demo_preset_names_bundled_things_only():
    assert presets() == ("demo", "tan2024")
    spec = load_spec("demo")
    assert spec.model.id == "bundled:demo/model"
    assert local_path(spec.model.id).parts[-3:] == ("cache_builder", "demo", "model")
    assert spec.model.dtype == "float32"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("multiplier=[1]", "multiplier: key is not known; did you mean multipliers?"),
        ("model.idd=x", "model.idd: key is not known; did you mean id?"),
        ("xyzzy=1", "xyzzy: key is not known; there are name, model, datasets"),
        ("multipliers=[0.5, 1]", "multipliers: must contain 0 and at least one other multiplier, not [0.5, 1.0]"),
        ("multipliers=[0, -0.0]", "multipliers: must contain 0 and at least one other multiplier, not [0.0, -0.0]"),
        ("multipliers=[0, nan]", "multipliers: must be finite"),
        ('multipliers=[0, "x"]', "multipliers.1: "),
        ("scope=last", "scope: input should be 'last_prompt', 'first_answer', 'all' or 'prompt', not 'last'"),
        ('settings=["base", "sys"]', "settings.1: "),
        ("datasets=openess", "datasets: dataset 'openess' is not known; did you mean openness"),
        ("datasets=[]", "datasets: is empty"),
        ("split_percent=[40, 10, 40]", "split_percent: [40, 10, 40] must add up to 100"),
        ("split_percent=[0, 50, 50]", "split_percent: [0, 50, 50] must add up to 100, train and test above 0"),
        ("split_percent=[50, 50, 0]", "split_percent: [50, 50, 0] must add up to 100, train and test above 0"),
        ("layers=[]", "layers: is empty"),
        ("layers=[-1]", "layers.0: "),
        ("seed=-1", "seed: "),
        ("limit=0", "limit: "),
        ("controls.folds=1", "controls.folds: is 0 (no fold vectors) or at least 2"),
        ('controls.shifts=["base"]', "controls.shifts: 'base' is not train->eval"),
        ("shifts=mean->nowhere", "shifts: 'mean->nowhere' is not train->eval"),
        ("controls.shifts=everything", "controls.shifts: 'everything' is not train->eval"),
        ("vectors.read=last_prompt", 'vectors.read: "last_prompt" contrasts the two descriptions, which stand in'),
        ("vectors.files={base='v.safetensors'}", "vectors.files: the name 'base' may hold"),
        ("vectors.files={mean='v.safetensors'}", "vectors.files: the name 'mean' may hold"),
        ("vectors.files_rescale=2", "vectors.files_rescale: "),
        ('vectors.settings=["sys_pos"]', 'vectors.rescale: "base" needs the base setting'),
        (
            "vectors={files={a='v'}, files_rescale='base', rescale='none', settings=['sys_pos']}",
            'vectors.files_rescale: "base" needs the base setting among the training settings',
        ),
        ("prompt.date=today", "prompt.date: "),
        ("custom_datasets={'a b' = 'x'}", "custom_datasets: the name 'a b'"),
        ("custom_datasets={'güte' = 'x'}", "custom_datasets: the name 'güte' should be ASCII letters"),
        ("custom_datasets={'.mine' = 'x'}", "custom_datasets: the name '.mine' should not begin with '.'"),
        ("multipliers=[0, true]", "multipliers.1: input should be a valid number, not True"),
        ('layers="2"', "layers.0: input should be a valid integer, not '2'"),
        ("controls.random=true", "controls.random: input should be a valid integer, not True"),
        ('multipliers=["0", "1"]', "multipliers.0: input should be a valid number, not '0'"),
        ("settings=foo", "settings: should be a list, such as [\"base\"], not 'foo'"),
        ("controls=3", "controls: should be a table of key = value, whose keys an override spells controls.KEY=VALUE"),
        ("random=3", "random: key is not known; did you mean controls.random?"),
        ("model.dtype=int8", "model.dtype: "),
        ("model=x", "model: "),
        ("run.budget=0", "run.budget: "),
        ("no equals sign", "override 'no equals sign': must be key=value"),
        ("=1", "override '=1': must be key=value"),
        ("seed.x=1", "override 'seed.x=1': seed is not a table"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_key(override, message):
    with pytest.raises(SpecError) as caught:
        load_spec("tan2024", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_misspelt_dataset_of_ones_own_is_told_from_one_of_the_papers():
    own = "custom_datasets={kindness='k.jsonl', openness2='o.jsonl'}"
    with pytest.raises(SpecError, match=r"'kindnes' is not known; did you mean kindness of custom_datasets\?"):
        load_spec("tan2024", [own, "datasets=kindnes"])
    assert "openness" in load_spec("tan2024", [own, "datasets=openness"]).dataset_names()


def test_a_dataset_that_is_named_twice_is_built_once():
    own = "custom_datasets={openness='o.jsonl'}"
    assert load_spec("tan2024", [own, 'datasets=["openness", "narcissism", "openness"]']).dataset_names() == (
        "openness",
        "narcissism",
    )
    assert load_spec("tan2024", ['datasets=["paper", "openness"]']).dataset_names() == paper_datasets()


def test_one_line_even_for_several_wrong_keys(toml):
    with pytest.raises(SpecError, match=r"spec\.toml: .* \(and 1 more wrong key\)$"):
        load_spec(toml(MINIMAL), ["seed=-1", "order=none"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ['settings=["base"]', 'vectors.settings=["base", "sys_pos"]'],
            r"vectors\.settings: sys_pos is not among .*base\)",
        ),
        (["vectors.files.mine=v", "sweep=[1, 2]"], r"vectors\.files: a sweep has vectors of its own only"),
        (
            ["vectors.files.mine=v", "shifts=mine->base", "controls.random=1"],
            r"controls\.shifts: 'base->base' is not among",
        ),
        (
            ["vectors.read=last_prompt", 'vectors.settings=["base", "sys_neg"]'],
            "in the system text for base and sys_neg: these would be one vector",
        ),
    ],
)
def test_keys_that_do_not_go_together_are_named(overrides, message):
    with pytest.raises(SpecError, match=message):
        load_spec("tan2024", overrides)


@pytest.mark.parametrize("name", ["bundled:demo/model", "./m", "../m", "/m", "~/m", "C:\\m", "d:/m"])
def test_a_model_named_by_its_place_is_told_from_one_of_the_hub(name):
    assert is_place(name)
    assert not is_place(f"hub/{name[1:]}")


def test_both_quantisations_at_once_are_refused():
    with pytest.raises(SpecError, match="model: load_in_8bit and load_in_4bit exclude each other"):
        load_spec("tan2024", ["model.load_in_8bit=true", "model.load_in_4bit=true"])


def test_files_that_are_no_specs_are_named(toml, tmp_path):
    with pytest.raises(SpecError, match=r"nope: is neither a file nor a preset \(demo, tan2024\)"):
        load_spec("nope")
    with pytest.raises(SpecError, match=r"spec\.toml: is not TOML: .*line 2"):
        load_spec(toml("seed = 1\nseed 2"))
    with pytest.raises(SpecError, match=r"spec\.toml: model: is missing"):
        load_spec(toml('datasets = ["openness"]'))


def test_paths_in_a_file_are_relative_to_it_and_in_an_override_to_the_caller(toml, tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    text = (
        MINIMAL.replace("some/model", "weights")
        + '[prompt]\nsystem_text = "Hi"\ndescriptions = "d.json"\n[custom_datasets]\nmine = "m.jsonl"\n'
    )
    spec = load_spec(toml(text), ["custom_datasets.yours=y.jsonl", "run.data_dir=data"])
    assert local_path(spec.model.id) == tmp_path / "weights"
    assert spec.prompt.descriptions == str(tmp_path / "d.json")
    assert spec.prompt.system_text == "Hi"
    assert spec.custom_datasets == {"mine": str(tmp_path / "m.jsonl"), "yours": "y.jsonl"}
    assert spec.run.data_dir == "data"
    assert spec.dataset_names() == ("openness", "mine", "yours")
    elsewhere = '[run]\nout = "built"\n[custom_datasets]\nhome = "~/h.jsonl"\ndemo = "bundled:demo/d.jsonl"\n'
    spec = load_spec(toml(MINIMAL.replace("some/model", "./gone") + elsewhere))
    assert spec.model.id == str(tmp_path / "gone"), "a place, whether something is there or not"
    assert spec.run.out == str(tmp_path / "built")
    assert spec.custom_datasets == {"home": str(Path.home() / "h.jsonl"), "demo": "bundled:demo/d.jsonl"}
    monkeypatch.chdir(tmp_path)
    assert load_spec("tan2024", ["model.id=weights"]).model.id == "./weights"
    assert load_spec("tan2024", ["model.id=../weights"]).model.id == "../weights"


def test_a_spec_is_frozen_and_survives_a_round_trip():
    spec = load_spec("tan2024", ["layers=7", "limit=20", "controls.random=5", "shifts=base->base"])
    with pytest.raises(ValidationError):
        spec.seed = 3
    again = parse_spec(json.loads(spec.model_dump_json()))
    assert again == spec
    assert again.hash() == spec.hash()
    assert (spec.layers, spec.shifts) == ((7,), ("base->base",))


CHANGES = [
    "model.id=other/model", "model.revision=abc", "model.dtype=float32", "model.attention=eager",
    "model.load_in_8bit=true", "model.load_in_4bit=true", "model.trust_remote_code=true",
    'datasets=["openness"]', 'settings=["base"]', "prompt.system_text=Hi", "prompt.template=plain",
    "prompt.template_args.enable_thinking=false", "prompt.date=2024-07-02", "prompt.leading_space=false",
    "prompt.prefill=I choose",
    "order=balanced", "split=tan2024-literal", "split_percent=[50, 0, 50]", "seed=1", "limit=10",
    "layers=[12]", "sweep=[1, 2]", "activation_layers=[3]", "activation_dtype=float32",
    "vectors.method=pca", "vectors.read=last_token", "vectors.mean=false", "vectors.rescale=none",
    'vectors.settings=["base"]', "multipliers=[-1, 0, 1]", "scope=all", "operator=ablate_add",
    "score=logprob_sum", 'shifts=["base->base"]', "controls.resampled=3", "controls.folds=2",
    "controls.random=1", "controls.shuffled=1", "controls.debiased=true", "vectors.files={a='v.safetensors'}",
    "controls.crossfit_folds=4",
]  # fmt: skip


def test_everything_that_changes_numbers_changes_the_hash():
    hashes = [load_spec("tan2024", [change]).hash() for change in CHANGES] + [load_spec("tan2024").hash()]
    assert len(set(hashes)) == len(hashes)
    elsewhere = load_spec("tan2024", ["controls.random=1", 'controls.shifts=["base->user_neg"]']).hash()
    assert elsewhere != load_spec("tan2024", ["controls.random=1"]).hash()
    covered = {re.split(r"[.=]", change)[0] for change in CHANGES}
    assert covered == set(BuildSpec.model_fields) - {"name", "run", "custom_datasets"}
    fields = {re.split(r"=", change)[0] for change in CHANGES}
    for table in ("model", "prompt", "vectors", "controls"):
        own = {f"{table}.{name}" for name in BuildSpec.model_fields[table].annotation.model_fields}
        assert (
            own - {"prompt.descriptions", "prompt.template_args", "vectors.files_rescale", "controls.shifts"} <= fields
        )


@pytest.mark.parametrize(
    "override",
    [
        "name=other",
        "run.device=cuda",
        "run.budget=512",
        "run.threads=3",
        "run.data_dir=x",
        "run.out=y",
        "run.device_map=auto",
        "prompt.descriptions=d.json",
        "multipliers=[1.5, 1, 0.5, -0.0, -0.5, -1, -1.5]",
        "layers=13",
        "controls.shifts=base->user_neg",
    ],
)
def test_what_changes_no_numbers_leaves_the_hash_alone(override):
    assert load_spec("tan2024", [override]).hash() == load_spec("tan2024").hash()


@pytest.mark.parametrize("again", ['["sys_pos", "base"]', '["base", "sys_pos", "base"]'])
def test_training_settings_are_canonical_however_they_are_written(again):
    spec = load_spec("tan2024", [f"vectors.settings={again}"])
    assert spec.training_settings() == ("base", "sys_pos")
    assert spec.hash() == load_spec("tan2024", ['vectors.settings=["base", "sys_pos"]']).hash()


def test_files_and_local_models_count_by_content_and_not_by_place():
    one, two = (load_spec("tan2024", [f"model.id=/{d}/model", f"custom_datasets.mine=/{d}/m"]) for d in ("a", "b"))
    assert one.hash({"data": {"mine": "1"}}) == two.hash({"data": {"mine": "1"}})
    assert one.hash({"data": {"mine": "1"}}) != one.hash({"data": {"mine": "2"}})
    assert one.hash() != load_spec("tan2024").hash()


def test_imported_vectors_are_identified_by_name_and_scale_and_lie_where_the_spec_does(toml, tmp_path):
    files = ["vectors.files={a='x/v.safetensors'}", "vectors.files={a='y/v.safetensors'}"]
    one, two = (load_spec("tan2024", [file]).hash({"vector_files": {"a": "1"}}) for file in files)
    assert one == two
    both = [load_spec("tan2024", [f"vectors.files={{{names}}}"]).hash() for names in ("a='v', b='w'", "b='w', a='v'")]
    assert both[0] == both[1]
    assert load_spec("tan2024", [files[0], "vectors.files_rescale=unit"]).hash({"vector_files": {"a": "1"}}) != one
    spec = load_spec(toml(MINIMAL + '[vectors.files]\nmine = "v.safetensors"\n'))
    assert spec.vectors.files == {"mine": str(tmp_path / "v.safetensors")}
    with pytest.raises(SpecError, match=r'mine is in none of the shifts; add "mine->base"'):
        load_spec(toml('shifts = ["base->base"]\n' + MINIMAL + '[vectors.files]\nmine = "v.safetensors"\n'))


def test_what_is_asked_of_controls_matters_only_where_there_are_controls(toml):
    text = MINIMAL + '[vectors]\nrescale = "none"\nmean = false\n'
    alone = load_spec(toml(text), ['settings=["user_neg"]'])
    assert alone.control_settings() == ()
    with pytest.raises(SpecError, match=r"controls\.shifts: 'base->base' is not train->eval"):
        load_spec(toml(text), ['settings=["user_neg"]', "controls.random=1"])
    every = load_spec(toml(MINIMAL), ["controls.random=1", "controls.shifts=all", 'settings=["base","sys_pos"]'])
    assert every.control_settings() == ("base", "sys_pos", "mean")
    for control in ("resampled=1", "folds=2", "random=1", "shuffled=1", "debiased=true"):
        assert load_spec(toml(MINIMAL), [f"controls.{control}"]).control_settings() == ("base",)
    both = load_spec(toml(MINIMAL), ["controls.random=1", 'controls.shifts=["base->base", "base->user_neg"]'])
    assert both.control_settings() == ("base",)
    bare = load_spec(toml(MINIMAL), ["controls.random=1", "controls.shifts=mean->sys_neg"])
    assert bare.control_settings() == ("mean",)


def test_controls_go_where_the_vector_itself_is_evaluated():
    def where(*overrides):
        return load_spec("tan2024", ["controls.random=1", *overrides])

    assert where().controls.shifts == where('shifts=["sys_pos->user_neg", "base->base"]').controls.shifts
    spec = where('shifts=["sys_pos->user_neg", "base->user_neg"]')
    assert (spec.controls.shifts, spec.control_settings()) == (("sys_pos->user_neg",), ("sys_pos",))
    assert parse_spec(json.loads(spec.model_dump_json())).hash() == spec.hash()
    assert (
        spec.hash()
        == where('shifts=["sys_pos->user_neg", "base->user_neg"]', "controls.shifts=sys_pos->user_neg").hash()
    )
    files = "vectors.files={mine='v.safetensors'}"
    assert where(files, 'shifts=["mine->base", "mean->base"]').controls.shifts == ("mean->base",)
    for shifts, named in (('["base->user_neg"]', "base->base"), ('["base->base"]', "mean->base")):
        with pytest.raises(SpecError, match=rf"controls\.shifts: '{named}' is not among shifts \(base->"):
            where(f"shifts={shifts}", f"controls.shifts={named}")
    # nothing is evaluated without a control, and the hash of such specs stays
    assert load_spec("tan2024", ["shifts=base->user_neg"]).controls.shifts == ("base->base",)


def test_specs_that_were_right_keep_their_hash():
    before = {
        "controls.random=1": "d918f11a",
        "shifts=mean->user_neg": "139a028b",
    }
    for override, start in before.items():
        assert load_spec("tan2024", [override]).hash().startswith(start)
    # the same words once meant other vectors
    exchanged = load_spec("tan2024", ["controls.shuffled=3"]).hashed()["controls"]
    assert exchanged.pop("exchanged") == "half"
    assert set(exchanged) == set(load_spec("tan2024").hashed()["controls"])


def test_label_shuffles_of_pca_are_refused():
    with pytest.raises(SpecError, match=r'controls\.shuffled: vectors\.method = "pca" .* use controls\.random'):
        load_spec("tan2024", ["vectors.method=pca", "controls.shuffled=9"])
    assert load_spec("tan2024", ["vectors.method=pca", "controls.random=9"]).controls.shuffled == 0


def test_last_prompt_takes_one_setting_of_either_place(toml):
    one = load_spec(toml(MINIMAL + '[vectors]\nread = "last_prompt"\nsettings = ["base", "user_neg"]\n'))
    assert one.training_settings() == ("base", "user_neg")
    with pytest.raises(SpecError, match=r"user turn for user_pos and user_neg: these would be one vector"):
        load_spec(
            toml(MINIMAL + '[vectors]\nread = "last_prompt"\nrescale = "none"\nsettings = ["user_pos", "user_neg"]\n')
        )
    with pytest.raises(SpecError, match=r"controls\.debiased: with vectors\.read"):
        load_spec(toml(MINIMAL + '[vectors]\nread = "last_prompt"\nsettings = ["base"]\n[controls]\ndebiased = true\n'))


def test_a_sweep_keeps_no_activations_unless_told_to():
    assert load_spec("tan2024", ["sweep=[5, 4]"]).kept_layers(32) == ()
    assert load_spec("tan2024", ["sweep=[5, 4]", "activation_layers=[4]"]).kept_layers(32) == (4,)
    assert load_spec("tan2024").kept_layers(32) == (13,)


def test_the_hash_is_the_same_in_every_version():
    # a changed value here orphans every cache that was ever built: raise the cache version when it has to change
    assert (
        load_spec("tan2024", ["layers=[13]"]).hash({"x": 1})
        == "4eda0e68d703a2ae20bc2e3ee1aaa5839edf99641fceee635c06a05975c5d369"
    )


def test_layers_are_checked_against_the_model():
    assert load_spec("tan2024", ["layers=[31]"]).kept_layers(32) == (31,)
    spec = load_spec("tan2024", ["layers=[3, 32]"])
    assert spec.steered_layers() == ((3, 32),)
    with pytest.raises(SpecError, match=r"layers: layer 32 is not in meta-llama/Llama-2-7b-chat-hf; it has 0-31"):
        spec.steered_layers(32)
    with pytest.raises(SpecError, match="activation_layers: layer 99"):
        load_spec("tan2024", ["activation_layers=[99]"]).steered_layers(32)
    with pytest.raises(SpecError, match="layers: no default for gpt2"):
        load_spec("tan2024", ["model.id=gpt2"]).steered_layers()
    assert load_spec("tan2024", ["sweep=[5, 4]"]).steered_layers(32) == ((4,), (5,))
