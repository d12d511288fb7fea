"""The events that services send each other, with their data."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from scripts.reference.code import named, sentence, table
from scripts.reference.schemas import field_rows
from servicekit.process.services import services


def page() -> str:
    """docs/reference/events.md."""
    catalogue: dict[str, type[BaseModel]] = {kind: model for one in named("CATALOGUE") for kind, model in one.items()}
    hearers = {kind: [name for name, one in services().items() if kind in one.hears] for kind in catalogue}
    types = [
        (f"`{kind}`", ", ".join(hearers[kind]) or "–", f"[{model.__name__}](#{model.__name__.lower()})")
        for kind, model in catalogue.items()
    ]
    parts = [
        "# Events",
        "What services tell each other; [events.md](../events.md) says what may be relied on. `./scripts/docs` writes "
        "this page from the services' catalogues and [services.toml](../../services.toml).",
        table(("type", "acted on by", "data"), types),
    ]
    for model in dict.fromkeys(catalogue.values()):
        schema: dict[str, Any] = model.model_json_schema(mode="serialization")
        parts += [
            f"## {model.__name__}",
            sentence(schema.get("description", "")),
            field_rows(schema, schema.get("$defs", {})),
        ]
    return "\n\n".join(parts) + "\n"
