"""One measurement in a process of its own: `python -m benchmarks.child REQUEST`, both ways JSON.

A request names a function and its arguments; the answer is what it returns: values by name. Nothing else
is imported here, so that import and memory can be measured too.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys


def main() -> None:
    request = json.loads(sys.argv[1])
    module, _, name = request["program"].partition(":")
    answer = getattr(importlib.import_module(module), name)(**request["arguments"])
    if inspect.isawaitable(answer):
        import asyncio

        async def run() -> object:
            return await answer

        answer = asyncio.run(run())
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
