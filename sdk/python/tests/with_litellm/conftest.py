from __future__ import annotations

import os

# Without it LiteLLM fetches its prices from the internet, at its import.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
