"""A delivery that was changed with care, its hashes rewritten, is still not what the cache gives."""

from __future__ import annotations

import copy
import json
import shutil

import pandas as pd
import pytest
from reporting import hostile_cache, reproduction

from reports.record import outputs_of, sha256_of, versions_here
from reports.verify import (
    check_numbers,
    check_page,
    check_tables,
    largest_difference,
    same_sentence,
    verify_reproduction,
)
from steerstats.errors import InputError


@pytest.fixture
def delivered(tmp_path):
    (tmp_path / hostile_cache().name).symlink_to(hostile_cache())
    return shutil.copytree(reproduction(), tmp_path / "delivered")


def claims() -> dict:
    return json.loads((reproduction() / "claims.json").read_text("utf-8"))


def wrong(checks) -> list[str]:
    return [f"{check.where}: {check.detail}" for check in checks if not check.ok]


def claim_of(record: dict, key: str) -> dict:
    return next(claim for finding in record["findings"] for claim in finding["claims"] if claim["key"] == key)


FORGERIES = {
    "verdict": ("per_input.myopic", lambda claim: claim.update(verdict="consistent")),
    "reason": ("per_input.myopic", lambda claim: claim.update(reason="as in the paper")),
    "published": ("per_input.myopic", lambda claim: claim.update(published_text="0.94")),
    "a digit of what was published": ("per_input.myopic", lambda claim: claim.update(published_text="0.50")),
    "source": ("per_input.myopic", lambda claim: claim.update(source=claim["source"].replace("12404", "12405"))),
    "statement": (
        "per_input.anti_share",
        lambda claim: claim.update(statement=claim["statement"].replace("wrong way", "intended way")),
    ),
    "unit": ("explained.mean", lambda claim: claim.update(unit="1")),
    "n": ("explained.mean", lambda claim: claim.update(n=40)),
    "n_of": ("explained.mean", lambda claim: claim.update(n_of="models")),
    "limit": ("explained.mean", lambda claim: claim.update(ci_high=claim["ci_high"] * (1 + 1e-6))),
    "key": ("explained.mean", lambda claim: claim.update(key="explained.median")),
    "not a number": ("explained.mean", lambda claim: claim.update(estimate=float("nan"))),
    "infinite": ("explained.mean", lambda claim: claim.update(ci_high=float("inf"))),
    "count": ("per_input.signs", lambda claim: claim["counts"].update({"below 0": 1})),
}


@pytest.mark.parametrize("which", FORGERIES)
def test_every_part_of_a_claim_is_held_against_the_cache(which):
    forged = claims()
    key, change = FORGERIES[which]
    change(claim_of(forged, key))
    (line,) = wrong(check_numbers(forged, claims()))
    assert "differs at claims" in line


def test_findings_left_out_or_added_or_emptied_are_noticed():
    forged = claims()
    gone = forged["findings"].pop(3)
    (line,) = wrong(check_numbers(forged, claims()))
    assert gone["script"] in line
    assert "is not in the delivered claims" in line
    forged = claims()
    forged["findings"].append({**copy.deepcopy(forged["findings"][0]), "script": "made_up"})
    assert any("made_up" in line for line in wrong(check_numbers(forged, claims())))
    forged = claims()
    forged["findings"][0]["claims"] = []
    assert len(wrong(check_numbers(forged, claims()))) == 1
    forged = claims()
    forged["findings"].append(forged["findings"][0])
    assert any("twice" in line for line in wrong(check_numbers(forged, claims())))
    assert wrong(check_numbers(claims(), claims())) == []


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ("a mean of 0.123 in x", "a mean of 0.124 in x", True),
        ("a mean of 0.123 in x", "a mean of 0.133 in x", False),
        ("14% of inputs", "15% of inputs", True),
        ("14% of inputs", "41% of inputs", False),
        ("14 of 20", "15 of 20", False),
        ("it works", "it does not work", False),
        ("0.5 up", "0.50 up", False),
    ],
)
def test_sentences_are_equal_but_for_the_last_printed_digit(before, now, same):
    assert same_sentence(before, now) is same


def test_a_cell_of_a_table_and_a_table_of_ones_own_are_noticed(delivered):
    folder = next((delivered / "results").iterdir())
    assert wrong(check_tables(delivered, reproduction())) == []
    frame = pd.read_csv(folder / "gap_parts.csv")
    frame.loc[2, "estimate"] *= 1 + 1e-7
    frame.to_csv(folder / "gap_parts.csv", index=False)
    text = (folder / "linearity.tex").read_text("utf-8")
    (folder / "linearity.tex").write_text(text.replace("interest-in-music", "interest-in-peace"), encoding="utf-8")
    (folder / "mine.csv").write_text("a,b\n1,2\n")
    record = json.loads((folder / "gap_parts.json").read_text("utf-8"))
    record["claims"][0]["statement"] = "Nothing is lost:"
    (folder / "gap_parts.json").write_text(json.dumps(record))
    found = wrong(check_tables(delivered, reproduction()))
    assert any("gap_parts.csv: column estimate differs by 1.0e-07, row 3" in line for line in found)
    assert any("linearity.tex: differs" in line for line in found)
    assert any("mine.csv" in line for line in found)
    assert any("gap_parts.json: differs at claims[0] at statement" in line for line in found)
    assert len(found) == 4


def test_a_number_that_is_gone_from_a_table_is_named_by_its_row(tmp_path):
    made = pd.DataFrame({"x": [1.0, 2.0, 3.0], "y": ["a", "b", "c"]})
    for name, frame in (("delivered", made.assign(x=[1.0, float("nan"), 3.0])), ("again", made)):
        (tmp_path / name / "results").mkdir(parents=True)
        frame.to_parquet(tmp_path / name / "results" / "all.parquet")
        frame.tail(2).head(1).to_csv(tmp_path / name / "results" / "one.csv", index=False)
    found = wrong(check_tables(tmp_path / "delivered", tmp_path / "again"))
    assert found == [
        "results/all.parquet: column x differs by inf, row 2",
        "results/one.csv: column x differs by inf, row 1",
    ]


def test_the_page_is_made_again(delivered):
    versions = versions_here()
    assert wrong(check_page(delivered, reproduction(), versions)) == []
    page = delivered / "report.html"
    text = page.read_text("utf-8")
    number = text.partition('<p class="number">')[2].partition("<")[0]
    page.write_text(text.replace(f'<p class="number">{number}<', '<p class="number">2%<', 1), encoding="utf-8")
    assert len(wrong(check_page(delivered, reproduction(), versions))) == 2
    # A manifest that claims other versions spares the bytes, and not the words.
    (line,) = wrong(check_page(delivered, reproduction(), versions | {"numpy": "0.1"}))
    assert "says something else" in line


def test_a_figure_that_was_drawn_otherwise_is_noticed(delivered):
    figure = next(delivered.rglob("id_vs_ood.svg"))
    figure.write_text(figure.read_text("utf-8").replace("M ", "M 1", 1), encoding="utf-8")
    (line,) = wrong(check_page(delivered, reproduction(), versions_here()))
    assert "id_vs_ood.svg" in line


def test_rewriting_the_hashes_does_not_help(delivered):
    record = json.loads((delivered / "claims.json").read_text("utf-8"))
    claim_of(record, "per_input.myopic")["verdict"] = "consistent"
    record["findings"] = [one for one in record["findings"] if one["script"] != "null_vectors"]
    (delivered / "claims.json").write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")
    manifest = json.loads((delivered / "manifest.json").read_text("utf-8"))
    manifest["outputs"] = {name: sha256_of(delivered / name) for name in outputs_of(delivered)}
    (delivered / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    found = wrong(verify_reproduction(delivered))
    assert any("per_input_steerability: differs" in line and "at verdict" in line for line in found)
    assert any("null_vectors: was computed and is not in the delivered claims" in line for line in found)
    assert len(found) == 2


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("manifest.json", lambda whole: whole.pop("outputs"), "outputs is None; `steerstats reproduce` writes an obje"),
        ("manifest.json", lambda whole: whole.update(seed="0"), "seed is '0'; .* a whole number there"),
        ("manifest.json", lambda whole: whole["caches"].update(other=[]), r"caches\['other'\].name is None; .* a text"),
        ("claims.json", lambda whole: whole.pop("findings"), "findings is None; .* a list there"),
        ("claims.json", lambda whole: whole["findings"][3].pop("claims"), r"findings\[3\].claims is None; .* a list"),
    ],
)
def test_a_record_of_another_shape_is_one_error(delivered, name, change, message):
    file = delivered / name
    whole = json.loads(file.read_text("utf-8"))
    change(whole)
    file.write_text(json.dumps(whole), "utf-8")
    with pytest.raises(InputError, match=rf"{name}: {message}"):
        list(verify_reproduction(delivered))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000])
def test_a_record_that_cannot_be_read_is_one_error(delivered, content):
    (delivered / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=r"manifest\.json cannot be read"):
        list(verify_reproduction(delivered))


def test_a_number_too_large_for_a_float_is_another_number():
    assert largest_difference({"n": 10**400}, {"n": 3})[0] == float("inf")
