"""Import path that users of workflows know."""

from flux.engine.workflows.config_task import get_config

__all__ = ["get_config"]
