"""Control methods by name; a third party adds its own through the entry point group `lerpbench.methods`."""

from bench.registry import Registry
from methods.base import Method

TABLE = {
    "base": "methods.references:Base",
    "expert": "methods.references:Expert",
    "antiexpert": "methods.references:Antiexpert",
    "g1": "methods.interpolation:G1",
    "g2": "methods.interpolation:G2",
    "g3": "methods.interpolation:G3",
    "dexperts": "methods.ensembling:DExperts",
    "logit_g3": "methods.ensembling:LogitG3",
    "task_arithmetic": "methods.arithmetic:TaskArithmetic",
    "expo": "methods.arithmetic:Expo",
    "rewarded_soups": "methods.arithmetic:RewardedSoups",
    "slerp": "methods.slerp:Slerp",
    "ties": "methods.ties:Ties",
    "dare": "methods.dare:Dare",
    "della": "methods.della:Della",
    "breadcrumbs": "methods.breadcrumbs:Breadcrumbs",
    "model_stock": "methods.model_stock:ModelStock",
    "dera": "methods.decoding:Dera",
    "mod": "methods.decoding:Mod",
    "probs": "methods.decoding:Probs",
    "contrastive": "methods.decoding:Contrastive",
    "proxy_tuning": "methods.decoding:ProxyTuning",
    "prompt": "methods.prompting:Prompt",
    "cfg": "methods.prompting:Cfg",
    "preadd": "methods.prompting:Preadd",
    "activation_addition": "methods.activations:ActivationAddition",
    "mixture": "methods.mixture:Mixture",
}


def registry() -> Registry[Method]:
    """The registry of methods, plugins included."""
    return Registry("method", Method, TABLE, "lerpbench.methods")
