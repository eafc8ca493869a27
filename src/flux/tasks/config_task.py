"""Import path that users of workflows know."""

from flux.engine.config_task import get_config

__all__ = ["get_config"]
