"""Reproducible whole-brain tractography of BIDS datasets.

The names in ``__all__`` are the Python interface; docs/python.md describes it.
"""

__version__ = "0.1.0"

BIDS_VERSION = "1.11.1"
"""Version of the BIDS specification that written datasets follow."""

# Loaded when they are first used: the command line has to start quickly. Types are in
# __init__.pyi.
_MODULES = {
    "Config": "config",
    "Done": "pipeline.process",
    "Failure": "app.outcome",
    "Request": "app.request",
    "Skipped": "app.outcome",
    "Tractogram": "api",
    "TractographyError": "errors",
    "read_config": "api",
    "read_record": "outputs.run",
    "read_tractogram": "api",
    "run": "api",
    "track": "api",
    "write_phantom": "phantom",
}
__all__ = ["BIDS_VERSION", "__version__", *_MODULES]


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
