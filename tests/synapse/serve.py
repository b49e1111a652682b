"""Synapse, for as long as the test that started it lives: with the test, our standard input ends."""

import os
import runpy
import sys
import threading


def end_with_the_test() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


threading.Thread(target=end_with_the_test, daemon=True).start()
runpy.run_module("synapse.app.homeserver", run_name="__main__", alter_sys=True)
