"""The files in deploy/ that people copy: their published schemas, and one version of everything."""

import copy
import gzip
import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
HERE = Path(__file__).parent
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M))
DOCKERFILE = (DEPLOY / "docker" / "Dockerfile").read_text()


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / name).read_text())


def schema(name: str) -> dict[str, Any]:
    return json.loads(gzip.decompress((HERE / name).read_bytes()))


def strict(node: Any) -> Any:
    """The schema as the API server means it with strict field validation: no unknown field."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {key: strict(value) for key, value in node.items()}
    open_to_all = node.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in node
    if isinstance(node.get("properties"), dict) and node.get("type") == "object":
        if not open_to_all:
            out["additionalProperties"] = False
    return out


@pytest.fixture(scope="module")
def rayjob() -> dict[str, Any]:
    made = strict(schema("kuberay-1.7.0-rayjob-v1.json.gz"))
    for kind in (made, made["properties"]["spec"]["properties"]["rayClusterSpec"]):
        jsonschema.Draft202012Validator.check_schema(kind)
    # Every object's, which the API server knows by itself.
    made["properties"]["metadata"] = {"type": "object"}
    return made


def cluster_spec(rayjob: dict[str, Any]) -> dict[str, Any]:
    return rayjob["properties"]["spec"]["properties"]["rayClusterSpec"]


# KubeRay


def test_kuberay_files_follow_the_published_schema(rayjob: dict[str, Any]) -> None:
    jsonschema.validate(read("kuberay/job.yaml"), rayjob)
    jsonschema.validate(read("kuberay/cluster.yaml")["spec"], cluster_spec(rayjob))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("workerGroupSpecs", 0, "maxReplicas"), "many"),
        (("workerGroupSpecs", 0, "maxReplica"), 8),
        (("autoscalerOptions", "upscalingMode"), "Fast"),
        (("headGroupSpec", "template", "spec", "containers", 0, "env", 0), {"value": "x"}),
    ],
)
def test_the_schema_finds_what_is_wrong(rayjob: dict[str, Any], path: tuple, value: Any) -> None:
    spec = copy.deepcopy(read("kuberay/cluster.yaml")["spec"])
    node = spec
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spec, cluster_spec(rayjob))


def test_the_job_brings_the_same_cluster_and_both_have_bounds_storage_and_no_secret() -> None:
    spec = read("kuberay/cluster.yaml")["spec"]
    assert read("kuberay/job.yaml")["spec"]["rayClusterSpec"] == spec
    group = spec["workerGroupSpecs"][0]
    assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    assert spec["enableInTreeAutoscaling"] and spec["authOptions"] == {"mode": "token"}
    claim = read("kuberay/storage.yaml")["metadata"]["name"]
    for pod in (spec["headGroupSpec"]["template"], group["template"]):
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        assert volumes["workspace"]["persistentVolumeClaim"]["claimName"] == claim
        container = pod["spec"]["containers"][0]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts["workspace"] == "/workspace"
        for variable in container["env"]:
            by_reference = "secretKeyRef" in variable.get("valueFrom", {})
            assert by_reference or not re.search("KEY|SECRET|PASSWORD|TOKEN", variable["name"])
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"


def test_the_jobs_entrypoint_is_the_module_that_jobs_run() -> None:
    words = shlex.split(shlex.split(read("kuberay/job.yaml")["spec"]["entrypoint"])[-1])
    assert words[:4] == ["cd", "/app", "&&", "exec"] and words[5:7] == ["-m", "pipelines.job"]
    assert words[7].startswith("/workspace/") and (ROOT / "pipelines" / "job.py").is_file()


# ray up


def test_the_launchers_file_passes_rays_own_validator() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = read("ray/aws.yaml")
    prepared = prepare_config(copy.deepcopy(config))  # as `ray up` does before it asks AWS
    validate_config(prepared)
    types = prepared["available_node_types"]
    assert prepared["head_node_type"] in types
    assert types["gpu"]["max_workers"] <= prepared["max_workers"]
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config({**prepared, "max_worker": 3})
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    # A worker's `ray start` does not look for a token by itself.
    assert all("RAY_AUTH_MODE=token" in line for line in starts if "ray start" in line)
    assert "--dashboard-host=127.0.0.1" in " ".join(starts)


# Compose


def test_the_compose_file_follows_the_specifications_schema() -> None:
    form = schema("compose-spec.json.gz")
    body = read("compose/compose.yaml")
    jsonschema.validate(body, form)
    wrong = copy.deepcopy(body)
    wrong["services"]["ray"]["port"] = ["1:1"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, form)


def test_compose_publishes_on_loopback_alone_and_holds_no_secret() -> None:
    body = read("compose/compose.yaml")
    ports = [port for service in body["services"].values() for port in service.get("ports", [])]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)
    for service in body["services"].values():
        for name, value in service.get("environment", {}).items():
            secret = re.search("PASSWORD|SECRET|ACCESS_KEY|ROOT_USER", name)
            assert not secret or value.startswith("${"), name
    assert body["services"]["ray"]["environment"]["RAY_AUTH_MODE"] == "token"
    for service in body["services"].values():
        for other in service.get("depends_on", {}):
            assert other in body["services"]
    named = {
        mount.split(":")[0] for s in body["services"].values() for mount in s.get("volumes", [])
    }
    assert named == set(body["volumes"])


# The image


def instructions() -> list[tuple[str, str]]:
    """Each instruction of the Dockerfile with its words, continued lines joined."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line]


def test_the_dockerfile_has_one_argument_for_the_device_and_no_root() -> None:
    found = instructions()
    known = {"FROM", "ARG", "RUN", "USER", "WORKDIR", "ENV", "COPY", "CMD"}
    assert {word for word, _ in found} == known and found[0][0] == "FROM"
    arguments = [words.partition("=")[0] for word, words in found if word == "ARG"]
    assert arguments == ["DEVICE", "COMMIT"]
    assert [words for word, words in found if word == "USER"] == ["amr"]
    runs = " ".join(words for word, words in found if word == "RUN")
    assert runs.count("apt-get install -y --no-install-recommends") == runs.count("apt-get install")
    assert "rm -rf /var/lib/apt/lists/*" in runs and "--no-cache-dir" in runs
    for words in re.findall(r"pip install (.*?)(?:&&|$)", runs, re.M):
        assert "-c constraints.txt" in words or "--no-deps" in words, words


def test_everything_that_is_copied_is_there_and_nothing_licensed_or_secret_is() -> None:
    for word, words in instructions():
        if word == "COPY":
            sources = [w for w in words.split()[:-1] if not w.startswith("--")]
            assert all((ROOT / source).exists() for source in sources)
    lines = (DEPLOY / "docker" / "Dockerfile.dockerignore").read_text().split("\n")
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    assert all((ROOT / name).exists() for name in allowed)
    assert not allowed & {"data", "artifacts", ".git", "mlflow.db"}
    needed = {"components", "pipelines", "mlflow_tracking", "recipes", "params.yaml", "dvc.yaml"}
    assert needed <= allowed


# One version of everything


def test_versions_are_those_of_the_constraints() -> None:
    for name in ("kuberay/cluster.yaml", "kuberay/job.yaml"):
        found = re.findall(r'rayVersion: "([^"]+)"', (DEPLOY / name).read_text())
        assert found == [PINS["ray"]]
    wanted = re.search(r"requires-python = \">=([\d.]+)\"", (ROOT / "pyproject.toml").read_text())
    assert wanted and f"FROM python:{wanted[1]}-" in DOCKERFILE
    for path in DEPLOY.rglob("*"):
        if path.is_file() and path.suffix in (".yaml", "") and path.name != "README.md":
            # A version of one of our packages is written nowhere else.
            for package, version in re.findall(r"([\w-]+)==([\w.]+)", path.read_text()):
                assert PINS[package.lower()] == version, f"{path}: {package}"
    images = {service["image"] for service in read("compose/compose.yaml")["services"].values()}
    assert all(":" in image and not image.endswith(":latest") for image in images)


@pytest.mark.parametrize(
    "name",
    ["docker/Dockerfile", "kuberay/cluster.yaml", "kuberay/job.yaml", "ray/aws.yaml",
     "compose/compose.yaml"],
)  # fmt: skip
def test_each_file_says_what_it_was_not_tried_on(name: str) -> None:
    assert re.search(r"^# (?:No|Not) .*was at hand", (DEPLOY / name).read_text(), re.M)
