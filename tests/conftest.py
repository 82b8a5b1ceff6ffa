"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

from tests.browser import Browser, open_browser

# Fixtures: a tiny Llama with the results of the whole pipeline.
pytest_plugins = ("tests.small_run",)

# Shapes in type hints are checked while the tests run, and only then.
install_import_hook("language_neurons_alignment.core", "beartype.beartype")

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test needs the network, so none may reach for it
os.environ.setdefault("MPLBACKEND", "Agg")
# vLLM would bind each of its workers to the same core, whatever else runs there.
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Its workers clean up within a second, but end only when they are told to, for which it waits 5 seconds.
os.environ.setdefault("VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS", "1")

# Tiny models run fastest on one thread: on more, busy cores make every small operation wait for them.
torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests first: a worker that is given the longest one last keeps all others waiting."""
    first: dict[Path, int] = {}
    for item in items:
        rank = 0 if item.get_closest_marker("slow") or item.get_closest_marker("vllm") else 1
        first[item.path] = min(rank, first.get(item.path, rank))
    items.sort(key=lambda item: first[item.path])


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium with a profile of its own."""
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared_folder(name: str) -> Path:
    """A folder of real data beside the repository; the test is skipped, saying so, where it is not there."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"real data are not at hand: ../shared/{name} is not beside this repository")
    return folder


@pytest.fixture(scope="session")
def mistral_reference() -> Path:
    """Real counts of Mistral-7B over MGSM, and the published mask."""
    return shared_folder("reference/mistral-7b-mgsm")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The demo's model, a real one, as a folder; made from its package at the first call."""
    from language_neurons_alignment._demo import demo_model_path
    from language_neurons_alignment.errors import MissingEngineError

    try:
        return demo_model_path()
    except MissingEngineError as missing:
        pytest.skip(str(missing))
