"""The host's network, carried over a live update: what is set up, as the kernel tells it by rtnetlink(7), and how it is
set up again in the next kernel. luod itself imports none of it.
"""
