"""JSON Schemas of what travels over the wire, made from the shapes and requests themselves.

OpenAPI and AsyncAPI are put together from these; nothing is described twice. No request is read with them.
"""

from collections.abc import Collection, Iterable
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from app.wire.requests import Request, SettingsRequest

Schema = dict[str, Any]


class _Generator(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        """A field's title would only repeat its name."""
        return False


def reference(model: type) -> Schema:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def components(*, answers: Iterable[type], requests: Collection[type[Request]]) -> dict[str, Schema]:
    """By name: the schemas of these models, and of every model within them."""
    documented = ConfigDict(use_attribute_docstrings=True)
    inputs: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        # A shape takes its configuration from what it is part of, and has none of its own.
        *((shape.__name__, "serialization", TypeAdapter(list[shape], config=documented)) for shape in answers),  # type: ignore[valid-type]
        *((request.__name__, "validation", TypeAdapter(request)) for request in requests),
    ]
    _, schema = TypeAdapter.json_schemas(
        inputs, schema_generator=_Generator, ref_template="#/components/schemas/{model}"
    )
    found: dict[str, Schema] = schema["$defs"]
    # The value that stands in for a setting that was not given is not what becomes of it: it stays as it is.
    for request in requests:
        if issubclass(request, SettingsRequest):
            for setting in found[request.__name__]["properties"].values():
                setting.pop("default", None)
    return dict(sorted(found.items()))
