"""Print the versions that lerpbench's own dependencies have in this environment, as constraints for pip and uv.

python -m tools.constraints > constraints.txt        (`make constraints`)
"""

from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OWN = ("lerpbench", "pip", "setuptools", "torch")  # every environment has its own; `make TORCH=...` chooses torch


def needed(name: str, extras: frozenset[str], found: dict[str, str]) -> None:
    """Add a package's version, and those of all that it needs here with these extras."""
    try:
        package = distribution(name)
    except PackageNotFoundError:
        return  # of an extra that is not installed
    found[canonicalize_name(name)] = package.version.partition("+")[0]  # a build's own label is not its version
    for line in package.requires or ():
        requirement = Requirement(line)
        here = requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in extras or {""})
        if here and canonicalize_name(requirement.name) not in found:
            needed(requirement.name, frozenset(requirement.extras), found)


def main() -> None:
    found: dict[str, str] = {}
    needed("lerpbench", frozenset(), found)
    print("# The versions that the tests last passed with; `make constraints` writes them.")
    for name, version in sorted(found.items()):
        if name not in OWN:
            print(f"{name}=={version}")


if __name__ == "__main__":
    main()
