"""The methods section: prose whose every number is the cache's or the run's, and whose citations are its "
"references."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from example_table import example_rows
from reporting import TRUTH, hostile_cache, plain_cache, scratch, write_cache
from tiny_sweep import write_sweep

import steerstats
from analyses import SCRIPTS
from analyses._claim import Claim, Finding
from reports.collect import plan, run_jobs
from reports.methods import methods
from reports.methods_factors import where
from reports.references import REFERENCES, Cited, short
from steerstats.cache.table import import_table

ORDINARY = {"0", "1", "7", "95", "0.05"}  # counted from 0; p = (1 + ...); figure 7; 95% intervals; FDR
NUMBER = re.compile(r"(?<![\w.,-])−?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\w)")
BRACKET = re.compile(r"\(([^()]*, \d{4}[^()]*)\)")


@cache
def findings_of(*caches) -> tuple[Finding, ...]:
    """What all scripts find in caches, without the figures."""
    labels = {path.name: str(path) for path in caches}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("analyses._claim.save", lambda *_: None)
        return tuple(one.finding for one in run_jobs(plan(labels), scratch()))


def said_of(*caches) -> tuple[str, list[str]]:
    """The methods section of caches as one text, and its references."""
    studies = {path.name: steerstats.open_cache(path) for path in caches}
    paragraphs, references = methods(studies, findings_of(*caches), 3, {"steerstats": "x.y"})
    return "\n".join(paragraphs), references


def demo() -> tuple[str, list[str]]:
    """That of the shipped example, from its own record."""
    record = json.loads((steerstats.demo_cache().parent / "claims.json").read_text("utf-8"))
    names = {field.name for field in fields(Finding)}
    found = []
    for one in record["findings"]:
        own = {name: tuple(value) if isinstance(value, list) else value for name, value in one.items() if name in names}
        found.append(Finding(**own | {"claims": tuple(map(Claim.read, one["claims"]))}))
    found.sort(key=lambda finding: SCRIPTS.index(finding.script))
    paragraphs, references = methods({"demo": steerstats.open_cache(steerstats.demo_cache())}, found, 0, {"numpy": "2"})
    return "\n".join(paragraphs), references


@cache
def imported():
    folder = scratch()
    pd.DataFrame(list(example_rows())).to_csv(folder / "scores.csv", index=False)
    return import_table(folder / "scores.csv", folder / "imported", model="mine")


@cache
def sweep():
    return write_sweep(scratch() / "sweep", ["a", "b", "c"], [0.2, 0.9, 0.4], [-1.0, 0.0, 1.0])


@cache
def other_sizes():
    """A cache none of whose sizes is that of another one."""
    truth = replace(
        TRUTH, datasets=("one", "two", "three", "four"), mean_steerability=[1.2, 0.7, 0.3, 0.5], n_inputs=26,
        n_pairs=22, n_random=6, n_shuffled=9, n_resampled=4, multipliers=(-2.0, -1.0, 0.0, 1.0, 2.0),
    )  # fmt: skip
    return write_cache(scratch() / "sizes", truth, model="sizes")


@cache
def twins():
    return write_cache(scratch() / "twins", replace(TRUTH, counterbalance=True), model="twins")


KINDS = {
    "demo": demo,
    "all controls": lambda: said_of(hostile_cache()),
    "no controls": lambda: said_of(plain_cache()),
    "two caches": lambda: said_of(hostile_cache(), plain_cache()),
    "a table": lambda: said_of(imported()),
    "a sweep": lambda: said_of(sweep()),
    "twins": lambda: said_of(twins()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_cited_is_in_the_list_and_the_other_way_round(kind):
    text, references = KINDS[kind]()
    cited = {name for group in BRACKET.findall(text) for name in group.split("; ")}
    cited |= {f"{name}, {year}" for name, year in re.findall(r"(\w+ et al\.) \((\d{4})\)", text)}
    assert cited == {short(key) for key, full in REFERENCES.items() if full in references}
    assert references == [full for full in REFERENCES.values() if full in references], "by the alphabet"
    assert len(references) == len(set(references)) >= 2


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_prose_that_says_nothing_twice(kind):
    text, _ = KINDS[kind]()
    assert 2 <= len(text.splitlines()) <= 6
    for paragraph in text.splitlines():
        assert paragraph[0].isupper()
        assert paragraph.endswith(".")
        assert paragraph.count("(") == paragraph.count(")")
        assert not re.search(r"  | [.,;)]|\( |\.\.|, and \.|None|nan|\{|->|pos_is|sys_|user_neg|; ;", paragraph), (
            paragraph
        )
    sentences = re.split(r"(?<=[a-z)]\.) (?=[A-Z])", text)
    assert len(sentences) == len(set(sentences))
    works = [name for group in BRACKET.findall(text) for name in group.split("; ")]
    assert len(works) == len(set(works)), "each source is given once"


def test_every_number_is_the_caches_or_the_runs():
    text, _ = said_of(other_sizes())
    study = steerstats.open_cache(other_sizes())
    unit = study.unit("one").unit
    kinds = list(map(str, unit.read("vector_kind")))
    n = len(study.unit("one").inputs)
    shown = {f"{value:g}".replace("-", "−") for value in unit.coords["multiplier"]}
    expected = {str(len(study.datasets)), str(n), str(n * len(study.datasets)), str(len(study.settings))}
    expected |= {
        str(int(unit.read("vector_layer").ravel()[0])),
        str(kinds.count("random")),
        str(kinds.count("shuffled")),
    }
    expected |= {str(kinds.count("resampled") // 3), "3"}  # of three settings' vectors; the seed of the analysis
    expected |= {str(len(unit.coords["multiplier"]) - 2)}  # contrasts of a curve that are not its mean or its slope
    found = findings_of(other_sizes())
    resamples = {
        f"{k:,}" for one in found for key, k in one.numbers.items() if key in ("n_resamples", "n_permutations")
    }
    expected |= (
        resamples - {"5,000"} | {"0.25", "0.8"} | shown | ORDINARY
    )  # four datasets: no interval of the candidates
    without = re.sub(r"\((?:[^()]*, )?\d{4}[^()]*\)", "", text)
    assert set(NUMBER.findall(without)) == expected
    assert {"4", "104", "26", "5", "6", "9", "−2"} <= expected


def test_counts_stand_with_what_they_count():
    text, _ = said_of(other_sizes())
    for words in (
        "4 datasets (one, two, three, four) with 104 test inputs, 26 inputs in each",
        "among 6 random directions of the same norm and 9 label-shuffled vectors",
        "with 4 refits of the base, system (positive) and system (negative) vectors",
        "at the multipliers −2, −1, 0, 1, 2",
        "on 3 non-linear contrasts of the multiplier",
        "Resampling has seed 3",
    ):
        assert words in text


def test_the_demo_says_how_it_was_built():
    text, _ = demo()
    study = steerstats.open_cache(steerstats.demo_cache())
    versions = study.reader.manifest["provenance"]["versions"]
    for words in (
        "The model was bundled:demo/model (float32).",
        "14 datasets with 840 test inputs, 60 inputs in each.",
        "(40% training, 10% validation, 50% test)",
        "in each of these settings from 48 training pairs: the mean difference of activations",
        "were added to the output of decoder block 2 (counted from 0), from the last prompt token on",
        "among 19 random directions of the same norm and 19 label-shuffled vectors",
        "10 refits of the base vector",
        f"identity {study.reader.spec_hash[:12]}) was built with torch {versions['torch']} and transformers",
    ):
        assert words in text
    assert "Perez" not in text, "its data are its own"


def test_what_a_cache_lacks_has_no_sentence():
    text, references = said_of(plain_cache())
    for words in (
        "random direction",
        "shuffled",
        "null vector",
        "refit",
        "Satterthwaite",
        "projected",
        "bability of the",
    ):
        assert words not in text
    assert not any(name in one for one in references for name in ("Phipson", "Satterthwaite"))
    assert "they do not include the vectors' own sampling error" in text


def test_two_caches_are_told_apart_and_what_one_has_is_said_of_it():
    text, _ = said_of(hostile_cache(), plain_cache())
    first, second = text.splitlines()[:2]
    assert 'activations. This paragraph is about the cache "hostile". The model was acme' in first
    assert second.startswith('The cache "plain" differs from "hostile" in what follows. The model was plain-7b. ')
    assert "2 datasets (myopic-reward, interest-in-music) with 40 test inputs" in second
    assert "Propensity" not in second
    assert second.endswith('Everything else was as for "hostile".')
    assert 'In the cache "hostile" each dataset\'s base vector was ranked' in text
    assert "Caches are compared by the mean difference of slopes" in text


def test_caches_that_lack_a_factor_alike_are_counted_together():
    five = SimpleNamespace(kind="import", datasets=tuple("abcde"))
    studies = dict.fromkeys(("m0", "m1", "m2", "m3"), five)
    holders = {"m0": list("abcd"), "m1": list("abcde"), "m2": list("abcd"), "m3": list("abc")}
    assert (
        where(holders, studies) == ' (in 4 of 5 datasets of "m0" and "m2" and in "m1" and in 3 of 5 datasets of "m3")'
    )


def test_caches_without_a_shift_in_common_still_say_what_compared_them():
    def found(script, resamples, low=0.1):
        claim = Claim(key=f"{script}.x", statement="", estimate=0.5, ci_low=low, ci_high=0.9, interval="t", n=9,
                      n_of="datasets")  # fmt: skip
        return Finding(script=script, title="", claims=(claim,), numbers={"n_resamples": resamples})

    study = steerstats.open_cache(plain_cache())
    agree = found("cross_model", 700)
    text = "\n".join(methods({"one": study}, [agree], 0, {"x": "1"})[0])
    assert "Agreement between two models is Spearman's correlation over datasets" in text
    assert "(Spearman, 1904), with percentile intervals from 700 resamples of datasets" in text
    few = methods({"one": study}, [found("cross_model", 2000, np.nan)], 0, {"x": "1"})[0]
    assert "without intervals, for which there are too few datasets" in " ".join(few)
    split = methods({"one": study}, [found("split_leakage", 0)], 0, {"x": "1"})[0]
    assert "The overlapping split is compared with the clean one" in " ".join(split)


def test_a_table_and_a_sweep_have_a_section_of_their_own():
    table, _ = said_of(imported())
    assert "Scores of mine were imported from a table." in table
    assert "1 dataset (kindness) with 4 test inputs" in table
    for words in ("decoder", "was built", "A shift is", "over datasets", "Yes or No"):
        assert words not in table
    layers, _ = said_of(sweep())
    assert "90 validation inputs, 30 inputs in each" in layers
    assert "decoder blocks 3, 7 and 9 (counted from 0), one block at a time" in layers
    assert "4,000 resamples of questions" in layers
    assert "A subset of the layers that holds the best one on datasets such as these (Gupta, 1965) is" in layers
    assert "of the chosen layer against every other, with p-values adjusted by Bonferroni." in layers
    assert "has a t interval over datasets, which does not allow for the choice of the layer." in layers
    assert "the one with the highest mean" in layers
    down = write_sweep(scratch() / "down", ["a", "b", "c"], [-0.2, -0.9, -0.4], [-1.0, 0.0, 1.0], operator="ablate")
    assert "the one with the lowest mean steerability" in said_of(down)[0]
    alone, _ = said_of(write_sweep(scratch() / "one", ["a"], [0.2, 0.9, 0.4], [-1.0, 0.0, 1.0]))
    assert "The mean at a layer has a t interval over questions," in alone
    assert "test input" not in layers


def test_twins_are_clustered_by_question():
    text, _ = said_of(twins())
    assert "60 test inputs, 20 inputs in each, which came from 30 questions" in text
    assert "CR2 standard errors by question" in text
    assert "(Woodruff, 1952)" in text
    assert "HC2" not in text
    assert "Woodruff" not in said_of(hostile_cache())[0]


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        (
            {"method": "mean_difference", "read": "answer", "rescale": "base"},
            ": the mean difference of activations between the two completions of each training pair, at the token",
        ),
        (
            {"method": "pca", "read": "completion_mean", "rescale": "none"},
            "the differences of activations between the two completions of each training pair, averaged over the",
        ),
        (
            {"method": "logistic", "read": "last_token", "rescale": "unit"},
            "separates activations of the two completions of each training pair, at the last token of each.",
        ),
        (
            {"method": "mean_difference", "read": "last_prompt"},
            "between each training prompt with the description of the behaviour and with that of its opposite, at",
        ),
        (
            {"method": "mine", "read": "answer", "rescale": "none", "files": {"x": "x.npz"}, "files_rescale": "none"},
            "by the method mine, from the two completions",
        ),
    ],
)
def test_it_says_how_vectors_were_made(monkeypatch, vectors, said):
    study = steerstats.open_cache(steerstats.demo_cache())
    monkeypatch.setattr(type(study), "spec", {"vectors": vectors})
    paragraph = methods({"demo": study}, [], 0, {})[0][0]
    assert said in paragraph
    norms = {
        "base": "The vectors of the other settings and the mean were given the norm of the dataset's base vector.",
        "none": "These vectors kept their own norms.",
        "unit": "These vectors were given norm 1.",
    }
    shown = [name for name, words in norms.items() if words in paragraph]
    assert shown == [*filter(None, [vectors.get("rescale")])]
    elsewhere = "Vectors made elsewhere (x) were measured beside them; they kept their own norms."
    assert (elsewhere in paragraph) == ("files" in vectors)


def test_the_mean_of_one_vector_is_not_said_to_be_another(monkeypatch):
    path = write_cache(scratch() / "m", replace(TRUTH, settings=("base",), prompt_loss={}, prompt_intercept={}))
    study = steerstats.open_cache(path)
    monkeypatch.setattr(type(study), "spec", {"vectors": {"method": "mean_difference", "rescale": "base"}})
    paragraph = methods({"m": study}, [], 0, {})[0][0]
    assert "Its mean vector is that vector once more." in paragraph
    assert "their mean" not in paragraph
    assert "given the norm" not in paragraph, "nothing had to be rescaled"


def test_public_data_are_cited(monkeypatch):
    study = steerstats.open_cache(steerstats.demo_cache())
    given = dict.fromkeys(study.datasets[:3], "Perez et al. 2022, Discovering; anthropics/evals, CC BY 4.0")
    for name in study.datasets:
        monkeypatch.setitem(study.unit(name).unit.attrs, "attribution", given.get(name, ""))
    paragraphs, references = methods({"demo": study}, [], 0, {})
    assert "Some of the datasets are public (Perez et al., 2023)." in paragraphs[0]
    assert any(one.startswith("Perez") for one in references)


def test_works_have_a_short_form_and_stand_by_the_alphabet():
    cite = Cited()
    assert cite("bas", "tan") == " (Bas & Novak, 2025; Tan et al., 2024)"
    assert cite("tan") == ""
    assert [one.split(",")[0] for one in cite.references()] == ["Bas", "Tan"]
    assert all(re.fullmatch(r"[\w-]+( & [\w-]+| et al\.)?, \d{4}", short(key)) for key in REFERENCES)
    plain = [full.lower().replace("ö", "o") for full in REFERENCES.values()]
    assert plain == sorted(plain)
    assert np.unique([short(key) for key in REFERENCES]).size == len(REFERENCES), "no two works are cited alike"
