"""Folders of tiny models, made once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def chat(folders: Path) -> Path:
    """A model with a chat template; one token a byte."""
    from tests.information.scorers.models import CHAT, byte_tokenizer, save

    return save(folders / "chat", byte_tokenizer(CHAT))


@pytest.fixture(scope="session")
def plain(folders: Path) -> Path:
    """The same weights without a chat template."""
    from tests.information.scorers.models import byte_tokenizer, save

    return save(folders / "plain", byte_tokenizer(None))


@pytest.fixture(scope="session")
def sliding(folders: Path) -> Path:
    """A model that looks back 200 tokens only, less than a head has."""
    from tests.information.scorers.models import CHAT, byte_tokenizer, save

    return save(folders / "sliding", byte_tokenizer(CHAT), kind="mistral", sliding_window=200)


@pytest.fixture(scope="session")
def worded(folders: Path) -> Path:
    """A model of whole words, most of which its tokenizer doesn't know."""
    from tests.information.scorers.models import save, word_tokenizer

    return save(folders / "worded", word_tokenizer(["red", "green", "blue", "pink", "black", "white"]))
