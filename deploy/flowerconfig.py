"""Flower's options, for ``flower --conf=deploy/flowerconfig.py``."""

import os

address = "127.0.0.1"
port = 5555
max_tasks = 20_000
# Without it every restart logs everybody out.
cookie_secret = os.environ.get("FLOWER_COOKIE_SECRET", "")
# FLOWER_BASIC_AUTH=user:password,other:password
if os.environ.get("FLOWER_BASIC_AUTH"):
    basic_auth = os.environ["FLOWER_BASIC_AUTH"].split(",")
