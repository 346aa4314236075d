"""Returns its environment."""

import os


def run():
    return dict(os.environ)
