"""A scripted model that notes how many of its requests were under way at most."""

from __future__ import annotations

from agentcomm.backends.base import ChatRequest
from agentcomm.backends.scripted import Scripted
from agentcomm.message import Reply


class Watching(Scripted):
    """``most`` requests were in flight at once so far."""

    now = most = 0

    async def chat(self, request: ChatRequest) -> Reply:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            return await super().chat(request)
        finally:
            self.now -= 1
