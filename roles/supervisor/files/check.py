"""Tells whether supervisor would read a candidate of its configuration, beside the program files that are there.

usage: check.py STAGE, the folder under which the candidates lie at their full paths

supervisord has no option that only checks its configuration, so its own parser is called.
"""

import glob
import os
import sys

from supervisor.options import ServerOptions

CONFIG = "/etc/supervisord.conf"
INCLUDED = "/etc/supervisord.d/*.ini"


def main(stage):
    staged = glob.glob(stage + INCLUDED)
    kept = [path for path in glob.glob(INCLUDED) if not os.path.exists(stage + path)]
    with open(stage + CONFIG, encoding="utf-8") as source:
        text = source.read()
    candidate = stage + CONFIG + ".check"
    with open(candidate, "w", encoding="utf-8") as target:
        target.write(text.replace("files=" + INCLUDED, "files=" + " ".join([*staged, *kept])))
    ServerOptions().realize(["-n", "-c", candidate])


if __name__ == "__main__":
    main(sys.argv[1])
