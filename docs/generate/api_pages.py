"""The reference: which modules stand on which page."""

from __future__ import annotations

API = {
    "Environments": (
        "rss_env.env",
        "rss_env.vector",
        "rss_env.torch_vector",
        "rss_env.registration",
        "rss_env.errors",
    ),
    "Rewards": ("rss_env.rewards",),
    "Wrappers": ("rss_env.wrappers", "rss_env.wrappers.vector"),
    "Integrations": ("rss_env.integrations.sb3",),
    "Metrics and evaluation": ("rss_env.metrics", "rss_env.evaluation"),
    "Data sets": ("rss_env.datasets", "rss_env.datasets.info.Archive", "rss_env.datasets.download"),
    "Rendering": ("rss_env.rendering",),
    "Training": (
        "agents.training.loop.train",
        "agents.training.loop.Result",
        "agents.training.arguments.TrainArguments",
        "agents.training.algorithm",
        "agents.training.feedback",
        "agents.training.callbacks.Callback",
        "agents.training.callbacks.StopTraining",
        "agents.callbacks.Tracker",
        "agents.callbacks.WandB",
        "agents.callbacks.Trackio",
    ),
    "Algorithms": (
        "agents.likelihood.Likelihood",
        "agents.rss.RSS",
        "agents.supervised.Supervised",
        "agents.weak_labels.WeakLabels",
    ),
    "Plug-ins": (
        "agents.plugins.leave_one_out",
        "agents.plugins.psr",
        "agents.plugins.psd",
        "agents.plugins.sync_an",
    ),
    "Networks": (
        "agents.networks",
        "agents.networks.unet.UNet",
        "agents.networks.efficientnet.EfficientNetLite0",
        "agents.networks.timm.TimmUNet",
        "agents.networks.smp.SmpNetwork",
        "agents.networks.transformers.TransformersNetwork",
        "agents.networks.fine_tuning",
        "agents.networks.libraries.Preprocessing",
        "agents.networks.checkpoints",
    ),
    "Policies": (
        "agents.networks.policy.load",
        "agents.networks.policy.Policy",
        "agents.networks.exporting",
        "agents.networks.hub.push",
    ),
    "Operations": ("agents.ops",),
}


def api_pages() -> dict[str, tuple[str, str]]:
    """Title of each page -> (address, Markdown)."""
    return {
        title: (
            f"api/{title.lower().replace(' ', '_')}.md",
            "\n\n".join([f"# {title}", *(f"::: {module}" for module in modules), ""]),
        )
        for title, modules in API.items()
    }
