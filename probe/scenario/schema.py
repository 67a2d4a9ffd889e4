"""The keys that a scenario may have -> their JSON Schema, by which editors complete and check them."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from probe.scenario.file import ScenarioKeys


def scenario_schema() -> dict[str, Any]:
    """Draft 2020-12. It knows keys, words and shapes; what a value may be `dnsprobe run --dry-run` says."""
    schema = ScenarioKeys.model_json_schema(mode="validation", schema_generator=_Schema)
    return {"$schema": _Schema.schema_dialect, **schema, "title": "A scenario of dnsprobe"}


class _Schema(GenerateJsonSchema):
    """Without defaults, which are not in the form that people type, nor titles, which repeat the keys."""

    def default_schema(self, schema: Any) -> dict[str, Any]:
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: Any) -> bool:
        del schema
        return False
