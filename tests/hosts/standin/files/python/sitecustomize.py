"""Give the platform Python and the installable Python of the same version a package directory each."""

import os
import site
import sys

VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"
PLATFORM = "/usr/libexec/platform-" + VERSION

if sys.prefix == sys.base_prefix == "/usr":
    is_platform = os.path.realpath(sys.executable) == PLATFORM
    site.addsitedir(f"/usr/{'lib' if is_platform else 'lib64'}/{VERSION}/site-packages")
