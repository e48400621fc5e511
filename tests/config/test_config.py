"""Settings: strict, typed, and with messages that name the key and the nearest valid one."""

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

from components.config import (
    Config,
    apply_overrides,
    flatten,
    from_dict,
    from_older,
    load_config,
    parse_overrides,
    recipes,
    to_dict,
)
from components.config.base import settings_of
from components.config.load import ConfigError, valid_keys
from components.config.removed import REMOVED
from components.errors import UserError

ROOT = Path(__file__).parents[2]
PARAMS = ROOT / "params.yaml"


def test_params_file_is_the_sample_recipe_over_the_defaults_of_the_code():
    composed = recipes.compose(ROOT / "recipes", "sample")
    assert PARAMS.read_text() == recipes.to_yaml(composed)
    assert to_dict(load_config(PARAMS)) == composed
    named = yaml.safe_load((ROOT / "recipes" / "sample.yaml").read_text())
    changed = {key for key, value in to_dict(Config()).items() if composed[key] != value}
    assert changed == set(named)


def test_every_setting_has_a_meaning_and_there_are_at_most_a_hundred():
    settings = [(key, f) for key, f, _ in settings_of(Config())]
    assert len(settings) <= 100
    assert not [key for key, f in settings if not f.metadata.get("meaning")]


def test_no_value_is_read_otherwise_after_dvc_has_rewritten_the_file():
    # `dvc exp run -S` writes strings without quotes; YAML 1.1 reads off, no, yes and on as truth.
    words = {str(v).lower() for v in flatten(load_config(PARAMS)).values() if isinstance(v, str)}
    assert not words & {"on", "off", "yes", "no", "y", "n", "true", "false", "null"}


def test_override_changes_one_value_and_nothing_else():
    base, changed = load_config(PARAMS), load_config(PARAMS, ["train.epochs=2"])
    assert changed.train.epochs == 2
    assert flatten(base).items() ^ flatten(changed).items() == {
        ("train.epochs", base.train.epochs),
        ("train.epochs", 2),
    }


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.epoch=2", "unknown parameter 'train.epoch'; did you mean 'train.epochs'"),
        ("trian.epochs=2", "did you mean 'train.epochs'"),
        ("train.epochs=two", r"train\.epochs.*integer.*'two'"),
        ("epochs=2", "did you mean 'train.epochs'"),
        ("threat.rgb.eps=-1", r"threat\.rgb\.eps.*at least 0"),
        ("train.lr=.nan", r"train\.lr.*finite"),
        ("seeds=[0,-1]", "seeds.*at least 0"),
        ("tune.val_steps=2", "the setting tune.val_steps is gone: use train.val_steps"),
        ("train.augment.mirror=0.5", "train.augment.mirror is gone: .*train.augment=false"),
        ("variant=lat", "no variant 'lat'.*did you mean 'late'"),
        ("recipe=sampel", "no recipe 'sampel'.*did you mean 'sample'"),
        ("model.fusion=mmtm", "use variant=mmtm"),
        ("threat.rgb.eps=8/0", "8/0"),
        ("train.epochs", "write key=value"),
        ("data.protocol=custom", "exactly one of subjects, cameras, setups"),
        ("data.custom.subjects=[1]", "set data.protocol=custom"),
        ("data.custom.persons=[1]", "no 'persons'; it takes one of subjects"),
        ("data.custom=[1]", r"data\.custom"),
        ("tune.space.train.lr={kind: uniform, low: 0}", "high"),
        ("compare=[amr, amr/v2]", "compare: no variant 'amr/v2'.*did you mean 'amr'"),
        ("register.variant=lat", "register.variant: no variant 'lat'.*did you mean 'late'"),
        ("evaluate.twin=lat", "evaluate.twin: no variant 'lat'.*did you mean 'late'"),
        ("compare=[]", "compare=.* is empty"),
        ("seeds=[]", "seeds=.* is empty"),
        ("seeds=[0, 1, 0]", "seeds=.* names one twice"),
        ("register.name=amr/v2", "register.name='amr/v2' holds '/'"),
        ("register.name=" + "ä" * 200, "at most 250 bytes"),
        ("tracking.experiment=", "tracking.experiment='' is empty"),
        ('tracking.experiment="a\\nb"', "cannot be printed"),
        ("tracking.experiment=" + "x" * 501, "up to 500"),
    ],
)
def test_a_wrong_setting_is_named(word, message):
    with pytest.raises(ConfigError, match=message):
        load_config(PARAMS, [word])


@pytest.mark.parametrize("path", ["~/ntu", "$HOME/ntu", "file:///mnt/ntu"])
@pytest.mark.parametrize("key", ["data", "artifacts"])
def test_paths_that_dvc_would_read_otherwise_are_refused_in_the_file_alone(tmp_path, key, path):
    file = tmp_path / "params.yaml"
    file.write_text(f"paths: {{{key}: '{path}'}}\n")
    with pytest.raises(ConfigError, match=rf"paths\.{key}=.*DVC takes"):
        load_config(file)
    file.write_text("paths: {data: '/mnt/our data #1', artifacts: out}\n")
    assert getattr(load_config(file, [f"paths.{key}={path}"]).paths, key) == path


def test_a_variant_whose_name_would_be_a_folder_is_refused(tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "variants.yaml").write_text("amr: {}\nmy/own: {model.fusion: late}\n")
    (tmp_path / "params.yaml").write_text("train: {epochs: 1}\n")
    with pytest.raises(UserError, match="variant='my/own' holds '/'"):
        load_config(tmp_path / "params.yaml")


def test_a_recipe_with_a_base_is_that_recipe_but_for_what_it_changes(tmp_path):
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "variants.yaml").write_text("amr: {}\n")
    (folder / "mine.yaml").write_text(
        "compare: [amr]\ndata: {protocol: custom, custom: {subjects: [1, 3]}}\n"
    )
    (folder / "fold.yaml").write_text("base: mine\ndata: {custom: {subjects: [3]}}\nseeds: [4]\n")
    mine, fold = (recipes.compose(folder, name) for name in ("mine", "fold"))
    assert {key for key in mine if mine[key] != fold[key]} == {"recipe", "paths", "data", "seeds"}
    assert fold["data"] == {**mine["data"], "custom": {"subjects": [3]}}
    assert fold["paths"]["artifacts"] == "artifacts/fold"  # never its base's folder


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("mien", "no recipe 'mien'; did you mean 'mine'"),
        ("second", "its base second has a base itself"),
        ("first", "its base first has a base itself"),
    ],
)
def test_a_base_that_cannot_be_one_is_named(tmp_path, base, message):
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "variants.yaml").write_text("amr: {}\n")
    (folder / "mine.yaml").write_text("seeds: [1]\n")
    (folder / "second.yaml").write_text("base: mine\n")
    (folder / "first.yaml").write_text(f"base: {base}\n")
    with pytest.raises(ConfigError, match=rf"first\.yaml: {message}"):
        recipes.compose(folder, "first")


def test_the_folds_of_nucla_differ_in_their_subjects_alone():
    folder = ROOT / "recipes"
    names = ["nucla", *(f"nucla_{subject}" for subject in (1, 3, 5, 7))]
    composed = [recipes.compose(folder, name) for name in names]
    tests, everybody = [], {1, 3, 5, 7, 9}
    for values in composed:
        data = values.pop("data")
        trained = set(data["custom"]["subjects"])
        assert set(data["val_subjects"]) < trained and len(data["val_subjects"]) == 1
        tests += everybody - trained
        for key in ("recipe", "paths"):
            values.pop(key)
        assert values == composed[0]
    assert sorted(tests) == sorted(everybody)  # each is tested once


def test_unknown_key_inside_the_file_is_named(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("train: {epoch: 3}\n")
    with pytest.raises(ConfigError, match=r"train\.epoch.*train\.epochs"):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {schedule: cosine}", "the setting train.schedule is gone: .*one cycle"),
        ("train: {augment: {mirror: 0.5}}", "train.augment.mirror, .* are gone: .*train.augment"),
        ("report: {compare: [a]}", "report.compare is gone: compare variants"),
    ],
)
def test_a_file_with_a_setting_that_is_gone_says_what_became_of_it(tmp_path, text, message):
    path = tmp_path / "params.yaml"
    path.write_text(text + "\n")
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_no_setting_is_both_there_and_gone():
    assert not set(REMOVED) & {key for key, _, _ in settings_of(Config())}


def test_what_an_older_version_wrote_is_read_and_says_what_it_ignored(caplog):
    older = {
        "data": {"protocol": "xview60", "clip_seconds": 300.0, "custom": {}},
        "train": {"epochs": 3, "augment": {"mirror": 0.5, "rotate": 0.3}},
        "tune": {"asha": {"grace": 2}},
    }
    config = from_older(older, "checkpoint amr-s0")
    assert config == from_dict({"data": {"protocol": "xview60"}, "train": {"epochs": 3}})
    (record,) = caplog.records
    line = record.getMessage()
    assert line.startswith("checkpoint amr-s0: ignored") and "data.clip_seconds (use index" in line
    assert all(name in line for name in ("train.augment.mirror", "train.augment.rotate"))
    assert "\n" not in line and older["data"]["clip_seconds"] == 300.0
    with pytest.raises(ConfigError, match="did you mean 'data.protocol'"):
        from_older({"data": {"protocl": "xview60"}}, "checkpoint")
    caplog.clear()
    assert from_older(to_dict(config), "checkpoint") == config and not caplog.records


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n"])
def test_a_broken_file_is_named(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        load_config(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "absent.yaml")


def test_eps_may_be_a_fraction():
    config = load_config(PARAMS, ["threat.rgb.eps=4/255", "train.attack.rgb_eps=16/255"])
    assert config.threat.rgb.eps == 4 / 255
    assert config.train.attack.rgb_eps == 16 / 255


def test_custom_protocol_by_subjects():
    config = load_config(PARAMS, ["data.protocol=custom", "data.custom.subjects=[1,3,5,7]"])
    assert config.data.custom == {"subjects": (1, 3, 5, 7)}


def test_settings_are_frozen():
    config = Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.train.epochs = 3


@pytest.mark.parametrize(
    ("name", "distribution", "words"),
    [
        ("train.attack.rgb_eps", "{kind: uniform, low: 1, high: 8}", "8/255 was meant"),
        ("train.attack.rgb_eps", "{kind: uniform, low: 2/255, high: 8}", "8/255 was meant"),
        ("train.attack.rgb_eps", "{kind: choice, values: [4/255, 16]}", "16/255 was meant"),
        ("train.attack.skeleton_eps", "{kind: uniform, low: 10, high: 50}", "0.01 was meant"),
        (
            "train.attack.rgb_eps",
            "{kind: ratio, of: train.attack.skeleton_eps, low: 1, high: 100}",
            "5/255 was meant",
        ),
        ("train.lr", "{kind: uniform, low: 0, high: 0.1}", "above 0"),
        ("train.ema", "{kind: uniform, low: 0.9, high: 99}", "below 1"),
    ],
)
def test_a_search_space_in_another_unit_is_refused_when_settings_load(name, distribution, words):
    with pytest.raises(ConfigError, match=rf"tune.space: {name}: .*{words}"):
        load_config(PARAMS, [f"tune.space={{{name}: {distribution}}}"])


def test_a_search_space_takes_fractions_and_lists():
    words = "{train.attack.rgb_eps: {kind: uniform, low: 4/255, high: 16/255}, "
    words += "model.fusion_stages: {kind: choice, values: [[-1], [1, 2]]}}"
    space = load_config(PARAMS, [f"tune.space={words}"]).tune.space
    assert space["train.attack.rgb_eps"].high == 16 / 255


def test_a_search_space_takes_names_with_dots():
    word = "tune.space.train.lr={kind: uniform, low: 1.0e-4, high: 1.0e-2, log: true}"
    space = load_config(PARAMS, [word]).tune.space
    assert space["train.lr"].high == 1e-2


def test_overrides_apply_to_a_config_without_touching_it():
    base = load_config(PARAMS)
    changed = apply_overrides(base, parse_overrides(["model.amr.distil=2.5"]))
    assert changed.model.amr.distil == 2.5
    assert base.model.amr.distil != 2.5


def test_every_section_and_leaf_is_a_valid_key():
    keys = valid_keys()
    assert {"train", "train.attack.rgb_eps", "register.name", "threat.skeleton.eps"} <= set(keys)
