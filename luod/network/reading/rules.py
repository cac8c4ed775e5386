"""The routing rules that there are, but for those that every kernel has."""

from collections.abc import Iterator
from socket import AF_UNSPEC
from typing import Any, Final

from pydantic import ValidationError
from pyroute2 import IPRoute

from luod.network.abi import (
    FIB_RULE_INVERT,
    FR_ACT_GOTO,
    FR_ACT_TO_TBL,
    FRA_DPORT_MASK,
    FRA_SPORT_MASK,
    NO_PREFIXLEN,
    RT_TABLE_DEFAULT,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTPROT_KERNEL,
)
from luod.network.model import Family, LeftOut, Rule
from luod.network.reading.messages import FAMILIES, Told, dump
from luod.network.words import said

_USUAL: Final = frozenset({(0, RT_TABLE_LOCAL), (32766, RT_TABLE_MAIN), (32767, RT_TABLE_DEFAULT)})
"""Priority and table of those that every kernel has."""


def rules(ip: IPRoute) -> Iterator[Rule | LeftOut]:
    for message in dump(ip.rule, family=AF_UNSPEC):
        family = FAMILIES.get(message["family"])
        if family is None:
            continue
        told = Told(message)
        try:
            rule = _rule(message, family, told)
        except ValidationError as error:
            yield LeftOut.refused(f"rule {told('FRA_PRIORITY') or 0} of {family}", error, None)
            continue
        if not all(_is_a_whole_port(*each) for each in told.unknown()):
            reason = "it has a selector that isn't handed over"
            yield LeftOut(what=said(rule), reason=reason, link=rule.iifname or rule.oifname)
        elif not _is_usual(rule):
            yield rule


def _rule(message: Any, family: Family, told: Told) -> Rule:
    """Raises ValidationError where it can't be written down."""
    suppressed = told("FRA_SUPPRESS_PREFIXLEN")
    return Rule(
        family=family,
        priority=told("FRA_PRIORITY") or 0,
        action=message["action"],
        table=(told("FRA_TABLE") or None) if message["action"] == FR_ACT_TO_TBL else None,
        goto=told("FRA_GOTO") if message["action"] == FR_ACT_GOTO else None,
        realms=told("FRA_FLOW"),
        invert=bool(message["flags"] & FIB_RULE_INVERT),
        source=f"{told('FRA_SRC')}/{message['src_len']}" if "FRA_SRC" in told else None,
        destination=f"{told('FRA_DST')}/{message['dst_len']}" if "FRA_DST" in told else None,
        tos=message["tos"],
        iifname=told("FRA_IIFNAME"),
        oifname=told("FRA_OIFNAME"),
        fwmark=told("FRA_FWMARK"),
        fwmask=told("FRA_FWMASK"),
        ip_proto=told("FRA_IP_PROTO"),
        sport_range=_range(told("FRA_SPORT_RANGE")),
        dport_range=_range(told("FRA_DPORT_RANGE")),
        uid_range=_range(told("FRA_UID_RANGE")),
        l3mdev=told("FRA_L3MDEV"),
        tun_id=told("FRA_TUN_ID"),
        suppress_prefixlen=suppressed if suppressed != NO_PREFIXLEN else None,
        suppress_ifgroup=told("FRA_SUPPRESS_IFGROUP"),
        protocol=told("FRA_PROTOCOL"),
    )


def _range(value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    first, last = value.split(":")
    return int(first), int(last)


def _is_a_whole_port(number: int, value: bytes) -> bool:
    """Whether an attribute of a rule says of a port only that all of it counts."""
    return number in {FRA_SPORT_MASK, FRA_DPORT_MASK} and value[:2] in {b"\xff\xff", b"\0\0"}


def _is_usual(rule: Rule) -> bool:
    """Whether each kernel has this rule: or one with VRFs."""
    if rule.l3mdev:
        return rule.protocol == RTPROT_KERNEL
    if (rule.priority, rule.table) not in _USUAL:
        return False
    same = Rule(family=rule.family, priority=rule.priority, action=FR_ACT_TO_TBL, table=rule.table)
    return rule == same.model_copy(update={"protocol": rule.protocol})
