"""The static leaderboard: databases in, plain files out.  Imports no model code, so it renders on any laptop."""

from leaderboard.comparison import compare
from leaderboard.render import render

__all__ = ["compare", "render"]
