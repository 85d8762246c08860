"""JSON Schemas of requests, responses and frames, generated from the shapes and request models.

OpenAPI and AsyncAPI contain them. No request is validated with them.
"""

from collections.abc import Iterable
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from app.wire.requests import Request

Schema = dict[str, Any]


class _Generator(GenerateJsonSchema):
    def default_schema(self, schema: Any) -> Schema:
        """The schema of a field without its default: generated clients make a field with a default mandatory.

        A default that matters is in the field's description. A setting's default is never used: a setting that is not
        given keeps its value.
        """
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: Any) -> bool:
        """A field's title would only repeat its name."""
        return False


def reference(model: type) -> Schema:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def components(*, answers: Iterable[type], requests: Iterable[type[Request]]) -> dict[str, Schema]:
    """The schemas of these models and of every model within them, by name."""
    documented = ConfigDict(use_attribute_docstrings=True)
    inputs: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        # A TypedDict has no configuration of its own; it takes that of the type around it.
        *((shape.__name__, "serialization", TypeAdapter(list[shape], config=documented)) for shape in answers),  # type: ignore[valid-type]
        *((request.__name__, "validation", TypeAdapter(request)) for request in requests),
    ]
    _, schema = TypeAdapter.json_schemas(
        inputs, schema_generator=_Generator, ref_template="#/components/schemas/{model}"
    )
    found: dict[str, Schema] = schema["$defs"]
    return {name: _without_siblings(schema) for name, schema in sorted(found.items())}


def _without_siblings(schema: Any) -> Any:
    """The schema without keys beside a `$ref`, because some tools ignore these."""
    if isinstance(schema, list):
        return [_without_siblings(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: _without_siblings(value) for name, value in schema.items()}
    if "$ref" in inner and len(inner) > 1:
        return {"allOf": [{"$ref": inner.pop("$ref")}], **inner}
    return inner
