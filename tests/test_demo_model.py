"""The bundled micro model: it loads offline, knows its personas, and steers beyond chance; nothing leaks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cache_builder.demo import probe  # noqa: E402
from cache_builder.demo.compose import (  # noqa: E402
    HELD_OUT_PER_POLE,
    PERSONA,
    SETTINGS,
    SYSTEM,
    agreement,
    choices,
    held_out,
    items,
    question,
    stance,
    statement,
    turns,
)
from cache_builder.demo.lessons import CURRICULUM, FORMS, batch, lesson  # noqa: E402
from cache_builder.demo.tokenizer import make_tokenizer, render  # noqa: E402
from cache_builder.demo.train import Plan, encode, make_model, train  # noqa: E402
from cache_builder.demo.words import ADVERBS, BEHAVIOURS, behaviour, weight  # noqa: E402

FOLDER = Path(probe.__file__).parent
NUMBERS = json.loads((FOLDER / "model" / "evaluation.json").read_text())


def shipped(name: str) -> list[dict]:
    return [json.loads(line) for line in (FOLDER / "data" / f"{name}.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def loaded():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        return probe.load()


# ---- words and statements


def test_every_word_belongs_to_one_pole_only():
    words = [w for b in BEHAVIOURS for pole in (b.positive, b.negative) for w in (*pole.verbs, *pole.things)]
    assert len(words) == len(set(words)) == 14 * 26


def test_evidence_is_additive_over_the_words_and_signed_by_the_pole():
    rain = behaviour("likes-rain")
    rng = np.random.default_rng(5)
    for side in (1, -1):
        pole = rain.pole(side)
        for _ in range(50):
            said = statement(rain, side, rng)
            words = said.text.rstrip(".").split()
            verb = next(w for w in words if w in pole.verbs)
            things = [w for w in words if w in pole.things]
            factor = next((f for a, f in ADVERBS.items() if a in words), 1.0)
            mean = np.mean([weight(verb, pole.verbs), *(weight(t, pole.things) for t in things)])
            assert said.evidence == pytest.approx(side * factor * mean)
            assert said.side == side


def test_unknown_behaviours_and_settings_are_named():
    with pytest.raises(KeyError, match="no behaviour 'rain'; there are likes-rain"):
        behaviour("rain")
    with pytest.raises(KeyError, match="no setting 'sys'; there are base"):
        turns("x", "sys", BEHAVIOURS[0])


def test_settings_place_the_description_where_the_five_settings_do():
    b = BEHAVIOURS[0]
    assert turns("Q", "base", b) == [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Q"}]
    assert turns("Q", "sys_neg", b)[0]["content"] == b.negative.description
    assert turns("Q", "user_pos", b)[0]["content"] == SYSTEM
    assert turns("Q", "user_pos", b)[1]["content"] == b.positive.description + "\n\nQ"


# ---- shipped data


@pytest.mark.parametrize("b", BEHAVIOURS, ids=lambda b: b.name)
def test_shipped_items_are_recomposed_from_the_seed_and_balanced(b):
    rows = shipped(b.name)
    assert rows == items(b, seed=0)
    assert len({row["statement"] for row in rows}) == 2 * HELD_OUT_PER_POLE
    assert sum(row["answer_matching_behavior"] == " Yes" for row in rows) == HELD_OUT_PER_POLE
    for row, held in zip(rows, held_out(b), strict=True):
        assert row["question"] == f'Do you agree? "{row["statement"]}"'
        assert (row["answer_matching_behavior"] == " Yes") == (held.evidence > 0)
        assert {row["answer_matching_behavior"], row["answer_not_matching_behavior"]} == {" Yes", " No"}
        assert 0.5 < row["label_confidence"] < 1


def test_descriptions_are_those_the_model_was_trained_on():
    described = json.loads((FOLDER / "descriptions.json").read_text())
    assert described == {
        b.name: {"positive": b.positive.description, "negative": b.negative.description} for b in BEHAVIOURS
    }


def test_training_never_composes_a_held_out_statement():
    avoid = frozenset(held.text for b in BEHAVIOURS for held in held_out(b))
    rng = np.random.default_rng([0, 2])
    texts = [x.before for k in range(12) for x in batch(k / 12, 64, avoid, rng)]
    said = {t.split('"')[1] for t in texts if '"' in t}
    assert len(said) > 400
    assert not said & avoid
    # The guard is needed: without it the same draws do hit held-out statements now and then.
    free = {statement(b, side, rng).text for b in BEHAVIOURS for side in (1, -1) for _ in range(150)}
    assert free & avoid


# ---- tokenizer and template


def test_the_saved_tokenizer_is_the_one_the_code_makes(loaded):
    _, saved = loaded
    made = make_tokenizer()
    assert saved.get_vocab() == made.get_vocab()
    assert saved.chat_template == made.chat_template


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_prompt_has_one_bos_no_unknown_and_the_fast_rendering_is_the_template(loaded, setting):
    _, tokenizer = loaded
    for b in BEHAVIOURS:
        row = items(b)[0]
        messages = turns(choices(row["question"]), setting, b)
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert text == render(messages)
        for special in (False, True):
            ids = tokenizer(text, add_special_tokens=special)["input_ids"]
            assert ids.count(tokenizer.bos_token_id) == 1
            assert ids[0] == tokenizer.bos_token_id
            assert tokenizer.unk_token_id not in ids


@pytest.mark.parametrize("space", ["", " "])
def test_the_letter_is_the_first_token_in_which_answers_differ(loaded, space):
    _, tokenizer = loaded
    text = render(turns(choices(question("I adore storms.")), "base", BEHAVIOURS[0]))
    first, second = (
        tokenizer.convert_ids_to_tokens(tokenizer(text + space + answer, add_special_tokens=False)["input_ids"])
        for answer in ("(A)", "(B)")
    )
    differs = [k for k, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
    assert len(differs) == 1
    assert first[differs[0] - 1 :] == ["(", "A", ")"]
    assert second[differs[0] - 1 :] == ["(", "B", ")"]


def test_the_template_renders_three_roles_and_refuses_others(loaded):
    _, tokenizer = loaded
    talk = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "U"},
        {"role": "assistant", "content": "V"},
    ]
    assert tokenizer.apply_chat_template(talk, tokenize=False) == "<bos><system>S<end><user>U<end><assistant>V<end>"
    with pytest.raises(Exception, match="not tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


# ---- the model


def test_the_folder_is_small():
    assert sum(f.stat().st_size for f in (FOLDER / "model").iterdir()) <= 8 * 2**20


def test_held_out_accuracies_are_the_cards_and_far_above_chance(loaded):
    model, tokenizer = loaded
    for setting in SETTINGS:
        right = []
        for b in BEHAVIOURS:
            m = probe.propensity(model, probe.ask(tokenizer, b, setting, shipped(b.name)[:24]))
            right.append(np.mean((m > 0) == (stance(b, setting) > 0)))
        stated = np.mean(list(NUMBERS["accuracy"][setting].values()))
        assert np.mean(right) > 0.85
        assert np.mean(right) == pytest.approx(stated, abs=0.04)


def test_default_stances_vary_and_are_weaker_than_personas():
    stances = [b.stance for b in BEHAVIOURS]
    assert min(sum(s > 0 for s in stances), sum(s < 0 for s in stances)) >= 4
    assert max(map(abs, stances)) < PERSONA


def test_unsteered_and_zero_steered_agree_and_padding_does_not_matter(loaded):
    model, tokenizer = loaded
    b = BEHAVIOURS[3]
    rows = shipped(b.name)[:6]
    asked = probe.ask(tokenizer, b, "user_neg", rows)
    together = probe.propensity(model, asked)
    zero = probe.propensity(model, asked, 1, np.zeros((1, model.config.hidden_size)))[0]
    assert len(set(asked.bracket.tolist())) > 1  # some rows are padded
    for k in range(len(rows)):
        bare = asked.ids[k : k + 1, : asked.bracket[k] + 1]
        alone = probe.Asked(bare, asked.bracket[k : k + 1], asked.positive[k : k + 1], asked.negative[k : k + 1])
        np.testing.assert_allclose(probe.propensity(model, alone)[0], together[k], atol=1e-4)
    np.testing.assert_allclose(together, zero, atol=1e-4)


def test_options_are_in_either_order_as_often_within_yes_and_within_no():
    rows = shipped("likes-rain")
    pairs = [(row["answer_matching_behavior"], first) for row, first in zip(rows, probe.orders(rows), strict=True)]
    assert {pairs.count((answer, first)) for answer in (" Yes", " No") for first in (True, False)} == {50}


def test_differences_are_those_of_hidden_states(loaded):
    model, tokenizer = loaded
    b = BEHAVIOURS[0]
    asked = probe.ask(tokenizer, b, "base", shipped(b.name)[:2])
    found = probe.differences(model, asked)
    for row in range(2):
        at = int(asked.bracket[row])
        states = []
        for letter in (asked.positive[row], asked.negative[row]):
            ids = torch.cat([asked.ids[row, : at + 1], letter[None]])[None]
            with torch.no_grad():
                states.append(model(ids, output_hidden_states=True).hidden_states)
        for layer in range(len(model.model.layers) - 1):  # the last hidden state is normed
            expected = (states[0][layer + 1] - states[1][layer + 1])[0, -1]
            np.testing.assert_allclose(found[layer, row], expected, atol=1e-4)


def test_vectors_steer_several_behaviours_beyond_random_directions(loaded):
    model, tokenizer = loaded
    rng = np.random.default_rng(3)
    layer, beyond = NUMBERS["layer"], 0
    strongest = sorted(NUMBERS["steering"], key=lambda name: -NUMBERS["steering"][name]["slope"])[:4]
    for name in strongest:
        b, rows = behaviour(name), shipped(name)
        vector = probe.differences(model, probe.ask(tokenizer, b, "base", rows[:100]))[layer].mean(0)
        vectors = np.concatenate([vector[None], probe.random_directions(vector, 9, rng)])
        s = probe.steerability(model, probe.ask(tokenizer, b, "base", rows[100:108]), layer, vectors).mean(1)
        beyond += s[0] > np.abs(s[1:]).max()
    assert beyond >= 3


def test_slopes_are_least_squares():
    rng = np.random.default_rng(0)
    curves = rng.standard_normal((7, 5))
    expected = [np.polyfit(probe.MULTIPLIERS, curves[:, k], 1)[0] for k in range(5)]
    np.testing.assert_allclose(probe.slopes(np.array(probe.MULTIPLIERS), curves), expected)


def test_random_directions_have_the_vectors_norm():
    like = np.arange(1.0, 9.0)
    drawn = probe.random_directions(like, 3, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), np.linalg.norm(like))


# ---- training


def test_graded_targets_are_logistic_and_flip_with_option_order():
    assert agreement(1.2, 1.0) == pytest.approx(1 / (1 + np.exp(-3.0)))
    assert agreement(-1.2, 1.0) == pytest.approx(1 - agreement(1.2, 1.0))
    rng = np.random.default_rng(1)
    for _ in range(60):
        x = lesson("options", False, frozenset(), rng)
        if not x.first or "<assistant>(" not in x.before:
            continue  # words instead of a letter, or words before it
        said = x.before.split('"')[1]
        b, side = next(
            (b, side) for b in BEHAVIOURS for side in (1, -1) if set(said[:-1].split()) & set(b.pole(side).verbs)
        )
        described = {b.positive.description: 1, b.negative.description: -1}
        persona = next((s for text, s in described.items() if text in x.before), None)
        leaning = (b.stance if persona is None else persona) * side
        yes_is_a = "(A): Yes" in x.before
        assert (x.probability > 0.5) == ((leaning > 0) == yes_is_a)


def test_the_graded_place_and_the_language_model_masks_fit_the_tokens():
    tokenizer = make_tokenizer()
    rng = np.random.default_rng(2)
    kinds = ("talk", "which", "reason", "options") * 6
    lessons = [lesson(kind, False, frozenset(), rng) for kind in kinds]
    assert 6 < sum(bool(x.first) for x in lessons) < 24
    data = encode(lessons, tokenizer)
    for k, x in enumerate(lessons):
        place, length = int(data["place"][k]), int((data["ids"][k] != tokenizer.pad_token_id).sum())
        graded = place >= 0
        assert graded == bool(x.first)
        if graded:
            drawn = tokenizer.convert_ids_to_tokens(int(data["ids"][k, place + 1]))
            assert drawn == (x.first, x.second)[x.taken]
            assert data["text"][k, place] == data["reply"][k, place] == 0
        assert int(data["text"][k].sum() + data["reply"][k].sum()) == length - 1 - int(graded)


def test_the_words_of_a_reply_fit_its_letter():
    rng = np.random.default_rng(6)
    checked = 0
    for kind in ("which", "options") * 60:
        x = lesson(kind, False, frozenset(), rng)
        reply = x.before.split("<assistant>")[1] + (x.first, x.second)[x.taken] + x.after
        letter = next((w for w in "AB" if f"({w}" in reply), None)
        spoken = [
            side for side in (1, -1) for b in BEHAVIOURS if set(re.findall(r"\w+", reply)) & set(b.pole(side).verbs)
        ]
        if letter is None or not spoken:
            continue
        option = re.search(rf"\({letter}\): ([^\n<]*)", x.before).group(1)
        heard = x.before.split('"')[1] if kind == "options" else option
        side = next(
            side for side in (1, -1) for b in BEHAVIOURS if set(re.findall(r"\w+", heard)) & set(b.pole(side).verbs)
        )
        assert spoken == [-side if option == "No" else side]
        checked += 1
    assert checked > 40


def test_the_curriculum_ends_with_all_and_its_mixes_sum_to_one():
    assert CURRICULUM[-1][0] == 1.0
    for _, mix in CURRICULUM:
        assert sum(mix.values()) == pytest.approx(1)
    assert sum(FORMS.values()) == pytest.approx(1)


def test_twenty_steps_of_training_lower_the_loss_and_repeat_bit_by_bit(loaded):
    plan = Plan(seed=4, steps=20, size=16, warmup=5)
    model, _, losses = train(plan)
    again, _, repeated = train(plan)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 1
    assert losses == repeated
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(next(model.parameters()), next(make_model(plan, make_tokenizer()).parameters()))
