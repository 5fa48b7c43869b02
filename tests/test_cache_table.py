"""A table of anyone's own measurements becomes a cache, or one located error."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from example_table import example_rows

from steerstats.cache import CacheReader, table, verify
from steerstats.cache.table import import_table
from steerstats.errors import CacheError, InputError


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame(list(example_rows()))


def save(frame: pd.DataFrame, path) -> str:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return str(path)


@pytest.mark.filterwarnings("error")
def test_a_csv_is_read_exactly_without_an_argument_that_this_pandas_is_to_lose(tmp_path, frame):
    frame["propensity"] = np.random.default_rng(0).normal(size=len(frame))
    assert table.read_table(save(frame, tmp_path / "t.csv"))["propensity"].tolist() == frame["propensity"].tolist()


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_every_value_lands_at_its_coordinates(tmp_path, frame, ending):
    shuffled = frame.assign(len_negative=frame["input"].str[1:].astype(int)).sample(frac=1.0, random_state=0)
    cache = CacheReader(import_table(save(shuffled, tmp_path / f"t.{ending}"), tmp_path / "c", model="mine"))
    unit = cache["kindness"]
    for row in frame.itertuples():
        place = {"setting_eval": row.setting_eval, "vector": "base", "multiplier": row.multiplier, "input": row.input}
        assert unit.read("propensity", **place) == np.float32(row.propensity)
    flags = dict(zip(unit.coords["input"], unit.read("input_pos_is_a")))
    assert flags == {"q0": 1, "q1": 0, "q2": 1, "q3": 0}
    assert [f"q{size}" for size in unit.read("input_len_negative")] == unit.coords["input"].tolist()
    assert unit.attrs["score"] == "imported"
    assert all(check.ok for check in verify(tmp_path / "c"))


def test_labels_that_are_digits_stay_as_they_are_written(tmp_path, frame):
    digits = frame.assign(dataset="007", vector="1e3", input=frame["input"].str.replace("q", "0"))
    digits["question"] = digits["input"].where(digits["input"] != "02", "1")
    (unit,) = CacheReader(import_table(save(digits, tmp_path / "t.csv"), tmp_path / "c", model="mine"))
    assert (unit.attrs["dataset"], unit.coords["vector"].tolist()) == ("007", ["1e3"])
    assert unit.coords["input"].tolist() == ["00", "01", "02", "03"]
    assert unit.read("input_question").tolist() == ["00", "01", "1", "03"]


def test_unmeasured_settings_are_unplanned_and_undefined_factors_stay_so(tmp_path, frame):
    other = frame[frame["multiplier"] == 0].assign(setting_train="mean", setting_eval="user_pos")
    other = pd.concat([other.assign(multiplier=value) for value in (-1.0, 0.0, 1.0)])
    both = pd.concat([other, frame]).astype({"pos_is_a": float})  # as pandas reads 1, 0 and empty cells
    both.loc[both["input"] == "q2", "pos_is_a"] = np.nan
    unit = CacheReader(import_table(save(both, tmp_path / "t.csv"), tmp_path / "c", model="mine"))["kindness"]
    assert unit.read("planned").tolist() == [[1, 0], [0, 1]]
    assert unit.read("vector_kind").tolist() == ["mean", "trained"]
    assert unit.read("input_pos_is_a").tolist() == [1, 0, -1, 0]


BAD = {
    "blank name": (lambda f: f.assign(dataset=" "), r"t.csv: dataset, line 2: ' ' should be a label"),
    "hole": (lambda f: f.drop(index=4), r"no value at multiplier=0, input=q1 \(inputs that lack one: 1 of 4\); "),
    "holes": (lambda f: f.drop(index=[4, 7, 8]), r"inputs that lack one: 2 of 4\)"),
    "twice": (lambda f: pd.concat([f, f.iloc[[3]]]), r"input=q1 is there 2 times \(lines 5 and 14\)"),
    "no zero": (lambda f: f[f["multiplier"] != 0], r"multiplier 0 \(the unsteered model\) is missing; it has -1, 1"),
    "text": (
        lambda f: f.astype({"propensity": object}).replace({"propensity": {f.propensity[5]: "high"}}),
        r"propensity, line 7: 'high' should be a finite number",
    ),
    "column": (lambda f: f.drop(columns="setting_eval"), r"column 'setting_eval' is missing; it has [\w, ]+$"),
    "columns": (
        lambda f: f.drop(columns=["setting_eval", "propensity"]),
        r"columns 'setting_eval', 'propensity' are missing; it has [\w, ]+$",
    ),
    "wide": (
        lambda f: f.pivot(index=["dataset", "input"], columns="multiplier", values="propensity").reset_index(),
        r"'multiplier', 'propensity' are missing; .*; -1\.0, 0\.0, 1\.0 seem to be multipliers, which go in rows",
    ),
    "stranger": (lambda f: f.assign(slope=1), r"column 'slope' is not known"),
    "pandas index": (
        lambda f: f.assign(**{"Unnamed: 0": 1}),
        r"column 'Unnamed: 0' is not known \(an index that pandas wrote",
    ),
    "flag": (lambda f: f.assign(pos_is_a="maybe"), r"pos_is_a, line 2: 'maybe' should be true, false or empty"),
    "setting": (
        lambda f: f.assign(setting_eval="weird"),
        r"setting_eval, line 2: 'weird' should be one of base, sys_pos, sys_neg, user_pos, user_neg",
    ),
    "mean": (lambda f: f.assign(setting_eval="mean"), r"setting_eval, line 2: 'mean' should be one of base, sys_pos"),
    "empty": (lambda f: f.iloc[:0], "has no rows"),
    "some questions": (
        lambda f: f.assign(question=["a", None] * 6),
        r"question, line 3: an empty or NA cell should be a label, in every row of a dataset or in none",
    ),
    "some vectors": (lambda f: f.assign(vector=["a"] * 11 + [None]), r"vector, line 13: an empty or NA cell should be"),
    "some layers": (lambda f: f.assign(layer=[3] * 11 + [None]), r"layer, line 13: an empty or NA cell should be"),
    "layer text": (lambda f: f.assign(layer="abc"), r"layer, line 2: 'abc' should be a layer: a whole number from 0"),
    "layer fraction": (lambda f: f.assign(layer=2.7), r"layer, line 2: 2\.7 should be a layer"),
    "layer negative": (lambda f: f.assign(layer=-3), r"layer, line 2: -3 should be a layer"),
    "layer of 2^31": (lambda f: f.assign(layer=1 << 31), r"layer, line 2: 2147483648 should be a layer"),
    "layer inf": (lambda f: f.assign(layer=np.inf), r"layer, line 2: inf should be a layer"),
    "length inf": (lambda f: f.assign(len_positive=np.inf), r"len_positive, line 2: inf should be a whole number"),
    "length negative": (lambda f: f.assign(len_negative=-5), r"len_negative, line 2: -5 should be a whole number"),
    "factor inf": (lambda f: f.assign(factor_z=[np.inf] * 12), r"factor_z, line 2: inf should be a finite number"),
    "too large": (
        lambda f: f.assign(propensity=1e300),
        r"propensity, line 2: 1e\+300 should be a finite number, below",
    ),
    "question twice": (
        lambda f: f.assign(question=list("abb") * 4),
        r"question of input 'q0' is 'a' in line 2 and 'b' in line 3; every row of an input has the same",
    ),
    "flag twice": (
        lambda f: f.assign(pos_is_a=["Yes ", "1", ""] * 4),
        r"pos_is_a of input 'q0' is True in line 2 and an empty or NA cell in line 4",
    ),
    "length twice": (
        lambda f: f.assign(len_positive=[1, 2, 1] * 4),
        r"len_positive of input 'q0' is 1 in line 2 and 2 in line 3",
    ),
    "factor twice": (
        lambda f: f.assign(factor_topic=["h", "h", None] * 4),
        r"factor_topic of input 'q0' is 'h' in line 2 and an empty or NA cell in line 4",
    ),
    "vector of two settings": (
        lambda f: pd.concat([f, f.assign(setting_train="mean", setting_eval="user_pos")]).assign(vector="mine"),
        r"setting_train of vector 'mine' is 'base' in line 2 and 'mean' in line 14; give each its own vector label",
    ),
    "two vectors of a setting": (
        lambda f: pd.concat([f.assign(vector="caa"), f.assign(vector="pca")]),
        r"vectors 'caa' and 'pca' are both of setting_train=base; give each a table, and so a cache, of its own",
    ),
    "two vectors of a layer": (
        lambda f: pd.concat([f.assign(vector=name, layer=layer) for name, layer in (("a", 3), ("b", 4), ("c", 4))]),
        r"vectors 'b' and 'c' are both of setting_train=base, layer=4; give each a table",
    ),
    "vector of two layers": (
        lambda f: pd.concat([f.assign(layer=3), f.assign(layer=4, setting_eval="user_pos")]).assign(vector="mine"),
        r"layer of vector 'mine' is 3 in line 2 and 4 in line 14",
    ),
    "NUL": (lambda f: f.assign(text=["a"] * 5 + ["a\0"] + ["a"] * 6), r"text, line 7: 'a\\x00' should be without NUL"),
    "NUL name": (lambda f: f.assign(dataset="a\0b"), r"dataset, line 2: 'a\\x00b' should be without NUL"),
    "only zero": (lambda f: f[f["multiplier"] == 0], r"multiplier is 0 in every row; a slope needs two multipliers"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_one_located_error_and_no_cache(tmp_path, frame, case):
    change, message = BAD[case]
    with pytest.raises(InputError, match=message):
        import_table(save(change(frame), tmp_path / "t.csv"), tmp_path / "c", model="mine")
    assert os.listdir(tmp_path) == ["t.csv"]


def test_a_table_that_is_not_utf_8_is_told_what_it_should_be(tmp_path, frame):
    frame.assign(dataset="größe").to_csv(tmp_path / "t.csv", index=False, encoding="latin-1")
    with pytest.raises(InputError, match=r"cannot be read as a table: it is not UTF-8; save it as that"):
        import_table(tmp_path / "t.csv", tmp_path / "c", model="mine")


def test_lines_are_counted_as_an_editor_counts_them(tmp_path, frame):
    path = tmp_path / "t.csv"
    frame.assign(text="two\nlines").astype({"propensity": object}).replace(
        {"propensity": {frame.propensity[5]: "high"}}
    ).to_csv(path, index=False)
    lines = path.read_text().splitlines(keepends=True)
    text = "".join([lines[0], "\n", "  \n", *lines[1:]])
    path.write_text(text)
    shown = next(k for k, line in enumerate(text.splitlines(), start=1) if "high" in line)
    with pytest.raises(InputError, match=rf"propensity, line {shown}: 'high'"):
        import_table(path, tmp_path / "c", model="mine")
    for column, row in (("dataset", "," * lines[0].count(",")), ("input", "kindness")):  # of which pandas makes rows
        path.write_text(text + row + "\n")
        with pytest.raises(InputError, match=rf"{column}, line {text.count(chr(10)) + 1}: an empty or NA cell"):
            import_table(path, tmp_path / "c", model="mine")
    frame.loc[5, "propensity"] = np.nan
    with pytest.raises(InputError, match=r"propensity, row 6: an empty or NA cell"):
        import_table(save(frame, tmp_path / "t.parquet"), tmp_path / "c", model="mine")


def test_texts_of_several_lines_and_of_any_length_are_kept_and_a_row_is_named_by_its_number_then(tmp_path, frame):
    long = frame.assign(text=frame["input"] + "\n" + "x" * 140_000)
    unit = CacheReader(import_table(save(long, tmp_path / "t.csv"), tmp_path / "c", model="mine"))["kindness"]
    assert unit.read("input_text").tolist() == [f"q{k}\n" + "x" * 140_000 for k in range(4)]
    long.loc[5, "propensity"] = np.nan
    with pytest.raises(InputError, match=r"propensity, row 6: an empty or NA cell"):
        import_table(save(long, tmp_path / "t.csv"), tmp_path / "d", model="mine")


def test_columns_that_one_dataset_leaves_empty_are_not_there_for_it(tmp_path, frame):
    both = pd.concat([frame.assign(question="same", layer=3), frame.assign(dataset="bare")])
    cache = CacheReader(import_table(save(both, tmp_path / "t.csv"), tmp_path / "c", model="mine"))
    assert cache["kindness"].read("vector_layer").tolist() == [[3]]
    assert cache["kindness"].coords["vector"].tolist() == ["base"]
    assert cache["kindness"].read("input_question").tolist() == ["same"] * 4
    assert "vector_layer" not in cache["bare"]
    assert cache["bare"].read("input_question").tolist() == ["q0", "q1", "q2", "q3"]


def test_layers_of_one_setting_are_vectors_of_their_own_where_a_table_names_none(tmp_path, frame):
    both = pd.concat([frame.assign(layer=layer) for layer in (3, 4)])
    unit = CacheReader(import_table(save(both, tmp_path / "t.csv"), tmp_path / "c", model="mine"))["kindness"]
    assert unit.coords["vector"].tolist() == ["base@3", "base@4"]
    assert unit.read("vector_layer").tolist() == [[3], [4]]


def test_one_layer_of_several_is_a_cache_as_if_the_table_held_it_alone(tmp_path, frame):
    layers = [frame.assign(layer=layer, propensity=frame["propensity"] * layer) for layer in (3, 4)]
    both = save(
        pd.concat([*layers, layers[0].assign(dataset="elsewhere"), frame.assign(dataset="bare")]), tmp_path / "both.csv"
    )
    alone = CacheReader(import_table(save(layers[1], tmp_path / "4.csv"), tmp_path / "alone", model="mine"))
    taken = CacheReader(import_table(both, tmp_path / "taken", model="mine", layer=4))
    assert list(taken.units) == list(alone.units) == ["kindness"]
    for name, values in alone["kindness"].load().arrays.items():
        np.testing.assert_array_equal(taken["kindness"].read(name), values)
    assert taken.manifest["spec"]["layer"] == 4
    assert taken.spec_hash != CacheReader(import_table(both, tmp_path / "3", model="mine", layer=3)).spec_hash
    with pytest.raises(InputError, match=r"names no layers in a column 'layer', of which layer 3 could be taken"):
        import_table(save(frame, tmp_path / "none.csv"), tmp_path / "n", model="mine", layer=3)


@pytest.mark.parametrize("cell", ["four", "4.5", ""])
def test_a_row_whose_layer_cannot_be_read_is_refused_where_one_layer_is_taken_too(tmp_path, frame, cell):
    both = pd.concat([frame.assign(layer=str(layer)) for layer in (3, 4)], ignore_index=True)
    both.loc[(both["input"] == "q3") & (both["layer"] == "4"), "layer"] = cell  # an input that would be gone unseen
    with pytest.raises(InputError, match="should be a layer: a whole number from 0"):
        import_table(save(both, tmp_path / "t.csv"), tmp_path / "c", model="mine", layer=4)


@pytest.mark.filterwarnings("error")
def test_categories_are_the_values_that_they_stand_for_and_all_texts_may_be_empty(tmp_path, frame):
    """As pandas keeps them in Parquet."""
    known = frame["input"] != "q1"
    frame["factor_topic"], frame["factor_size"] = np.where(known, "law", None), frame["input"].str[1:].astype(int)
    frame["factor_seen"], frame["text"] = frame["pos_is_a"].astype(object).where(known, None), np.nan
    plain, categories = (
        CacheReader(import_table(save(one, tmp_path / f"{k}.parquet"), tmp_path / str(k), model="mine"))["kindness"]
        for k, one in enumerate((frame, frame.astype("category")))
    )
    assert plain.read("input_text").tolist() == [""] * 4
    for name, values in plain.load().arrays.items():
        np.testing.assert_array_equal(categories.read(name), values)


def test_an_input_without_a_text_has_an_empty_one(tmp_path, frame):
    texts = frame.assign(text=np.where(frame["input"] == "q1", None, "asked"))
    cache = CacheReader(import_table(save(texts, tmp_path / "t.csv"), tmp_path / "c", model="mine"))
    assert cache["kindness"].read("input_text").tolist() == ["asked", "", "asked", "asked"]


def test_a_directory_is_no_table(tmp_path):
    with pytest.raises(InputError, match=r"is a directory; give a \.csv or \.parquet file"):
        import_table(tmp_path, tmp_path / "c", model="mine")


@pytest.mark.parametrize("there", [True, False])
def test_an_import_that_fails_on_the_way_leaves_nothing(tmp_path, frame, monkeypatch, there):
    both = pd.concat([frame, frame.assign(dataset="other")])
    plain = table.write_unit

    def full(root, name, *rest):
        if name == "other":
            raise CacheError("No space left on device")
        return plain(root, name, *rest)

    monkeypatch.setattr(table, "write_unit", full)
    path = save(both, tmp_path / "t.csv")
    if there:
        (tmp_path / "deep" / "c").mkdir(parents=True)
    with pytest.raises(CacheError, match="No space left"):
        import_table(path, tmp_path / "deep" / "c", model="mine")
    left = {str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*")}
    assert left == {"t.csv"} | ({"deep", "deep/c"} if there else set())


def test_an_import_that_fails_into_a_cache_that_is_there_takes_nothing_away(tmp_path, frame, monkeypatch):
    path = save(frame, tmp_path / "t.csv")
    import_table(path, tmp_path / "c", model="mine")

    def full(*_):
        raise CacheError("No space left on device")

    monkeypatch.setattr(table, "write_unit", full)
    with pytest.raises(CacheError, match="No space left"):
        import_table(path, tmp_path / "c", model="mine")
    assert CacheReader(tmp_path / "c").units == ("kindness",)


def test_a_table_that_was_moved_is_the_same_cache_and_one_that_was_changed_is_another(tmp_path, frame):
    (tmp_path / "moved").mkdir()
    for path in (tmp_path / "t.csv", tmp_path / "moved" / "t.csv"):
        import_table(save(frame, path), tmp_path / "c", model="mine")
    before = (tmp_path / "c" / "units" / "kindness.h5").read_bytes()
    frame.loc[5, "propensity"] += 1
    with pytest.raises(CacheError, match="specs are not mixed in one directory"):
        import_table(save(frame, tmp_path / "t.csv"), tmp_path / "c", model="mine")
    assert (tmp_path / "c" / "units" / "kindness.h5").read_bytes() == before


def units_of(names, tmp_path, frame):
    every = pd.concat([frame.assign(dataset=name) for name in sorted(names)])
    cache = CacheReader(import_table(save(every, tmp_path / "t.csv"), tmp_path / "c", model="mine"))
    return {unit.attrs["dataset"]: unit.name for unit in cache}


def test_dataset_names_become_safe_stems_without_colliding(tmp_path, frame):
    names = {"a/b", "a b", "plain-1", "--", "__", ".", "plain 1", "善良", "A-B"}
    units = units_of(names, tmp_path, frame)
    assert units.keys() == names
    assert len({stem.casefold() for stem in units.values()}) == len(names)
    assert units["plain-1"] == "plain-1"  # a name that is one stays, whoever else would have it
    assert units["善良"].startswith("dataset-")


def test_stems_that_differ_by_case_alone_are_alike_where_a_disk_does_not_tell_them_apart(tmp_path, frame):
    assert len({stem.casefold() for stem in units_of({"A b", "A/b", "a/b"}, tmp_path, frame).values()}) == 3


def test_a_dataset_is_named_as_near_to_its_name_as_a_file_can_be(tmp_path, frame):
    names = {"Güte": "Gute", "self-worth (HHH)": "self-worth-HHH", "été & hiver": "ete-hiver", "plain-1": "plain-1"}
    assert units_of(names, tmp_path, frame) == names
