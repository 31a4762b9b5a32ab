"""Run a search in a process of its own, so that tests can kill it: STUDY RUN TRAINER."""

import sys
from pathlib import Path

from autoembed.search.driver import run_study
from autoembed.search.study import load_study

if __name__ == "__main__":
    run_study(load_study(Path(sys.argv[1])), Path(sys.argv[2]), trainer=sys.argv[3])
