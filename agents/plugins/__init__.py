"""The paper's plug-ins (our reading), tensors in and tensors out, for anybody's policy-gradient loop.

    from rss_agents.ops import policy_gradient, sample_label_maps
    from rss_agents.plugins import CellSchedule, SyncAN, leave_one_out, pair_advantages

In a checkout the package is called ``agents``.
"""

from .leave_one_out import leave_one_out
from .psd import pair_advantages
from .psr import CellSchedule
from .sync_an import SyncAN

__all__ = ["CellSchedule", "SyncAN", "leave_one_out", "pair_advantages"]
