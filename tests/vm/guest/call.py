"""Calls a function by its name: `python3 -m vm.guest.call MODULE FUNCTION ARGUMENTS`, all that the host needs.

What it returns is the last line on stdout, as JSON after RESULT.
"""

import importlib
import json
import sys

RESULT = "\x1e"


def main():
    module, function, arguments = sys.argv[1:]
    result = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    print(RESULT + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
