"""Names that nobody else gives, in this process or another one."""

from __future__ import annotations

import os
import random

# Its own, because an app that seeds the module's would name the same calls at every start. And not
# `uuid4`: that asks the system each time, which lets go of the interpreter amid a call.
_random = random.Random()


def fresh() -> str:
    """128 bits in hex digits."""
    return f"{_random.getrandbits(128):032x}"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_random.seed)
