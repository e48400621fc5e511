"""Which test files guard which modules: what mutation changes, and what it then runs."""

# Only tests of Ray's processes, of a minute each, look at these.
LEFT_OUT = (
    "components/training/worker.py",
    "components/evaluation/piece.py",
    "components/evaluation/bootstrap.py",
)

# Module pattern -> (package it counts for, test files, quickest first). The first match holds.
ATTACKS = tuple(
    f"tests/attacks/test_{name}.py"
    for name in (
        "guard_region",
        "guard_parts",
        "guard_named_attacks",
        "guard_steps",
        "guard_searches",
        "threat",
        "guard_attacks",
        "pgd",
        "apgd",
        "guard_pinned_attacks",
        "adaptive_attacks",
        "gradient_free",
        "margin_pgd",
    )  # fmt: skip
)
SPECIAL = (
    "tests/attacks/test_guard_parts.py",
    "tests/attacks/test_guard_named_attacks.py",
    "tests/attacks/test_guard_steps.py",
    "tests/attacks/test_guard_searches.py",
    "tests/attacks/test_guard_pinned_attacks.py",
    "tests/attacks/test_special_attacks.py",
    "tests/attacks/test_attack_table.py",
    "tests/attacks/test_gradient_free.py",
    "tests/attacks/test_odd_input.py",
)
TRAINING = tuple(
    f"tests/training/test_{name}.py"
    for name in (
        "guard_pieces",
        "guard_examples",
        "guard_training",
        "guard_settings",
        "guard_pinned_training",
        "methods",
        "loop",
        "step",
        "stacking",
    )
)
MODELS = tuple(
    f"tests/models/test_{name}.py"
    for name in (
        "fusions",
        "amr",
        "heads",
        "normalize",
        "guard_awake",
        "guard_models",
        "guard_pinned_models",
        "two_stream",
    )
)
BACKBONES = (
    "tests/models/test_guard_awake.py",
    "tests/models/test_guard_pinned_models.py",
    "tests/models/test_skeleton_nets.py",
    "tests/models/test_video_nets.py",
    "tests/models/test_forward_references.py",
)
TABLES = (
    "tests/evaluation/test_verdicts.py",
    "tests/evaluation/test_metrics.py",
    "tests/evaluation/test_guard_evaluation_parts.py",
    "tests/evaluation/test_guard_files.py",
    "tests/evaluation/test_guard_tables.py",
    "tests/evaluation/test_streams.py",
    "tests/evaluation/test_interventions.py",
    "tests/evaluation/test_guard_evaluation.py",
    "tests/evaluation/test_guard_checks.py",
    "tests/evaluation/test_guard_pinned_evaluation.py",
    "tests/evaluation/test_cascade.py",
    "tests/evaluation/test_evaluate.py",
    "tests/evaluation/test_comparable.py",
    "tests/evaluation/test_fixed.py",
    "tests/evaluation/test_gallery.py",
)
FOLDED = (
    "tests/evaluation/test_faster.py",
    "tests/attacks/test_folding.py",
    "tests/attacks/test_guard_parts.py",
)
SEARCH = tuple(
    f"tests/search/test_{name}.py"
    for name in (
        "space",
        "objective",
        "guard_space",
        "guard_scores",
        "study",
        "search_output",
        "guard_search",
    )
)
GUARDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "components/attacks/folding.py": ("attacks", FOLDED[::-1]),
    "components/attacks/plausible.py": (
        "attacks",
        (
            "tests/attacks/test_guard_motion.py",
            "tests/attacks/test_threat.py",
            "tests/attacks/test_guard_pinned_attacks.py",
        ),
    ),
    **{
        f"components/attacks/{name}.py": ("attacks", SPECIAL)
        for name in ("cw", "eot", "flicker", "hard_label", "mifgsm", "smart", "sparse", "universal")
    },
    "components/attacks/*.py": ("attacks", ATTACKS),
    "components/models/backbones/*.py": ("models", BACKBONES),
    "components/models/*.py": ("models", MODELS),
    "components/training/parallel.py": ("training", ("tests/training/test_parallel.py",)),
    "components/training/memory.py": (
        "training",
        ("tests/training/test_guard_pieces.py", "tests/training/test_parallel.py"),
    ),
    "components/training/*.py": ("training", TRAINING),
    "components/evaluation/*checks.py": (
        "evaluation",
        (
            "tests/evaluation/test_guard_records.py",
            "tests/evaluation/test_guard_flags.py",
            "tests/evaluation/test_guard_checks.py",
            "tests/evaluation/test_checks.py",
        ),
    ),
    "components/evaluation/bootstrap.py": ("evaluation", ("tests/evaluation/test_over_seeds.py",)),
    "components/evaluation/faster.py": (
        "evaluation",
        ("tests/evaluation/test_guard_files.py", *FOLDED),
    ),
    "components/evaluation/*.py": ("evaluation", TABLES),
    "components/datasets/*.py": (
        "datasets",
        (
            "tests/datasets/test_dataset_order.py",
            "tests/datasets/test_guard_datasets.py",
            "tests/datasets/test_guard_loading.py",
            "tests/datasets/test_dataset_batches.py",
        ),
    ),
    "components/search/*.py": ("search", SEARCH),
    "mlflow_tracking/gate.py": (
        "gate",
        ("tests/mlflow_tracking/test_gate.py", "tests/mlflow_tracking/test_guard_gate.py"),
    ),
}
