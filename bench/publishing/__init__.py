"""Results made public: what goes where -> files -> a repository on the hub, a branch, or a board that others add to."""
