"""Executes a program with environment variables that supervisor's configuration can't hold.

usage: with_environment.py COMMAND [ARGUMENT...]

They are in FASTAPI_HOST_ENVIRONMENT, a JSON object in base64, whose place they take. The process stays the same one.
"""

import base64
import json
import os
import sys

ENCODED = b"FASTAPI_HOST_ENVIRONMENT"


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    # As supervisord gave it; Python adds LC_CTYPE to os.environ in some locales.
    with open("/proc/self/environ", "rb") as stream:
        environment = dict(item.split(b"=", 1) for item in stream.read().split(b"\0") if item)
    variables = json.loads(base64.b64decode(environment.pop(ENCODED)))
    # In UTF-8, whatever the locale is.
    environment.update({name.encode(): value.encode() for name, value in variables.items()})
    try:
        os.execvpe(sys.argv[1], sys.argv[1:], environment)
    except OSError as error:
        sys.exit(f"can't execute {sys.argv[1]}: {error.strerror}")


if __name__ == "__main__":
    main()
