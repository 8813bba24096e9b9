"""The chart, rendered by Helm itself and held against Kubernetes' own schemas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from helm_python import Chart
from helm_python.errors import HelmError

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "sensefield"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
CUSTOM = {"ServiceMonitor", "ScaledObject", "LeaderWorkerSet"}
"""Kinds that Kubernetes' schemas do not know: the Prometheus Operator's, KEDA's, LWS's."""
WORKLOADS = {"Deployment", "LeaderWorkerSet"}
KUBERNETES = "1.34"


def rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the manifests that the chart makes of the values."""
    with Chart.load(CHART) as chart:
        chart.validate_schema(values)
        texts = chart.render(values=values, name="llm", namespace="prod").values()
    return [each for text in texts for each in yaml.safe_load_all(text) if each]


def of_kind(manifests: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Return the only manifest of a kind."""
    (found,) = (each for each in manifests if each["kind"] == kind)
    return found


def container(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = of_kind(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
    return found


def pods(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the templates of the only workload's pods, that of the one that serves first."""
    (workload,) = (each["spec"] for each in manifests if each["kind"] in WORKLOADS)
    if "template" in workload:
        return [workload["template"]]
    group = workload["leaderWorkerTemplate"]
    return [group["leaderTemplate"], group["workerTemplate"]]


def example(name: str) -> list[dict[str, Any]]:
    return rendered(yaml.safe_load((CHART / "examples" / f"{name}.yaml").read_text()))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid_kubernetes(path: Path) -> None:
    manifests = example(path.stem)
    assert {"Service", "PodDisruptionBudget"} <= {each["kind"] for each in manifests}
    for template in pods(manifests):
        named = {**template["metadata"], "name": "pod"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": named, "spec": template["spec"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    for manifest in manifests:
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        assert manifest["metadata"]["labels"]["app.kubernetes.io/name"] == "sensefield"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_pods_run_without_root_and_write_to_volumes_only(path: Path) -> None:
    for template in pods(example(path.stem)):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        (server,) = pod["containers"]
        assert server["securityContext"]["readOnlyRootFilesystem"]
        assert server["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        mounted = {mount["name"] for mount in server["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        drain = next(arg for arg in server["args"] if arg.startswith("--shutdown-timeout="))
        assert pod["terminationGracePeriodSeconds"] > int(drain.partition("=")[2])


def test_the_service_and_the_budget_select_the_pods() -> None:
    manifests = example("one-gpu")
    labels = of_kind(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
    budget = of_kind(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    assert of_kind(manifests, "Service")["spec"]["selector"].items() <= labels.items()
    assert budget.items() <= labels.items()


def test_probes_ask_the_paths_that_tell_what_they_want_to_know() -> None:
    server = container(example("cpu-demo"))
    paths = {
        kind: server[f"{kind}Probe"]["httpGet"]["path"]
        for kind in ("startup", "liveness", "readiness")
    }
    assert paths == {"startup": "/health", "liveness": "/health", "readiness": "/ready"}
    startup = server["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 300


def test_keys_and_token_come_from_secrets_and_the_probe_has_a_key() -> None:
    manifests = example("one-gpu")
    server = container(manifests)
    secrets = {
        entry["name"]: entry["valueFrom"]["secretKeyRef"]
        for entry in server["env"]
        if "valueFrom" in entry
    }
    assert secrets == {
        "SENSEFIELD_API_KEYS": {"name": "sensefield-keys", "key": "keys"},
        "READY_KEY": {"name": "sensefield-keys", "key": "metricsKey"},
        "HF_TOKEN": {"name": "hf-token", "key": "token"},
    }
    assert server["readinessProbe"]["exec"]["command"] == ["sensefield-ready"]
    (endpoint,) = of_kind(manifests, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"]["key"] == "metricsKey"


def test_vectors_in_an_object_store_come_with_its_credentials() -> None:
    server = container(example("one-gpu"))
    (url,) = (each for each in server["env"] if each["name"] == "SENSEFIELD_VECTORS_DIR")
    assert url["value"] == "s3://models/vectors"
    assert server["envFrom"] == [{"secretRef": {"name": "s3-credentials"}}]
    assert "envFrom" not in container(example("cpu-demo"))


def test_a_pod_that_ends_refuses_nobody_before_the_service_knows() -> None:
    manifests = rendered({"models": [{"name": "a"}], "drainSeconds": 30})
    pod = of_kind(manifests, "Deployment")["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    command, seconds = server["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert pod["terminationGracePeriodSeconds"] > int(seconds) + 30


def test_keda_scales_the_deployment_on_the_queue() -> None:
    manifests = example("one-gpu")
    deployment = of_kind(manifests, "Deployment")
    assert "replicas" not in deployment["spec"]
    scaled = of_kind(manifests, "ScaledObject")["spec"]
    assert scaled["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert scaled["maxReplicaCount"] == 4
    (trigger,) = scaled["triggers"]
    assert trigger["metadata"]["threshold"] == "5"
    assert 'vllm:num_requests_waiting{model_name="qwen3-8b"' in trigger["metadata"]["query"]


def test_tensor_parallel_ranks_get_their_gpus_and_shared_memory() -> None:
    manifests = example("tensor-parallel")
    server = container(manifests)
    assert server["resources"]["limits"]["nvidia.com/gpu"] == 4
    assert server["args"][-2:] == ["--tensor-parallel-size", "4"]
    pod = of_kind(manifests, "Deployment")["spec"]["template"]["spec"]
    assert pod["runtimeClassName"] == "nvidia"
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    assert volumes["vectors"]["persistentVolumeClaim"] == {"claimName": "vectors"}


def test_a_replica_of_two_hosts_is_a_group_whose_first_pod_serves() -> None:
    manifests = example("multi-node")
    group = of_kind(manifests, "LeaderWorkerSet")["spec"]["leaderWorkerTemplate"]
    assert group["size"] == 2
    server, helper = (template["spec"]["containers"][0] for template in pods(manifests))
    across = ["--nnodes=2", "--node-rank=$(NODE_RANK)", "--master-addr=$(LWS_LEADER_ADDRESS)"]
    assert server["args"][-3:] == across
    assert helper["args"] == [*server["args"], "--headless"]
    assert server["resources"] == helper["resources"]
    assert server["resources"]["limits"]["nvidia.com/gpu"] == 8
    assert "startupProbe" in server
    assert not {"ports", "startupProbe", "livenessProbe", "readinessProbe"} & helper.keys()
    selector = of_kind(manifests, "Service")["spec"]["selector"].items()
    leader, worker = (template["metadata"]["labels"].items() for template in pods(manifests))
    assert selector <= leader
    assert not selector <= worker
    budget = of_kind(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items()
    assert budget <= leader
    assert budget <= worker


def test_keda_scales_groups_too() -> None:
    model = {"name": "a", "nodes": 2, "autoscaling": {"maxReplicas": 3}}
    manifests = rendered({"models": [model]})
    group = of_kind(manifests, "LeaderWorkerSet")
    assert "replicas" not in group["spec"]
    assert of_kind(manifests, "ScaledObject")["spec"]["scaleTargetRef"] == {
        "apiVersion": group["apiVersion"],
        "kind": "LeaderWorkerSet",
        "name": group["metadata"]["name"],
    }


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"models": [{"name": "Upper"}]}, "name"),
        ({"models": [{"name": "a", "gpus": -1}]}, "gpus"),
        ({"models": [{"name": "a", "gpu": 1}]}, "gpu"),
        ({"models": [{}]}, "name"),
        ({"vector": {}}, "vector"),
    ],
)
def test_values_that_cannot_be_are_refused_by_name(values: dict[str, Any], named: str) -> None:
    with pytest.raises(HelmError, match=named):
        rendered(values)


def test_models_live_beside_one_another() -> None:
    manifests = rendered({"models": [{"name": "a"}, {"name": "b", "replicas": 3}]})
    deployments = [each for each in manifests if each["kind"] == "Deployment"]
    assert [each["metadata"]["name"] for each in deployments] == ["llm-a", "llm-b"]
    assert [each["spec"]["replicas"] for each in deployments] == [1, 3]
