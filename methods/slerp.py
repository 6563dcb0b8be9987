"""Along the arc between two checkpoints."""

from bench.schema import Recipe
from methods.base import FiniteFloat, Method, merged


class Slerp(Method):
    """Spherical interpolation, tensor by tensor: g1 along the arc in place of the chord."""

    source = "Shoemake 1985, Animating Rotation with Quaternion Curves, section 3.3; as a merge: mergekit"
    formula = "sin((1 - alpha) w) / sin(w) theta- + sin(alpha w) / sin(w) theta+, w the angle between them"
    alpha: FiniteFloat

    def recipe(self) -> Recipe:
        return merged("slerp", of={"expert": self.alpha, "antiexpert": 1 - self.alpha})
