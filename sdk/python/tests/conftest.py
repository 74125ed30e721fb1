from __future__ import annotations

import functools
import os
import ssl
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest

sys.path.insert(0, str(Path(__file__).parent))

# What the machine has set is not the tests'.
for _name in [name for name in os.environ if name.startswith("SPENDFUSE_") and not name.startswith("SPENDFUSE_TEST")]:
    del os.environ[_name]

# Every client loads the certificates of all authorities again, which takes most of the time here.
ssl.create_default_context = functools.lru_cache(maxsize=None)(ssl.create_default_context)  # type: ignore[assignment]

from fake import FakeSidecar  # noqa: E402
from spendfuse.testing import Recorder  # noqa: E402
from stub import Provider  # noqa: E402


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.stop()


@pytest.fixture
def sidecar() -> Iterator[FakeSidecar]:
    sidecar = FakeSidecar()
    yield sidecar
    sidecar.stop()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder(workspace="acme")
    yield recorder
    recorder.shutdown(5)


@pytest.fixture
def clients(provider: Provider) -> Any:
    """Makes clients of the three providers' own packages that call the stub."""
    return Clients(provider.url)


class Clients:
    def __init__(self, url: str) -> None:
        self.url = url

    def openai(self, **more: Any) -> Any:
        import openai

        return openai.OpenAI(api_key="sk-of-the-provider", base_url=self.url + "/v1", **more)

    def async_openai(self, **more: Any) -> Any:
        import openai

        return openai.AsyncOpenAI(api_key="sk-of-the-provider", base_url=self.url + "/v1", **more)

    def anthropic(self, **more: Any) -> Any:
        import anthropic

        return anthropic.Anthropic(api_key="sk-of-the-provider", base_url=self.url, **more)

    def async_anthropic(self, **more: Any) -> Any:
        import anthropic

        return anthropic.AsyncAnthropic(api_key="sk-of-the-provider", base_url=self.url, **more)

    def gemini(self) -> Any:
        from google import genai
        from google.genai.types import HttpOptions

        return genai.Client(api_key="key-of-the-provider", http_options=HttpOptions(base_url=self.url))
