"""The static leaderboard: databases in, plain files out.  Imports no model code, so it renders on any laptop."""
