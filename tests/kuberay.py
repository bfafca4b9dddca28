"""A JSON schema of a RayService, from the documented API of KubeRay 1.3.

Kubernetes drops or rejects unknown fields, so this schema allows no others. Of a pod's fields it lists the common ones;
add others when deploy/rayservice.yaml needs them.
"""

from __future__ import annotations

import re
from typing import Any, Final

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string", "minLength": 1}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
SWITCH: Final[Schema] = {"type": "boolean"}
TEXTS: Final[Schema] = {"type": "object", "additionalProperties": {"type": "string"}}  # "0" and not 0
ANYTHING: Final[Schema] = {"type": "object"}  # Kubernetes' own, unused in our file

_SUFFIXES: Final = {"": 1, "m": 0.001, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|k|M|G|Ki|Mi|Gi)?")


def exactly(required: dict[str, Schema], **optional: Schema) -> Schema:
    """Return the schema of an object with these fields and no others."""
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


def many(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


METADATA: Final = exactly({}, name=TEXT, namespace=TEXT, labels=TEXTS, annotations=TEXTS)
QUANTITIES: Final[Schema] = {
    "type": "object",
    "properties": {name: {"type": "string", "pattern": f"^{_QUANTITY.pattern}$"} for name in ("cpu", "memory")},
    "required": ["cpu", "memory"],
    "additionalProperties": {"type": ["string", "integer"]},  # nvidia.com/gpu
}
PORT: Final = exactly(
    {"containerPort": {"type": "integer", "minimum": 1, "maximum": 65535}},
    name={"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 15},
    protocol={"enum": ["TCP", "UDP", "SCTP"]},
)
# By default KubeRay sets readinessProbe and livenessProbe itself: of the raylet, and on workers of the front end.
CONTAINER: Final = exactly(
    {"name": TEXT, "image": TEXT, "resources": exactly({"requests": QUANTITIES, "limits": QUANTITIES})},
    command=many(TEXT),
    args=many(TEXT),
    env=many(exactly({"name": TEXT}, value={"type": "string"}, valueFrom=ANYTHING)),
    envFrom=many(ANYTHING),
    imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
    lifecycle=ANYTHING,
    livenessProbe=ANYTHING,
    ports=many(PORT),
    readinessProbe=ANYTHING,
    securityContext=ANYTHING,
    volumeMounts=many(exactly({"name": TEXT, "mountPath": TEXT}, subPath=TEXT, readOnly=SWITCH)),
)
TEMPLATE: Final = exactly(
    {
        "spec": exactly(
            {"containers": many(CONTAINER)},
            affinity=ANYTHING,
            imagePullSecrets=many(exactly({"name": TEXT})),
            initContainers=many(ANYTHING),
            nodeSelector=TEXTS,
            priorityClassName=TEXT,
            securityContext=ANYTHING,
            serviceAccountName=TEXT,
            terminationGracePeriodSeconds=COUNT,
            tolerations=many(ANYTHING),
            volumes=many(ANYTHING),
        )
    },
    metadata=METADATA,
)
HEAD: Final = exactly(
    {"rayStartParams": TEXTS, "template": TEMPLATE},
    enableIngress=SWITCH,
    headService=ANYTHING,
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
)
WORKERS: Final = exactly(
    {"groupName": TEXT, "rayStartParams": TEXTS, "template": TEMPLATE, "minReplicas": COUNT, "maxReplicas": COUNT},
    idleTimeoutSeconds=COUNT,
    numOfHosts=COUNT,
    replicas=COUNT,
    scaleStrategy=ANYTHING,
    suspend=SWITCH,
)
CLUSTER: Final = exactly(
    {"headGroupSpec": HEAD, "workerGroupSpecs": many(WORKERS), "rayVersion": TEXT},
    autoscalerOptions=exactly(
        {},
        env=many(ANYTHING),
        envFrom=many(ANYTHING),
        idleTimeoutSeconds=COUNT,
        image=TEXT,
        imagePullPolicy=TEXT,
        resources=ANYTHING,
        securityContext=ANYTHING,
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        version={"enum": ["v1", "v2"]},
        volumeMounts=many(ANYTHING),
    ),
    enableInTreeAutoscaling=SWITCH,
    gcsFaultToleranceOptions=exactly(
        {"redisAddress": TEXT}, externalStorageNamespace=TEXT, redisPassword=ANYTHING, redisUsername=ANYTHING
    ),
    headServiceAnnotations=TEXTS,
    managedBy=TEXT,
    suspend=SWITCH,
)
RAY_SERVICE: Final = exactly(
    {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayService"},
        "metadata": METADATA | {"required": ["name"]},
        "spec": exactly(
            {"serveConfigV2": TEXT, "rayClusterConfig": CLUSTER},
            excludeHeadPodFromServeSvc=SWITCH,
            rayClusterDeletionDelaySeconds=COUNT,
            serveService=ANYTHING,
            upgradeStrategy=exactly({}, type={"enum": ["NewCluster", "None"]}),
        ),
    }
)


def quantity(text: str) -> float:
    """Parse a Kubernetes quantity such as "500m" or "4Gi"."""
    found = _QUANTITY.fullmatch(text)
    assert found, text
    return float(found[1]) * _SUFFIXES[found[2] or ""]
