"""The leaderboard: agents ranked by the mIoU that a budget of reward queries buys; anyone can add an entry."""
