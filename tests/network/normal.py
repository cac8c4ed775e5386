"""What `ip` and `bridge` show of a network, without what no setting of anybody says: before and after are equal in it.

What is taken out is in the tables here, each with why it is.
"""

import json
import time

NUMBERS = {
    "ifindex",
    "link_index",
}
"""A kernel's own, in the order in which links came."""

BY_CARRIER = {
    "operstate",
    "qdisc",  # "noop" until a link is up for the first time; those that are set by tc aren't handed over
}
"""What follows from a cable, from the other end and from the order of things."""

FLAGS_BY_CARRIER = {"LOWER_UP", "NO-CARRIER", "DORMANT", "linkdown", "dead"}

OF_BRIDGES = {
    "hello_timer",
    "tcn_timer",
    "topology_change_timer",
    "gc_timer",
    "topology_change",
    "topology_change_detected",
    "root_id",
    "root_port",
    "root_path_cost",
}
"""Timers, and what the spanning tree has come to."""

OF_PORTS = {
    "state",
    "hold_timer",
    "message_age_timer",
    "forward_delay_timer",
    "topology_change_ack",
    "config_pending",
    "root_id",
    "bridge_id",
    "designated_cost",
    "designated_port",
    "id",  # with the number, below
    "no",  # in the order in which ports came
    "mcast_eht_hosts_cnt",
    "mcast_n_groups",
    # of a bond's
    "mii_status",
    "link_failure_count",
    "perm_hwaddr",  # what a virtual port had by chance before it was one
    "ad_aggregator_id",
    "ad_actor_oper_port_state",
    "ad_actor_oper_port_state_str",
    "ad_partner_oper_port_state",
    "ad_partner_oper_port_state_str",
}
"""Timers, and what the protocols of bridges and bonds have come to."""

OF_KINDS = {
    "active_slave",  # of a bond: what it has chosen
    "ad_info",
    "numqueues",  # of a tap: who has it open
    "numdisabled",
    "usedbcqueuelen",  # of a macvlan: the longest that any one on that link asks for
}

OF_ADDRESSES = {
    "valid_life_time",  # that it ends is told by "dynamic"
    "preferred_life_time",
    "tentative",  # for a second, while others are asked (DAD)
}

OF_ROUTES = {
    "expires",
    "cache",
}


def picture(namespace):
    """All that is set in a network namespace, by what it is; parts of it can be compared, too."""
    return {
        "links": links(namespace),
        "addresses": addresses(namespace),
        "routes": routes(namespace),
        "rules": rules(namespace),
        "neighbours": neighbours(namespace),
        "fdb": fdb(namespace),
        "vlans": sorted(namespace.bridge("vlan", "show"), key=_name),
        "ports": ports(namespace),
    }


def pictures(one, other, seconds=20):
    """Those of two namespaces, once they are equal, or won't be: what the kernel makes of an address by itself, as the
    route to its peer, comes a moment later.
    """
    deadline = time.monotonic() + seconds
    while True:
        both = picture(one), picture(other)
        if both[0] == both[1] or time.monotonic() > deadline:
            return both


def links(namespace):
    return sorted(map(_link, namespace.ip("link", "show")), key=_name)


def addresses(namespace):
    """By link, in their order: the first is the one that a host speaks from."""
    return {
        link["ifname"]: [
            _without(address, OF_ADDRESSES) for address in link["addr_info"] if not _is_link_local(address)
        ]
        for link in sorted(namespace.ip("address", "show"), key=_name)
    }


def routes(namespace):
    """Those of one destination and metric in their order, without what follows from addresses once DAD is over."""
    found = [
        (family, _flagged(_without(route, OF_ROUTES)))
        for family in ("-4", "-6")
        for route in namespace.ip(family, "route", "show", "table", "all")
        if not (route.get("protocol") == "kernel" and (route["table"] == "local" or route["dst"] == "fe80::/64"))
    ]
    return sorted(found, key=lambda each: (each[0], *_words(each[1], "table", "dst", "metric", "tos", "dev")))


def rules(namespace):
    return [(family, rule) for family in ("-4", "-6") for rule in namespace.ip(family, "rule", "show")]


def neighbours(namespace):
    """Those that stay; the others come and go."""
    found = [neighbour for neighbour in namespace.ip("neigh", "show") if "PERMANENT" in neighbour["state"]]
    proxied = namespace.ip("neigh", "show", "proxy")
    return [sorted(each, key=lambda neighbour: _words(neighbour, "dev", "dst")) for each in (found, proxied)]


def fdb(namespace):
    """Without what is learned, and without what devices filter multicast by, which follows from the addresses."""
    found = [
        entry
        for entry in namespace.bridge("fdb", "show")
        if (entry["state"] or {"extern_learn", "sticky"} & set(entry["flags"]))
        and not ("self" in entry["flags"] and int(entry["mac"][:2], 16) & 1)
    ]
    return sorted(found, key=lambda entry: json.dumps(entry, sort_keys=True))


def ports(namespace):
    return sorted(
        (_flagged(_without(port, NUMBERS | OF_PORTS)) for port in namespace.bridge("link", "show")), key=_name
    )


def _link(link):
    link = _flagged(_without(link, NUMBERS | BY_CARRIER))
    if info := link.get("linkinfo"):
        link["linkinfo"] = info = dict(info)
        if data := info.get("info_data"):
            info["info_data"] = data = _without(data, OF_BRIDGES | OF_KINDS)
            if "macaddr_data" in data:  # of a hash table
                data["macaddr_data"] = sorted(data["macaddr_data"])
        if "info_slave_data" in info:
            info["info_slave_data"] = _without(info["info_slave_data"], OF_PORTS)
    return link


def _is_link_local(address):
    """Whether the kernel has made an address itself: it comes with the carrier, and follows from the MAC."""
    return address["family"] == "inet6" and address["scope"] == "link" and "ff:fe" in address["local"]


def _flagged(thing):
    thing = dict(thing)
    for part in (thing, *thing.get("nexthops", ())):
        if "flags" in part:
            part["flags"] = [flag for flag in part["flags"] if flag not in FLAGS_BY_CARRIER]
    return thing


def _without(thing, keys):
    return {key: value for key, value in thing.items() if key not in keys}


def _name(thing):
    return thing["ifname"]


def _words(thing, *keys):
    return [str(thing.get(key, "")) for key in keys]
