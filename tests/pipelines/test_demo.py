"""What the demo says at its end."""

from pipelines.demo import story


def _evaluation(clean: float, both: float) -> dict:
    return {"clips": 146, "clean_acc": {"value": clean}, "worst": {"both": {"value": both}}}


def test_story_goes_from_the_model_that_breaks_to_the_one_that_stands():
    models = {"amr": _evaluation(0.945, 0.6), "late-natural": _evaluation(0.986, 0.0)}
    told = story(models, synthetic=True)
    assert "146 synthetic test clips" in told
    assert told.endswith("late-natural 99 % -> 0 %, amr 94 % -> 60 %")
    assert "synthetic" not in story(models, synthetic=False)
