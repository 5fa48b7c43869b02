"""The proof sees any one wrong number of the trie path: in whichever example, vector, multiplier or array it stands;
and takes rounding for what it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from test_engine_lines import sized_examples
from tiny_models import random_examples, random_steering, tiny_model

from cache_builder.engine import Engine, Example
from cache_builder.engine import parity as parity_module
from cache_builder.prompts.inputs import provable
from steerstats.errors import ModelError

LONGEST = 1  # of sizes below: neither the first example, nor the middle, nor the last
SIZES = (9, 16, 11, 12, 10, 9, 12)
BASE, FIRST_SMALLEST, FIRST_LARGEST, LAST_SMALLEST, LAST_LARGEST = 0, (0, 0), (0, 3), (1, 0), (1, 3)


@pytest.fixture
def case():
    return sized_examples(SIZES), random_steering(np.random.default_rng(0))


def spoil(monkeypatch, change, *, path="trie", row=None):
    """Have runs on a path give other numbers: `change` gets copies of the arrays, the examples, whose order they
    have, and how sequences run; `row` says whether only in the proof's full row, or only outside it."""
    plain = Engine._run

    def run(engine, request, **how):
        scores = plain(engine, request, **how)
        if how.get("path") != path or row not in (None, how.get("rows") is not None):
            return scores
        names = ("logits", "logsumexp", "completion_logit", "completion_logprob", "activations")
        arrays = {name: None if getattr(scores, name) is None else getattr(scores, name).copy() for name in names}
        change(arrays, request.examples, engine.forward.lines)
        return replace(scores, **arrays)

    monkeypatch.setattr(Engine, "_run", run)


@pytest.mark.parametrize("name", ["logits", "logsumexp", "completion_logit", "completion_logprob"])
@pytest.mark.parametrize("wrong", [1e-3, np.nan])
@pytest.mark.parametrize("row", [False, True])
def test_one_number_of_any_kind_fails_the_proof(monkeypatch, case, name, wrong, row):
    def change(arrays, examples, lines):
        arrays[name][(0, -1) + (0,) * (arrays[name].ndim - 2)] += wrong

    spoil(monkeypatch, change, row=row)
    engine = Engine(tiny_model("llama"))
    found = engine.prove(*case, completions=True)
    assert (found.passed, found.reason.removeprefix(f"in a row of {found.row_tokens} tokens ")) == (
        False,
        "its logits differ",
    )
    assert engine.path == "plain"
    assert np.isnan(found.difference) if np.isnan(wrong) else found.difference > 9e-4


@pytest.mark.parametrize("wrong", [1e-3, np.nan])
def test_one_activation_fails_the_proof(monkeypatch, case, wrong):
    def change(arrays, examples, lines):
        arrays["activations"][0, 0, 0] *= 1 + wrong

    spoil(monkeypatch, change)
    found = Engine(tiny_model("llama")).prove(*case)
    assert not found.passed
    assert "its activations differ by" in found.reason


@pytest.mark.parametrize("row", [False, True])
def test_activations_are_held_to_their_own_rounding_and_not_to_that_of_logits(monkeypatch, case, row):
    """A share of a norm was held to a tolerance in nats: with logits of 50, activations could be two fifths off."""

    def change(arrays, examples, lines):
        arrays["activations"] *= 1.1

    model = tiny_model("llama").to(torch.bfloat16)
    with torch.no_grad():
        model.lm_head.weight *= 10
    assert Engine(model).prove(*case).passed
    spoil(monkeypatch, change, row=row)
    found = Engine(model).prove(*case)
    assert not found.passed
    assert found.activation_difference == pytest.approx(0.1, rel=0.2)
    assert found.activation_difference < found.tolerance
    assert "its activations differ by" in found.reason


@pytest.mark.parametrize("code", [BASE, FIRST_SMALLEST, FIRST_LARGEST, LAST_SMALLEST, LAST_LARGEST])
@pytest.mark.parametrize("example", [0, LONGEST, len(SIZES) - 1])
def test_the_extremes_of_the_first_and_last_vector_are_compared_in_ends_and_longest(monkeypatch, case, example, code):
    examples, steering = case
    column = steering.codes[code] if code else 0

    def change(arrays, there, lines):
        for i, one in enumerate(there):
            if one is examples[example]:
                arrays["logits"][i, column] += 1e-3

    spoil(monkeypatch, change, row=False)
    assert not Engine(tiny_model("llama")).prove(examples, steering).passed


def test_the_longest_completions_are_compared(monkeypatch):
    rng = np.random.default_rng(0)
    examples = [*random_examples(rng, 8, shared=30), *random_examples(rng, 1, completion=9), *random_examples(rng, 16)]
    longest = int(np.argmax([max(map(len, one.options)) for one in examples]))
    assert 8 not in (0, longest, len(examples) // 2, len(examples) - 1)

    def change(arrays, there, lines):
        for i, one in enumerate(there):
            if one is examples[8]:
                arrays["completion_logit"][i, 0] += 1e-3

    spoil(monkeypatch, change, row=False)
    assert not Engine(tiny_model("llama")).prove(examples, completions=True).passed


def test_the_largest_difference_is_kept_when_the_full_row_is_nearer(monkeypatch, case):
    def change(arrays, examples, lines):
        arrays["logits"] += 5e-5
        arrays["activations"] *= 1 + 6e-5

    def batched(arrays, examples, lines):
        arrays["logits"] += 4e-5

    spoil(monkeypatch, change, row=False)
    spoil(monkeypatch, batched, path="plain")
    found = Engine(tiny_model("llama")).prove(*case)
    assert found.passed
    assert found.difference == pytest.approx(5e-5, rel=0.2)
    assert found.activation_difference == pytest.approx(6e-5, rel=0.2)
    assert found.plain_difference == pytest.approx(4e-5, rel=0.2)
    assert found.row_tokens > 0


def test_what_one_proof_finds_against_padding_holds_after_another_on_examples_of_one_length(monkeypatch):
    def change(arrays, there, lines):
        if lines == "batched" and len({len(one.options[0]) for one in there}) > 1:
            arrays["logits"] += 0.01

    spoil(monkeypatch, change, path="plain")
    engine = Engine(tiny_model("llama"), path="plain")
    assert engine.prove(sized_examples([9, 12, 9, 12])).lines == "equal"
    assert engine.prove(sized_examples([9, 9, 9])).lines == engine.forward.lines == "equal"
    assert Engine(tiny_model("llama"), path="plain").prove(sized_examples([9, 9, 9])).lines == "batched"


def test_a_proof_that_ends_in_an_error_leaves_short_rows_to_the_mask_that_suits_them(monkeypatch, case):
    plain = Engine._run

    def run(engine, request, **how):
        if how.get("path") == "trie" and engine.forward.always_block:
            raise ValueError("no blocks")
        return plain(engine, request, **how)

    monkeypatch.setattr(Engine, "_run", run)
    engine = Engine(tiny_model("llama"))
    assert engine.mask == "blocked"
    assert engine.prove(*case).passed, "dense"
    assert engine.mask == "dense"
    assert not engine.forward.always_block


@pytest.mark.parametrize("wrong", [0.01, np.nan])
def test_a_model_that_minds_others_of_its_own_length_gets_one_sequence_at_a_time(monkeypatch, wrong):
    """Unsteered, each of the examples that are compared is alone of its length among them."""
    examples = sized_examples([9, 12, 9, 12])

    def change(arrays, there, lines):
        lengths = [len(one.options[0]) for one in there]
        if len(set(lengths)) < len(lengths) if lines == "equal" else len(lengths) > 1:
            arrays["logits"] += wrong

    spoil(monkeypatch, change, path="plain")
    assert Engine(tiny_model("llama"), path="plain").prove(examples, n=2).lines == "single"


def test_where_one_completion_begins_another_branches_of_completions_are_compared_too():
    """A recurrent model that forgets in a few tokens is wrong just behind a branch, and right along a single path."""
    config = transformers.BambaConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=48, mamba_n_heads=4, mamba_d_head=16, mamba_n_groups=1, mamba_d_state=8,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.full_like(parameter, 4.0) if "A_log" in name else 4 * parameter)
    prompt = np.arange(10, 30)
    options = tuple(np.append(prompt, end) for end in ([5], [5, 6, 7], [5, 8, 9]))
    example = Example(options, prompt=20, branch=21, reads=((0, 20, 21),))
    steering = random_steering(np.random.default_rng(0), scope="all")
    found = Engine(model).prove(provable([example]), steering, completions=True)
    assert (found.passed, found.reason) == (False, "its logits differ")


@pytest.mark.parametrize("row", [False, True])
@pytest.mark.parametrize(("name", "refused"), [("logits", True), ("completion_logit", False)])
def test_noise_of_sums_over_long_completions_excuses_nothing_at_the_first_token(monkeypatch, name, refused, row):
    case = sized_examples(SIZES, beyond=30), random_steering(np.random.default_rng(0))

    def noisy(arrays, examples, lines):
        arrays["completion_logprob"] += 0.1

    def change(arrays, examples, lines):
        arrays[name] += 0.2

    spoil(monkeypatch, noisy, path="plain")
    spoil(monkeypatch, change, row=row)
    found = Engine(tiny_model("llama").to(torch.bfloat16)).prove(*case, completions=True)
    assert (found.passed, found.reason.endswith("its logits differ")) == (not refused, refused)
    assert found.difference == pytest.approx(0.2, abs=0.05)
    assert found.first_tolerance < 0.1
    assert found.tolerance == pytest.approx(found.first_tolerance if refused else 0.3, abs=0.05)


def test_sums_for_which_float32_has_no_finer_steps_are_no_failure_of_the_proof(monkeypatch):
    """GPT-2's logits are all near -35: of 40 tokens the last place of a sum is more than 1e-4."""
    case = sized_examples(SIZES, beyond=40), random_steering(np.random.default_rng(0))
    model = tiny_model("gpt2")
    with torch.no_grad():
        along = torch.nn.functional.normalize(torch.ones(32), dim=0)
        model.transformer.wte.weight += along
        model.transformer.ln_f.bias -= 30 * along
    found = Engine(model).prove(*case, completions=True)
    assert (found.passed, found.lines, found.first_tolerance) == (True, "batched", 1e-4)
    assert found.difference <= found.tolerance < 1e-3

    def change(arrays, examples, lines):
        arrays["completion_logit"] += 1e-3

    spoil(monkeypatch, change)
    assert not Engine(model).prove(*case, completions=True).passed


def test_a_row_of_which_no_code_is_an_extreme_is_compared_under_one_that_it_holds(monkeypatch):
    steering = random_steering(np.random.default_rng(0), 1, multipliers=[*np.linspace(0.1, 0.5, 40), -1.0, 1.0])
    seen = []

    def change(arrays, examples, lines):
        seen.append(len(examples))
        arrays["logits"][0, 1] += 1e-3

    case = sized_examples(SIZES), steering
    assert Engine(tiny_model("llama"), budget=16).prove(*case).passed
    spoil(monkeypatch, change, row=True)
    assert not Engine(tiny_model("llama"), budget=16).prove(*case).passed
    assert set(seen) == {1}, "an example in several rows, the extremes of the grid in the last of them"


@pytest.mark.parametrize(("quantised", "lines"), [(False, "single"), (True, "batched")])
def test_layers_of_eight_bits_round_as_these_do_whatever_the_rest_is_computed_in(monkeypatch, case, quantised, lines):
    def change(arrays, examples, lines):
        arrays["logits"] += 0.05

    spoil(monkeypatch, change, path="plain")
    model = tiny_model("llama").to(torch.float16)
    if quantised:
        model.config.quantization_config = {"load_in_8bit": True}
    assert Engine(model, path="plain").prove(*case).lines == lines


def test_low_precision_is_held_to_the_models_own_noise():
    rng = np.random.default_rng(21)
    engine = Engine(tiny_model("llama").to(torch.bfloat16))
    parity = engine.prove(random_examples(rng), random_steering(rng))
    assert parity.dtype == "bfloat16"
    # How far batched passes are from single ones depends on the processor; the tolerance has to follow it.
    assert 3 * parity.plain_difference <= parity.tolerance
    assert parity.difference <= parity.tolerance < 0.2
    scores = engine.run(random_examples(rng), random_steering(rng))
    # A bfloat16 logit has 8 significant bits; ours have to be finer.
    rounded = torch.from_numpy(scores.logits).to(torch.bfloat16).float().numpy()
    assert (rounded != scores.logits).mean() > 0.9


def test_where_batches_happen_to_give_the_bits_of_single_passes_rounding_is_still_no_error(monkeypatch):
    """Of five seeds of llama, gemma3, phi3, mistral and qwen2 each, one or two were refused on such a processor."""
    rng = np.random.default_rng(21)
    monkeypatch.setattr(parity_module, "_plain_difference", lambda *_: (0.0, 0.0, 0.0))
    engine, examples = Engine(tiny_model("llama").to(torch.bfloat16), path="plain"), random_examples(rng)
    found, scores = engine.prove(examples), engine.run(examples)
    assert np.abs(scores.logits).max() < scores.logsumexp.max()
    assert found.tolerance == pytest.approx(2.0**-7 * scores.logsumexp.max(), rel=0.1)


@pytest.mark.parametrize("sum_name", ["completion_logit", "completion_logprob"])
def test_whole_completions_are_proved_where_they_are_scored(sum_name, monkeypatch):
    rng = np.random.default_rng(30)
    engine = Engine(tiny_model("llama"))
    real = engine._run

    def slightly_off(*args, path=None, **rest):
        scores = real(*args, path=path, **rest)
        if path == "trie" and scores.completion_logit is not None:
            getattr(scores, sum_name)[0, 0, 1] += 0.01
        return scores

    monkeypatch.setattr(engine, "_run", slightly_off)
    assert engine.prove(random_examples(rng), random_steering(rng)).passed
    assert not engine.prove(random_examples(rng), random_steering(rng), completions=True).passed


def test_dense_and_blocked_masks_are_both_proved(monkeypatch):
    rng = np.random.default_rng(31)
    engine = Engine(tiny_model("llama"))
    seen, real = set(), engine.forward._masks

    def look(layout, stages):
        found = real(layout, stages)
        seen.add("dense" if found[1] is None else "blocked")
        return found

    monkeypatch.setattr(engine.forward, "_masks", look)
    assert engine.prove(random_examples(rng), random_steering(rng)).passed
    assert seen == {"dense", "blocked"}


def test_a_wrong_mask_fails_the_proof(monkeypatch):
    rng = np.random.default_rng(22)
    engine = Engine(tiny_model("llama"))

    def causal_only(layout, stages):
        return [[torch.ones(1, 1, len(s), len(s), dtype=torch.bool).tril()] for s in stages], None

    monkeypatch.setattr(engine.forward, "_masks", causal_only)
    parity = engine.prove(random_examples(rng), random_steering(rng))
    assert engine.path == parity.path == "plain"
    assert parity.difference > parity.tolerance
    assert parity.to_dict()["passed"] is False


@pytest.mark.parametrize("own", [np.nan, 2e-4, 5e-5])
def test_a_model_whose_own_logits_are_not_those_that_are_read_is_refused(monkeypatch, own):
    rng = np.random.default_rng(27)
    engine = Engine(tiny_model("llama"))
    real = engine.forward.own_logits
    monkeypatch.setattr(engine.forward, "own_logits", lambda tokens: real(tokens) + np.float32(own))
    if own < 1e-4:
        assert engine.prove(random_examples(rng), random_steering(rng)).own_difference == pytest.approx(own, rel=0.1)
        return
    with pytest.raises(
        ModelError, match=rf"differ by {own:.1e} nats from those that the model gives by itself \(allow"
    ):
        engine.prove(random_examples(rng), random_steering(rng))


@pytest.mark.parametrize(
    ("field", "reason"), [("picked", "its logits differ"), ("activations", "its activations differ")]
)
def test_logits_and_activations_are_proved_each_for_itself(field, reason, monkeypatch):
    rng = np.random.default_rng(27)
    engine = Engine(tiny_model("llama"))
    real = engine.forward.run

    def slightly_off(layout, tables, read_layers=()):
        output = real(layout, tables, read_layers)
        if layout.is_trie:
            setattr(output, field, getattr(output, field) * 1.01)
        return output

    monkeypatch.setattr(engine.forward, "run", slightly_off)
    parity = engine.prove(random_examples(rng), random_steering(rng))
    assert not parity.passed
    assert parity.reason.startswith(reason)
