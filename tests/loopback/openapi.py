"""Bodies against Discord's own OpenAPI description, in milliseconds.

Validators are built when an operation is first met and kept. Unions are decided by their ``type`` field where
they have one: that is what makes forty nested components cheap, and what makes an error name the fault and not
all the shapes that the component is not.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator, ValidationError  # type: ignore[import-untyped]
from jsonschema.validators import extend  # type: ignore[import-untyped]
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from tests.loopback.errors import Complaint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DESCRIPTION = Path(__file__).parents[3] / "shared/discord/openapi.json"
_ROOT = "urn:discord"
_SCHEMAS = "#/components/schemas/"
_CODES = {
    "required": "BASE_TYPE_REQUIRED",
    "maxLength": "BASE_TYPE_MAX_LENGTH",
    "minLength": "BASE_TYPE_MIN_LENGTH",
    "maxItems": "BASE_TYPE_MAX_LENGTH",
    "minItems": "BASE_TYPE_MIN_LENGTH",
    "enum": "BASE_TYPE_CHOICES",
    "const": "BASE_TYPE_CHOICES",
    "maximum": "NUMBER_TYPE_MAX",
    "minimum": "NUMBER_TYPE_MIN",
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path template of the description."""

    method: str
    template: str


class ApiDescription:
    """Discord's HTTP API v10, as far as a JSON schema can tell."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self._schemas: dict[str, Any] = document["components"]["schemas"]
        self._relax()
        self._registry = Registry().with_resource(_ROOT, DRAFT202012.create_resource(document))
        self._validator_class = extend(Draft202012Validator, {"oneOf": self._union, "anyOf": self._union})
        self._validators: dict[str, Any] = {}
        self._templates = sorted(
            ((re.compile(re.sub(r"\\{[^{}]+\\}", "[^/]+", re.escape(path)) + "$"), path) for path in document["paths"]),
            key=lambda entry: entry[1].count("{"),  # "@original" before "{message_id}"
        )

    def _relax(self) -> None:
        """Loosen the description where Discord itself is looser."""
        # A snowflake may come as a JSON number: discord.py numbers the files it uploads 0, 1, 2 and sends the
        # ids of attachments to keep as integers; Discord has always taken both.
        self._schemas["SnowflakeType"] = {
            "oneOf": [{"type": "string", "pattern": "^(0|[1-9][0-9]*)$"}, {"type": "integer", "minimum": 0}]
        }

        # The code of a nested error is a word (BASE_TYPE_MAX_LENGTH), whatever the description says.
        self._schemas["Error"]["properties"]["code"] = {"type": ["integer", "string"]}

    def operation(self, method: str, path: str) -> Operation | None:
        """Return the operation a request means, or None where the description has none."""
        for pattern, template in self._templates:
            if pattern.match(path) and method.lower() in self._document["paths"][template]:
                return Operation(method.upper(), template)
        return None

    def takes_body(self, operation: Operation) -> bool:
        """Return whether the operation describes a request body."""
        return "requestBody" in self._describe(operation)

    def request_complaints(self, operation: Operation, body: object, *, files: tuple[str, ...] = ()) -> list[Complaint]:
        """Return what is wrong with a request's body.

        Args:
            operation: What was asked for.
            body: The JSON body, or that of ``payload_json`` where files came with it.
            files: The names of the multipart fields that hold files.
        """
        content: dict[str, Any] = self._describe(operation)["requestBody"]["content"]
        if not files:
            return self._complaints(operation, ("requestBody", "content", "application/json", "schema"), body)
        if "multipart/form-data" not in content:
            return [Complaint((), "CONTENT_TYPE_INVALID", "this endpoint takes no files")]
        # The description lists the fields of a form beside each other; payload_json stands for all but the files.
        # Its interaction callbacks list no file fields at all, though files have been allowed there since 2021.
        form = body | dict.fromkeys(files, "") if isinstance(body, dict) else body
        return self._complaints(operation, ("requestBody", "content", "multipart/form-data", "schema"), form)

    def response_complaints(self, operation: Operation, status: int, body: object) -> list[Complaint]:
        """Return what is wrong with an answer: this server's check of itself."""
        responses = self._describe(operation)["responses"]
        key = str(status) if str(status) in responses else f"{status // 100}XX"
        if key not in responses:
            return [Complaint((), "STATUS", f"{operation.method} {operation.template} never answers {status}")]
        described = responses[key]
        where: tuple[str, ...] = ("responses", key)
        if "$ref" in described:
            name = described["$ref"].rpartition("/")[2]
            reference = f"{_ROOT}#/components/responses/{name}/content/application~1json/schema"
            return self._run(reference, body)
        if "content" not in described:
            return [] if body is None else [Complaint((), "BODY", f"{status} has no body")]
        where += ("content", "application/json", "schema")
        return self._complaints(operation, where, body)

    def schema_complaints(self, schema: str, body: object) -> list[Complaint]:
        """Return what is wrong with ``body`` as the description's schema of that name."""
        return self._run(f"{_ROOT}{_SCHEMAS}{schema}", body)

    def _describe(self, operation: Operation) -> dict[str, Any]:
        described: dict[str, Any] = self._document["paths"][operation.template][operation.method.lower()]
        return described

    def _complaints(self, operation: Operation, keys: tuple[str, ...], body: object) -> list[Complaint]:
        path = ("paths", operation.template, operation.method.lower(), *keys)
        pointer = "/".join(key.replace("~", "~0").replace("/", "~1") for key in path)
        return self._run(f"{_ROOT}#/{pointer}", body)

    def _run(self, reference: str, body: object) -> list[Complaint]:
        validator = self._validators.get(reference)
        if validator is None:
            validator = self._validator_class({"$ref": reference}, registry=self._registry)
            self._validators[reference] = validator
        return [
            Complaint(tuple(error.absolute_path), _CODES.get(error.validator, "BASE_TYPE_BAD_TYPE"), _sentence(error))
            for error in validator.iter_errors(body)
        ]

    def _union(
        self, validator: Any, branches: list[Any], instance: object, _schema: object
    ) -> Iterator[ValidationError]:
        """Validate ``oneOf`` and ``anyOf``.

        Both mean "at least one" here: the description writes ``x-discord-union: oneOf`` over shapes that overlap.
        """
        candidates = [branch for branch in branches if self._possible(branch, instance)]
        if not candidates:
            yield ValidationError(f"{_short(instance)} is none of {', '.join(map(self._name, branches))}")
            return
        best: list[ValidationError] | None = None
        for branch in candidates:
            errors = list(validator.descend(instance, branch))
            if not errors:
                return
            if best is None or len(errors) < len(best):
                best = errors
        yield from best or ()

    def _possible(self, branch: dict[str, Any], instance: object) -> bool:
        """Return whether a branch of a union can be meant, from its outer type and its ``type`` field alone."""
        schema = self._resolve(branch)
        kind = schema.get("type")
        if kind == "null":
            return instance is None
        if kind == "object" and not isinstance(instance, dict):
            return False
        if "const" in schema:
            return bool(schema["const"] == instance)
        if isinstance(instance, dict) and "type" in instance:
            allowed = schema.get("properties", {}).get("type", {}).get("enum")
            return allowed is None or instance["type"] in allowed
        return True

    def _resolve(self, branch: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in branch:
            branch = self._schemas[branch["$ref"].removeprefix(_SCHEMAS)]
        return branch

    @staticmethod
    def _name(branch: dict[str, Any]) -> str:
        reference: str | None = branch.get("$ref")
        return reference.removeprefix(_SCHEMAS) if reference else _short(branch)


def _short(value: object, limit: int = 80) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _sentence(error: ValidationError) -> str:
    limits: dict[str, Callable[[], str]] = {
        "maxLength": lambda: f"{len(error.instance)} characters, at most {error.validator_value}",
        "minLength": lambda: f"{len(error.instance)} characters, at least {error.validator_value}",
        "maxItems": lambda: f"{len(error.instance)} items, at most {error.validator_value}",
        "minItems": lambda: f"{len(error.instance)} items, at least {error.validator_value}",
    }
    say = limits.get(str(error.validator))
    return say() if say else (error.message if len(error.message) <= 200 else f"{error.message[:199]}…")


@lru_cache(maxsize=2)
def load(path: Path = DESCRIPTION) -> ApiDescription | None:
    """Return the description, or None where the file is not beside the checkout."""
    if not path.is_file():
        return None
    return ApiDescription(json.loads(path.read_text(encoding="utf-8")))
