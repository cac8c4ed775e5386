"""Who may do what: everybody with their own, root and luod's user for others."""

import pytest
from pydantic import ValidationError

from luod.errors import PermissionDenied
from luod.policy import Limits, Owner, Policy

LUOD, ALICE, BOB = 990, 1000, 1001
POLICY = Policy(LUOD, Limits(), descriptors=1000)


@pytest.mark.parametrize("uid", [0, LUOD, ALICE])
def test_everybody_owns_their_own(uid):
    assert POLICY.owner(uid, 5, None) == POLICY.owner(uid, 5, uid) == Owner(uid, 5, trusted_uid=uid)


@pytest.mark.parametrize("uid", [0, LUOD])
def test_operators_act_for_others_with_their_own_descriptors_too(uid):
    assert POLICY.is_operator(uid)
    POLICY.require_operator(uid)
    assert POLICY.owner(uid, 5, BOB) == Owner(BOB, 5, trusted_uid=uid)


@pytest.mark.parametrize("other", [BOB, 0, LUOD])
def test_nobody_else_does(other):
    assert not POLICY.is_operator(ALICE)
    with pytest.raises(PermissionDenied):
        POLICY.require_operator(ALICE)
    with pytest.raises(PermissionDenied):
        POLICY.owner(ALICE, 5, other)


@pytest.mark.parametrize("limit", Limits.model_fields)
@pytest.mark.parametrize("value", [0, -1, "many", None, float("nan"), True])
def test_a_limit_is_a_number_above_zero(limit, value):
    with pytest.raises(ValidationError):
        Limits(**{limit: value})


def test_seconds_may_be_whole():
    assert Limits(slow_reader_seconds=5).slow_reader_seconds == 5


def test_limits_cannot_be_changed_or_invented():
    with pytest.raises(ValidationError):
        Limits().threads_per_owner = 5
    with pytest.raises(ValidationError):
        Limits(bananas=5)
