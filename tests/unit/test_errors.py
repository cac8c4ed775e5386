"""Every error has a name on the wire, parameters that say what was wrong, and a text for people."""

import json
from dataclasses import fields
from errno import EBUSY

import pytest

from luod import errors
from luod.interface import custody, description, update
from luod.varlink.service import NAME as VARLINK

SAMPLES = {int: 16, str: "so {so} 'it' is", list[str]: ["one", "two"]}


def a(kind):
    return kind(*(SAMPLES[field.type] for field in fields(kind)))


ALL = list(errors.wire_errors())


def test_there_is_one_class_for_each_error():
    names = [kind.wire_name() for kind in ALL]
    assert len(set(names)) == len(names)
    assert "io.luod.Custody.SessionNotFound" in names
    assert "org.varlink.service.InvalidParameter" in names


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_its_text_can_be_said_and_holds_its_facts(kind):
    text = str(a(kind))
    assert text
    assert "{interface" not in text
    for field in fields(kind):
        if field.type is int and field.name != "errno":
            assert "16" in text
    assert "EBUSY" in text or not any(field.name == "errno" for field in fields(kind))


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_its_parameters_are_json_under_the_names_of_its_description(kind):
    parameters = json.loads(json.dumps(a(kind).parameters()))
    assert len(parameters) == len(fields(kind))
    interface = kind.interface
    text = description(interface)
    for name in parameters:
        assert name in text or interface == VARLINK  # `reason` goes beyond Varlink's own


def test_the_interfaces_are_those_that_are_served():
    assert {kind.interface for kind in ALL} == {VARLINK, custody.NAME, update.NAME}


def test_an_errno_is_a_number_on_the_wire_and_a_name_in_the_text():
    error = errors.FinishRefused("ram", EBUSY)
    assert error.parameters() == {"session": "ram", "errno": EBUSY}
    assert str(error) == "the kernel refuses to finish session 'ram': EBUSY"
    assert str(errors.FinishRefused("ram", 99999)).endswith(": 99999")


def test_errors_are_told_apart_by_identity():
    assert errors.SessionNotFound("ram") != errors.SessionNotFound("ram")
    assert len({errors.PermissionDenied(), errors.PermissionDenied()}) == 2
