"""A name, a resolv.conf -> the lookup that an application would make, as each resolver takes its steps."""

from probe.clients.profiles import CLIENTS, Profile
from probe.clients.steps import Answer, Client

__all__ = ["CLIENTS", "Answer", "Client", "Profile"]
