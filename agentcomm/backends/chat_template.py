"""Chat templates: one way from chat messages to prompt tokens, for calls and for training rows alike.

A template without a system role gets that text at the head of the first user message; whether it
has one is found out by trying, not guessed from the model's name.

Deliberately absent: transformers itself; a tokenizer is handed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from agentcomm.errors import ConfigError
from agentcomm.message import ChatMessage

PROBE = "Zq7 probe"


class ChatTokenizer(Protocol):
    """The part of a transformers tokenizer that is used here."""

    chat_template: Any
    name_or_path: str

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any: ...


def require_template(tokenizer: ChatTokenizer) -> None:
    """Refuse a tokenizer without a chat template.

    Raises
    ------
    ConfigError
        If it has none.
    """
    if not tokenizer.chat_template:
        raise ConfigError(
            f"the model {tokenizer.name_or_path!r} has no chat template, so what agents say can't be "
            "rendered; use an instruction-tuned model, or add chat_template.jinja to its folder"
        )


def has_system_role(tokenizer: ChatTokenizer) -> bool:
    """Whether the chat template shows a system message, found out by trying."""
    probe = [{"role": "system", "content": PROBE}, {"role": "user", "content": "x"}]
    try:
        return PROBE in str(tokenizer.apply_chat_template(probe, tokenize=False))
    except Exception:  # templates raise their own errors, through jinja2 or not
        return False


def folded(prompt: Iterable[ChatMessage]) -> tuple[ChatMessage, ...]:
    """The prompt for a chat template without a system role: that text opens the first user message."""
    messages = tuple(prompt)
    if len(messages) < 2 or messages[0].role != "system":
        return messages
    first, second, *rest = messages
    return (ChatMessage("user", f"{first.content}\n\n{second.content}"), *rest)


def prompt_ids(
    tokenizer: ChatTokenizer, prompt: Sequence[ChatMessage], *, said: str | None = None, system: bool = True
) -> list[int]:
    """Token ids of a prompt, up to where the reply begins; with ``said``, of prompt and reply together.

    Parameters
    ----------
    system:
        Whether the template shows a system message (:func:`has_system_role`).

    Raises
    ------
    ConfigError
        If the template, or the tokenizer, refuses the messages.
    """
    chat = [m.as_dict() for m in (prompt if system else folded(prompt))]
    if said is not None:
        chat.append({"role": "assistant", "content": said})
    try:
        # transformers 5 returns a mapping
        found = tokenizer.apply_chat_template(chat, add_generation_prompt=said is None, return_dict=True)
        return list(found["input_ids"])
    except Exception as error:  # templates raise their own errors, through jinja2 or not
        roles = ", ".join(m["role"] for m in chat) or "none"
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"the chat template of {tokenizer.name_or_path!r} refuses these messages (roles: {roles}): {why}"
        ) from error
