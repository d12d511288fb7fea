"""What people may write."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

import pytest
from pydantic import BaseModel, ValidationError

from service_sites import schemas
from service_sites.schemas.comments import CommentCreate
from service_sites.schemas.items import WorkItemCreate, WorkItemPut, WorkItemQuery
from servicekit.web.schemas import Body, Update

DECOMPOSED = " cafe\u0301 "


def models() -> Iterator[type[BaseModel]]:
    for module in iter_modules(schemas.__path__, f"{schemas.__name__}."):
        for one in vars(import_module(module.name)).values():
            if isinstance(one, type) and issubclass(one, Body | Update) and one.__module__ == module.name:
                yield one
    yield import_module("service_sites.schemas.items").WorkItemDelete


@pytest.mark.parametrize("model", [*models()], ids=lambda model: model.__name__)
def test_no_text_is_of_invisible_characters_alone(model: type[BaseModel]) -> None:
    names = [field.alias or name for name, field in model.model_fields.items()]
    for unseen in ("\u202e\u200b", ["\u202e"]):
        with pytest.raises(ValidationError) as refused:
            model.model_validate(dict.fromkeys(names, unseen))
        assert {error["loc"][0] for error in refused.value.errors() if error["loc"]} == {*names}


@pytest.mark.parametrize(
    "said", [WorkItemCreate(title="x", type=DECOMPOSED), WorkItemPut(type=DECOMPOSED), WorkItemQuery(type=DECOMPOSED)]
)
def test_words_that_look_alike_are_one(said: WorkItemCreate | WorkItemPut | WorkItemQuery) -> None:
    assert said.type == "caf\u00e9"


def test_a_text_keeps_its_lines_and_what_joins_its_characters() -> None:
    said = " Смотри:\n\tдверь 👩\u200d🔧, \u202a+7 495 000\u202c\u00ad "
    assert CommentCreate.model_validate({"text": said}).text == said.strip()
