"""The commands of `amr` in the order of use. Read by its help and its completion: plain data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One command: a module of this package, run as `python -m pipelines.MODULE` would run it.

    settings: takes `key=value` overrides; options: its flags besides `--help`
    """

    name: str
    does: str
    example: str
    options: tuple[str, ...] = ("--params",)
    settings: bool = True
    module: str = ""

    @property
    def path(self) -> str:
        """The module that does the work."""
        return f"pipelines.{self.module or self.name}"


GROUPS: dict[str, tuple[Command, ...]] = {
    "First look": (
        Command(
            "doctor",
            "what is missing on this machine or wrong with its data, each with its fix",
            "amr doctor",
            ("--json", "--params"),
        ),
        Command("recipe", "list the recipes, or fill params.yaml from one", "amr recipe ntu60", ()),
        Command("sample", "write the bundled synthetic data set", "amr sample"),
        Command(
            "inspect",
            "what the files of one clip hold, and why it would be rejected",
            "amr inspect S001C001P002R001A001 --png clip.png",
            ("--params", "--png"),
            module="inspect_clip",
        ),
        Command("demo", "the whole pipeline on the data of params.yaml", "amr demo"),
    ),
    "Stages (`dvc repro` runs them all)": (
        Command("index", "one row for each clip found, accepted or rejected", "amr index"),
        Command("shard", "crop around the people, write sealed Arrow files", "amr shard"),
        Command("tune", "search attack and fusion parameters", "amr tune tune.trials=20"),
        Command("train", "adversarial training of one run", "amr train variant=amr seed=1"),
        Command("evaluate", "robust accuracy of one run", "amr evaluate evaluate.suite=standard"),
        Command("register", "a version in the MLflow registry, through the gate", "amr register"),
        Command("report", "the page and the table of results", "amr report --table", ("--table",)),
    ),
    "Use of a model": (
        Command(
            "predict",
            "classes of one clip or a folder of clips",
            "amr predict clips/ --format csv",
            ("--attack", "--format", "--json", "--model", "--page", "--params", "--picture"),
        ),
        Command(
            "export",
            "a folder for the Hugging Face Hub, and a torch.export program",
            "amr export hub/amr --torch-export amr.pt2",
            ("--clips", "--params", "--torch-export"),
        ),
    ),
    "Records and clusters": (
        Command("sync", "send to MLflow what could not be sent before", "amr sync"),
        Command(
            "relocate",
            "after the project was moved or copied, mend MLflow's sqlite file",
            "amr relocate",
        ),
        Command(
            "reproduce",
            "what differs from a recorded run; the run again if nothing does",
            "amr reproduce RUN_ID --only-compare",
            ("--anyway", "--only-compare", "--params", "--tolerance"),
        ),
        Command(
            "reference",
            "docs/settings.md and docs/api.md from the code",
            "amr reference",
            (),
            settings=False,
        ),
        Command(
            "results",
            "the rows that README prints -> results/",
            "amr results",
            ("--params", "--pool"),
        ),
        Command(
            "submit",
            "run the pipeline as a job on a Ray cluster",
            "amr submit http://127.0.0.1:8265",
            ("--workspace",),
            settings=False,
        ),
    ),
    "Shell": (
        Command(
            "completion",
            "a script that completes commands and settings",
            'eval "$(amr completion bash)"',
            (),
            settings=False,
            module="_completion",
        ),
    ),
}
COMMANDS: dict[str, Command] = {c.name: c for group in GROUPS.values() for c in group}
