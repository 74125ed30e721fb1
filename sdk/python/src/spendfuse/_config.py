"""Settings, and where they come from: arguments, then the environment, then defaults."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Mapping, Optional

DEFAULT_URL = "http://127.0.0.1:4117"

ON_UNAVAILABLE = ("allow", "block")
DOWNGRADE = ("apply", "raise", "ignore")
MODE = ("check", "watch")


@dataclass(frozen=True)
class Config:
    #: The sidecar: `http://host:port`, `https://host`, `unix:/path`.
    url: str = DEFAULT_URL
    token: Optional[str] = None
    workspace: Optional[str] = None
    #: Part of the identity of events whose id is not a provider's.
    source: str = "spendfuse-python"
    #: Whether the sidecar is asked before each call, or followed in the background.
    mode: str = "check"
    #: What becomes of calls while the sidecar cannot be reached.
    on_unavailable: str = "allow"
    #: What becomes of calls for which a budget allows a cheaper model only.
    downgrade: str = "apply"
    #: Whether calls of wrapped clients hold what they may cost.
    reserve: bool = False
    #: Seconds for a check, all in all.
    check_timeout: float = 0.05
    #: Seconds for the answer to one that reserves: near a limit it waits until the sidecars know who came
    #: first, two seconds at most. A sidecar that cannot be connected to is given up as for other checks.
    reserve_timeout: float = 2.5
    #: Seconds for a batch of events; the sidecar answers once they are safe.
    delivery_timeout: float = 10.0
    #: Events that wait at most; beyond, new ones are dropped, counted and logged.
    queue_size: int = 10_000
    #: Seconds for what waits when the process ends.
    exit_timeout: float = 2.0
    #: The workspace's key for fingerprints of prompts, without which `retry_loop` finds nothing.
    fingerprint_key: Optional[bytes] = None
    #: Nothing is asked and nothing is told.
    disabled: bool = False

    def __post_init__(self) -> None:
        _one_of("on_unavailable", self.on_unavailable, ON_UNAVAILABLE)
        _one_of("downgrade", self.downgrade, DOWNGRADE)
        _one_of("mode", self.mode, MODE)
        if self.queue_size < 1:
            raise ValueError("queue_size must be at least 1")


def from_environment(environment: Optional[Mapping[str, str]] = None, **arguments: object) -> Config:
    """What `arguments` do not say (`None`) is taken from `SPENDFUSE_…` variables."""
    environment = os.environ if environment is None else environment
    settings: dict[str, object] = {}

    def put(name: str, *variables: str) -> None:
        told = next((environment[one] for one in variables if environment.get(one)), None)
        if told is not None:
            settings[name] = told

    # `make up` and containers call the address SPENDFUSE_SIDECAR_URL.
    put("url", "SPENDFUSE_URL", "SPENDFUSE_SIDECAR_URL")
    put("token", "SPENDFUSE_TOKEN")
    put("workspace", "SPENDFUSE_WORKSPACE")
    put("on_unavailable", "SPENDFUSE_ON_UNAVAILABLE")
    put("mode", "SPENDFUSE_MODE")
    key = environment.get("SPENDFUSE_FINGERPRINT_KEY")
    if key:
        settings["fingerprint_key"] = key.encode()
    disabled = environment.get("SPENDFUSE_DISABLED", "").lower()
    settings["disabled"] = disabled not in ("", "0", "false", "no")
    settings.update({name: value for name, value in arguments.items() if value is not None})
    return Config(**settings)  # type: ignore[arg-type]


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; write {' or '.join(map(repr, allowed))}")
