#!/usr/bin/env python3
"""Exit with 0 if this container's server is ready; $READY_KEY is a key with the role metrics."""

import os
import sys
from urllib.error import URLError
from urllib.request import Request, urlopen

request = Request("http://127.0.0.1:8000/ready")
if key := os.environ.get("READY_KEY"):
    request.add_header("Authorization", f"Bearer {key}")
try:
    urlopen(request, timeout=4).close()
except URLError as error:
    sys.exit(f"not ready: {error}")
