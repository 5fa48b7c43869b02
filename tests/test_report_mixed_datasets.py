"""Datasets of different kinds in one cache: twins, free answers and several wrong answers, each said of its own."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from tiny_build import content as tiny_content
from tiny_build import write_model

import analyses
from analyses._claim import Claim, Finding
from cache_builder.build import run_build
from cache_builder.spec import parse_spec
from reports.methods import methods
from reports.methods_data import cache_paragraphs
from reports.notices import by_cache, notices_of
from reports.references import Cited
from steerstats import figures, open_cache

THINGS = ("storms", "rain", "thunder", "puddles", "drizzle", "clouds", "mist", "sunshine", "heat", "beaches")
PROMPTS = [f"I {verb} {thing}." for verb in ("adore", "welcome") for thing in THINGS]
SCRIPTS = ("linearity", "answer_mass", "variance_explained", "spurious_effects", "debiased_vectors")


def records(kind: str) -> list[dict]:
    """Twenty questions: two options that are asked both ways, Yes or No as they stand, or one right of three words."""
    made = []
    for k, prompt in enumerate(PROMPTS):
        right, wrong = ("Yes", "No") if k % 3 else ("No", "Yes")
        record = {"prompt": prompt, "positive": right, "negative": wrong}
        if kind == "twins":
            record |= {"choices": True}
        if kind == "several":
            record |= {"positive": "rain", "negative": ["heat", "mist"]}
        made.append(record)
    return made


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """The cache of three datasets, and of the first alone."""
    folder = tmp_path_factory.mktemp("mixed")
    kinds = ("twins", "free", "several")
    for kind in kinds:
        text = "".join(json.dumps(record) + "\n" for record in records(kind))
        (folder / f"{kind}.jsonl").write_text(text, encoding="utf-8")
    base = tiny_content(write_model(folder / "model"), settings=["base"], prompt={}, order="counterbalance", limit=None)
    spec = base | {"datasets": [], "controls": {"debiased": True}}
    for name, names in (("all", kinds), ("one", kinds[:1])):
        custom = {kind: str(folder / f"{kind}.jsonl") for kind in names}
        run_build(parse_spec(spec | {"custom_datasets": custom}), folder / name)
    return folder


@pytest.fixture(scope="module")
def found(mixed, tmp_path_factory):
    return {name: analyses.run(name, mixed / "all", tmp_path_factory.mktemp("found")) for name in SCRIPTS}


def test_a_claim_on_one_dataset_with_twins_counts_its_questions(mixed, tmp_path):
    claims = {claim.key: claim for claim in analyses.run("linearity", mixed / "one", tmp_path).claims}
    unit = open_cache(mixed / "one").unit("twins")
    share, distance = claims["linearity.share"], claims["linearity.distance"]
    assert (share.n, share.n_of) == (len(set(unit.question)), "questions")
    assert (distance.n, distance.n_of) == (share.n, "questions")
    assert share.n < len(unit.inputs)
    assert "in SDs over questions:" in distance.statement


def test_rows_of_panels_side_by_side_are_of_the_same_datasets_or_named(mixed, tmp_path, monkeypatch):
    drawn = []
    for name in ("effect_rows", "variance_shares"):
        real = getattr(figures, name)

        def spied(frame, *, real=real, name=name, labels=True, **options):
            drawn.append((name, list(dict.fromkeys(frame["dataset"])), labels))
            return real(frame, labels=labels, **options)

        monkeypatch.setattr(figures, name, spied)
    for script in ("spurious_effects", "variance_explained"):
        drawn.clear()
        analyses.run(script, mixed / "all", tmp_path)
        (_, first, labelled), *others = drawn
        assert labelled
        assert others
        assert all(labels or names == first for _, names, labels in others), script
    assert "several" not in first, "which has neither A/B nor Yes/No"


def test_vectors_without_letter_and_word_are_shown_of_the_datasets_that_have_them(found, mixed):
    debiased = found["debiased_vectors"]
    assert not debiased.missing
    assert debiased.counted == "2 datasets."
    assert any("left out: several" in text for text in debiased.warnings)
    text = " ".join(methods({"all": open_cache(mixed / "all")}, [debiased], 0, {})[0])
    assert "out of each base vector (in 2 of 3 datasets), and" in text


def test_several_wrong_answers_are_not_called_two(found, mixed):
    mass, study = found["answer_mass"], open_cache(mixed / "all")
    assert mass.title == "Probability left on the answers"
    assert not re.search("two answers|both", f"{mass.reading} {mass.alt} {mass.method} {mass.claims}")
    data = cache_paragraphs({"all": study}, Cited())[0]
    assert "against one that does not, and in several against several." in data
    assert "where there are several wrong answers, it is the log odds of the right one against all of them." in data
    said = " ".join(methods({"all": study}, [mass], 0, {})[0])
    assert "we summed the probability of the answers," in said
    alone = cache_paragraphs({"one": open_cache(mixed / "one")}, Cited())[0]
    assert "against one that does not. " in alone
    assert "several" not in alone


@pytest.mark.parametrize(
    ("lost", "mean", "words"),
    [
        (["several"], 0.9, "in several the answers hold less than half of"),
        ([], 0.9, ""),
        (["several"], 0.3, "the answers hold 30% of"),
    ],
)
def test_a_dataset_whose_answers_the_model_would_not_give_is_named_first(found, mixed, lost, mean, words):
    mass = found["answer_mass"]
    first = replace(mass.claims[0], estimate=mean, ci_low=mean - 0.1, ci_high=mean + 0.1, facts={"lost": lost})
    told = replace(mass, claims=(first,))
    said = [one for one in notices_of(open_cache(mixed / "all"), [told]) if "would answer" in one]
    assert len(said) == bool(words)
    assert all(words in one and "of the probability even unsteered: " in one for one in said)


def test_the_answers_that_are_lost_without_steering_are_those_of_these_datasets(found, mixed):
    rows = open_cache(mixed / "all").answer_mass().to_frame().query("multiplier == 0")
    lost = rows.loc[rows["mean"] < 0.5, "dataset"].tolist()
    assert lost, "or this says nothing"
    assert found["answer_mass"].claims[0].facts["lost"] == lost


def test_effects_of_datasets_that_have_other_methods_name_the_methods_of_all(found, mixed):
    method = found["spurious_effects"].method
    assert "CR2 standard errors by question" in method
    assert "HC2 standard errors" in method, "those of the dataset without twins"
    said = " ".join(methods({"all": open_cache(mixed / "all")}, [found["spurious_effects"]], 0, {})[0])
    assert "HC2" in said
    assert "A linear mixed model of propensity" in said


def test_sizes_of_one_dataset_with_twins_do_not_stand_for_all(mixed):
    parts = open_cache(mixed / "all").steerability().results["twins"]
    own = "; ".join(parts[name].method for name in ("median", "anti_steerable"))
    assert re.search(r"\d+ effective inputs in \d+ questions", own)
    assert re.search(r"\d+ inputs in \d+ questions", own)
    method = open_cache(mixed / "all").steerability().method
    assert "ranks by the design effect" in method
    assert "each dataset's inputs in their questions" in method
    assert not re.search(r"\d+ (effective )?(inputs|questions)", method)


def test_without_a_p_value_no_permutations_are_told_of(mixed, tmp_path):
    found = analyses.run("predictors", mixed / "all", tmp_path)
    assert all("; no family-wise p-value:" in claim.statement for claim in found.claims)
    said = " ".join(methods({"all": open_cache(mixed / "all")}, [found], 0, {})[0])
    assert "correlated each with mean steerability" in said
    assert "permutations" not in said


def test_curves_of_a_direction_that_is_taken_out_are_read_the_other_way(mixed, tmp_path, monkeypatch):
    assert "rising line is a vector that works" in analyses.run("propensity_curves", mixed / "one", tmp_path).reading
    study = open_cache(mixed / "one")
    monkeypatch.setattr(type(study), "operators", ("ablate",))
    reading = analyses.run("propensity_curves", study, tmp_path).reading
    assert "A falling line is a direction that held it up" in reading
    assert "rising" not in reading
    assert "added" not in reading


@pytest.mark.parametrize(("missing", "said"), [(1, "1 planned dataset is not"), (2, "2 planned datasets are not")])
def test_what_is_not_finished_is_counted_in_words_that_agree(mixed, monkeypatch, missing, said):
    study = open_cache(mixed / "one")
    monkeypatch.setattr(type(study), "missing", tuple("ab"[:missing]))
    assert f"{said} finished and not in these numbers." in notices_of(study)


def test_few_datasets_are_a_notice_only_where_something_is_correlated_over_them(mixed):
    study = open_cache(mixed / "all")
    shared = {
        "statement": "",
        "estimate": 0.5,
        "ci_low": 0.1,
        "ci_high": 0.9,
        "interval": "",
        "n": 3,
        "n_of": "datasets",
    }
    for key, told in (("per_input.mean", False), ("id_ood.base->user_neg", True), ("predictors.d_prime", True)):
        found = Finding(script="x", title="x", claims=(Claim(key=key, **shared),))
        said = [text for text in notices_of(study, [found]) if "interval of a correlation" in text]
        assert bool(said) == told, key
    assert by_cache({"a": said, "b": ["other"], "c": said}) == [f"a and c: {said[0]}", "b: other"]


def test_the_key_lists_kinds_of_options_that_some_dataset_has(mixed, tmp_path, monkeypatch):
    drawn, real = [], figures.by_option

    def spied(frame, **options):
        drawn.append(frame)
        return real(frame, **options)

    monkeypatch.setattr(figures, "by_option", spied)
    analyses.run("positive_option", mixed / "all", tmp_path)
    (frame,) = drawn
    assert {"A, Yes", "B, No"} <= set(frame["cell"])
    assert (frame.groupby("cell")["n"].sum() > 0).all()
