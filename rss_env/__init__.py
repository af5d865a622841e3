"""RSS: semantic segmentation from rewards, as Gymnasium environments. Importing it registers the ids."""

from rss_env.env import SegmentationEnv
from rss_env.registration import ENV_IDS, register
from rss_env.vector import SegmentationVectorEnv

__version__ = "0.1.0"
__all__ = ["ENV_IDS", "SegmentationEnv", "SegmentationVectorEnv", "__version__", "register"]

register()
